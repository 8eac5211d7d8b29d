"""Forecasts of what was known to the user but not to the model."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone

from fastlstm._args.arrays import refuse_mask
from fastlstm._args.numbers import check_size
from fastlstm.estimators._panel import is_panel


class Backtest(NamedTuple):
    """Forecasts of what was known to the user but not to the model.

    Parameters
    ----------
    origins : (n,) array of int
        The first row of each forecast.
    forecasts, actual : (n, horizon) or (n, horizon, K) arrays
        What was forecast, and what came.
    quantiles : (n, horizon, Q) or (n, horizon, K, Q) array, or None
        The forecasts of each quantile, if the estimator has `quantiles`.
    """

    origins: NDArray[np.intp]
    forecasts: NDArray[np.float64]
    actual: NDArray[np.float64]
    quantiles: NDArray[np.float64] | None = None

    @property
    def mae(self) -> Any:
        """Mean absolute error; of several targets one for each, (K,). Gaps do not count."""
        return _per_column(np.abs(self.forecasts - self.actual))

    @property
    def rmse(self) -> Any:
        """Root of the mean squared error, as `mae`."""
        return np.sqrt(_per_column(np.square(self.forecasts - self.actual)))

    @property
    def coverage(self) -> NDArray[np.float64]:
        """The part of the values at most as large as each quantile, (Q,) or (K, Q)."""
        if self.quantiles is None:
            raise ValueError("coverage: expected an estimator with quantiles")
        below = (self.actual[..., np.newaxis] <= self.quantiles).astype(np.float64)
        below[np.isnan(self.actual)] = np.nan
        coverage: NDArray[np.float64] = np.nanmean(below, axis=(0, 1))
        return coverage


def _per_column(errors: NDArray[Any]) -> Any:
    mean = np.nanmean(errors, axis=(0, 1))
    return mean if errors.ndim == 3 else float(mean)


def backtest(estimator: Any, X: Any, y: Any, n_origins: int, refit: bool) -> Backtest:
    """Do what `LSTMForecaster.backtest` says."""
    n_origins = check_size("n_origins", n_origins)
    if is_panel(X):
        raise TypeError("X: expected one series, got a panel")
    refuse_mask("X", X)
    refuse_mask("y", y)
    actual = np.asarray(X if y is None else y, np.float64)
    origins = len(actual) - estimator.horizon * np.arange(n_origins, 0, -1)
    if origins[0] < 2:
        raise ValueError(
            f"X: expected more than {n_origins} * {estimator.horizon} rows, n_origins * horizon, "
            f"got {len(actual)}"
        )
    model, forecasts, quantiles = None, [], []
    for origin in origins:
        past = X[:origin] if y is None else (X[:origin], y[:origin])
        if model is None or refit:
            model = clone(estimator).fit(*(past if y is not None else (past,)))
        future = None if y is None else X[origin : origin + estimator.horizon]
        forecasts.append(np.asarray(model.forecast(future, past=past)))
        if estimator.quantiles is not None:
            each = np.asarray(model.forecast_quantiles(future, past=past))
            quantiles.append(each.reshape(*forecasts[-1].shape, -1))
    parts = [actual[origin : origin + estimator.horizon] for origin in origins]
    return Backtest(
        origins,
        np.stack(forecasts),
        np.stack(parts),
        np.stack(quantiles) if quantiles else None,
    )
