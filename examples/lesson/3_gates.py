r"""
3. The four gates, one by one
=============================

Where do f, i and g come from? From what is read now, :math:`x_t`, and from the state that was
given out before, :math:`h_{t-1}`, each by a small layer of its own:

.. math::

    i_t &= \sigma(W_i x_t + U_i h_{t-1} + b_i)  &&\text{input gate: how much comes in} \\
    f_t &= \sigma(W_f x_t + U_f h_{t-1} + b_f)  &&\text{forget gate: how much stays} \\
    g_t &= \tanh(W_g x_t + U_g h_{t-1} + b_g)   &&\text{candidate: what comes in} \\
    o_t &= \sigma(W_o x_t + U_o h_{t-1} + b_o)  &&\text{output gate: how much is shown}

:math:`\sigma(z) = 1 / (1 + e^{-z})` lies between 0 and 1, so it is a gate; tanh lies between -1
and 1, so it is a value. (Of the four, three are gates and g is what they let through; all four
are called gates for short.) The state that is given out is the cell state, squashed, as far as
the output gate shows it:

.. math::

    h_t = o_t \odot \tanh(c_t)

Let us make each gate do its work by weights that we set ourselves. One unit is enough, with two
inputs: a value, and a mark that is 1 when the value is to be remembered.
"""

import numpy as np
from matplotlib import pyplot as plt


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


T = 60
rng = np.random.default_rng(4)
value = np.cumsum(rng.normal(0, 0.15, T)).clip(-0.9, 0.9)
mark = np.isin(np.arange(T), (8, 30)).astype(float)

# %%
# The input gate
# --------------
#
# It is to open when there is a mark: a large weight for the mark, and a negative bias to keep it
# shut otherwise.

i = sigmoid(20 * mark - 10)

# %%
# The forget gate
# ---------------
#
# The other way round: it is to stay open, and to shut when something new comes in. Its bias is
# positive.

f = sigmoid(-20 * mark + 10)

# %%
# The candidate
# -------------
#
# It is to be the value itself; tanh of a small number is nearly that number.

g = np.tanh(value)

# %%
# The cell state
# --------------
#
# Now the sum of the page before, step by step. Nothing here looks at h, so U is 0.

c, cells = 0.0, []
for t in range(T):
    c = f[t] * c + i[t] * g[t]
    cells.append(c)

# %%
# The output gate
# ---------------
#
# Let it be shut as long as the value itself is shown, at a mark, and open afterwards.

o = sigmoid(-20 * mark + 10)
h = o * np.tanh(cells)

figure, axes = plt.subplots(5, 1, figsize=(7.2, 6.4), sharex=True)
names = ("input gate i", "forget gate f", "output gate o")
for ax, gate, name in zip(axes[:3], (i, f, o), names, strict=True):
    ax.fill_between(range(T), gate, step="mid", alpha=0.35, color="tab:green")
    ax.set(ylim=(0, 1.05), yticks=(0, 1), yticklabels=("shut", "open"))
    ax.set_title(name, loc="left", fontsize=10)
axes[3].plot(value, ":", color="grey", label="the value that is read")
axes[3].step(range(T), cells, where="mid", label="cell state c")
axes[4].step(range(T), h, where="mid", color="tab:red", label="h, given out")
for ax in axes[3:]:
    ax.legend(loc="lower right", fontsize=8)
for t in np.flatnonzero(mark):
    for ax in axes:
        ax.axvline(t, color="black", linewidth=0.6)
axes[4].set_xlabel("step")
plt.show()

# %%
# The unit holds the value of the last mark, however long ago that was:

print(f"read at step 30: {np.tanh(value[30]):.4f}, held at step 59: {cells[59]:.4f}")

# %%
# Training finds such weights by itself; the four gates give it the means. All that is left for a
# whole layer is to have H such units side by side, each of which may look at the h of all others.
