r"""
4. Forward, in 20 lines of NumPy
================================

A layer has H units, and runs B sequences at once: x is (T, B, I), and h and c are (B, H). The
weights of the four gates stand below one another in one matrix, W (4H, I) and U (4H, H), so that
one product gives the pre-activations :math:`z` of all of them:

.. math::

    [z_i\; z_f\; z_g\; z_o] &= x_t W^\top + h_{t-1} U^\top + b \\
    i, f, g, o &= \sigma(z_i),\ \sigma(z_f),\ \tanh(z_g),\ \sigma(z_o) \\
    c_t &= f \odot c_{t-1} + i \odot g \\
    h_t &= o \odot \tanh(c_t)

Here are the same four lines. They stand in `fastlstm.reference.plain`, and the tests of this
library compare them with its fast kernels and with PyTorch.

.. literalinclude:: ../../src/fastlstm/reference/plain.py
    :pyobject: lstm_step

The loop over time hands on h and c, and keeps what each step knew, for the way back (the *tape*):

.. literalinclude:: ../../src/fastlstm/reference/plain.py
    :pyobject: lstm_forward
"""

import numpy as np
from matplotlib import pyplot as plt

from fastlstm.reference import plain

T, B, I, H = 80, 3, 2, 12
rng = np.random.default_rng(0)
t, row, feature = np.ogrid[:T, :B, :I]
x = np.sin(t / (4 + row) + feature)
W, U = rng.normal(size=(4 * H, I)), rng.normal(size=(4 * H, H)) / 2
b = np.zeros(4 * H)
h_0, c_0 = np.zeros((B, H)), np.zeros((B, H))

y, c_n, tape = plain.lstm_forward(x, W, U, b, h_0, c_0)
print("x", x.shape, "-> y", y.shape)

# %%
# What it does with a wave, before anything was learned: a line of pixels for each unit.

figure, axes = plt.subplots(3, 1, figsize=(7.2, 5), sharex=True, height_ratios=(1, 2, 2))
axes[0].plot(x[:, 0])
axes[0].set_title("x, two features", loc="left", fontsize=10)
cells = np.stack([kept[-1] for kept in tape])  # a step keeps c_t last
for ax, values, name in ((axes[1], cells, "cell state c"), (axes[2], y, "h")):
    limit = np.abs(values[:, 0]).max()
    image = ax.imshow(values[:, 0].T, aspect="auto", cmap="RdBu_r", vmin=-limit, vmax=limit)
    figure.colorbar(image, ax=ax)
    ax.set_title(name, loc="left", fontsize=10)
axes[2].set_xlabel("step")
plt.show()

# %%
# The unit that we made by hand on the page before is such a layer with H = 1. Its weights, gate
# by gate in the order i, f, g, o, for the inputs (value, mark):

W = np.array([[0, 20], [0, -20], [1, 0], [0, -20]], float)
U, b = np.zeros((4, 1)), np.array([-10.0, 10.0, 0.0, 10.0])
x = np.zeros((50, 1, 2))
x[:, 0, 0] = rng.uniform(-1, 1, 50)
x[5, 0, 1] = 1  # a mark at the step of index 5
zero = np.zeros((1, 1))
y, c_n, _ = plain.lstm_forward(x, W, U, b, zero, zero)
print(f"tanh of the marked value: {np.tanh(x[5, 0, 0]):.4f}")
print(f"the cell at the end:      {c_n.item():.4f}")
