"""Calls of the compiled core over checked arguments, shared by arrays, layers and `torch`.

Decisions:
a) The core gets arrays that it can read in place: aligned, native, with a contiguous last
   dimension. Only others are copied.
b) A sequence is reversed by handing the core a view with negative stride; only ragged batches,
   whose rows end at different times, are reversed inside.
"""

from collections.abc import Iterable, Mapping
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastlstm._args.arrays import readable, readable_or_none
from fastlstm._args.numbers import Activation, number_of
from fastlstm._core import sequence_float32, sequence_float64

CORES: dict[np.dtype, ModuleType] = {
    np.dtype(np.float32): sequence_float32,
    np.dtype(np.float64): sequence_float64,
}


# h (B, R) and c (B, H) of one direction, or their gradients; None for 0, or not wanted
State = tuple[NDArray[Any] | None, NDArray[Any] | None]


def state_at(h: NDArray[Any] | None, c: NDArray[Any] | None, i: int) -> State:
    """Return the state of one direction of those of all."""
    return None if h is None else h[i], None if c is None else c[i]


class Masks(NamedTuple):
    """What zoneout keeps, a number or (T, B, R) and (T, B, H), and what dropout leaves of h."""

    zoneout_h: float | NDArray[Any] | None = None
    zoneout_c: float | NDArray[Any] | None = None
    dropout_h: NDArray[Any] | None = None

    def readable(self, turned: bool) -> "Masks":
        """Return the same in a layout that the core can read."""
        return Masks(
            _zoneout(self.zoneout_h, turned),
            _zoneout(self.zoneout_c, turned),
            readable_or_none(self.dropout_h),
        )


def _zoneout(value: float | NDArray[Any] | None, turned: bool) -> float | NDArray[Any] | None:
    if value is None or isinstance(value, float):
        return value
    value = readable(value)
    return value[::-1] if turned else value


def restarts_of(
    resets: NDArray[np.bool_] | None, lengths: NDArray[Any] | None, reverse: bool
) -> NDArray[np.bool_] | None:
    """Return before which steps (T, B) one direction, in its own order, starts from zero.

    Between t - 1 and t it is before t in the order of time, and before t - 1 in the other.
    """
    if resets is None or not reverse:
        return resets
    restarts = np.zeros_like(resets)
    restarts[:-1] = resets[1:]
    if lengths is not None:  # what follows a row's last step is no part of it
        restarts &= np.arange(1, len(resets) + 1)[:, np.newaxis] < lengths
    return restarts


def make_weights(
    core: Any,
    cell: str,
    w_ih: NDArray[Any],
    w_hh: NDArray[Any],
    b: NDArray[Any] | None,
    *,
    activations: Iterable[Activation],
    **options: Any,
) -> Any:
    """Pack weights: `options` are those of the core's Weights."""
    for name in ("peephole", "w_proj", "layer_norm"):
        if options.get(name) is not None:
            options[name] = np.require(options[name], requirements=["C", "A"])
    return core.Weights(
        cell,
        readable(w_ih),
        readable(w_hh),
        None if b is None else readable(b)[np.newaxis],
        activations=tuple(map(number_of, activations)),
        **options,
    )


def restarts_in_order(restarts: NDArray[np.bool_] | None, turned: bool) -> NDArray[Any] | None:
    """Return the same as bytes, which the core reads, in the order of its x."""
    if restarts is None:
        return None
    flags = restarts.view(np.uint8)
    return flags[::-1] if turned else flags


def _readable(state: State) -> State:
    return readable_or_none(state[0]), readable_or_none(state[1])


def forward_call(
    core: Any,
    weights: Any,
    x: NDArray[Any],
    y: NDArray[Any],
    *,
    initial: State,
    final: State,
    masks: Masks | None = None,
    lengths: NDArray[Any] | None = None,
    restarts: NDArray[np.bool_] | None = None,
    reverse: bool = False,
    training: bool = False,
    concatenated: bool = False,
) -> Any:
    """Return the call of one direction that will fill y and the final state, see `run_forward`.

    Its ``tape`` is what `backward_call` wants, or None.
    If `concatenated`, x and y are (1, sum of lengths, I or R), step after step, and lengths fall.
    `restarts` is that of `restarts_of`.
    """
    turned = reverse and lengths is None
    x = readable(x)
    if turned:
        x, y = x[::-1], y[::-1]
    if lengths is not None and not concatenated:
        y[...] = 0
    return core.ForwardCall(
        weights,
        x,
        y,
        initial=_readable(initial),
        final=final,
        masks=None if masks is None else masks.readable(turned),
        lengths=lengths,
        resets=restarts_in_order(restarts, turned),
        reverse=reverse,
        training=training,
        concatenated=concatenated,
    )


def run_forward(core: Any, *arguments: Any, **options: Any) -> Any:
    """Run the one call that `forward_call` returns of these arguments; return its tape."""
    call = forward_call(core, *arguments, **options)
    core.run_forward([call])
    return call.tape


def backward_call(
    core: Any,
    tape: Any,
    *,
    ragged: bool,
    reverse: bool,
    dy: NDArray[Any] | None,
    dfinal: State,
    dx: NDArray[Any] | None,
    dinitial: State,
    gradients: Mapping[str, NDArray[Any] | None],
) -> Any:
    """Return the call of one direction that will fill dx and the gradient of the initial state.

    The gradients of the parameters, under the names of the array API, are added to.
    """
    dy = readable_or_none(dy)
    if reverse and not ragged:
        dx = None if dx is None else dx[::-1]
        dy = None if dy is None else dy[::-1]
    return core.BackwardCall(
        tape, dy=dy, dfinal=_readable(dfinal), dx=dx, dinitial=dinitial, **gradients
    )


def run_backward(core: Any, tape: Any, **arguments: Any) -> None:
    """Run the one call that `backward_call` returns of these arguments."""
    core.run_backward([backward_call(core, tape, **arguments)])
