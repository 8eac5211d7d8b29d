r"""
8. The same in fastlstm: the same numbers, much faster
======================================================

What pages 4 and 5 do in a few lines of NumPy, `fastlstm.lstm_forward` and
`fastlstm.lstm_backward` do in compiled code, in the same order of gates and the same layout of
weights. The same arrays go in, and the same numbers come out:
"""

import time

import numpy as np
from matplotlib import pyplot as plt

import fastlstm
from fastlstm import plot
from fastlstm.reference import plain
from fastlstm.training import Adam, Linear, mse_loss

T, B, I, H = 100, 1, 2, 16
rng = np.random.default_rng(0)
shapes = (T, B, I), (T, B, H), (4 * H, I), (4 * H, H), (4 * H,)
x, dy, W, U, b = (rng.standard_normal(shape, np.float32) for shape in shapes)
zero = np.zeros((B, H), np.float32)


def by_hand():
    """Return y and the gradient of U, in NumPy."""
    y, _, tape = plain.lstm_forward(x, W, U, b, zero, zero)
    return y, plain.lstm_backward(tape, W, U, dy)[1]


def compiled():
    """Return the same, by fastlstm."""
    y, _, _, tape = fastlstm.lstm_forward(x, W, U, b, training=True)
    return y, fastlstm.lstm_backward(tape, dy).w_hh


for name, ours, theirs in zip(("y", "gradient of U"), compiled(), by_hand(), strict=True):
    print(f"{name}: largest difference {np.abs(ours - theirs).max():.0e}")

# %%
# How much faster it is depends on the machine and the size: NumPy pays some microseconds for each
# of the dozens of calls in a step, whatever the size, and so the gap is widest for small layers.
# Here is what it took where this page was made, forward and backward, as the median of 20 calls (on
# an Intel Xeon with AMX, 2 cores, shared, we saw ratios of 55 to 75, and of 75 to 100 without
# backward):


def median_time(function):
    """Return the median of 20 calls, in microseconds."""
    times = []
    for _ in range(20):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return 1e6 * np.median(times)


fastlstm.set_num_threads(1)
times = {"NumPy, by hand": median_time(by_hand), "fastlstm": median_time(compiled)}
for name, microseconds in times.items():
    print(f"{name:15} {microseconds:8.0f} us")
print(f"ratio           {times['NumPy, by hand'] / times['fastlstm']:8.0f}")

# %%
# Most code does not handle the weights one by one: a layer owns them, `forward` keeps the tape, and
# an optimiser updates all of them. This trains on a real series, the CO2 in the air of Mauna Loa
# (weekly, Scripps and NOAA, shipped with ``fastlstm demo``), to say the change of the next week.

from importlib.resources import files

path = files("fastlstm") / "_commands/demo/data/co2_weekly_mauna_loa.csv"
rows = np.genfromtxt(path.read_text().splitlines(), delimiter=",", skip_header=1, usecols=1)
level = rows[np.isfinite(rows)]
change = np.diff(level).astype(np.float32)[:, np.newaxis, np.newaxis]
change /= change.std()

lstm, linear = fastlstm.LSTM(1, 16, rng=1), Linear(16, 1, rng=1)
optimizer = Adam([lstm, linear], lr=0.01)
x, wanted = change[:-1], change[1:]
for epoch in range(150):
    y, _, tape = lstm.forward(x)
    answer, linear_tape = linear.forward(y)
    loss, gradient = mse_loss(answer, wanted)
    linear_grads = linear.backward(linear_tape, gradient)
    optimizer.step([lstm.backward(tape, linear_grads.x), linear_grads])
    if epoch % 50 == 49:
        print(f"epoch {epoch + 1}: mean square {loss:.3f}, of a variance of {wanted.var():.3f}")

# %%
# Gates looked at
# ---------------
#
# What does it do with its gates? `trace` returns every gate and state, and `fastlstm.plot.gates`
# draws them, a line of pixels for each unit. Three years, in which the seasons can be seen in the
# gates of several units, without anybody having told the network of them:

weeks = slice(1000, 1000 + 156)
trace = lstm.trace(x[: weeks.stop])
trace = {"l0": {name: values[weeks] for name, values in trace["l0"].items()}}
ax = plot.gates(trace)
ax.set_title("LSTM on the weekly change of CO2", loc="left")
plt.show()

# %%
# This is where the lesson ends. To go on: the :doc:`guides </guides/index>`, the
# :doc:`reference </api>`, and what :doc:`long lags ask for </long-lag>`.
