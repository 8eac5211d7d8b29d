"""Checks of the arguments of the array API that are not arrays: numbers and activations.

Decisions:
a) Activations are written as ONNX writes them, in lower case with underscores, and become triples
   (name, alpha, beta) with ONNX's defaults: below this check none has a part missing.
b) The derivative of every activation is taken from its output. So leaky_relu and elu need
   alpha >= 0, without which the output does not tell the sign of the input, and scaled_tanh needs
   alpha != 0.
"""

from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any

Activation = tuple[str, float, float]
ActivationLike = str | Sequence[str | float]

# in the order of csrc/kernels.h and fastlstm.h, the parameters of each; affine and scaled_tanh, for
# which ONNX has no default, are plain without
ACTIVATIONS: dict[str, tuple[float, ...]] = {
    "sigmoid": (),
    "tanh": (),
    "relu": (),
    "affine": (1.0, 0.0),
    "leaky_relu": (0.01,),
    "thresholded_relu": (1.0,),
    "scaled_tanh": (1.0, 1.0),
    "hard_sigmoid": (0.2, 0.5),
    "elu": (1.0,),
    "softsign": (),
    "softplus": (),
}

NUMBERS = {name: k for k, name in enumerate(ACTIVATIONS)}
BY_NAME: dict[str, Activation] = {
    name: (name, (*defaults, 0.0)[0], (*defaults, 0.0, 0.0)[1])
    for name, defaults in ACTIVATIONS.items()
}


def is_number(value: Any) -> bool:
    """Return whether `value` is a real number, of Python's or NumPy's, but not a bool."""
    return isinstance(value, Real) and not isinstance(value, bool)


def check_size(name: str, value: Any, least: int = 1) -> int:
    """Return `value` as an integer of at least `least`."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{name}: expected an integer, got {type(value).__name__}")
    if value < least:
        raise ValueError(f"{name}: expected at least {least}, got {value}")
    return int(value)


def check_probability(name: str, value: Any) -> float:
    """Return `value` as a float in [0, 1]."""
    if not is_number(value):
        raise TypeError(f"{name}: expected a number, got {type(value).__name__}")
    if not 0 <= value <= 1:
        raise ValueError(f"{name}: expected a probability, got {value}")
    return float(value)


def check_not_negative(name: str, value: float) -> float:
    """Return `value` as a float of at least 0."""
    if not value >= 0:
        raise ValueError(f"{name}: expected a number >= 0, got {value}")
    return float(value)


def check_bound(name: str, value: Any) -> float | None:
    """Return `value` as a positive Python float, or None."""
    if value is None:
        return None
    if not is_number(value):
        raise TypeError(f"{name}: expected a number, got {type(value).__name__}")
    if not value > 0:
        raise ValueError(f"{name}: expected a number above 0, got {value}")
    return float(value)


def check_flag(name: str, value: Any) -> bool:
    """Return `value` as a bool; anything has a truth."""
    return bool(value)


def check_activation(name: str, value: Any) -> Activation:
    """Return an activation, given by its name or as (name, alpha[, beta]), with all its parts."""
    if isinstance(value, str) and value in BY_NAME:
        return BY_NAME[value]
    parts = (value,) if isinstance(value, str) else value
    if not (isinstance(parts, tuple | list) and parts and isinstance(parts[0], str)):
        raise TypeError(f"{name}: expected a name or (name, alpha[, beta]), got {value!r}")
    kind, given = parts[0], parts[1:]
    if kind not in ACTIVATIONS:
        raise ValueError(f"{name}: expected one of {', '.join(ACTIVATIONS)}, got {kind!r}")
    defaults = ACTIVATIONS[kind]
    if len(given) > len(defaults):
        raise ValueError(
            f"{name}: expected {kind} with at most {len(defaults)} parameters, got {len(given)}"
        )
    for number in given:
        if not is_number(number):
            raise TypeError(f"{name}: expected numbers after {kind}, got {type(number).__name__}")
    alpha, beta, *_ = (*map(float, given), *defaults[len(given) :], 0.0, 0.0)
    if kind in ("leaky_relu", "elu") and not alpha >= 0:
        raise ValueError(f"{name}: expected {kind} with alpha of at least 0, got {alpha}")
    if kind == "scaled_tanh" and alpha == 0:
        raise ValueError(f"{name}: expected scaled_tanh with alpha other than 0, got {alpha}")
    return kind, alpha, beta


def shortest(activation: Activation) -> ActivationLike:
    """Return an activation as a user would write it."""
    name = activation[0]
    return name if activation == BY_NAME[name] else activation[: 1 + len(ACTIVATIONS[name])]


def check_activations(values: Any, roles: tuple[str, ...]) -> tuple[Activation, ...]:
    """Return one checked activation for each role."""
    if not isinstance(values, tuple | list):
        raise TypeError(f"activations: expected a tuple, got {type(values).__name__}")
    if len(values) != len(roles):
        raise ValueError(
            f"activations: expected {len(roles)} ({', '.join(roles)}), got {len(values)}"
        )
    return tuple(check_activation(f"activations[{k}]", value) for k, value in enumerate(values))


COMPUTE_DTYPES = ("bfloat16", "int8")


def check_compute_dtype(name: str, value: Any) -> str | None:
    """Return what products are computed in, None for the dtype of the arrays."""
    if value is None:
        return None
    if not isinstance(value, str):
        raise TypeError(f"{name}: expected None or a name, got {type(value).__name__}")
    if value not in COMPUTE_DTYPES:
        raise ValueError(f"{name}: expected None, 'bfloat16' or 'int8', got {value!r}")
    return value


# what a cell can be told beside arrays and activations, by functions and layers alike
OPTIONS: dict[str, Callable[[str, Any], Any]] = {
    "coupled": check_flag,
    "reset_after": check_flag,
    "nonlinearity": check_activation,
    "clip": check_bound,
    "cell_clip": check_bound,
    "proj_clip": check_bound,
    "compute_dtype": check_compute_dtype,
}


def number_of(activation: Activation) -> tuple[int, float, float]:
    """Return an activation as the core knows it: with its place in ACTIVATIONS for its name."""
    name, alpha, beta = activation
    return NUMBERS[name], alpha, beta
