r"""
5. Backward: a sum over four branches
=====================================

To learn, we need the gradient of a loss L with respect to every weight: how much L changes if that
weight does. The chain rule gives it, from the last step to the first (*backpropagation through
time*). Write :math:`\delta v` for :math:`\partial L / \partial v`. What comes in at step t is
:math:`\delta h_t` and :math:`\delta c_t`. The last line of the forward step was
:math:`h_t = o \odot \tanh(c_t)`, so

.. math::

    \delta o &= \delta h_t \odot \tanh(c_t) \\
    \delta c_t &\leftarrow \delta c_t + \delta h_t \odot o \odot (1 - \tanh^2(c_t))

The line before it was the sum :math:`c_t = f \odot c_{t-1} + i \odot g`, so each of its four
letters gets the product of :math:`\delta c_t` and its partner:

.. math::

    \delta i = \delta c_t \odot g, \quad
    \delta f = \delta c_t \odot c_{t-1}, \quad
    \delta g = \delta c_t \odot i, \quad
    \delta c_{t-1} = \delta c_t \odot f

Before the activations, with :math:`\sigma' = \sigma (1 - \sigma)` and
:math:`\tanh' = 1 - \tanh^2`:

.. math::

    \delta z_i = \delta i \odot i \odot (1 - i), \quad
    \delta z_f = \delta f \odot f \odot (1 - f), \quad
    \delta z_g = \delta g \odot (1 - g^2), \quad
    \delta z_o = \delta o \odot o \odot (1 - o)

And :math:`h_{t-1}` went into all four gates, so what comes back to it is the **sum over four
branches**:

.. math::

    \delta h_{t-1} = \delta z_i U_i + \delta z_f U_f + \delta z_g U_g + \delta z_o U_o

With the four side by side this sum is one product, ``dz @ U``:

.. literalinclude:: ../../src/fastlstm/reference/plain.py
    :pyobject: lstm_step_backward

The weights were used at every step, so their gradients are sums over the steps:

.. literalinclude:: ../../src/fastlstm/reference/plain.py
    :pyobject: lstm_backward
"""

import numpy as np
from matplotlib import pyplot as plt

from fastlstm.reference import plain

T, B, I, H = 20, 2, 3, 5
rng = np.random.default_rng(0)
x, dy = rng.normal(size=(T, B, I)), rng.normal(size=(T, B, H))
W, U, b = rng.normal(size=(4 * H, I)), rng.normal(size=(4 * H, H)), rng.normal(size=4 * H)
h_0, c_0 = rng.normal(size=(B, H)), rng.normal(size=(B, H))

_, _, tape = plain.lstm_forward(x, W, U, b, h_0, c_0)
dW, dU, db, dx, dh_0, dc_0 = plain.lstm_backward(tape, W, U, dy)

# %%
# First the sum over four branches, branch by branch, at the last step:

dz, dh, dc = plain.lstm_step_backward(tape[-1], U, dy[-1], np.zeros((B, H)))
branches = [dz_k @ U_k for dz_k, U_k in zip(np.split(dz, 4, axis=1), np.split(U, 4), strict=True)]
print("largest difference:", np.abs(sum(branches) - dh).max())

# %%
# Checked by finite differences
# -----------------------------
#
# A gradient is a claim that anyone can check: change one weight by a small step, run forward
# again, and see how much the loss changed. From both sides the error falls with the square of the
# step,
#
# .. math::
#
#     \frac{\partial L}{\partial w} \approx
#     \frac{L(w + \varepsilon) - L(w - \varepsilon)}{2 \varepsilon} ,
#
# until the step is so small that rounding takes over. As the loss we take the sum of y * dy.


def loss():
    """Return L, for the weights as they are now."""
    return (plain.lstm_forward(x, W, U, b, h_0, c_0)[0] * dy).sum()


def slope(array, index, step):
    """Return the central difference of the loss with respect to one element."""
    value = array[index]
    array[index] = value + step
    above = loss()
    array[index] = value - step
    below = loss()
    array[index] = value
    return (above - below) / (2 * step)


steps = 10.0 ** np.arange(-12, 0)
figure, ax = plt.subplots()
for name, array, gradient in (("W", W, dW), ("U", U, dU), ("b", b, db), ("c_0", c_0, dc_0)):
    indices = [tuple(rng.integers(array.shape)) for _ in range(10)]
    errors = [
        np.median([abs(slope(array, index, step) - gradient[index]) for index in indices])
        for step in steps
    ]
    ax.loglog(steps, errors, "o-", label=f"gradient of {name}")
    print(f"{name:3}: off by {min(errors):.0e} at best")
ax.set(xlabel="step of the finite difference", ylabel="difference from backward")
ax.grid()
ax.legend()
plt.show()

# %%
# The valley is the proof: on its right side the difference falls with the square of the step, as
# that of a finite difference does, down to the digits that rounding leaves. A wrong line in the
# backward pass would stop it far above.
