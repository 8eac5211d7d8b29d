"""Series of pandas: what their forecasts are called, and where in time they stand.

pandas is not imported unless it was given.
"""

from typing import Any

from numpy.typing import NDArray


def is_frame(y: Any) -> bool:
    """Whether y is a Series or DataFrame of pandas."""
    return type(y).__module__.partition(".")[0] == "pandas" and hasattr(y, "iloc")


def index_after(index: Any, steps: int) -> Any:
    """Return the index of the steps that follow.

    Dates go on at their frequency; if they have none, and for other labels, counting begins at 0.
    Integers go on by the step between the last two.
    """
    import pandas as pd

    if isinstance(index, pd.PeriodIndex):
        return pd.period_range(index[-1] + 1, periods=steps, freq=index.freq, name=index.name)
    if isinstance(index, pd.DatetimeIndex):
        frequency = index.freq or (pd.infer_freq(index) if len(index) > 2 else None)
        if frequency is not None:
            later = pd.date_range(index[-1], periods=steps + 1, freq=frequency, name=index.name)
            return later[later > index[-1]][:steps]
    if isinstance(index, pd.Index) and index.dtype.kind in "iu" and len(index):
        step = int(index[-1] - index[-2]) if len(index) > 1 else 1
        first = int(index[-1]) + step
        return pd.RangeIndex(first, first + step * steps, step or 1, name=index.name)
    return pd.RangeIndex(steps)


class Labels:
    """Names and index of a series (T,) or (T, K)."""

    def __init__(self, y: Any) -> None:
        self.index = y.index
        self.names = list(y.columns) if y.ndim == 2 else [y.name]
        self.one = y.ndim == 1

    def frame(self, values: NDArray[Any], quantiles: NDArray[Any], index: Any = None) -> Any:
        """Return (horizon,), (horizon, K) or, with quantiles, (..., Q) forecasts."""
        import pandas as pd

        if index is None:
            index = index_after(self.index, len(values))
        if not len(quantiles):
            if self.one:
                return pd.Series(values, index, name=self.names[0])
            return pd.DataFrame(values, index, self.names)
        if self.one:
            return pd.DataFrame(values, index, pd.Index(quantiles, name="quantile"))
        columns = pd.MultiIndex.from_product([self.names, quantiles], names=[None, "quantile"])
        return pd.DataFrame(values.reshape(len(values), -1), index, columns)
