"""fastlstm: the fastest LSTM on a CPU, for training and for inference."""

from fastlstm import reference
from fastlstm._results import LSTMGradients, LSTMOutput
from fastlstm._runtime import get_num_threads, set_num_threads, show_config
from fastlstm._version import __version__
from fastlstm.functional import lstm_backward, lstm_forward
from fastlstm.layers import LSTM

__all__ = [
    "LSTM",
    "LSTMGradients",
    "LSTMOutput",
    "__version__",
    "get_num_threads",
    "lstm_backward",
    "lstm_forward",
    "reference",
    "set_num_threads",
    "show_config",
]
