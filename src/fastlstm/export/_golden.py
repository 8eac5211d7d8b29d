"""Input and output for the self-test of an exported file: what Python computes, to the bit.

Decision: recurrent layers run on the scalar kernels, whatever this CPU has; linear maps, whose
order of sums NumPy leaves to a BLAS, are summed here in the order of the exported file.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastlstm._core.calls import CORES, make_weights, run_forward
from fastlstm.export._network import Dense, Network, Part
from fastlstm.export._weights import to_bfloat16

STEPS = 8


class Golden(NamedTuple):
    """A sequence, and what the network makes of it."""

    x: NDArray[Any]  # (T, I)
    y: NDArray[Any]  # (T, J)


def golden(network: Network, bfloat16: bool) -> Golden:
    """Return a random sequence and the network's output of it, with weights as they are stored."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((STEPS, network.input_size)).astype(network.dtype)
    y = x
    for group in network.groups:
        y = np.concatenate([_output(part, y, bfloat16) for part in group], axis=1)
    return Golden(x, y)


def _output(part: Part, x: NDArray[Any], bfloat16: bool) -> NDArray[Any]:
    of_part = _of_dense if isinstance(part, Dense) else _of_recurrence
    return of_part(part, x, stored if bfloat16 else np.asarray)


def stored(weights: NDArray[Any]) -> NDArray[Any]:
    """Return weights as bfloat16 holds them."""
    return (to_bfloat16(weights).astype(np.uint32) << 16).view(np.float32)


def _of_recurrence(part: Any, x: NDArray[Any], kept: Any) -> NDArray[Any]:
    layer = part.layer
    matrices = ("w_ih", "w_hh", "w_proj")
    arrays = {n: kept(a) if n in matrices else a for n, a in part.arrays.items()}
    weights = _scalar_weights(layer.cell, x.dtype, **arrays, **layer._cell_options)
    masks = layer._masks(len(x), 1, False)
    return _run(weights, part, x[:, np.newaxis], masks=masks, reverse=part.from_end)[:, 0]


def _of_dense(part: Any, x: NDArray[Any], kept: Any) -> NDArray[Any]:
    weight, bias = kept(part.layer.params["weight"]), part.layer.params.get("bias")
    y = np.zeros((len(x), len(weight)), x.dtype)
    if bias is not None:
        y += bias
    for k in range(weight.shape[1]):
        y += x[:, k : k + 1] * weight[:, k]
    if part.activation is None:
        return y
    # the kernels' activation: of a cell whose only input is z, and that feeds nothing back
    one, none = np.eye(len(weight), dtype=x.dtype), np.zeros((len(weight),) * 2, x.dtype)
    named = {"w_ih": one, "w_hh": none, "activations": (part.activation,)}
    weights = _scalar_weights("rnn", x.dtype, **named)
    activated: NDArray[Any] = _run(weights, None, y[np.newaxis])[0]
    return activated


def _scalar_weights(cell: str, dtype: np.dtype[Any], **given: Any) -> Any:
    """Return weights packed for the scalar kernels; there need be no bias."""
    return make_weights(CORES[dtype], cell, **{"b": None, "isa": "scalar", **given})


def _run(
    weights: Any, part: Any, x: NDArray[Any], *, masks: Any = None, reverse: bool = False
) -> NDArray[Any]:
    """Return the outputs (T, B, R) of packed weights, from a state of zero."""
    T, B, I = x.shape
    R, H = (I, I) if part is None else (part.R, part.H)
    y = np.empty((T, B, R), x.dtype)
    c = np.zeros((B, H), x.dtype) if part is not None and part.cell.has_c else None
    run_forward(
        CORES[x.dtype],
        weights,
        np.ascontiguousarray(x),
        y,
        masks=masks,
        lengths=None,
        reverse=reverse,
        training=False,
        initial=(None, None),
        final=(np.zeros((B, R), x.dtype), c),
    )
    return y
