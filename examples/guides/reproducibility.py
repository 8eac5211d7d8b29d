"""
Reproducibility
===============

On one machine and instruction set, a row's outputs have the same bits however it is run. That is
a promise which the tests keep; here are its parts.
"""

import numpy as np

import fastlstm

rng = np.random.default_rng(0)
lstm = fastlstm.LSTM(5, 48, num_layers=2, rng=0)
x = rng.standard_normal((100, 16, 5), np.float32)
y, state = lstm(x)

# %%
# Alone or in a batch, at once or in pieces, with one thread or two:

print("alone:  ", np.array_equal(lstm(x[:, 3:4])[0], y[:, 3:4]))
first, middle = lstm(x[:37])
second, _ = lstm(x[37:], middle)
print("pieces: ", np.array_equal(np.concatenate([first, second]), y))
before = fastlstm.get_num_threads()
fastlstm.set_num_threads(1)
alone = lstm(x)[0]
fastlstm.set_num_threads(2)
print("threads:", np.array_equal(alone, lstm(x)[0]))
fastlstm.set_num_threads(before)

# %%
# Gradients are the same from run to run and for any number of threads. What is drawn at random
# comes of the `rng` that was given, and of no global seed:

a, b = (fastlstm.LSTM(5, 8, rng=7) for _ in range(2))
print("initial weights:", np.array_equal(a.flat, b.flat))

# %%
# What is *not* promised: the same bits on another instruction set. The sums are in the same
# order, but vectors of another width round their activations elsewhere. ``FASTLSTM_ISA`` in the
# environment chooses one that both machines have; `show_config` says which it is.

fastlstm.show_config()
