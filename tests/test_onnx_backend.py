"""`fastlstm.onnx.Backend`: ONNX's own node tests, and the attributes that they leave out."""

import unittest
import warnings

import numpy as np
import pytest
from helpers import assert_close, assert_same_bits, normal
from onnx_peer import run_model

from fastlstm import reference

onnx = pytest.importorskip("onnx")

from onnx import helper  # noqa: E402

from fastlstm.onnx import Backend  # noqa: E402

T, B, I, H = 5, 3, 4, 6
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
INPUTS = {
    "LSTM": ("x", "w", "r", "b", "lengths", "h_0", "c_0", "p"),
    "GRU": ("x", "w", "r", "b", "lengths", "h_0"),
    "RNN": ("x", "w", "r", "b", "lengths", "h_0"),
}


def make_inputs(rng, kind, directions=1, dtype=np.float32):
    """Return all inputs of a node."""
    G, D = GATES[kind], directions
    shapes = {"x": (T, B, I), "w": (D, G * H, I), "r": (D, G * H, H), "b": (D, 2 * G * H)}
    shapes |= {"lengths": (), "h_0": (D, B, H), "c_0": (D, B, H), "p": (D, 3 * H)}
    inputs = {name: normal(rng, shapes[name], dtype, 0.5) for name in INPUTS[kind]}
    return inputs | {"lengths": np.array([2, T, 1], np.int32)}


def make_node(kind, inputs, **attributes):
    names = [name if name in inputs else "" for name in INPUTS[kind]]
    outputs = ["y", "h", "c"][: 3 if kind == "LSTM" else 2]
    return helper.make_node(kind, names, outputs, hidden_size=H, **attributes)


def run_node(kind, inputs, **attributes):
    return Backend.run_node(make_node(kind, inputs, **attributes), list(inputs.values()))


def make_model(nodes, inputs, outputs):
    """Return a model in which only the names of inputs and outputs are declared."""
    types = {
        name: helper.np_dtype_to_tensor_dtype(np.asarray(array).dtype)
        for name, array in inputs.items()
    }
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info(n, types[n], np.shape(inputs[n])) for n in inputs],
        [helper.make_tensor_value_info(n, types["x"], shape) for n, shape in outputs.items()],
    )
    opsets = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def test_all_recurrent_node_tests_of_onnx_pass():
    from onnx.backend.test import BackendTest

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # ONNX computes the cases of all its operators
        tests = BackendTest(Backend, __name__)
    tests.include(r"test_(lstm|gru|rnn|simple_rnn)_\w+_cpu$")
    result = unittest.TestResult()
    tests.test_suite.run(result)
    assert result.failures == result.errors == []
    assert result.testsRun - len(result.skipped) >= 12  # as many has onnx 1.17; 1.23 has 18


ATTRIBUTES = [
    ("LSTM", {}),
    ("LSTM", {"input_forget": 1}),
    ("LSTM", {"activations": ["Softsign", "relu", "HARDSIGMOID"]}),
    (
        "LSTM",
        {
            "activations": ["HardSigmoid", "LeakyRelu", "Softsign"],
            "activation_alpha": [0.3, 0.2],
            "activation_beta": [0.4],
        },
    ),
    ("GRU", {}),
    ("GRU", {"linear_before_reset": 1}),
    ("GRU", {"clip": 0.5}),
    (
        "GRU",
        {
            "activations": ["HardSigmoid", "Affine"],
            "activation_alpha": [0.3, 0.5],
            "activation_beta": [0.4, 0.1],
        },
    ),
    ("RNN", {}),
    ("RNN", {"activations": ["Relu"], "clip": 0.5}),
]


@pytest.mark.parametrize(("kind", "attributes"), ATTRIBUTES, ids=str)
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
def test_attributes_mean_what_they_mean_to_onnx_runtime(rng, kind, attributes, direction):
    D = 2 if direction == "bidirectional" else 1
    attributes = {k: v * D if isinstance(v, list) else v for k, v in attributes.items()}
    attributes["direction"] = direction
    inputs = make_inputs(rng, kind, D)
    shapes = dict(zip("yhc", [(T, D, B, H), (D, B, H), (D, B, H)], strict=True))
    shapes = dict(list(shapes.items())[: 3 if kind == "LSTM" else 2])
    model = make_model([make_node(kind, inputs, **attributes)], inputs, shapes)
    assert_close(Backend.run_model(model, inputs), tuple(run_model(model, inputs)))


def test_each_direction_may_have_activations_of_its_own(rng):
    inputs = make_inputs(rng, "GRU", 2)
    names = ["Sigmoid", "ScaledTanh", "HardSigmoid", "LeakyRelu"]
    attributes = {"activation_alpha": [1.7, 0.3, 0.2], "activation_beta": [0.6, 0.4]}
    y, h = run_node("GRU", inputs, direction="bidirectional", activations=names, **attributes)
    model = make_model(
        [make_node("GRU", inputs, direction="bidirectional", activations=names, **attributes)],
        inputs,
        {"y": y.shape, "h": h.shape},
    )
    assert_close((y, h), tuple(run_model(model, inputs)))


@pytest.mark.parametrize("kind", GATES)
@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
def test_layout_1_is_layout_0_with_the_batch_first(rng, kind, direction):
    inputs = make_inputs(rng, kind, 2 if direction == "bidirectional" else 1)
    y, *states = run_node(kind, inputs, direction=direction)
    turned = {
        name: a.swapaxes(0, 1) if name in ("x", "h_0", "c_0") else a for name, a in inputs.items()
    }
    y_1, *states_1 = run_node(kind, turned, direction=direction, layout=1)
    assert_same_bits(y_1, np.moveaxis(y, 2, 0))
    assert_same_bits(tuple(states_1), tuple(state.swapaxes(0, 1) for state in states))


def test_clip_bounds_the_input_of_every_activation_as_the_operator_says(rng):
    # ONNX Runtime leaves out that of the output activation (microsoft/onnxruntime#27224)
    inputs = make_inputs(rng, "LSTM", dtype=np.float64)
    inputs["c_0"] *= 9
    w, r, b, p = (inputs[name][0] for name in "wrbp")
    order = np.arange(4 * H).reshape(4, H)[[0, 2, 3, 1]].ravel()
    desired = reference.lstm_forward(
        inputs["x"],
        w[order],
        r[order],
        (b[: 4 * H] + b[4 * H :])[order],
        inputs["h_0"][0],
        inputs["c_0"][0],
        lengths=inputs["lengths"],
        peephole=p.reshape(3, H)[[0, 2, 1]],
        clip=0.5,
    )
    y, h, c = run_node("LSTM", inputs, clip=0.5)
    assert_close((y[:, 0], h[0], c[0]), desired[:3])


@pytest.mark.parametrize("kind", GATES)
def test_optional_inputs_and_outputs_may_be_left_out(rng, kind, dtype):
    inputs = make_inputs(rng, kind, dtype=dtype)
    given = {name: inputs[name] for name in "xwr"}
    zeros = {name: np.zeros_like(a) for name, a in inputs.items()}
    zeros["lengths"] += T
    assert_close(run_node(kind, given), run_node(kind, zeros | given))
    node = helper.make_node(kind, list("xwr"), ["y"])
    assert_same_bits(Backend.run_node(node, list(given.values())), tuple(run_node(kind, given)[:1]))


def test_an_output_without_a_name_is_not_mistaken_for_an_input_that_is_not_given(rng):
    inputs = {name: a for name, a in make_inputs(rng, "GRU").items() if name in "xwr"}
    nodes = [helper.make_node("GRU", list("xwr"), ["", "h"], hidden_size=H)]
    nodes += [helper.make_node("GRU", [*"xwr", "", "", "h"], ["", "h again"], hidden_size=H)]
    model = make_model(nodes, inputs, {"h": (1, B, H), "h again": (1, B, H)})
    assert_close(Backend.run_model(model, inputs), tuple(run_model(model, inputs)))


def test_the_other_nodes_of_a_model_run_too(rng):
    inputs = {name: a for name, a in make_inputs(rng, "RNN").items() if name in "xwr"}
    nodes = [helper.make_node("Mul", ["x", "x"], ["x x"])]
    nodes += [helper.make_node("RNN", ["x x", "w", "r"], ["y"], hidden_size=H)]
    nodes += [helper.make_node("ReduceMean", ["y"], ["mean"], axes=[0, 1], keepdims=0)]
    model = make_model(nodes, inputs, {"mean": (B, H)})
    desired = tuple(run_model(model, inputs))
    prepared = Backend.prepare(model)
    assert_close(prepared.run(inputs), desired)
    assert_close(prepared.run(list(inputs.values())), desired)


def test_an_initializer_that_is_an_input_is_its_default(rng):
    inputs = {name: a for name, a in make_inputs(rng, "RNN").items() if name in "xwr"}
    model = make_model([helper.make_node("RNN", list("xwr"), ["y"])], inputs, {"y": (T, 1, B, H)})
    for name in "wr":
        model.graph.initializer.append(onnx.numpy_helper.from_array(inputs[name], name))
    assert_same_bits(Backend.run_model(model, [inputs["x"]]), run_node("RNN", inputs)[:1])


def test_wrong_inputs_raise_and_are_named(rng):
    inputs = make_inputs(rng, "LSTM")
    with pytest.raises(ValueError, match=r"^W: expected \(1, 24, I\)"):
        run_node("LSTM", inputs | {"w": inputs["w"][:, 1:]})
    with pytest.raises(ValueError, match=r"^lengths"):
        run_node("LSTM", inputs | {"lengths": inputs["lengths"] + 9})
    with pytest.raises(ValueError, match=r"^inputs: expected 8, got 3"):
        Backend.run_node(make_node("LSTM", inputs), [inputs["x"]] * 3)
    model = make_model([make_node("LSTM", inputs)], inputs, {"y": (T, 1, B, H)})
    with pytest.raises(ValueError, match=r"^inputs: expected 8"):
        Backend.run_model(model, [inputs["x"]] * 3)
    model.graph.node[0].input[0] = "nowhere"
    with pytest.raises(onnx.checker.ValidationError):
        Backend.prepare(model)


def test_the_device_is_the_cpu():
    assert Backend.supports_device("CPU")
    assert Backend.supports_device("CPU:0")
    assert not Backend.supports_device("CUDA")
