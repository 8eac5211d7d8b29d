from typing import Any

from numpy.typing import NDArray

class LSTMWeights:
    I: int
    H: int
    def __init__(self, w_ih: NDArray, w_hh: NDArray, b: NDArray | None) -> None: ...
    def prepare_backward(self, w_ih: NDArray, w_hh: NDArray) -> None: ...

class LSTMTape:
    x: NDArray
    nbytes: int

class Stream:
    state: tuple[NDArray, NDArray]
    def __init__(self, lstm: Any, batch_size: int) -> None: ...
    def reset(self) -> None: ...
    def step(self, x_t: NDArray, out: NDArray | None = None) -> NDArray: ...

def lstm_forward(
    weights: LSTMWeights,
    x: NDArray,
    h_0: NDArray | None,
    c_0: NDArray | None,
    lengths: NDArray | None,
    reverse: bool,
    training: bool,
    y: NDArray,
    h_n: NDArray,
    c_n: NDArray,
) -> LSTMTape | None: ...
def lstm_backward(
    tape: LSTMTape,
    dy: NDArray | None,
    dh_n: NDArray | None,
    dc_n: NDArray | None,
    dx: NDArray,
    dw_ih: NDArray,
    dw_hh: NDArray,
    db: NDArray | None,
    dh_0: NDArray | None,
    dc_0: NDArray | None,
) -> None: ...
def fingerprint(params: NDArray) -> bytes: ...
def sigmoid(x: NDArray, y: NDArray) -> None: ...
def tanh(x: NDArray, y: NDArray) -> None: ...
def fma_peak(repeats: int) -> None: ...
def fma_peak_operations() -> int: ...
def read(x: NDArray, repeats: int) -> None: ...
