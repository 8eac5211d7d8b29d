"""Keras' own LSTM, GRU, SimpleRNN and Bidirectional, run by fastlstm: ``import fastlstm.keras``.

From the import on, models run on the core wherever they were made; nothing in them changes, and
what is saved knows nothing of it. Keras must use PyTorch (``KERAS_BACKEND=torch``). What the core
does not do here goes to Keras' own code, with its results and its messages: activations other than
the usual ones, ``reset_after=False``, recurrent dropout in training, dtypes other than float32 and
float64, compiled and exported functions of PyTorch. Masks of any form are taken.

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
    raise ImportError("fastlstm.keras needs Keras 3: pip install 'fastlstm[keras]'") from _error

if _keras.backend.backend() != "torch":
    raise ImportError(f"fastlstm.keras needs KERAS_BACKEND=torch, got {_keras.backend.backend()}")

from fastlstm.keras._hook import calls, disable, enable

__all__ = ["calls", "disable", "enable"]

enable()
