"""
Long sequences
==============

Backpropagation keeps what the forward call did, so its memory grows with T. Three ways out.
"""

import numpy as np
from matplotlib import pyplot as plt

import fastlstm
from fastlstm import plot, training

rng = np.random.default_rng(0)
lstm = fastlstm.LSTM(2, 32, forget_bias=3, rng=0)
x = rng.standard_normal((20_000, 1, 2), np.float32)

# %%
# **Checkpoints**: exact gradients from the states between segments, which run again on the way
# back. The memory is that of the square root of T, for about a third more time.

y, _, plain = lstm.forward(x)
_, _, checkpointed = lstm.forward(x, checkpoint=True)
print(f"tape {plain.nbytes / 1e6:.1f} MB, with checkpoints {checkpointed.nbytes / 1e6:.2f} MB")
dy = np.ones_like(y)
same = lstm.backward(plain, dy).flat, lstm.backward(checkpointed, dy).flat
print("largest relative difference:", np.abs(same[0] - same[1]).max() / np.abs(same[0]).max())

# %%
# **Windows**: `truncated_bptt` carries the state on and takes gradients `k2` steps back, for
# series without an end. An update follows every `k1` steps.

optimizer = training.SGD([lstm], lr=1e-6)
windows = 0
for window in training.truncated_bptt(lstm, x, k1=500, k2=1000):
    optimizer.step([window.backward(2 * window.y)])  # the gradient of the sum of squares
    windows += 1
print(windows, "updates")

# %%
# **A stream** has no tape at all: one step after the other, in constant memory, the same bits.

stream, (y, _) = lstm.stream(), lstm(x[:100])
steps = np.stack([stream.step(x_t) for x_t in x[:100]])
print("the same bits:", np.array_equal(steps, y))

# %%
# Whether there is a gradient so far back is another question. `gradient_flow` measures it, here
# for a stack of two layers:

x = rng.standard_normal((300, 8, 2))
flows = {
    f"bias {bias}": training.gradient_flow(
        fastlstm.LSTM(2, 16, 2, forget_bias=bias, dtype=np.float64, rng=0), x
    )
    for bias in (0, 3)
}
plot.gradient_flow(flows)
plt.show()
