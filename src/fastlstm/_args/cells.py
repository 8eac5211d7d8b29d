"""What a cell is: one table, from which checks, layers, the C API and the exchange read.

Sizes: T steps, B rows, I input, H hidden units, R what is fed back (H, or a projection's), G gates.

Decisions:
a) A row for each set of parameters: the coupled LSTM and the GRU that resets before the product
   are rows of their own; what only changes the arithmetic is an option.
b) Gates are letters. An order of them is a word, whose letters are the blocks of H rows.
c) What the core does with a row of the table it knows itself, by FASTLSTM_LSTM and so on; nothing
   compiled imports this.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

# a layer's parameters in the order of its flat buffer: the argument of lstm_forward, gru_forward or
# rnn_forward; the name in `params`; the argument of the constructor that asks for it, if one does
PARAMETERS = {
    "w_ih": ("weight_ih", None),
    "w_hh": ("weight_hh", None),
    "b": ("bias", "bias"),
    "w_proj": ("weight_hr", "proj_size"),
    "peephole": ("peephole", "peephole"),
    "layer_norm": ("layer_norm", "layer_norm"),
}


@dataclass(frozen=True)
class Cell:
    """A row of the table."""

    kind: str  # of function and layer
    gates: str  # the blocks of w_ih and w_hh
    candidate: str  # the one of them that is what enters the state, not how much
    bias: str  # the blocks of b; q is the recurrent bias within the GRU's reset
    blocks: str  # of a row of gates in the core, see csrc/kernels.h; the RNN's has no blocks
    onnx: str  # the gates in the order of ONNX, which also has those without weights here
    states: tuple[str, ...]
    roles: tuple[str, ...]  # of the activations
    activations: tuple[str, ...]  # the usual ones
    parameters: tuple[str, ...] = ("w_ih", "w_hh", "b")

    @property
    def G(self) -> int:
        """Number of gates that have weights."""
        return len(self.gates)

    @cached_property
    def has_c(self) -> bool:
        """Whether there is a cell state beside h."""
        return "c" in self.states

    def shapes(self, T: int, B: int, I: int, H: int, R: int) -> dict[str, tuple[int, ...]]:
        """Return the shapes of all parameters, states and masks that a cell may have."""
        G = len(self.gates)
        return {
            "w_ih": (G * H, I),
            "w_hh": (G * H, R),
            "b": (len(self.bias) * H,),
            "w_proj": (R, H),
            "peephole": (G - 1, H),  # all but the candidate's
            "layer_norm": (2 * G + 2, H),  # gains of x and of h for each gate; gain, shift of c
            "h_0": (B, R),
            "c_0": (B, H),
            "zoneout_h": (T, B, R),
            "zoneout_c": (T, B, H),
            "dropout_h": (B, R),
        }


LSTM = Cell(
    kind="lstm",
    gates="ifgo",
    candidate="g",
    bias="ifgo",
    blocks="figo",
    onnx="iofg",
    states=("h", "c"),
    roles=("gates", "candidate", "output"),
    activations=("sigmoid", "tanh", "tanh"),
    parameters=tuple(PARAMETERS),
)
LSTM_COUPLED = replace(LSTM, gates="igo", bias="igo")  # f = 1 - i
GRU = Cell(
    kind="gru",
    gates="rzn",
    candidate="n",
    bias="rznq",
    blocks="nrzq",
    onnx="zrn",
    states=("h",),
    roles=("gates", "candidate"),
    activations=("sigmoid", "tanh"),
)
GRU_RESET_BEFORE = replace(GRU, bias="rzn")
RNN = Cell(
    kind="rnn",
    gates="h",
    candidate="h",
    bias="h",
    blocks="",
    onnx="h",
    states=("h",),
    roles=("nonlinearity",),
    activations=("tanh",),
)

CELLS = (LSTM, LSTM_COUPLED, GRU, GRU_RESET_BEFORE, RNN)  # in the order of fastlstm.h
PLAIN = {cell.kind: cell for cell in (LSTM, GRU, RNN)}


def find_cell(kind: str, options: Mapping[str, Any]) -> Cell:
    """Return the row for the options of a function or layer."""
    if options.get("coupled"):
        return LSTM_COUPLED
    if not options.get("reset_after", True):
        return GRU_RESET_BEFORE
    return PLAIN[kind]


def join_biases(cell: Cell, b_ih: NDArray[Any], b_hh: NDArray[Any]) -> NDArray[Any]:
    """Return the one bias for PyTorch's and ONNX's two, gates in our order.

    It is their sum, but that the GRU keeps the recurrent bias within its reset apart.

    Examples
    --------
    >>> import numpy as np
    >>> join_biases(GRU, np.array([1, 2, 3]), np.array([10, 20, 30]))
    array([11, 22,  3, 30])
    """
    H = len(b_ih) // cell.G
    n = len(b_ih) - (len(cell.bias) - cell.G) * H
    return np.concatenate([b_ih[:n] + b_hh[:n], b_ih[n:], b_hh[n:]])


def split_bias(cell: Cell, b: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return two biases for the one: in the second is only what must be."""
    n = cell.G * len(b) // len(cell.bias)
    b_ih, b_hh = b[:n].copy(), np.zeros_like(b[:n])
    b_hh[n - len(b[n:]) :] = b[n:]
    return b_ih, b_hh
