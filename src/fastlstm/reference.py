"""The LSTM in plain NumPy: the specification in code, and the baseline of the benchmarks.

Each line of the model stands here under the same letters (DESIGN, section 2). `lstm_forward`
and `lstm_backward` take and return what the functions of the same name in `fastlstm` do.

The cell state is *added to*, ``c_t = f * c_{t-1} + i * g``, not concatenated: it stays H wide, and
because of that sum its gradient goes back one step by a product with f alone (near 1 where the cell
remembers) and not through a matrix and a squashing function, so that it survives long lags.

Decisions:
a) A loop over time and over nothing else; the input's product and the gradients of the weights
   and of x are single matrix products over all steps of all rows.
b) Ragged rows need no second algorithm: at time t only the rows with ``t < lengths[b]`` take part,
   and the others keep their state. In reverse, t runs from T - 1 down to 0 and the same rule makes
   each row start at its own end.
c) The tape holds what the backward equations read, under their names, and every array has the
   dtype of x.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ._arguments import LSTMArguments, LSTMGradients, LSTMOutput, check_lstm, check_optional

__all__ = ["lstm_backward", "lstm_forward", "sigmoid"]


class LSTMTape(NamedTuple):
    """What `lstm_forward` keeps for `lstm_backward`; arrays per step are (T, B, ...)."""

    arguments: LSTMArguments
    reverse: bool
    gates: NDArray  # (T, B, 4, H): i, f, g, o
    h_prev: NDArray  # (T, B, H): h_{t-1}
    c_prev: NDArray  # (T, B, H): c_{t-1}
    tanh_c: NDArray  # (T, B, H): tanh(c_t)


@np.errstate(over="ignore")
def sigmoid(z: NDArray) -> NDArray:
    """Return the logistic function; where ``exp(-z)`` overflows, its limit 0.

    Examples
    --------
    >>> float(sigmoid(np.float32(0)))
    0.5
    """
    return 1 / (1 + np.exp(-z))


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
    """Run one LSTM layer over a batch of sequences, in one direction.

    Parameters
    ----------
    x : (T, B, I) array
        The input, float32 or float64; every other array must have its dtype.
    w_ih, w_hh : (4H, I) and (4H, H) arrays
        The weights, the gates in the order i, f, g, o.
    b : (4H,) array, optional
        The bias; PyTorch's and ONNX's two biases are one here, their sum.
    h_0, c_0 : (B, H) arrays, optional
        The state before the first step; zeros if not given.
    lengths : (B,) array of integers in [0, T], optional
        The number of steps of each row, in any order; T if not given. What x holds beyond is
        not read.
    reverse : bool
        Process each row from its own end to its start.
    peephole, w_proj : None
        Not implemented yet.
    training : bool
        Keep the tape that `lstm_backward` needs.

    Returns
    -------
    LSTMOutput
        ``y`` (T, B, H) in the order of time, 0 past a row's end; ``h_n`` and ``c_n`` (B, H), the
        state after each row's last step; ``tape``, or None. The tape refers to x, w_ih, w_hh and
        lengths: they must not change before `lstm_backward` is called.

    Raises
    ------
    ValueError
        If a shape or a length does not fit; the message names the argument.
    TypeError
        If x is neither float32 nor float64, or another array's dtype differs.
    NotImplementedError
        If `peephole` or `w_proj` is given.

    References
    ----------
    Hochreiter & Schmidhuber (1997), Long short-term memory, doi:10.1162/neco.1997.9.8.1735.
    The forget gate: Gers, Schmidhuber & Cummins (2000), Learning to forget: continual prediction
    with LSTM, doi:10.1162/089976600300015015.

    Examples
    --------
    One cell whose weights are 0 and whose biases hold every gate at 1/2 and g at 0 halves its
    state at each step:

    >>> import numpy as np
    >>> from fastlstm import reference
    >>> x, w_ih, w_hh = np.ones((3, 1, 2)), np.zeros((4, 2)), np.zeros((4, 1))
    >>> y, h_n, c_n, tape = reference.lstm_forward(x, w_ih, w_hh, c_0=np.array([[8.0]]))
    >>> c_n
    array([[1.]])
    >>> bool(h_n == 0.5 * np.tanh(c_n))
    True
    """
    a = check_lstm(x, w_ih, w_hh, b, h_0, c_0, lengths, peephole, w_proj)
    (T, B, I), H, dtype = a.x.shape, a.w_hh.shape[1], a.x.dtype
    valid, times = _steps(a.lengths, T, B, reverse)

    # the input's share of z, for all steps at once; the gates will take its place
    z_x = a.x.reshape(T * B, I)[valid] @ a.w_ih.T
    if a.b is not None:
        z_x += a.b
    gates = _spread(z_x, valid, T, B).reshape(T, B, 4, H)

    h, c = _state(a.h_0, B, H, dtype), _state(a.c_0, B, H, dtype)
    y = np.zeros((T, B, H), dtype)
    h_prev, c_prev, tanh_c = (np.zeros((T if training else 0, B, H), dtype) for _ in range(3))
    w_hh_t = a.w_hh.T

    for t, rows in times:
        if training:
            h_prev[t], c_prev[t] = h, c
        z = gates[t, rows] + (h[rows] @ w_hh_t).reshape(-1, 4, H)
        z[:, :2], z[:, 2], z[:, 3] = sigmoid(z[:, :2]), np.tanh(z[:, 2]), sigmoid(z[:, 3])
        i, f, g, o = z.swapaxes(0, 1)
        c[rows] = f * c[rows] + i * g
        tanh_ct = np.tanh(c[rows])
        y[t, rows] = h[rows] = o * tanh_ct
        if training:
            gates[t, rows], tanh_c[t, rows] = z, tanh_ct

    tape = LSTMTape(a, reverse, gates, h_prev, c_prev, tanh_c) if training else None
    return LSTMOutput(y, h, c, tape)


def lstm_backward(
    tape: object,
    dy: ArrayLike | None = None,
    dh_n: ArrayLike | None = None,
    dc_n: ArrayLike | None = None,
) -> LSTMGradients:
    """Back-propagate through time: from the gradients of the outputs to those of the arguments.

    Parameters
    ----------
    tape : LSTMTape
        From ``lstm_forward(..., training=True)``; it may be used any number of times.
    dy : (T, B, H) array, optional
        The loss's gradient with respect to y; past a row's end it is not read.
    dh_n, dc_n : (B, H) arrays, optional
        The loss's gradients with respect to h_n and c_n. What is not given is 0.

    Returns
    -------
    LSTMGradients
        One gradient for each argument, with its shape; None for what was not given.

    Raises
    ------
    ValueError
        If a shape does not fit; the message names the argument.
    TypeError
        If `tape` is not a tape of this module, or a dtype differs from that of x.

    References
    ----------
    As `lstm_forward`; the whole gradient, through every gate and every step, is that of Graves &
    Schmidhuber (2005), doi:10.1016/j.neunet.2005.06.042.

    Examples
    --------
    >>> import numpy as np
    >>> from fastlstm import reference
    >>> x, w_ih, w_hh = np.ones((3, 1, 2)), np.zeros((4, 2)), np.zeros((4, 1))
    >>> tape = reference.lstm_forward(x, w_ih, w_hh, c_0=np.array([[8.0]]), training=True).tape
    >>> grads = reference.lstm_backward(tape, dc_n=np.array([[1.0]]))
    >>> grads.c_0  # three steps, f = 1/2 at each
    array([[0.125]])
    >>> grads.b is None
    True
    """
    if not isinstance(tape, LSTMTape):
        raise TypeError(
            "tape: expected an LSTMTape from reference.lstm_forward(..., training=True), "
            f"got {type(tape).__name__}"
        )
    a = tape.arguments
    (T, B, I), H, dtype = a.x.shape, a.w_hh.shape[1], a.x.dtype
    dh_y = check_optional("dy", dy, (T, B, H), dtype)
    dh = _state(check_optional("dh_n", dh_n, (B, H), dtype), B, H, dtype)
    dc = _state(check_optional("dc_n", dc_n, (B, H), dtype), B, H, dtype)
    valid, times = _steps(a.lengths, T, B, tape.reverse)
    dz = np.empty((T, B, 4, H), dtype)

    for t, rows in reversed(times):
        i, f, g, o = tape.gates[t, rows].swapaxes(0, 1)
        c_prev, tanh_c = tape.c_prev[t, rows], tape.tanh_c[t, rows]
        dh_t = dh[rows] if dh_y is None else dh[rows] + dh_y[t, rows]
        dc_t = dc[rows] + dh_t * o * (1 - tanh_c * tanh_c)
        di, df, dg, do = dc_t * g, dc_t * c_prev, dc_t * i, dh_t * tanh_c
        dc[rows] = dc_t * f
        dz_t = np.empty((len(o), 4, H), dtype)
        dz_t[:, 0], dz_t[:, 1] = di * i * (1 - i), df * f * (1 - f)
        dz_t[:, 2], dz_t[:, 3] = dg * (1 - g * g), do * o * (1 - o)
        dz[t, rows] = dz_t
        dh[rows] = dz_t.reshape(-1, 4 * H) @ a.w_hh

    # the steps of all rows as one matrix: sums over time and batch become single products
    dz_all = dz.reshape(T * B, 4 * H)[valid]
    return LSTMGradients(
        x=_spread(dz_all @ a.w_ih, valid, T, B).reshape(T, B, I),
        w_ih=dz_all.T @ a.x.reshape(T * B, I)[valid],
        w_hh=dz_all.T @ tape.h_prev.reshape(T * B, H)[valid],
        b=None if a.b is None else dz_all.sum(axis=0),
        h_0=None if a.h_0 is None else dh,
        c_0=None if a.c_0 is None else dc,
        peephole=None,
        w_proj=None,
    )


def _state(given: NDArray | None, B: int, H: int, dtype: np.dtype) -> NDArray:
    """Return an array of our own, (B, H), that starts as `given` or as zeros."""
    return np.zeros((B, H), dtype) if given is None else given.copy()


def _steps(
    lengths: NDArray | None, T: int, B: int, reverse: bool
) -> tuple[slice | NDArray, list[tuple[int, slice | NDArray]]]:
    """Return which of the (T * B) steps exist, and (t, rows with a step t) in processing order."""
    valid: slice | NDArray = slice(None)
    rows: list[slice | NDArray] = [slice(None)] * T
    if lengths is not None:
        exists = np.arange(T)[:, np.newaxis] < lengths
        valid = exists.reshape(T * B)
        rows = [np.flatnonzero(exists_t) for exists_t in exists]
    times = list(enumerate(rows))
    return valid, times[::-1] if reverse else times


def _spread(steps: NDArray, valid: slice | NDArray, T: int, B: int) -> NDArray:
    """Put rows of `steps` where the (T * B) steps exist, zeros elsewhere."""
    if isinstance(valid, slice):
        return steps
    spread = np.zeros((T * B, steps.shape[1]), steps.dtype)
    spread[valid] = steps
    return spread
