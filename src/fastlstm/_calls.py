"""Calls of the compiled core over checked arguments, shared by `functional` and `layers`.

Decisions:
a) The core gets arrays that it can read in place: aligned, native, with a contiguous last
   dimension. Only others are copied.
b) A sequence is reversed by handing the core a view with negative stride; only ragged batches,
   whose rows end at different times, are reversed inside.
"""

from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastlstm import _sequence_float32, _sequence_float64
from fastlstm._arguments import readable, readable_or_none

CORES: dict[np.dtype, ModuleType] = {
    np.dtype(np.float32): _sequence_float32,
    np.dtype(np.float64): _sequence_float64,
}


def make_weights(core: Any, cell: str, w_ih: NDArray, w_hh: NDArray, b: NDArray | None, **options):
    """Pack weights: `options` are those of the core's Weights."""
    for name in ("peephole", "w_proj", "layer_norm"):
        if options.get(name) is not None:
            options[name] = np.ascontiguousarray(options[name])
    return core.Weights(
        cell,
        readable(w_ih),
        readable(w_hh),
        None if b is None else readable(b)[np.newaxis],
        **options,
    )


def run_forward(
    core: Any,
    weights: Any,
    x: NDArray,
    h_0: NDArray | None,
    c_0: NDArray | None,
    lengths: NDArray | None,
    reverse: bool,
    training: bool,
    y: NDArray,
    h_n: NDArray,
    c_n: NDArray | None,
    zoneout_h: float | NDArray | None = None,
    zoneout_c: float | NDArray | None = None,
    dropout_h: NDArray | None = None,
    packed: bool = False,
):
    """Run one direction: fill y, h_n, c_n; return the core's tape.

    If `packed`, x and y are (1, sum of lengths, I or R) as the core has it, and lengths fall.
    """
    x = readable(x)
    if reverse and lengths is None:
        x, y = x[::-1], y[::-1]
    if lengths is not None and not packed:
        y[...] = 0
    if zoneout_h is None and zoneout_c is None and dropout_h is None:
        masks: tuple[Any, ...] = ()
    else:
        turned = reverse and lengths is None
        masks = (
            _zoneout(zoneout_h, turned),
            _zoneout(zoneout_c, turned),
            readable_or_none(dropout_h),
        )
    return core.forward(
        weights,
        x,
        readable_or_none(h_0),
        readable_or_none(c_0),
        lengths,
        reverse,
        training,
        y,
        h_n,
        c_n,
        *masks,
        packed=packed,
    )


def _zoneout(value: float | NDArray | None, turned: bool) -> float | NDArray | None:
    if value is None or isinstance(value, float):
        return value
    value = readable(value)
    return value[::-1] if turned else value


def run_backward(
    core: Any,
    tape: Any,
    ragged: bool,
    reverse: bool,
    dy: NDArray | None,
    dh_n: NDArray | None,
    dc_n: NDArray | None,
    dx: Any,
    *gradients: Any,
) -> None:
    """Run one direction backward: fill or add to the gradients, in the order of the core's."""
    dy = readable_or_none(dy)
    if reverse and not ragged:
        dx = None if dx is None else dx[::-1]
        dy = None if dy is None else dy[::-1]
    core.backward(tape, dy, readable_or_none(dh_n), readable_or_none(dc_n), dx, *gradients)
