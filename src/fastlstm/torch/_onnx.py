"""One layer in one direction as a node of ONNX, for ``torch.onnx.export``.

Decisions:
a) The exporter knows no translation of our operator, and PyTorch's own modules become graphs in
   which the sizes of the example are fixed, or in which every step stands by itself. So the node is
   said here, by ``torch.onnx.ops``; T and B stay open.
b) What ONNX cannot say is left to PyTorch; its export of a projection does not run (2.13).
c) Gates are put into ONNX's order by operators on the parameters, which the exporter folds.
"""

import torch
from torch import Tensor

from fastlstm._args.cells import Cell
from fastlstm.torch._arrays import CELLS

OPSET = 14  # the first in which LSTM, GRU and RNN are as they are now


def is_wanted() -> bool:
    """Whether a model is being exported, and not by tracing."""
    return torch.compiler.is_compiling() and torch.onnx.is_in_onnx_export()


def node(
    mode, x, h_0, c_0, w_ih, w_hh, w_hr, b_ih, b_hh, batch_sizes, resets, B, reverse, keep_tape
):
    """Return what `recurrence` does, without a tape; no projection, nothing packed, no resets."""
    cell, T, H = CELLS[mode], x.shape[0], w_hh.shape[1]
    bias = None
    if b_ih is not None:
        bias = torch.cat([_reordered(cell, b_ih), _reordered(cell, b_hh)]).unsqueeze(0)
    weights = [_reordered(cell, w).unsqueeze(0) for w in (w_ih, w_hh)]
    states = [s if s is None else s.unsqueeze(0) for s in (h_0, c_0)][: len(cell.states)]
    attributes = {"hidden_size": H, "direction": "reverse" if reverse else "forward"}
    if cell.kind == "gru":
        attributes["linear_before_reset"] = 1
    if mode == "RNN_RELU":
        attributes["activations"] = ["Relu"]
    y, *final = torch.onnx.ops.symbolic_multi_out(
        cell.kind.upper(),
        [x, *weights, bias, None, *states],
        attributes,
        dtypes=[x.dtype] * (1 + len(states)),
        shapes=[(T, 1, B, H), *[(1, B, H)] * len(states)],
        version=OPSET,
    )
    h_n, c_n = (*(s.squeeze(0) for s in final), None)[:2]
    return y.squeeze(1), h_n, c_n, None


def _reordered(cell: Cell, array: Tensor) -> Tensor:
    """Return the blocks of gates in ONNX's order."""
    H = len(array) // cell.G
    starts = [H * cell.gates.index(gate) for gate in cell.onnx]
    return torch.cat([array[start : start + H] for start in starts])
