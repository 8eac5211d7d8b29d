from numpy.typing import NDArray

def sgd_step(w: NDArray, g: NDArray, lr: float, weight_decay: float) -> None: ...
def momentum_step(
    w: NDArray,
    g: NDArray,
    velocity: NDArray,
    lr: float,
    weight_decay: float,
    momentum: float,
    nesterov: bool,
) -> None: ...
def adam_step(
    w: NDArray,
    g: NDArray,
    m: NDArray,
    v: NDArray,
    t: int,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    l2: float,
    shrink: float,
) -> None: ...
def sum_of_squares(g: NDArray) -> float: ...
