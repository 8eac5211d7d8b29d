"""A model's graph as `load` sees it: the recurrent nodes, and the nodes on which they depend.

Decisions:
a) Only the graph itself is read, not the bodies of If, Loop and Scan. Local functions are inlined,
   after their calls have been counted.
b) Only what is used is checked: models that run elsewhere may lack the shapes that ONNX's checker
   demands of inputs and outputs.
"""

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import checker, helper, inliner, numpy_helper, shape_inference

from fastlstm.onnx._node import GATES
from fastlstm.onnx._tensors import MOST_AXES, Budget, read_tensor

DOMAINS = ("", "ai.onnx")  # two names of one
WITH_BODIES = ("If", "Loop", "Scan", "SequenceMap")  # onnx < 1.22 crashes if one lacks its body
MOST_CALLS = 100  # of local functions, one within another


def read_graph(source: Any) -> "Graph":
    """Return the graph of a ModelProto, or of one in a file."""
    budget, folder = Budget(), None
    if isinstance(source, onnx.ModelProto):
        model = source
        budget.grant("", model.ByteSize())
    else:
        path = os.fspath(source)
        folder = os.path.dirname(path)
        budget.grant("", os.stat(path).st_size)
        try:
            model = onnx.load(path, load_external_data=False)
        except OSError:
            raise
        except Exception as error:  # protobuf's parser has exceptions of its own
            raise ValueError(f"source: expected an ONNX model: {error}") from error
    if model.functions:
        _check_calls(model, budget)
        try:
            model = inliner.inline_local_functions(model)
        except Exception as error:  # of a library in C++: which exceptions is not documented
            raise ValueError(f"source: expected functions to inline: {error}") from error
    return Graph(model, budget, folder)


def _check_calls(model: onnx.ModelProto, budget: Budget) -> None:
    """Raise if a model is too large without its local functions, whose calls may multiply."""
    functions = {(f.domain, f.name, f.overload): f for f in model.functions}
    sizes: dict[Any, int] = {}

    def size_of(nodes: Iterable[onnx.NodeProto], depth: int) -> int:
        if depth > MOST_CALLS:
            raise ValueError(
                f"functions: expected at most {MOST_CALLS} calls one within another, got more"
            )
        total = 0
        for node in nodes:
            key = (node.domain, node.op_type, node.overload)
            if key in functions and key not in sizes:
                sizes[key] = size_of(functions[key].node, depth + 1)
            total += sizes[key] if key in functions else 1000 + 4 * node.ByteSize()
            for body in bodies(node):
                total += size_of(body.node, depth + 1)
        return total

    budget.take("functions", size_of(model.graph.node, 0))


def bodies(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """Yield the graphs that a node has as attributes."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def nodes_in(node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
    """Yield a node and those of its bodies."""
    yield node
    for body in bodies(node):
        for each in body.node:
            yield from nodes_in(each)


def reads(node: onnx.NodeProto) -> set[str]:
    """Return the tensors that a node may read, those that its bodies read included."""
    return {name for each in nodes_in(node) for name in each.input} - {""}


def label(node: onnx.NodeProto) -> str:
    """Return what a node is called in messages."""
    return f"{node.op_type} {node.name or ' '.join(node.output[:1])}"


@contextmanager
def naming(node: onnx.NodeProto) -> Iterator[None]:
    """Put a node's name before the message of what is raised about it."""
    try:
        yield
    except TypeError as error:
        raise TypeError(f"{label(node)}: {error}") from error
    except ValueError as error:
        raise ValueError(f"{label(node)}: {error}") from error


def is_recurrent(node: onnx.NodeProto) -> bool:
    """Return whether a node is an LSTM, GRU or RNN."""
    return node.op_type in GATES and node.domain in DOMAINS


class Graph:
    """The recurrent nodes of a model's graph, and the nodes on which they depend."""

    def __init__(self, model: onnx.ModelProto, budget: Budget, folder: str | None = None):
        self.budget = budget
        opsets = {
            o.domain if o.domain not in DOMAINS else "": o.version for o in model.opset_import
        }
        for version in (model.ir_version, *opsets.values()):
            if not 0 <= version < 1 << 31:
                raise ValueError(f"source: expected versions of 31 bits, got {version}")
        self.opsets = [helper.make_opsetid(domain, opsets[domain]) for domain in opsets]
        self._context = checker.C.CheckerContext()
        self._context.ir_version = model.ir_version
        self._context.opset_imports = opsets

        needed: set[str] = set()
        nodes: list[onnx.NodeProto] = []
        for node in reversed(model.graph.node):
            if is_recurrent(node) or not needed.isdisjoint(node.output):
                nodes.append(node)
                needed |= reads(node)
        self.nodes = nodes[::-1]
        tensors = [t for t in model.graph.initializer if t.name in needed]
        inputs = {value.name for value in model.graph.input}
        constants = [t.name for t in tensors]
        constants += [t.values.name for t in model.graph.sparse_initializer]
        self._check_names(inputs, constants)
        arrays = {t.name: read_tensor(t, budget, folder) for t in tensors}
        self.constants = {name: a for name, a in arrays.items() if a is not None}
        self._check_attributes()
        self._types = self._infer_types(model.graph)

        # by a tensor's name: the node that makes it, the indices of those that read it
        self._producers = {name: node for node in self.nodes for name in node.output if name}
        self.readers: dict[str, list[int]] = defaultdict(list)
        for index, node in enumerate(self.nodes):
            for name in set(node.input) - {""}:
                self.readers[name].append(index)
        # the tensors that depend on the model's inputs, and on more of them than their shapes
        self.open = inputs.difference(constants)
        for node in self.nodes:
            if is_recurrent(node) or (
                self.guess_shape(node) is None and not self.open.isdisjoint(reads(node))
            ):
                self.open.update(node.output)

    def _check_names(self, inputs: set[str], constants: list[str]) -> None:
        """Raise unless each tensor is made once, and before it is read."""
        made: set[str] = set()
        for name in constants:  # which may be inputs as well, in old models
            if name in made:
                raise ValueError(f"tensor {name!r}: expected one of this name, got two")
            made.add(name)
        made |= inputs
        for node in self.nodes:
            for name in node.input:
                if name and name not in made:
                    raise ValueError(
                        f"{label(node)}: expected inputs that are made before it, got {name!r}"
                    )
            for name in node.output:
                if name in made:
                    raise ValueError(f"{label(node)}: expected new names, got output {name!r}")
                made.update({name} - {""})

    def _check_attributes(self) -> None:
        """Raise if there is what libraries below trust, and ask for memory or crash."""
        for node in self.nodes:
            with naming(node):
                for attribute in node.attribute:
                    name, number, outputs = attribute.name, attribute.i, len(node.output)
                    if attribute.HasField("t"):
                        read_tensor(attribute.t, self.budget)
                    if name == "num_outputs" and number != outputs:
                        raise ValueError(f"num_outputs: expected {outputs}, got {number}")
                    if name == "axis" and abs(number) > MOST_AXES:
                        raise ValueError(f"axis: expected at most {MOST_AXES}, got {number}")

    def _infer_types(self, graph: onnx.GraphProto) -> dict[str, onnx.TypeProto.Tensor]:
        """Return the types of tensors, by name, as far as they are known without computing."""
        nodes = [node for node in self.nodes if node.op_type not in WITH_BODIES]
        part = helper.make_graph(nodes, "part", [*graph.input], [], value_info=graph.value_info)
        for name, array in self.constants.items():
            if array.ndim < 2:  # may be a shape, whose numbers matter
                part.initializer.append(numpy_helper.from_array(array, name))
            else:
                code = helper.np_dtype_to_tensor_dtype(array.dtype)
                part.input.append(helper.make_tensor_value_info(name, code, array.shape))
        model = helper.make_model(
            part, opset_imports=self.opsets, ir_version=self._context.ir_version
        )
        try:
            part = shape_inference.infer_shapes(model).graph
        except Exception as error:  # as above
            raise ValueError(f"source: expected a valid model: {error}") from error
        values = [*graph.output, *part.input, *part.value_info]
        return {value.name: value.type.tensor_type for value in values}

    def check_node(self, node: onnx.NodeProto) -> None:
        """Raise if the attributes or the number of inputs are not what the operator declares."""
        try:
            checker.check_node(node, self._context)
        except checker.ValidationError as error:
            raise ValueError(str(error)) from error

    def producer(self, name: str) -> onnx.NodeProto | None:
        """Return the node that makes a tensor."""
        return self._producers.get(name)

    def dimension(self, name: str, axis: int, default: int) -> int:
        """Return a tensor's size along an axis, the default where the model leaves it open."""
        dimensions = self._types[name].shape.dim if name in self._types else ()
        size = dimensions[axis].dim_value if axis < len(dimensions) else 0
        return size if size > 0 else default

    def guess_shape(self, node: onnx.NodeProto) -> NDArray[Any] | None:
        """Return what a node Shape may give, None for others and where the rank is not known.

        Sizes that the model leaves open are taken to be 2.
        """
        if node.op_type != "Shape" or node.domain not in DOMAINS:
            return None
        type_ = self._types.get(" ".join(node.input[:1]))
        if type_ is None or not type_.HasField("shape"):
            return None
        part = {a.name: a.i for a in node.attribute}
        sizes = [d.dim_value if d.dim_value > 0 else 2 for d in type_.shape.dim]
        return np.array(sizes[part.get("start") : part.get("end")], np.int64)
