"""A model's tensors, read without trust; and how many bytes may be asked for on their account.

Decisions:
a) Sizes are counted before anything is allocated: a tensor holds as many numbers as its dims say
   and its data has, or is refused. What is computed from tensors may be larger than they are, so
   all of it together is bounded, by `Budget`.
b) Data beside the model is read from a regular file in the model's own folder, and no other.
"""

import math
import os
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

MOST = 64 << 20  # bytes that any model may ask for; models with open T and B need some hundred kB
GROWTH = 16  # and times the size of its files
LEAST = 16 << 10  # bytes that anything counts, however small it is, for the time that it takes

MOST_AXES = 64  # of NumPy's arrays
DTYPES: dict[int, np.dtype] = {
    helper.np_dtype_to_tensor_dtype(np.dtype(code)): np.dtype(code)
    for code in ("?", "b", "B", "h", "H", "i", "I", "q", "Q", "e", "f", "d")
}


class Budget:
    """The bytes that a model may still ask for."""

    def __init__(self) -> None:
        self._left = MOST
        self._files: set[str] = set()

    def grant(self, file: str, size: int) -> None:
        """Add what follows from a file of the model's, once."""
        if file not in self._files:
            self._files.add(file)
            self._left += GROWTH * size

    def take(self, name: str, size: int) -> None:
        """Raise if so many bytes more are too many; `name` is of what asks for them."""
        size = max(size, LEAST)
        self._left -= size
        if self._left < 0:
            raise ValueError(
                f"{name}: expected a model that asks for {MOST >> 20} MiB and {GROWTH} times the "
                f"size of its files at most, got one that asks for {size} bytes more"
            )


def count(shape: Iterable[int]) -> int:
    """Return how many numbers a shape has."""
    shape = tuple(shape)
    if len(shape) > MOST_AXES:
        raise ValueError(f"expected at most {MOST_AXES} axes, got {len(shape)}")
    if min(shape, default=0) < 0:
        raise ValueError(f"expected sizes that are not negative, got {shape}")
    return math.prod(shape)


def read_tensor(
    tensor: TensorProto, budget: Budget, folder: str | None = None
) -> NDArray[Any] | None:
    """Return a tensor's value, None if it is of a type that NumPy does not have.

    Parameters
    ----------
    tensor : onnx.TensorProto
    budget : Budget
        Which the tensor's bytes are taken from.
    folder : str, optional
        Where its data may be beside the model; None if they may not.
    """
    label = f"tensor {tensor.name!r}"
    dtype = DTYPES.get(tensor.data_type)
    if dtype is None:
        if tensor.data_type not in TensorProto.DataType.values()[1:]:
            raise ValueError(f"{label}: expected a known element type, got {tensor.data_type}")
        return None
    try:
        size = count(tensor.dims) * dtype.itemsize
        if tensor.data_location == TensorProto.EXTERNAL:
            data = _read_beside(tensor, size, budget, folder)
            little = np.frombuffer(data, dtype.newbyteorder("<"))
            return little.astype(dtype, copy=False).reshape(tensor.dims)
        if tensor.HasField("raw_data"):
            there = len(tensor.raw_data)
        else:
            field = helper.tensor_dtype_to_field(tensor.data_type)
            there = len(getattr(tensor, field)) * dtype.itemsize
        if there != size:
            raise ValueError(f"expected {size} bytes, as its dims say, got {there}")
        budget.take("data", size)
        return numpy_helper.to_array(tensor)
    except (ValueError, TypeError, OverflowError) as error:
        raise ValueError(f"{label}: {error}") from error


def _read_beside(tensor: TensorProto, size: int, budget: Budget, folder: str | None) -> bytes:
    """Return the data of a tensor that has them in a file beside the model."""
    said = {entry.key: entry.value for entry in tensor.external_data}
    location = said.get("location", "")
    if folder is None:
        raise ValueError(f"expected its data in the model, got a reference to {location!r}")
    home = os.path.realpath(folder)
    place = os.path.realpath(os.path.join(home, location))
    if os.path.commonpath([home, place]) != home or not os.path.isfile(place):
        raise ValueError(f"location: expected a file in the model's folder, got {location!r}")
    start = int(said.get("offset", "0"))
    with open(place, "rb") as file:
        whole = os.fstat(file.fileno()).st_size
        budget.grant(place, whole)
        length = int(said.get("length", str(whole - start)))
        if length != size or not 0 <= start <= whole - size:
            raise ValueError(
                f"expected {size} bytes, as its dims say, "
                f"got {length} from {start} on in a file of {whole}"
            )
        budget.take("data", size)
        file.seek(start)
        return file.read(size)
