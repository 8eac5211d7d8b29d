"""Networks that learn what a baseline misses, each from other parts of the past.

Decisions:
a) The windows are cut, in time order, into as many blocks as there are members. A member learns
   from all blocks but its own, and from no window whose forecast overlaps that of one there; its
   own block stops it early.
b) What the members say of their own blocks, which they have not learnt from, tells how far to
   trust them: of each target, the share of the correction that makes the absolute error least, and
   none of it if the gain may be chance, by Student's t test between parts of the past. The forecast
   is the baseline plus this share of the members' mean. Without the test short series lost 2 to
   10 % by networks that were right about the past only.
c) The head begins at 0, so that an untrained member is the baseline.
d) With quantiles, each is the baseline's, of its errors from rolling origins, plus a correction
   that is learnt by the quantile loss.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from fastlstm.estimators._network import Network, predict, train, train_epoch
from fastlstm.estimators._windows import Windows
from fastlstm.training import AdamW, mse_loss, quantile_loss

SHARES = np.linspace(0, 1, 11, dtype=np.float32)
PARTS = 4  # of the past, at least, between which the gain may differ
SURE = 0.975  # that there is a gain

Maker = Callable[[np.random.Generator], tuple[Network, AdamW]]


class KnownLoss:
    """The mean squared error, or with quantiles their loss, where the target is not NaN."""

    def __init__(self, quantiles: NDArray[Any], offsets: NDArray[Any]) -> None:
        self.quantiles = quantiles
        self.offsets = offsets.astype(np.float32)

    def __call__(
        self, prediction: NDArray[Any], target: NDArray[Any]
    ) -> tuple[float, NDArray[Any]]:
        """Return the loss and its gradient; target (..., K), prediction (..., K * outputs)."""
        known = ~np.isnan(target)
        if not known.any():
            return 0.0, np.zeros_like(prediction)
        if not len(self.quantiles):
            return mse_loss(prediction, target, mask=known)
        quantile = prediction.reshape(*target.shape, -1) + self.offsets
        value, gradient = quantile_loss(quantile, target, self.quantiles, mask=known)
        return value, gradient.reshape(prediction.shape)


class Subset:
    """Some windows of many."""

    def __init__(self, windows: Windows, which: NDArray[np.intp]) -> None:
        self.windows, self.which = windows, which

    def __len__(self) -> int:
        return len(self.which)

    def batch(self, which: NDArray[np.intp]) -> Any:
        """Return some of them."""
        return self.windows.batch(self.which[which])


class Ensemble:
    """The members, and their shares.

    Parameters
    ----------
    loss : KnownLoss
    make : callable
        Returns a network and its optimiser, for a generator.
    members : int
    rng : numpy.random.Generator
    """

    def __init__(
        self, loss: KnownLoss, make: Maker, members: int, rng: np.random.Generator
    ) -> None:
        self.loss = loss
        self._rngs = rng.spawn(members)
        self.members = [make(one) for one in self._rngs]
        for network, _ in self.members:
            network.head.flat[...] = 0
        self.share: NDArray[Any] | float = 1.0
        self.losses: list[list[float]] = [[] for _ in self.members]
        self.validation_losses: list[list[float]] = [[] for _ in self.members]

    def fit(
        self, windows: Windows, part: float, training: dict[str, Any], options: dict[str, Any]
    ) -> None:
        """Train all members, each without its own block; if `part` is 0 on all windows.

        One alone holds out the last `part` of the windows.
        """
        everything = np.arange(len(windows))
        blocks = np.array_split(everything, len(self.members))
        if len(self.members) == 1:
            blocks = [everything[-max(1, round(part * len(windows))) :]]
        outputs, targets = [], []
        for k, (network, optimizer) in enumerate(self.members):
            learnt, held_out = everything, None
            if part:
                learnt = everything[windows.apart(blocks[k])]
                held_out = Subset(windows, blocks[k])
            if not len(learnt):
                raise ValueError(
                    f"X: expected more rows, none of {len(windows)} windows is left to learn from"
                )
            history = train(
                network,
                optimizer,
                Subset(windows, learnt),
                self.loss,
                validation=held_out,
                member=k,
                **training,
                **options | {"rng": self._rngs[k]},
            )
            self.losses[k], self.validation_losses[k] = history
            if held_out is not None:
                outputs.append(predict(network, held_out).astype(np.float32))
                targets.append(windows.batch(blocks[k]).target)
        if part:
            self._learn_share(np.concatenate(outputs, axis=1), np.concatenate(targets, axis=1))

    def _learn_share(self, output: NDArray[Any], target: NDArray[Any]) -> None:
        """Learn how far to trust what was said of windows not learnt from, in time order."""
        n, K = target.shape[1:]
        output = output.reshape(*target.shape, -1)
        parts = np.array_split(np.arange(n), max(PARTS, len(self.members)))
        self.share = np.zeros(K)
        for k in range(K):
            losses = np.array(
                [
                    [self._error(share * output[:, b, k], target[:, b, k]) for share in SHARES]
                    for b in parts
                ]
            )
            losses = losses[~np.isnan(losses).any(axis=1)]
            if len(losses) < 2:
                continue
            best = int(np.argmin(losses.mean(axis=0)))
            gain = losses[:, 0] - losses[:, best]
            errors = stdtrit(len(gain) - 1, SURE)  # standard ones; of four parts 3.2
            if gain.mean() > errors * gain.std(ddof=1) / math.sqrt(len(gain)):
                self.share[k] = SHARES[best]

    def _error(self, output: NDArray[Any], target: NDArray[Any]) -> float:
        """Return the mean absolute error, or the quantile loss; NaN if nothing is known."""
        known = ~np.isnan(target)
        if not known.any():
            return math.nan
        if not len(self.loss.quantiles):
            return float(np.abs(output[..., 0] - target)[known].mean())
        return self.loss(output, target[..., np.newaxis])[0]

    def train_once_more(self, windows: Windows, options: dict[str, Any]) -> None:
        """Let all members pass over all windows once."""
        for k, (network, optimizer) in enumerate(self.members):
            own = options | {"rng": self._rngs[k]}
            self.losses[k].append(train_epoch(network, optimizer, windows, self.loss, **own))

    @staticmethod
    def mean_of(curves: list[list[float]]) -> list[float]:
        """Return the mean of curves, at each epoch of those that got there."""
        longest = max(len(curve) for curve in curves)
        return [float(np.mean([c[k] for c in curves if len(c) > k])) for k in range(longest)]

    def __call__(self, windows: Windows) -> NDArray[np.float64]:
        """Return what the baseline misses, (horizon, n, K, outputs), in its units."""
        K = windows.targets.shape[1]
        outputs = [predict(network, windows) for network, _ in self.members]
        mean = np.mean(outputs, axis=0)
        mean = mean.reshape(*mean.shape[:-1], K, -1)
        result = mean * np.broadcast_to(self.share, K)[:, np.newaxis] + self.loss.offsets
        return np.sort(result, axis=-1)
