"""Recurrent networks as scikit-learn estimators: sequences in, classes, numbers or forecasts out.

Needs scikit-learn (``pip install scikit-learn``), and tqdm if `verbose`.
"""

import contextlib

try:
    import sklearn  # noqa: F401
except ImportError as _error:
    raise ImportError(
        "fastlstm.estimators needs scikit-learn: pip install scikit-learn"
    ) from _error

with contextlib.suppress(ImportError):  # scikit-learn brings threadpoolctl, but maybe an old one
    import fastlstm.threadpool  # noqa: F401

from fastlstm.estimators._backtest import Backtest
from fastlstm.estimators._forecaster import LSTMForecaster
from fastlstm.estimators._supervised import LSTMClassifier, LSTMRegressor

__all__ = ["Backtest", "LSTMClassifier", "LSTMForecaster", "LSTMRegressor"]
