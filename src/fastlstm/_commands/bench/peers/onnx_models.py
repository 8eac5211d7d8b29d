"""ONNX Runtime and OpenVINO as peers: both run the same ONNX model."""

import importlib
import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fastlstm._args.cells import PLAIN, split_bias
from fastlstm._commands.bench.measure import Call, Problem
from fastlstm._commands.bench.peers.base import Peer


def onnx_model(problem: Problem) -> bytes:
    """Return an ONNX model of inputs x, h_0 and outputs y, h_n, with fixed sizes; LSTM: c_0, c_n.

    The GRU's reset gate acts on the recurrent product (linear_before_reset=1), as in fastlstm and
    PyTorch.
    """
    onnx: Any = importlib.import_module("onnx")
    _, T, B, I, H, kind = problem.case
    cell = PLAIN[kind]
    GH = cell.G * H
    state = [1, B, H]
    firsts = [f"{name}_0" for name in cell.states]
    lasts = [f"{name}_n" for name in cell.states]
    order = [cell.gates.index(gate) for gate in cell.onnx]

    def value(name: str, shape: list[int]) -> Any:
        return onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)

    def ordered(array: NDArray[Any]) -> NDArray[Any]:
        return array.reshape(cell.G, H, -1)[order].reshape(1, GH, -1)

    biases = np.concatenate([*map(ordered, split_bias(cell, problem.b))], axis=1)[:, :, 0]
    arrays = {"w": ordered(problem.w_ih), "r": ordered(problem.w_hh), "b": biases}
    node = onnx.helper.make_node(
        kind.upper(),
        ["x", "w", "r", "b", "", *firsts],
        ["y", *lasts],
        hidden_size=H,
        **({"linear_before_reset": 1} if kind == "gru" else {}),
    )
    graph = onnx.helper.make_graph(
        [node],
        kind,
        [value("x", [T, B, I]), *(value(name, state) for name in firsts)],
        [value("y", [T, 1, B, H]), *(value(name, state) for name in lasts)],
        [onnx.numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    opset = [onnx.helper.make_opsetid("", 17)]
    model = onnx.helper.make_model(graph, opset_imports=opset, ir_version=9)
    return bytes(model.SerializeToString())


class ONNXRuntime(Peer):
    """ONNX Runtime, by the operators LSTM, GRU and RNN; in int8 by DynamicQuantizeLSTM."""

    name = "onnxruntime"
    needs = ("onnx",)
    compute_dtypes: ClassVar[tuple[str | None, ...]] = (None, "int8")
    kinds = ("forward", "step")
    dtypes = ("float32",)

    def supports(self, problem: Problem) -> bool:
        """Return whether the library can do this; in int8 it has the LSTM only."""
        return super().supports(problem) and (
            problem.compute_dtype is None or problem.case.cell == "lstm"
        )

    def prepare(self, problem: Problem) -> Call:
        options = self.module.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        session = self.module.InferenceSession(
            self._model(problem), options, providers=["CPUExecutionProvider"]
        )
        zeros = np.zeros((1, problem.case.B, problem.case.H), problem.dtype)
        states = PLAIN[problem.case.cell].states
        firsts = [f"{name}_0" for name in states]
        lasts = [f"{name}_n" for name in states]
        feed = {"x": problem.x} | dict.fromkeys(firsts, zeros)

        def forward() -> Sequence[Any]:
            return (session.run(None, feed)[0],)

        def step() -> Sequence[Any]:
            feed.update(zip(firsts, session.run(lasts, feed), strict=True))
            return (feed["h_0"],)

        return step if problem.case.kind == "step" else forward

    def _model(self, problem: Problem) -> bytes:
        model = onnx_model(problem)
        if problem.compute_dtype is None:
            return model
        onnx: Any = importlib.import_module("onnx")
        tools: Any = importlib.import_module("onnxruntime.quantization")
        logging.disable(logging.WARNING)  # advice for other models
        try:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "int8.onnx"
                tools.quantize_dynamic(
                    onnx.load_from_string(model),
                    path,
                    per_channel=True,
                    weight_type=tools.QuantType.QInt8,
                )
                return path.read_bytes()
        finally:
            logging.disable(logging.NOTSET)


class OpenVINO(Peer):
    """OpenVINO, which reads the same ONNX model."""

    name = "openvino"
    needs = ("onnx",)
    compute_dtypes: ClassVar[tuple[str | None, ...]] = (None, "bfloat16")
    kinds = ("forward", "step")
    dtypes = ("float32",)

    def prepare(self, problem: Problem) -> Call:
        openvino = self.module
        core = openvino.Core()
        model = core.compile_model(
            core.read_model(onnx_model(problem), b""),
            "CPU",
            {
                "INFERENCE_NUM_THREADS": self.threads,
                "NUM_STREAMS": 1,
                "PERFORMANCE_HINT": "LATENCY",
                "INFERENCE_PRECISION_HINT": "bf16" if problem.compute_dtype else "f32",
                "ENABLE_CPU_PINNING": False,  # pinned, it loses most when other work is about
            },
        )
        request = model.create_infer_request()
        request.set_tensor("x", openvino.Tensor(problem.x))
        states = PLAIN[problem.case.cell].states
        for name in states:
            zeros = np.zeros((1, problem.case.B, problem.case.H), problem.dtype)
            request.set_tensor(f"{name}_0", openvino.Tensor(zeros))
        y, h_n = map(request.get_tensor, ("y", "h_n"))
        # each state before and after the step
        pairs = [tuple(request.get_tensor(f"{name}_{end}") for end in "0n") for name in states]

        def forward() -> Sequence[Any]:
            request.infer()
            return (y.data,)

        def step() -> Sequence[Any]:
            request.infer()
            for before, after in pairs:
                before.data[...] = after.data
            return (h_n.data,)

        return step if problem.case.kind == "step" else forward
