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
        isa: str | None = None,
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
        memory: NDArray,
        *,
        lengths: NDArray | None = None,
        reverse: bool = False,
        concatenated: bool = False,
        resets: NDArray | None = None,
    ) -> None: ...

def tape_bytes(weights: Weights, rows: Any, B: Any) -> Any: ...

class Stream:
    def restart(
        self, weights: list[Weights], zoneout: tuple[float | None, float | None], B: int
    ) -> None: ...
    def readable(self, x_t: Any) -> NDArray: ...
    def writable(self, out: Any) -> None: ...
    def step(self, x_t: NDArray, out: NDArray | None = None) -> NDArray: ...
    def copy_state(self) -> tuple[NDArray, NDArray | None]: ...
    def zero_rows(self, resets: NDArray) -> None: ...
    def set_state(self, h: list[NDArray | None], c: list[NDArray | None]) -> None: ...

class ForwardCall:
    tape: Tape | None
    def __init__(
        self,
        weights: Weights,
        x: NDArray,
        y: NDArray,
        *,
        initial: tuple[NDArray | None, NDArray | None],
        final: tuple[NDArray, NDArray | None],
        masks: tuple[Any, Any, Any] | None = None,
        lengths: NDArray | None = None,
        reverse: bool = False,
        resets: NDArray | None = None,
        training: bool = False,
        concatenated: bool = False,
    ) -> None: ...

class BackwardCall:
    def __init__(
        self,
        tape: Tape,
        *,
        dy: NDArray | None,
        dfinal: tuple[NDArray | None, NDArray | None],
        dx: NDArray | None,
        dinitial: tuple[NDArray | None, NDArray | None],
        w_ih: NDArray,
        w_hh: NDArray,
        b: NDArray | None = None,
        peephole: NDArray | None = None,
        w_proj: NDArray | None = None,
        layer_norm: NDArray | None = None,
    ) -> None: ...

def run_forward(calls: list[ForwardCall], chained: bool = False) -> None: ...
def run_backward(calls: list[BackwardCall], chained: bool = False) -> None: ...
def copy_from_tape(tape: Tape, name: str, block: int, out: NDArray) -> None: ...
def fingerprint(params: NDArray) -> bytes: ...
def sigmoid(x: NDArray, y: NDArray) -> None: ...
def tanh(x: NDArray, y: NDArray) -> None: ...
def fma_peak(repeats: int) -> None: ...
def fma_peak_operations() -> int: ...
def read(x: NDArray, repeats: int) -> None: ...
