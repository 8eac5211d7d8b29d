"""Argument checks of the array API, shared by `functional` and `reference`.

Decisions:
a) `x` decides the dtype; every other array must have it. Nothing is cast between float32 and
   float64, but other byte orders are read as the native one.
b) A check either returns the array (a view or the object itself wherever possible) or raises with
   a message of the form ``name: expected ..., got ...``.
c) This is the only place where arguments are checked (numbers and activations: `_args.numbers`).
   Everything below relies on it. Which shape each array has stands in `_args.cells`.
"""

import sys
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from fastlstm._args.cells import GRU, LSTM, RNN, find_cell
from fastlstm._args.numbers import (
    OPTIONS,
    Activation,
    check_activations,
    check_compute_dtype,
    is_number,
)

REAL_DTYPES = (np.dtype(np.float32), np.dtype(np.float64))


class LSTMArguments(NamedTuple):
    """The checked arguments of one LSTM layer in one direction."""

    x: NDArray[Any]
    w_ih: NDArray[Any]
    w_hh: NDArray[Any]
    b: NDArray[Any] | None
    h_0: NDArray[Any] | None
    c_0: NDArray[Any] | None
    lengths: NDArray[np.intp] | None
    resets: NDArray[np.bool_] | None
    peephole: NDArray[Any] | None
    w_proj: NDArray[Any] | None
    layer_norm: NDArray[Any] | None
    coupled: bool
    clip: float | None
    cell_clip: float | None
    proj_clip: float | None
    zoneout_h: float | NDArray[Any] | None
    zoneout_c: float | NDArray[Any] | None
    dropout_h: NDArray[Any] | None
    activations: tuple[Activation, ...]  # gates, candidate, output
    compute_dtype: str | None


class GRUArguments(NamedTuple):
    """The checked arguments of one GRU layer in one direction."""

    x: NDArray[Any]
    w_ih: NDArray[Any]
    w_hh: NDArray[Any]
    b: NDArray[Any] | None
    h_0: NDArray[Any] | None
    lengths: NDArray[np.intp] | None
    resets: NDArray[np.bool_] | None
    reset_after: bool
    clip: float | None
    zoneout_h: float | NDArray[Any] | None
    dropout_h: NDArray[Any] | None
    activations: tuple[Activation, ...]  # gates, candidate
    compute_dtype: str | None


class RNNArguments(NamedTuple):
    """The checked arguments of one layer of a plain RNN in one direction."""

    x: NDArray[Any]
    w_ih: NDArray[Any]
    w_hh: NDArray[Any]
    b: NDArray[Any] | None
    h_0: NDArray[Any] | None
    lengths: NDArray[np.intp] | None
    resets: NDArray[np.bool_] | None
    nonlinearity: Activation
    clip: float | None
    zoneout_h: float | NDArray[Any] | None
    dropout_h: NDArray[Any] | None
    compute_dtype: str | None


def check_real_dtype(name: str, value: DTypeLike) -> np.dtype[Any]:
    """Return `value` as one of the two dtypes."""
    dtype = np.dtype(value)
    if dtype not in REAL_DTYPES:
        raise TypeError(f"{name}: expected float32 or float64, got {dtype}")
    return dtype


def check_computes_in(name: str, value: Any, dtype: np.dtype[Any]) -> None:
    """Raise unless `value` is a compute dtype that arrays of this dtype can be multiplied in."""
    if check_compute_dtype(name, value) is not None and dtype != np.float32:
        raise TypeError(f"{name}: expected None with {dtype}, got {value!r}")


def refuse_mask(name: str, value: object) -> None:
    """Raise TypeError for a masked array: all that reads it as an array ignores its mask."""
    ma = sys.modules.get("numpy.ma")  # who has none need not import them
    if ma is not None and isinstance(value, ma.MaskedArray):
        raise TypeError(
            f"{name}: expected an array without a mask, got a masked array, of which the mask "
            "would be ignored; fill it, or say otherwise what does not count (lengths, mask, NaN)"
        )


def as_array(name: str, value: ArrayLike) -> NDArray[Any]:
    """Return what NumPy makes of `value`; what others say where it fails says not of which."""
    if type(value) is np.ndarray:
        return value
    if getattr(value, "requires_grad", False):
        raise TypeError(
            f"{name}: expected no requires_grad, since PyTorch's gradients do not pass through "
            f"here: use fastlstm.torch, or {name}.detach()"
        )
    refuse_mask(name, value)
    try:
        return np.asarray(value)
    except (RuntimeError, TypeError, ValueError) as error:
        raise type(error)(f"{name}: expected an array of numbers: {error}") from error


def check_real(name: str, value: ArrayLike) -> NDArray[Any]:
    """Return `value` as a native float32 or float64 array."""
    array = as_array(name, value)
    if array.dtype not in REAL_DTYPES:
        native = array.dtype.newbyteorder("=")
        if native not in REAL_DTYPES:
            raise TypeError(f"{name}: expected float32 or float64, got {array.dtype}")
        array = array.astype(native)
    return array


def check_dtype(name: str, value: ArrayLike, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return `value` as a native array of this dtype."""
    array = check_real(name, value)
    if array.dtype != dtype:
        raise TypeError(f"{name}: expected {dtype}, got {array.dtype}")
    return array


def check_array(
    name: str, value: ArrayLike, shape: tuple[int, ...], dtype: np.dtype
) -> NDArray[Any]:
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
) -> NDArray[Any] | None:
    """As `check_array`, with None passed through."""
    return None if value is None else check_array(name, value, shape, dtype)


def check_sequence(name: str, value: ArrayLike) -> NDArray[Any]:
    """Return `value` as a native real array of three dimensions (T, B, I)."""
    array = check_real(name, value)
    if array.ndim != 3:
        raise ValueError(
            f"{name}: expected 3 dimensions (T, B, I), got shape {array.shape}"
            f"{hint_of_one_sequence(name, array)}"
        )
    return array


def hint_of_one_sequence(name: str, array: NDArray[Any], batch_first: bool = False) -> str:
    """Return how to make one sequence (T, I) a batch, to stand at the end of a message."""
    axes = "" if batch_first else ":, "
    return f"; for one sequence take {name}[{axes}np.newaxis]" if array.ndim == 2 else ""


def check_lengths(lengths: ArrayLike | None, T: int, B: int) -> NDArray[np.intp] | None:
    """Return a copy of `lengths`, which nobody else can change, as (B,) integers in [0, T]."""
    if lengths is None:
        return None
    array = np.array(as_array("lengths", lengths), order="C")
    if array.dtype.kind not in "iu" and array.size:
        raise TypeError(f"lengths: expected integers, got {array.dtype}")
    if array.shape != (B,):
        raise ValueError(f"lengths: expected {(B,)}, got {array.shape}")
    if B and (array.min() < 0 or array.max() > T):
        raise ValueError(f"lengths: expected values in [0, {T}], got {array.min()}..{array.max()}")
    return array.astype(np.intp, copy=False)


def check_resets(resets: ArrayLike, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Return a copy of `resets`, which nobody else can change, as bool of exactly this shape."""
    array = np.array(as_array("resets", resets))
    if array.dtype != np.bool_:
        raise TypeError(f"resets: expected bool, got {array.dtype}")
    if array.shape != shape:
        raise ValueError(f"resets: expected {shape}, got {array.shape}")
    return array


def check_zoneout(
    name: str, value: Any, shape: tuple[int, ...], dtype: np.dtype
) -> float | NDArray[Any] | None:
    """Return a number in [0, 1] as a Python float, masks in [0, 1] as an array, None as it is."""
    if is_number(value):
        if not 0 <= value <= 1:
            raise ValueError(f"{name}: expected a number in [0, 1], got {value}")
        return float(value)
    masks = check_optional(name, value, shape, dtype)
    if masks is not None and masks.size and not (masks.min() >= 0 and masks.max() <= 1):
        raise ValueError(f"{name}: expected values in [0, 1], got {masks.min()}..{masks.max()}")
    return masks


def check_recurrent(w_hh: ArrayLike, blocks: int, columns: str) -> tuple[NDArray[Any], int]:
    """Return `w_hh`, of which only the number of rows is checked, and H."""
    array = check_real("w_hh", w_hh)
    if array.ndim == 0 or array.shape[0] % blocks or not array.shape[0]:
        rows = "H" if blocks == 1 else f"{blocks}H"
        raise ValueError(f"w_hh: expected ({rows}, {columns}) with H >= 1, got {array.shape}")
    return array, array.shape[0] // blocks


def check_projection(w_proj: ArrayLike, H: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return `w_proj` as an array (R, H)."""
    array = check_real("w_proj", w_proj)
    if array.ndim != 2 or not array.shape[0] or array.shape[1] != H:
        raise ValueError(f"w_proj: expected (R, {H}) with R >= 1, got {array.shape}")
    return check_array("w_proj", array, array.shape, dtype)


def _check(kind: str, given: dict[str, Any]) -> dict[str, Any]:
    """Check the arguments of a cell's function against each other; return them by name."""
    cell, take = find_cell(kind, given), given.pop
    w_ih, w_hh, training = take("w_ih"), take("w_hh"), take("training")
    lengths, resets = take("lengths"), take("resets")
    x = check_sequence("x", take("x"))
    T, B, I = x.shape
    dtype = x.dtype
    w_proj = given.get("w_proj")
    w_hh, H = check_recurrent(w_hh, cell.G, "H" if w_proj is None else "R")
    R = H
    if w_proj is not None:
        R = len(check_projection(w_proj, H, dtype))
    elif given.get("proj_clip") is not None:
        raise ValueError(f"proj_clip: expected None without w_proj, got {given['proj_clip']}")
    if training and given["clip"] is not None:
        raise ValueError(f"clip: expected None with training=True, got {given['clip']}")
    check_computes_in("compute_dtype", given["compute_dtype"], dtype)
    shapes = cell.shapes(T, B, I, H, R)
    checked: dict[str, Any] = {
        "x": x,
        "w_ih": check_array("w_ih", w_ih, shapes["w_ih"], dtype),
        "w_hh": check_array("w_hh", w_hh, shapes["w_hh"], dtype),
        "lengths": check_lengths(lengths, T, B),
        "resets": None if resets is None else check_resets(resets, (T, B)),
    }
    for name, value in given.items():
        if name in OPTIONS:
            value = OPTIONS[name](name, value)
        elif name == "activations":
            value = check_activations(value, cell.roles)
        elif value is not None and name in ("zoneout_h", "zoneout_c"):
            value = check_zoneout(name, value, shapes[name], dtype)
        elif value is not None:
            value = check_array(name, value, shapes[name], dtype)
        checked[name] = value
    return checked


def check_lstm(
    x: Any,
    w_ih: Any,
    w_hh: Any,
    b: Any = None,
    h_0: Any = None,
    c_0: Any = None,
    *,
    lengths: Any = None,
    resets: Any = None,
    peephole: Any = None,
    w_proj: Any = None,
    layer_norm: Any = None,
    coupled: Any = False,
    clip: Any = None,
    cell_clip: Any = None,
    proj_clip: Any = None,
    zoneout_h: Any = None,
    zoneout_c: Any = None,
    dropout_h: Any = None,
    activations: Any = LSTM.activations,
    compute_dtype: Any = None,
    training: Any = False,
) -> LSTMArguments:
    """Check the arguments of `lstm_forward` against each other."""
    return LSTMArguments(**_check("lstm", locals()))


def check_gru(
    x: Any,
    w_ih: Any,
    w_hh: Any,
    b: Any = None,
    h_0: Any = None,
    *,
    lengths: Any = None,
    resets: Any = None,
    reset_after: Any = True,
    clip: Any = None,
    zoneout_h: Any = None,
    dropout_h: Any = None,
    activations: Any = GRU.activations,
    compute_dtype: Any = None,
    training: Any = False,
) -> GRUArguments:
    """Check the arguments of `gru_forward` against each other."""
    return GRUArguments(**_check("gru", locals()))


def check_rnn(
    x: Any,
    w_ih: Any,
    w_hh: Any,
    b: Any = None,
    h_0: Any = None,
    *,
    lengths: Any = None,
    resets: Any = None,
    nonlinearity: Any = RNN.activations[0],
    clip: Any = None,
    zoneout_h: Any = None,
    dropout_h: Any = None,
    compute_dtype: Any = None,
    training: Any = False,
) -> RNNArguments:
    """Check the arguments of `rnn_forward` against each other."""
    return RNNArguments(**_check("rnn", locals()))


def readable(array: NDArray[Any]) -> NDArray[Any]:
    """Return `array`, or a copy where the core cannot read it in place."""
    flags = array.flags
    if flags.c_contiguous and flags.aligned:
        return array
    size = array.itemsize
    whole = flags.aligned and all(stride % size == 0 for stride in array.strides)
    if whole and (array.ndim < 3 or array.strides[-1] == size or array.shape[-1] == 1):
        return array
    return np.require(array, requirements=["C", "A"])


def readable_or_none(array: NDArray[Any] | None) -> NDArray[Any] | None:
    """As `readable`, with None passed through."""
    return None if array is None else readable(array)
