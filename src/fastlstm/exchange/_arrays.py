"""What both directions and both frameworks need: arrays, kinds of cells, options."""

import inspect
from typing import Any

from numpy.typing import NDArray

from fastlstm._args.arrays import check_real, refuse_mask
from fastlstm._args.cells import PLAIN, Cell
from fastlstm._layers.recurrent import Recurrent

# arguments of a layer that shapes show, or on which its outputs in inference do not depend
HARMLESS = {"input_size", "hidden_size", "num_layers", "bias", "bidirectional", "batch_first"}
HARMLESS |= {"dropout", "input_dropout", "recurrent_dropout"}


def to_array(name: str, value: Any) -> NDArray[Any]:
    """Return a tensor or array-like as an array of float32 or float64."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
    refuse_mask(name, value)
    try:
        return check_real(name, value)
    except TypeError as error:  # also what PyTorch raises for a type that NumPy does not have
        kind = getattr(value, "dtype", type(value).__name__)
        raise TypeError(f"{name}: expected float32 or float64, got {kind}") from error


def cell_of(name: str, units: int, H: int) -> Cell:
    """Return the cell whose gates have so many units together."""
    for cell in PLAIN.values():
        if units == cell.G * H:
            return cell
    raise ValueError(f"{name}: expected 4, 3 or 1 times {H} units in the gates, got {units}")


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
