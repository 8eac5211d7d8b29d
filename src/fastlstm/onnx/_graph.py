"""A model's graph as `load` sees it: what a tensor is, and whether two tensors are the same.

Decisions:
a) Whatever stands between two tensors is not recognised by its operators but computed, by ONNX's
   reference evaluator: weights that an exporter slices or adds up, a state of zeros made from the
   shape of x, the Squeeze or Transpose and Reshape that join two layers.
b) Only the graph itself is read, not the bodies of If, Loop and Scan.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import checker, helper, inliner, numpy_helper, shape_inference
from onnx.reference import ReferenceEvaluator


def read_model(source: Any) -> onnx.ModelProto:
    """Return a valid model without local functions, from a file or a ModelProto."""
    if isinstance(source, onnx.ModelProto):
        model, name = source, "model"
    else:
        name = str(Path(source))
        try:
            model = onnx.load(name)
        except OSError:
            raise
        except Exception as error:  # protobuf's parser has an exception of its own
            raise ValueError(f"{name}: expected an ONNX model, got what is not one") from error
    try:
        checker.check_model(model)
    except checker.ValidationError as error:
        raise ValueError(f"{name}: expected a valid ONNX model: {error}") from error
    return inliner.inline_local_functions(model) if model.functions else model


class Graph:
    """The top level of a model's graph."""

    def __init__(self, model: onnx.ModelProto):
        self._opsets = list(model.opset_import)
        graph = shape_inference.infer_shapes(model).graph
        self.nodes = list(graph.node)
        self._initializers = {tensor.name: tensor for tensor in graph.initializer}
        self._producers = {
            name: index for index, node in enumerate(self.nodes) for name in node.output if name
        }
        values = [*graph.input, *graph.value_info, *graph.output]
        self._types = {value.name: value.type.tensor_type for value in values}

    def producer(self, name: str) -> onnx.NodeProto | None:
        """Return the node that makes a tensor."""
        index = self._producers.get(name)
        return None if index is None else self.nodes[index]

    def dimension(self, name: str, axis: int, default: int) -> int:
        """Return a tensor's size along an axis, the default where the model leaves it open."""
        dimensions = self._types[name].shape.dim if name in self._types else ()
        size = dimensions[axis].dim_value if axis < len(dimensions) else 0
        return size or default

    def constant(self, name: str) -> NDArray | None:
        """Return the value of a tensor that depends on no input, None for any other."""
        return self.evaluate(name, {})

    def evaluate(self, name: str, known: Mapping[str, NDArray]) -> NDArray | None:
        """Return the value of a tensor, given others; None if that depends on anything else."""
        if name in known:
            return known[name]
        if name in self._initializers:
            return numpy_helper.to_array(self._initializers[name])
        needed, indices, given, waiting = {name}, set(), [], [name]
        while waiting:
            tensor = waiting.pop()
            if tensor in known:
                given.append(tensor)
            elif tensor in self._producers:
                index = self._producers[tensor]
                indices.add(index)
                new = set(self.nodes[index].input) - needed - {""}
                needed |= new
                waiting += new
            elif tensor not in self._initializers:
                return None
        graph = helper.make_graph(
            [self.nodes[index] for index in sorted(indices)],
            "part",
            [
                helper.make_tensor_value_info(
                    tensor, helper.np_dtype_to_tensor_dtype(known[tensor].dtype), None
                )
                for tensor in given
            ],
            [onnx.ValueInfoProto(name=name)],
            [self._initializers[tensor] for tensor in needed & self._initializers.keys()],
        )
        model = helper.make_model(graph, opset_imports=self._opsets)
        try:
            (value,) = ReferenceEvaluator(model).run([name], {t: known[t] for t in given})
        except Exception:  # whatever the evaluator does not know: then the tensor is not known
            return None
        return value if isinstance(value, np.ndarray) else None
