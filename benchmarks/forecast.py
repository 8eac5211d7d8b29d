"""Forecasts of real series against simple ones and statsmodels: ``python benchmarks/forecast.py``.

Prints the table of docs/forecasting.md: mean absolute errors at the defaults of `LSTMForecaster`.

Decisions:
a) Rolling origin, and every method learns anew at each origin, from all that came before it. The
   origins are `ORIGINS` equal steps within the last 40 % of a series; forecasts may overlap.
b) The forecaster is fit with each of five seeds; its figure is the mean of their errors, with the
   standard deviation between seeds beside it.
c) ETS is the one of six exponential smoothing models that has the least AICc: no trend, additive
   or damped, each with and without an additive season. Holt-Winters has trend and season, fixed.
"""

import argparse
import json
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from forecast_series import GROUPS, Series
from numpy.typing import NDArray
from statsmodels.tsa.holtwinters import ExponentialSmoothing

from fastlstm.estimators import LSTMForecaster

ORIGINS, PART = 8, 0.4
SIMPLE = ("naive", "drift", "seasonal naive")


def naive(past: NDArray, horizon: int, period: int) -> NDArray:
    """Return the last value."""
    return np.full(horizon, past[-1])


def drift(past: NDArray, horizon: int, period: int) -> NDArray:
    """Return the line through the first and the last value."""
    return past[-1] + (past[-1] - past[0]) / (len(past) - 1) * np.arange(1, horizon + 1)


def seasonal_naive(past: NDArray, horizon: int, period: int) -> NDArray:
    """Return the last season."""
    return np.resize(past[-period:], horizon)


def _smoothing(past: NDArray, period: int, trend: bool, damped: bool, season: bool) -> Any:
    model = ExponentialSmoothing(
        past,
        trend="add" if trend else None,
        damped_trend=damped,
        seasonal="add" if season else None,
        seasonal_periods=period if season else None,
    )
    return model.fit()


def holt_winters(past: NDArray, horizon: int, period: int) -> NDArray:
    """Return additive trend and, if there is a period, additive season."""
    return _smoothing(past, period, True, False, period > 1).forecast(horizon)


def ets(past: NDArray, horizon: int, period: int) -> NDArray:
    """Return the forecast of the smoothing model with the least AICc."""
    kinds = [(False, False), (True, False), (True, True)]
    seasons = [False, True] if period > 1 and len(past) > 2 * period else [False]
    fits = [_smoothing(past, period, *kind, season) for kind in kinds for season in seasons]
    return min(fits, key=lambda fit: fit.aicc).forecast(horizon)


METHODS: dict[str, Callable[[NDArray, int, int], NDArray]] = {
    "naive": naive,
    "drift": drift,
    "seasonal naive": seasonal_naive,
    "Holt-Winters": holt_winters,
    "ETS": ets,
}


def origins_of(series: Series, values: NDArray) -> NDArray[np.intp]:
    """Return the rows at which forecasts begin."""
    last = len(values) - series.horizon
    first = max(round((1 - PART) * len(values)), 2 * series.horizon)
    return np.unique(np.linspace(first, last, ORIGINS).astype(np.intp))


def errors(series: Series, forecast: Callable[[NDArray], NDArray]) -> float:
    """Return the mean absolute error over all origins and steps."""
    values = series.read()
    parts = []
    for origin in origins_of(series, values):
        actual = values[origin : origin + series.horizon]
        parts.append(np.abs(forecast(values[:origin]) - actual))
    return float(np.mean(parts))


def baselines(series: Series) -> dict[str, float]:
    """Return the error of each method of METHODS that fits the series."""
    results = {}
    for name, method in METHODS.items():
        if name == "seasonal naive" and series.period == 1:
            continue
        results[name] = errors(
            series, partial(method, horizon=series.horizon, period=series.period)
        )
    return results


def lstm(series: Series, seeds: int, settings: dict[str, Any]) -> list[float]:
    """Return the error of the forecaster with each seed."""

    def forecast(past: NDArray, seed: int) -> NDArray:
        model = LSTMForecaster(series.horizon, random_state=seed, **settings)
        return model.fit(past).forecast()

    return [errors(series, partial(forecast, seed=seed)) for seed in range(seeds)]


def coverage(series: Series, seeds: int, settings: dict[str, Any]) -> float:
    """Return the part of the values within the forecaster's interval of 80 %."""
    values, inside = series.read(), []
    for seed in range(seeds):
        for origin in origins_of(series, values):
            model = LSTMForecaster(
                series.horizon, random_state=seed, quantiles=(0.1, 0.5, 0.9), **settings
            ).fit(values[:origin])
            low, _, high = model.forecast_quantiles().T
            actual = values[origin : origin + series.horizon]
            inside.append((low <= actual) & (actual <= high))
    return float(np.mean(inside))


def row(series: Series, simple: dict[str, float], ours: list[float]) -> str:
    """Return a line of the table."""
    cells = [f"{simple[name]:.3g}" if name in simple else "-" for name in METHODS]
    own = f"{np.mean(ours):.3g} ± {np.std(ours):.1g}"
    return "| " + " | ".join([series.name, *cells, own]) + " |"


def main() -> None:
    """Print the table and who won."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--group", choices=GROUPS, default="reported")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--only", nargs="*", help="parts of names of series")
    parser.add_argument(
        "--set", type=json.loads, default={}, metavar="JSON", help="settings of LSTMForecaster"
    )
    parser.add_argument("--cache", type=Path, help="keep errors of the other methods in this file")
    parser.add_argument("--coverage", action="store_true", help="of intervals of 80 %% instead")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")  # statsmodels: of optimisers that did not converge
    cache = {}
    if arguments.cache and arguments.cache.exists():
        cache = json.loads(arguments.cache.read_text())
    chosen = [
        s
        for s in GROUPS[arguments.group]
        if not arguments.only or any(part in s.name for part in arguments.only)
    ]
    if arguments.coverage:
        parts = [coverage(series, arguments.seeds, arguments.set) for series in chosen]
        for series, part in zip(chosen, parts, strict=True):
            print(f"| {series.name} | {part:.0%} |")
        print(f"\nMean: {np.mean(parts):.1%}")
        return
    print("| " + " | ".join(["series", *METHODS, "LSTMForecaster"]) + " |")
    print("|---" * (len(METHODS) + 2) + "|")
    better, not_worse, seconds = 0, 0, 0.0
    for series in chosen:
        others = cache.get(series.name) or baselines(series)
        cache[series.name] = others
        began = time.perf_counter()
        ours = lstm(series, arguments.seeds, arguments.set)
        seconds += time.perf_counter() - began
        print(row(series, others, ours), flush=True)
        better += np.mean(ours) < min(others[name] for name in SIMPLE if name in others)
        not_worse += np.mean(ours) <= others["ETS"]
    n = len(chosen)
    print(f"\nBetter than the best of naive, drift, seasonal naive: {better} of {n}.")
    print(f"Not worse than ETS: {not_worse} of {n}. The forecaster took {seconds:.0f} s.")
    if arguments.cache:
        arguments.cache.write_text(json.dumps(cache, indent=1))


if __name__ == "__main__":
    main()
