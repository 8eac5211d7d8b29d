"""All layers and directions of a module at once, where autograd wants nothing.

Decisions:
a) From the first layer to the last there are arrays only, and one call of the core where nothing
   stands between layers: its threads take layers and directions side by side, as in the layers of
   `fastlstm`. For a small network an operator per layer costs several times what it computes.
b) Results are tensors over NumPy's memory, which takes a third of the time of PyTorch's own.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastlstm._core.calls import CORES, forward_call, restarts_of, state_at
from fastlstm.torch._arrays import CELLS, array_of, lengths_of, pack, sequence_of


def infer(
    mode: str,
    x: Tensor,
    batch_sizes: Tensor | None,
    resets: Tensor | None,
    B: int,
    states: tuple[Tensor, ...],
    weights: list[tuple[Tensor | None, ...]],
    D: int,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Return y and the final states, as PyTorch's module does, of x (T, B, I) or packed data.

    `weights` has for each layer and direction w_ih, w_hh, w_hr, b_ih, b_hh.
    """
    cell, inputs = CELLS[mode], sequence_of(x)
    h_0, c_0 = (*map(array_of, states), None, None)[:2]
    lengths = lengths_of(batch_sizes, x.shape[0])
    episodes = array_of(resets)
    core, dtype = CORES[inputs.dtype], inputs.dtype
    N, R = weights[0][1].shape  # type: ignore[union-attr]
    h_n = np.empty((len(weights), B, R), dtype)
    c_n = np.empty((len(weights), B, N // cell.G), dtype) if cell.has_c else None
    calls: list[Any] = []
    for layer in range(len(weights) // D):
        y = np.empty((*inputs.shape[:2], D * R), dtype)
        for direction in range(D):
            i = layer * D + direction
            call = forward_call(
                core,
                pack(mode, *weights[i], backward=False),  # type: ignore[arg-type]
                inputs,
                y if D == 1 else y[:, :, direction * R : (direction + 1) * R],
                initial=state_at(h_0, c_0, i),
                final=state_at(h_n, c_n, i),
                lengths=lengths,
                restarts=restarts_of(episodes, lengths, direction == 1),
                reverse=direction == 1,
                concatenated=batch_sizes is not None,
            )
            calls.append(call)
        if D == 2:
            core.run_forward(calls)
            calls.clear()
        inputs = y
    if calls:
        core.run_forward(calls, chained=True)
    final = (h_n,) if c_n is None else (h_n, c_n)
    return torch.from_numpy(y.reshape(*x.shape[:-1], D * R)), tuple(map(torch.from_numpy, final))
