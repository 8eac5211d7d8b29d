"""`LSTMForecaster`: the next steps of a series, all at once.

Decisions:
a) A forecast is that of a baseline (`_baseline`) plus what an ensemble of networks (`_ensemble`)
   has learnt that the baseline misses, as far as this was of use on parts of the past that they
   had not learnt from. Where a series is too short for a network the baseline stands alone.
b) A network passes once over a window (`_windows`); nothing is fed back. What is known of the
   future (exogenous columns) is simply shown at its own step.
c) A panel is many series: each has its own baselines and units, all share the networks.
"""

import warnings
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted

from fastlstm._args.numbers import check_size
from fastlstm.estimators._backtest import Backtest, backtest
from fastlstm.estimators._base import Columns, documented
from fastlstm.estimators._ensemble import Ensemble, KnownLoss
from fastlstm.estimators._frames import Labels, is_frame
from fastlstm.estimators._network import Callback
from fastlstm.estimators._panel import One, PanelReader
from fastlstm.estimators._windows import Scale, Series, Windows

WINDOWS_PER_EPOCH = 500  # about, if there is no `stride`
WINDOWS_PER_MEMBER = 6  # with fewer there is no network
LONGEST_CONTEXT = 120  # by default


@documented
class LSTMForecaster(PanelReader):
    """Forecasts the next steps of a series, with exogenous columns if there are any.

    Parameters
    ----------
    horizon : int
        Steps to forecast.
    context : int, optional
        Steps before a forecast that the network sees; less if this is more than half of the
        series that it learns from (`context_`). By default two seasons, at least 24 and at most
        120, and not more than a third of the series.
    hidden_size : int
        Hidden units per layer and direction.
    season_length : int, optional
        Steps after which a series repeats itself, 1 if it does not. By default it is found by
        autocorrelation.
    quantiles : sequence of float, optional
        Of the distribution of each value, 0.5 among them, for `forecast_quantiles`: an interval
        of 80 % lies between 0.1 and 0.9.
    past_only : sequence
        Columns of X, by name or number, that are not known ahead.
    n_estimators : int
        Networks whose mean is taken.
    stride : int, optional
        Rows from one training window to the next. By default 1, or more so that there are not
        many more than 500 windows: neighbours differ little.
    {AFTER_HIDDEN_SIZE}

    Attributes
    ----------
    context_ : int
        Steps before a forecast that the network sees.
    season_length_ : int
        Steps per season, 1 if there is none.
    share_ : (K,) array
        How much of what the networks say is added to the baseline, from 0, where it was of no use
        on the parts of the past that they had not learnt from, to 1.
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

    With `early_stopping` each network holds out its own part of the past; see `share_`. A single
    one holds out the last `validation_fraction` of the windows. Without it all learn from all
    windows for `max_iter` epochs, and are trusted.

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

    def __init__(
        self,
        horizon: int = 1,
        context: int | None = None,
        hidden_size: int = 16,
        *,
        season_length: int | None = None,
        quantiles: Any = None,
        past_only: Any = (),
        n_estimators: int = 4,
        stride: int | None = None,
        cell: str = "lstm",
        num_layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
        max_iter: int = 50,
        batch_size: int = 32,
        learning_rate: str | float = "cosine",
        learning_rate_init: float = 5e-3,
        weight_decay: float = 0.0,
        max_grad_norm: float | None = 1.0,
        early_stopping: bool = True,
        validation_fraction: float = 0.1,
        patience: int = 10,
        standardize: bool = True,
        compute_dtype: str | None = None,
        random_state: Any = None,
        verbose: bool = False,
        callback: Callback | None = None,
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
            learning_rate_init=learning_rate_init,
            weight_decay=weight_decay,
            max_grad_norm=max_grad_norm,
            early_stopping=early_stopping,
            validation_fraction=validation_fraction,
            patience=patience,
            standardize=standardize,
            compute_dtype=compute_dtype,
            random_state=random_state,
            verbose=verbose,
            callback=callback,
        )
        self.horizon = horizon
        self.context = context
        self.season_length = season_length
        self.quantiles = quantiles
        self.past_only = past_only
        self.n_estimators = n_estimators
        self.stride = stride

    def _prepare(self, X: Any, y: Any) -> tuple[list[Series], list[NDArray[np.intp]]]:
        """Learn scales and baselines; return standardised series, and the origins to learn from."""
        self._check_settings()
        horizon = check_size("horizon", self.horizon)
        stride = None if self.stride is None else check_size("stride", self.stride)
        if self.context is not None:
            check_size("context", self.context)
        if self.season_length is not None:
            check_size("season_length", self.season_length)
        check_size("n_estimators", self.n_estimators)
        self._check_quantiles()
        ones = self._read(X, y, reset=True)
        self._hidden = self._find_past_only()
        series = [one.series for one in ones.values()]
        lengths = np.array([len(one.targets) for one in series])
        if horizon >= lengths.min():
            raise ValueError(
                f"X: expected more than horizon={horizon} rows to learn from, got "
                f"n_samples = {lengths.min()}"
            )
        self._panel = None not in ones
        self._horizon = horizon
        self._columns = Columns(np.concatenate([one.exogenous for one in series]), self.standardize)
        context = min(self.context or LONGEST_CONTEXT, *lengths // 2)
        scales = [
            Scale(one.targets, horizon, context, self.season_length, self.standardize)
            for one in series
        ]
        self.season_length_ = max(b.period for scale in scales for b in scale.baselines)
        if self.context is None:
            context = max(24, 2 * self.season_length_)
            context = min(context, LONGEST_CONTEXT, *np.maximum(lengths // 3, 1))
        self.context_ = int(max(1, min(context, lengths.min() - horizon)))
        self._scales = dict(zip(ones, scales, strict=True))
        rows = max(self.context_, *(b.rows for scale in scales for b in scale.baselines))
        self._ends = {name: One(one.series.tail(rows), one.labels) for name, one in ones.items()}
        n = int(np.maximum(lengths - horizon - self.context_ + 1, 0).sum())
        if stride is None:
            stride = max(1, n // WINDOWS_PER_EPOCH)
        origins = [
            self._origins(one, scale, stride) for one, scale in zip(series, scales, strict=True)
        ]
        return [self._standardized(one) for one in series], origins

    def _origins(self, series: Series, scale: Scale, stride: int) -> NDArray[np.intp]:
        """Return where windows to learn from have their forecasts, in time order."""
        first = max(self.context_, *(2 * b.period + 1 for b in scale.baselines))
        # counted from the end, so that the newest window is one of them
        origins = np.arange(len(series.targets) - self._horizon, first - 1, -stride)[::-1]
        known = ~np.isnan(series.targets[origins - 1]).any(axis=1)
        return origins[known] if known.any() else origins

    def _check_quantiles(self) -> None:
        self._quantiles = np.empty(0)
        if self.quantiles is None:
            return
        q = np.asarray(self.quantiles, np.float64)
        if q.ndim != 1 or not q.size or not ((q > 0) & (q < 1)).all() or 0.5 not in q:
            raise ValueError(
                "quantiles: expected numbers within (0, 1) with 0.5 among them, which is the "
                f"forecast, got {self.quantiles!r}"
            )
        if (np.diff(q) <= 0).any():
            raise ValueError(f"quantiles: expected an ascending order, got {self.quantiles!r}")
        self._quantiles = q

    def _setup(self, series: list[Series]) -> Ensemble:
        """Return new members."""
        self._rng = self._new_rng()
        K, E = series[0].targets.shape[1], series[0].exogenous.shape[1]
        Q = max(1, len(self._quantiles))
        offsets = np.zeros(Q)
        if len(self._quantiles):
            errors = [scale.errors() for scale in self._scales.values()]
            offsets = np.quantile(np.concatenate(errors), self._quantiles)
        return Ensemble(
            KnownLoss(self._quantiles, offsets),
            lambda rng: self._new_network(2 * K + E, K * Q, self._horizon, rng),
            self.n_estimators,
            self._rng,
        )

    def _windows(
        self, names: Any, series: list[Series], origins: list[NDArray[np.intp]]
    ) -> Windows:
        scales = [self._scales[name] for name in names]
        return Windows(series, scales, origins, self.context_, self._horizon, self._hidden)

    def _remember(self, ensemble: Ensemble) -> None:
        self._ensemble = ensemble
        self.loss_curve_ = ensemble.mean_of(ensemble.losses)
        self.validation_loss_curve_ = ensemble.mean_of(ensemble.validation_losses)
        self.n_iter_ = len(self.loss_curve_)
        self.share_ = np.broadcast_to(ensemble.share, self._n_targets).copy()

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "_ensemble")

    def fit(self, X: Any, y: Any = None) -> Self:
        """Train new networks, on one series or on a panel.

        Parameters
        ----------
        X : array-like, or dict or list of them
            With y: (T, E), exogenous columns, which will be known for the steps to forecast
            (calendar, prices, a weather forecast), except for those of `past_only`. Without: the
            series itself, (T,) or (T, K). A dict, or a list of arrays, is a panel: its series
            may have different lengths, and one set of networks learns from all.
        y : (T,) or (T, K) array-like, or dict or list of them, optional
            The series to forecast. NaN where there is no value.

        Returns
        -------
        self
            Fitted.

        Raises
        ------
        ValueError, TypeError
            If the data or a parameter of the estimator is not what it should be.
        """
        series, origins = self._prepare(X, y)
        ensemble = self._setup(series)
        n = sum(len(each) for each in origins)
        if n >= WINDOWS_PER_MEMBER * (self.n_estimators + 1) or (n and not self.early_stopping):
            ensemble.fit(
                self._windows(self._scales, series, origins),
                self.validation_fraction if self.early_stopping else 0,
                self._training_options(),
                self._epoch_options(),
            )
        else:
            ensemble.share = 0.0
        self._remember(ensemble)
        return self

    def partial_fit(self, X: Any, y: Any = None) -> Self:
        """Make one more pass, over the windows of these series, at a constant learning rate.

        Nothing is held out. What `forecast` continues is from now on the end of these series.

        Parameters
        ----------
        X, y
            As of `fit`. The first call, or `fit`, decides on baselines, units and `context_`.

        Returns
        -------
        self
            Trained further.
        """
        if self.__sklearn_is_fitted__():
            self._check_settings()
            ensemble, ones = self._ensemble, self._read_known(X, y, "X")
            names = list(ones)
            series = [self._standardized(one.series) for one in ones.values()]
            origins = [
                self._origins(one.series, self._scales[name], self.stride or 1)
                for name, one in ones.items()
            ]
        else:
            series, origins = self._prepare(X, y)
            ensemble, ones, names = self._setup(series), {}, list(self._scales)
            ensemble.share = 1.0
        if not sum(len(each) for each in origins):
            raise ValueError(
                f"X: expected at least {self.context_ + self._horizon} rows, context_ + horizon"
            )
        ensemble.train_once_more(self._windows(names, series, origins), self._epoch_options())
        self._ends |= ones
        self._remember(ensemble)
        return self

    def _standardized(self, series: Series) -> Series:
        return series._replace(exogenous=self._columns.forward(series.exogenous))

    def _forecast(self, X: Any, past: Any) -> dict[Any, tuple[NDArray[Any], Labels | None]]:
        """Return the forecasts (horizon, K, outputs) of each series, and how it was labelled."""
        check_is_fitted(self)
        ones = self._read_past(past)
        future = self._future(X, list(ones))
        series = []
        for name, one in ones.items():
            recent = one.series.targets[-self.context_ :]
            if np.isnan(recent).all(axis=0).any():
                warnings.warn(
                    f"past: the last {self.context_} rows have no known value; the forecast starts "
                    "from the last that is known",
                    stacklevel=3,
                )
            unknown = np.full((self._horizon, self._n_targets), np.nan)
            series.append(self._standardized(one.series.append(unknown, future[name])))
        origins = [np.array([len(one.series.targets)]) for one in ones.values()]
        windows = self._windows(ones, series, origins)
        result = windows.absolute(self._ensemble(windows))
        return {name: (result[:, k], one.labels) for k, (name, one) in enumerate(ones.items())}

    def _labelled(self, X: Any, forecasts: dict[Any, Any], quantiles: NDArray[Any]) -> Any:
        """Return forecasts as the series were given."""
        results = {}
        for name, (values, labels) in forecasts.items():
            if not len(quantiles):
                middle = np.flatnonzero(self._quantiles == 0.5)
                values = values[..., middle[0] if len(middle) else 0]
            if self._one_target:
                values = values[:, 0]
            results[name] = values
            if labels is not None:
                known = X[name] if self._panel and X is not None else X
                index = known.index if known is not None and is_frame(known) else None
                results[name] = labels.frame(values, quantiles, index)
        if not self._panel:
            return results[None]
        return list(results.values()) if all(isinstance(n, int) for n in results) else results

    def forecast(self, X: Any = None, *, past: Any = None) -> Any:
        """Return the next `horizon` values; with `quantiles` that of 0.5.

        Parameters
        ----------
        X : (horizon, E) array-like, or dict or list of them
            The exogenous columns of the steps to forecast. Only if there were any in `fit`; what
            stands in columns of `past_only` is not looked at.
        past : the series, or a pair (X, y), optional
            What came before these steps, as given to `fit`; at least `context_` rows. By default
            the series of `fit`.

        Returns
        -------
        (horizon,) array, or (horizon, K)
            As the series was: a Series or DataFrame of pandas, with the index that follows, if it
            was one; a dict or list of them for a panel.

        Warns
        -----
        UserWarning
            If a target has no known value in the last `context_` rows.
        """
        forecasts = self._forecast(X, past)
        return self._labelled(X, forecasts, np.empty(0))

    def forecast_quantiles(self, X: Any = None, *, past: Any = None) -> Any:
        """Return each of `quantiles` of the next `horizon` values.

        Parameters
        ----------
        X, past
            As of `forecast`.

        Returns
        -------
        (horizon, Q) array, or (horizon, K, Q)
            Ascending along the last axis. Of pandas a DataFrame with a column for each, or for
            each target and quantile.
        """
        check_is_fitted(self)
        if not len(self._quantiles):
            raise ValueError("quantiles: expected some in the estimator, e.g. (0.1, 0.5, 0.9)")
        return self._labelled(X, self._forecast(X, past), self._quantiles)

    def score(self, X: Any, y: Any = None) -> float:
        """Return minus the mean absolute scaled error of forecasts of the rows that follow.

        The rows are forecast `horizon` by `horizon`, each time from all that comes before. Errors
        are in units of each target's mean absolute step in `fit` (Hyndman and Koehler 2006,
        doi:10.1016/j.ijforecast.2006.03.001), so that targets of any size count alike. With
        `GridSearchCV` use ``cv=TimeSeriesSplit()``, whose test rows follow those learnt from.

        Parameters
        ----------
        X, y
            As of `fit`: the rows that follow immediately.

        Returns
        -------
        float
            The better, the larger.
        """
        check_is_fitted(self)
        scores = []
        for name, one in self._read_known(X, y, "X").items():
            end = self._ends[name].series
            whole = end.append(*one.series)
            T, new = len(whole.targets), len(one.series.targets)
            origins = np.arange(T - new, T, self._horizon)
            beyond = np.full((self._horizon, self._n_targets), np.nan)
            padded = Series(
                np.concatenate([whole.targets, beyond]),
                np.concatenate(
                    [whole.exogenous, np.zeros((self._horizon, end.exogenous.shape[1]))]
                ),
            )
            windows = self._windows([name], [self._standardized(padded)], [origins])
            middle = int(np.argmax(self._quantiles == 0.5)) if len(self._quantiles) else 0
            forecast = windows.absolute(self._ensemble(windows))[..., middle]
            actual = padded.targets[origins + np.arange(self._horizon)[:, np.newaxis]]
            scale = np.maximum(self._scales[name].naive, np.finfo(float).tiny)
            scores.append(np.nanmean(np.abs(forecast - actual) / scale))
        return -float(np.mean(scores))

    def backtest(
        self, X: Any, y: Any = None, *, n_origins: int = 5, refit: bool = False
    ) -> Backtest:
        """Forecast the last ``n_origins * horizon`` rows as if they were not known yet.

        They are split into `n_origins` parts. A copy of this estimator learns from what comes
        before the first of them, and forecasts each from all that comes before that.

        Parameters
        ----------
        X, y
            As of `fit`; one series, no panel.
        n_origins : int
            How many forecasts.
        refit : bool
            Train again for each part, on all that comes before it.

        Returns
        -------
        Backtest
            The forecasts, what came, and their errors.
        """
        return backtest(self, X, y, n_origins, refit)
