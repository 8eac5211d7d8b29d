from typing import Any

from numpy.typing import NDArray

C_API_CAPSULE: object
C_API_ADDRESS: int

class Weights:
    H: int
    def __init__(
        self,
        cell: str,
        w_ih: NDArray,
        w_hh: NDArray,
        b: NDArray | None,
        *,
        reset_after: bool = True,
        peephole: NDArray | None = None,
        w_proj: NDArray | None = None,
        layer_norm: NDArray | None = None,
        coupled: bool = False,
        clip: float | None = None,
        cell_clip: float | None = None,
        proj_clip: float | None = None,
        activations: tuple[tuple[int, float, float], ...],
    ) -> None: ...
    def prepare_backward(
        self, w_ih: NDArray, w_hh: NDArray, w_proj: NDArray | None = None
    ) -> None: ...

class Tape:
    x: NDArray
    memory: Any
    nbytes: int
    def __init__(
        self,
        weights: Weights,
        x: NDArray,
        lengths: NDArray | None,
        reverse: bool,
        memory: NDArray,
        *,
        packed: bool = False,
    ) -> None: ...

def tape_bytes(weights: Weights, rows: Any, B: Any) -> Any: ...

class Stream:
    state: Any
    def __init__(self, layer: Any, batch_size: int) -> None: ...
    def reset(self) -> None: ...
    def step(self, x_t: NDArray, out: NDArray | None = None) -> NDArray: ...

def forward(
    weights: Weights,
    x: NDArray,
    h_0: NDArray | None,
    c_0: NDArray | None,
    lengths: NDArray | None,
    reverse: bool,
    training: bool,
    y: NDArray,
    h_n: NDArray,
    c_n: NDArray | None,
    zoneout_h: float | NDArray | None = None,
    zoneout_c: float | NDArray | None = None,
    dropout: NDArray | None = None,
    *,
    packed: bool = False,
) -> Tape | None: ...
def backward(
    tape: Tape,
    dy: NDArray | None,
    dh_n: NDArray | None,
    dc_n: NDArray | None,
    dx: NDArray | None,
    dw_ih: NDArray,
    dw_hh: NDArray,
    db: NDArray | None,
    dh_0: NDArray | None,
    dc_0: NDArray | None,
    dpeephole: NDArray | None = None,
    dw_proj: NDArray | None = None,
    dlayer_norm: NDArray | None = None,
) -> None: ...
def copy_from_tape(tape: Tape, name: str, block: int, out: NDArray) -> None: ...
def fingerprint(params: NDArray) -> bytes: ...
def sigmoid(x: NDArray, y: NDArray) -> None: ...
def tanh(x: NDArray, y: NDArray) -> None: ...
def fma_peak(repeats: int) -> None: ...
def fma_peak_operations() -> int: ...
def read(x: NDArray, repeats: int) -> None: ...
