"""Input and output for the self-test of an exported file: what Python computes, to the bit.

Decision: recurrent layers run on the scalar kernels, whatever this CPU has; linear maps, whose order
of sums NumPy leaves to a BLAS, are summed here in the order of the exported file.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastlstm._core.calls import make_weights, run_forward
from fastlstm.export._network import Dense, Network, Part, Recurrence
from fastlstm.reference._activations import function

STEPS = 8


class Golden(NamedTuple):
    """A sequence, and what the network makes of it."""

    x: NDArray  # (T, I)
    y: NDArray  # (T, J)


def golden(network: Network, seed: int = 0) -> Golden:
    """Return a random sequence and the network's output of it."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((STEPS, network.input_size)).astype(network.dtype)
    y = x
    for group in network.groups:
        y = np.concatenate([_output(part, y) for part in group], axis=1)
    return Golden(x, y)


def _output(part: Part, x: NDArray) -> NDArray:
    return _of_dense(part, x) if isinstance(part, Dense) else _of_recurrence(part, x)


def _of_recurrence(part: Recurrence, x: NDArray) -> NDArray:
    layer = part.layer
    weights = make_weights(
        layer._core,
        layer.cell,
        isa="scalar",
        **{"b": None, **part.arrays, **layer._cell_options},
    )
    y = np.empty((len(x), 1, part.R), x.dtype)
    h = np.zeros((1, part.R), x.dtype)
    c = np.zeros((1, part.H), x.dtype) if part.cell.has_c else None
    run_forward(
        layer._core,
        weights,
        np.ascontiguousarray(x[:, np.newaxis]),
        y,
        masks=layer._masks(len(x), 1, False),
        lengths=None,
        reverse=part.from_end,
        training=False,
        initial=(None, None),
        final=(h, c),
    )
    return y[:, 0]


def _of_dense(part: Dense, x: NDArray) -> NDArray:
    weight, bias = part.layer.params["weight"], part.layer.params.get("bias")
    y = np.zeros((len(x), len(weight)), x.dtype)
    if bias is not None:
        y += bias
    for k in range(weight.shape[1]):
        y += x[:, k : k + 1] * weight[:, k]
    return y if part.activation is None else function(part.activation)(y).astype(x.dtype)
