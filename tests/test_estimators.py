"""The scikit-learn estimators: their contract, the forms of X, training, and forecasts."""

import math
import pickle
import subprocess
import sys
import warnings

import numpy as np
import pytest

pytest.importorskip("sklearn")

from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.utils.estimator_checks import parametrize_with_checks

from fastlstm.estimators import LSTMClassifier, LSTMForecaster, LSTMRegressor
from fastlstm.estimators._base import Columns
from fastlstm.estimators._network import Batch, Network, evaluate, train
from fastlstm.estimators._sequences import Sequences
from fastlstm.estimators._supervised import Labelled
from fastlstm.layers import CELLS
from fastlstm.training import Adam, mse_loss

# most fits here have three epochs
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


@parametrize_with_checks(
    [LSTMClassifier(), LSTMRegressor(), LSTMForecaster(), LSTMClassifier(cell="gru")]
)
def test_scikit_learn_contract(estimator, check):
    check(estimator)


def quick(cls, **settings):
    return cls(**({"hidden_size": 8, "max_iter": 3, "random_state": 0} | settings))


def ragged(rng, n=40, I=2):
    """Sequences of 3 to 12 steps, and whether the first column's mean is positive."""
    X = [rng.standard_normal((T, I)) + rng.choice([-1, 1]) for T in rng.integers(3, 13, n)]
    return X, np.array([x[:, 0].mean() > 0 for x in X])


class TestNetwork:
    @pytest.mark.parametrize("cell", CELLS)
    @pytest.mark.parametrize("steps", [0, 2])
    @pytest.mark.parametrize("options", [{}, {"bidirectional": True, "num_layers": 2}])
    def test_gradients_match_differences(self, rng, cell, steps, options):
        network = Network(cell, 3, 2, steps=steps, dropout=0.0, rng=rng, hidden_size=4, **options)
        lengths = None if steps else np.array([5, 1, 3])
        x = rng.standard_normal((5, 3, 3), dtype=np.float32)
        target = rng.standard_normal((steps, 3, 2) if steps else (3, 2), dtype=np.float32)
        batch = Batch(x, lengths, target)
        _, gradients = network.gradients(batch, mse_loss)

        def loss():
            return float(np.square(network(batch) - target).mean())

        for module, gradient in zip(network.modules, gradients, strict=True):
            direction = rng.standard_normal(module.flat.size, dtype=np.float32)
            kept, step = module.flat.copy(), 1e-2
            losses = []
            for sign in (1, -1):
                module.flat[...] = kept + sign * step * direction
                losses.append(loss())
            module.flat[...] = kept
            slope = (losses[0] - losses[1]) / (2 * step)
            # float32, and a third derivative times step^2
            assert slope == pytest.approx(float(gradient.flat @ direction), rel=2e-2, abs=1e-3)

    @pytest.mark.parametrize("cell", ["gates", "LSTM", None, ["lstm"]])
    def test_unknown_cell(self, rng, cell):
        with pytest.raises(ValueError, match="cell: expected one of lstm, gru, rnn, got"):
            Network(cell, 1, 1, dropout=0.0, rng=rng)


class TestFormsOfX:
    def test_table_is_univariate_sequences(self, rng):
        X, y = rng.standard_normal((30, 7)), rng.integers(0, 2, 30)
        table = quick(LSTMClassifier).fit(X, y)
        array = quick(LSTMClassifier).fit(X[:, :, np.newaxis], y)
        listed = quick(LSTMClassifier).fit(list(X), y)
        expected = table.predict_proba(X)
        for model in (table, array, listed):
            for form in (X, X[:, :, np.newaxis], list(X), [list(x) for x in X]):
                np.testing.assert_array_equal(model.predict_proba(form), expected)
        assert table.n_features_in_ == 7
        assert array.n_features_in_ == listed.n_features_in_ == 1

    def test_list_of_equal_lengths_is_a_3d_array(self, rng):
        X, y = rng.standard_normal((20, 5, 3)), rng.standard_normal(20)
        expected = quick(LSTMRegressor).fit(X, y).predict(X)
        np.testing.assert_array_equal(quick(LSTMRegressor).fit(list(X), y).predict(X), expected)
        objects = np.empty(20, object)
        objects[:] = list(X)
        np.testing.assert_array_equal(quick(LSTMRegressor).fit(objects, y).predict(X), expected)

    @pytest.mark.parametrize("bidirectional", [False, True])
    def test_each_sequence_is_predicted_as_if_alone(self, rng, bidirectional):
        X, y = ragged(rng)
        model = quick(LSTMClassifier, bidirectional=bidirectional).fit(X, y)
        together = model.predict_proba(X)
        alone = np.concatenate([model.predict_proba([x]) for x in X])
        np.testing.assert_allclose(together, alone, rtol=1e-12)

    def test_other_lengths_in_prediction(self, rng):
        X, y = rng.standard_normal((30, 7, 2)), rng.integers(0, 2, 30)
        model = quick(LSTMClassifier).fit(X, y)
        assert model.predict(rng.standard_normal((4, 11, 2))).shape == (4,)
        univariate = quick(LSTMClassifier).fit(X[:, :, 0], y)
        assert univariate.predict(rng.standard_normal((4, 11, 1))).shape == (4,)

    @pytest.mark.parametrize(
        ("X", "message"),
        [
            ([np.zeros((3, 2)), np.zeros((4, 3))], r"X\[1\]: expected \(T,\) or \(T, 2\)"),
            ([np.zeros((3, 2)), np.zeros((0, 2))], r"X\[1\]: expected"),
            ([np.zeros(()), np.zeros(())], r"X\[0\]: expected"),
            (np.zeros((2, 0, 2)), "X: expected"),
            (np.zeros((2, 3, 2, 2)), "X: expected"),
            ([np.zeros(3), np.full(4, np.nan)], "X contains NaN"),
            (np.full((2, 3, 2), np.inf), "X contains infinity"),
            ([], "Expected 2D array"),
        ],
    )
    def test_bad_sequences(self, X, message):
        with pytest.raises(ValueError, match=message):
            quick(LSTMClassifier).fit(X, [0, 1])

    def test_columns_must_be_those_of_fit(self, rng):
        X, y = rng.standard_normal((10, 5, 2)), rng.integers(0, 2, 10)
        model = quick(LSTMClassifier).fit(X, y)
        with pytest.raises(ValueError, match="X has 3 features"):
            model.predict(np.zeros((2, 5, 3)))
        with pytest.raises(ValueError, match="X has 1 features"):
            model.predict(np.zeros((2, 5)))
        with pytest.raises(ValueError, match="X: expected univariate"):
            quick(LSTMClassifier).fit(X[:, :, 0], y).predict(X)

    def test_names_of_columns(self, rng):
        pandas = pytest.importorskip("pandas")
        X = pandas.DataFrame(rng.standard_normal((10, 3)), columns=["a", "b", "c"])
        model = quick(LSTMRegressor).fit(X, np.arange(10.0))
        assert list(model.feature_names_in_) == ["a", "b", "c"]


class TestTraining:
    def test_same_seed_same_model(self, rng):
        X, y = ragged(rng)
        models = [quick(LSTMClassifier, dropout=0.5).fit(X, y) for _ in range(2)]
        np.testing.assert_array_equal(*(m.predict_proba(X) for m in models))
        other = quick(LSTMClassifier, dropout=0.5, random_state=1).fit(X, y)
        assert (other.predict_proba(X) != models[0].predict_proba(X)).any()

    def test_standardized_inside(self, rng):
        X, y = rng.standard_normal((30, 6, 2)), rng.standard_normal(30)
        moved = X * [1e3, 1e-3] + [1e6, 0]  # float32 alone would lose the first column
        expected = quick(LSTMRegressor).fit(X, y)
        model = quick(LSTMRegressor).fit(moved, 1e4 * y - 1e5)
        np.testing.assert_allclose(model.predict(moved), 1e4 * expected.predict(X) - 1e5, rtol=1e-4)

    def test_rows_of_some_sequences(self):
        rows = np.arange(9.0)[:, np.newaxis]
        some = Sequences.from_rows(rows, np.array([2, 3, 4])).take(np.array([2, 0]))
        assert some.own_rows()[:, 0].tolist() == [5, 6, 7, 8, 0, 1]

    def test_constant_columns(self):
        columns = Columns(np.array([[0.1, 1.0], [0.1, 3.0], [0.1, np.nan]]))
        assert columns.scale.tolist() == [1, 1]
        np.testing.assert_allclose(columns.forward(np.array([[0.1, 3]])), [[0, 1]], atol=1e-15)

    def test_early_stopping_restores_the_best_epoch(self, rng):
        rows = rng.standard_normal((360, 1), dtype=np.float32)  # nothing to learn
        sequences = Sequences.from_rows(rows, np.full(60, 6))
        data, held_out = (
            Labelled(sequences, rng.standard_normal((60, 1), dtype=np.float32)) for _ in range(2)
        )
        network = Network("lstm", 1, 1, dropout=0.0, rng=rng, hidden_size=8)
        optimizer = Adam(network.modules, lr=0.05)
        history = train(
            network,
            optimizer,
            data,
            mse_loss,
            epochs=200,
            validation=held_out,
            patience=4,
            verbose=False,
            batch_size=16,
            max_grad_norm=1.0,
            rng=rng,
        )
        best = int(np.argmin(history.validation_losses))
        assert len(history.losses) == len(history.validation_losses) == best + 1 + 4
        assert evaluate(network, held_out, mse_loss) == history.validation_losses[best]
        assert optimizer.lr == 0.05

    def test_early_stopping(self, rng):
        X, y = rng.standard_normal((60, 6, 1)), rng.standard_normal(60)
        model = quick(LSTMRegressor, max_iter=300, early_stopping=True, patience=4).fit(X, y)
        assert model.n_iter_ == len(model.validation_loss_curve_) == len(model.loss_curve_) < 300

    def test_gradients_are_clipped(self, rng):
        X, y = ragged(rng)
        still = quick(LSTMClassifier, max_grad_norm=0.0).fit(X, y)
        assert still.loss_curve_ == pytest.approx([still.loss_curve_[0]] * 3)
        assert quick(LSTMClassifier, max_grad_norm=None).fit(X, y).n_iter_ == 3

    def test_divergence_is_an_error(self, rng):
        X, y = ragged(rng)
        model = quick(LSTMClassifier, learning_rate=1e38, weight_decay=1e3)
        with np.errstate(all="ignore"), pytest.raises(ValueError, match="training diverged"):
            model.fit(X, y)

    @pytest.mark.parametrize(
        ("settings", "name"),
        [
            ({"hidden_size": 0}, "hidden_size"),
            ({"cell": "elman"}, "cell"),
            ({"max_iter": 0}, "max_iter"),
            ({"batch_size": 0}, "batch_size"),
            ({"patience": 0}, "patience"),
            ({"dropout": 1.0}, "dropout"),
            ({"learning_rate": -1.0}, "learning_rate"),
            ({"learning_rate": "linear"}, "learning_rate: expected 'cosine' or 'constant'"),
            ({"learning_rate_init": -1.0}, "learning_rate_init"),
            ({"max_grad_norm": -1.0}, "max_norm"),
            ({"validation_fraction": 1.0}, "validation_fraction"),
        ],
    )
    def test_bad_settings(self, rng, settings, name):
        with pytest.raises(ValueError, match=name):
            quick(LSTMRegressor, **settings).fit(rng.standard_normal((9, 4)), np.arange(9.0))

    @pytest.mark.parametrize("seed", range(3))
    def test_what_lies_in_the_middle_is_remembered(self, seed):
        """As on GunPoint, where the defaults stayed at the loss of guessing: see _network.py."""
        rng, T = np.random.default_rng(seed), 60
        y = np.arange(160) % 2
        pulse = np.exp(-np.square((np.arange(T) - T // 2) / 8))
        X = np.where(y, 1.0, 0.5)[:, None] * pulse + 0.02 * rng.standard_normal((160, T))
        model = LSTMClassifier(random_state=seed).fit(X[:60], y[:60])
        assert model.score(X[60:], y[60:]) > 0.95

    @pytest.mark.parametrize("early_stopping", [False, True])
    @pytest.mark.parametrize("cls", [LSTMClassifier, LSTMRegressor])
    def test_a_fit_that_learnt_nothing_says_so(self, rng, cls, early_stopping):
        X, y = ragged(rng, 80)
        settings = {"early_stopping": early_stopping, "max_iter": 20, "learning_rate": 0.02}
        with pytest.warns(
            ConvergenceWarning, match=rf"{cls.__name__} learnt nothing in \d+ epochs"
        ):
            quick(cls, **settings | {"learning_rate": 0.0}).fit(X, rng.permutation(y).astype(int))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            quick(cls, **settings).fit(X, y.astype(int))
            quick(cls).fit(X, np.zeros(80, int))  # nothing is to be learnt

    def test_masked_arrays_are_refused(self, rng):
        X, y = rng.standard_normal((20, 6)), np.arange(20) % 2
        masked = np.ma.masked_array(X, mask=X > 1)
        for cls in (LSTMClassifier, LSTMRegressor):
            with pytest.raises(TypeError, match=r"^X: expected an array without a mask"):
                quick(cls).fit(masked, y)
            with pytest.raises(TypeError, match=r"^X\[0\]: expected an array without a mask"):
                quick(cls).fit(list(masked), y)
            with pytest.raises(TypeError, match=r"^y: expected an array without a mask"):
                quick(cls).fit(X, np.ma.masked_array(y))
        model = LSTMForecaster(max_iter=1)
        for call in (model.fit, model.backtest):
            with pytest.raises(TypeError, match=r"^X: expected an array without a mask"):
                call(masked)
            with pytest.raises(TypeError, match=r"^y: expected an array without a mask"):
                call(X, np.ma.masked_array(y))

    def test_progress_bar(self, rng, capsys):
        pytest.importorskip("tqdm")
        X, y = ragged(rng)
        quick(LSTMClassifier, verbose=True).fit(X, y)
        assert "3/3" in capsys.readouterr().err

    @pytest.mark.parametrize("cls", [LSTMClassifier, LSTMRegressor])
    def test_pickled_model_learns_on_alike(self, rng, cls):
        X, y = ragged(rng)
        model = quick(cls).fit(X, y.astype(float))
        copy = pickle.loads(pickle.dumps(model))
        np.testing.assert_array_equal(model.predict(X), copy.predict(X))
        for m in (model, copy):  # the optimiser must hold the parameters of its own network
            m.partial_fit(X, y.astype(float))
        np.testing.assert_array_equal(model._network.layers.flat, copy._network.layers.flat)
        assert model.n_iter_ == 4

    def test_grid_search(self, rng):
        X, y = ragged(rng)
        search = GridSearchCV(quick(LSTMClassifier), {"hidden_size": [4, 8]}, cv=2)
        assert search.fit(X, y).best_params_["hidden_size"] in (4, 8)


class TestClassifier:
    def test_learns_from_sequences_of_any_length(self, rng):
        X, y = ragged(rng, 200)
        labels = np.where(y, "above", "below")
        model = quick(LSTMClassifier, max_iter=20).fit(X[:150], labels[:150])
        assert model.score(X[150:], labels[150:]) > 0.9
        assert model.classes_.tolist() == ["above", "below"]

    @pytest.mark.parametrize("labels", [(True, False), (-5, 3), ("x", "y"), (1.0, 2.0)])
    def test_labels_of_any_type(self, rng, labels):
        X = rng.standard_normal((20, 4))
        y = np.array(labels)[rng.integers(0, 2, 20)]
        model = quick(LSTMClassifier).fit(X, y)
        assert model.predict(X).dtype == y.dtype
        np.testing.assert_allclose(model.predict_proba(X).sum(axis=1), 1)

    def test_partial_fit(self, rng):
        X, y = ragged(rng, 90)
        model = quick(LSTMClassifier)
        with pytest.raises(ValueError, match="classes: expected all labels"):
            model.partial_fit(X[:30], y[:30])
        model.partial_fit(X[:30], np.zeros(30), classes=[0, 1])
        assert model.predict_proba(X).shape == (90, 2)
        for _ in range(30):
            model.partial_fit(X, y.astype(float))
        assert model.score(X, y) > 0.9
        with pytest.raises(ValueError, match="y: expected labels of classes"):
            model.partial_fit(X, np.full(90, 2.0))
        with pytest.raises(ValueError, match="classes: expected"):
            model.partial_fit(X, y.astype(float), classes=[0, 1, 2])

    def test_failed_first_call_leaves_it_unfitted(self, rng):
        X, y = ragged(rng)
        model = quick(LSTMClassifier, hidden_size=0)
        with pytest.raises(ValueError, match="hidden_size"):
            model.partial_fit(X, y, classes=[False, True])
        with pytest.raises(NotFittedError):
            model.predict(X)
        assert model.set_params(hidden_size=4).partial_fit(X, y, [False, True]).n_iter_ == 1

    def test_held_out_has_every_class(self, rng):
        X, y = rng.standard_normal((20, 4)), np.repeat([0, 1], 10)
        model = quick(LSTMClassifier, early_stopping=True).fit(X, y)
        assert all(map(math.isfinite, model.validation_loss_curve_))


@pytest.mark.parametrize(("cell", "layers"), CELLS.items())
class TestCells:
    def test_classifier(self, rng, cell, layers):
        X, y = ragged(rng, 200)
        model = quick(LSTMClassifier, cell=cell, max_iter=20, bidirectional=True)
        assert model.fit(X[:150], y[:150]).score(X[150:], y[150:]) > 0.9
        assert type(model._network.layers) is layers
        copy = pickle.loads(pickle.dumps(model))
        np.testing.assert_array_equal(copy.predict_proba(X), model.predict_proba(X))

    def test_regressor(self, rng, cell, layers):
        X = rng.standard_normal((300, 5))
        y = 5 + X.sum(axis=1)
        model = quick(LSTMRegressor, cell=cell, max_iter=20, num_layers=2, early_stopping=True)
        assert model.fit(X[:200], y[:200]).score(X[200:], y[200:]) > 0.8
        assert type(clone(model).partial_fit(X, y)._network.layers) is layers

    def test_forecaster(self, cell, layers):
        series = np.sin(2 * np.pi * np.arange(200) / 12)
        model = quick(LSTMForecaster, cell=cell, horizon=4, context=24, hidden_size=16, max_iter=20)
        assert model.backtest(series, n_origins=3).mae < 0.3
        assert type(clone(model).fit(series)._ensemble.members[0][0].layers) is layers


class TestRegressor:
    def test_several_targets(self, rng):
        X = rng.standard_normal((300, 6, 2))
        y = np.stack([X.sum(axis=(1, 2)), 100 + 10 * X[:, -1, 0]], axis=1)
        model = quick(LSTMRegressor, hidden_size=16, max_iter=30).fit(X[:200], y[:200])
        assert model.score(X[200:], y[200:]) > 0.8

    def test_partial_fit(self, rng):
        X = rng.standard_normal((100, 5))
        y = 5 + X.sum(axis=1)
        model = quick(LSTMRegressor)
        for _ in range(40):
            model.partial_fit(X, y)
        assert model.score(X, y) > 0.8
        with pytest.raises(ValueError, match="y: expected 1 numbers"):
            model.partial_fit(X, np.stack([y, y], axis=1))


class TestForecaster:
    season = np.sin(2 * np.pi * np.arange(300) / 12)

    def test_forecasts_a_season_with_a_trend(self):
        series = self.season + 0.02 * np.arange(300)
        model = quick(LSTMForecaster, horizon=12, context=24, hidden_size=24, max_iter=25)
        result = model.backtest(series, n_origins=2)
        assert result.mae < 0.15
        assert result.origins.tolist() == [276, 288]
        np.testing.assert_array_equal(result.actual, series[276:].reshape(2, 12))

    def test_uses_what_is_known_of_the_future(self, rng):
        known = rng.standard_normal((400, 1))
        series = 3 * known[:, 0] + 10
        model = quick(LSTMForecaster, horizon=5, context=10, max_iter=30)
        result = model.backtest(known, series)
        assert result.rmse < 0.3 * series.std()

    def test_past_given_or_remembered(self):
        X = np.stack([self.season, np.roll(self.season, 3)], axis=1)
        model = quick(LSTMForecaster, horizon=4, context=20).fit(X[:-4], self.season[:-4])
        remembered = model.forecast(X[-4:])
        given = model.forecast(X[-4:], past=(X[:-4], self.season[:-4]))
        np.testing.assert_array_equal(remembered, given)

    def test_the_future_is_not_shown(self):
        model = quick(LSTMForecaster, horizon=12, context=24)
        changed = self.season.copy()
        changed[-12:] = 1e6
        a, b = (model.backtest(s, n_origins=1).forecasts for s in (self.season, changed))
        np.testing.assert_array_equal(a, b)

    def test_gaps(self, rng):
        series = np.where(rng.random(300) < 0.2, np.nan, self.season)
        model = quick(LSTMForecaster, horizon=6, context=24, max_iter=15)
        result = model.backtest(series, n_origins=3)
        assert np.isfinite(result.forecasts).all()
        assert result.mae < 0.4
        assert math.isfinite(result.rmse)

    @pytest.mark.parametrize("K", [1, 2])
    def test_several_targets(self, K):
        series = np.stack([self.season, 10 - 3 * self.season], axis=1)[:, :K]
        model = quick(LSTMForecaster, horizon=3, context=12).fit(series)
        assert model.forecast().shape == (3, K)
        assert model.n_features_in_ == K

    def test_refit(self):
        model = quick(LSTMForecaster, horizon=6, context=24)
        once = model.backtest(self.season, n_origins=2)
        again = model.backtest(self.season, n_origins=2, refit=True)
        np.testing.assert_array_equal(once.forecasts[0], again.forecasts[0])
        assert (once.forecasts[1] != again.forecasts[1]).any()
        assert not hasattr(model, "n_iter_")

    def test_data_frames(self):
        pandas = pytest.importorskip("pandas")
        index = pandas.date_range("2020-01-01", periods=300)
        X = pandas.DataFrame({"a": self.season}, index=index)
        y = pandas.Series(self.season, index=index)
        model = quick(LSTMForecaster, horizon=6, context=24)
        expected = model.backtest(X.to_numpy(), y.to_numpy())
        np.testing.assert_array_equal(model.backtest(X, y).forecasts, expected.forecasts)
        assert list(model.fit(X).feature_names_in_) == ["a"]

    def test_bad_input(self):
        X = self.season[:, np.newaxis]
        model = quick(LSTMForecaster, horizon=6, context=24)
        with pytest.raises(NotFittedError):
            model.forecast()
        with pytest.raises(ValueError, match="n_samples = 6"):
            model.fit(self.season[:6])
        alone = clone(model).fit(self.season)
        with pytest.raises(ValueError, match="X: expected none"):
            alone.forecast(X[:6])
        with pytest.raises(ValueError, match="past: expected at least 24 rows"):
            alone.forecast(past=self.season[:23])
        both = clone(model).fit(X, self.season)
        with pytest.raises(ValueError, match=r"X: expected \(horizon, 1\)"):
            both.forecast()
        with pytest.raises(ValueError, match="X: expected 6 rows"):
            both.forecast(X[:5])
        with pytest.raises(TypeError, match="past: expected a pair"):
            both.forecast(X[:6], past=self.season)
        with pytest.raises(ValueError, match="X: expected more than"):
            model.backtest(self.season, n_origins=50)


def test_fastlstm_alone_imports_no_scikit_learn():
    program = "import sys, fastlstm; sys.exit('sklearn' in sys.modules or 'tqdm' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_missing_scikit_learn_names_the_extra():
    program = (
        "import sys; sys.modules['sklearn'] = None\n"
        "try: import fastlstm.estimators\n"
        "except ImportError as error: assert 'pip install scikit-learn' in str(error)\n"
        "else: raise AssertionError"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
