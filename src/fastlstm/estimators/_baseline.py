"""What a series does by itself: a mixture of simple linear forecasts, found in milliseconds.

It is the ground that the network of `LSTMForecaster` stands on, and all there is where a series is
too short to learn from.

Decisions:
a) Every forecast of the pool but one is the same thing with other settings: take out the season
   (not at all, the mean season of the last `SEASONS`, or by differences over a season), take
   differences or not, then forecast what is left by 0, by its mean, or by an autoregression. With 0
   these are the naive and seasonal naive forecast, with the mean drift. The other one is smoothing
   with a damped trend (Gardner and McKenzie 1985, doi:10.1287/mnsc.31.10.1237), from a grid.
b) Mixtures of simple forecasts are hard to beat (Makridakis et al. 2020, the M4 competition,
   doi:10.1016/j.ijforecast.2019.04.014). The weights are 1 / error ** `POWER`, the errors those of
   forecasts from rolling origins in the last half of the series, each learnt from what came before.
c) The order of an autoregression has the least AICc; a small ridge keeps it from exploding.
d) Nothing depends on the calendar or on where the series began, only on the rows before a forecast.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

SEASONS = 6  # of which the mean season is taken, at most
FOLDS = 5
POWER = 4
ORDER = 12  # of an autoregression, at most
RIDGE = 0.01  # of the mean square of what it reads
LONGEST_PERIOD = 400
GRID = [
    (level, trend, damping)
    for level in (0.1, 0.3, 0.5, 0.7, 0.9, 1.0)
    for trend in (0.0, 0.05, 0.1, 0.3, 0.5)
    for damping in (0.8, 0.9, 0.98)
    if trend <= level
]


def period_of(y: NDArray) -> int:
    """Return the length of a series' season, by the autocorrelation of its differences; 1: none.

    The first of the peaks that are nearly as high as the highest, if that is significant.
    """
    if len(y) < 13:
        return 1
    d = np.diff(y)
    d -= d.mean()
    n = len(d)
    longest = min(len(y) // 3, LONGEST_PERIOD)
    if not d.any():
        return 1
    spectrum = np.fft.rfft(d, 2 * n)
    r = np.fft.irfft(spectrum * spectrum.conj())[: longest + 2]
    r = r / r[0]
    inner = r[1:-1]
    peak = (inner > r[:-2]) & (inner >= r[2:]) & (inner > max(0.25, 2.5 / np.sqrt(n)))
    peak[0] = False  # a lag of 1 is no season
    if not peak.any():
        return 1
    return int(np.flatnonzero(peak & (inner >= 0.85 * inner[peak].max()))[0]) + 1


def mean_season(past: NDArray, period: int) -> NDArray:
    """Return the mean season (n, period) of the ends of n series, beside a straight trend.

    Its last column belongs to the last step; its mean is 0.
    """
    n, rows = past.shape
    seasons = min(rows // period, SEASONS)
    parts = past[:, rows - seasons * period :].reshape(n, seasons, period)
    slope = (parts[:, -1] - parts[:, 0]).mean(axis=-1) / (max(seasons - 1, 1) * period)
    shape = parts.mean(axis=1) - slope[:, np.newaxis] * np.arange(period)
    return shape - shape.mean(axis=1, keepdims=True)


class Autoregression:
    """An autoregression of the least AICc; with no lags the mean."""

    def __init__(self, y: NDArray) -> None:
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

    def forecast(self, past: NDArray, horizon: int) -> NDArray:
        """Return the next steps (n, horizon) of n series (n, rows)."""
        order = len(self.weights)
        z = np.zeros((len(past), order + horizon))
        shown = min(order, past.shape[1])  # before them, the mean
        z[:, order - shown : order] = past[:, past.shape[1] - shown :] - self.mean
        for k in range(horizon):
            z[:, order + k] = z[:, k : order + k] @ self.weights
        return z[:, order:] + self.mean


class Smoothing:
    """A level and a damped trend, of the smoothing constants with the least squared error."""

    def __init__(self, y: NDArray) -> None:
        self.level, self.trend, self.damping = np.array(GRID).T
        error = np.zeros(len(GRID))
        for step, forecast in zip(y[1:], self._run(y[np.newaxis]), strict=True):
            error += np.square(step - forecast)
        self.level, self.trend, self.damping = GRID[int(np.argmin(error))]

    def _run(self, past: NDArray) -> Iterator[NDArray]:
        """Yield the forecast of each step from the second; keep the last level and trend."""
        level = past[:, 0]
        few = past[:, : max(5, past.shape[1] // 10)]
        trend = (few[:, -1] - few[:, 0]) / max(few.shape[1] - 1, 1)
        for k in range(1, past.shape[1]):
            forecast = level + self.damping * trend
            yield forecast
            error = past[:, k] - forecast
            level = forecast + self.level * error
            trend = self.damping * trend + self.level * self.trend * error
        self._last = level, trend

    def forecast(self, past: NDArray, horizon: int) -> NDArray:
        """Return the next steps (n, horizon) of n series (n, rows)."""
        for _ in self._run(past):
            pass
        level, trend = self._last
        steps = np.cumsum(self.damping ** np.arange(1, horizon + 1))
        return level[:, np.newaxis] + np.outer(trend, steps)


class Zero:
    """What is left is 0."""

    def __init__(self, y: NDArray) -> None:
        pass

    def forecast(self, past: NDArray, horizon: int) -> NDArray:
        """Return zeros."""
        return np.zeros((len(past), horizon))


class Mean(Zero):
    """What is left is its mean."""

    def __init__(self, y: NDArray) -> None:
        self.mean = float(y.mean()) if len(y) else 0.0

    def forecast(self, past: NDArray, horizon: int) -> NDArray:
        """Return the mean."""
        return np.full((len(past), horizon), self.mean)


class Kind(NamedTuple):
    """One forecast of the pool."""

    season: str  # "", "mean" or "difference"
    difference: bool
    rest: Any  # a class


POOL = [
    Kind("", True, Zero),  # naive
    Kind("", True, Mean),  # drift
    Kind("", False, Autoregression),
    Kind("", True, Autoregression),
    Kind("", False, Smoothing),
]
SEASONAL_POOL = [
    *POOL,
    Kind("difference", False, Zero),  # seasonal naive
    Kind("difference", False, Mean),
    Kind("difference", False, Autoregression),
    Kind("difference", True, Autoregression),
    Kind("mean", False, Autoregression),
    Kind("mean", True, Autoregression),
    Kind("mean", False, Smoothing),
]


class Member:
    """One forecast of the pool, learnt from a series."""

    def __init__(self, kind: Kind, y: NDArray, period: int) -> None:
        self.kind, self.period = kind, period
        self.rest = kind.rest(self._reduce(y[np.newaxis])[0])

    def _reduce(self, past: NDArray) -> NDArray:
        """Return what the rest forecasts."""
        if self.kind.season == "difference":
            past = past[:, self.period :] - past[:, : -self.period]
        elif self.kind.season == "mean":
            season = mean_season(past, self.period)
            past = past - _tiled_before(season, past.shape[1])
        return np.diff(past) if self.kind.difference else past

    def forecast(self, past: NDArray, horizon: int) -> NDArray:
        """Return the next steps (n, horizon) of n series (n, rows)."""
        y = self.rest.forecast(self._reduce(past), horizon)
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
        return y + season[:, np.arange(horizon) % season.shape[1]]


def _tiled_before(season: NDArray, rows: int) -> NDArray:
    """Return the season for the last `rows` steps; its last column belongs to the last."""
    return season[:, np.arange(-rows, 0) % season.shape[1]]


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

    def __init__(self, y: NDArray, horizon: int, period: int | None = None) -> None:
        self.horizon = horizon
        self.period = period_of(y) if period is None else period
        if len(y) < 2 * self.period + 2:
            self.period = 1
        self.rows = max(SEASONS * self.period, 4 * ORDER)
        pool = POOL if self.period == 1 else SEASONAL_POOL
        self.weights, self.residuals = self._mix(y, pool)
        self.members = [Member(kind, y, self.period) for kind in pool]

    def _mix(self, y: NDArray, pool: list[Kind]) -> tuple[NDArray, NDArray]:
        """Return the weights, by errors of forecasts from rolling origins, and the mixture's."""
        T = len(y)
        horizon = min(self.horizon, max(1, T // 6))
        first = max(T // 2, 2 * self.period + 1, 3)
        if first > T - horizon:  # too short for a trial: the first, the naive forecast
            step = np.abs(np.diff(y)).mean() if T > 1 else 0.0
            return np.eye(len(pool))[0], np.full((1, 1), step)
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

    def __call__(self, past: NDArray) -> NDArray:
        """Return the next steps (n, horizon) of n series (n, rows); more rows are not looked at."""
        past = past[:, -self.rows :]
        forecasts = [member.forecast(past, self.horizon) for member in self.members]
        return np.tensordot(self.weights, np.stack(forecasts), 1)
