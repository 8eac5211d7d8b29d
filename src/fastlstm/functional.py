"""The array API: one layer, one direction, no state of its own.

Decisions:
a) Arguments are checked here (see `_arguments`), then the compiled core gets arrays that it can
   read in place: aligned, native, with a contiguous last dimension. Only others are copied.
b) A sequence is reversed by handing the core a view with negative stride; only ragged batches,
   whose rows end at different times, are reversed inside.
"""

from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastlstm import _sequence_float32, _sequence_float64
from fastlstm._arguments import (
    LSTMArguments,
    check_lstm,
    check_optional,
    readable,
    readable_or_none,
)
from fastlstm._results import LSTMGradients, LSTMOutput

CORES: dict[np.dtype, ModuleType] = {
    np.dtype(np.float32): _sequence_float32,
    np.dtype(np.float64): _sequence_float64,
}


class LSTMTape:
    """What `lstm_backward` needs of a forward call.

    It keeps copies of the weights and of the hidden states, but only a reference to `x`: leave `x`
    as it is until the backward call. A tape may be used any number of times.

    Attributes
    ----------
    nbytes : int
        Memory that the tape holds, `x` not counted: 6 numbers per row, step and (padded) hidden
        unit.
    """

    def __init__(self, core_tape: Any, given: LSTMArguments, reverse: bool):
        self._core_tape = core_tape
        arrays = {n: a for n, a in given._asdict().items() if isinstance(a, np.ndarray)}
        self._shapes = {name: a.shape for name, a in arrays.items()}
        self._reverse = reverse

    @property
    def nbytes(self) -> int:
        """Memory that the tape holds."""
        return self._core_tape.nbytes

    def __repr__(self) -> str:
        return f"<LSTMTape of x {self._shapes['x']}, {self.nbytes / 1e6:.1f} MB>"


def run_forward(core, weights, x, h_0, c_0, lengths, reverse, training, y, h_n, c_n):
    """Run one direction over checked arguments: fill y, h_n, c_n; return the core's tape."""
    x = readable(x)
    if reverse and lengths is None:
        x, y = x[::-1], y[::-1]
    if lengths is not None:
        y[...] = 0
    return core.lstm_forward(
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
    )


def run_backward(core, tape, ragged, reverse, dy, dh_n, dc_n, dx, dw_ih, dw_hh, db, dh_0, dc_0):
    """Run one direction backward over checked arguments; fills or adds to the gradients."""
    dy = readable_or_none(dy)
    if reverse and not ragged:
        dx = dx[::-1]
        dy = None if dy is None else dy[::-1]
    core.lstm_backward(
        tape,
        dy,
        readable_or_none(dh_n),
        readable_or_none(dc_n),
        dx,
        dw_ih,
        dw_hh,
        db,
        dh_0,
        dc_0,
    )


def lstm_forward(
    x: ArrayLike,
    w_ih: ArrayLike,
    w_hh: ArrayLike,
    b: ArrayLike | None = None,
    h_0: ArrayLike | None = None,
    c_0: ArrayLike | None = None,
    *,
    lengths: ArrayLike | None = None,
    reverse: bool = False,
    peephole: ArrayLike | None = None,
    w_proj: ArrayLike | None = None,
    training: bool = False,
) -> LSTMOutput:
    """Run an LSTM over a batch of sequences.

    Per time step, with the gates in the order i, f, g, o::

        [zi zf zg zo] = x_t @ w_ih.T + h_{t-1} @ w_hh.T + b
        i, f, o = sigmoid(zi), sigmoid(zf), sigmoid(zo);   g = tanh(zg)
        c_t = f * c_{t-1} + i * g
        h_t = o * tanh(c_t)

    Parameters
    ----------
    x : (T, B, I) array of float32 or float64
        T time steps of B sequences with I features. All other arrays have its dtype.
    w_ih : (4H, I) array
        Input weights.
    w_hh : (4H, H) array
        Recurrent weights.
    b : (4H,) array, optional
        Bias; the sum of the two that PyTorch and ONNX have.
    h_0, c_0 : (B, H) arrays, optional
        Initial hidden and cell state, zero by default.
    lengths : (B,) integers in [0, T], optional
        Where the sequences end, in any order. The cost follows their sum.
    reverse : bool
        Run from each sequence's end to its beginning; `y` stays in the order of `x`.
    peephole, w_proj : None
        Not implemented yet.
    training : bool
        Keep what `lstm_backward` needs.

    Returns
    -------
    LSTMOutput
        ``y`` (T, B, H), zero from a sequence's end on; ``h_n`` and ``c_n`` (B, H), the state after
        the last step of each sequence; ``tape``, None unless `training`.

    Raises
    ------
    ValueError
        If a shape or a length does not fit; the message names the argument.
    TypeError
        If a dtype is not float32 or float64, or not that of `x`.

    References
    ----------
    Hochreiter & Schmidhuber (1997), doi:10.1162/neco.1997.9.8.1735; the forget gate is that of
    Gers, Schmidhuber & Cummins (2000), doi:10.1162/089976600300015015.

    Examples
    --------
    >>> import numpy as np
    >>> import fastlstm
    >>> rng = np.random.default_rng(0)
    >>> x = rng.standard_normal((5, 2, 3))
    >>> w_ih, w_hh = rng.standard_normal((16, 3)), rng.standard_normal((16, 4))
    >>> y, h_n, c_n, tape = fastlstm.lstm_forward(x, w_ih, w_hh)
    >>> y.shape
    (5, 2, 4)
    >>> bool((y[-1] == h_n).all())
    True
    """
    for name, value in (("peephole", peephole), ("w_proj", w_proj)):
        if value is not None:
            raise NotImplementedError(f"{name}: not implemented yet")
    args = check_lstm(x, w_ih, w_hh, b, h_0, c_0, lengths=lengths)
    core = CORES[args.x.dtype]
    T, B, _ = args.x.shape
    w_ih, w_hh = readable(args.w_ih), readable(args.w_hh)
    weights = core.LSTMWeights(w_ih, w_hh, readable_or_none(args.b))
    if training:
        weights.prepare_backward(w_ih, w_hh)
    y = np.empty((T, B, weights.H), args.x.dtype)
    h_n = np.empty((B, weights.H), args.x.dtype)
    c_n = np.empty((B, weights.H), args.x.dtype)
    core_tape = run_forward(
        core, weights, args.x, args.h_0, args.c_0, args.lengths, reverse, training, y, h_n, c_n
    )
    return LSTMOutput(y, h_n, c_n, LSTMTape(core_tape, args, reverse) if training else None)


def lstm_backward(
    tape: LSTMTape,
    dy: ArrayLike | None = None,
    dh_n: ArrayLike | None = None,
    dc_n: ArrayLike | None = None,
) -> LSTMGradients:
    """Backpropagate through time what `lstm_forward` did.

    Parameters
    ----------
    tape : LSTMTape
        From ``lstm_forward(..., training=True)``.
    dy : (T, B, H) array, optional
        Gradient of the loss with respect to ``y``; what stands beyond a sequence's end is ignored.
    dh_n, dc_n : (B, H) arrays, optional
        Gradients with respect to ``h_n`` and ``c_n``.

    Returns
    -------
    LSTMGradients
        The gradient with respect to each argument of `lstm_forward`, in its shape; None for those
        that were not given.

    Raises
    ------
    TypeError
        If `tape` is not a tape, or a dtype is not that of ``x``.
    ValueError
        If a shape does not fit.

    Examples
    --------
    >>> import numpy as np
    >>> import fastlstm
    >>> rng = np.random.default_rng(0)
    >>> x = rng.standard_normal((5, 2, 3))
    >>> w_ih, w_hh = rng.standard_normal((16, 3)), rng.standard_normal((16, 4))
    >>> y, _, _, tape = fastlstm.lstm_forward(x, w_ih, w_hh, training=True)
    >>> grads = fastlstm.lstm_backward(tape, dy=np.ones_like(y))
    >>> grads.w_hh.shape, grads.b is None
    ((16, 4), True)
    """
    if not isinstance(tape, LSTMTape):
        raise TypeError(f"tape: expected an LSTMTape, got {type(tape).__name__}")
    shapes = tape._shapes
    T, B, _ = shapes["x"]
    H = shapes["w_hh"][1]
    core_tape = tape._core_tape
    dtype = core_tape.x.dtype
    dy = check_optional("dy", dy, (T, B, H), dtype)
    dh_n = check_optional("dh_n", dh_n, (B, H), dtype)
    dc_n = check_optional("dc_n", dc_n, (B, H), dtype)
    arrays: dict[str, Any] = dict.fromkeys(LSTMGradients._fields)
    arrays |= {name: np.zeros(shapes[name], dtype) for name in arrays if name in shapes}
    gradients = LSTMGradients(**arrays)
    run_backward(
        CORES[dtype],
        core_tape,
        "lengths" in shapes,
        tape._reverse,
        dy,
        dh_n,
        dc_n,
        *gradients[:6],
    )
    return gradients
