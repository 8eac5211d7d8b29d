"""What a series does by itself: a mixture of simple linear forecasts, found in milliseconds.

It is the ground that the network of `LSTMForecaster` stands on, and all there is where a series is
too short to learn from.

Decisions:
a) Each forecast of the pool takes out the season (not at all, the mean season of the last
   `SEASONS`, or by differences over a season), takes differences or not, and forecasts what is left
   by its mean, by an autoregression, or by exponential smoothing (`_smoothing`).
b) Mixtures of simple forecasts are hard to beat (Makridakis et al. 2020, the M4 competition,
   doi:10.1016/j.ijforecast.2019.04.014). The weights are 1 / error ** `POWER`, the errors those of
   forecasts from rolling origins in the last half of the series, each learnt from what came before.
c) The naive forecasts are not in it, unless nothing else can be learnt: smoothing has them within
   its grid, and with them every mixture leans towards them.
d) The order of an autoregression has the least AICc; a small ridge keeps it from exploding.
e) Nothing depends on the calendar or on where the series began, only on the rows before a forecast.
"""

from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from fastlstm.estimators._season import SEASONS, mean_season, period_of, tiled_before
from fastlstm.estimators._smoothing import Holt, Level, Seasonal, Smoothing, Theta

FOLDS = 5
POWER = 4
ORDER = 12  # of an autoregression, at most
RIDGE = 0.01  # of the mean square of what it reads


class Autoregression:
    """An autoregression of the least AICc; with no lags the mean."""

    def __init__(self, y: NDArray[Any]) -> None:
        self.mean = float(y.mean()) if len(y) else 0.0
        self.weights = np.empty(0)  # of the last steps, oldest first
        most = min(ORDER, len(y) // 8)
        if most < 1:
            return
        z = y - self.mean
        lags = sliding_window_view(z[:-1], most)[:, ::-1]
        target = z[most:]
        n = len(target)
        # one QR decomposition has the residuals of every order
        q, _ = np.linalg.qr(lags)
        explained = np.concatenate([[0], np.cumsum(np.square(q.T @ target))])
        residual = np.maximum(target @ target - explained, 1e-12 * (target @ target) + 1e-300)
        k = np.arange(1, most + 2)
        aicc = n * np.log(residual / n) + 2 * k * n / np.maximum(n - k - 1, 0.5)
        order = int(np.argmin(aicc))
        if order:
            x = lags[:, :order]
            square = x.T @ x
            ridge = RIDGE * np.trace(square) / order + 1e-300
            weights = np.linalg.solve(square + ridge * np.eye(order), x.T @ target)
            self.weights = weights[::-1].copy()  # contiguous: the same bits when loaded

    def forecast(self, past: NDArray[Any], horizon: int) -> NDArray[Any]:
        """Return the next steps (n, horizon) of n series (n, rows)."""
        order = len(self.weights)
        z = np.zeros((len(past), order + horizon))
        shown = min(order, past.shape[1])  # before them, the mean
        z[:, order - shown : order] = past[:, past.shape[1] - shown :] - self.mean
        for k in range(horizon):
            z[:, order + k] = z[:, k : order + k] @ self.weights
        return z[:, order:] + self.mean


class Zero:
    """What is left is 0."""

    def __init__(self, y: NDArray[Any]) -> None:
        pass

    def forecast(self, past: NDArray[Any], horizon: int) -> NDArray[Any]:
        """Return zeros."""
        return np.zeros((len(past), horizon))


class Mean(Zero):
    """What is left is its mean."""

    def __init__(self, y: NDArray[Any]) -> None:
        self.mean = float(y.mean()) if len(y) else 0.0

    def forecast(self, past: NDArray[Any], horizon: int) -> NDArray[Any]:
        """Return the mean."""
        return np.full((len(past), horizon), self.mean)


class Kind(NamedTuple):
    """One forecast of the pool."""

    season: str  # "", "mean", "difference", or "smoothed" by the class itself
    difference: bool
    rest: Any  # a class


NAIVE = Kind("", True, Zero)
AUTOREGRESSIONS = [Kind("", False, Autoregression), Kind("", True, Autoregression)]
POOL = [*AUTOREGRESSIONS, *(Kind("", False, kind) for kind in (Smoothing, Theta, Holt, Level))]
SEASONAL_POOL = [
    *AUTOREGRESSIONS,
    Kind("", False, Smoothing),
    Kind("difference", False, Mean),
    Kind("difference", False, Autoregression),
    Kind("difference", True, Autoregression),
    Kind("mean", False, Autoregression),
    Kind("mean", True, Autoregression),
    *(Kind("mean", False, kind) for kind in (Smoothing, Theta, Holt, Level)),
    Kind("smoothed", False, Seasonal),
]


class Member:
    """One forecast of the pool, learnt from a series."""

    def __init__(self, kind: Kind, y: NDArray[Any], period: int) -> None:
        self.kind, self.period = kind, period
        options = {"period": period} if kind.season == "smoothed" else {}
        self.rest = kind.rest(self._reduce(y[np.newaxis])[0], **options)

    def _reduce(self, past: NDArray[Any]) -> NDArray[Any]:
        """Return what the rest forecasts."""
        if self.kind.season == "difference":
            past = past[:, self.period :] - past[:, : -self.period]
        elif self.kind.season == "mean":
            season = mean_season(past, self.period)
            past = past - tiled_before(season, past.shape[1])
        return np.diff(past) if self.kind.difference else past

    def forecast(self, past: NDArray[Any], horizon: int) -> NDArray[Any]:
        """Return the next steps (n, horizon) of n series (n, rows)."""
        y: NDArray[Any] = self.rest.forecast(self._reduce(past), horizon)
        s = self.period
        if self.kind.season == "difference":
            if self.kind.difference:
                y = (past[:, -1] - past[:, -1 - s])[:, np.newaxis] + y.cumsum(axis=1)
            for k in range(horizon):
                y[:, k] += past[:, k - s] if k < s else y[:, k - s]
            return y
        season = np.zeros((len(past), 1))
        if self.kind.season == "mean":
            season = mean_season(past, s)
        if self.kind.difference:
            y = (past[:, -1] - season[:, -1])[:, np.newaxis] + y.cumsum(axis=1)
        y = y + season[:, np.arange(horizon) % season.shape[1]]
        return y


class Baseline:
    """The mixture, learnt from one series (T,) without gaps.

    Attributes
    ----------
    period : int
        Steps per season; 1: there is none.
    rows : int
        How many rows before a forecast it looks at, if there are so many.
    weights : (members,) array
    residuals : (n, steps) array
        Errors (actual - forecast) of the forecasts from rolling origins; their steps may be fewer
        than the horizon.
    """

    def __init__(self, y: NDArray[Any], horizon: int, period: int | None = None) -> None:
        self.horizon = horizon
        self.period = period_of(y) if period is None else period
        if len(y) < 2 * self.period + 2:
            self.period = 1
        self.rows = max(SEASONS * self.period, 4 * ORDER)
        pool = POOL if self.period == 1 else SEASONAL_POOL
        horizon = min(horizon, max(1, len(y) // 6))
        first = max(len(y) // 2, 2 * self.period + 1, 3)
        if first <= len(y) - horizon:
            self.weights, self.residuals = self._mix(y, pool, first, horizon)
        else:  # too short for a trial
            pool, self.weights = [NAIVE], np.ones(1)
            self.residuals = np.full((1, 1), np.abs(np.diff(y)).mean() if len(y) > 1 else 0.0)
        self.members = [Member(kind, y, self.period) for kind in pool]

    def _mix(
        self, y: NDArray[Any], pool: list[Kind], first: int, horizon: int
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return the weights, by errors of forecasts from rolling origins, and the mixture's."""
        T = len(y)
        starts = np.unique(np.linspace(first, T - horizon + 1, FOLDS + 1).astype(int))
        residuals = []  # of each fold, (members, origins, horizon)
        for start, end in pairwise(starts):
            rows = min(self.rows, start)
            windows = sliding_window_view(y, rows + horizon)[start - rows : end - rows]
            past, actual = windows[:, :rows], windows[:, rows:]
            members = [Member(kind, y[:start], self.period) for kind in pool]
            residuals.append(np.stack([actual - m.forecast(past, horizon) for m in members]))
        together = np.concatenate(residuals, axis=1)
        errors = np.abs(together).mean(axis=(1, 2))
        errors = np.maximum(errors, 1e-9 * np.abs(y).max() + 1e-300)
        weights = (errors.min() / errors) ** POWER
        weights /= weights.sum()
        return weights, np.tensordot(weights, together, 1)

    def __call__(self, past: NDArray[Any]) -> NDArray[Any]:
        """Return the next steps (n, horizon) of n series (n, rows); more rows are not looked at."""
        past = past[:, -self.rows :]
        forecasts = [member.forecast(past, self.horizon) for member in self.members]
        return np.tensordot(self.weights, np.stack(forecasts), 1)
