r"""
7. GRU, peepholes, and what else varies
=======================================

The GRU (gated recurrent unit; Cho et al. 2014) has one state and three gates. It too adds to its
state, with one gate in the place of two: what comes in is what goes out.

.. math::

    r &= \sigma(W_r x_t + U_r h_{t-1} + b_r)  &&\text{reset: how much of the past n sees} \\
    z &= \sigma(W_z x_t + U_z h_{t-1} + b_z)  &&\text{update: how much stays} \\
    n &= \tanh(W_n x_t + b_n + r \odot (U_n h_{t-1} + b_{hn}))  &&\text{candidate} \\
    h_t &= (1 - z) \odot n + z \odot h_{t-1}

.. literalinclude:: ../../src/fastlstm/reference/plain.py
    :pyobject: gru_step

The LSTM itself has variants; each is an option of `fastlstm.LSTM`, and the
:doc:`list of all </features>` says who else has it.

- **Peepholes**: the gates see the cell state, :math:`i = \sigma(\ldots + p_i \odot c_{t-1})`, so
  that they can count steps exactly (Gers et al. 2002).
- **Coupled** gates: :math:`f = 1 - i`, three gates instead of four.
- **Projection**: what is fed back is a smaller :math:`h_t = P\,(o \odot \tanh(c_t))`, so that U is
  smaller.
- **Layer norm**: the pre-activations are normalised, which steadies training.
- **Dropout** and **zoneout**, in training only: units are silenced, or keep their old state.

Here they all do the task of page 6, in `fastlstm` instead of NumPy; what its calls are is on the
next page.
"""

import numpy as np
from matplotlib import pyplot as plt

import fastlstm
from fastlstm.training import Adam, Linear, mse_loss

T, B, H, STEPS = 40, 32, 16, 600


def draw(rng):
    """Return x (T, B, 2), values and marks, and the marked value of each row (B, 1)."""
    x = np.zeros((T, B, 2), np.float32)
    x[..., 0] = rng.uniform(-1, 1, (T, B))
    marked = rng.integers(0, 10, B), np.arange(B)
    x[(*marked, 1)] = 1
    return x, x[(*marked, 0)][:, np.newaxis]


def train(layer, rng):
    """Return the loss of each step."""
    linear = Linear(layer.output_size, 1, rng=rng)
    optimizer, losses = Adam([layer, linear], lr=0.01), []
    for _ in range(STEPS):
        x, wanted = draw(rng)
        y, _, tape = layer.forward(x)
        answer, linear_tape = linear.forward(y[-1])
        loss, gradient = mse_loss(answer, wanted)
        linear_grads = linear.backward(linear_tape, gradient)
        dy = np.zeros_like(y)
        dy[-1] = linear_grads.x
        optimizer.step([layer.backward(tape, dy, input_gradient=False), linear_grads])
        losses.append(loss)
    return losses


# %%
# The gates that keep begin open in all of them, as on page 6: f of the LSTM by its bias, in coupled
# gates by the bias of i, and z of the GRU.

layers = {
    "LSTM": fastlstm.LSTM(2, H, forget_bias=3, rng=0),
    "peepholes": fastlstm.LSTM(2, H, forget_bias=3, peephole=True, rng=0),
    "coupled": fastlstm.LSTM(2, H, coupled=True, rng=0),
    "projection": fastlstm.LSTM(2, H, forget_bias=3, proj_size=12, rng=0),
    "GRU": fastlstm.GRU(2, H, rng=0),
    "plain network": fastlstm.RNN(2, H, rng=0),
}
layers["coupled"].params["bias_l0"][:H] = -3
layers["GRU"].params["bias_l0"][H : 2 * H] = 3

figure, ax = plt.subplots()
for name, layer in layers.items():
    losses = train(layer, np.random.default_rng(0))
    ax.semilogy(np.convolve(losses, np.ones(20) / 20, "valid"), label=name)
    print(f"{name:13}: {layer.flat.size:5} parameters, last 50 losses {np.mean(losses[-50:]):.4f}")
ax.axhline(1 / 3, color="grey", linestyle=":")
ax.set(xlabel="step of training", ylabel="loss, mean of 20 steps")
ax.grid()
ax.legend(ncols=2)
plt.show()

# %%
# All that add to a state learn it, and the one that does not, does not. Which of them is best is a
# question of the task, of H, and of the seed; one picture does not answer it (Greff et al. 2017
# compared eight variants over 5400 runs, and found none that beats the plain LSTM by much).
