"""The forecaster beyond the contract: its baseline, ensembles, quantiles, panels, pandas, files."""

import numpy as np
import pytest

pytest.importorskip("sklearn")

from sklearn.metrics import mean_pinball_loss
from sklearn.model_selection import GridSearchCV, TimeSeriesSplit

from fastlstm.estimators import LSTMClassifier, LSTMForecaster, LSTMRegressor
from fastlstm.estimators._baseline import Autoregression, Baseline
from fastlstm.estimators._ensemble import Ensemble, KnownLoss
from fastlstm.estimators._season import period_of
from fastlstm.estimators._smoothing import Holt, Level, Seasonal, Smoothing, Theta
from fastlstm.estimators._windows import Scale, Series, Windows
from fastlstm.training import quantile_loss

T = np.arange(240)
SEASON = np.sin(2 * np.pi * T / 12)


def quick(**settings):
    return LSTMForecaster(
        **({"horizon": 6, "hidden_size": 4, "max_iter": 3, "random_state": 0} | settings)
    )


def noisy(rng, n=240):
    return 50 + 0.1 * np.arange(n) + 3 * np.sin(2 * np.pi * np.arange(n) / 12) + rng.normal(size=n)


class TestBaseline:
    @pytest.mark.parametrize("period", [4, 7, 12, 52])
    def test_finds_the_season(self, rng, period):
        t = np.arange(8 * period + 30)
        season = rng.normal(size=period)[t % period]
        assert period_of(season + 0.1 * t + 0.1 * rng.normal(size=len(t))) == period

    def test_a_random_walk_has_no_season(self, rng):
        assert period_of(rng.normal(size=300).cumsum()) == 1

    def test_a_slow_drift_has_no_season(self, rng):
        """Its differences resemble their neighbours: there are bumps, and no peak."""
        drift = np.zeros(200)
        for t in range(1, 200):
            drift[t] = 0.95 * drift[t - 1] + rng.normal()
        assert period_of((drift + 2 * rng.normal(size=200)).cumsum()) == 1

    def test_a_year_of_weeks_in_noise(self, rng):
        t = np.arange(1000)
        y = 0.1 * t + 8 * np.sin(2 * np.pi * t / 52) + rng.normal(size=1000)
        assert abs(period_of(y) - 52) <= 1

    @pytest.mark.parametrize("n", [2, 3, 5, 9, 13, 20])
    def test_short_series(self, n):
        forecast = Baseline(np.full(n, 7.0), 3)(np.full((1, n), 7.0))
        np.testing.assert_allclose(forecast, 7)

    def test_line_and_season_go_on(self):
        y = 0.5 * T + 10 * SEASON
        forecast = Baseline(y[:-12], 12)(y[np.newaxis, :-12])[0]
        assert np.abs(forecast - y[-12:]).max() < 1

    def test_autoregression_finds_its_weights(self, rng):
        y = np.zeros(5000)
        for t in range(2, len(y)):
            y[t] = 1.2 * y[t - 1] - 0.5 * y[t - 2] + rng.normal()
        weights = Autoregression(y).weights
        np.testing.assert_allclose(weights[-2:], [-0.5, 1.2], atol=0.06)

    @pytest.mark.parametrize("kind", [Smoothing, Level, Theta, Holt])
    def test_smoothing_is_its_recursion(self, rng, kind):
        y = rng.normal(size=60).cumsum()
        model = kind(y)
        level, trend = y[0], (y[5] - y[0]) / 5
        drift = np.polyfit(np.arange(60), y, 1)[0] / 2 if kind is Theta else 0
        for value in y[1:]:
            error = value - level - model.damping * trend - drift
            level, trend = (
                level + model.damping * trend + drift + model.level * error,
                model.damping * trend + model.level * model.trend * error,
            )
        expected = level + trend * np.cumsum(model.damping ** np.arange(1, 4))
        expected += drift * np.arange(1, 4)
        np.testing.assert_allclose(model.forecast(y[np.newaxis], 3)[0], expected)

    def test_seasonal_smoothing_is_its_recursion(self, rng):
        y = 0.5 * T[:100] + np.resize(rng.normal(size=7), 100) + 0.3 * rng.normal(size=100)
        model = Seasonal(y, 7)
        means = y[:21].reshape(3, 7).mean(axis=1)
        trend = (means[2] - means[0]) / 14
        level = means[0] + 3 * trend
        season = (y[:21].reshape(3, 7) - trend * np.arange(21).reshape(3, 7)).mean(axis=0)
        season -= season.mean()
        for t in range(7, 100):
            error = y[t] - level - model.damping * trend - season[t % 7]
            level += model.damping * trend + model.level * error
            trend = model.damping * trend + model.level * model.trend * error
            season[t % 7] += model.season * error
        steps = np.arange(10)
        expected = (
            level + trend * np.cumsum(model.damping ** (1 + steps)) + season[(100 + steps) % 7]
        )
        np.testing.assert_allclose(model.forecast(y[np.newaxis], 10)[0], expected)

    def test_constants_are_the_best_of_the_grid(self, rng):
        """statsmodels finds hardly better ones."""
        smoothing = pytest.importorskip("statsmodels.tsa.holtwinters")
        y = (rng.normal(size=200) + 0.4 * np.arange(200)).cumsum()
        ours = Holt(y)
        fit = smoothing.ExponentialSmoothing(y, trend="add").fit()
        squared, _, _ = ours._run(y[np.newaxis])
        assert squared[0] < 1.1 * fit.sse


class TestQuantileLoss:
    def test_is_the_mean_pinball_loss_and_its_slope(self, rng, dtype):
        prediction = rng.normal(size=(9, 2, 3)).astype(dtype)
        target = rng.normal(size=(9, 2)).astype(dtype)
        q = [0.1, 0.5, 0.8]
        value, gradient = quantile_loss(prediction, target, q)
        each = [
            mean_pinball_loss(target.ravel(), prediction[..., k].ravel(), alpha=alpha)
            for k, alpha in enumerate(q)
        ]
        assert value == pytest.approx(np.mean(each), rel=1e-5)
        step = 1e-4
        direction = rng.normal(size=prediction.shape)
        up, down = (
            quantile_loss(prediction + s * step * direction, target.astype(np.float64), q)[0]
            for s in (1, -1)
        )
        assert (up - down) / (2 * step) == pytest.approx((gradient * direction).sum(), rel=1e-3)

    def test_mask(self, rng):
        prediction, target = rng.normal(size=(4, 1)), np.array([1.0, np.nan, 2.0, np.nan])
        value, gradient = quantile_loss(prediction, target, [0.3], mask=~np.isnan(target))
        assert value == quantile_loss(prediction[::2], target[::2], [0.3])[0]
        assert (gradient[1::2] == 0).all()

    @pytest.mark.parametrize("q", [[], [0.0], [0.5, 1.0], 0.5])
    def test_wrong_quantiles(self, q):
        with pytest.raises(ValueError, match="quantiles: expected"):
            quantile_loss(np.zeros((3, 1)), np.zeros(3), q)


class TestWindows:
    def test_a_window_shows_nothing_of_its_forecast(self, rng):
        y = noisy(rng)
        scale = Scale(y[:, np.newaxis], 6, 24, None, True)
        changed = y.copy()
        changed[100:106] = 1e6
        batches = [
            Windows(
                [Series(one[:, np.newaxis], np.empty((240, 0)))],
                [scale],
                [np.array([100])],
                24,
                6,
                np.array([], int),
            ).batch(np.array([0]))
            for one in (y, changed)
        ]
        np.testing.assert_array_equal(batches[0].x, batches[1].x)
        assert (batches[0].target != batches[1].target).all()

    def test_what_is_held_out_overlaps_with_nothing_learnt(self, rng):
        y = noisy(rng)[:, np.newaxis]
        origins = np.arange(30, 230)
        windows = Windows(
            [Series(y, np.empty((240, 0)))],
            [Scale(y, 6, 24, None, True)],
            [origins],
            24,
            6,
            np.array([], int),
        )
        learnt = origins[windows.apart(np.arange(50, 60))]
        rows = {row for origin in learnt for row in range(origin, origin + 6)}
        assert not rows & set(range(80, 95))
        assert len(learnt) == 200 - 10 - 2 * 5


class TestForecast:
    def test_untrusted_networks_leave_the_baseline(self, rng):
        y = rng.normal(size=150).cumsum()  # nothing to learn
        model = quick(max_iter=10).fit(y)
        assert model.share_.tolist() == [0]
        np.testing.assert_array_equal(model.forecast(), Baseline(y, 6)(y[np.newaxis, -48:])[0])

    def test_short_series_have_no_network(self):
        model = quick(horizon=3).fit(np.arange(12.0))
        assert model.n_iter_ == 0
        assert np.isfinite(model.forecast()).all()

    def test_gap_at_the_end_and_nothing_known(self):
        y = np.append(np.linspace(0, 99, 200), np.full(60, np.nan))
        model = quick(horizon=3, context=24).fit(y[:200])
        with pytest.warns(UserWarning, match="past: the last 24 rows have no known value"):
            forecast = model.forecast(past=y)
        assert np.abs(forecast - 99).max() < 15
        with pytest.raises(ValueError, match="expected a known value in every target"):
            model.forecast(past=np.full(60, np.nan))

    def test_errors_per_column(self, rng):
        y = np.stack([1e4 * noisy(rng), 1e-3 * noisy(rng)], axis=1)
        result = quick().backtest(y, n_origins=2)
        assert result.mae.shape == result.rmse.shape == (2,)
        assert result.mae[0] > 1e3 > 1 > result.mae[1]
        # and neither target drowns the other in the score
        model = quick().fit(y[:-12])
        scaled = model.score(y[-12:])
        assert scaled == pytest.approx(
            quick().fit(y[:-12] * [1e-4, 1e3]).score(y[-12:] * [1e-4, 1e3]), rel=0.05
        )

    def test_score_and_grid_search(self, rng):
        y = noisy(rng)
        model = quick().fit(y[:-6])
        step = np.abs(np.diff(y[:-6])).mean()
        expected = -np.abs(model.forecast() - y[-6:]).mean() / step
        assert model.score(y[-6:]) == pytest.approx(expected)
        search = GridSearchCV(quick(), {"hidden_size": [2, 4]}, cv=TimeSeriesSplit(3))
        assert search.fit(y[:, np.newaxis]).best_params_["hidden_size"] in (2, 4)
        assert np.isfinite(search.cv_results_["mean_test_score"]).all()

    def test_past_only_columns(self, rng):
        X = rng.normal(size=(240, 2))
        y = noisy(rng)
        model = quick(past_only=[1], early_stopping=False).fit(X, y)
        future = rng.normal(size=(6, 2))
        expected = model.forecast(future)
        future[:, 1] = np.nan
        np.testing.assert_array_equal(model.forecast(future), expected)
        everything = quick(past_only=[0, 1]).fit(X, y)
        assert everything.forecast().shape == (6,)
        with pytest.raises(ValueError, match="past_only: expected columns of X, got 2"):
            quick(past_only=[2]).fit(X, y)
        with pytest.raises(TypeError, match="past_only: expected a list"):
            quick(past_only="a").fit(X, y)

    def test_partial_fit(self, rng):
        y = noisy(rng)
        model = quick().partial_fit(y[:200])
        before = model._ensemble.members[0][0].layers.flat.copy()
        model.partial_fit(y)
        assert model.n_iter_ == 2
        assert (model._ensemble.members[0][0].layers.flat != before).any()

    def test_callback_and_schedule(self, rng):
        told = []
        model = quick(callback=told.append, n_estimators=2, learning_rate="constant")
        model.fit(noisy(rng))
        assert [(one.member, one.epoch) for one in told] == [
            (m, e) for m in (0, 1) for e in (1, 2, 3)
        ]
        assert {one.learning_rate for one in told} == {5e-3}
        assert quick(callback=lambda one: True).fit(noisy(rng)).n_iter_ == 1
        cosine = []
        quick(callback=cosine.append, n_estimators=1, learning_rate=0.1).fit(noisy(rng))
        np.testing.assert_allclose([one.learning_rate for one in cosine], [0.1, 0.075, 0.025])
        with pytest.raises(TypeError, match="callback: expected a callable, got int"):
            quick(callback=3).fit(noisy(rng))


class TestShare:
    """How far networks are trusted, by what they said of parts that they had not seen."""

    def learn(self, output, target):
        ensemble = object.__new__(Ensemble)
        ensemble.members, ensemble.loss = [None] * 4, KnownLoss(np.empty(0), np.zeros(1))
        ensemble._learn_share(output, target)
        return ensemble.share[0]

    def test_what_chance_gains_is_not_trusted(self, rng):
        shares = [
            self.learn(0.3 * rng.normal(size=(3, 80, 1)), rng.normal(size=(3, 80, 1)))
            for _ in range(200)
        ]
        assert np.mean(np.array(shares) > 0) < 0.05

    def test_what_is_right_by_half_is_trusted(self, rng):
        target = rng.normal(size=(3, 80, 1))
        noise = 0.2 * rng.normal(size=target.shape)
        assert self.learn(target + noise, target) > 0.8
        assert 0.3 < self.learn(2 * target + noise, target) < 0.7


class TestQuantiles:
    def test_coverage_of_noise(self, rng):
        y = rng.normal(size=600)
        model = quick(quantiles=(0.1, 0.5, 0.9), max_iter=5)
        result = model.backtest(y, n_origins=40)
        assert result.quantiles.shape == (40, 6, 3)
        np.testing.assert_allclose(result.coverage, [0.1, 0.5, 0.9], atol=0.1)
        assert (np.diff(result.quantiles) >= 0).all()
        np.testing.assert_array_equal(result.quantiles[..., 1], result.forecasts)

    @pytest.mark.parametrize("q", [(0.1, 0.9), (0.5, 1.0), (0.9, 0.5), 0.5, ()])
    def test_wrong_ones(self, q):
        with pytest.raises(ValueError, match="quantiles: expected"):
            quick(quantiles=q).fit(SEASON)

    def test_none_were_asked_for(self):
        with pytest.raises(ValueError, match="quantiles: expected some"):
            quick().fit(SEASON).forecast_quantiles()


class TestPanel:
    def test_names_lengths_and_units(self, rng):
        panel = {"a": noisy(rng), "b": 1e4 * noisy(rng, 100)}
        model = quick().fit(panel)
        forecasts = model.forecast()
        assert list(forecasts) == ["a", "b"]
        assert forecasts["b"].mean() > 1e5 > 100 > forecasts["a"].mean()
        np.testing.assert_array_equal(model.forecast(past={"b": panel["b"]})["b"], forecasts["b"])
        listed = quick().fit(list(panel.values())).forecast()
        np.testing.assert_array_equal(listed[1], forecasts["b"])
        assert np.isfinite(model.score({"a": panel["a"][:4] + 20}))

    def test_wrong_ones(self, rng):
        y = noisy(rng)
        model = quick().fit({"a": y})
        with pytest.raises(ValueError, match="past: expected series of fit"):
            model.forecast(past={"c": y})
        with pytest.raises(TypeError, match="X, y: expected two panels"):
            quick().fit({"a": y[:, np.newaxis]}, y)
        with pytest.raises(ValueError, match="y: expected the series of X"):
            quick().fit({"a": y[:, np.newaxis]}, {"b": y})
        with pytest.raises(ValueError, match="empty panel"):
            quick().fit({})
        with pytest.raises(TypeError, match="X: expected one series, got a panel"):
            quick().backtest({"a": y})


class TestPandas:
    @pytest.mark.parametrize(
        ("index", "first"),
        [
            ("pandas.date_range('2020-01-01', periods=240, freq='MS')", "2040-01-01"),
            ("pandas.period_range('2000Q1', periods=240, freq='Q')", "2060Q1"),
            ("pandas.RangeIndex(240)", "240"),
            ("pandas.RangeIndex(0, 480, 2)", "480"),
        ],
    )
    def test_index_and_name_go_on(self, rng, index, first):
        pandas = pytest.importorskip("pandas")
        y = pandas.Series(noisy(rng), eval(index), name="sales")
        model = quick(quantiles=(0.1, 0.5, 0.9)).fit(y)
        forecast = model.forecast()
        assert forecast.name == "sales"
        assert str(forecast.index[0]).startswith(first)
        assert len(forecast) == 6
        table = model.forecast_quantiles()
        assert list(table.columns) == [0.1, 0.5, 0.9]
        assert (table.index == forecast.index).all()

    def test_frames(self, rng):
        pandas = pytest.importorskip("pandas")
        Y = pandas.DataFrame({"a": noisy(rng), "b": noisy(rng)})
        X = pandas.DataFrame({"holiday": T % 7, "rain": rng.normal(size=240)})
        model = quick(past_only=["rain"], quantiles=[0.2, 0.5]).fit(X, Y)
        future = X[-6:].set_index(pandas.Index(list("uvwxyz")))
        forecast = model.forecast(future)
        assert list(forecast.columns) == ["a", "b"]
        assert list(forecast.index) == list("uvwxyz")
        assert model.forecast_quantiles(future).columns.tolist() == [
            ("a", 0.2),
            ("a", 0.5),
            ("b", 0.2),
            ("b", 0.5),
        ]


class TestFiles:
    @pytest.mark.parametrize("panel", [False, True])
    @pytest.mark.parametrize("settings", [{}, {"quantiles": (0.1, 0.5, 0.9), "cell": "gru"}])
    def test_forecaster(self, rng, tmp_path, settings, panel):
        pytest.importorskip("safetensors")
        from fastlstm import files

        y = noisy(rng)
        data = {"a": y, "b": y[:100]} if panel else y
        model = quick(early_stopping=False, **settings).fit(data)
        files.save(model, tmp_path / "model")
        loaded = files.load(tmp_path / "model")
        np.testing.assert_equal(loaded.forecast(), model.forecast())
        assert loaded.get_params() == model.get_params()
        assert loaded.loss_curve_ == model.loss_curve_
        assert loaded.partial_fit(data).n_iter_ == 4

    @pytest.mark.filterwarnings("ignore:.*learnt nothing")
    @pytest.mark.parametrize("cls", [LSTMClassifier, LSTMRegressor])
    def test_supervised(self, rng, tmp_path, cls):
        pytest.importorskip("safetensors")
        from fastlstm import files

        X, y = rng.normal(size=(40, 7)), rng.integers(0, 3, 40)
        model = cls(4, max_iter=3, bidirectional=True, random_state=0).fit(X, y)
        files.save(model, tmp_path / "model")
        loaded = files.load(tmp_path / "model")
        np.testing.assert_array_equal(loaded.predict(X), model.predict(X))
        assert loaded.partial_fit(X, y).n_iter_ == 4

    def test_what_cannot_be_saved(self, tmp_path):
        pytest.importorskip("safetensors")
        from fastlstm import files

        with pytest.raises(ValueError, match="expected a fitted LSTMForecaster"):
            files.save(quick(), tmp_path / "model")
        model = quick(random_state=np.random.RandomState(0)).fit(SEASON)
        with pytest.raises(TypeError, match="random_state of type RandomState"):
            files.save(model, tmp_path / "model")

    @pytest.mark.parametrize(
        "about",
        [
            {"estimator": "os.system", "state": {}},
            {"estimator": "LSTMForecaster", "state": None},
            {"estimator": "LSTMForecaster", "state": {"object": "Popen", "state": {}}},
            {"estimator": "LSTMForecaster", "state": {"dict": [["fit", 1]]}},
            {"estimator": "LSTMForecaster", "state": {"dict": []}},
            {"estimator": "LSTMForecaster", "state": {"dict": [["a", {"array": "none"}]]}},
        ],
    )
    def test_strange_files(self, tmp_path, about):
        pytest.importorskip("safetensors")
        import json

        from safetensors.numpy import save_file

        from fastlstm import files

        text = json.dumps({"version": 1} | about)
        save_file({"x": np.zeros(1)}, tmp_path / "strange", {"fastlstm": text})
        with pytest.raises(ValueError, match="strange"):
            files.load(tmp_path / "strange")
