"""From a layer to a model: a recurrent node for each layer of the stack.

Decisions:
a) The model has the layer's own arguments and results, in its own shapes, with T and B open.
b) ``layout=1`` is not used, since ONNX Runtime does not run it: batch_first is a Transpose.
"""

import os
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import defs, helper, numpy_helper

from fastlstm._args.atomic_write import atomic_write
from fastlstm._args.cells import PLAIN
from fastlstm._args.numbers import check_size
from fastlstm._layers.recurrent import Recurrent
from fastlstm._version import __version__
from fastlstm.onnx._node import write_attributes, write_weights

FIRST_OPSET = 14  # the first in which LSTM, GRU and RNN are as they are now

# arguments of a layer that a model says, or on which inference does not depend: an option that is
# new here must not be left out in silence
EXPRESSED = {"input_size", "hidden_size", "num_layers", "bias", "batch_first", "bidirectional"}
EXPRESSED |= {"reverse", "peephole", "coupled", "reset_after", "clip", "activations"}
EXPRESSED |= {"nonlinearity", "dropout", "input_dropout", "recurrent_dropout"}


def export(
    layer: Recurrent,
    path: str | os.PathLike[str],
    *,
    lengths: bool = True,
    state: bool = True,
    opset: int = 17,
    overwrite: bool = False,
) -> None:
    """Write a layer as an ONNX model.

    The model's inputs are ``x``, ``lengths`` (int64), ``h_0`` and for the LSTM ``c_0``; its outputs
    ``y``, ``h_n`` and for the LSTM ``c_n``. All have the shapes of the layer's call; T and B are
    left open. It computes what a plain call does: dropout and zoneout's draws belong to training.

    Parameters
    ----------
    layer : LSTM, GRU or RNN
    path : path
        The file appears only when it is complete. A symbolic link stays, and leads to it.
    lengths, state : bool
        Whether the model has these inputs; without them all rows have T steps and the initial
        state is 0.
    opset : int
        Version of ONNX's operators, at least 14.
    overwrite : bool
        Whether to replace the file if it exists; its permissions remain.

    Raises
    ------
    ValueError
        If the operators cannot express the layer (projection, layer norm, cell_clip, zoneout); the
        message names the option. If `opset` is too old, or newer than the package onnx knows.
    TypeError
        If `layer` is not an LSTM, GRU or RNN.
    FileExistsError
        If there is a file, or a link, and `overwrite` is False.
    OSError
        If it cannot be written, or `path` is no regular file; what was there is as it was.

    Notes
    -----
    Attributes of ONNX are float32, also in a float64 model.

    What runs the model may fall short of the operators' text. ONNX Runtime (1.32) runs float32
    only and loses the state of a row with length 0; OpenVINO (2026.4) ignores peepholes and coupled
    gates; both do not apply ``clip`` to the input of the LSTM's output activation
    (microsoft/onnxruntime#27224).

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import fastlstm.onnx
    >>> path = Path(tempfile.mkdtemp()) / "lstm.onnx"
    >>> fastlstm.onnx.export(fastlstm.LSTM(3, 8, peephole=True), path)
    >>> fastlstm.onnx.load(path)
    LSTM(3, 8, peephole=True)
    """
    model = make_model(layer, lengths=lengths, state=state, opset=opset)
    with atomic_write(path, overwrite=overwrite) as file:
        file.write(model.SerializeToString())


def make_model(
    layer: Recurrent, *, lengths: bool = True, state: bool = True, opset: int = 17
) -> onnx.ModelProto:
    """Return the model that `export` writes."""
    check_layer(layer)
    if check_size("opset", opset, FIRST_OPSET) > defs.onnx_opset_version():
        raise ValueError(f"opset: expected at most {defs.onnx_opset_version()}, got {opset}")
    builder = _Builder(layer, lengths, state)
    builder.build()
    opsets = [helper.make_opsetid("", opset)]
    model = helper.make_model(
        helper.make_graph(
            builder.nodes, layer.cell, builder.inputs, builder.outputs, builder.initializers
        ),
        opset_imports=opsets,
        ir_version=helper.find_min_ir_version_for(opsets),
        producer_name="fastlstm",
        producer_version=__version__,
    )
    onnx.checker.check_model(model)
    return model


def check_layer(layer: Any) -> None:
    """Raise if ONNX's operators cannot express a layer."""
    if not isinstance(layer, Recurrent):
        raise TypeError(f"layer: expected an LSTM, GRU or RNN, got {type(layer).__name__}")
    plain = layer._defaults()
    for name, value in layer._config().items():
        if name not in EXPRESSED and value != plain.get(name):
            raise ValueError(
                f"{name}: expected a layer without, since ONNX cannot express it, got {value}"
            )


class _Builder:
    """The parts of the graph, made in the order of computation."""

    def __init__(self, layer: Recurrent, lengths: bool, state: bool):
        self.layer = layer
        self.states = PLAIN[layer.cell].states
        self.type = helper.np_dtype_to_tensor_dtype(layer.dtype)
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []

        direction = "reverse" if layer.reverse else "forward"
        if layer.bidirectional:
            direction = "bidirectional"
        self.attributes = write_attributes(
            layer.cell.upper(), layer._cell_options, layer.hidden_size, direction
        )
        N, H, D = layer.num_layers * layer.num_directions, layer.hidden_size, layer.num_directions
        order = ["B", "T"] if layer.batch_first else ["T", "B"]
        self.inputs = [self._value("x", [*order, layer.input_size])]
        if lengths:
            info = helper.make_tensor_value_info("lengths", onnx.TensorProto.INT64, ["B"])
            self.inputs.append(info)
        if state:
            self.inputs += [self._value(f"{s}_0", [N, "B", H]) for s in self.states]
        self.outputs = [self._value("y", [*order, D * H])]
        self.outputs += [self._value(f"{s}_n", [N, "B", H]) for s in self.states]
        self.given = {value.name for value in self.inputs}

    def _value(self, name: str, shape: list[Any]) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, self.type, shape)

    def _node(self, op: str, inputs: list[str], outputs: list[str], **attributes: Any) -> None:
        while not inputs[-1]:
            inputs.pop()
        name = f"{op} of {outputs[0]}"
        self.nodes.append(helper.make_node(op, inputs, outputs, name=name, **attributes))

    def _constant(self, name: str, value: NDArray[Any] | list[int]) -> str:
        array = np.array(value, np.int64) if isinstance(value, list) else value
        self.initializers.append(numpy_helper.from_array(array, name))
        return name

    def build(self) -> None:
        layer, L = self.layer, self.layer.num_layers
        x, lengths = "x", ""
        if layer.batch_first:
            x = "x by time"
            self._node("Transpose", ["x"], [x], perm=[1, 0, 2])
        if "lengths" in self.given:
            lengths = "lengths int32"
            self._node("Cast", ["lengths"], [lengths], to=onnx.TensorProto.INT32)
        initial = {s: self._split(f"{s}_0") for s in self.states}
        final = {s: [f"{s}_n l{k}" if L > 1 else f"{s}_n" for k in range(L)] for s in self.states}
        width = self._constant("shape of y", [0, 0, layer.num_directions * layer.hidden_size])
        for k in range(L):
            last = k == L - 1
            W, R, B, P = self._weights(k)
            states = [initial[s][k] for s in self.states] + [""] * (2 - len(self.states))
            self._node(
                layer.cell.upper(),
                [x, W, R, B, lengths, *states, P],
                [f"Y l{k}", *(final[s][k] for s in self.states)],
                **self.attributes,
            )
            # from (T, D, B, H) to (T, B, D, H), or (B, T, D, H)
            perm = [2, 0, 1, 3] if last and layer.batch_first else [0, 2, 1, 3]
            self._node("Transpose", [f"Y l{k}"], [f"Y l{k} by row"], perm=perm)
            x = "y" if last else f"y l{k}"
            self._node("Reshape", [f"Y l{k} by row", width], [x])
        if L > 1:
            for s in self.states:
                self._node("Concat", final[s], [f"{s}_n"], axis=0)

    def _split(self, name: str) -> list[str]:
        """Return the names of each layer's share of an initial state."""
        L = self.layer.num_layers
        if name not in self.given:
            return [""] * L
        if L == 1:
            return [name]
        names = [f"{name} l{k}" for k in range(L)]
        sizes = self._constant(f"sizes of {name}", [self.layer.num_directions] * L)
        self._node("Split", [name, sizes], names, axis=0)
        return names

    def _weights(self, k: int) -> list[str]:
        """Return the names of W, R, B and P of layer `k`, "" for what it does not have."""
        layer, kind = self.layer, self.layer.cell.upper()
        directions = [
            write_weights(
                kind, layer._cell_options, **{a: layer.params[name] for a, name in names.items()}
            )
            for names in layer._names[k]
        ]
        return [
            "" if arrays[0] is None else self._constant(f"{name} l{k}", np.stack(arrays))
            for name, arrays in zip("WRBP", zip(*directions, strict=True), strict=True)
        ]
