"""What a graph's tensors hold, as far as it can be computed.

Decisions:
a) Whatever stands between two tensors is not recognised by its operators but computed, by ONNX's
   reference evaluator: weights that an exporter slices or adds up, a state of zeros made from the
   shape of x, the Squeeze or Transpose and Reshape that join two layers.
b) Only operators that exporters put there are computed (`OPERATORS`), none that loops, has a body
   or draws numbers. ONNX's shape inference says how large an output is before it is computed.
c) Values flow forward: each node is computed once, as soon as all of its inputs are known.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import defs, helper, numpy_helper, shape_inference
from onnx.reference import ReferenceEvaluator

from fastlstm.onnx._graph import DOMAINS, Graph, label
from fastlstm.onnx._tensors import DTYPES, MOST_AXES, count

# weights cut, turned and joined; shapes
MOVES = (
    "Cast CastLike Concat Constant ConstantOfShape Dropout Expand Flatten Gather Identity Range "
    "Reshape Shape Size Slice Split Squeeze Tile Transpose Unsqueeze"
)
# weights scaled; masks and lengths
MATHS = (
    "Add And Ceil DequantizeLinear Div Equal Floor Greater GreaterOrEqual Less LessOrEqual Max Min "
    "Mod Mul Neg Not Or Pow ReduceL2 ReduceMax ReduceMin ReduceProd ReduceSum Sqrt Sub Where"
)
OPERATORS = frozenset(f"{MOVES} {MATHS}".split())

# for numbers that were drawn, and for zeros in their place: one object where it depends on neither
Value = tuple[NDArray[Any], NDArray[Any]]


class Values:
    """The values that follow from the constants, and from what is added."""

    def __init__(self, graph: Graph, given: Mapping[str, Value] | None = None):
        """Begin with the graph's constants, or with what is `given` of them and others."""
        self._graph = graph
        self._values: dict[str, Value] = {}
        self._missing = [len(set(node.input) - {""}) for node in graph.nodes]
        if given is None:
            given = {name: (array, array) for name, array in graph.constants.items()}
            for node in graph.nodes:
                if not node.input:
                    given |= self._compute(node)
        self.add(given)
        self.constants = dict(self._values)

    def add(self, given: Mapping[str, Value]) -> None:
        """Add the values of tensors, and all that follows."""
        new = dict(given)
        while new:
            name, value = new.popitem()
            if name in self._values:  # added before the node that makes it could be computed
                continue
            self._values[name] = value
            for index in self._graph.readers[name]:
                self._missing[index] -= 1
                node = self._graph.nodes[index]
                if not self._missing[index] and any(
                    each not in self._values and each not in new for each in node.output
                ):
                    new |= self._compute(node)

    def get(self, name: str) -> NDArray[Any] | None:
        """Return the value of a tensor for the numbers that were drawn, None if it is not known."""
        return self._values[name][0] if name in self._values else None

    def fixed(self, name: str) -> NDArray[Any] | None:
        """Return the value of a tensor that depends on no numbers, at most on shapes."""
        numbers, zeros = self._values.get(name, (None, None))
        return numbers if numbers is zeros else None

    def with_shapes(self) -> "Values":
        """Return what follows from the constants and from guesses of all shapes."""
        shapes = {
            node.output[0]: (shape, shape)
            for node in self._graph.nodes
            if (shape := self._graph.guess_shape(node)) is not None
        }
        return Values(self._graph, self.constants | shapes)

    def missing(self, name: str) -> str:
        """Return what a tensor that is not known depends on."""
        while (node := self._graph.producer(name)) is not None:
            unknown = [each for each in node.input if each and each not in self._values]
            if not unknown:
                return label(node)
            name = unknown[0]
        return f"tensor {name!r}"

    def _compute(self, node: onnx.NodeProto) -> dict[str, Value]:
        """Return the outputs of a node whose inputs are known, as far as they can be computed."""
        inputs = {name: self._values[name] for name in node.input if name}
        numbers = self._run(node, {name: value[0] for name, value in inputs.items()})
        if any(a is not b for a, b in inputs.values()):
            zeros = self._run(node, {name: value[1] for name, value in inputs.items()})
        else:
            zeros = numbers
        both = numbers.keys() & zeros.keys()
        values = {name: (numbers[name], zeros[name]) for name in both}
        return {name: (a, a) if np.array_equal(a, b) else (a, b) for name, (a, b) in values.items()}

    def _run(
        self, node: onnx.NodeProto, inputs: Mapping[str, NDArray[Any]]
    ) -> dict[str, NDArray[Any]]:
        graph = self._graph
        if node.op_type not in OPERATORS or node.domain not in DOMAINS:
            return {}
        outputs = [name for name in node.output if name]
        try:
            graph.check_node(node)
            size = self._size_of_outputs(node, inputs)
        except Exception:  # of libraries, or no call of the operator, or no numbers
            return {}
        graph.budget.take(label(node), size)
        part = helper.make_graph(
            [node],
            "part",
            [helper.make_tensor_value_info(n, code(a), None) for n, a in inputs.items()],
            [onnx.ValueInfoProto(name=name) for name in outputs],
        )
        try:
            with np.errstate(all="ignore"):
                model = helper.make_model(part, opset_imports=graph.opsets)
                arrays = ReferenceEvaluator(model).run(None, dict(inputs))
        except MemoryError:
            raise
        except Exception:  # whatever the evaluator does not know: then the tensor is not known
            return {}
        return {name: np.asarray(a) for name, a in zip(outputs, arrays, strict=True)}

    def _size_of_outputs(self, node: onnx.NodeProto, inputs: Mapping[str, NDArray[Any]]) -> int:
        """Return the bytes that a node's outputs will have."""
        opsets = self._graph.opsets
        (version,) = (opset.version for opset in opsets if not opset.domain)
        types = shape_inference.infer_node_outputs(
            defs.get_schema(node.op_type, version, ""),
            node,
            {n: helper.make_tensor_type_proto(code(a), a.shape) for n, a in inputs.items()},
            # of what may be a shape the numbers matter
            {n: numpy_helper.from_array(a, n) for n, a in inputs.items() if a.size <= MOST_AXES},
            opset_imports=opsets,
        )
        tensors = [types[name].tensor_type for name in node.output if name]
        known = [
            tensor.HasField("shape") and all(d.HasField("dim_value") for d in tensor.shape.dim)
            for tensor in tensors
        ]
        if not all(known):
            raise ValueError("expected sizes that follow from those of the inputs")
        return sum(
            count(d.dim_value for d in tensor.shape.dim) * DTYPES[tensor.elem_type].itemsize
            for tensor in tensors
        )


def code(array: NDArray[Any]) -> int:
    """Return ONNX's number of an array's type."""
    return int(helper.np_dtype_to_tensor_dtype(array.dtype))
