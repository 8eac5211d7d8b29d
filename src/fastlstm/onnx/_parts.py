"""The recurrent nodes of a graph: what each says, and which reads which.

Decisions:
a) Tensors that nodes read or make get random numbers. Two nodes are joined if the numbers of one's
   output arrive at the other's input unchanged and in the order of a layer's output, whatever
   operators stand between (see `_values`).
b) What the model computes from its own constants, whatever its inputs are (a learnt initial state,
   fixed lengths), a layer cannot hold: ValueError. What comes from its inputs is an argument of
   the layer's call.
"""

import hashlib
import math
from collections.abc import Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from fastlstm.onnx._graph import Graph, is_recurrent, naming
from fastlstm.onnx._node import Node, Weights, check_weights, read_node
from fastlstm.onnx._values import Values

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
    for node in filter(is_recurrent, graph.nodes):
        with naming(node):
            finder.add(node)
    return finder.parts


class _Finder:
    """The parts found so far, and the random numbers that stand for tensors."""

    def __init__(self, graph: Graph):
        self.graph = graph
        self.parts: list[Part] = []
        self.values = Values(graph)
        self.outputs: dict[bytes, int] = {}  # parts by what a layer would return
        self.rng = np.random.default_rng(0)

    @cached_property
    def guesses(self) -> Values:
        """What follows from guesses of shapes, for where no numbers tell them."""
        return self.values.with_shapes()

    def add(self, node: onnx.NodeProto) -> None:
        """Read a node whose inputs, as far as they come from such nodes, have been read."""
        self.graph.check_node(node)
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        said = read_node(node.op_type, {name: text(value) for name, value in attributes.items()})
        inputs = {name: tensor for name, tensor in zip(INPUTS, node.input, strict=False) if tensor}
        weights = check_weights(
            said, **{name: self._constant(name, inputs[name]) for name in "WRBP" if name in inputs}
        )
        self.graph.budget.take("weights", sum(a.nbytes for a in weights if a is not None))

        x, batch_first = inputs["X"], said.batch_first
        arrived = self.values.get(x)
        below = None if arrived is None else self._find_output(arrived, batch_first)
        if arrived is not None and below is not None and arrived.shape[2] != weights.W.shape[2]:
            raise ValueError(
                f"W: expected {arrived.shape[2]} columns, the width of X, got {weights.W.shape}"
            )
        producer = self.graph.producer(x)
        if producer is not None and swaps_first_axes(producer):
            x, batch_first = producer.input[0], not batch_first
        T, B = self._make_input(x, batch_first, weights)

        lengths = self._read_lengths(inputs.get("sequence_lens", ""), T)
        for name in ("initial_h", "initial_c"):
            self._check_state(name, inputs.get(name, ""))
        self._make_outputs(node.output, T, B, said, weights)
        self.parts.append(Part(said, weights, batch_first, lengths, below))

    def _constant(self, name: str, tensor: str) -> NDArray[Any]:
        if tensor not in self.values.constants:
            raise ValueError(f"{name}: expected constants, got {self._reason(tensor)}")
        return self.values.constants[tensor][0]

    def _reason(self, tensor: str) -> str:
        """Return why a tensor is not known."""
        if tensor in self.graph.open:
            return "what depends on the model's inputs"
        return f"what depends on {self.values.missing(tensor)}, which is not computed"

    def _read_lengths(self, tensor: str, T: int) -> str:
        """Return the tensor of lengths, "" if they are all T."""
        self._fixed("sequence_lens", tensor)
        value = self.values.fixed(tensor)
        if value is None:
            return tensor
        if (value != T).any():
            raise ValueError("sequence_lens: expected an input of the model, got constants")
        return ""

    def _check_state(self, name: str, tensor: str) -> None:
        value = self._fixed(name, tensor)
        if value is not None and value.any():
            raise ValueError(f"{name}: expected zeros or an input of the model, got constants")

    def _fixed(self, name: str, tensor: str) -> NDArray[Any] | None:
        """Return the value of a tensor that depends on no numbers, at most on shapes."""
        value = self.values.fixed(tensor)
        if value is None and tensor and tensor not in self.graph.open:
            value = self.guesses.fixed(tensor)
            if value is None:
                raise ValueError(
                    f"{name}: expected an input of the model, got {self._reason(tensor)}"
                )
        return value

    def _random(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        self.graph.budget.take("x and y", math.prod(shape) * dtype.itemsize)
        numbers = self.rng.standard_normal(shape, dtype)
        numbers *= 1e4  # large, so that a bound between two layers would be seen
        return numbers

    def _find_output(self, x: NDArray[Any], batch_first: bool) -> int | None:
        x = x.swapaxes(0, 1) if batch_first and x.ndim == 3 else x
        return self.outputs.get(fingerprint(x))

    def _make_input(self, x: str, batch_first: bool, weights: Weights) -> tuple[int, int]:
        """Make numbers for `x` and return T and B, as small as the model allows."""
        value = self.values.get(x)
        if value is None:
            sizes = (self.graph.dimension(x, axis, default) for axis, default in ((0, 5), (1, 3)))
            value = self._random((*sizes, weights.W.shape[2]), weights.W.dtype)
            self.values.add({x: (value, np.zeros_like(value))})
        if value.ndim != 3:
            raise ValueError(f"X: expected 3 axes, got shape {value.shape}")
        T, B, _ = value.shape
        return (B, T) if batch_first else (T, B)

    def _make_outputs(
        self, names: Sequence[str], T: int, B: int, said: Node, weights: Weights
    ) -> None:
        """Make numbers for the outputs of a node, and remember y as a layer's output."""
        D, H, dtype = len(said.reverse), weights.R.shape[2], weights.W.dtype
        y = self._random((T, B, D, H), dtype)
        self.outputs[fingerprint(y.reshape(T, B, D * H))] = len(self.parts)
        y = y.swapaxes(0, 1) if said.batch_first else y.swapaxes(1, 2)
        shape = (B, D, H) if said.batch_first else (D, B, H)
        arrays = [y, *(self._random(shape, dtype) for _ in "hc")]
        self.values.add(
            {n: (a, np.zeros_like(a)) for n, a in zip(names, arrays, strict=False) if n}
        )


def fingerprint(array: NDArray[Any]) -> bytes:
    """Return what tells an array of random numbers from any other."""
    shape = str(array.shape).encode()
    return hashlib.sha256(shape + np.ascontiguousarray(array).tobytes()).digest()


def text(value: Any) -> Any:
    """Return an attribute's value with its bytes as text."""
    if isinstance(value, bytes):
        return value.decode()
    return [text(each) for each in value] if isinstance(value, list) else value


def swaps_first_axes(node: onnx.NodeProto) -> bool:
    """Return whether a node turns (B, T, I) into (T, B, I)."""
    perms = [list(a.ints) for a in node.attribute if a.name == "perm"]
    return node.op_type == "Transpose" and perms == [[1, 0, 2]]
