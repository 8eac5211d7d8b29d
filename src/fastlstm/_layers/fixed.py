"""What layers with parameters have in common: what memory is laid out for stays as it was made."""

from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

FLAT = frozenset({"flat", "params"})


class Fixed:
    """Something with parameters in a flat buffer, whose sizes and buffer cannot be changed.

    A subclass names in `_fixed` what cannot be set and puts it into ``vars(self)`` itself.
    """

    flat: NDArray
    params: MappingProxyType[str, NDArray]
    _fixed: ClassVar[frozenset[str]] = FLAT

    def __setattr__(self, name: str, value: Any) -> None:
        self._refuse(name)
        super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        self._refuse(name)
        super().__delattr__(name)

    def _refuse(self, name: str) -> None:
        if name in self._fixed:
            raise AttributeError(
                f"{name}: is read-only, since memory is laid out for it; "
                "the elements of flat and params may change in place"
            )


def check_flat(value: Any, size: int, dtype: np.dtype) -> NDArray:
    """Return `value`, which comes from a pickle, as a flat buffer of this length and type."""
    if not isinstance(value, np.ndarray):
        raise TypeError(f"flat: expected an array, got {type(value).__name__}")
    if value.dtype != dtype:
        raise TypeError(f"flat: expected {dtype}, got {value.dtype}")
    if value.shape != (size,):
        raise ValueError(f"flat: expected {(size,)}, got {value.shape}")
    return np.require(np.asarray(value), requirements=["C", "A"])
