"""Drop-in replacements for ``torch.nn.LSTM``, ``GRU`` and ``RNN``, on CPU tensors.

Needs PyTorch (``pip install torch``). The operators are in `_operators`, the modules in
`_modules`, what they are in a model of ONNX in `_onnx`.
"""

try:
    import torch  # noqa: F401
except ImportError as _error:
    raise ImportError("fastlstm.torch needs PyTorch: pip install torch") from _error

from fastlstm.torch._modules import GRU, LSTM, RNN, replace

__all__ = ["GRU", "LSTM", "RNN", "replace"]
