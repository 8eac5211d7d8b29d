"""fastlstm: the fastest LSTM on a CPU, for training and for inference."""

import sys

from fastlstm import reference
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
from fastlstm.capi import get_include
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

# who has threadpoolctl wants all threads under its control; register came with its version 3.2
if hasattr(sys.modules.get("threadpoolctl"), "register"):
    from fastlstm import threadpool  # noqa: F401
