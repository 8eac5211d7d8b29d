"""Calls of the compiled core over checked arguments, shared by `functional` and `layers`.

Decisions:
a) The core gets arrays that it can read in place: aligned, native, with a contiguous last
   dimension. Only others are copied.
b) A sequence is reversed by handing the core a view with negative stride; only ragged batches,
   whose rows end at different times, are reversed inside.
c) Checkpointing is the same calls on segments of time, with the state handed on: a segment is run
   without a tape first and with one when its gradient is wanted.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastlstm._args.arrays import readable, readable_or_none
from fastlstm._args.numbers import Activation, number_of
from fastlstm._core import sequence_float32, sequence_float64

CORES: dict[np.dtype, ModuleType] = {
    np.dtype(np.float32): sequence_float32,
    np.dtype(np.float64): sequence_float64,
}


def make_weights(
    core: Any,
    cell: str,
    w_ih: NDArray,
    w_hh: NDArray,
    b: NDArray | None,
    *,
    activations: Iterable[Activation],
    **options: Any,
):
    """Pack weights: `options` are those of the core's Weights."""
    for name in ("peephole", "w_proj", "layer_norm"):
        if options.get(name) is not None:
            options[name] = np.ascontiguousarray(options[name])
    return core.Weights(
        cell,
        readable(w_ih),
        readable(w_hh),
        None if b is None else readable(b)[np.newaxis],
        activations=tuple(map(number_of, activations)),
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
    *,
    segment: int | None = None,
    packed: bool = False,
):
    """Run one direction: fill y, h_n, c_n; return the tape for `run_backward`.

    With a segment's length, the tape is `Checkpoints`. If `packed`, x and y are
    (1, sum of lengths, I or R), step after step, and lengths fall.
    """
    x = readable(x)
    masks = (zoneout_h, zoneout_c, dropout_h)
    if segment and training:
        tape = Checkpoints(core, weights, x, lengths, reverse, segment, masks, [])
        tape.forward(y, h_0, c_0, h_n, c_n)
        return tape
    if reverse and lengths is None:
        x, y = x[::-1], y[::-1]
    if lengths is not None and not packed:
        y[...] = 0
    turned = reverse and lengths is None
    rates: tuple[Any, ...] = ()
    if zoneout_h is not None or zoneout_c is not None or dropout_h is not None:
        rates = (
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
        *rates,
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
    if isinstance(tape, Checkpoints):
        tape.backward(dy, dh_n, dc_n, dx, *gradients)
        return
    if reverse and not ragged:
        dx = None if dx is None else dx[::-1]
        dy = None if dy is None else dy[::-1]
    core.backward(tape, dy, readable_or_none(dh_n), readable_or_none(dc_n), dx, *gradients)


def segment_length(checkpoint: bool | int, T: int) -> int | None:
    """Return the length of a segment for the layers' argument `checkpoint`; None: a whole tape."""
    if checkpoint is True:
        return max(1, math.isqrt(T))
    if checkpoint is False:
        return None
    if not hasattr(checkpoint, "__index__"):
        raise TypeError(
            f"checkpoint: expected a bool or an integer, got {type(checkpoint).__name__}"
        )
    if checkpoint < 1:
        raise ValueError(f"checkpoint: expected at least 1, got {checkpoint}")
    return int(checkpoint)


@dataclass
class Checkpoints:
    """The tape of one direction of which only the states between segments are kept."""

    core: Any
    weights: Any
    x: NDArray
    lengths: NDArray | None
    reverse: bool
    segment: int
    masks: tuple[Any, ...]
    states: list[tuple[NDArray | None, NDArray | None]]  # before each segment, as they are run

    @property
    def nbytes(self) -> int:
        """Memory that is kept; a segment's own tape comes to it while that is run again."""
        return sum(a.nbytes for state in self.states for a in state if a is not None)

    def _segments(self) -> list[slice]:
        """Return the segments in the order in which they are run."""
        T = len(self.x)
        segments = [slice(t, min(T, t + self.segment)) for t in range(0, T, self.segment)]
        return segments[::-1] if self.reverse else segments

    def _part(self, steps: slice) -> tuple[NDArray, NDArray | None, tuple[Any, Any, Any]]:
        """Return x, lengths and masks of a segment."""
        lengths = self.lengths
        if lengths is not None:
            lengths = np.clip(lengths - steps.start, 0, steps.stop - steps.start)
        h, c = (m[steps] if isinstance(m, np.ndarray) else m for m in self.masks[:2])
        return self.x[steps], lengths, (h, c, self.masks[2])

    def _run(
        self, steps: slice, state: Any, y: NDArray, h: NDArray, c: NDArray | None, taped: bool
    ):
        x, lengths, masks = self._part(steps)
        return run_forward(
            self.core,
            self.weights,
            x,
            state[0],
            state[1],
            lengths,
            self.reverse,
            taped,
            y,
            h,
            c,
            *masks,
        )

    def forward(self, y: NDArray, h_0: Any, c_0: Any, h_n: NDArray, c_n: NDArray | None) -> None:
        """Fill y, h_n and c_n."""
        state = (h_0, c_0)
        for steps in self._segments():
            self.states.append(state)
            h, c = np.empty_like(h_n), None if c_n is None else np.empty_like(c_n)
            self._run(steps, state, y[steps], h, c, taped=False)
            state = (h, c)
        if not self.states:  # no steps at all
            self._run(slice(0, 0), state, y, h_n, c_n, taped=False)
            return
        h_n[...] = state[0]
        if c_n is not None:
            c_n[...] = state[1]

    def backward(
        self,
        dy: NDArray | None,
        dh: NDArray | None,
        dc: NDArray | None,
        dx: NDArray | None,
        dw_ih: NDArray,
        dw_hh: NDArray,
        db: NDArray | None,
        dh_0: NDArray | None,
        dc_0: NDArray | None,
        *others: NDArray | None,
    ) -> None:
        """Run each segment again, and backward, from the last one run to the first."""
        B = self.x.shape[1]
        R, dtype = dw_hh.shape[1], self.x.dtype
        has_c = dc_0 is not None
        for steps, state in zip(self._segments()[::-1], self.states[::-1], strict=True):
            y = np.empty((steps.stop - steps.start, B, R), dtype)
            h = np.empty((B, R), dtype)
            c = np.empty((B, self.weights.H), dtype) if has_c else None
            tape = self._run(steps, state, y, h, c, taped=True)
            dh_before = np.empty((B, R), dtype)
            dc_before = np.empty((B, self.weights.H), dtype) if has_c else None
            run_backward(
                self.core,
                tape,
                self.lengths is not None,
                self.reverse,
                None if dy is None else dy[steps],
                dh,
                dc,
                None if dx is None else dx[steps],
                dw_ih,
                dw_hh,
                db,
                dh_before,
                dc_before,
                *others,
            )
            dh, dc = dh_before, dc_before
        for out, gradient in ((dh_0, dh), (dc_0, dc)):
            if out is not None:
                out[...] = 0 if gradient is None else gradient
