"""Weekly CO2 at Mauna Loa: the series of the demo, and the forecasts to beat.

The measurements of 59 of the 2284 weeks are missing. They are NaN here, and `fill_gaps` draws a
straight line over them where a model needs a number at every step.
"""

from importlib.resources import files
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

WEEKS_PER_YEAR = 52


class Series(NamedTuple):
    """A weekly series: dates (T,) as datetime64[D] and ppm (T,), NaN where not measured."""

    dates: NDArray[np.datetime64]
    ppm: NDArray[np.float64]


class Forecast(NamedTuple):
    """One forecast of the held-out weeks, in ppm."""

    name: str
    ppm: NDArray[np.float64]


def load_co2() -> Series:
    """Return the series that comes with the package; the file names its source."""
    text = (files("fastlstm._commands.demo") / "data" / "co2_weekly_mauna_loa.csv").read_text(
        "utf-8"
    )
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    dates, ppm = zip(*(line.split(",") for line in lines[1:]), strict=True)
    return Series(
        np.array(dates, dtype="datetime64[D]"),
        np.array([float(value) if value else np.nan for value in ppm]),
    )


def split(series: Series, held_out: int) -> tuple[Series, Series]:
    """Return all but the last `held_out` weeks, and those."""
    end = len(series.ppm) - held_out
    return (
        Series(series.dates[:end], series.ppm[:end]),
        Series(series.dates[end:], series.ppm[end:]),
    )


def fill_gaps(ppm: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return a copy with each NaN on the straight line between its neighbours."""
    weeks = np.arange(len(ppm))
    known = ~np.isnan(ppm)
    return np.interp(weeks, weeks[known], ppm[known])


def seasonal_naive(ppm: NDArray[np.float64], horizon: int) -> NDArray[np.float64]:
    """Forecast the same week of the last year."""
    return np.resize(fill_gaps(ppm)[-WEEKS_PER_YEAR:], horizon)


def seasonal_naive_with_drift(ppm: NDArray[np.float64], horizon: int) -> NDArray[np.float64]:
    """As `seasonal_naive`, plus the last ten years' mean growth for every year ahead."""
    filled = fill_gaps(ppm)
    years = 10
    last, earlier = filled[-WEEKS_PER_YEAR:], filled[-(years + 1) * WEEKS_PER_YEAR :]
    growth = (last.mean() - earlier[:WEEKS_PER_YEAR].mean()) / years
    later = np.arange(horizon) // WEEKS_PER_YEAR + 1
    forecast: NDArray[np.float64] = seasonal_naive(ppm, horizon) + growth * later
    return forecast


def errors(forecast: NDArray[np.float64], truth: NDArray[np.float64]) -> tuple[float, float]:
    """Return the mean absolute and the root mean square error over the weeks measured."""
    residual = (forecast - truth)[~np.isnan(truth)]
    return float(np.abs(residual).mean()), float(np.sqrt(np.square(residual).mean()))
