"""A recurrent layer of Keras by the operators of `fastlstm.torch`.

Decisions:
a) A mask, of whatever form, says which steps of a row are there. These are gathered step after
   step, as a PackedSequence has them; a step that is masked repeats the output before it, as in
   Keras. So left padding, holes and empty rows cost nothing.
b) Kernels are transposed views: the core reads them in place.
"""

from typing import Any

import torch
from torch import Tensor

from fastlstm._args.cells import Cell
from fastlstm.torch._modules import foreign_tensors
from fastlstm.torch._operators import run as run_one

SYMBOLIC = "symbolic tensors"


def foreign(x: Any, arrays: list[Any]) -> str | None:
    """Return what there is about these tensors, or now, that only Keras can do."""
    tensors = tuple(t for t in (*arrays, x) if t is not None)
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        return "compiled and exported functions"
    if any(t.device.type == "meta" for t in tensors):
        return SYMBOLIC
    if len({t.dtype for t in tensors if t.is_floating_point()}) > 1:  # integers are cast
        return "mixed dtypes"
    if x.ndim != 3 or x.numel() == 0:
        return "nothing to do"
    return foreign_tensors(tensors)


def run(
    cell: Cell, nonlinearity: str, x: Tensor, mask: Any, arrays: list[Any]
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Return y (B, T, H) and the final states (B, H)."""
    *states, kernel, recurrent, bias = arrays
    x = x.to(kernel.dtype)
    h_0, c_0 = (*states, None)[:2]
    mode = f"RNN_{nonlinearity.upper()}" if cell.kind == "rnn" else cell.kind.upper()
    w_ih, w_hh = kernel.T, recurrent.T
    biases: tuple[Any, ...] = (bias, None)
    if bias is not None:
        biases = tuple(bias) if bias.ndim == 2 else (bias, torch.zeros_like(bias))
    if cell.kind == "gru":
        w_ih, w_hh = _reordered(w_ih), _reordered(w_hh)
        biases = biases if bias is None else tuple(map(_reordered, biases))
    keep_tape = torch.is_grad_enabled() and any(
        t is not None and t.requires_grad for t in (x, *arrays)
    )

    def call(x: Tensor, h_0: Any, c_0: Any, batch_sizes: Any, B: int) -> Any:
        y, *final, _ = run_one(
            *(mode, x, h_0, c_0, w_ih, w_hh, None, *biases, batch_sizes, None, B, False, keep_tape)
        )
        return y, final[: len(states)]

    if mask is None:
        y, final = call(x.transpose(0, 1), h_0, c_0, None, len(x))
        return y.transpose(0, 1), tuple(final)
    ran: tuple[Tensor, tuple[Tensor, ...]] = _masked(call, x, mask, states)
    return ran


def _masked(call: Any, x: Tensor, mask: Tensor, states: list[Tensor]) -> Any:
    """Run the steps that are there; if there are none, one whose results nobody sees."""
    B, T = mask.shape
    done = mask.cumsum(1)  # steps of the row so far, this one included
    lengths = done[:, -1]
    order = lengths.argsort(descending=True, stable=True)
    place = torch.empty_like(order)
    place[order] = torch.arange(B)
    batch_sizes = (lengths[:, None] > torch.arange(T)).sum(0)
    batch_sizes[0].clamp_(min=1)
    batch_sizes = batch_sizes[batch_sizes > 0]
    starts = batch_sizes.cumsum(0) - batch_sizes
    at = starts[(done - 1).clamp(min=0)] + place[:, None]  # of each step among those there
    taken = torch.zeros(int(batch_sizes.sum()), dtype=torch.long)
    taken[at[mask]] = torch.arange(B * T).reshape(B, T)[mask]
    n = int(batch_sizes[0])
    begin = [s[order] for s in states]
    h_0, c_0 = (*(s[:n] for s in begin), None)[:2]
    y, final = call(x.flatten(0, 1)[taken], h_0, c_0, batch_sizes, n)
    begun = done[..., None] > 0
    at = at.where(done > 0, 0)
    y = torch.where(begun, y[at.flatten()].reshape(B, T, -1), 0)
    ends = (torch.cat([f, s[n:]])[place] for f, s in zip(final, begin, strict=True))
    return y, tuple(torch.where(begun[:, -1], *pair) for pair in zip(ends, states, strict=True))


def _reordered(array: Tensor) -> Tensor:
    """Return the rows of a GRU in the order r, z, n for z, r, n."""
    z, r, n = array.chunk(3)
    return torch.cat([r, z, n])
