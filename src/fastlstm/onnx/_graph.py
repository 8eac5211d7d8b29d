"""A model's graph as `load` sees it: what a tensor is, and whether two tensors are the same.

Decisions:
a) Whatever stands between two tensors is not recognised by its operators but computed, by ONNX's
   reference evaluator: weights that an exporter slices or adds up, a state of zeros made from the
   shape of x, the Squeeze or Transpose and Reshape that join two layers.
b) Only the graph itself is read, not the bodies of If, Loop and Scan.
c) Only what is used is checked: models that run elsewhere may lack the shapes that ONNX's checker
   demands of inputs and outputs.
"""

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import checker, helper, inliner, numpy_helper, shape_inference
from onnx.reference import ReferenceEvaluator


def read_model(source: Any) -> onnx.ModelProto:
    """Return a model without local functions, from a file or a ModelProto."""
    if isinstance(source, onnx.ModelProto):
        model = source
    elif isinstance(source, str | os.PathLike):
        try:
            model = onnx.load(os.fspath(source))
        except OSError:
            raise
        except Exception as error:  # protobuf's parser has exceptions of its own
            raise ValueError(f"source: expected an ONNX model in {source}: {error}") from error
    else:
        raise TypeError(f"source: expected a path or a ModelProto, got {type(source).__name__}")
    return inliner.inline_local_functions(model) if model.functions else model


class Graph:
    """The top level of a model's graph."""

    def __init__(self, model: onnx.ModelProto):
        self._opsets = list(model.opset_import)
        self._context = checker.C.CheckerContext()
        self._context.ir_version = model.ir_version
        self._context.opset_imports = {opset.domain: opset.version for opset in self._opsets}
        try:
            graph = shape_inference.infer_shapes(model).graph
        except Exception as error:  # of a library in C++: which exceptions is not documented
            raise ValueError(f"source: expected a valid model: {error}") from error
        self.nodes = list(graph.node)
        self._initializers = {tensor.name: tensor for tensor in graph.initializer}
        self._producers = {
            name: index for index, node in enumerate(self.nodes) for name in node.output if name
        }
        values = [*graph.input, *graph.value_info, *graph.output]
        self._types = {value.name: value.type.tensor_type for value in values}

    def check_node(self, node: onnx.NodeProto) -> None:
        """Raise if the attributes or the number of inputs are not what the operator declares."""
        try:
            checker.check_node(node, self._context)
        except checker.ValidationError as error:
            raise ValueError(str(error)) from error

    def producer(self, name: str) -> onnx.NodeProto | None:
        """Return the node that makes a tensor."""
        index = self._producers.get(name)
        return None if index is None else self.nodes[index]

    def dimension(self, name: str, axis: int, default: int) -> int:
        """Return a tensor's size along an axis, the default where the model leaves it open."""
        dimensions = self._types[name].shape.dim if name in self._types else ()
        size = dimensions[axis].dim_value if axis < len(dimensions) else 0
        return size or default

    def _guess_shape(self, node: onnx.NodeProto) -> NDArray | None:
        """Return what a node Shape may give, None for others and where the rank is not known."""
        if node.op_type != "Shape" or node.input[0] not in self._types:
            return None
        type_ = self._types[node.input[0]]
        if not type_.HasField("shape"):
            return None
        part = {a.name: a.i for a in node.attribute}
        sizes = [dimension.dim_value or 2 for dimension in type_.shape.dim]
        return np.array(sizes[part.get("start") : part.get("end")], np.int64)

    def constant(self, name: str) -> NDArray | None:
        """Return the value of a tensor that depends on no input, None for any other."""
        return self.evaluate(name, {})

    def evaluate(
        self, name: str, known: Mapping[str, NDArray], *, guess_shapes: bool = False
    ) -> NDArray | None:
        """Return the value of a tensor, given others; None if that depends on anything else.

        With `guess_shapes`, shapes of other tensors are not anything else: what the model leaves
        open of them is taken to be 2.
        """
        if name in known:
            return known[name]
        if name in self._initializers:
            return numpy_helper.to_array(self._initializers[name])
        needed, indices, given, waiting = {name}, set(), {}, [name]
        while waiting:
            tensor = waiting.pop()
            node = self.producer(tensor)
            shape = self._guess_shape(node) if guess_shapes and node is not None else None
            if tensor in known:
                given[tensor] = known[tensor]
            elif shape is not None:
                given[tensor] = shape
            elif node is not None:
                indices.add(self._producers[tensor])
                new = set(node.input) - needed - {""}
                needed |= new
                waiting += new
            elif tensor not in self._initializers:
                return None
        graph = helper.make_graph(
            [self.nodes[index] for index in sorted(indices)],
            "part",
            [
                helper.make_tensor_value_info(
                    tensor, helper.np_dtype_to_tensor_dtype(array.dtype), None
                )
                for tensor, array in given.items()
            ],
            [onnx.ValueInfoProto(name=name)],
            [self._initializers[tensor] for tensor in needed & self._initializers.keys()],
        )
        model = helper.make_model(graph, opset_imports=self._opsets)
        try:
            with np.errstate(all="ignore"):
                (value,) = ReferenceEvaluator(model).run([name], given)
        except Exception:  # whatever the evaluator does not know: then the tensor is not known
            return None
        return value if isinstance(value, np.ndarray) else None
