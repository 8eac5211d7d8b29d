from collections.abc import Callable
from typing import Any

from numpy.typing import NDArray
from typing_extensions import disjoint_base

C_API_CAPSULE: object
C_API_ADDRESS: int

@disjoint_base
class Weights:
    H: int
    def __init__(
        self,
        cell: str,
        w_ih: NDArray[Any],
        w_hh: NDArray[Any],
        b: NDArray[Any] | None,
        *,
        reset_after: bool = True,
        peephole: NDArray[Any] | None = None,
        w_proj: NDArray[Any] | None = None,
        layer_norm: NDArray[Any] | None = None,
        coupled: bool = False,
        clip: float | None = None,
        cell_clip: float | None = None,
        proj_clip: float | None = None,
        activations: tuple[tuple[int, float, float], ...],
        isa: str | None = None,
    ) -> None: ...
    def prepare_backward(
        self, w_ih: NDArray[Any], w_hh: NDArray[Any], w_proj: NDArray[Any] | None = None
    ) -> None: ...

@disjoint_base
class Tape:
    x: NDArray[Any]
    memory: Any
    nbytes: int
    def __init__(
        self,
        weights: Weights,
        x: NDArray[Any],
        memory: NDArray[Any],
        *,
        lengths: NDArray[Any] | None = None,
        reverse: bool = False,
        concatenated: bool = False,
        resets: NDArray[Any] | None = None,
    ) -> None: ...

def tape_bytes(weights: Weights, rows: Any, B: Any) -> Any: ...

@disjoint_base
class Schedule: ...

@disjoint_base
class Masks: ...

@disjoint_base
class Stream:
    def restart(
        self, weights: list[Weights], zoneout: tuple[float | None, float | None], B: int
    ) -> None: ...
    def readable(self, x_t: Any) -> NDArray[Any]: ...
    def writable(self, out: Any) -> None: ...
    def step(self, x_t: NDArray[Any], out: NDArray[Any] | None = None) -> NDArray[Any]: ...
    def copy_state(self) -> tuple[NDArray[Any], NDArray[Any] | None]: ...
    def zero_rows(self, resets: NDArray[Any]) -> None: ...
    def set_state(self, h: list[NDArray[Any] | None], c: list[NDArray[Any] | None]) -> None: ...

@disjoint_base
class ForwardCall:
    tape: Tape | None
    def __init__(
        self,
        weights: Weights,
        x: NDArray[Any],
        y: NDArray[Any],
        *,
        initial: tuple[NDArray[Any] | None, NDArray[Any] | None],
        final: tuple[NDArray[Any], NDArray[Any] | None],
        masks: tuple[Any, Any, Any] | None = None,
        lengths: NDArray[Any] | None = None,
        reverse: bool = False,
        resets: NDArray[Any] | None = None,
        training: bool = False,
        concatenated: bool = False,
    ) -> None: ...

@disjoint_base
class BackwardCall:
    def __init__(
        self,
        tape: Tape,
        *,
        dy: NDArray[Any] | None,
        dfinal: tuple[NDArray[Any] | None, NDArray[Any] | None],
        dx: NDArray[Any] | None,
        dinitial: tuple[NDArray[Any] | None, NDArray[Any] | None],
        w_ih: NDArray[Any],
        w_hh: NDArray[Any],
        b: NDArray[Any] | None = None,
        peephole: NDArray[Any] | None = None,
        w_proj: NDArray[Any] | None = None,
        layer_norm: NDArray[Any] | None = None,
    ) -> None: ...

def run_forward(calls: list[ForwardCall], chained: bool = False) -> int: ...
def run_backward(calls: list[BackwardCall], chained: bool = False) -> int: ...

class Stack:
    def __init__(
        self,
        flat: NDArray[Any],
        parameters: list[dict[str, NDArray[Any]]],
        pack: Callable[..., Weights],
        *,
        directions: int,
        reverse: bool,
        has_c: bool,
        hidden_size: int,
        output_size: int,
    ) -> None: ...
    def weights_of(self, layer: int) -> Weights: ...
    def forward(
        self,
        x: NDArray[Any],
        initial: tuple[NDArray[Any] | None, NDArray[Any] | None],
        batch_first: bool,
        taped: bool,
        lengths: NDArray[Any] | None,
        restarts: list[NDArray[Any] | None] | None,
        input_masks: list[NDArray[Any] | None] | None,
        masks: list[Any] | None,
        new_checkpoints: Callable[..., Any] | None,
    ) -> tuple[NDArray[Any], Any, list[list[Any]]]: ...
    def backward(
        self,
        tapes: list[list[Any]],
        dy: NDArray[Any] | None,
        dfinal: tuple[NDArray[Any] | None, NDArray[Any] | None],
        input_masks: list[NDArray[Any] | None] | None,
        ragged: bool,
        input_gradient: bool,
    ) -> tuple[NDArray[Any] | None, Any, NDArray[Any]]: ...

def views(
    flat: NDArray[Any], layout: list[tuple[str, int, tuple[int, ...]]]
) -> dict[str, NDArray[Any]]: ...
def copy_from_tape(tape: Tape, name: str, block: int, out: NDArray[Any]) -> None: ...
def fingerprint(params: NDArray[Any]) -> bytes: ...
def sigmoid(x: NDArray[Any], y: NDArray[Any]) -> None: ...
def tanh(x: NDArray[Any], y: NDArray[Any]) -> None: ...
def fma_peak(repeats: int) -> None: ...
def fma_peak_operations() -> int: ...
def read(x: NDArray[Any], repeats: int) -> None: ...
