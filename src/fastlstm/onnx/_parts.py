"""The recurrent nodes of a graph: what each says, and which reads which.

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

from fastlstm.onnx._graph import Graph
from fastlstm.onnx._node import GATES, Node, Weights, check_weights, read_node

INPUTS = ("X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P")


class Part(NamedTuple):
    """A recurrent node as it stands in the graph."""

    node: Node
    weights: Weights
    batch_first: bool  # as the layer sees it: with the Transpose before it, if there is one
    lengths: str  # the tensor of lengths, "" if there is none
    below: int | None  # the part whose output it reads


def find_parts(graph: Graph) -> list[Part]:
    """Return the recurrent nodes in the order of the graph."""
    finder = _Finder(graph)
    for node in graph.nodes:
        if node.op_type in GATES and node.domain in ("", "ai.onnx"):
            label = f"{node.op_type} {node.name or node.output[0]}"
            try:
                finder.add(node)
            except TypeError as error:
                raise TypeError(f"{label}: {error}") from error
            except ValueError as error:
                raise ValueError(f"{label}: {error}") from error
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
        """Read a node whose inputs, as far as they come from such nodes, have been read."""
        self.graph.check_node(node)
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        said = read_node(node.op_type, {name: text(value) for name, value in attributes.items()})
        inputs = {name: tensor for name, tensor in zip(INPUTS, node.input, strict=False) if tensor}
        weights = check_weights(
            said, **{name: self._constant(name, inputs[name]) for name in "WRBP" if name in inputs}
        )

        x, batch_first = inputs["X"], said.batch_first
        arrived = self.graph.evaluate(x, self.known)
        below = None if arrived is None else self._find_output(arrived, batch_first)
        producer = self.graph.producer(x)
        if producer is not None and swaps_first_axes(producer):
            x, batch_first = producer.input[0], not batch_first
        if below is not None:
            T, B, I = self.outputs[below].shape
            if weights.W.shape[2] != I:
                raise ValueError(f"W: expected {I} columns, the width of X, got {weights.W.shape}")
        else:
            T, B = self._make_input(x, batch_first, weights)

        lengths = self._read_lengths(inputs.get("sequence_lens", ""), T)
        for name in ("initial_h", "initial_c"):
            self._check_state(name, inputs.get(name, ""))
        self._make_outputs(node.output, T, B, said, weights)
        self.parts.append(Part(said, weights, batch_first, lengths, below))

    def _constant(self, name: str, tensor: str) -> NDArray:
        value = self.graph.constant(tensor)
        if value is None:
            raise ValueError(f"{name}: expected constants, got what depends on the model's inputs")
        return value

    def _read_lengths(self, tensor: str, T: int) -> str:
        """Return the tensor of lengths, "" if they are all T."""
        value = self._fixed(tensor) if tensor else None
        if value is None:
            return tensor
        if (value != T).any():
            raise ValueError("sequence_lens: expected an input of the model, got constants")
        return ""

    def _check_state(self, name: str, tensor: str) -> None:
        value = self._fixed(tensor) if tensor else None
        if value is None and tensor:
            value = self._fixed(tensor, guess_shapes=True)
        if value is not None and value.any():
            raise ValueError(f"{name}: expected zeros or an input of the model, got constants")

    def _fixed(self, tensor: str, *, guess_shapes: bool = False) -> NDArray | None:
        """Return the value of a tensor that depends on no numbers, at most on shapes."""
        zeros = {name: np.zeros_like(array) for name, array in self.known.items()}
        value, other = (
            self.graph.evaluate(tensor, known, guess_shapes=guess_shapes)
            for known in (self.known, zeros)
        )
        if value is None or other is None or not np.array_equal(value, other):
            return None
        return value

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

    def _make_outputs(
        self, names: Sequence[str], T: int, B: int, said: Node, weights: Weights
    ) -> None:
        """Make numbers for the outputs of a node, and remember y as a layer's output."""
        D, H, dtype = len(said.reverse), weights.R.shape[2], weights.W.dtype
        y = self._random((T, B, D, H), dtype)
        self.outputs.append(y.reshape(T, B, D * H))
        y = y.swapaxes(0, 1) if said.batch_first else y.swapaxes(1, 2)
        states = (self._random((B, D, H) if said.batch_first else (D, B, H), dtype) for _ in "hc")
        self.known |= {n: a for n, a in zip(names, (y, *states), strict=False) if n}


def text(value: Any) -> Any:
    """Return an attribute's value with its bytes as text."""
    if isinstance(value, bytes):
        return value.decode()
    return [text(each) for each in value] if isinstance(value, list) else value


def swaps_first_axes(node: onnx.NodeProto) -> bool:
    """Return whether a node turns (B, T, I) into (T, B, I)."""
    perms = [list(a.ints) for a in node.attribute if a.name == "perm"]
    return node.op_type == "Transpose" and perms == [[1, 0, 2]]
