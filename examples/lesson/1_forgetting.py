r"""
1. A recurrent network by hand, and why it forgets
==================================================

A recurrent network reads a sequence :math:`x_1, x_2, \ldots` one step at a time and keeps a
state, a vector :math:`h_t` of H numbers. Each step makes the new state of the old one and of what
it reads:

.. math::

    h_t = \tanh(W x_t + U h_{t-1} + b)

W is (H, I), U is (H, H), and b has H numbers; they are the same at every step, and they are what
training will find. This is all of a plain recurrent network, in NumPy:
"""

import numpy as np

rng = np.random.default_rng(0)
T, I, H = 80, 2, 16


def run(x, W, U, b):
    """Return h_1 ... h_T, of x (T, I)."""
    h, states = np.zeros(H), []
    for x_t in x:
        h = np.tanh(W @ x_t + U @ h + b)
        states.append(h)
    return np.array(states)


W, b = rng.normal(0, 1, (H, I)), np.zeros(H)
U = rng.normal(0, 0.7 / np.sqrt(H), (H, H))
x = rng.normal(0, 1, (T, I))
print("the states of", T, "steps:", run(x, W, U, b).shape)

# %%
# Does it remember?
# -----------------
#
# Let us ask how much the state knows of the *first* input after a while: run the network twice,
# on two sequences that differ in :math:`x_1` and in nothing else, and look at how far apart the
# states are.

other = x.copy()
other[0] = -x[0]
distance = np.linalg.norm(run(x, W, U, b) - run(other, W, U, b), axis=1)
for t in (1, 10, 20, 40, 80):
    print(f"step {t:2}: the states differ by {distance[t - 1]:.1e}")

# %%
# After a few dozen steps nothing is left of it but rounding: whatever we train to read from the
# state, it cannot know how the sequence began. Is U too small? The same for others, and, dashed,
# for a first input that differs by no more than 1e-8:

from matplotlib import pyplot as plt

nearly = x.copy()
nearly[0] += 1e-8
figure, ax = plt.subplots()
for scale in (0.5, 0.7, 1.0, 5.0):
    U = rng.normal(0, scale / np.sqrt(H), (H, H))
    first, second, third = (run(each, W, U, b) for each in (x, other, nearly))
    far, near = (np.linalg.norm(first - each, axis=1) for each in (second, third))
    (line,) = ax.semilogy(range(1, T + 1), far, label=f"U of size {scale}")
    ax.semilogy(range(1, T + 1), near, "--", color=line.get_color())
ax.set(xlabel="step", ylabel="distance of the states")
ax.set_title("Sequences that differ in their first input")
ax.grid()
figure.legend(loc="outside right center")
plt.show()

# %%
# Small weights forget. Large ones do not remember either: what differed by a hair drifts apart
# until it is as far apart as what differed by much, so in the end the distance says nothing of
# :math:`x_1`. That is chaos, and not memory.
#
# Why
# ---
#
# The derivative of a state with respect to an earlier one is a product with a factor for each
# step between,
#
# .. math::
#
#     \frac{\partial h_t}{\partial h_0} = \prod_{s=t}^{1} \mathrm{diag}(1 - h_s^2)\, U ,
#
# and a product of many factors of one kind shrinks or grows exponentially with their number. The
# same factors carry the gradient backward in training: where the state forgets, the gradient
# vanishes, and what is long ago cannot be learned. We can measure the product itself:

U = rng.normal(0, 0.7 / np.sqrt(H), (H, H))
product = np.eye(H)
for t, h in enumerate(run(x, W, U, b), start=1):
    product = np.diag(1 - h**2) @ U @ product
    if t in (1, 10, 20, 40, 80):
        print(f"|dh_{t}/dh_0| = {np.linalg.norm(product, 2):.1e}")

# %%
# This is the *problem of long-term dependencies* (Hochreiter 1991; Bengio, Simard & Frasconi
# 1994, `doi:10.1109/72.279181 <https://doi.org/10.1109/72.279181>`_). The LSTM was invented for
# it: the next page has its one idea.
