"""ONNX: `load` a model's recurrent part as layers, `export` layers, run models on a `Backend`.

Needs the package ``onnx`` (``pip install onnx``).

Decisions:
a) What a node LSTM, GRU or RNN says is translated in one place, `_node`, in both directions.
b) The text of the operators decides; where ONNX Runtime differs from it, `export` says so.
c) Nothing is approximated: what the other side cannot represent is a ValueError that names it.
"""

try:
    import onnx  # noqa: F401  the package of ONNX: imports are absolute
except ImportError as _error:
    raise ImportError("fastlstm.onnx needs the package onnx: pip install 'onnx>=1.22'") from _error

from fastlstm.onnx._backend import Backend
from fastlstm.onnx._export import export
from fastlstm.onnx._load import load, load_all

__all__ = ["Backend", "export", "load", "load_all"]
