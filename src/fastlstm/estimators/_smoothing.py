"""Exponential smoothing in its usual forms, with constants from a grid.

Decisions:
a) A grid and no optimiser: all its constants run as one array, a step of the series at a time, and
   what is found depends on nothing but the series. The best have the least squared error of the
   forecasts one step ahead, over the last `LONGEST` rows.
b) The forms: a level alone; beside a drift of half the series' slope, which is the Theta method
   (Hyndman and Billah 2003, doi:10.1016/S0169-2070(01)00143-1); with a trend (Holt 1957); with a
   damped one (Gardner and McKenzie 1985, doi:10.1287/mnsc.31.10.1237); with a season as well.
"""

from itertools import product
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fastlstm.estimators._season import mean_season

LONGEST = 1000
LEVELS = (0.1, 0.3, 0.5, 0.7, 0.9, 1.0)

Constants = list[tuple[float, ...]]


def _grid(*constants: tuple[float, ...]) -> Constants:
    """Return all of them, but where the trend is quicker than the level."""
    return [each for each in product(*constants) if each[1] <= each[0]]


class Smoothing:
    """A level and a damped trend."""

    GRID: ClassVar[Constants] = _grid(LEVELS, (0.0, 0.05, 0.1, 0.3, 0.5), (0.8, 0.9, 0.98))

    def __init__(self, y: NDArray[Any]) -> None:
        self.drift = self._drift(y)
        y = y[-LONGEST:]
        self.level, self.trend, self.damping = np.array(self.GRID).T
        squared, _, _ = self._run(np.broadcast_to(y, (len(self.GRID), len(y))))
        self.level, self.trend, self.damping = self.GRID[int(np.argmin(squared))]

    def _drift(self, y: NDArray[Any]) -> float:
        return 0.0

    def _run(self, past: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        """Return the sum of squared errors, the last level and trend, of n series (n, rows)."""
        level, squared = past[:, 0], np.zeros(len(past))
        few = past[:, : max(5, past.shape[1] // 10)]
        trend = (few[:, -1] - few[:, 0]) / max(few.shape[1] - 1, 1)
        for k in range(1, past.shape[1]):
            forecast = level + self.damping * trend + self.drift
            error = past[:, k] - forecast
            squared += error * error
            level = forecast + self.level * error
            trend = self.damping * trend + self.level * self.trend * error
        return squared, level, trend

    def forecast(self, past: NDArray[Any], horizon: int) -> NDArray[Any]:
        """Return the next steps (n, horizon) of n series (n, rows)."""
        _, level, trend = self._run(past)
        steps = np.arange(1, horizon + 1)
        damped = np.cumsum(self.damping**steps)
        y: NDArray[Any] = level[:, np.newaxis] + np.outer(trend, damped) + self.drift * steps
        return y


class Level(Smoothing):
    """A level alone."""

    GRID: ClassVar[Constants] = _grid((0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9, 1.0), (0.0,), (0.0,))


class Theta(Level):
    """A level, and a drift of half the slope of the line through the series."""

    def _drift(self, y: NDArray[Any]) -> float:
        t = np.arange(len(y)) - (len(y) - 1) / 2
        return float(t @ y / (t @ t) / 2) if len(y) > 1 else 0.0


class Holt(Smoothing):
    """A level and a trend that goes on."""

    GRID: ClassVar[Constants] = [
        (level, trend, 1.0) for level in LEVELS for trend in (0.05, 0.1, 0.3, 0.5, 0.8, 1.0)
    ]


class Seasonal:
    """A level, a trend that may be damped, and a season that changes slowly."""

    GRID: ClassVar[Constants] = [
        each
        for each in product(
            (0.02, *LEVELS[:-1]), (0.0, 0.05, 0.2), (0.9, 0.98, 1.0), (0.0, 0.05, 0.15, 0.4)
        )
        if each[3] <= 1 - each[0] and (each[1] or each[2] == 1)
    ]

    def __init__(self, y: NDArray[Any], period: int) -> None:
        self.period = period
        y = y[-max(LONGEST, 3 * period) :]
        self.level, self.trend, self.damping, self.season = np.array(self.GRID).T
        squared, _, _, _ = self._run(np.broadcast_to(y, (len(self.GRID), len(y))))
        self.level, self.trend, self.damping, self.season = self.GRID[int(np.argmin(squared))]

    def _run(
        self, past: NDArray[Any]
    ) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]:
        """Return the squared errors, and the last level, trend and season (period, n)."""
        (n, rows), p = past.shape, self.period
        seasons = min(rows // p, 3)
        first = past[:, : seasons * p]
        season = mean_season(first, p).T.copy()
        means = first.reshape(n, seasons, p).mean(axis=2)
        trend = (means[:, -1] - means[:, 0]) / (max(seasons - 1, 1) * p)
        level = means[:, 0] + trend * (p - 1) / 2  # at the end of the first season
        squared = np.zeros(n)
        for k in range(p, rows):
            base = level + self.damping * trend
            error = past[:, k] - base - season[k % p]
            squared += error * error
            level = base + self.level * error
            trend = self.damping * trend + self.level * self.trend * error
            season[k % p] += self.season * error
        return squared, level, trend, season

    def forecast(self, past: NDArray[Any], horizon: int) -> NDArray[Any]:
        """Return the next steps (n, horizon) of n series (n, rows)."""
        _, level, trend, season = self._run(past)
        damped = np.cumsum(self.damping ** np.arange(1, horizon + 1))
        phases = (past.shape[1] + np.arange(horizon)) % self.period
        y: NDArray[Any] = level[:, np.newaxis] + np.outer(trend, damped) + season[phases].T
        return y
