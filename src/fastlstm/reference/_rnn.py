"""The plain recurrent network, one step forward and backward, and the loops over time."""

from __future__ import annotations  # so that help() shows names

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastlstm._args.arrays import RNNArguments, check_optional, check_rnn
from fastlstm._args.numbers import ActivationLike
from fastlstm._args.results import RNNGradients, RNNOutput
from fastlstm.reference._activations import derivative, function
from fastlstm.reference._products import least_of_h, product, product_backward, weight_gradient
from fastlstm.reference._steps import Steps, drop, initial, replace, zoneout, zoneout_backward


class RNNStep(NamedTuple):
    """What one step leaves for its backward pass, (rows, H)."""

    h_in: NDArray[Any]  # h' = dropout_h * h_{t-1}
    h: NDArray[Any]  # h~, before zoneout


class RNNTape(NamedTuple):
    """What `rnn_forward` keeps for `rnn_backward`."""

    arguments: RNNArguments
    steps: Steps
    kept: list[RNNStep]  # in the order of processing


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

    Parameters, results, errors and sources are those of `fastlstm.rnn_forward`; but the tape
    refers to the arrays given, apart from h_0: they must not change before `rnn_backward`.

    Parameters
    ----------
    x, w_ih, w_hh, b, h_0, lengths, resets, reverse, nonlinearity, clip, zoneout_h, dropout_h
        As of `fastlstm.rnn_forward`.
    compute_dtype, training
        As of `fastlstm.rnn_forward`.

    Returns
    -------
    RNNOutput
        As of `fastlstm.rnn_forward`.

    Examples
    --------
    A cell that only sums its input:

    >>> import numpy as np
    >>> from fastlstm import reference
    >>> x, one = np.array([[[1.0]], [[2.0]], [[4.0]]]), np.ones((1, 1))
    >>> reference.rnn_forward(x, one, one, nonlinearity="affine").y.ravel()
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
    (T, B, _), H, dtype = a.x.shape, len(a.w_hh), a.x.dtype
    steps = Steps(a.lengths, a.resets, T, B, reverse)
    s = function(a.nonlinearity, a.clip)

    # the input's share, for all steps at once
    cd, least = a.compute_dtype, least_of_h((a.nonlinearity,))
    z_x = product(cd, steps.gather(a.x), a.w_ih)
    if a.b is not None:
        z_x += a.b
    z_x = steps.spread(z_x)

    h, y = initial(a.h_0, (B, H), dtype), np.zeros((T, B, H), dtype)
    kept = []
    for t, rows in steps.order:
        h_prev = steps.before(t, rows, h[rows])
        h_in = drop(a.dropout_h, rows, h_prev)
        h_new = s(z_x[t, rows] + product(cd, h_in, a.w_hh, least))
        y[t, rows] = h_t = zoneout(a.zoneout_h, t, rows, h_prev, h_new)
        h = replace(h, rows, h_t)
        if training:
            kept.append(RNNStep(h_in, h_new))
    return RNNOutput(y, h.copy(), RNNTape(a, steps, kept) if training else None)


def rnn_backward(
    tape: object, dy: ArrayLike | None = None, dh_n: ArrayLike | None = None
) -> RNNGradients:
    """Back-propagate through time: from the gradients of the outputs to those of the arguments.

    Parameters
    ----------
    tape : RNNTape
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
    >>> from fastlstm import reference
    >>> x, one = np.array([[[1.0]], [[2.0]], [[4.0]]]), np.ones((1, 1))
    >>> tape = reference.rnn_forward(x, one, one, nonlinearity="affine", training=True).tape
    >>> reference.rnn_backward(tape, dh_n=one).w_ih  # the sum of x
    array([[7.]])
    """
    if not isinstance(tape, RNNTape):
        raise TypeError(
            "tape: expected an RNNTape from reference.rnn_forward(..., training=True), "
            f"got {type(tape).__name__}"
        )
    a, steps = tape.arguments, tape.steps
    (T, B, _), H, dtype = a.x.shape, len(a.w_hh), a.x.dtype
    dy = check_optional("dy", dy, (T, B, H), dtype)
    dh = initial(check_optional("dh_n", dh_n, (B, H), dtype), (B, H), dtype)
    ds, cd = derivative(a.nonlinearity), a.compute_dtype

    h_in, dz = (np.empty((T, B, H), dtype) for _ in range(2))
    for (t, rows), step in zip(reversed(steps.order), reversed(tape.kept), strict=True):
        dh_t = dh[rows] if dy is None else dh[rows] + dy[t, rows]
        dh_old, dh_new = zoneout_backward(a.zoneout_h, t, rows, dh_t)
        dz_t = dh_new * ds(step.h)
        dh_prev = drop(a.dropout_h, rows, product_backward(cd, dz_t, a.w_hh))
        dh_prev = dh_prev if dh_old is None else dh_prev + dh_old
        dh = replace(dh, rows, steps.before(t, rows, dh_prev))
        h_in[t, rows], dz[t, rows] = step.h_in, dz_t

    # the steps of all rows as one matrix: sums over time and batch become single products
    dz_all = steps.gather(dz)
    return RNNGradients(
        x=steps.spread(product_backward(cd, dz_all, a.w_ih)),
        w_ih=weight_gradient(cd, dz_all, steps.gather(a.x)),
        w_hh=weight_gradient(cd, dz_all, steps.gather(h_in)),
        b=None if a.b is None else dz_all.sum(axis=0),
        h_0=None if a.h_0 is None else dh,
    )
