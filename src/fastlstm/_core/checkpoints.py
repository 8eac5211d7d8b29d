"""Checkpointing: exact gradients of long sequences in little memory.

Decision: it is the same calls on segments of time, with the state handed on. A segment is run
without a tape first, and with one when its gradient is wanted.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastlstm._core.calls import Masks, State, run_backward, run_forward


def segment_length(checkpoint: bool | int, T: int) -> int:
    """Return the length of a segment for the layers' argument `checkpoint`."""
    if checkpoint is True:
        return max(1, math.isqrt(T))
    if not hasattr(checkpoint, "__index__"):
        raise TypeError(
            f"checkpoint: expected a bool or an integer, got {type(checkpoint).__name__}"
        )
    if checkpoint < 1:
        raise ValueError(f"checkpoint: expected at least 1, got {checkpoint}")
    return int(checkpoint)


@dataclass
class Checkpoints:
    """The tape of one direction of which only the states between segments are kept.

    It refers to x, as every tape; lengths and states are its own.
    """

    core: Any
    weights: Any
    x: NDArray[Any]
    lengths: NDArray[Any] | None
    restarts: NDArray[np.bool_] | None
    reverse: bool
    segment: int
    masks: Masks | None
    states: list[State] = field(default_factory=list)  # before each segment, as they are run

    @property
    def nbytes(self) -> int:
        """Memory that is kept; a segment's own tape comes to it while that is run again."""
        return sum(a.nbytes for state in self.states for a in state if a is not None)

    def _segments(self) -> list[slice]:
        """Return the segments in the order in which they are run."""
        T = len(self.x)
        segments = [slice(t, min(T, t + self.segment)) for t in range(0, T, self.segment)]
        return segments[::-1] if self.reverse else segments

    def _run(self, steps: slice, initial: State, y: NDArray[Any], final: State, taped: bool) -> Any:
        """Run a segment."""
        lengths = self.lengths
        if lengths is not None:
            lengths = np.clip(lengths - steps.start, 0, steps.stop - steps.start)
        masks = self.masks
        if masks is not None:
            of_steps: list[Any] = [m[steps] if isinstance(m, np.ndarray) else m for m in masks[:2]]
            masks = Masks(of_steps[0], of_steps[1], masks.dropout_h)
        return run_forward(
            self.core,
            self.weights,
            self.x[steps],
            y,
            initial=initial,
            final=final,
            masks=masks,
            lengths=lengths,
            restarts=None if self.restarts is None else self.restarts[steps],
            reverse=self.reverse,
            training=taped,
        )

    def _new_state(self, B: int, R: int, has_c: bool) -> State:
        dtype = self.x.dtype
        c = np.empty((B, self.weights.H), dtype) if has_c else None
        return np.empty((B, R), dtype), c

    def forward(self, y: NDArray[Any], *, initial: State, final: State) -> None:
        """Fill y and the final state."""
        h_n, c_n = final
        assert h_n is not None
        B, R = h_n.shape
        h_0, c_0 = (None if a is None else a.copy() for a in initial)
        state: State = (h_0, c_0)
        for steps in self._segments():
            self.states.append(state)
            after = self._new_state(B, R, c_n is not None)
            self._run(steps, state, y[steps], after, taped=False)
            state = after
        if not self.states:  # no steps at all
            self._run(slice(0, 0), state, y, final, taped=False)
            return
        for out, value in zip(final, state, strict=True):
            if out is not None:
                out[...] = value

    def backward(
        self,
        *,
        dy: NDArray[Any] | None,
        dfinal: State,
        dx: NDArray[Any] | None,
        dinitial: State,
        gradients: Mapping[str, NDArray[Any] | None],
    ) -> None:
        """Run each segment again, and backward, from the last one run to the first."""
        dh_0, dc_0 = dinitial
        assert dh_0 is not None
        (B, R), dtype, has_c = dh_0.shape, self.x.dtype, dc_0 is not None
        dstate = dfinal
        for steps, state in zip(self._segments()[::-1], self.states[::-1], strict=True):
            y = np.empty((steps.stop - steps.start, B, R), dtype)
            tape = self._run(steps, state, y, self._new_state(B, R, has_c), taped=True)
            dbefore = self._new_state(B, R, has_c)
            run_backward(
                self.core,
                tape,
                ragged=self.lengths is not None,
                reverse=self.reverse,
                dy=None if dy is None else dy[steps],
                dfinal=dstate,
                dx=None if dx is None else dx[steps],
                dinitial=dbefore,
                gradients=gradients,
            )
            dstate = dbefore
        for out, gradient in zip(dinitial, dstate, strict=True):
            if out is not None:
                out[...] = 0 if gradient is None else gradient
