"""The linear layer: from a hidden state to what is wanted."""

from __future__ import annotations  # so that help() shows names

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from fastlstm._args.arrays import check_dtype, check_real_dtype
from fastlstm._args.numbers import (
    Activation,
    ActivationLike,
    check_activation,
    check_size,
    shortest,
)
from fastlstm._layers.fixed import FLAT, Fixed, check_flat
from fastlstm.reference._activations import derivative, function


class LinearGradients(NamedTuple):
    """Result of `Linear.backward`: the gradient of x and of each parameter (views of `flat`).

    Parameters
    ----------
    x : ndarray
        Gradient of x.
    params : dict of arrays
        Gradients of the parameters, by name; views of `flat`.
    flat : ndarray
        All of them in one dimension.
    """

    x: NDArray[Any]
    params: dict[str, NDArray[Any]]
    flat: NDArray[Any]


class Linear(Fixed):
    """An affine map of the last axis, ``y = activation(x @ weight.T + bias)``.

    Parameters
    ----------
    in_features, out_features : int
        Sizes of the last axis of x and of y, at least 1.
    bias : bool
        Whether there is a bias.
    activation : str or tuple, optional
        What is applied to the result, as `lstm_forward` writes it; None for nothing.
    dtype : dtype
        Type, float32 or float64, of the parameters and of every array given and returned.
    rng : numpy.random.Generator, int or None
        Draws the initial parameters: uniform within ``1 / sqrt(in_features)``, as PyTorch does.

    Attributes
    ----------
    params : dict
        ``weight`` (out_features, in_features) and ``bias`` (out_features,), writable views of
        `flat`.
    flat : ndarray
        All parameters in one dimension. Neither this nor the arguments can be set.

    Raises
    ------
    ValueError
        If a size is less than 1.
    TypeError
        If a size is not an integer or `dtype` is not float32 or float64.

    Examples
    --------
    >>> import numpy as np
    >>> from fastlstm.training import Linear
    >>> linear = Linear(3, 2, rng=0)
    >>> linear(np.ones((5, 4, 3), dtype=np.float32)).shape
    (5, 4, 2)
    """

    in_features: int
    out_features: int
    bias: bool
    activation: Activation | None
    dtype: np.dtype
    _fixed = FLAT | {"in_features", "out_features", "bias", "activation", "dtype"}

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        bias: bool = True,
        activation: ActivationLike | None = None,
        dtype: DTypeLike = np.float32,
        rng: np.random.Generator | int | None = None,
    ) -> None:
        size = self._configure(in_features, out_features, bias, dtype, activation)
        bound = 1 / math.sqrt(self.in_features)
        self._own(np.random.default_rng(rng).uniform(-bound, bound, size).astype(self.dtype))

    def _configure(
        self, in_features: Any, out_features: Any, bias: Any, dtype: Any, activation: Any = None
    ) -> int:
        """Take the arguments, checked; return the number of parameters."""
        self._fix(
            {
                "in_features": check_size("in_features", in_features),
                "out_features": check_size("out_features", out_features),
                "bias": bool(bias),
                "activation": None
                if activation is None
                else check_activation("activation", activation),
                "dtype": check_real_dtype("dtype", dtype),
            }
        )
        return self.out_features * (self.in_features + self.bias)

    def _views(self, flat: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Name the parts of a flat buffer."""
        shape = (self.out_features, self.in_features)
        views = {"weight": flat[: math.prod(shape)].reshape(shape)}
        if self.bias:
            views["bias"] = flat[math.prod(shape) :]
        return views

    def __repr__(self) -> str:
        activation = ""
        if self.activation is not None:
            activation = f"activation={shortest(self.activation)!r}, "
        return (
            f"Linear({self.in_features}, {self.out_features}, "
            f"bias={self.bias}, {activation}dtype={self.dtype.name})"
        )

    def __getstate__(self) -> dict[str, Any]:
        state = {name: value for name, value in vars(self).items() if name != "params"}
        return state | {"activation": self.activation and shortest(self.activation)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        given = (state[name] for name in ("in_features", "out_features", "bias", "dtype"))
        size = self._configure(*given, state.get("activation"))  # type: ignore[call-arg]
        self._own(check_flat(state["flat"], size, self.dtype))

    def __call__(self, x: ArrayLike) -> NDArray[Any]:
        """Return y (..., out_features) of x (..., in_features).

        Raises
        ------
        ValueError
            If the last axis of x is not in_features long.
        TypeError
            If x has another dtype than the layer.
        """
        y, _ = self.forward(x)
        return y

    def forward(self, x: ArrayLike) -> tuple[NDArray[Any], object]:
        """Return y, as a call does, and the tape for `backward`, which refers to x.

        Parameters
        ----------
        x : (..., in_features) array_like
            Of the layer's dtype.

        Returns
        -------
        y : (..., out_features) array
            The result.
        tape : object
            For `backward`.
        """
        x = check_dtype("x", x, self.dtype)
        if x.ndim == 0 or x.shape[-1] != self.in_features:
            raise ValueError(f"x: expected (..., {self.in_features}), got {x.shape}")
        y = x @ self.params["weight"].T
        if self.bias:
            y += self.params["bias"]
        if self.activation is None:
            return y, x
        y = function(self.activation)(y).astype(self.dtype, copy=False)
        return y, (x, y)

    def backward(self, tape: object, dy: ArrayLike) -> LinearGradients:
        """Return the gradients, given that of y.

        Parameters
        ----------
        tape : object
            From `forward`. The gradient of x uses the parameters as they are now, so update them
            after this call.
        dy : array_like, (..., out_features)
            Gradient of the loss with respect to y.

        Returns
        -------
        LinearGradients
            ``x`` (..., in_features), ``params`` with the keys of the layer's, and ``flat``.

        Raises
        ------
        ValueError
            If dy has not the shape of y.
        TypeError
            If dy has another dtype than the layer, or the tape is not a tape of this layer.
        """
        x, y = tape if isinstance(tape, tuple) else (tape, None)
        if not isinstance(x, np.ndarray) or (y is None) != (self.activation is None):
            raise TypeError(f"tape: expected what forward returned, got {type(tape).__name__}")
        dy = np.asarray(check_dtype("dy", dy, self.dtype))
        shape = (*x.shape[:-1], self.out_features)
        if dy.shape != shape:
            raise ValueError(f"dy: expected {shape}, got {dy.shape}")
        if self.activation is not None:
            dy = np.asarray(dy * derivative(self.activation)(y), self.dtype)
        flat = np.empty_like(self.flat)
        gradients = self._views(flat)
        rows = dy.reshape(-1, self.out_features)
        np.matmul(rows.T, x.reshape(-1, self.in_features), out=gradients["weight"])
        if self.bias:
            np.sum(rows, axis=0, out=gradients["bias"])
        return LinearGradients(dy @ self.params["weight"], gradients, flat)
