r"""
6. Weight update: it learns
===========================

With the gradient at hand, a step of learning is one line for each weight: go a little downhill,

.. math::

    w \leftarrow w - \eta\, \frac{\partial L}{\partial w} ,

where :math:`\eta` is the learning rate. Plain steps of this kind work, and are slow. Adam (Kingma &
Ba 2015) divides each gradient by its usual size, so that all weights move at about the same pace:

.. math::

    m \leftarrow \beta_1 m + (1 - \beta_1)\, \delta w, \qquad
    v \leftarrow \beta_2 v + (1 - \beta_2)\, \delta w^2, \qquad
    w \leftarrow w - \eta\, \frac{m / (1 - \beta_1^k)}{\sqrt{v / (1 - \beta_2^k)}}

The task is that of page 3, and now nobody sets the weights: read 40 random values, of which one
among the first ten is marked, and say at the end which value it was.
"""

import numpy as np
from matplotlib import pyplot as plt

from fastlstm.reference import plain

T, B, H = 40, 32, 16


def draw(rng):
    """Return x (T, B, 2), values and marks, and the marked value of each row (B, 1)."""
    x = np.zeros((T, B, 2))
    x[..., 0] = rng.uniform(-1, 1, (T, B))
    marked = rng.integers(0, 10, B), np.arange(B)
    x[(*marked, 1)] = 1
    return x, x[(*marked, 0)][:, np.newaxis]


class Adam:
    """The three equations above, for a list of arrays that are changed in place."""

    def __init__(self, weights, lr):
        self.weights, self.lr, self.k = weights, lr, 0
        self.m = [np.zeros_like(w) for w in weights]
        self.v = [np.zeros_like(w) for w in weights]

    def step(self, gradients):
        self.k += 1
        for w, m, v, dw in zip(self.weights, self.m, self.v, gradients, strict=True):
            m += 0.1 * (dw - m)
            v += 0.001 * (dw**2 - v)
            w -= self.lr * m / (1 - 0.9**self.k) / (np.sqrt(v / (1 - 0.999**self.k)) + 1e-8)


# %%
# The network is an LSTM and, on its last state, a linear layer with one output. Its loss is the
# mean square of the error; the gradient of that is the error itself, times 2 / B.


def train_lstm(steps, rng):
    """Return the loss of each step."""
    bound = 1 / np.sqrt(H)
    shapes = (4 * H, 2), (4 * H, H), (4 * H,), (1, H)
    W, U, b, V = (rng.uniform(-bound, bound, shape) for shape in shapes)
    b[H : 2 * H] = 3  # the forget gates begin open: page 2
    optimizer, zero, losses = Adam([W, U, b, V], lr=0.01), np.zeros((B, H)), []
    for _ in range(steps):
        x, wanted = draw(rng)
        y, _, tape = plain.lstm_forward(x, W, U, b, zero, zero)
        error = y[-1] @ V.T - wanted
        losses.append((error**2).mean())
        dout, dy = 2 / B * error, np.zeros_like(y)
        dy[-1] = dout @ V
        dW, dU, db, *_ = plain.lstm_backward(tape, W, U, dy)
        optimizer.step([dW, dU, db, dout.T @ y[-1]])
    return losses


def train_rnn(steps, rng):
    """Return the loss of each step, of a plain network of the same width."""
    bound = 1 / np.sqrt(H)
    shapes = (H, 2), (H, H), (H,), (1, H)
    W, U, b, V = (rng.uniform(-bound, bound, shape) for shape in shapes)
    optimizer, zero, losses = Adam([W, U, b, V], lr=0.01), np.zeros((B, H)), []
    for _ in range(steps):
        x, wanted = draw(rng)
        h = plain.rnn_forward(x, W, U, b, zero)
        error = h[-1] @ V.T - wanted
        losses.append((error**2).mean())
        dout, dy = 2 / B * error, np.zeros_like(h[1:])
        dy[-1] = dout @ V
        dW, dU, db, *_ = plain.rnn_backward(x, W, U, h, dy)
        optimizer.step([dW, dU, db, dout.T @ h[-1]])
    return losses


# %%
# Who always says 0 has a loss of 1/3, the variance of the values. To do better one has to
# remember:

losses = {
    "LSTM": train_lstm(600, np.random.default_rng(0)),
    "plain network": train_rnn(600, np.random.default_rng(0)),
}
figure, ax = plt.subplots()
for name, values in losses.items():
    ax.semilogy(np.convolve(values, np.ones(20) / 20, "valid"), label=name)
    print(f"{name:13}: loss {np.mean(values[-50:]):.4f} over the last 50 steps")
ax.axhline(1 / 3, color="grey", linestyle=":", label="always 0")
ax.set(xlabel="step of training", ylabel="loss, mean of 20 steps")
ax.grid()
ax.legend()
plt.show()

# %%
# The LSTM has learned what page 3 did by hand. The plain network cannot learn it: the gradient
# that would tell it what to do at the mark has vanished on its way there (page 1).
