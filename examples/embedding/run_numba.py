"""Take steps inside compiled Numba code and compare with the layer they were taken from."""

import numpy as np
from numba import njit

import fastlstm
from fastlstm import capi

step = capi.f32.step  # a C function, which Numba calls without the interpreter


@njit
def loudest(x, state, y):
    """Return the step after which the hidden state is largest; x (T, I), y (H,) for its output."""
    best, at = 0.0, 0
    for t in range(len(x)):
        step(state.ctypes, x[t].ctypes, y.ctypes)
        size = np.sqrt(np.sum(y * y))
        if size > best:
            best, at = size, t
    return at


lstm = fastlstm.LSTM(3, 32, rng=0)
plan = capi.Plan("lstm", *lstm.params.values())
state = plan.state(batch_size=1)
x = np.random.default_rng(0).standard_normal((200, 3)).astype(np.float32)
y = np.empty(32, np.float32)
at = loudest(x, state, y)

expected, _ = lstm(x[:, np.newaxis])
assert np.array_equal(y, expected[-1, 0])
assert at == np.argmax(np.linalg.norm(expected[:, 0], axis=1))
print(f"Numba: the hidden state is largest after step {at}")
