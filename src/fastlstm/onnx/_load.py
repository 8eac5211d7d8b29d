"""From a model to layers: find the recurrent nodes, see which are joined, make a layer of a stack.

Decisions:
a) Tensors that nodes read or make get random numbers. Two nodes are joined if the numbers of one's
   output arrive at the other's input unchanged and in the order of a layer's output, whatever
   operators stand between (see `_graph`).
b) What the model computes from its own constants, whatever its inputs are (a learnt initial state,
   fixed lengths), a layer cannot hold: ValueError. What comes from its inputs is an argument of
   the layer's call.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from fastlstm.layers import GRU, LSTM, RNN
from fastlstm.onnx._graph import Graph, read_model
from fastlstm.onnx._node import GATES, Node, Weights, check_weights, read_node, read_weights

LAYERS: dict[str, Any] = {"LSTM": LSTM, "GRU": GRU, "RNN": RNN}
INPUTS = ("X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P")


class Part(NamedTuple):
    """A recurrent node as it stands in the graph."""

    node: Node
    weights: Weights
    batch_first: bool  # as the layer sees it: with the Transpose before it, if there is one
    lengths: str  # the tensor of lengths, "" if there is none
    below: int | None  # the part whose output it reads


def load(source: Any) -> Any:
    """Load the recurrent part of an ONNX model as one layer.

    Nodes LSTM, GRU and RNN that feed one another through nothing but a change of shape, as the
    exporters of PyTorch and Keras write a stack, become the layers of one `LSTM`, `GRU` or `RNN`
    with ``num_layers``. All attributes of the operators are understood. Initial states and lengths
    that are inputs of the model are arguments of the layer's call; its state has the shape
    (num_layers * num_directions, B, H) also where the node has ``layout=1``. What the model
    computes before and after is not loaded: `Backend` runs whole models.

    Parameters
    ----------
    source : path or onnx.ModelProto

    Returns
    -------
    LSTM, GRU or RNN
        ``batch_first`` if the nodes have ``layout=1`` or read a Transpose that swaps B and T.

    Raises
    ------
    ValueError
        If the source is not a valid model, has no or more than one recurrent part (see
        `load_all`), or has something that a layer cannot represent: weights that are not constant,
        initial states or lengths that are constant, other activations in the other direction.
    TypeError
        If the weights are neither float32 nor float64.
    OSError
        If the file cannot be read.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import fastlstm.onnx
    >>> path = Path(tempfile.mkdtemp()) / "gru.onnx"
    >>> fastlstm.onnx.export(fastlstm.GRU(3, 8, 2, bidirectional=True), path)
    >>> fastlstm.onnx.load(path)
    GRU(3, 8, num_layers=2, bidirectional=True)
    """
    layers = load_all(source)
    if len(layers) > 1:
        raise ValueError(
            f"source: expected one recurrent part, got {len(layers)}: "
            f"{', '.join(map(repr, layers))}; load_all returns them all"
        )
    return layers[0]


def load_all(source: Any) -> list[Any]:
    """Load every recurrent part of an ONNX model, in the order of its graph.

    As `load`, for models with several: an encoder and a decoder, or a stack whose layers differ in
    size, cell or options and so cannot be one layer.

    Parameters
    ----------
    source : path or onnx.ModelProto

    Returns
    -------
    list of LSTM, GRU and RNN

    Raises
    ------
    ValueError, TypeError, OSError
        As `load`.
    """
    parts = find_parts(Graph(read_model(source)))
    if not parts:
        raise ValueError("source: expected a node LSTM, GRU or RNN in the graph, got none")
    return [make_layer(stack) for stack in find_stacks(parts)]


def find_parts(graph: Graph) -> list[Part]:
    """Return the recurrent nodes in the order of the graph."""
    finder = _Finder(graph)
    for node in graph.nodes:
        if node.op_type in GATES and node.domain in ("", "ai.onnx"):
            label = f"{node.op_type} {node.name or node.output[0]}"
            try:
                finder.add(node)
            except (ValueError, TypeError) as error:
                raise type(error)(f"{label}: {error}") from error
    return finder.parts


class _Finder:
    """The parts found so far, and the random numbers that stand for tensors."""

    def __init__(self, graph: Graph):
        self.graph = graph
        self.parts: list[Part] = []
        self.known: dict[str, NDArray] = {}
        self.outputs: list[NDArray] = []  # of each part, as a layer returns it: (T, B, D * H)
        self.rng = np.random.default_rng(0)

    def add(self, node: onnx.NodeProto) -> None:
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        said = read_node(node.op_type, {name: text(value) for name, value in attributes.items()})
        inputs = {name: tensor for name, tensor in zip(INPUTS, node.input, strict=False) if tensor}
        weights = check_weights(said, *(self._constant(name, inputs) for name in "WRBP"))

        x, batch_first = inputs["X"], said.batch_first
        arrived = self.graph.evaluate(x, self.known)
        below = None if arrived is None else self._find_output(arrived, batch_first)
        producer = self.graph.producer(x)
        if producer is not None and swaps_first_axes(producer):
            x, batch_first = producer.input[0], not batch_first
        if below is not None:
            T, B, _ = self.outputs[below].shape
        else:
            T, B = self._make_input(x, batch_first, weights)

        lengths = inputs.get("sequence_lens", "")
        if lengths:
            value = self._fixed(lengths)
            if value is not None and (value != T).any():
                raise ValueError("sequence_lens: expected an input of the model, got constants")
            lengths = lengths if value is None else ""
        for name in ("initial_h", "initial_c"):
            value = self._fixed(inputs[name]) if name in inputs else None
            if value is not None and value.any():
                raise ValueError(f"{name}: expected zeros or an input of the model, got constants")

        self._make_output(node.output[0], T, B, said, weights)
        self.parts.append(Part(said, weights, batch_first, lengths, below))

    def _constant(self, name: str, inputs: dict[str, str]) -> NDArray | None:
        if name not in inputs:
            return None
        value = self.graph.constant(inputs[name])
        if value is None:
            raise ValueError(f"{name}: expected constants, got what depends on the model's inputs")
        return value

    def _fixed(self, tensor: str) -> NDArray | None:
        """Return the value of a tensor that may depend on the shape of the known ones only."""
        value = self.graph.evaluate(tensor, self.known)
        zeros = {name: np.zeros_like(array) for name, array in self.known.items()}
        other = self.graph.evaluate(tensor, zeros)
        return value if value is not None and np.array_equal(value, other) else None

    def _random(self, shape: tuple[int, ...], dtype: np.dtype) -> NDArray:
        # large, so that a bound between two layers would be seen
        return (1e4 * self.rng.standard_normal(shape)).astype(dtype)

    def _find_output(self, x: NDArray, batch_first: bool) -> int | None:
        x = x.swapaxes(0, 1) if batch_first and x.ndim == 3 else x
        same = (k for k, output in enumerate(self.outputs) if np.array_equal(x, output))
        return next(same, None)

    def _make_input(self, x: str, batch_first: bool, weights: Weights) -> tuple[int, int]:
        """Make numbers for `x` and return T and B, as small as the model allows."""
        if x not in self.known:
            sizes = (self.graph.dimension(x, axis, default) for axis, default in ((0, 5), (1, 3)))
            self.known[x] = self._random((*sizes, weights.W.shape[2]), weights.W.dtype)
        T, B, *_ = self.known[x].shape
        return (B, T) if batch_first else (T, B)

    def _make_output(self, y: str, T: int, B: int, said: Node, weights: Weights) -> None:
        """Make numbers for the output of a node, and remember them as a layer's output."""
        D, H = len(said.reverse), weights.R.shape[2]
        output = self._random((T, B, D * H), weights.W.dtype)
        self.outputs.append(output)
        if y:
            axes = (1, 0, 2, 3) if said.batch_first else (0, 2, 1, 3)
            self.known[y] = output.reshape(T, B, D, H).transpose(axes)


def text(value: Any) -> Any:
    """Return an attribute's value with its bytes as text."""
    if isinstance(value, bytes):
        return value.decode()
    return [text(each) for each in value] if isinstance(value, list) else value


def swaps_first_axes(node: onnx.NodeProto) -> bool:
    """Return whether a node turns (B, T, I) into (T, B, I)."""
    perms = [list(a.ints) for a in node.attribute if a.name == "perm"]
    return node.op_type == "Transpose" and perms == [[1, 0, 2]]


def find_stacks(parts: Sequence[Part]) -> list[list[Part]]:
    """Return the parts in groups that can be the layers of one layer."""
    readers = [sum(part.below == k for part in parts) for k in range(len(parts))]
    stacks: dict[int, list[Part]] = {}  # by the last part of each
    for k, part in enumerate(parts):
        below = part.below
        if below in stacks and readers[below] == 1 and fits(stacks[below][-1], part):
            stacks[k] = [*stacks.pop(below), part]
        else:
            stacks[k] = [part]
    return list(stacks.values())


def fits(below: Part, part: Part) -> bool:
    """Return whether two parts may differ in nothing but their parameters."""
    same = all(
        getattr(below.node, name) == getattr(part.node, name)
        for name in ("kind", "reverse", "options")
    )
    H, dtype = below.weights.R.shape[2], below.weights.R.dtype
    same_weights = part.weights.R.shape[2] == H and part.weights.R.dtype == dtype
    return same and same_weights and below.lengths == part.lengths


def make_layer(stack: Sequence[Part]) -> Any:
    """Return a layer with the parameters of a stack."""
    node, weights = stack[0].node, stack[0].weights
    options = node.options[0]
    if any(other != options for other in node.options):
        raise ValueError(
            "activations: expected the same in both directions, for which a layer has one set, "
            f"got {' and '.join(str(each) for each in node.options)}"
        )
    if node.kind == "LSTM":
        options = options | {"peephole": any(part.weights.P is not None for part in stack)}
    layer = LAYERS[node.kind](
        weights.W.shape[2],
        weights.R.shape[2],
        len(stack),
        bias=any(part.weights.B is not None for part in stack),
        batch_first=stack[0].batch_first,
        bidirectional=len(node.reverse) == 2,
        dtype=weights.W.dtype,
        rng=0,
        **options,
    )
    for k, part in enumerate(stack):
        for d, suffix in enumerate(layer._suffixes(k)):
            arrays = read_weights(part.node, part.weights, d)
            for name, param in layer._by_kind(layer.params, suffix).items():
                param[...] = 0 if arrays[name] is None else arrays[name]
    return layer
