"""Models and single recurrent operators, run by ONNX Runtime, to compare results with."""

import numpy as np
import pytest

# ONNX's gate order, as indices into ours
ORDERS = {"LSTM": [0, 3, 1, 2], "GRU": [1, 0, 2], "RNN": [0]}


def onnx_blocks(kind, a):
    """Return the gates of a weight or bias, (G * H, ...), in ONNX's order."""
    order = ORDERS[kind]
    return a.reshape(len(order), -1, *a.shape[1:])[order].reshape(a.shape)


def run_model(model, inputs):
    """Return the outputs of a model, by one thread."""
    onnxruntime = pytest.importorskip("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, inputs)


def run_onnx(kind, x, w, r, b=None, lengths=None, h_0=None, c_0=None, p=None, **attributes):
    """Return y (T, B, H) and the last states; the arguments as ONNX wants them, one direction."""
    onnx = pytest.importorskip("onnx")
    H = r.shape[1]
    lengths = None if lengths is None else np.asarray(lengths, np.int32)
    states = [None if s is None else s[np.newaxis] for s in (h_0, c_0)]
    weights = [None if a is None else a[np.newaxis] for a in (w, r, b)]
    inputs = [x, *weights, lengths, *states, None if p is None else p.reshape(1, -1)]
    given = {f"in{k}": a for k, a in enumerate(inputs) if a is not None}
    names = [f"in{k}" if a is not None else "" for k, a in enumerate(inputs)]
    while not names[-1]:
        names.pop()
    outputs = ["y", "h", "c"][: 3 if kind == "LSTM" else 2]
    node = onnx.helper.make_node(kind, names, outputs, hidden_size=H, **attributes)
    real, integer = onnx.TensorProto.FLOAT, onnx.TensorProto.INT32
    graph = onnx.helper.make_graph(
        [node],
        "one layer",
        [
            onnx.helper.make_tensor_value_info(n, integer if a is lengths else real, a.shape)
            for n, a in given.items()
        ],
        [onnx.helper.make_tensor_value_info(n, real, None) for n in outputs],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 14)])
    model.ir_version = 8
    y, *state = run_model(model, given)
    return y[:, 0], *(s[0] for s in state)
