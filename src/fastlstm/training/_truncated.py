"""Backpropagation through time in pieces: truncated, for long series, or a step each, to watch it.

Decisions:
a) A series runs in segments of k1 steps, each of which starts from the state that the one before
   ended with: the outputs are those of one call. A window's gradient is that of its newest segment
   and of the k2 / k1 - 1 before it, from one to the next by the gradient of the state.
b) Each segment runs once. If the parameters change between windows, an older segment is
   differentiated at the parameters it ran with, which its tape keeps.
c) The gradient at every step comes from the same two calls with segments of one step, so that it
   is exact for every cell and variant, and nothing in the core exists for it alone.
"""

from __future__ import annotations  # so that help() shows names

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastlstm._args.arrays import check_lengths, check_optional
from fastlstm._args.cells import PLAIN
from fastlstm._args.numbers import check_size
from fastlstm._layers.recurrent import Gradients, Recurrent, Tape

Segments = Callable[[int, int], ArrayLike]


@dataclass(frozen=True, slots=True)
class Window:
    """What `truncated_bptt` yields.

    Parameters
    ----------
    y : (T, B, R) array, or (B, T, R) if batch_first
        Outputs of the newest steps, at most k1 of them.
    start, stop : int
        The newest steps are ``start`` to ``stop - 1`` of x.
    state : (h, c) or h
        After step ``stop - 1`` (with `lengths`, of each row after its last step so far).
    _layer, _tapes
        Of the function that made it.
    """

    y: NDArray[Any]
    start: int
    stop: int
    state: Any
    _layer: Recurrent = field(repr=False)
    _tapes: tuple[Tape, ...] = field(repr=False)

    def backward(self, dy: ArrayLike | None = None, dstate: Any = None) -> Gradients:
        """Backpropagate through the newest steps and those before them, k2 at most.

        Parameters
        ----------
        dy : array in the shape of y, optional
            Gradient of the loss with respect to ``y``.
        dstate : in the shape of the state, optional
            Gradient with respect to ``state``.

        Returns
        -------
        Gradients
            ``x`` for all steps passed through, the last of which is ``stop - 1``; ``state`` for the
            state before the first of them; ``params`` and ``flat`` as of the layer's backward.

        Raises
        ------
        ValueError, TypeError
            If an argument does not fit; the message names it.
        """
        *older, newest = self._tapes
        gradients = self._layer.backward(newest, dy, dstate)
        steps: list[Any] = [gradients.x]
        for tape in reversed(older):
            total = gradients
            gradients = self._layer.backward(tape, dstate=total.state)
            steps.append(gradients.x)
            np.add(gradients.flat, total.flat, out=gradients.flat)
        time = 1 if self._layer.batch_first else 0
        return gradients._replace(x=np.concatenate(steps[::-1], axis=time))


def truncated_bptt(
    layer: Recurrent,
    x: ArrayLike | Segments,
    k1: int,
    k2: int | None = None,
    state: Any = None,
    *,
    lengths: ArrayLike | None = None,
    resets: ArrayLike | None = None,
    steps: int | None = None,
) -> Iterator[Window]:
    """Run a series in windows, for backpropagation through time that does not reach its start.

    Every `k1` steps there is a `Window` with the newest outputs. Its ``backward`` takes their
    gradient `k2` steps back. State is carried from window to window, so that the outputs are those
    of one call, while memory and the cost of an update follow k2 and not T.

    Parameters
    ----------
    layer : LSTM, GRU or RNN
        In one direction.
    x : (T, B, I) array, or (B, T, I) if batch_first, or function
        Must not change until the last ``backward``. The parameters may, as they do in training. A
        function gets start and stop and returns these steps of x, when their window is asked for:
        where x is made by what is trained too, such as an `Embedding`.
    k1 : int
        Steps from window to window; the last window has what remains of T.
    k2 : int, optional
        Steps to go back, a multiple of k1; k1 if not given.
    state : optional
        Initial state, zero by default. ``window.state`` of an earlier series goes on from there.
    lengths : (B,) integers in [0, T], optional
        Where the sequences end.
    resets : (T, B) array of bool, or (B, T) if batch_first, optional
        Where episodes begin, as of the layer's call; not if the layer is reverse.
    steps : int, optional
        T, where x is a function.

    Returns
    -------
    iterator of Window
        Each is run when it is asked for.

    Raises
    ------
    ValueError, TypeError
        If an argument does not fit, k2 is not a multiple of k1, or the layer is bidirectional (its
        other direction begins at the end).

    Notes
    -----
    This is BPTT(k2; k1) of Williams and Peng (1990). With k1 = k2 = T it is plain BPTT. Dropout
    masks are drawn for each window.

    Examples
    --------
    >>> import numpy as np
    >>> import fastlstm
    >>> from fastlstm.training import SGD, truncated_bptt
    >>> lstm = fastlstm.LSTM(1, 8, rng=0)
    >>> optimizer = SGD([lstm], lr=0.01)
    >>> x = np.ones((250, 1, 1), np.float32)
    >>> for window in truncated_bptt(lstm, x, k1=100, k2=200):
    ...     gradients = window.backward(dy=2 * window.y)  # of the sum of squares
    ...     optimizer.step([gradients])
    ...     print(window.start, window.stop, len(gradients.x))
    0 100 100
    100 200 200
    200 250 150

    Over an embedding, which is trained with the layer:

    >>> from fastlstm.training import Embedding
    >>> ids = np.arange(250)[:, np.newaxis] % 5
    >>> embedding = Embedding(5, 1, rng=0)
    >>> optimizer = SGD([embedding, lstm], lr=0.01)
    >>> take = lambda start, stop: embedding(ids[start:stop])
    >>> for window in truncated_bptt(lstm, take, k1=100, steps=250):
    ...     gradients = window.backward(dy=2 * window.y)
    ...     steps = ids[window.stop - len(gradients.x) : window.stop]
    ...     optimizer.step([embedding.backward(steps, gradients.x), gradients])
    """
    _check_layer("truncated_bptt", layer)
    k1 = check_size("k1", k1)
    k2 = k1 if k2 is None else check_size("k2", k2)
    if k2 % k1:
        raise ValueError(f"k2: expected a multiple of k1={k1}, got {k2}")
    if callable(x):
        if steps is None:
            raise TypeError("steps: expected an integer where x is a function, got None")
        T = check_size("steps", steps, least=0)
        ends = check_lengths(lengths, T, np.size(lengths)) if lengths is not None else None
        return _windows(layer, x, T, k1, k2, state, ends, _episodes(layer, resets, T))
    if steps is not None:
        raise TypeError(f"steps: expected None where x is an array, got {steps}")
    inputs = layer._check_input(x)
    T, B, _ = inputs.shape
    layer._check_state("state", state, B)
    ends = check_lengths(lengths, T, B)

    def take(start: int, stop: int) -> NDArray[Any]:
        segment = inputs[start:stop]
        return segment.transpose(1, 0, 2) if layer.batch_first else segment

    return _windows(layer, take, T, k1, k2, state, ends, _episodes(layer, resets, T, B))


def _episodes(
    layer: Recurrent, resets: ArrayLike | None, T: int, B: int | None = None
) -> NDArray[np.bool_] | None:
    """Return `resets` as (T, B); B is None where x is a function."""
    if resets is None:
        return None
    if layer.reverse:
        raise ValueError(f"resets: expected None for {layer!r}")
    return layer._check_resets(resets, T, np.size(resets) // max(T, 1) if B is None else B)


def _windows(
    layer: Recurrent,
    take: Segments,
    T: int,
    k1: int,
    k2: int,
    state: Any,
    lengths: NDArray[Any] | None,
    resets: NDArray[Any] | None,
) -> Iterator[Window]:
    """Yield the windows of T steps."""
    tapes: deque[Tape] = deque(maxlen=k2 // k1)
    for start in range(0, T, k1):
        stop = min(start + k1, T)
        segment = take(start, stop)
        got = np.shape(segment)[1 if layer.batch_first else 0 : 2]
        if got[:1] != (stop - start,):
            raise ValueError(f"x: expected {stop - start} steps from x({start}, {stop}), got {got}")
        remaining = None if lengths is None else np.clip(lengths - start, 0, stop - start)
        begins = None if resets is None else resets[start:stop]
        if begins is not None and layer.batch_first:
            begins = begins.T
        y, state, tape = layer.forward(segment, state, lengths=remaining, resets=begins)
        tapes.append(tape)
        yield Window(y, start, stop, state, layer, tuple(tapes))


def gradient_flow(
    layer: Recurrent, x: ArrayLike, state: Any = None, *, dh: ArrayLike | None = None
) -> dict[str, NDArray[Any]]:
    """Return how large the gradient of a loss at the last step is at every step before.

    Parameters
    ----------
    layer : LSTM, GRU or RNN
        In one direction. It runs as in a plain call: without dropout, and with the
        expectation of zoneout. Take float64: in float32 what vanishes soon underflows.
    x : (T, B, I) array, or (B, T, I) if batch_first
        The input.
    state : optional
        Initial state, zero by default.
    dh : (B, R) array, optional
        Gradient of the loss with respect to the last h of the last layer; ones, for the sum of h,
        if not given.

    Returns
    -------
    dict of (T + 1, B) arrays
        Under ``"h"``, and for the LSTM ``"c"``, the Euclidean norm over the units of dL/dh_t and
        dL/dc_t, for t from 0, the initial state, to T. h_t and c_t are what step t + 1 starts from,
        two separate arguments of it: dL/dc_t is the path through c alone, without what h_t owes to
        c_t, and 0 at T. In a stack they are those of each layer, ``"h_l0"``, ``"c_l0"``, ...;
        what the layer above reads of h_t within step t is no path of dL/dh_t either.

    Raises
    ------
    ValueError, TypeError
        If an argument does not fit, or there is more than one direction.

    Examples
    --------
    >>> import numpy as np
    >>> import fastlstm
    >>> from fastlstm.training import gradient_flow
    >>> x = np.random.default_rng(0).standard_normal((200, 1, 2))
    >>> lstm = fastlstm.LSTM(2, 8, forget_bias=5, dtype=np.float64, rng=0)
    >>> rnn = fastlstm.RNN(2, 8, dtype=np.float64, rng=0)
    >>> bool(gradient_flow(lstm, x)["c"][0, 0] > 0.01)
    True
    >>> bool(gradient_flow(rnn, x)["h"][0, 0] < 1e-20)
    True
    """
    _check_layer("gradient_flow", layer)
    inputs = layer._check_input(x)
    T, B, _ = inputs.shape
    shape = (B, layer.output_size)
    upstream = check_optional("dh", dh, shape, layer.dtype)
    if upstream is None:
        upstream = np.ones(shape, layer.dtype)
    layer._check_state("state", state, B)

    tapes = []
    for x_t in inputs:
        step = x_t[:, None] if layer.batch_first else x_t[None]
        _, state, tape = layer._run(step, state, None, taped=True)
        assert tape is not None
        tapes.append(tape)

    L, has_c = layer.num_layers, PLAIN[layer.cell].has_c
    suffixes = [""] if L == 1 else [f"_l{k}" for k in range(L)]
    names = [part + suffix for part in ("h", "c")[: 1 + has_c] for suffix in suffixes]
    flow = {name: np.empty((T + 1, B), layer.dtype) for name in names}
    dstate: Any = np.zeros((L, *shape), layer.dtype)
    dstate[-1] = upstream
    if has_c:
        dstate = dstate, np.zeros((L, B, layer.hidden_size), layer.dtype)
    _put_norms(flow, T, dstate)
    for t in reversed(range(T)):
        dstate = layer.backward(tapes[t], dstate=dstate).state
        _put_norms(flow, t, dstate)
    return flow


def _put_norms(flow: dict[str, NDArray[Any]], t: int, dstate: Any) -> None:
    parts = dstate if isinstance(dstate, tuple) else (dstate,)
    layers = [d for part in parts for d in part]
    for norms, d in zip(flow.values(), layers, strict=True):
        norms[t] = np.linalg.norm(d, axis=1)


def _check_layer(function: str, layer: Recurrent) -> None:
    if not isinstance(layer, Recurrent):
        raise TypeError(f"layer: expected LSTM, GRU or RNN, got {type(layer).__name__}")
    if layer.bidirectional:
        raise ValueError(f"{function}: expected one direction, got {layer!r}")
