"""Recurrent networks as scikit-learn estimators: sequences in, classes, numbers or forecasts out.

Needs scikit-learn (``pip install 'fastlstm[sklearn]'``), and tqdm if `verbose`.
"""

try:
    import sklearn  # type: ignore[import-untyped]  # noqa: F401
except ImportError as error:
    raise ImportError(
        "fastlstm.estimators needs scikit-learn: pip install 'fastlstm[sklearn]'"
    ) from error

from fastlstm.estimators._forecaster import Backtest, LSTMForecaster
from fastlstm.estimators._supervised import LSTMClassifier, LSTMRegressor

__all__ = ["Backtest", "LSTMClassifier", "LSTMForecaster", "LSTMRegressor"]
