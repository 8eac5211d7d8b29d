"""Keras' own LSTM, GRU, SimpleRNN and Bidirectional, run by fastlstm: ``import fastlstm.keras``.

From the import on, models run on the core wherever they were made; nothing in them changes, and
what is saved knows nothing of it. Keras must use PyTorch (``KERAS_BACKEND=torch``). What the core
does not do here goes to Keras' own code, with its results and its messages: activations other than
the usual ones, ``reset_after=False``, recurrent dropout in training, dtypes other than float32 and
float64, compiled and exported functions of PyTorch. Masks of any form are taken.

Why not JAX: from its compiled functions the core could only be reached by a callback to Python,
and that alone takes some 170 us (JAX 0.10 on one core of an Intel Xeon with AMX). Keras' own scan
takes 13 us for (B, T, I, H) = (1, 1, 24, 24) and 89 for (1, 100, 32, 32), where the callback with
our core took 173 and 217; at (32, 100, 64, 64) they were 2.2 and 2.0 ms, in training 7.4 and 5.4.
So small models would be several times slower, for a quarter less in training of large ones.

Examples
--------
>>> import os
>>> os.environ["KERAS_BACKEND"] = "torch"
>>> import keras
>>> import numpy as np
>>> import fastlstm.keras
>>> fastlstm.keras.calls.clear()
>>> model = keras.Sequential([keras.layers.Masking(), keras.layers.LSTM(8), keras.layers.Dense(1)])
>>> model(np.ones((2, 10, 3), "float32")).shape
torch.Size([2, 1])
>>> fastlstm.keras.calls
Counter({'LSTM': 1})
>>> fastlstm.keras.disable()  # Keras runs as before
>>> fastlstm.keras.enable()
"""

try:
    import keras as _keras
except ImportError as _error:
    raise ImportError("fastlstm.keras needs Keras 3: pip install keras") from _error

if _keras.backend.backend() != "torch":
    raise ImportError(f"fastlstm.keras needs KERAS_BACKEND=torch, got {_keras.backend.backend()}")

from fastlstm.keras._hook import calls, disable, enable

__all__ = ["calls", "disable", "enable"]

enable()
