"""Windows of one or many series, as a forecaster's network sees them.

Decisions:
a) A window is `context` steps and the `horizon` steps that follow. A step shows, of each target,
   how far it is from the last value before the forecast (its level), in units of how far such steps
   are on average; whether it is known; and the exogenous columns. In the second part the targets
   are hidden, and in their place stands what the baseline forecasts.
b) The network says what the baseline misses, in units of what it missed so far, for each step.
c) A gap (NaN) is shown as not known and left out of the loss. The baseline sees a straight line
   over it, and after the last known value that value. No forecast begins right behind a gap.
d) Windows are gathered when needed: only the baseline's forecasts grow with their number.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastlstm.estimators._baseline import Baseline
from fastlstm.estimators._network import Batch

LENGTHS = 16  # of what comes before windows that are forecast together
LEAST = 1e-3  # of a series' standard deviation: what the baseline misses is not called less


class Series(NamedTuple):
    """Rows in time order."""

    targets: NDArray[Any]  # (T, K), NaN where not known
    exogenous: NDArray[Any]  # (T, E)

    def tail(self, rows: int) -> "Series":
        """Return the last rows."""
        return Series(self.targets[-rows:], self.exogenous[-rows:])

    def append(self, targets: NDArray[Any], exogenous: NDArray[Any]) -> "Series":
        """Return these rows and more."""
        return Series(
            np.concatenate([self.targets, targets]), np.concatenate([self.exogenous, exogenous])
        )


def fill_gaps(y: NDArray[Any]) -> NDArray[Any]:
    """Return a copy of y (T,) with straight lines over gaps; at the ends the nearest value."""
    known = np.flatnonzero(~np.isnan(y))
    return np.asarray(np.interp(np.arange(len(y)), known, y[known]))


class Scale:
    """What is learnt of the targets of one series before any network: baselines and units.

    Parameters
    ----------
    targets : (T, K) array
        NaN where not known; at least one value of each column is.
    horizon : int
    context : int
        Rows that the network will see.
    period : int, optional
        Steps per season; found out if not given.
    standardize : bool
        Whether units are those of decisions a and b, or all 1.
    """

    def __init__(
        self,
        targets: NDArray[Any],
        horizon: int,
        context: int,
        period: int | None,
        standardize: bool,
    ) -> None:
        T, K = targets.shape
        filled = [fill_gaps(column) for column in targets.T]
        self.baselines = [Baseline(y, horizon, period) for y in filled]
        self.naive = np.array([np.abs(np.diff(y)).mean() if T > 1 else 0.0 for y in filled])
        self.shown = np.ones(K)  # unit of what is shown
        self.missed = np.ones((horizon, K))  # unit of what the baseline misses, by step
        for k, (y, baseline) in enumerate(zip(filled, self.baselines, strict=True)):
            rms = np.sqrt(np.square(baseline.residuals).mean(axis=0))
            least = LEAST * y.std() or 1.0
            # where no step was so far ahead, as errors of a random walk grow
            steps = np.arange(1, horizon + 1)
            known = np.minimum(steps, len(rms))
            rms = np.maximum(rms[known - 1] * np.sqrt(steps / known), least)
            if standardize:
                self.missed[:, k] = rms
                lag = max(1, min(context // 2, T - 1))
                self.shown[k] = np.sqrt(np.square(y[lag:] - y[:-lag]).mean()) or 1.0

    def errors(self) -> NDArray[Any]:
        """Return the baselines' errors from rolling origins, in units of what they miss."""
        parts = []
        for k, baseline in enumerate(self.baselines):
            steps = baseline.residuals.shape[1]
            parts.append((baseline.residuals / self.missed[:steps, k]).ravel())
        return np.concatenate(parts)


class Windows:
    """The windows of some series whose forecasts begin at `origins`, a list for each series."""

    def __init__(
        self,
        series: list[Series],
        scales: list[Scale],
        origins: list[NDArray[np.intp]],
        context: int,
        horizon: int,
        hidden: NDArray[np.intp],
    ) -> None:
        ends = np.cumsum([len(one.targets) for one in series])
        starts = ends - [len(one.targets) for one in series]
        self.targets = np.concatenate([one.targets for one in series])
        self.exogenous = np.concatenate([one.exogenous for one in series])
        self.filled = np.concatenate(
            [np.stack([fill_gaps(y) for y in one.targets.T], axis=1) for one in series]
        )
        self.origins = np.concatenate(
            [start + each for start, each in zip(starts, origins, strict=True)]
        )
        self.which = np.repeat(np.arange(len(series)), [len(each) for each in origins])
        self.scales = scales
        self.context, self.horizon = context, horizon
        self.hidden = hidden  # exogenous columns not known ahead
        self.offsets = np.arange(-context, horizon)[:, np.newaxis]
        self.baseline = np.concatenate(
            [
                self._forecasts(start, one, scale, each)
                for start, one, scale, each in zip(starts, series, scales, origins, strict=True)
            ]
        )
        self.missed = np.stack([scale.missed for scale in scales])
        self.shown = np.stack([scale.shown for scale in scales])

    def _forecasts(
        self, start: int, series: Series, scale: Scale, origins: NDArray[np.intp]
    ) -> NDArray[Any]:
        """Return the baseline's forecasts from all origins, (n, horizon, K)."""
        out = np.empty((len(origins), self.horizon, series.targets.shape[1]))
        for k, baseline in enumerate(scale.baselines):
            y = self.filled[start : start + len(series.targets), k]
            # to have few calls, many with little before them are taken by steps
            step = 1 if len(origins) <= LENGTHS else max(1, baseline.rows // LENGTHS)
            rows = np.maximum(origins // step * step, 2 * baseline.period)
            rows = np.minimum(np.minimum(rows, origins), baseline.rows)
            for n in np.unique(rows):
                chosen = rows == n
                past = y[origins[chosen][:, np.newaxis] + np.arange(-n, 0)]
                out[chosen, :, k] = baseline(past)
        return out

    def __len__(self) -> int:
        return len(self.origins)

    def apart(self, own: NDArray[np.intp]) -> NDArray[np.bool_]:
        """Return of which windows the forecast overlaps with none of those of `own`."""
        first, last = self.origins[own].min(), self.origins[own].max()
        # a block is contiguous; in a panel rows of other series lie apart anyway
        apart: NDArray[np.bool_] = (self.origins <= first - self.horizon) | (
            self.origins >= last + self.horizon
        )
        return apart

    def batch(self, which: NDArray[np.intp]) -> Batch:
        """Return some of them; the target is what the baseline misses."""
        rows = self.origins[which] + self.offsets
        level = self.filled[self.origins[which] - 1]
        baseline = self.baseline[which].transpose(1, 0, 2)
        of = self.which[which]
        C = self.context
        target = (self.targets[rows[C:]] - baseline) / self.missed[of].transpose(1, 0, 2)
        shown = self.filled[rows]
        shown[C:] = baseline
        shown = (shown - level) / self.shown[of]
        known = ~np.isnan(self.targets[rows])
        known[C:] = False
        shown[:C][~known[:C]] = 0
        exogenous = self.exogenous[rows]
        if len(self.hidden):
            exogenous[C:, :, self.hidden] = 0
        x = np.concatenate([shown, known, exogenous], axis=-1)
        return Batch(x.astype(np.float32), None, target.astype(np.float32))

    def absolute(self, output: NDArray[Any]) -> NDArray[Any]:
        """Return forecasts (horizon, n, K, outputs) of what the network said of all windows."""
        units = self.missed[self.which].transpose(1, 0, 2)[..., np.newaxis]
        return self.baseline.transpose(1, 0, 2)[..., np.newaxis] + output * units
