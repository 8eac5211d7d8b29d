"""
Ragged batches
==============

Sequences of different lengths go into one array, filled up to the longest, with their `lengths`.
No sorting, no packing: the cost follows the sum of the lengths, and what stands past a row's end is
not read.
"""

import numpy as np

import fastlstm
from fastlstm.training import mse_loss

rng = np.random.default_rng(0)
sequences = [rng.standard_normal((n, 3), np.float32) for n in (5, 2, 8, 0)]
lengths = np.array([len(sequence) for sequence in sequences])

x = np.full((max(lengths), len(sequences), 3), np.nan, np.float32)  # whatever: it is not read
for row, sequence in enumerate(sequences):
    x[: len(sequence), row] = sequence

lstm = fastlstm.LSTM(3, 8, rng=0)
y, (h, c) = lstm(x, lengths=lengths)
print("steps with an output:", np.count_nonzero(np.abs(y).sum(axis=2), axis=0))

# %%
# The state is that after each row's own last step, and each row has the bits that it has alone:

for row, sequence in enumerate(sequences):
    alone, _ = lstm(sequence[:, np.newaxis])
    assert np.array_equal(alone[:, 0], y[: len(sequence), row])
    if len(sequence):
        assert np.array_equal(alone[-1, 0], h[0, row])
print("all rows are as they are alone")

# %%
# In training the loss takes a mask of the steps that exist. The gradient past a row's end is 0:

x = np.nan_to_num(x)
y, _, tape = lstm.forward(x, lengths=lengths)
exists = np.arange(len(x))[:, np.newaxis] < lengths
mask = np.broadcast_to(exists[:, :, np.newaxis], y.shape)
loss, dy = mse_loss(y, np.ones_like(y), mask=mask)
grads = lstm.backward(tape, dy)
print(f"loss {loss:.3f}; gradients past the ends: {np.abs(grads.x[~exists]).sum()}")
