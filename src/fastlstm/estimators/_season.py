"""The season of a series: how long it is, and what it is like.

Decisions:
a) A season shows as a peak of the autocorrelation of the differences, high above what chance makes
   of any of some hundred lags, and as high above the lowest values before it and within a season
   after it: where neighbours are alike the autocorrelation falls slowly, and each bump in it would
   be a season; noise alone makes a hole at the lag of 1.
b) A long season is lost in the noise of single steps: differences of means of 2, 4 or 8 steps are
   looked at where shorter ones show none. Those of a random walk are still next to unrelated.
c) Of peaks nearly as high as the highest the first counts (the others are whole multiples of it),
   or the best within a tenth above it: 50 weeks repeat nearly as well as 52.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

SEASONS = 6  # of which the mean season is taken, at most
LONGEST_PERIOD = 400
SPANS = (1, 2, 4, 8)  # of the means
BY_CHANCE = 3.5  # standard errors of an autocorrelation, 1 / sqrt(rows)
LEAST = 0.25  # what is less, even if certain, is of no use


def period_of(y: NDArray[Any]) -> int:
    """Return the length of a series' season; 1: there is none."""
    for span in SPANS:
        period = _period_by_means(y, span) if len(y) >= 13 * span else 1
        if period > 1:
            return period
    return 1


def _period_by_means(y: NDArray[Any], span: int) -> int:
    """Return the length of the season, by differences of means of so many steps."""
    means = np.convolve(y - y.mean(), np.full(span, 1 / span), "valid")
    d = means[span:] - means[:-span]
    d -= d.mean()
    if not d.any():
        return 1
    n, longest = len(d), min(len(y) // 3, LONGEST_PERIOD)
    spectrum = np.fft.rfft(d, 2 * n)
    r = np.fft.irfft(spectrum * spectrum.conj())[: 2 * longest + 2]
    r = r / r[0]
    bound = max(LEAST, BY_CHANCE * np.sqrt(span / n))
    lags = np.arange(2 * span, longest + 1)
    at = r[lags]
    lowest = [max(r[1:k].min(), r[k : 2 * k].min()) for k in lags]
    peak = (at > r[lags - 1]) & (at >= r[lags + 1]) & (r[2 * lags] > 0)
    peak &= (at > bound) & (at - lowest > bound)
    if not peak.any():
        return 1
    first = lags[peak & (at >= 0.85 * at[peak].max())][0]
    near = np.arange(first, min(int(1.1 * first), longest) + 1)
    return int(near[np.argmax(r[near] + r[2 * near])])


def mean_season(past: NDArray[Any], period: int) -> NDArray[Any]:
    """Return the mean season (n, period) of the ends of n series, beside a straight trend.

    Its last column belongs to the last step; its mean is 0.
    """
    n, rows = past.shape
    seasons = min(rows // period, SEASONS)
    parts = past[:, rows - seasons * period :].reshape(n, seasons, period)
    slope = (parts[:, -1] - parts[:, 0]).mean(axis=-1) / (max(seasons - 1, 1) * period)
    shape: NDArray[Any] = parts.mean(axis=1) - slope[:, np.newaxis] * np.arange(period)
    shape -= shape.mean(axis=1, keepdims=True)
    return shape


def tiled_before(season: NDArray[Any], rows: int) -> NDArray[Any]:
    """Return the season for the last `rows` steps; its last column belongs to the last."""
    return season[:, np.arange(-rows, 0) % season.shape[1]]
