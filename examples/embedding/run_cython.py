"""Score the windows of a series with the Cython extension and compare with Python."""

import numpy as np
from window_scores import window_scores

import fastlstm

lstm = fastlstm.LSTM(2, 16, rng=0)
rng = np.random.default_rng(0)
series = rng.standard_normal((500, 2)).astype(np.float32)
readout = rng.standard_normal(16).astype(np.float32)
T = 30

scores = window_scores(*lstm.params.values(), readout, series, T, threads=2)
assert np.array_equal(scores, window_scores(*lstm.params.values(), readout, series, T))

windows = np.lib.stride_tricks.sliding_window_view(series, T, axis=0)  # (471, 2, T)
_, (h_n, _) = lstm(windows.transpose(2, 0, 1))
np.testing.assert_allclose(scores, h_n[0] @ readout, rtol=1e-5, atol=1e-6)
print(f"Cython extension: {len(scores)} windows, the same with one thread and with two")
