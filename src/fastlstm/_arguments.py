"""Argument checks and result types of the array API, shared by `functional` and `reference`.

Decisions:
a) `x` decides the dtype; every other array must have it. Nothing is cast between float32 and
   float64, but other byte orders are read as the native one.
b) A check either returns the array (a view or the object itself wherever possible) or raises with
   a message of the form ``name: expected ..., got ...``.
c) This is the only place where arguments are checked. Everything below relies on it.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

REAL_DTYPES = (np.dtype(np.float32), np.dtype(np.float64))


class LSTMOutput(NamedTuple):
    """Result of `lstm_forward`: ``y`` (T, B, R), ``h_n`` (B, R), ``c_n`` (B, H) and the tape."""

    y: NDArray
    h_n: NDArray
    c_n: NDArray
    tape: object | None


class LSTMGradients(NamedTuple):
    """Result of `lstm_backward`: the gradient of each argument, None for what was not given."""

    x: NDArray
    w_ih: NDArray
    w_hh: NDArray
    b: NDArray | None
    h_0: NDArray | None
    c_0: NDArray | None
    peephole: NDArray | None
    w_proj: NDArray | None


class LSTMArguments(NamedTuple):
    """The checked arguments of one LSTM layer in one direction."""

    x: NDArray
    w_ih: NDArray
    w_hh: NDArray
    b: NDArray | None
    h_0: NDArray | None
    c_0: NDArray | None
    lengths: NDArray[np.intp] | None


def check_real(name: str, value: ArrayLike) -> NDArray:
    """Return `value` as a native float32 or float64 array."""
    array = np.asarray(value)
    if array.dtype not in REAL_DTYPES:
        native = array.dtype.newbyteorder("=")
        if native not in REAL_DTYPES:
            raise TypeError(f"{name}: expected float32 or float64, got {array.dtype}")
        array = array.astype(native)
    return array


def check_array(name: str, value: ArrayLike, shape: tuple[int, ...], dtype: np.dtype) -> NDArray:
    """Return `value` as a native array of exactly this shape and dtype."""
    if type(value) is np.ndarray and value.dtype == dtype and value.shape == shape:
        # dtype equality takes byte order into account
        return value
    array = check_real(name, value)
    if array.dtype != dtype:
        raise TypeError(f"{name}: expected {dtype}, the dtype of x, got {array.dtype}")
    if array.shape != shape:
        raise ValueError(f"{name}: expected {shape}, got {array.shape}")
    return array


def check_optional(
    name: str, value: ArrayLike | None, shape: tuple[int, ...], dtype: np.dtype
) -> NDArray | None:
    """As `check_array`, with None passed through."""
    return None if value is None else check_array(name, value, shape, dtype)


def check_sequence(name: str, value: ArrayLike) -> NDArray:
    """Return `value` as a native real array of three dimensions (T, B, I)."""
    array = check_real(name, value)
    if array.ndim != 3:
        raise ValueError(f"{name}: expected 3 dimensions (T, B, I), got shape {array.shape}")
    return array


def check_lengths(lengths: ArrayLike | None, T: int, B: int) -> NDArray[np.intp] | None:
    """Return `lengths` as a contiguous (B,) array of integers in [0, T]."""
    if lengths is None:
        return None
    array = np.asarray(lengths)
    if array.dtype.kind not in "iu" and array.size:
        raise TypeError(f"lengths: expected integers, got {array.dtype}")
    if array.shape != (B,):
        raise ValueError(f"lengths: expected {(B,)}, got {array.shape}")
    if B and (array.min() < 0 or array.max() > T):
        raise ValueError(f"lengths: expected values in [0, {T}], got {array.min()}..{array.max()}")
    return np.ascontiguousarray(array, dtype=np.intp)


def check_lstm(x, w_ih, w_hh, b, h_0, c_0, lengths, peephole, w_proj) -> LSTMArguments:
    """Check the arguments of `lstm_forward` against each other."""
    if peephole is not None:
        raise NotImplementedError("peephole: not implemented yet")
    if w_proj is not None:
        raise NotImplementedError("w_proj: not implemented yet")
    x = check_sequence("x", x)
    T, B, I = x.shape
    dtype = x.dtype
    w_hh = check_real("w_hh", w_hh)
    if w_hh.ndim == 0 or w_hh.shape[0] % 4 or not w_hh.shape[0]:
        raise ValueError(f"w_hh: expected (4H, H) with H >= 1, got {w_hh.shape}")
    H = w_hh.shape[0] // 4
    return LSTMArguments(
        x,
        check_array("w_ih", w_ih, (4 * H, I), dtype),
        check_array("w_hh", w_hh, (4 * H, H), dtype),
        check_optional("b", b, (4 * H,), dtype),
        check_optional("h_0", h_0, (B, H), dtype),
        check_optional("c_0", c_0, (B, H), dtype),
        check_lengths(lengths, T, B),
    )


def readable(array: NDArray) -> NDArray:
    """Return `array`, or a copy where the core cannot read it in place."""
    flags = array.flags
    if flags.c_contiguous and flags.aligned:
        return array
    size = array.itemsize
    whole = flags.aligned and all(stride % size == 0 for stride in array.strides)
    if whole and (array.ndim < 3 or array.strides[-1] == size or array.shape[-1] == 1):
        return array
    return np.ascontiguousarray(array)


def readable_or_none(array: NDArray | None) -> NDArray | None:
    """As `readable`, with None passed through."""
    return None if array is None else readable(array)
