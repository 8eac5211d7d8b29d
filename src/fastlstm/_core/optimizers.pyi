from typing import Any

from numpy.typing import NDArray

def sgd_step(w: NDArray[Any], g: NDArray[Any], lr: float, weight_decay: float) -> None: ...
def momentum_step(
    w: NDArray[Any],
    g: NDArray[Any],
    velocity: NDArray[Any],
    lr: float,
    weight_decay: float,
    momentum: float,
    nesterov: bool,
) -> None: ...
def adam_step(
    w: NDArray[Any],
    g: NDArray[Any],
    m: NDArray[Any],
    v: NDArray[Any],
    t: int,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    l2: float,
    shrink: float,
) -> None: ...
def sum_of_squares(g: NDArray[Any]) -> float: ...
