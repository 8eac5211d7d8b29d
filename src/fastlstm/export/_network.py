"""What is exported: layers taken apart into one part per recurrence or linear map, and checked.

Decisions:
a) A stack of layers is a part per layer and direction, named by its cell and place: ``lstm_0``.
b) Matrices are turned to (inputs, gates, units), so that vectors hold neighbouring units.
c) What cannot be said in C is a ValueError here, before any text is written.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastlstm._args.cells import Cell
from fastlstm._args.numbers import Activation
from fastlstm._layers.recurrent import Recurrent
from fastlstm.training import Linear


@dataclass(frozen=True)
class Recurrence:
    """A recurrent layer in one direction."""

    name: str
    layer: Recurrent
    index: int  # of the layer in its stack
    direction: int
    cell: Cell
    I: int
    H: int
    R: int  # what is fed back and put out
    arrays: dict[str, NDArray[Any]]  # by the names of `_args.cells`; only those that it has
    activations: tuple[Activation, ...]
    bounds: dict[str, float | None]  # clip, cell_clip, proj_clip
    zoneout: dict[str, float]  # h and c

    @property
    def output_size(self) -> int:
        """Values it puts out."""
        return self.R

    @property
    def from_end(self) -> bool:
        """Whether it runs from each sequence's end."""
        return self.layer._starts_at_end(self.direction)

    @property
    def is_coupled(self) -> bool:
        """Whether the forget gate is 1 - i."""
        return self.cell.kind == "lstm" and "f" not in self.cell.gates

    @property
    def clip(self) -> float | None:
        """Bound of the input of each activation."""
        return self.bounds["clip"]

    @property
    def gates(self) -> str:
        """The gates in the order in which the core has them: h of the RNN, f, i, g, o; n, r, z."""
        blocks = self.cell.blocks or self.cell.gates
        return "".join(letter for letter in blocks if letter in self.cell.gates)

    def blocks_of(self, array: NDArray[Any], letters: str, order: str) -> NDArray[Any]:
        """Return blocks of H rows, which `letters` names, in another order: (gates, H, ...)."""
        blocks = array.reshape(len(letters), self.H, *array.shape[1:])
        return blocks[[letters.index(letter) for letter in order]]


@dataclass(frozen=True)
class Dense:
    """A linear map, and an activation if there is one."""

    name: str
    layer: Linear
    activation: Activation | None

    @property
    def output_size(self) -> int:
        """Values it puts out."""
        return self.layer.out_features


Part = Recurrence | Dense


@dataclass(frozen=True)
class Network:
    """Parts in groups that read the same input: the directions of a layer, or a linear map."""

    groups: list[list[Part]]
    dtype: np.dtype
    input_size: int
    output_size: int
    description: list[str]

    @property
    def parts(self) -> list[Part]:
        """All of them, in the order in which they run."""
        return [part for group in self.groups for part in group]

    @property
    def recurrences(self) -> list[Recurrence]:
        """Those that have a state."""
        return [part for part in self.parts if isinstance(part, Recurrence)]

    @property
    def streams(self) -> bool:
        """Whether it can go step by step."""
        return not any(part.from_end for part in self.recurrences)


def take_apart(network: Any) -> Network:
    """Return the parts of a layer or of a sequence of layers, checked."""
    layers = [network] if isinstance(network, Recurrent | Linear) else network
    if not isinstance(layers, Sequence) or isinstance(layers, str | bytes) or not layers:
        raise TypeError(
            f"network: expected layers or a sequence of them, got {type(network).__name__}"
        )
    groups: list[list[Part]] = []
    width = dtype = None
    for k, layer in enumerate(layers):
        if not isinstance(layer, Recurrent | Linear):
            raise TypeError(
                f"network[{k}]: expected LSTM, GRU, RNN or Linear, got {type(layer).__name__}"
            )
        wanted = layer.input_size if isinstance(layer, Recurrent) else layer.in_features
        if width is not None and wanted != width:
            raise ValueError(
                f"network[{k}]: expected an input of {width} as comes out, got {wanted}"
            )
        if dtype is not None and layer.dtype != dtype:
            raise TypeError(f"network[{k}]: expected {dtype} like the first, got {layer.dtype}")
        if not np.isfinite(layer.flat).all():
            raise ValueError(f"network[{k}]: expected finite parameters, got NaN or infinity")
        dtype = layer.dtype
        if isinstance(layer, Recurrent):
            if layer.compute_dtype is not None:
                raise ValueError(
                    f"network[{k}]: expected compute_dtype=None, since the C file multiplies in "
                    f"{dtype}, got {layer.compute_dtype!r}"
                )
            groups += _recurrences(layer, len(groups))
            width = layer.output_size * layer.num_directions
        else:
            groups.append([Dense(f"linear_{len(groups)}", layer, layer.activation)])
            width = layer.out_features
    first = layers[0]
    input_size = first.input_size if isinstance(first, Recurrent) else first.in_features
    assert dtype is not None
    assert width is not None
    found = Network(groups, dtype, input_size, width, [repr(layer) for layer in layers])
    if not found.recurrences:
        raise ValueError("network: expected a recurrent layer, got linear maps alone")
    return found


def _recurrences(layer: Recurrent, place: int) -> list[list[Part]]:
    groups: list[list[Part]] = []
    options = layer._cell_options
    for l in range(layer.num_layers):
        groups.append([])
        for direction, names in enumerate(layer._names[l]):
            groups[-1].append(
                Recurrence(
                    name=f"{layer.cell}_{place + l}" + ("_reverse" if direction else ""),
                    layer=layer,
                    index=l,
                    direction=direction,
                    cell=layer._cell,
                    I=layer._input_size(l),
                    H=layer.hidden_size,
                    R=layer.output_size,
                    arrays={a: layer.params[name].copy() for a, name in names.items()},
                    activations=options["activations"],
                    bounds={n: options.get(n) for n in ("clip", "cell_clip", "proj_clip")},
                    zoneout={"h": layer.zoneout_h, "c": layer.zoneout_c},
                )
            )
    return groups
