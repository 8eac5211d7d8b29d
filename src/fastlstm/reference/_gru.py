"""The gated recurrent unit, one step forward and backward, and the loops over time.

Its two conventions differ in where the reset gate acts: on the recurrent product
(``reset_after``; then that product has a bias of its own) or on the state that enters it.
"""

from __future__ import annotations  # so that help() shows names

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastlstm._args.arrays import GRUArguments, check_gru, check_optional
from fastlstm._args.numbers import ActivationLike
from fastlstm._args.results import GRUGradients, GRUOutput
from fastlstm.reference._activations import Function, derivative, function
from fastlstm.reference._products import least_of_h, product, product_backward, weight_gradient
from fastlstm.reference._steps import Steps, drop, initial, replace, zoneout, zoneout_backward


class GRUStep(NamedTuple):
    """What one step leaves for its backward pass, (rows, H)."""

    h_prev: NDArray[Any]  # h_{t-1}
    h_in: NDArray[Any]  # h' = dropout_h * h_{t-1}
    r: NDArray[Any]
    z: NDArray[Any]
    n: NDArray[Any]
    q: NDArray[Any]  # what enters or leaves the product with W_hn: r * h', or h' @ W_hn.T + b_hn
    h: NDArray[Any]  # h~, before zoneout


class GRUTape(NamedTuple):
    """What `gru_forward` keeps for `gru_backward`."""

    arguments: GRUArguments
    steps: Steps
    kept: list[GRUStep]  # in the order of processing


def _step(
    a: GRUArguments, s: list[Function], u: NDArray[Any], h_prev: NDArray[Any], h_in: NDArray[Any]
) -> GRUStep:
    """Compute the cell once; u (rows, 3H) is the input's share, with the bias."""
    H, cd, least = h_in.shape[1], a.compute_dtype, least_of_h(a.activations)
    if a.reset_after:
        v = product(cd, h_in, a.w_hh, least)
        q = v[:, 2 * H :]
        if a.b is not None:
            q = q + a.b[3 * H :]
        rz = s[0](u[:, : 2 * H] + v[:, : 2 * H])
        r, z = rz[:, :H], rz[:, H:]
        n = s[1](u[:, 2 * H :] + r * q)
    else:
        rz = s[0](u[:, : 2 * H] + product(cd, h_in, a.w_hh[: 2 * H], least))
        r, z = rz[:, :H], rz[:, H:]
        q = r * h_in
        n = s[1](u[:, 2 * H :] + product(cd, q, a.w_hh[2 * H :], least))
    h = (1 - z) * n + z * h_prev
    return GRUStep(h_prev, h_in, r, z, n, q, h)


def _step_backward(
    a: GRUArguments, ds: list[Function], step: GRUStep, dh: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Return du and dv (rows, 3H), dh' and the direct share of dh_{t-1}, from that of h~.

    du belongs to the input's product; dv is what meets w_hh, and differs if `reset_after` in its
    last block, which the reset gate has scaled.
    """
    h_prev, h_in, r, z, n, q, _ = step
    H, cd = h_in.shape[1], a.compute_dtype
    dn, dz, dh_prev = dh * (1 - z), dh * (h_prev - n), dh * z
    dn = dn * ds[1](n)
    dz = dz * ds[0](z)
    if a.reset_after:
        dr = dn * q * ds[0](r)
        du = np.concatenate([dr, dz, dn], axis=1)
        dv = np.concatenate([dr, dz, dn * r], axis=1)
        dh_in = product_backward(cd, dv, a.w_hh)
    else:
        dq = product_backward(cd, dn, a.w_hh[2 * H :])
        dr = dq * h_in * ds[0](r)
        du = dv = np.concatenate([dr, dz, dn], axis=1)
        dh_in = dq * r + product_backward(cd, dv[:, : 2 * H], a.w_hh[: 2 * H])
    return du, dv, dh_in, dh_prev


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

    Parameters, results, errors and sources are those of `fastlstm.gru_forward`; but the tape
    refers to the arrays given, apart from h_0: they must not change before `gru_backward`.

    Parameters
    ----------
    x, w_ih, w_hh, b, h_0, lengths, resets, reverse, reset_after, clip, zoneout_h, dropout_h
        As of `fastlstm.gru_forward`.
    activations, compute_dtype, training
        As of `fastlstm.gru_forward`.

    Returns
    -------
    GRUOutput
        As of `fastlstm.gru_forward`.

    Examples
    --------
    Weights of 0 hold z at 1/2 and n at 0, so that the state is halved at each step:

    >>> import numpy as np
    >>> from fastlstm import reference
    >>> x, w_ih, w_hh = np.ones((3, 1, 2)), np.zeros((3, 2)), np.zeros((3, 1))
    >>> reference.gru_forward(x, w_ih, w_hh, h_0=np.array([[8.0]])).y.ravel()
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
    (T, B, _), H, dtype = a.x.shape, a.w_hh.shape[1], a.x.dtype
    steps = Steps(a.lengths, a.resets, T, B, reverse)
    s = [function(activation, a.clip) for activation in a.activations]

    # the input's share, for all steps at once
    u = product(a.compute_dtype, steps.gather(a.x), a.w_ih)
    if a.b is not None:
        u += a.b[: 3 * H]
    u = steps.spread(u)

    h, y = initial(a.h_0, (B, H), dtype), np.zeros((T, B, H), dtype)
    kept = []
    for t, rows in steps.order:
        h_prev = steps.before(t, rows, h[rows])
        step = _step(a, s, u[t, rows], h_prev, drop(a.dropout_h, rows, h_prev))
        y[t, rows] = h_t = zoneout(a.zoneout_h, t, rows, h_prev, step.h)
        h = replace(h, rows, h_t)
        if training:
            kept.append(step)
    return GRUOutput(y, h.copy(), GRUTape(a, steps, kept) if training else None)


def gru_backward(
    tape: object, dy: ArrayLike | None = None, dh_n: ArrayLike | None = None
) -> GRUGradients:
    """Back-propagate through time: from the gradients of the outputs to those of the arguments.

    Parameters
    ----------
    tape : GRUTape
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
    >>> from fastlstm import reference
    >>> x, w_ih, w_hh = np.ones((3, 1, 2)), np.zeros((3, 2)), np.zeros((3, 1))
    >>> tape = reference.gru_forward(x, w_ih, w_hh, h_0=np.array([[8.0]]), training=True).tape
    >>> reference.gru_backward(tape, dh_n=np.array([[1.0]])).h_0  # three steps, z = 1/2 at each
    array([[0.125]])
    """
    if not isinstance(tape, GRUTape):
        raise TypeError(
            "tape: expected a GRUTape from reference.gru_forward(..., training=True), "
            f"got {type(tape).__name__}"
        )
    a, steps = tape.arguments, tape.steps
    (T, B, _), H, dtype = a.x.shape, a.w_hh.shape[1], a.x.dtype
    dy = check_optional("dy", dy, (T, B, H), dtype)
    dh = initial(check_optional("dh_n", dh_n, (B, H), dtype), (B, H), dtype)
    ds = [derivative(activation) for activation in a.activations]

    h_in, h_in_n = (np.empty((T, B, H), dtype) for _ in range(2))  # what meets W_hr, W_hz and W_hn
    du, dv = (np.empty((T, B, 3 * H), dtype) for _ in range(2))
    for (t, rows), step in zip(reversed(steps.order), reversed(tape.kept), strict=True):
        dh_t = dh[rows] if dy is None else dh[rows] + dy[t, rows]
        dh_old, dh_new = zoneout_backward(a.zoneout_h, t, rows, dh_t)
        du[t, rows], dv[t, rows], dh_in, dh_prev = _step_backward(a, ds, step, dh_new)
        dh_prev += drop(a.dropout_h, rows, dh_in)
        dh_prev = dh_prev if dh_old is None else dh_prev + dh_old
        dh = replace(dh, rows, steps.before(t, rows, dh_prev))
        h_in[t, rows] = step.h_in
        h_in_n[t, rows] = step.h_in if a.reset_after else step.q

    # the steps of all rows as one matrix: sums over time and batch become single products
    du_all, dv_all, cd = steps.gather(du), steps.gather(dv), a.compute_dtype
    dw_hh = [
        weight_gradient(cd, dv_all[:, : 2 * H], steps.gather(h_in)),
        weight_gradient(cd, dv_all[:, 2 * H :], steps.gather(h_in_n)),
    ]
    db = du_all.sum(axis=0)
    if a.reset_after:
        db = np.concatenate([db, dv_all[:, 2 * H :].sum(axis=0)])
    return GRUGradients(
        x=steps.spread(product_backward(cd, du_all, a.w_ih)),
        w_ih=weight_gradient(cd, du_all, steps.gather(a.x)),
        w_hh=np.concatenate(dw_hh),
        b=None if a.b is None else db,
        h_0=None if a.h_0 is None else dh,
    )
