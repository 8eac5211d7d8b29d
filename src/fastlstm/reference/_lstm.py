"""The LSTM over time; its equations are in `_lstm_step`."""

from __future__ import annotations  # so that help() shows names

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from fastlstm._args.arrays import LSTMArguments, check_lstm, check_optional
from fastlstm._args.numbers import ActivationLike
from fastlstm._args.results import LSTMGradients, LSTMOutput
from fastlstm.reference._activations import derivative, function
from fastlstm.reference._lstm_step import (
    LSTMStep,
    LSTMSums,
    NormGains,
    lstm_step,
    lstm_step_backward,
)
from fastlstm.reference._norm import Normalized, normalize, normalize_backward
from fastlstm.reference._products import product, product_backward, weight_gradient
from fastlstm.reference._steps import (
    Steps,
    drop,
    initial,
    replace,
    zeros_or_none,
    zoneout,
    zoneout_backward,
)


class LSTMTape(NamedTuple):
    """What `lstm_forward` keeps for `lstm_backward`."""

    arguments: LSTMArguments
    steps: Steps
    kept: list[LSTMStep]  # in the order of processing
    n_x: Normalized | None  # N(zx) of all steps that exist


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
    """Run one LSTM layer over a batch of sequences, in one direction.

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

    Parameters, results, errors and sources are those of `fastlstm.lstm_forward`; but the tape
    refers to the arrays given, apart from h_0 and c_0: they must not change before `lstm_backward`.

    Parameters
    ----------
    x, w_ih, w_hh, b, h_0, c_0, lengths, resets, reverse, peephole, w_proj, layer_norm
        As of `fastlstm.lstm_forward`.
    coupled, clip, cell_clip, proj_clip, zoneout_h, zoneout_c, dropout_h, activations
        As of `fastlstm.lstm_forward`.
    compute_dtype, training
        As of `fastlstm.lstm_forward`.

    Returns
    -------
    LSTMOutput
        As of `fastlstm.lstm_forward`.

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
    (T, B, _), R, dtype = a.x.shape, a.w_hh.shape[1], a.x.dtype
    H = R if a.w_proj is None else a.w_proj.shape[1]
    steps = Steps(a.lengths, a.resets, T, B, reverse)
    s = [function(activation, a.clip) for activation in a.activations]

    # the input's share of z, for all steps at once
    z_x, n_x = product(a.compute_dtype, steps.gather(a.x), a.w_ih), None
    if a.layer_norm is not None:
        n_x = normalize(z_x, NormGains.of(a.layer_norm).x)
        z_x = n_x.value * n_x.gain
    if a.b is not None:
        z_x += a.b
    z_x = steps.spread(z_x)

    h, c = initial(a.h_0, (B, R), dtype), initial(a.c_0, (B, H), dtype)
    y = np.zeros((T, B, R), dtype)
    kept = []
    for t, rows in steps.order:
        h_prev, c_prev = steps.before(t, rows, h[rows]), steps.before(t, rows, c[rows])
        step = lstm_step(a, s, z_x[t, rows], drop(a.dropout_h, rows, h_prev), c_prev)
        c_t = zoneout(a.zoneout_c, t, rows, c_prev, step.c)
        h_t = zoneout(a.zoneout_h, t, rows, h_prev, step.h)
        h, c = replace(h, rows, h_t), replace(c, rows, c_t)
        y[t, rows] = h_t
        if training:
            kept.append(step)
    return LSTMOutput(y, h.copy(), c.copy(), LSTMTape(a, steps, kept, n_x) if training else None)


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
    dy : (T, B, R) array, optional
        The loss's gradient with respect to y; past a row's end it is not read.
    dh_n, dc_n : (B, R) and (B, H) arrays, optional
        The loss's gradients with respect to h_n and c_n. What is not given is 0.

    Returns
    -------
    LSTMGradients
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
    a, steps = tape.arguments, tape.steps
    (T, B, _), (GH, R), dtype = a.x.shape, a.w_hh.shape, a.x.dtype
    H = R if a.w_proj is None else a.w_proj.shape[1]
    dy = check_optional("dy", dy, (T, B, R), dtype)
    dh = initial(check_optional("dh_n", dh_n, (B, R), dtype), (B, R), dtype)
    dc = initial(check_optional("dc_n", dc_n, (B, H), dtype), (B, H), dtype)
    ds, cd = [derivative(activation) for activation in a.activations], a.compute_dtype
    sums = LSTMSums(*map(zeros_or_none, (a.peephole, a.w_proj, a.layer_norm)))

    h_in, dz = np.empty((T, B, R), dtype), np.empty((T, B, GH), dtype)
    dzh = dz if a.layer_norm is None else np.empty_like(dz)
    for (t, rows), step in zip(reversed(steps.order), reversed(tape.kept), strict=True):
        dh_t = dh[rows] if dy is None else dh[rows] + dy[t, rows]
        dh_old, dh_new = zoneout_backward(a.zoneout_h, t, rows, dh_t)
        dc_old, dc_new = zoneout_backward(a.zoneout_c, t, rows, dc[rows])
        dz_t, dzh_t, dc_prev = lstm_step_backward(a, ds, step, dh_new, dc_new, sums)
        dh_prev = drop(a.dropout_h, rows, product_backward(cd, dzh_t, a.w_hh))
        dh_prev = dh_prev if dh_old is None else dh_prev + dh_old
        dc_prev = dc_prev if dc_old is None else dc_prev + dc_old
        dh = replace(dh, rows, steps.before(t, rows, dh_prev))
        dc = replace(dc, rows, steps.before(t, rows, dc_prev))
        h_in[t, rows], dz[t, rows] = step.h_in, dz_t
        if dzh is not dz:
            dzh[t, rows] = dzh_t

    # the steps of all rows as one matrix: sums over time and batch become single products
    dz_all = dzx_all = steps.gather(dz)
    if tape.n_x is not None:
        dzx_all, NormGains.of(sums.layer_norm).x[...] = normalize_backward(dz_all, tape.n_x)
    return LSTMGradients(
        x=steps.spread(product_backward(cd, dzx_all, a.w_ih)),
        w_ih=weight_gradient(cd, dzx_all, steps.gather(a.x)),
        w_hh=weight_gradient(cd, steps.gather(dzh), steps.gather(h_in)),
        b=None if a.b is None else dz_all.sum(axis=0),
        h_0=None if a.h_0 is None else dh,
        c_0=None if a.c_0 is None else dc,
        peephole=sums.peephole,
        w_proj=sums.w_proj,
        layer_norm=sums.layer_norm,
    )
