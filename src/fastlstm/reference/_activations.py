"""The activation functions, each beside its derivative, which is taken from its output.

The formulas are those of ONNX's operators LSTM, GRU and RNN. At a kink the derivative is that of
the side towards 0 or of negative inputs.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastlstm._args.numbers import Activation

Function = Callable[[NDArray[Any]], NDArray[Any]]


@np.errstate(over="ignore")
def sigmoid(z: NDArray[Any]) -> NDArray[Any]:
    """Return the logistic function; where ``exp(-z)`` overflows, its limit 0.

    Parameters
    ----------
    z : array
        Of any shape, float32 or float64.

    Returns
    -------
    array
        In the shape and type of z.

    Examples
    --------
    >>> float(sigmoid(np.float32(0)))
    0.5
    """
    y: NDArray[Any] = 1 / (1 + np.exp(-z))
    return y


# name: from alpha (a) and beta (b), the function of z and the derivative as a function of y
FUNCTIONS: dict[str, Callable[[float, float], tuple[Function, Function]]] = {
    "sigmoid": lambda a, b: (
        sigmoid,
        lambda y: y * (1 - y),
    ),
    "tanh": lambda a, b: (
        np.tanh,
        lambda y: 1 - y * y,
    ),
    "relu": lambda a, b: (
        lambda z: np.maximum(z, 0),
        lambda y: np.where(y > 0, np.ones_like(y), 0),
    ),
    "affine": lambda a, b: (
        lambda z: a * z + b,
        lambda y: np.full_like(y, a),
    ),
    "leaky_relu": lambda a, b: (
        lambda z: np.where(z < 0, a * z, z),
        lambda y: np.where(y > 0, np.ones_like(y), a),
    ),
    "thresholded_relu": lambda a, b: (
        lambda z: np.where(z < a, 0, z),
        lambda y: np.where(y == 0, np.zeros_like(y), 1),
    ),
    "scaled_tanh": lambda a, b: (
        lambda z: a * np.tanh(b * z),
        lambda y: b * (a - y * y / a),
    ),
    "hard_sigmoid": lambda a, b: (
        lambda z: np.clip(a * z + b, 0, 1),
        lambda y: np.where((y > 0) & (y < 1), np.full_like(y, a), 0),
    ),
    "elu": lambda a, b: (
        lambda z: np.where(z < 0, a * np.expm1(np.minimum(z, 0)), z),
        lambda y: np.where(y > 0, np.ones_like(y), y + a),
    ),
    "softsign": lambda a, b: (
        lambda z: z / (1 + np.abs(z)),
        lambda y: np.square(1 - np.abs(y)),
    ),
    "softplus": lambda a, b: (
        lambda z: np.maximum(z, 0) + np.log1p(np.exp(-np.abs(z))),
        lambda y: -np.expm1(-y),
    ),
}


def function(activation: Activation, clip: float | None = None) -> Function:
    """Return the activation as a function of z, which is clipped first if there is a bound."""
    name, alpha, beta = activation
    s, _ = FUNCTIONS[name](alpha, beta)
    return s if clip is None else lambda z: s(np.clip(z, -clip, clip))


def derivative(activation: Activation) -> Function:
    """Return the activation's derivative as a function of its output."""
    name, alpha, beta = activation
    return FUNCTIONS[name](alpha, beta)[1]
