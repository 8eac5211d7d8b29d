"""Learning rates that change from step to step: functions of the number of steps done.

An optimiser takes one in the place of a number, ``Adam([lstm], lr=CosineDecay(1e-2, 1000))``, as it
takes any function of an int. These can be compared, printed and pickled.
"""

import math
from dataclasses import dataclass

from fastlstm._args.numbers import check_not_negative, check_size


@dataclass(frozen=True)
class CosineDecay:
    """From `lr` to `least` along half a cosine, after a warm-up; `least` from then on.

    Loshchilov & Hutter (2017), arXiv:1608.03983, without restarts; PyTorch's `CosineAnnealingLR`.

    Parameters
    ----------
    lr : float
        The highest rate.
    steps : int
        Steps in all, those of the warm-up among them.
    warmup : int
        Steps in which the rate rises in a straight line; the first one has ``lr / (warmup + 1)``.
    least : float
        The rate at the end.

    Raises
    ------
    ValueError, TypeError
        If a rate is negative, or `warmup` is not less than `steps`.

    Examples
    --------
    >>> from fastlstm.training import CosineDecay
    >>> schedule = CosineDecay(1.0, steps=14, warmup=4)
    >>> [round(schedule(t), 2) for t in (0, 3, 4, 9, 14)]
    [0.2, 0.8, 1.0, 0.5, 0.0]
    """

    lr: float
    steps: int
    warmup: int = 0
    least: float = 0.0

    def __post_init__(self) -> None:
        check_not_negative("lr", self.lr)
        check_not_negative("least", self.least)
        check_size("steps", self.steps)
        if check_size("warmup", self.warmup, least=0) >= self.steps:
            raise ValueError(f"warmup: expected less than steps={self.steps}, got {self.warmup}")

    def __call__(self, t: int) -> float:
        """Return the rate of the step after t steps."""
        if t < self.warmup:
            return self.lr * (t + 1) / (self.warmup + 1)
        part = min(1.0, (t - self.warmup) / (self.steps - self.warmup))
        return self.least + (self.lr - self.least) * (1 + math.cos(math.pi * part)) / 2


@dataclass(frozen=True)
class ExponentialDecay:
    """Multiply the rate by `factor` after every `every` steps.

    PyTorch's `StepLR`, and with ``every=1`` its `ExponentialLR`.

    Parameters
    ----------
    lr : float
        The first rate.
    factor : float
        At least 0; 1 changes nothing.
    every : int
        Steps with one rate.

    Raises
    ------
    ValueError, TypeError
        If a number is negative, or `every` less than 1.

    Examples
    --------
    >>> from fastlstm.training import ExponentialDecay
    >>> schedule = ExponentialDecay(8.0, factor=0.5, every=2)
    >>> [schedule(t) for t in range(6)]
    [8.0, 8.0, 4.0, 4.0, 2.0, 2.0]
    """

    lr: float
    factor: float
    every: int = 1

    def __post_init__(self) -> None:
        check_not_negative("lr", self.lr)
        check_not_negative("factor", self.factor)
        check_size("every", self.every)

    def __call__(self, t: int) -> float:
        """Return the rate of the step after t steps."""
        return self.lr * self.factor ** (t // self.every)
