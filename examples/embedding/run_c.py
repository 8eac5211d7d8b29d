"""Run the C extension over a signal and compare it with the layer it was taken from."""

import lstm_filter
import numpy as np

import fastlstm

lstm = fastlstm.LSTM(1, 20, rng=0)
x = np.sin(np.arange(1000, dtype=np.float32) / 7).reshape(-1, 1)
y = np.empty((1000, 20), np.float32)
lstm_filter.filter(*lstm.params.values(), x, y)

expected, _ = lstm(x[:, np.newaxis])
assert np.array_equal(y, expected[:, 0])
print("C extension: 1000 samples, the bits of Python")
