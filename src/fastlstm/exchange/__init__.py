"""Weights from and to PyTorch and Keras, as arrays; neither is needed for it.

Decisions:
a) Cell and sizes are read off the shapes. What no array tells (activations, ``batch_first``) comes
   from the module or layer, if that is given, or from keyword arguments.
b) Two biases become the one that is here, their sum; a GRU's has, after r, z and n, the recurrent
   bias of n, which is inside the reset. On the way out all else is in the first of the two.
c) What would change the outputs and cannot be said there is an error, never left out.
"""

from fastlstm.exchange._keras import from_keras, to_keras
from fastlstm.exchange._torch import from_torch, to_torch

__all__ = ["from_keras", "from_torch", "to_keras", "to_torch"]
