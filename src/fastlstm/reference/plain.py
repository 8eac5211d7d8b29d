"""The plain cells in a few lines each: what the lesson of the documentation goes through.

One layer, from the first step to the last, without options, ragged rows or checks of arguments;
`fastlstm.reference` has all of these. The weights are laid out as everywhere here, so that the
same arrays go into `fastlstm.lstm_forward`, `gru_forward` and `rnn_forward`.

Decisions:
a) W is `w_ih` there and U is `w_hh`: two products, of x_t and of h_{t-1}, are what tutorials write
   as one product with the two side by side, [h_{t-1}, x_t].
b) Backward, gradients are sums: over time, which the loop adds up, and over the gates, which the
   product of the four dz side by side with U adds up.
"""

from __future__ import annotations  # so that help() shows names

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastlstm.reference._activations import sigmoid

Array = NDArray[Any]
Arrays = tuple[Array, ...]


def rnn_forward(x: Array, W: Array, U: Array, b: Array, h: Array) -> Array:
    """Return h (T + 1, B, H), the given state first, of x (T, B, I)."""
    states = [h]
    for x_t in x:
        states.append(np.tanh(x_t @ W.T + states[-1] @ U.T + b))
    return np.stack(states)


def rnn_backward(x: Array, W: Array, U: Array, h: Array, dy: Array) -> Arrays:
    """Return the gradients of W, U, b, x and of the first state, for dy (T, B, H)."""
    dW, dU, db, dx = np.zeros_like(W), np.zeros_like(U), np.zeros_like(U[0]), np.empty_like(x)
    dh = np.zeros_like(h[0])
    for t in reversed(range(len(x))):
        dz = (dh + dy[t]) * (1 - h[t + 1] ** 2)  # tanh' = 1 - tanh^2
        dW, dU, db = dW + dz.T @ x[t], dU + dz.T @ h[t], db + dz.sum(axis=0)
        dx[t] = dz @ W
        dh = dz @ U
    return dW, dU, db, dx, dh


def lstm_step(
    x_t: Array, W: Array, U: Array, b: Array, h: Array, c: Array
) -> tuple[Array, Array, Arrays]:
    """Return h_t, c_t, and what the way back needs, of x_t (B, I) and the state before."""
    zi, zf, zg, zo = np.split(x_t @ W.T + h @ U.T + b, 4, axis=1)
    i, f, g, o = sigmoid(zi), sigmoid(zf), np.tanh(zg), sigmoid(zo)
    c_t = f * c + i * g
    h_t = o * np.tanh(c_t)
    return h_t, c_t, (x_t, h, c, i, f, g, o, c_t)


def lstm_step_backward(kept: Arrays, U: Array, dh: Array, dc: Array) -> Arrays:
    """Return dz (B, 4H) and the gradients of the state before, of those of the state after."""
    _, _, c, i, f, g, o, c_t = kept
    do = dh * np.tanh(c_t)
    dc = dc + dh * o * (1 - np.tanh(c_t) ** 2)
    di, df, dg = dc * g, dc * c, dc * i
    dz = np.concatenate(
        [di * i * (1 - i), df * f * (1 - f), dg * (1 - g**2), do * o * (1 - o)], axis=1
    )
    return dz, dz @ U, dc * f  # dz @ U is the sum over the four gates


def lstm_forward(
    x: Array, W: Array, U: Array, b: Array, h: Array, c: Array
) -> tuple[Array, Array, list[Arrays]]:
    """Return y (T, B, H), the last c, and the tape, of x (T, B, I)."""
    y, tape = [], []
    for x_t in x:
        h, c, kept = lstm_step(x_t, W, U, b, h, c)
        y.append(h)
        tape.append(kept)
    return np.stack(y), c, tape


def lstm_backward(tape: list[Arrays], W: Array, U: Array, dy: Array) -> Arrays:
    """Return the gradients of W, U, b, x and of the first h and c, for dy (T, B, H)."""
    dW, dU, db, dx = np.zeros_like(W), np.zeros_like(U), np.zeros_like(U[:, 0]), []
    dh, dc = np.zeros_like(dy[0]), np.zeros_like(dy[0])
    for t in reversed(range(len(tape))):
        x_t, h = tape[t][:2]
        dz, dh, dc = lstm_step_backward(tape[t], U, dh + dy[t], dc)
        dW, dU, db = dW + dz.T @ x_t, dU + dz.T @ h, db + dz.sum(axis=0)
        dx.append(dz @ W)
    return dW, dU, db, np.stack(dx[::-1]), dh, dc


def gru_step(x_t: Array, W: Array, U: Array, b: Array, h: Array) -> tuple[Array, Arrays]:
    """Return h_t and the gates r, z, n; b is (4H,), its last part beside h in n."""
    b_r, b_z, b_n, b_hn = np.split(b, 4)
    (xr, xz, xn), (hr, hz, hn) = np.split(x_t @ W.T, 3, axis=1), np.split(h @ U.T, 3, axis=1)
    r, z = sigmoid(xr + hr + b_r), sigmoid(xz + hz + b_z)
    n = np.tanh(xn + b_n + r * (hn + b_hn))
    return (1 - z) * n + z * h, (r, z, n)
