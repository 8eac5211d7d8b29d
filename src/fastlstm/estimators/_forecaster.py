"""`LSTMForecaster`: the next steps of a series, all at once.

Decisions:
a) One pass over a window of `context` steps and the `horizon` steps that follow. In the second
   part the targets are hidden, and what the network puts out there is the forecast: nothing is
   fed back. What is known of the future (exogenous columns) is simply shown at its own step.
b) A step shows, of each target, its deviation from the level (the mean of the targets of this
   window's context), so that a trend does not leave the range that was learnt; whether it is
   known; and the exogenous columns.
c) A gap in the targets (NaN) is shown as "not known" and left out of the loss.
d) Windows are gathered from the series when needed: memory does not grow with their number.
"""

from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import clone  # type: ignore[import-untyped]
from sklearn.utils import check_array, check_consistent_length  # type: ignore[import-untyped]
from sklearn.utils.validation import check_is_fitted, validate_data  # type: ignore[import-untyped]

from fastlstm._args.numbers import check_size
from fastlstm.estimators._base import Columns, Recurrent, documented
from fastlstm.estimators._network import Batch, predict
from fastlstm.training import mse_loss


class Backtest(NamedTuple):
    """Forecasts of what was known to the user but not to the model.

    Attributes
    ----------
    origins : (n,) array of int
        The first row of each forecast.
    forecasts, actual : (n, horizon) or (n, horizon, K) arrays
    """

    origins: NDArray[np.intp]
    forecasts: NDArray[np.float64]
    actual: NDArray[np.float64]

    @property
    def mae(self) -> float:
        """Mean absolute error; gaps do not count."""
        return float(np.nanmean(np.abs(self.forecasts - self.actual)))

    @property
    def rmse(self) -> float:
        """Root of the mean squared error; gaps do not count."""
        return float(np.sqrt(np.nanmean(np.square(self.forecasts - self.actual))))


class Series(NamedTuple):
    """Rows in time order."""

    targets: NDArray  # (T, K), NaN where not known
    exogenous: NDArray  # (T, E)


class Windows:
    """The windows of a standardised series whose forecasts begin at `origins`."""

    def __init__(
        self, series: Series, context: int, horizon: int, origins: NDArray[np.intp]
    ) -> None:
        self.series = series
        self.origins = origins
        self.context = context
        self.offsets = np.arange(-context, horizon)[:, np.newaxis]

    def __len__(self) -> int:
        return len(self.origins)

    def level(self, which: NDArray[np.intp]) -> NDArray:
        """Return the mean of the known targets of the context, (B, K); 0 if there are none."""
        context = self.series.targets[self.origins[which] + self.offsets[: self.context]]
        known = ~np.isnan(context)
        return context.sum(axis=0, where=known) / np.maximum(known.sum(axis=0), 1)

    def batch(self, which: NDArray[np.intp]) -> Batch:
        """Return some of them; the target is the deviation from the level."""
        rows = self.origins[which] + self.offsets
        deviation = self.series.targets[rows] - self.level(which)
        target = deviation[self.context :].copy()
        deviation[self.context :] = np.nan  # what is to be forecast is not shown
        known = ~np.isnan(deviation)
        deviation[~known] = 0
        x = np.concatenate([deviation, known, self.series.exogenous[rows]], axis=-1)
        return Batch(x.astype(np.float32), None, target.astype(np.float32))


def loss_of_known(prediction: NDArray, target: NDArray) -> tuple[float, NDArray]:
    """Return the mean squared error where the target is not NaN, and its gradient."""
    known = ~np.isnan(target)
    if not known.any():
        return 0.0, np.zeros_like(prediction)
    return mse_loss(prediction, target, mask=known)


@documented
class LSTMForecaster(Recurrent):
    """Forecasts the next steps of a series, with exogenous columns if there are any.

    Parameters
    ----------
    horizon : int
        Steps to forecast.
    context : int
        Steps before a forecast that the network sees; less if this is more than half of the
        series that it learns from (`context_`).
    stride : int
        Rows from one training window to the next. Neighbours differ little: a stride of some
        rows makes an epoch shorter, and costs little accuracy.
    {PARAMETERS}

    Attributes
    ----------
    context_ : int
        Steps before a forecast that the network sees.
    n_features_in_ : int
        Columns of X.
    feature_names_in_ : array
        Their names, if X was a data frame.
    {HISTORY}

    Notes
    -----
    This is a scikit-learn estimator (parameters, cloning, pickling, validation of input), but the
    method is called `forecast` and there is no ``predict``: that would answer row by row, whatever
    the order of the rows, while here rows are steps in time and each depends on those before.

    Held out by `early_stopping` is the end of the series: no training window reaches into it
    with its forecast.

    Examples
    --------
    >>> import numpy as np
    >>> from fastlstm.estimators import LSTMForecaster
    >>> t = np.arange(400)
    >>> series = 0.01 * t + np.sin(2 * np.pi * t / 12)
    >>> model = LSTMForecaster(12, 36, 32, max_iter=30, random_state=0).fit(series[:-12])
    >>> bool(np.abs(model.forecast() - series[-12:]).max() < 0.3)
    True

    A target with two columns that are known ahead of time:

    >>> known = np.stack([t % 12, t % 7 == 0], axis=1)
    >>> model = LSTMForecaster(12, 36, 32, max_iter=2, random_state=0)
    >>> model.fit(known[:-12], series[:-12]).forecast(known[-12:]).shape
    (12,)
    >>> model.backtest(known, series, n_origins=3).forecasts.shape
    (3, 12)
    """

    _exogenous: bool

    def __init__(
        self,
        horizon: int = 1,
        context: int = 100,
        hidden_size: int = 64,
        *,
        stride: int = 1,
        cell: str = "lstm",
        num_layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
        max_iter: int = 100,
        batch_size: int = 32,
        learning_rate: float = 5e-3,
        weight_decay: float = 0.0,
        max_grad_norm: float | None = 1.0,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        patience: int = 10,
        standardize: bool = True,
        compute_dtype: str | None = None,
        random_state: Any = None,
        verbose: bool = False,
    ) -> None:
        super().__init__(
            hidden_size,
            cell=cell,
            num_layers=num_layers,
            bidirectional=bidirectional,
            dropout=dropout,
            max_iter=max_iter,
            batch_size=batch_size,
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            max_grad_norm=max_grad_norm,
            early_stopping=early_stopping,
            validation_fraction=validation_fraction,
            patience=patience,
            standardize=standardize,
            compute_dtype=compute_dtype,
            random_state=random_state,
            verbose=verbose,
        )
        self.horizon = horizon
        self.context = context
        self.stride = stride

    def _read_targets(self, y: Any) -> NDArray:
        y = check_array(
            y, dtype=np.float64, ensure_2d=False, ensure_all_finite="allow-nan", input_name="y"
        )
        return y.reshape(len(y), -1)

    def _read(self, X: Any, y: Any, reset: bool) -> Series:
        """Return the series; learn of what it consists if `reset`."""
        exogenous = y is not None
        if exogenous:
            targets = self._read_targets(y)
            columns = validate_data(self, X, reset=reset, dtype=np.float64)
            check_consistent_length(columns, targets)
        else:
            targets = self._read_targets(X)
            columns = np.empty((len(targets), 0))
            named = X if getattr(X, "ndim", 1) == 2 else targets
            validate_data(self, named, reset=reset, skip_check_array=True)
        if reset:
            self._exogenous = exogenous
            self._one_target = np.ndim(y if exogenous else X) == 1
        return Series(targets, columns)

    def fit(self, X: Any, y: ArrayLike | None = None) -> Self:
        """Train a new network on one series.

        Parameters
        ----------
        X : array-like
            With y: (T, E), exogenous columns, which will be known for the steps to forecast
            (calendar, prices, a weather forecast). Without: the series itself, (T,) or (T, K).
        y : (T,) or (T, K) array-like, optional
            The series to forecast. NaN where there is no value.

        Returns
        -------
        self

        Raises
        ------
        ValueError, TypeError
            If the data or a parameter of the estimator is not what it should be.
        """
        self._check_settings()
        horizon = check_size("horizon", self.horizon)
        context = check_size("context", self.context)
        stride = check_size("stride", self.stride)
        series = self._read(X, y, reset=True)
        T, K = series.targets.shape
        if horizon >= T:
            raise ValueError(
                f"X: expected more than horizon={horizon} rows to learn from, got n_samples = {T}"
            )
        self.context_ = min(context, max(1, T // 2), T - horizon)
        # counted from the end, so that the newest window is one of them
        origins = np.arange(T - horizon, self.context_ - 1, -stride)[::-1]
        held_out, learnt = None, T
        if self.early_stopping:
            n = max(1, round(self.validation_fraction * len(origins)))
            held_out = origins[-n:]
            learnt = int(held_out[0])
            origins = origins[origins + horizon <= learnt]
            if not origins.size:
                raise ValueError(
                    "early_stopping: expected more rows, none are left to learn from with "
                    f"context={self.context_}, horizon={horizon} and {n} windows held out"
                )
        self._rng = self._new_rng()
        self._targets = Columns(series.targets[:learnt], self.standardize)
        self._columns = Columns(series.exogenous[:learnt], self.standardize)
        self._end = Series(*(part[-self.context_ :] for part in series))
        series = self._standardized(series)
        self._start(2 * K + series.exogenous.shape[1], K, steps=horizon)
        self._train(
            Windows(series, self.context_, horizon, origins),
            loss_of_known,
            None if held_out is None else Windows(series, self.context_, horizon, held_out),
        )
        return self

    def _standardized(self, series: Series) -> Series:
        return Series(
            self._targets.forward(series.targets), self._columns.forward(series.exogenous)
        )

    def forecast(self, X: Any = None, *, past: Any = None) -> NDArray[np.float64]:
        """Return the next `horizon` values.

        Parameters
        ----------
        X : (horizon, E) array-like
            The exogenous columns of the steps to forecast. Only if there were any in `fit`.
        past : the series, or a pair (X, y), optional
            What came before these steps, as given to `fit`; at least `context_` rows. By default
            the series of `fit`.

        Returns
        -------
        (horizon,) array, or (horizon, K)
            As the series was.
        """
        check_is_fitted(self)
        end = self._end
        if past is not None:
            if self._exogenous and not (isinstance(past, tuple) and len(past) == 2):
                raise TypeError("past: expected a pair (X, y), because fit had both")
            past_X, past_y = past if self._exogenous else (past, None)
            end = self._read(past_X, past_y, reset=False)
            if len(end.targets) < self.context_:
                raise ValueError(
                    f"past: expected at least {self.context_} rows, got {len(end.targets)}"
                )
        horizon, E = self._network.steps, end.exogenous.shape[1]
        if (X is None) != (E == 0):
            raise ValueError(f"X: expected {f'(horizon, {E})' if E else 'none, as in fit'}")
        future = np.empty((horizon, 0))
        if X is not None:
            future = validate_data(self, X, reset=False, dtype=np.float64)
        if len(future) != horizon:
            raise ValueError(f"X: expected {horizon} rows, the horizon, got {len(future)}")
        unknown = np.full((horizon, end.targets.shape[1]), np.nan)
        series = self._standardized(
            Series(np.concatenate([end.targets, unknown]), np.concatenate([end.exogenous, future]))
        )
        windows = Windows(series, self.context_, horizon, np.array([len(end.targets)]))
        standardized = predict(self._network, windows)[:, 0] + windows.level(np.array([0]))
        y = self._targets.backward(standardized)
        return y[:, 0] if self._one_target else y

    def backtest(
        self, X: Any, y: Any = None, *, n_origins: int = 5, refit: bool = False
    ) -> Backtest:
        """Forecast the last ``n_origins * horizon`` rows as if they were not known yet.

        They are split into `n_origins` parts. A copy of this estimator learns from what comes
        before the first of them, and forecasts each from all that comes before that.

        Parameters
        ----------
        X, y
            As of `fit`.
        n_origins : int
            How many forecasts.
        refit : bool
            Train again for each part, on all that comes before it.

        Returns
        -------
        Backtest
        """
        n_origins = check_size("n_origins", n_origins)
        actual = np.asarray(X if y is None else y, np.float64)
        origins = len(actual) - self.horizon * np.arange(n_origins, 0, -1)
        if origins[0] < 2:
            raise ValueError(
                f"X: expected more than {n_origins} * {self.horizon} rows, n_origins * horizon, "
                f"got {len(actual)}"
            )
        model, forecasts = None, []
        for origin in origins:
            past = X[:origin] if y is None else (X[:origin], y[:origin])
            if model is None or refit:
                model = clone(self).fit(*(past if y is not None else (past,)))
            future = None if y is None else X[origin : origin + self.horizon]
            forecasts.append(model.forecast(future, past=past))
        parts = [actual[origin : origin + self.horizon] for origin in origins]
        return Backtest(origins, np.stack(forecasts), np.stack(parts))
