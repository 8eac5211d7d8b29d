"""The array API: one layer, one direction, no state of its own.

Arguments are checked here (see `_args.arrays`), and only here. What a function computes stands in
its docstring; the same in NumPy, line by line, in `fastlstm.reference`.
"""

from __future__ import annotations  # so that help() shows names

from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastlstm._args.arrays import check_gru, check_lstm, check_optional, check_rnn, readable
from fastlstm._args.numbers import ActivationLike
from fastlstm._args.results import (
    GRUGradients,
    GRUOutput,
    LSTMGradients,
    LSTMOutput,
    RNNGradients,
    RNNOutput,
)
from fastlstm._core.calls import (
    CORES,
    Masks,
    make_weights,
    restarts_of,
    run_backward,
    run_forward,
)

Gradients = TypeVar("Gradients", LSTMGradients, GRUGradients, RNNGradients)


class Tape:
    """What a backward function needs of its forward call.

    It keeps copies of the weights and of the hidden states, but only a reference to `x`: leave `x`
    as it is until the backward call. A tape may be used any number of times.

    Parameters
    ----------
    cell, core_tape, given, reverse
        Of the function that made it.

    Attributes
    ----------
    cell : str
        ``"lstm"``, ``"gru"`` or ``"rnn"``.
    nbytes : int
        Memory that the tape holds, `x` not counted. Per row, step and (padded) hidden unit the
        plain LSTM keeps 6 numbers (four gates, c and h), the GRU 5, the RNN 2.
    """

    def __init__(self, cell: str, core_tape: Any, given: Any, reverse: bool):
        self.cell = cell
        self._core_tape = core_tape
        arrays = {n: a for n, a in given._asdict().items() if isinstance(a, np.ndarray)}
        self._shapes = {name: a.shape for name, a in arrays.items()}
        self._reverse = reverse

    @property
    def nbytes(self) -> int:
        """Memory that the tape holds."""
        return int(self._core_tape.nbytes)

    def __repr__(self) -> str:
        return f"<Tape of {self.cell} over x {self._shapes['x']}, {self.nbytes / 1e6:.1f} MB>"


def _forward(
    cell: str, a: Any, reverse: bool, training: bool, **options: Any
) -> tuple[NDArray[Any], NDArray[Any], Any, Tape | None]:
    """Return y, h_n, c_n and the tape for checked arguments."""
    core = CORES[a.x.dtype]
    weights = make_weights(core, cell, a.w_ih, a.w_hh, a.b, **options)
    if training:
        w_proj = options.get("w_proj")
        weights.prepare_backward(
            readable(a.w_ih), readable(a.w_hh), None if w_proj is None else readable(w_proj)
        )
    (T, B, _), R = a.x.shape, a.w_hh.shape[1]
    y = np.empty((T, B, R), a.x.dtype)
    h_n = np.empty((B, R), a.x.dtype)
    c_n = np.empty((B, weights.H), a.x.dtype) if cell == "lstm" else None
    masks = Masks(a.zoneout_h, getattr(a, "zoneout_c", None), a.dropout_h)
    core_tape = run_forward(
        core,
        weights,
        a.x,
        y,
        initial=(a.h_0, getattr(a, "c_0", None)),
        final=(h_n, c_n),
        masks=None if all(mask is None for mask in masks) else masks,
        lengths=a.lengths,
        restarts=restarts_of(a.resets, a.lengths, reverse),
        reverse=reverse,
        training=training,
    )
    return y, h_n, c_n, Tape(cell, core_tape, a, reverse) if training else None


def _backward(
    cell: str,
    result: type[Gradients],
    tape: object,
    dy: ArrayLike | None,
    dh_n: ArrayLike | None,
    dc_n: ArrayLike | None = None,
) -> Gradients:
    """Return the gradients of each argument of `cell` that is a field of `result`."""
    if not isinstance(tape, Tape) or tape.cell != cell:
        got = f"that of {tape.cell}_forward" if isinstance(tape, Tape) else type(tape).__name__
        raise TypeError(f"tape: expected the tape of {cell}_forward, got {got}")
    shapes, core_tape = tape._shapes, tape._core_tape
    dtype = core_tape.x.dtype
    (T, B, _), R = shapes["x"], shapes["w_hh"][1]
    H = shapes["w_proj"][1] if "w_proj" in shapes else R
    dy = check_optional("dy", dy, (T, B, R), dtype)
    dh_n = check_optional("dh_n", dh_n, (B, R), dtype)
    dc_n = check_optional("dc_n", dc_n, (B, H), dtype)
    gradients: dict[str, NDArray[Any] | None] = dict.fromkeys(result._fields)
    gradients |= {name: np.zeros(shapes[name], dtype) for name in gradients if name in shapes}
    states = {name: gradients.pop(name) for name in ("h_0", "c_0") if name in gradients}
    dx = gradients.pop("x")
    run_backward(
        CORES[dtype],
        core_tape,
        ragged="lengths" in shapes,
        reverse=tape._reverse,
        dy=dy,
        dfinal=(dh_n, dc_n),
        dx=dx,
        dinitial=(states["h_0"], states.get("c_0")),
        gradients=gradients,
    )
    found: Any = {"x": dx, **states, **gradients}
    return result(**found)


def lstm_forward(
    x: ArrayLike,
    w_ih: ArrayLike,
    w_hh: ArrayLike,
    b: ArrayLike | None = None,
    h_0: ArrayLike | None = None,
    c_0: ArrayLike | None = None,
    *,
    lengths: ArrayLike | None = None,
    resets: ArrayLike | None = None,
    reverse: bool = False,
    peephole: ArrayLike | None = None,
    w_proj: ArrayLike | None = None,
    layer_norm: ArrayLike | None = None,
    coupled: bool = False,
    clip: float | None = None,
    cell_clip: float | None = None,
    proj_clip: float | None = None,
    zoneout_h: float | ArrayLike | None = None,
    zoneout_c: float | ArrayLike | None = None,
    dropout_h: ArrayLike | None = None,
    activations: tuple[ActivationLike, ...] = ("sigmoid", "tanh", "tanh"),
    compute_dtype: str | None = None,
    training: bool = False,
) -> LSTMOutput:
    """Run an LSTM over a batch of sequences.

    Per step, with s0, s1, s2 = `activations`, N the normalisation, and every option that is not
    given left out::

        zx = x_t @ w_ih.T;  zh = (dropout_h * h_{t-1}) @ w_hh.T
        [zi zf zg zo] = zx + zh + b            layer_norm: N(zx) * gx + N(zh) * gh + b
        i = s0(zi + p_i * c_{t-1})
        f = s0(zf + p_f * c_{t-1})             coupled: 1 - i
        g = s1(zg)
        c~ = clip(f * c_{t-1} + i * g, +-cell_clip)
        o = s0(zo + p_o * c~)
        m = o * s2(c~)                         layer_norm: o * s2(N(c~) * gc + bc)
        h~ = clip(m @ w_proj.T, +-proj_clip)   m without w_proj
        c_t = zoneout_c * c_{t-1} + (1 - zoneout_c) * c~
        h_t = zoneout_h * h_{t-1} + (1 - zoneout_h) * h~

    Parameters
    ----------
    x : (T, B, I) array
        The input, float32 or float64; every other array must have its dtype.
    w_ih, w_hh : (G * H, I) and (G * H, R) arrays
        The weights; G = 4 gates in the order i, f, g, o. R is the width of h: H, or that of
        `w_proj`.
    b : (G * H,) array, optional
        The bias; PyTorch's and ONNX's two biases are one here, their sum.
    h_0, c_0 : (B, R) and (B, H) arrays, optional
        The state before the first step; zeros if not given.
    lengths : (B,) array of integers in [0, T], optional
        Where the sequences end, in any order; T if not given. The cost follows their sum.
    resets : (T, B) array of bool, optional
        Where it is true, a new episode begins with that step: no state passes from t - 1 to t, nor
        from t to t - 1 if `reverse`, and no gradient. Instead it is zero there; so where
        ``resets[0]`` is true, `h_0` and `c_0` are not used, unless `reverse`.
    reverse : bool
        Process each row from its own end to its start.
    peephole : (3, H) array, optional
        The weights p_i, p_f, p_o from the cell state to the gates. If coupled: (2, H), p_i, p_o.
    w_proj : (R, H) array, optional
        The projection of the output.
    layer_norm : (2G + 2, H) array, optional
        The gains gx and gh (G rows each), then gc and bc. N(v) is ``(v - mean) / sqrt(var + 1e-5)``
        over the G * H elements of zx or zh and over the H of c~.
    coupled : bool
        ``f = 1 - i``; then G = 3 gates, i, g, o.
    clip : float, optional
        Bounds the input of every activation, as ONNX's attribute; not with `training`.
    cell_clip, proj_clip : float, optional
        Bounds of the cell state and of the projected output.
    zoneout_h, zoneout_c : float or (T, B, R) and (T, B, H) arrays, optional
        How much of the old state stays, in [0, 1]: random masks of 0 and 1 in training, in the
        order of x, and their expectation afterwards.
    dropout_h : (B, R) array, optional
        The mask of variational dropout, the same at all steps, scaled by the caller.
    activations : tuple of three
        Those of the gates, the candidate g and the output: a name or (name, alpha[, beta]) from
        sigmoid, tanh, relu, affine, leaky_relu, thresholded_relu, scaled_tanh, hard_sigmoid, elu,
        softsign, softplus; formulas and defaults are ONNX's.
    compute_dtype : None, "bfloat16" or "int8"
        What is multiplied: numbers as they are, or float32 rounded (docs/design.md). Arrays stay
        float32. bfloat16 rounds x, h, weights and, backward, gradients of pre-activations; int8
        rounds x, h and weights, sums exactly, and goes backward in float32, straight through the
        rounding (quantisation-aware training).
    training : bool
        Keep the tape that `lstm_backward` needs. It refers to `x`, which must stay as it is until
        then; of all else it has copies.

    Returns
    -------
    LSTMOutput
        ``y`` (T, B, R) in the order of time, 0 past a row's end; ``h_n`` (B, R) and ``c_n``
        (B, H), the state after each row's last step; ``tape``, None unless `training`.

    Raises
    ------
    ValueError
        If a shape or a value does not fit; the message names the argument.
    TypeError
        If x is neither float32 nor float64, or another array's dtype differs.

    References
    ----------
    Hochreiter & Schmidhuber (1997), Long short-term memory, doi:10.1162/neco.1997.9.8.1735.
    The forget gate: Gers, Schmidhuber & Cummins (2000), Learning to forget: continual prediction
    with LSTM, doi:10.1162/089976600300015015. Peepholes: Gers, Schraudolph & Schmidhuber (2002),
    Learning precise timing with LSTM recurrent networks, JMLR 3. Coupled gates: Greff et al.
    (2017), LSTM: a search space odyssey, doi:10.1109/TNNLS.2016.2582924. Projection: Sak, Senior &
    Beaufays (2014), arXiv:1402.1128. Normalisation: Ba, Kiros & Hinton (2016), arXiv:1607.06450.
    Zoneout: Krueger et al. (2017), arXiv:1606.01305. Dropout: Gal & Ghahramani (2016),
    arXiv:1512.05287.

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
    a = check_lstm(
        x,
        w_ih,
        w_hh,
        b,
        h_0,
        c_0,
        lengths=lengths,
        resets=resets,
        peephole=peephole,
        w_proj=w_proj,
        layer_norm=layer_norm,
        coupled=coupled,
        clip=clip,
        cell_clip=cell_clip,
        proj_clip=proj_clip,
        zoneout_h=zoneout_h,
        zoneout_c=zoneout_c,
        dropout_h=dropout_h,
        activations=activations,
        compute_dtype=compute_dtype,
        training=training,
    )
    return LSTMOutput(
        *_forward(
            "lstm",
            a,
            reverse,
            training,
            peephole=a.peephole,
            w_proj=a.w_proj,
            layer_norm=a.layer_norm,
            coupled=a.coupled,
            clip=a.clip,
            cell_clip=a.cell_clip,
            proj_clip=a.proj_clip,
            activations=a.activations,
            compute_dtype=a.compute_dtype,
        )
    )


def lstm_backward(
    tape: object,
    dy: ArrayLike | None = None,
    dh_n: ArrayLike | None = None,
    dc_n: ArrayLike | None = None,
) -> LSTMGradients:
    """Backpropagate through time what `lstm_forward` did.

    Parameters
    ----------
    tape : Tape
        From ``lstm_forward(..., training=True)``.
    dy : (T, B, R) array, optional
        Gradient of the loss with respect to ``y``; what stands beyond a sequence's end is ignored.
    dh_n, dc_n : (B, R) and (B, H) arrays, optional
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
    return _backward("lstm", LSTMGradients, tape, dy, dh_n, dc_n)


def gru_forward(
    x: ArrayLike,
    w_ih: ArrayLike,
    w_hh: ArrayLike,
    b: ArrayLike | None = None,
    h_0: ArrayLike | None = None,
    *,
    lengths: ArrayLike | None = None,
    resets: ArrayLike | None = None,
    reverse: bool = False,
    reset_after: bool = True,
    clip: float | None = None,
    zoneout_h: float | ArrayLike | None = None,
    dropout_h: ArrayLike | None = None,
    activations: tuple[ActivationLike, ...] = ("sigmoid", "tanh"),
    compute_dtype: str | None = None,
    training: bool = False,
) -> GRUOutput:
    """Run one GRU layer over a batch of sequences, in one direction.

    Per step, with s0, s1 = `activations` and the weights' rows in the order r, z, n::

        h' = dropout_h * h_{t-1}
        r = s0(x_t @ W_ir.T + h' @ W_hr.T + b_r)
        z = s0(x_t @ W_iz.T + h' @ W_hz.T + b_z)
        n = s1(x_t @ W_in.T + b_n + r * (h' @ W_hn.T + b_hn))   if reset_after, else
        n = s1(x_t @ W_in.T + b_n + (r * h') @ W_hn.T)
        h~ = (1 - z) * n + z * h_{t-1}
        h_t = zoneout_h * h_{t-1} + (1 - zoneout_h) * h~

    Parameters
    ----------
    x : (T, B, I) array
        The input, float32 or float64; every other array must have its dtype.
    w_ih, w_hh : (3H, I) and (3H, H) arrays
        The weights.
    b : (4H,) array, or (3H,) without `reset_after`, optional
        The bias b_r, b_z, b_n, b_hn; of r and z, the sum of PyTorch's and ONNX's two. b_hn exists
        only with `reset_after`.
    h_0 : (B, H) array, optional
        The state before the first step; zeros if not given.
    lengths, resets, reverse
        As in `lstm_forward`.
    reset_after : bool
        Where the reset gate acts: on the recurrent product (PyTorch, cuDNN, Keras, ONNX with
        ``linear_before_reset=1``) or on the state before it (Cho et al., ONNX's default).
    clip, zoneout_h, dropout_h
        As in `lstm_forward`.
    activations : tuple of two
        Those of the gates and of the candidate n, as in `lstm_forward`.
    compute_dtype, training
        As in `lstm_forward`.

    Returns
    -------
    GRUOutput
        ``y`` (T, B, H) in the order of time, 0 past a row's end; ``h_n`` (B, H), the state after
        each row's last step; ``tape``, or None, with what `lstm_forward` says of it.

    Raises
    ------
    ValueError
        If a shape or a value does not fit; the message names the argument.
    TypeError
        If x is neither float32 nor float64, or another array's dtype differs.

    References
    ----------
    Cho et al. (2014), Learning phrase representations using RNN encoder-decoder,
    arXiv:1406.1078. `reset_after` is the form of cuDNN.

    Examples
    --------
    Weights of 0 hold z at 1/2 and n at 0, so that the state is halved at each step:

    >>> import numpy as np
    >>> import fastlstm
    >>> x, w_ih, w_hh = np.ones((3, 1, 2)), np.zeros((3, 2)), np.zeros((3, 1))
    >>> fastlstm.gru_forward(x, w_ih, w_hh, h_0=np.array([[8.0]])).y.ravel()
    array([4., 2., 1.])
    """
    a = check_gru(
        x,
        w_ih,
        w_hh,
        b,
        h_0,
        lengths=lengths,
        resets=resets,
        reset_after=reset_after,
        clip=clip,
        zoneout_h=zoneout_h,
        dropout_h=dropout_h,
        activations=activations,
        compute_dtype=compute_dtype,
        training=training,
    )
    options = {
        "reset_after": a.reset_after,
        "clip": a.clip,
        "activations": a.activations,
        "compute_dtype": a.compute_dtype,
    }
    y, h_n, _, tape = _forward("gru", a, reverse, training, **options)
    return GRUOutput(y, h_n, tape)


def gru_backward(
    tape: object, dy: ArrayLike | None = None, dh_n: ArrayLike | None = None
) -> GRUGradients:
    """Back-propagate through time: from the gradients of the outputs to those of the arguments.

    Parameters
    ----------
    tape : Tape
        From ``gru_forward(..., training=True)``; it may be used any number of times.
    dy : (T, B, H) array, optional
        The loss's gradient with respect to y; past a row's end it is not read.
    dh_n : (B, H) array, optional
        The loss's gradient with respect to h_n. What is not given is 0.

    Returns
    -------
    GRUGradients
        One gradient for each argument, with its shape; None for what was not given. Masks have
        none.

    Raises
    ------
    ValueError
        If a shape does not fit; the message names the argument.
    TypeError
        If `tape` is not a tape of this module, or a dtype differs from that of x.

    References
    ----------
    As `gru_forward`.

    Examples
    --------
    >>> import numpy as np
    >>> import fastlstm
    >>> x, w_ih, w_hh = np.ones((3, 1, 2)), np.zeros((3, 2)), np.zeros((3, 1))
    >>> tape = fastlstm.gru_forward(x, w_ih, w_hh, h_0=np.array([[8.0]]), training=True).tape
    >>> fastlstm.gru_backward(tape, dh_n=np.array([[1.0]])).h_0  # three steps, z = 1/2 at each
    array([[0.125]])
    """
    return _backward("gru", GRUGradients, tape, dy, dh_n)


def rnn_forward(
    x: ArrayLike,
    w_ih: ArrayLike,
    w_hh: ArrayLike,
    b: ArrayLike | None = None,
    h_0: ArrayLike | None = None,
    *,
    lengths: ArrayLike | None = None,
    resets: ArrayLike | None = None,
    reverse: bool = False,
    nonlinearity: ActivationLike = "tanh",
    clip: float | None = None,
    zoneout_h: float | ArrayLike | None = None,
    dropout_h: ArrayLike | None = None,
    compute_dtype: str | None = None,
    training: bool = False,
) -> RNNOutput:
    """Run one layer of a plain RNN over a batch of sequences, in one direction.

    Per step, with s the `nonlinearity`::

        h~ = s(x_t @ w_ih.T + b + (dropout_h * h_{t-1}) @ w_hh.T)
        h_t = zoneout_h * h_{t-1} + (1 - zoneout_h) * h~

    Parameters
    ----------
    x : (T, B, I) array
        The input, float32 or float64; every other array must have its dtype.
    w_ih, w_hh : (H, I) and (H, H) arrays
        The weights.
    b : (H,) array, optional
        The bias; PyTorch's and ONNX's two biases are one here, their sum.
    h_0 : (B, H) array, optional
        The state before the first step; zeros if not given.
    lengths, resets, reverse
        As in `lstm_forward`.
    nonlinearity : str or (name, alpha[, beta])
        One of the activations of `lstm_forward`.
    clip, zoneout_h, dropout_h, compute_dtype, training
        As in `lstm_forward`.

    Returns
    -------
    RNNOutput
        ``y`` (T, B, H) in the order of time, 0 past a row's end; ``h_n`` (B, H), the state after
        each row's last step; ``tape``, or None, with what `lstm_forward` says of it.

    Raises
    ------
    ValueError
        If a shape or a value does not fit; the message names the argument.
    TypeError
        If x is neither float32 nor float64, or another array's dtype differs.

    References
    ----------
    Elman (1990), Finding structure in time, doi:10.1207/s15516709cog1402_1.

    Examples
    --------
    A cell that only sums its input:

    >>> import numpy as np
    >>> import fastlstm
    >>> x, one = np.array([[[1.0]], [[2.0]], [[4.0]]]), np.ones((1, 1))
    >>> fastlstm.rnn_forward(x, one, one, nonlinearity="affine").y.ravel()
    array([1., 3., 7.])
    """
    a = check_rnn(
        x,
        w_ih,
        w_hh,
        b,
        h_0,
        lengths=lengths,
        resets=resets,
        nonlinearity=nonlinearity,
        clip=clip,
        zoneout_h=zoneout_h,
        dropout_h=dropout_h,
        compute_dtype=compute_dtype,
        training=training,
    )
    options = {
        "clip": a.clip,
        "activations": (a.nonlinearity,),
        "compute_dtype": a.compute_dtype,
    }
    y, h_n, _, tape = _forward("rnn", a, reverse, training, **options)
    return RNNOutput(y, h_n, tape)


def rnn_backward(
    tape: object, dy: ArrayLike | None = None, dh_n: ArrayLike | None = None
) -> RNNGradients:
    """Back-propagate through time: from the gradients of the outputs to those of the arguments.

    Parameters
    ----------
    tape : Tape
        From ``rnn_forward(..., training=True)``; it may be used any number of times.
    dy : (T, B, H) array, optional
        The loss's gradient with respect to y; past a row's end it is not read.
    dh_n : (B, H) array, optional
        The loss's gradient with respect to h_n. What is not given is 0.

    Returns
    -------
    RNNGradients
        One gradient for each argument, with its shape; None for what was not given. Masks have
        none.

    Raises
    ------
    ValueError
        If a shape does not fit; the message names the argument.
    TypeError
        If `tape` is not a tape of this module, or a dtype differs from that of x.

    References
    ----------
    Werbos (1990), Backpropagation through time: what it does and how to do it,
    doi:10.1109/5.58337.

    Examples
    --------
    >>> import numpy as np
    >>> import fastlstm
    >>> x, one = np.array([[[1.0]], [[2.0]], [[4.0]]]), np.ones((1, 1))
    >>> tape = fastlstm.rnn_forward(x, one, one, nonlinearity="affine", training=True).tape
    >>> fastlstm.rnn_backward(tape, dh_n=one).w_ih  # the sum of x
    array([[7.]])
    """
    return _backward("rnn", RNNGradients, tape, dy, dh_n)
