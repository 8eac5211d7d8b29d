"""What a forecaster is given: one series or a panel of them, with exogenous columns, checked.

Decisions:
a) A panel is a dict, or a list or tuple of arrays or frames. A list of numbers, or of lists, is one
   series.
b) One series is handled as a panel of one, whose name is None.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import check_array, check_consistent_length
from sklearn.utils.validation import validate_data

from fastlstm._args.arrays import refuse_mask
from fastlstm.estimators._base import Recurrent
from fastlstm.estimators._frames import Labels, is_frame
from fastlstm.estimators._windows import Scale, Series


class One(NamedTuple):
    """One series as it was given: what the user will get back looks like it."""

    series: Series
    labels: Labels | None


def is_panel(X: Any) -> bool:
    """Whether X is many series: a dict, or a list of arrays or frames."""
    if isinstance(X, Mapping):
        return not hasattr(X, "ndim")  # a kind of sparse matrix is a dict
    return isinstance(X, list | tuple) and any(getattr(one, "ndim", 0) for one in X)


class PanelReader(Recurrent):
    """Reads series, of `fit` or of what came later."""

    past_only: Any
    context_: int
    n_features_in_: int
    _exogenous: bool
    _one_target: bool
    _n_targets: int
    _panel: bool
    _horizon: int
    _hidden: NDArray[np.intp]  # columns of `past_only`
    _scales: dict[Any, Scale]
    _ends: dict[Any, One]

    def _read_targets(self, y: Any) -> NDArray[Any]:
        targets: NDArray[Any] = check_array(
            y, dtype=np.float64, ensure_2d=False, ensure_all_finite="allow-nan", input_name="y"
        )
        return targets.reshape(len(targets), -1)

    def _read_one(self, X: Any, y: Any, reset: bool) -> One:
        """Return one series; learn of what it consists if `reset`."""
        refuse_mask("X", X)
        refuse_mask("y", y)
        exogenous = y is not None
        given = y if exogenous else X
        targets = self._read_targets(given)
        if exogenous:
            columns = validate_data(self, X, reset=reset, dtype=np.float64)
            check_consistent_length(columns, targets)
        else:
            columns = np.empty((len(targets), 0))
            named = X if getattr(X, "ndim", 1) == 2 else targets
            validate_data(self, named, reset=reset, skip_check_array=True)
        if reset:
            self._exogenous = exogenous
            self._one_target = np.ndim(given) == 1
            self._n_targets = targets.shape[1]
        elif targets.shape[1] != self._n_targets:
            raise ValueError(
                f"y: expected {self._n_targets} targets as in fit, got {targets.shape[1]}"
            )
        unknown = np.flatnonzero(np.isnan(targets).all(axis=0))
        if unknown.size:
            raise ValueError(
                f"{'y' if exogenous else 'X'}: expected a known value in every target, got only "
                f"NaN in column {unknown[0]}"
            )
        return One(Series(targets, columns), Labels(given) if is_frame(given) else None)

    def _read(self, X: Any, y: Any, reset: bool) -> dict[Any, One]:
        """Return the series by their names; one that is no panel has the name None."""
        panel = is_panel(X)
        if y is not None and is_panel(y) != panel:
            raise TypeError("X, y: expected two panels or two series, got one of each")
        if not panel:
            return {None: self._read_one(X, y, reset)}
        names = list(X) if isinstance(X, Mapping) else list(range(len(X)))
        if not names:
            raise ValueError("X: expected at least one series, got an empty panel")
        if y is not None and (list(y) if isinstance(y, Mapping) else list(range(len(y)))) != names:
            raise ValueError("y: expected the series of X, by the same names in the same order")
        ones = {}
        for name in names:
            ones[name] = self._read_one(X[name], None if y is None else y[name], reset)
            reset = False
        return ones

    def _read_known(self, X: Any, y: Any, name: str) -> dict[Any, One]:
        """Return series that `fit` knows by their names."""
        ones = self._read(X, y, reset=False)
        if (y is not None) != self._exogenous:
            raise ValueError(f"y: expected {'it, as in fit' if self._exogenous else 'none'}")
        unknown = [each for each in ones if each not in self._scales]
        if unknown:
            raise ValueError(f"{name}: expected series of fit, {list(self._scales)}, got {unknown}")
        return ones

    def _read_past(self, past: Any) -> dict[Any, One]:
        if past is None:
            return self._ends
        if self._exogenous and not (isinstance(past, tuple) and len(past) == 2):
            raise TypeError("past: expected a pair (X, y), because fit had both")
        past_X, past_y = past if self._exogenous else (past, None)
        ones = self._read_known(past_X, past_y, "past")
        for one in ones.values():
            if len(one.series.targets) < self.context_:
                raise ValueError(
                    f"past: expected at least {self.context_} rows, got {len(one.series.targets)}"
                )
        return ones

    def _future(self, X: Any, names: list[Any]) -> dict[Any, NDArray[Any]]:
        """Return the exogenous columns of the steps to forecast, by the names of series."""
        horizon, E = self._horizon, self.n_features_in_ if self._exogenous else 0
        if X is None and len(self._hidden) == E:
            return {name: np.zeros((horizon, E)) for name in names}
        if X is None or not E:
            raise ValueError(f"X: expected {f'(horizon, {E})' if E else 'none, as in fit'}")
        given: dict[Any, Any] = {None: X}
        if self._panel:
            if not is_panel(X):
                raise TypeError("X: expected a panel, as in fit")
            given = dict(X) if isinstance(X, Mapping) else dict(enumerate(X))
            if missing := [name for name in names if name not in given]:
                raise ValueError(f"X: expected the series {missing} too")
        future = {}
        for name in names:
            rows = validate_data(
                self,
                given[name],
                reset=False,
                dtype=np.float64,
                ensure_all_finite="allow-nan" if len(self._hidden) else True,
            )
            if len(rows) != horizon:
                raise ValueError(f"X: expected {horizon} rows, the horizon, got {len(rows)}")
            rows = rows.copy()
            rows[:, self._hidden] = 0
            if np.isnan(rows).any():
                raise ValueError("X: expected no NaN in columns that are known ahead")
            future[name] = rows
        return future

    def _find_past_only(self) -> NDArray[np.intp]:
        """Return the numbers of the columns of X that are not known ahead."""
        if isinstance(self.past_only, str) or not hasattr(self.past_only, "__iter__"):
            raise TypeError(
                f"past_only: expected a list of columns, got {type(self.past_only).__name__}"
            )
        names = list(getattr(self, "feature_names_in_", []))
        E = self.n_features_in_ if self._exogenous else 0
        found = []
        for column in self.past_only:
            number = names.index(column) if column in names else column
            if isinstance(number, str) or not 0 <= number < E:
                raise ValueError(f"past_only: expected columns of X, got {column!r}")
            found.append(int(number))
        return np.array(found, np.intp)
