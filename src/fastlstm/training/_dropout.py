"""Dropout of single elements; that of whole features over time is an option of the layers."""

from __future__ import annotations  # so that help() shows names

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastlstm._args.arrays import check_dtype, check_real
from fastlstm._args.numbers import check_probability


class DropoutGradients(NamedTuple):
    """Result of `Dropout.backward`: the gradient of x.

    Parameters
    ----------
    x : ndarray
        Gradient of x.
    """

    x: NDArray[Any]


class Dropout:
    """Set each element to 0 with probability p in training, and scale the others by 1 / (1 - p).

    Srivastava et al. (2014), Dropout, JMLR 15; PyTorch's formula. It has no parameters, so an
    optimiser does not know it.

    Parameters
    ----------
    p : float in [0, 1]
        Probability that an element is dropped. May be set.
    rng : numpy.random.Generator, int or None
        Draws the masks, in `forward` and nowhere else.

    Raises
    ------
    ValueError, TypeError
        If `p` is not a probability.

    Examples
    --------
    >>> import numpy as np
    >>> from fastlstm.training import Dropout
    >>> dropout = Dropout(0.5, rng=0)
    >>> y, tape = dropout.forward(np.ones(6))
    >>> y
    array([2., 0., 0., 0., 2., 2.])
    >>> dropout(np.ones(6))  # a call is for inference and drops nothing
    array([1., 1., 1., 1., 1., 1.])
    """

    def __init__(self, p: float, *, rng: np.random.Generator | int | None = None) -> None:
        self.p = p
        self._rng = np.random.default_rng(rng)

    @property
    def p(self) -> float:
        """Probability that an element is dropped."""
        return self._p

    @p.setter
    def p(self, value: float) -> None:
        self._p = check_probability("p", value)

    def __repr__(self) -> str:
        return f"Dropout({self.p})"

    def __call__(self, x: ArrayLike) -> NDArray[Any]:
        """Return x as it is."""
        return check_real("x", x)

    def forward(self, x: ArrayLike) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return y of x (...), and the tape for `backward`: what x was multiplied with.

        Parameters
        ----------
        x : array_like
            Of float32 or float64 and any shape.

        Returns
        -------
        y : ndarray
            In the shape of x.
        tape : ndarray
            What x was multiplied with.
        """
        x = check_real("x", x)
        scale = 1 / (1 - self.p) if self.p < 1 else 0.0
        mask = np.multiply(self._rng.random(x.shape) >= self.p, scale, dtype=x.dtype)
        return x * mask, mask

    def backward(self, tape: ArrayLike, dy: ArrayLike) -> DropoutGradients:
        """Return the gradient of x, given that of y.

        Parameters
        ----------
        tape : ndarray
            From `forward`.
        dy : array_like
            Gradient of the loss with respect to y, in its shape.

        Returns
        -------
        DropoutGradients
            ``x``, in the shape of dy.

        Raises
        ------
        ValueError
            If dy has not the shape of y.
        TypeError
            If dy has another dtype than x had.
        """
        mask = check_real("tape", tape)
        dy = check_dtype("dy", dy, mask.dtype)
        if dy.shape != mask.shape:
            raise ValueError(f"dy: expected {mask.shape}, got {dy.shape}")
        return DropoutGradients(dy * mask)
