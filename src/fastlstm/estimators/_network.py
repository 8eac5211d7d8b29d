"""What every estimator trains: recurrent layers, a linear head on their output, and the loop.

Decisions:
a) The head reads each sequence's final hidden states (where the sequence itself ends, both
   directions if there are two), or the outputs of the last steps of all sequences.
b) The learning rate falls along half a cosine to 0 at the last epoch, unless it is constant.
c) With validation data the parameters of its best epoch are restored.
d) Predictions do not depend on how they are batched: the layers promise the same bits, and the
   head, which BLAS may sum in another order for another number of rows, is computed in double.
e) The forget gates of an LSTM begin with a bias of 1 (Jozefowicz, Zaremba & Sutskever 2015). With
   0 the cell halves its state at each step, and no gradient comes from the middle of a sequence:
   on GunPoint (150 steps, three seeds) two of three stayed at the loss of guessing, test accuracy
   .49, .49, .56; with 1: .89, .96, .97. It is no cure for all: longer sequences may still fail.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from fastlstm.layers import CELLS
from fastlstm.training import Adam, Linear, clip_grad_norm

ROWS_AT_ONCE = 1024  # in prediction; bounds the memory of the layers' outputs

Loss = Callable[[NDArray[Any], NDArray[Any]], tuple[float, NDArray[Any]]]


class Batch(NamedTuple):
    """Sequences and what the network should say of them."""

    x: NDArray[np.float32]  # (T, B, I)
    lengths: NDArray[np.intp] | None  # (B,); None: all T
    target: NDArray[Any]


class Data(Protocol):
    """Sequences, of which any may be taken together."""

    def __len__(self) -> int: ...

    def batch(self, which: NDArray[np.intp]) -> Batch:
        """Return the sequences with these numbers, in this order."""
        ...


class Network:
    """Recurrent layers with a linear head.

    Parameters
    ----------
    cell : str
        A key of `CELLS`.
    input_size, output_size : int
    steps : int
        0: the head reads the final hidden states and the output is (B, output_size);
        n: it reads the last n steps and the output is (n, B, output_size).
    dropout : float
        Between layers and before the head.
    rng : numpy.random.Generator
        For the initial parameters and dropout.
    **options
        Of the layers.
    """

    def __init__(
        self,
        cell: str,
        input_size: int,
        output_size: int,
        *,
        steps: int = 0,
        dropout: float,
        rng: np.random.Generator,
        **options: Any,
    ) -> None:
        if cell not in list(CELLS):
            raise ValueError(f"cell: expected one of {', '.join(CELLS)}, got {cell!r}")
        if cell == "lstm":
            options["forget_bias"] = 1.0
        self.layers = CELLS[cell](input_size, dropout=dropout, rng=rng, **options)
        width = self.layers.num_directions * self.layers.hidden_size
        self.head = Linear(width, output_size, rng=rng)
        self.steps = steps
        self._rng = rng

    @property
    def modules(self) -> list[Any]:
        """All that has parameters."""
        return [self.layers, self.head]

    def _features(self, y: NDArray[Any], state: Any) -> NDArray[Any]:
        """Return what the head reads."""
        if self.steps:
            return y[-self.steps :]
        h_n: NDArray[Any] = state[0] if isinstance(state, tuple) else state
        last = h_n[-self.layers.num_directions :]  # (directions, B, H)
        return last.transpose(1, 0, 2).reshape(last.shape[1], -1)

    def __call__(self, batch: Batch) -> NDArray[np.float64]:
        """Return the output."""
        features = self._features(*self.layers(batch.x, lengths=batch.lengths))
        weight, bias = self.head.params.values()
        y: NDArray[np.float64] = features.astype(np.float64) @ weight.T.astype(np.float64) + bias
        return y

    def gradients(self, batch: Batch, loss: Loss) -> tuple[float, list[Any]]:
        """Return the loss and the gradients of the modules."""
        y, state, tape = self.layers.forward(batch.x, lengths=batch.lengths)
        features = self._features(y, state)
        p, mask = self.layers.dropout, None
        if p:
            kept = self._rng.random(features.shape) >= p
            mask = (kept / (1 - p)).astype(features.dtype)
            features = features * mask
        output, head_tape = self.head.forward(features)
        value, doutput = loss(output, batch.target)
        head = self.head.backward(head_tape, doutput)
        dfeatures = head.x if mask is None else head.x * mask
        if self.steps:
            dy = np.zeros_like(y)
            dy[-self.steps :] = dfeatures
            return value, [self.layers.backward(tape, dy, input_gradient=False), head]
        h_n: NDArray[Any] = state[0] if isinstance(state, tuple) else state
        dh_n = np.zeros_like(h_n)
        _, B, H = h_n.shape
        D = self.layers.num_directions
        dh_n[-D:] = dfeatures.reshape(B, D, H).transpose(1, 0, 2)
        dstate = (dh_n, None) if isinstance(state, tuple) else dh_n
        return value, [self.layers.backward(tape, dstate=dstate, input_gradient=False), head]


class Epoch(NamedTuple):
    """What a callback is told after each epoch.

    Attributes
    ----------
    member : int
        Which network of those that are trained; 0 if there is one.
    epoch : int
        From 1.
    loss : float
        The mean loss of the epoch.
    validation_loss : float or None
        The loss on what was held out, if something was.
    learning_rate : float
        That of the epoch.
    """

    member: int
    epoch: int
    loss: float
    validation_loss: float | None
    learning_rate: float


Callback = Callable[[Epoch], object]


class History(NamedTuple):
    """What happened in training, an item per epoch."""

    losses: list[float]
    validation_losses: list[float]  # empty without validation data


def _parts(n: int, size: int, order: NDArray[np.intp] | None = None) -> Iterator[NDArray[np.intp]]:
    order = np.arange(n) if order is None else order
    return (order[start : start + size] for start in range(0, n, size))


def predict(network: Network, data: Data) -> NDArray[np.float64]:
    """Return the network's output for all of the data, sequences along the axis before the last."""
    outputs = [network(data.batch(which)) for which in _parts(len(data), ROWS_AT_ONCE)]
    return np.concatenate(outputs, axis=-2)


def evaluate(network: Network, data: Data, loss: Loss) -> float:
    """Return the mean loss."""
    total = 0.0
    for which in _parts(len(data), ROWS_AT_ONCE):
        batch = data.batch(which)
        total += len(which) * loss(network(batch).astype(np.float32), batch.target)[0]
    return total / len(data)


def train_epoch(
    network: Network,
    optimizer: Adam,
    data: Data,
    loss: Loss,
    *,
    batch_size: int,
    max_grad_norm: float | None,
    rng: np.random.Generator,
) -> float:
    """Learn from all of the data once, in random order; return the mean loss while doing it."""
    total = 0.0
    for which in _parts(len(data), batch_size, rng.permutation(len(data))):
        value, gradients = network.gradients(data.batch(which), loss)
        if not math.isfinite(value):
            raise ValueError(
                f"training diverged, the loss is {value}: a smaller learning_rate or "
                "max_grad_norm may help"
            )
        if max_grad_norm is not None:
            clip_grad_norm(gradients, max_grad_norm)
        optimizer.step(gradients)
        total += len(which) * value
    return total / len(data)


def train(
    network: Network,
    optimizer: Adam,
    data: Data,
    loss: Loss,
    *,
    epochs: int,
    validation: Data | None,
    patience: int,
    verbose: bool,
    cosine: bool = True,
    callback: Callback | None = None,
    member: int = 0,
    **options: Any,
) -> History:
    """Train for some epochs, or until the loss on `validation` has not improved for `patience`.

    A `callback` that returns True ends it too. `options` are those of `train_epoch`. The learning
    rate is left as it was.
    """
    history = History([], [])
    peak, best = optimizer.lr, math.inf
    parameters = [module.flat for module in network.modules]
    restore: list[NDArray[Any]] = []
    waited = 0
    with _progress(epochs, verbose) as bar:
        for epoch in range(epochs):
            if cosine:
                optimizer.lr = peak * 0.5 * (1 + math.cos(math.pi * epoch / epochs))
            history.losses.append(train_epoch(network, optimizer, data, loss, **options))
            report = f"loss {history.losses[-1]:.4g}"
            if validation is not None:
                history.validation_losses.append(evaluate(network, validation, loss))
                report += f", validation {history.validation_losses[-1]:.4g}"
                waited += 1
                if history.validation_losses[-1] < best:
                    best, waited = history.validation_losses[-1], 0
                    restore = [flat.copy() for flat in parameters]
            if bar is not None:
                bar.set_postfix_str(report, refresh=False)
                bar.update()
            if callback is not None:
                validated = history.validation_losses[-1] if validation is not None else None
                told = Epoch(member, epoch + 1, history.losses[-1], validated, optimizer.lr)
                if callback(told) is True:
                    break
            if waited >= patience:
                break
    optimizer.lr = peak
    for flat, saved in zip(parameters, restore, strict=False):
        flat[...] = saved
    return history


def _progress(epochs: int, verbose: bool) -> Any:
    if not verbose:
        return nullcontext()
    try:
        from tqdm.auto import tqdm
    except ImportError as error:
        raise ImportError("verbose: needs tqdm: pip install tqdm") from error
    return tqdm(total=epochs, desc="Training", unit="epoch")
