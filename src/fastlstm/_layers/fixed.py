"""What everything with parameters has in common: what memory is laid out for stays as it was made.

Decision: what changes parameters in place is let through. ``flat -= lr * gradient``, or the same
with an item of `params`, ends in Python setting the very array that was there.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, NoReturn

import numpy as np
from numpy.typing import NDArray

FLAT = frozenset({"flat", "params"})


class Params(dict[str, NDArray[Any]]):
    """Parameters by name: writable views, of which none can be replaced. Copies are plain dicts."""

    def __setitem__(self, name: str, value: NDArray[Any]) -> None:
        if name not in self or value is not self[name]:
            raise TypeError(
                f"params: its arrays cannot be replaced, but written: params[{name!r}][...] = ..."
            )

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise TypeError("params: its arrays cannot be replaced or removed")

    __delitem__ = __ior__ = clear = pop = popitem = setdefault = update = _refuse

    def __reduce__(self) -> Any:
        return dict, (dict(self),)


class Fixed:
    """Something with parameters in a flat buffer, whose sizes and buffer cannot be set.

    A subclass names in `_fixed` what cannot be set, and sets it with `_fix`.
    """

    flat: NDArray[Any]
    params: dict[str, NDArray[Any]]
    _fixed: ClassVar[frozenset[str]] = FLAT

    def _fix(self, attributes: Mapping[str, Any]) -> None:
        # not through vars(self): once asked for, it makes CPython slower in reading attributes
        for name, value in attributes.items():
            object.__setattr__(self, name, value)

    def _views(self, flat: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Name the parts of a flat buffer."""
        raise NotImplementedError

    def _own(self, flat: NDArray[Any]) -> None:
        """Make `flat` the parameters: of the right length and type, contiguous and aligned."""
        self._fix({"flat": flat, "params": Params(self._views(flat))})

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in self._fixed:
            super().__setattr__(name, value)
        elif value is not getattr(self, name, self):
            raise AttributeError(f"{name}: cannot be set, since memory is laid out for it")

    def __delattr__(self, name: str) -> None:
        if name in self._fixed:
            raise AttributeError(f"{name}: cannot be deleted")
        super().__delattr__(name)


def check_flat(value: Any, size: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return `value`, which comes from a pickle, as a flat buffer of this length and type."""
    if not isinstance(value, np.ndarray):
        raise TypeError(f"flat: expected an array, got {type(value).__name__}")
    if value.dtype != dtype:
        raise TypeError(f"flat: expected {dtype}, got {value.dtype}")
    if value.shape != (size,):
        raise ValueError(f"flat: expected {(size,)}, got {value.shape}")
    return np.require(np.asarray(value), requirements=["C", "A"])
