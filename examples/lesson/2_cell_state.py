r"""
2. The cell state is added to, not concatenated
===============================================

The plain network of the page before *replaces* its state at each step. The idea of the LSTM (long
short-term memory; Hochreiter & Schmidhuber 1997) is to keep a second state, the cell state
:math:`c_t`, and to *add* to it:

.. math::

    c_t = f_t \odot c_{t-1} + i_t \odot g_t

What it adds is the candidate g, and two gates, numbers between 0 and 1 for each unit, say how
much: i, how much of the candidate comes in; f, how much of the old state stays. :math:`\odot` is
the product of each number with its own partner, ``*`` in NumPy. That is one line:
"""

import numpy as np

H = 4
c = np.array([1.0, 2.0, -1.0, 0.5])
f = np.array([1.0, 1.0, 0.0, 0.5])  # keep, keep, forget, keep half
i = np.array([0.0, 1.0, 1.0, 0.0])  # let nothing in, all, all, nothing
g = np.array([0.9, 0.9, 0.9, 0.9])

c_t = f * c + i * g
print(c_t)

# %%
# The first unit remembers, the second counts up, the third is overwritten, the fourth fades.
#
# Popular tutorials draw this as if the new were *concatenated* to the cell state. It cannot be:
# the state would grow with every step, and the weights that read it would not fit at the next
# one.

print("added:       ", (f * c + i * g).shape, "now and after any number of steps")
print("concatenated:", np.concatenate([f * c, i * g]).shape, "now,", (3 * H,), "at the next")

# %%
# What *is* concatenated in those pictures is the input of the gates, :math:`[h_{t-1}, x_t]`, a
# way to write two products as one. Both ways give the same numbers:

rng = np.random.default_rng(0)
W, U = rng.normal(size=(H, 3)), rng.normal(size=(H, H))
x, h = rng.normal(size=3), rng.normal(size=H)
two_products = W @ x + U @ h
one_product = np.hstack([U, W]) @ np.hstack([h, x])
print("largest difference:", np.abs(two_products - one_product).max())

# %%
# What a sum remembers
# --------------------
#
# Backward, a sum hands on the gradient as it is. From :math:`c_t` to :math:`c_{t-1}` there is one
# factor, the gate itself:
#
# .. math::
#
#     \frac{\partial c_t}{\partial c_{t-1}} = f_t
#     \qquad\text{so}\qquad
#     \frac{\partial c_T}{\partial c_0} = f_1 f_2 \cdots f_T .
#
# With f = 1 it is 1, after any number of steps; a network that learns f near 1 for a unit has
# learned to remember in it. Beside it, the product of the page before, through :math:`\tanh` and
# U:

from matplotlib import pyplot as plt

T = 200
figure, ax = plt.subplots()
for gate in (1.0, 0.99, 0.9, 0.5):
    ax.semilogy(gate ** np.arange(T + 1), label=f"cell state, f = {gate}")
H, product, norms = 16, np.eye(16), [1.0]
U, h = rng.normal(0, 0.7 / np.sqrt(H), (H, H)), np.zeros(H)
for _ in range(T):
    h = np.tanh(rng.normal(size=H) + U @ h)
    product = np.diag(1 - h**2) @ U @ product
    norms.append(np.linalg.norm(product, 2))
ax.semilogy(norms, "--", color="black", label="plain network")
ax.set(ylim=(1e-16, 10), xlabel="steps between", ylabel="what is left of a gradient")
ax.grid()
ax.legend(loc="lower right")
plt.show()

# %%
# Note f = 1/2: an LSTM whose forget gates are half open forgets as surely as the plain network.
# That is how weights near 0 begin, and why the bias of the forget gate is often set to 1 or more
# before training (:doc:`what long lags ask for </long-lag>`).
