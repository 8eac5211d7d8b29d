"""What both directions and both frameworks need: arrays, kinds of cells, one bias for two."""

import inspect
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastlstm._args.arrays import check_real
from fastlstm._layers.recurrent import Recurrent

BLOCKS = {"lstm": 4, "gru": 3, "rnn": 1}  # of H rows in a weight

# arguments of a layer that shapes show, or on which its outputs in inference do not depend
HARMLESS = {"input_size", "hidden_size", "num_layers", "bias", "bidirectional", "batch_first"}
HARMLESS |= {"dropout", "input_dropout", "recurrent_dropout"}


def to_array(name: str, value: Any) -> NDArray:
    """Return a tensor or array-like as an array of float32 or float64."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
    try:
        return check_real(name, np.asarray(value))
    except TypeError as error:  # also what PyTorch raises for a type that NumPy does not have
        kind = getattr(value, "dtype", type(value).__name__)
        raise TypeError(f"{name}: expected float32 or float64, got {kind}") from error


def cell_of(name: str, units: int, H: int) -> str:
    """Return the kind of cell whose gates have so many units together."""
    for cell, blocks in BLOCKS.items():
        if units == blocks * H:
            return cell
    raise ValueError(f"{name}: expected 4, 3 or 1 times {H} units in the gates, got {units}")


def join_biases(name: str, cell: str, b_ih: NDArray, b_hh: NDArray) -> NDArray:
    """Return the one bias for two, gates in the order that they have here."""
    if b_ih.ndim != 1 or b_ih.shape != b_hh.shape:
        raise ValueError(f"{name}: expected two biases alike, got {b_ih.shape} and {b_hh.shape}")
    if cell != "gru":
        return b_ih + b_hh
    n = 2 * len(b_ih) // 3
    return np.concatenate([b_ih[:n] + b_hh[:n], b_ih[n:], b_hh[n:]])


def split_bias(cell: str, bias: NDArray) -> tuple[NDArray, NDArray]:
    """Return two biases for the one."""
    if cell != "gru":
        return bias.copy(), np.zeros_like(bias)
    H = len(bias) // 4
    return bias[: 3 * H].copy(), np.concatenate([np.zeros_like(bias[: 2 * H]), bias[3 * H :]])


def check_expressible(layer: Recurrent, where: str, names: set[str]) -> None:
    """Check that a layer's options are the usual ones, but for those of these names."""
    if not isinstance(layer, Recurrent):
        raise TypeError(f"layer: expected LSTM, GRU or RNN, got {type(layer).__name__}")
    plain = inspect.signature(type(layer)).parameters
    for name, value in layer._config().items():
        if name not in names and value != plain[name].default:
            raise ValueError(
                f"layer: expected {name}={plain[name].default!r}, as {where} has it, got {value!r}"
            )
