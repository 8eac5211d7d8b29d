"""PyTorch's tensors as the core sees them: arrays over the same memory, and packed weights.

Decisions:
a) Packed weights are kept as long as the tensor `w_hh` lives, with a fingerprint of all numbers in
   them. So a change by any route is seen: optimizers, ``.data``, a NumPy view.
b) With them are kept the arrays over the parameters, for as long as these have the same memory in
   the same layout: to make one costs as much as to take the fingerprint of 24 units.
"""

import weakref
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from fastlstm._args.cells import GRU, LSTM, RNN, join_biases
from fastlstm._args.numbers import check_activation, check_activations
from fastlstm._core.calls import CORES, make_weights

CELLS = {"LSTM": LSTM, "GRU": GRU, "RNN_TANH": RNN, "RNN_RELU": RNN}  # by PyTorch's mode
ACTIVATIONS = {
    mode: check_activations(cell.activations, cell.roles) for mode, cell in CELLS.items()
} | {"RNN_RELU": (check_activation("nonlinearity", "relu"),)}


def array_of(tensor: Tensor | None) -> Any:
    """Return the tensor's memory as an array."""
    return None if tensor is None else tensor.detach().numpy()


def sequence_of(tensor: Tensor | None) -> Any:
    """Return an array (T, B, .), or (1, rows, .) of packed data."""
    array = array_of(tensor)
    return array if array is None or array.ndim == 3 else array[np.newaxis]


def lengths_of(batch_sizes: Tensor | None, rows: int) -> Any:
    """Return the falling lengths of the rows of packed data."""
    if batch_sizes is None:
        return None
    sizes = batch_sizes.numpy()
    ends = -np.diff(sizes, append=0)  # how many rows end with each step
    if ends.min() < 0 or ends[-1] < 1 or sizes.sum() != rows:
        raise ValueError(f"batch_sizes: expected falling sizes with the sum {rows}, got {sizes}")
    return np.repeat(np.arange(len(sizes), 0, -1), ends[::-1])


class Kept(NamedTuple):
    """What was made of the parameters of one layer and direction; each list has an item for each.

    The weak reference ends it with `w_hh`.
    """

    ref: Any
    mode: str
    layouts: list[Any]
    arrays: list[Any]
    fingerprints: list[Any]
    weights: Any


_kept: dict[int, Kept] = {}  # by id of w_hh


def make_packed(mode: str, core: Any, w_ih: Any, w_hh: Any, bias: Any, w_proj: Any) -> Any:
    """Return packed weights of arrays."""
    kind, activations = CELLS[mode].kind, ACTIVATIONS[mode]
    return make_weights(core, kind, w_ih, w_hh, bias, w_proj=w_proj, activations=activations)


def pack(
    mode: str,
    w_ih: Tensor,
    w_hh: Tensor,
    w_hr: Tensor | None,
    *biases: Tensor | None,
    backward: bool,
) -> Any:
    """Return packed weights that agree with the parameters as they are now.

    The backward pass alone needs no biases.
    """
    parts, key = (w_ih, w_hh, w_hr, *biases), id(w_hh)
    n = len(parts)
    layouts = [p if p is None else (p.data_ptr(), p.shape, p.stride()) for p in parts]
    kept = _kept.get(key)
    if kept is not None and kept.layouts[:n] == layouts and kept.mode == mode:
        arrays = kept.arrays[:n]
    else:
        kept, arrays = None, [array_of(part) for part in parts]
    core = CORES[arrays[0].dtype]
    fingerprints = [a if a is None else core.fingerprint(a.ravel()) for a in arrays]
    if kept is None or kept.fingerprints[:n] != fingerprints:
        bias = join_biases(CELLS[mode], *arrays[3:]) if n > 3 and arrays[3] is not None else None
        weights = make_packed(mode, core, arrays[0], arrays[1], bias, arrays[2])
        ref = weakref.ref(w_hh, lambda _: _kept.pop(key, None))
        kept = _kept[key] = Kept(ref, mode, layouts, arrays, fingerprints, weights)
    if backward:
        kept.weights.prepare_backward(*arrays[:3])
    return kept.weights
