"""`LSTMClassifier` and `LSTMRegressor`: one answer per sequence."""

from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.model_selection import train_test_split
from sklearn.utils import (
    assert_all_finite,
    check_array,
    check_consistent_length,
    column_or_1d,
)
from sklearn.utils.multiclass import (
    check_classification_targets,
    unique_labels,
)
from sklearn.utils.validation import check_is_fitted, validate_data

from fastlstm._args.arrays import refuse_mask
from fastlstm.estimators._base import Columns, Recurrent, documented
from fastlstm.estimators._network import Batch, Loss, predict
from fastlstm.estimators._sequences import (
    FLOATS,
    Sequences,
    from_array,
    from_list,
    is_list_of_sequences,
)
from fastlstm.training import cross_entropy_loss, mse_loss

NO_TARGET = np.empty(0)


class Labelled(NamedTuple):
    """Sequences and a target for each, which may be missing in prediction."""

    sequences: Sequences
    target: NDArray[Any]

    def __len__(self) -> int:
        return self.sequences.n

    def batch(self, which: NDArray[np.intp]) -> Batch:
        """Return some of them."""
        target = self.target[which] if len(self.target) else self.target
        return Batch(*self.sequences.gather(which), target)


class Supervised(Recurrent):
    """What the two share; a subclass says what a target is."""

    _loss: Loss
    _fit_on_table: bool

    def _check_target(self, y: Any) -> NDArray[Any]:
        """Return y as an array."""
        raise NotImplementedError

    def _learn_target(self, y: NDArray[Any]) -> int:
        """Learn of what y consists; return the outputs that the network needs for it."""
        raise NotImplementedError

    def _encode(self, y: NDArray[Any]) -> NDArray[Any]:
        """Return y as the loss wants it."""
        raise NotImplementedError

    def _constant_loss(self, target: NDArray[Any]) -> float:
        """Return the least loss of an output that is the same for all sequences."""
        raise NotImplementedError

    def _strata(self, target: NDArray[Any]) -> NDArray[Any] | None:
        """Return groups of which the same part is held out."""
        return None

    def _read(self, X: Any, reset: bool) -> Sequences:
        """Return the sequences of any kind of X, checked against those of `fit` unless `reset`."""
        refuse_mask("X", X)
        if is_list_of_sequences(X):
            sequences = from_list(X)
        elif (X if hasattr(X, "ndim") else np.asarray(X)).ndim >= 3:
            sequences = from_array(X)
        elif reset or self._fit_on_table:
            X = validate_data(self, X, reset=reset, dtype=FLOATS)
            self._fit_on_table = True
            return from_array(X[:, :, np.newaxis])
        else:
            X = check_array(X, dtype=FLOATS, estimator=self, input_name="X")
            sequences = from_array(X[:, :, np.newaxis])
        if reset or not self._fit_on_table:
            validate_data(self, sequences.rows, reset=reset, skip_check_array=True)
            self._fit_on_table = False
        elif sequences.rows.shape[1] != 1:
            raise ValueError(
                f"X: expected univariate sequences as in fit, got {sequences.rows.shape[1]} columns"
            )
        return sequences

    def _read_both(self, X: Any, y: Any, reset: bool) -> tuple[Sequences, NDArray[Any]]:
        if y is None:
            raise ValueError(
                f"{type(self).__name__} requires y to be passed, but the target y is None"
            )
        refuse_mask("y", y)
        sequences = self._read(X, reset)
        y = self._check_target(y)
        check_consistent_length(sequences.lengths, y)
        return sequences, y

    def _standardized(self, sequences: Sequences) -> Sequences:
        return sequences._replace(rows=self._columns.forward(sequences.rows))

    def fit(self, X: Any, y: ArrayLike) -> Self:
        """Train a new network.

        Parameters
        ----------
        X : (N, T, I) or (N, T) array-like, or list of N (T,) or (T, I) array-likes
            Sequences. A 2-d array is a univariate sequence per row. The sequences of a list may
            have any lengths.
        y : (N,) array-like
            What is to be said of each; (N, K) too for a regressor.

        Returns
        -------
        self
            Fitted.

        Raises
        ------
        ValueError, TypeError
            If the data or a parameter of the estimator is not what it should be.

        Warns
        -----
        sklearn.exceptions.ConvergenceWarning
            If the loss is not 1 % below that of the same answer to everything.
        """
        self._check_settings()
        sequences, y = self._read_both(X, y, reset=True)
        outputs = self._learn_target(y)
        target = self._encode(y)
        self._rng = self._new_rng()
        held_out = None
        chosen = np.arange(sequences.n)
        if self.early_stopping:
            chosen, held = train_test_split(
                chosen,
                test_size=self.validation_fraction,
                stratify=self._strata(target),
                random_state=int(self._rng.integers(2**32)),
            )
        self._columns = Columns(sequences.take(chosen).own_rows(), self.standardize)
        sequences = self._standardized(sequences)
        if self.early_stopping:
            held_out = Labelled(sequences.take(held), target[held])
        self._start(sequences.rows.shape[1], outputs)
        self._train(
            Labelled(sequences.take(chosen), target[chosen]),
            type(self)._loss,
            held_out,
            self._constant_loss(target[chosen]),
        )
        return self

    def _partial_fit(self, X: Any, y: ArrayLike, all_targets: NDArray[Any] | None = None) -> Self:
        self._check_settings()
        first = not self.__sklearn_is_fitted__()
        sequences, y = self._read_both(X, y, reset=first)
        if first:
            outputs = self._learn_target(y if all_targets is None else all_targets)
            self._rng = self._new_rng()
            self._columns = Columns(sequences.rows, self.standardize)
        target = self._encode(y)
        if first:
            self._start(sequences.rows.shape[1], outputs)
        self._train_once_more(Labelled(self._standardized(sequences), target), type(self)._loss)
        return self

    def _predict(self, X: Any) -> NDArray[np.float64]:
        check_is_fitted(self)
        sequences = self._standardized(self._read(X, reset=False))
        return predict(self._network, Labelled(sequences, NO_TARGET))


@documented
class LSTMClassifier(ClassifierMixin, Supervised):
    """Says of what class a sequence is, from the final hidden state of an LSTM, GRU or RNN.

    Parameters
    ----------
    {PARAMETERS}

    Attributes
    ----------
    classes_ : (C,) array
        The labels, sorted.
    n_features_in_ : int
        T if X was an (N, T) array, and then it is the same in prediction; else I.
    feature_names_in_ : (T,) array
        If X was a data frame.
    {HISTORY}

    See Also
    --------
    fastlstm.LSTM, fastlstm.GRU, fastlstm.RNN : The layers.

    Examples
    --------
    Whether a sequence of any length ends higher than it began:

    >>> import numpy as np
    >>> from fastlstm.estimators import LSTMClassifier
    >>> rng = np.random.default_rng(0)
    >>> X = [rng.standard_normal(T).cumsum() for T in rng.integers(5, 30, 400)]
    >>> y = ["up" if x[-1] > x[0] else "down" for x in X]
    >>> model = LSTMClassifier(16, random_state=0).fit(X[:300], y[:300])
    >>> model.score(X[300:], y[300:]) > 0.9
    True
    """

    _loss = staticmethod(cross_entropy_loss)

    def _check_target(self, y: Any) -> NDArray[Any]:
        labels: NDArray[Any] = column_or_1d(y, warn=True)
        assert_all_finite(labels, input_name="y")
        check_classification_targets(labels)
        return labels

    def _learn_target(self, y: NDArray[Any]) -> int:
        self.classes_ = np.unique(y)
        return len(self.classes_)

    def _encode(self, y: NDArray[Any]) -> NDArray[Any]:
        unknown = np.setdiff1d(y, self.classes_)
        if unknown.size:
            raise ValueError(f"y: expected labels of classes, got {unknown}")
        return np.searchsorted(self.classes_, y)

    def _constant_loss(self, target: NDArray[Any]) -> float:
        parts = np.bincount(target) / len(target)
        return float(-(parts * np.log(parts, where=parts > 0, out=np.zeros_like(parts))).sum())

    def _strata(self, target: NDArray[Any]) -> NDArray[Any]:
        return target

    def partial_fit(self, X: Any, y: ArrayLike, classes: ArrayLike | None = None) -> Self:
        """Make one more pass, over these data, at a constant learning rate.

        Parameters
        ----------
        X, y
            As of `fit`. The first call also decides how columns are standardised.
        classes : array-like, optional
            All labels that will ever occur; needed in the first call, unless `fit` came before.

        Returns
        -------
        self
            Trained further.
        """
        labels = None if classes is None else unique_labels(classes)
        if self.__sklearn_is_fitted__():
            if labels is not None and not np.array_equal(labels, self.classes_):
                raise ValueError(f"classes: expected {self.classes_} as before, got {labels}")
        elif labels is None:
            raise ValueError("classes: expected all labels in the first call of partial_fit")
        return self._partial_fit(X, y, labels)

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Return the probability of each class, (N, C), in the order of ``classes_``.

        Parameters
        ----------
        X
            Sequences, as of `fit`.

        Returns
        -------
        (N, C) array
            Probabilities; each row's sum is 1.
        """
        logits = self._predict(X)
        odds: NDArray[np.float64] = np.exp(logits - logits.max(axis=1, keepdims=True))
        odds /= odds.sum(axis=1, keepdims=True)
        return odds

    def predict(self, X: Any) -> NDArray[Any]:
        """Return the most probable class of each sequence, (N,).

        Parameters
        ----------
        X
            Sequences, as of `fit`.

        Returns
        -------
        (N,) array
            Labels as `fit` got them.
        """
        chosen = self.predict_proba(X).argmax(axis=1)
        return np.asarray(self.classes_[chosen])


@documented
class LSTMRegressor(RegressorMixin, Supervised):
    """Says a number, or several, of a sequence, from the final hidden state of an LSTM, GRU or RNN.

    Parameters
    ----------
    {PARAMETERS}

    Attributes
    ----------
    n_features_in_ : int
        T if X was an (N, T) array, and then it is the same in prediction; else I.
    feature_names_in_ : (T,) array
        If X was a data frame.
    {HISTORY}

    Notes
    -----
    Learns the squared error of standardised targets, whether `standardize` or not.

    Examples
    --------
    The largest value of a sequence:

    >>> import numpy as np
    >>> from fastlstm.estimators import LSTMRegressor
    >>> rng = np.random.default_rng(0)
    >>> X = rng.standard_normal((400, 12, 1))
    >>> y = X.max(axis=(1, 2))
    >>> model = LSTMRegressor(16, max_iter=40, random_state=0).fit(X[:300], y[:300])
    >>> model.score(X[300:], y[300:]) > 0.8
    True
    """

    _loss = staticmethod(mse_loss)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def _check_target(self, y: Any) -> NDArray[Any]:
        return np.asarray(check_array(y, dtype=np.float64, ensure_2d=False, input_name="y"))

    def _learn_target(self, y: NDArray[Any]) -> int:
        self._one_target = y.ndim == 1
        self._targets = Columns(y.reshape(len(y), -1))
        return len(self._targets.mean)

    def _encode(self, y: NDArray[Any]) -> NDArray[Any]:
        K = len(self._targets.mean)
        if y.size != len(y) * K:
            raise ValueError(f"y: expected {K} numbers per sequence as before, got {y.shape}")
        return self._targets.forward(y.reshape(-1, K))

    def _constant_loss(self, target: NDArray[Any]) -> float:
        return float(target.var(axis=0, dtype=np.float64).mean())

    def partial_fit(self, X: Any, y: ArrayLike) -> Self:
        """Make one more pass, over these data, at a constant learning rate.

        Parameters
        ----------
        X, y
            As of `fit`. The first call also decides how columns and targets are standardised.

        Returns
        -------
        self
            Trained further.
        """
        return self._partial_fit(X, y)

    def predict(self, X: Any) -> NDArray[np.float64]:
        """Return what was learnt to say, (N,) or (N, K) as y was.

        Parameters
        ----------
        X
            Sequences, as of `fit`.

        Returns
        -------
        (N,) or (N, K) array
            In the units of y.
        """
        output = self._predict(X)
        y = self._targets.backward(output)
        return y[:, 0] if self._one_target else y
