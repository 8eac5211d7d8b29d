"""fastlstm: the fastest LSTM on a CPU, for training and for inference."""

import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from fastlstm._args.results import (
    GRUGradients,
    GRUOutput,
    LSTMGradients,
    LSTMOutput,
    RNNGradients,
    RNNOutput,
)
from fastlstm._core.runtime import get_num_threads, set_num_threads, show_config
from fastlstm._version import __version__
from fastlstm.functional import (
    gru_backward,
    gru_forward,
    lstm_backward,
    lstm_forward,
    rnn_backward,
    rnn_forward,
)
from fastlstm.layers import GRU, LSTM, RNN

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "GRUGradients",
    "GRUOutput",
    "LSTMGradients",
    "LSTMOutput",
    "RNNGradients",
    "RNNOutput",
    "__version__",
    "get_include",
    "get_num_threads",
    "gru_backward",
    "gru_forward",
    "lstm_backward",
    "lstm_forward",
    "reference",
    "rnn_backward",
    "rnn_forward",
    "set_num_threads",
    "show_config",
]

if TYPE_CHECKING:
    from fastlstm import capi, reference, training  # noqa: F401


def get_include() -> str:
    """Return the folder of ``fastlstm.h``, for the include path of a C or Cython extension.

    Returns
    -------
    str
        The folder's path.

    Examples
    --------
    >>> import os
    >>> import fastlstm
    >>> os.listdir(fastlstm.get_include())
    ['fastlstm.h']
    """
    return str(Path(__file__).parent / "include")


def __getattr__(name: str) -> object:
    """Import a module when it is first asked for, so that `import fastlstm` stays quick."""
    if name in ("capi", "reference", "training"):
        return importlib.import_module(f"fastlstm.{name}")
    raise AttributeError(f"module 'fastlstm' has no attribute {name!r}")


# who has threadpoolctl wants all threads under its control; register came with its version 3.2
if hasattr(sys.modules.get("threadpoolctl"), "register"):
    from fastlstm import threadpool  # noqa: F401
