"""The settings that all estimators share, and how these start and train a network."""

import copy
import warnings
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state, check_scalar

from fastlstm._args.numbers import check_not_negative, check_size
from fastlstm.estimators._network import Callback, Data, Loss, Network, train, train_epoch
from fastlstm.training import AdamW

SCHEDULES = ("cosine", "constant")

AFTER_HIDDEN_SIZE = """cell : {"lstm", "gru", "rnn"}
        Of what the recurrent layers are made: `LSTM`, `GRU` or `RNN`.
    num_layers : int
        Recurrent layers.
    bidirectional : bool
        Also read the sequences from their ends, with weights of their own.
    dropout : float in [0, 1)
        Probability of dropping an output, between layers and before the head.
    max_iter : int
        Epochs (passes over the data), at most.
    batch_size : int
        Sequences per step of the optimiser.
    learning_rate : {"cosine", "constant"} or float
        How AdamW's rate goes in `fit`: along half a cosine from `learning_rate_init` to 0 at
        `max_iter`, or not at all. A number is short for a cosine from there.
    learning_rate_init : float
        The rate at the start, unless `learning_rate` is a number.
    weight_decay : float
        Of AdamW.
    max_grad_norm : float or None
        Gradients are scaled down to this norm, all parameters together. None: never.
    early_stopping : bool
        Hold out a part of the training data; stop when the loss on it has not improved for
        `patience` epochs, and keep the parameters with which it was least.
    validation_fraction : float in (0, 1)
        The part that is held out. Only with `early_stopping`.
    patience : int
        Epochs to wait for an improvement. Only with `early_stopping`.
    standardize : bool
        Subtract the mean of each column and divide by its standard deviation, both taken over all
        time steps that are learnt from.
    compute_dtype : None, "bfloat16" or "int8"
        In which numbers the recurrent layers multiply, in training and after it.
    random_state : int, numpy.random.RandomState or None
        For the initial parameters, dropout, the order of the data and what is held out.
    verbose : bool
        Show a progress bar (needs tqdm).
    callback : callable, optional
        Called in `fit` after each epoch with a named tuple of `member`, `epoch`, `loss`,
        `validation_loss` (None if nothing is held out) and `learning_rate`. Training ends if it
        returns True."""

PARAMETERS = f"""hidden_size : int
        Hidden units per layer and direction.
    {AFTER_HIDDEN_SIZE}"""

HISTORY = """n_iter_ : int
        Epochs made.
    loss_curve_ : list of float
        The mean loss of each epoch.
    validation_loss_curve_ : list of float
        The loss on what was held out, after each epoch. Empty without `early_stopping`."""


def documented(cls: Any) -> Any:
    """Put the shared parts into a class's docstring, where it has their names in braces."""
    if cls.__doc__:  # there is none under python -OO
        for name in ("PARAMETERS", "AFTER_HIDDEN_SIZE", "HISTORY"):
            cls.__doc__ = cls.__doc__.replace(f"{{{name}}}", globals()[name])
    return cls


class Recurrent(BaseEstimator):
    """Settings, training, and standardisation of columns."""

    _rng: np.random.Generator

    def __init__(
        self,
        hidden_size: int = 64,
        *,
        cell: str = "lstm",
        num_layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
        max_iter: int = 100,
        batch_size: int = 32,
        learning_rate: str | float = "cosine",
        learning_rate_init: float = 5e-3,
        weight_decay: float = 0.0,
        max_grad_norm: float | None = 1.0,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        patience: int = 10,
        standardize: bool = True,
        compute_dtype: str | None = None,
        random_state: Any = None,
        verbose: bool = False,
        callback: Callback | None = None,
    ) -> None:
        self.hidden_size = hidden_size
        self.cell = cell
        self.num_layers = num_layers
        self.bidirectional = bidirectional
        self.dropout = dropout
        self.max_iter = max_iter
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.learning_rate_init = learning_rate_init
        self.weight_decay = weight_decay
        self.max_grad_norm = max_grad_norm
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.patience = patience
        self.standardize = standardize
        self.compute_dtype = compute_dtype
        self.random_state = random_state
        self.verbose = verbose
        self.callback = callback

    def _check_settings(self) -> None:
        """Check what neither the layers nor the optimiser check."""
        check_size("max_iter", self.max_iter)
        check_size("batch_size", self.batch_size)
        check_size("patience", self.patience)
        check_scalar(self.dropout, "dropout", Real, min_val=0, max_val=1, include_boundaries="left")
        check_scalar(
            self.validation_fraction,
            "validation_fraction",
            Real,
            min_val=0,
            max_val=1,
            include_boundaries="neither",
        )
        if self.callback is not None and not callable(self.callback):
            raise TypeError(f"callback: expected a callable, got {type(self.callback).__name__}")
        self._peak()

    def _peak(self) -> float:
        """Return the learning rate at the start."""
        rate = self.learning_rate
        if isinstance(rate, str):
            if rate not in SCHEDULES:
                raise ValueError(
                    f"learning_rate: expected {' or '.join(map(repr, SCHEDULES))} or a number, "
                    f"got {rate!r}"
                )
            return check_not_negative("learning_rate_init", self.learning_rate_init)
        return check_not_negative("learning_rate", rate)

    def _new_rng(self) -> np.random.Generator:
        """Return the generator of this fit; `random_state` is scikit-learn's older kind."""
        seed = check_random_state(self.random_state).randint(2**32, dtype=np.uint32)
        return np.random.default_rng(seed)

    def _new_network(
        self, input_size: int, output_size: int, steps: int, rng: np.random.Generator
    ) -> tuple[Network, AdamW]:
        """Return a network and its optimiser."""
        network = Network(
            self.cell,
            input_size,
            output_size,
            steps=steps,
            dropout=self.dropout,
            rng=rng,
            hidden_size=self.hidden_size,
            num_layers=self.num_layers,
            bidirectional=self.bidirectional,
            compute_dtype=self.compute_dtype,
        )
        return network, AdamW(network.modules, lr=self._peak(), weight_decay=self.weight_decay)

    def _start(self, input_size: int, output_size: int) -> None:
        """Make the network and its optimiser."""
        self._network, self._optimizer = self._new_network(input_size, output_size, 0, self._rng)
        self.n_iter_ = 0
        self.loss_curve_: list[float] = []
        self.validation_loss_curve_: list[float] = []

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "_network")

    def _training_options(self) -> dict[str, Any]:
        return {
            "epochs": self.max_iter,
            "patience": self.patience,
            "verbose": self.verbose,
            "cosine": self.learning_rate != "constant",
            "callback": self.callback,
        }

    def _epoch_options(self) -> dict[str, Any]:
        return {
            "batch_size": self.batch_size,
            "max_grad_norm": self.max_grad_norm,
            "rng": self._rng,
        }

    def _train(
        self, data: Data, criterion: Loss, validation: Data | None, constant_loss: float = 0.0
    ) -> None:
        """Train the network that `_start` made; warn if it does no better than `constant_loss`."""
        self.loss_curve_, self.validation_loss_curve_ = train(
            self._network,
            self._optimizer,
            data,
            criterion,
            validation=validation,
            **self._training_options(),
            **self._epoch_options(),
        )
        self.n_iter_ = len(self.loss_curve_)
        losses = self.validation_loss_curve_
        kept = losses.index(min(losses)) if losses else -1  # whose parameters these are
        loss = self.loss_curve_[kept]
        if constant_loss and loss > 0.99 * constant_loss:
            warnings.warn(
                f"{type(self).__name__} learnt nothing in {self.n_iter_} epochs: its loss is "
                f"{loss:.4g}, and {constant_loss:.4g} is that of the same answer to everything. "
                "Another random_state, learning_rate or cell, more epochs (max_iter) or shorter "
                "sequences may help",
                ConvergenceWarning,
                stacklevel=3,
            )

    def _train_once_more(self, data: Data, loss: Loss) -> None:
        if not all(module.flat.flags.writeable for module in self._network.modules):
            # joblib maps the files of models, and large arrays on their way to its workers
            own = copy.deepcopy((self._network, self._optimizer, self._rng))
            self._network, self._optimizer, self._rng = own
        value = train_epoch(self._network, self._optimizer, data, loss, **self._epoch_options())
        self.loss_curve_.append(value)
        self.n_iter_ += 1


class Columns:
    """The mean and standard deviation of columns, NaN left out; 0 and 1 if not `standardize`."""

    def __init__(self, rows: NDArray[Any], standardize: bool = True) -> None:
        self.mean = np.zeros(rows.shape[1])
        self.scale = np.ones(rows.shape[1])
        if standardize:
            known = ~np.isnan(rows)
            count = np.maximum(known.sum(axis=0), 1)
            self.mean = rows.sum(axis=0, dtype=np.float64, where=known) / count
            deviation = rows - self.mean
            variance = np.square(deviation).sum(axis=0, where=known) / count
            # a constant column, whose deviations are rounding errors, stays as it is
            varies = variance > np.square(10 * np.finfo(rows.dtype).eps * self.mean)
            self.scale[varies] = np.sqrt(variance[varies])

    def forward(self, rows: NDArray[Any]) -> NDArray[np.float32]:
        """Return standardised rows."""
        return ((rows - self.mean) / self.scale).astype(np.float32)

    def backward(self, rows: NDArray[Any]) -> NDArray[np.float64]:
        """Undo it."""
        return rows * self.scale + self.mean
