"""`fastlstm.onnx.export`: against ONNX Runtime, and back."""

import os
import subprocess
import sys

import numpy as np
import pytest
from helpers import assert_close, assert_same_bits, normal
from onnx_peer import run_model

from fastlstm import GRU, LSTM, RNN

pytest.importorskip("onnx")

from fastlstm.onnx import Backend, export, load
from fastlstm.onnx._export import make_model

T, B, I, H = 5, 3, 4, 6

LAYERS = {
    "lstm": (LSTM, {}),
    "lstm no bias": (LSTM, {"bias": False}),
    "lstm peephole": (LSTM, {"peephole": True}),
    "lstm coupled": (LSTM, {"coupled": True}),
    "lstm coupled peephole": (LSTM, {"coupled": True, "peephole": True}),
    "lstm activations": (
        LSTM,
        {"activations": (("hard_sigmoid", 0.3, 0.4), ("leaky_relu", 0.2), "softsign")},
    ),
    "gru": (GRU, {}),
    "gru reset before": (GRU, {"reset_after": False}),
    "gru clip": (GRU, {"clip": 0.5, "reset_after": False}),
    "rnn": (RNN, {}),
    "rnn relu": (RNN, {"nonlinearity": "relu", "clip": 0.7}),
}
layers = pytest.mark.parametrize("name", LAYERS)


def make(name, **options):
    """Return a layer with parameters on the scale of trained ones."""
    cls, more = LAYERS[name]
    layer = cls(I, H, **{**more, **options}, rng=0)
    layer.flat *= 2
    return layer


def make_call(rng, layer, T=T, B=B):
    """Return x, state and lengths."""
    x = normal(rng, (B, T, I) if layer.batch_first else (T, B, I), layer.dtype)
    shapes = layer._state_shapes(B)[: len(layer._cell.states)]
    states = [normal(rng, shape, layer.dtype) for shape in shapes]
    lengths = rng.integers(1, T + 1, B)  # ONNX Runtime loses the state of a row without steps
    return x, tuple(states) if len(states) == 2 else states[0], lengths


def flat(y, state):
    return (y, *state) if isinstance(state, tuple) else (y, state)


def named(x, state, lengths):
    """Return a call's arguments as the inputs of an exported model."""
    return dict(
        zip(["x", "lengths", "h_0", "c_0"], [x, lengths, *flat(x, state)[1:]], strict=False)
    )


@layers
@pytest.mark.parametrize("num_layers", [1, 2])
@pytest.mark.parametrize("direction", ["", "bidirectional", "reverse"])
@pytest.mark.parametrize("batch_first", [False, True], ids=["", "batch_first"])
def test_onnx_runtime_computes_what_the_layer_does_for_any_T_and_B(
    rng, name, num_layers, direction, batch_first
):
    options = {direction: True} if direction else {}
    layer = make(name, num_layers=num_layers, batch_first=batch_first, **options)
    model = make_model(layer)
    for sizes in ((T, B), (1, 1), (9, 2)):
        x, state, lengths = make_call(rng, layer, *sizes)
        own = flat(*layer(x, state, lengths=lengths))
        assert_close(tuple(run_model(model, named(x, state, lengths))), own)


@layers
@pytest.mark.parametrize("direction", ["", "bidirectional", "reverse"])
@pytest.mark.parametrize("batch_first", [False, True], ids=["", "batch_first"])
def test_what_is_exported_is_loaded_bit_by_bit(rng, dtype, tmp_path, name, direction, batch_first):
    options = {direction: True} if direction else {}
    layer = make(name, num_layers=2, batch_first=batch_first, dtype=dtype, **options)
    export(layer, tmp_path / "layer.onnx")
    loaded = load(tmp_path / "layer.onnx")
    assert repr(loaded) == repr(layer)
    assert_same_bits(loaded.flat, layer.flat)


@layers
def test_a_float64_model_gives_equal_results_on_the_backend(rng, name):
    layer = make(name, num_layers=2, bidirectional=True, dtype=np.float64)
    x, state, lengths = make_call(rng, layer)
    outputs = Backend.run_model(make_model(layer), named(x, state, lengths))
    assert_close(outputs, flat(*layer(x, state, lengths=lengths)))


@pytest.mark.parametrize("opset", [14, 17, 21, 22])
def test_every_opset_since_14_runs(rng, opset):
    layer = make("lstm", num_layers=2)
    x, state, lengths = make_call(rng, layer)
    model = make_model(layer, opset=opset)
    own = flat(*layer(x, state, lengths=lengths))
    assert_close(tuple(run_model(model, named(x, state, lengths))), own)


def test_state_and_lengths_need_not_be_inputs(rng):
    layer = make("lstm", num_layers=2, bidirectional=True)
    x, _, _ = make_call(rng, layer)
    model = make_model(layer, state=False, lengths=False)
    assert [value.name for value in model.graph.input] == ["x"]
    assert_close(tuple(run_model(model, {"x": x})), flat(*layer(x)))


def test_inputs_and_outputs_have_the_names_and_shapes_of_the_layers_call():
    def shapes(values):
        return {
            value.name: [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
            for value in values
        }

    graph = make_model(make("lstm", num_layers=2, bidirectional=True, batch_first=True)).graph
    state = [4, "B", H]
    assert shapes(graph.input) == {
        "x": ["B", "T", I],
        "lengths": ["B"],
        "h_0": state,
        "c_0": state,
    }
    assert shapes(graph.output) == {"y": ["B", "T", 2 * H], "h_n": state, "c_n": state}


def test_dropout_is_left_to_training(rng):
    layer = make("lstm", num_layers=2, dropout=0.5, input_dropout=0.5, recurrent_dropout=0.5)
    x, state, lengths = make_call(rng, layer)
    outputs = run_model(make_model(layer), named(x, state, lengths))
    assert_close(tuple(outputs), flat(*layer(x, state, lengths=lengths)))


@pytest.mark.parametrize(
    ("options", "argument"),
    [
        ({"proj_size": 3}, "proj_size"),
        ({"proj_size": 3, "proj_clip": 1.0}, "proj_size"),
        ({"layer_norm": True}, "layer_norm"),
        ({"cell_clip": 2.0}, "cell_clip"),
        ({"zoneout_h": 0.1}, "zoneout_h"),
        ({"zoneout_c": 0.1}, "zoneout_c"),
    ],
)
def test_what_onnx_cannot_express_raises_and_is_named(tmp_path, options, argument):
    with pytest.raises(ValueError, match=rf"^{argument}: expected a layer without"):
        export(LSTM(I, H, **options), tmp_path / "layer.onnx")
    assert not list(tmp_path.iterdir())


def test_an_option_that_export_does_not_know_is_not_left_out(tmp_path, monkeypatch):
    known = LSTM._config
    monkeypatch.setattr(LSTM, "_config", lambda layer: known(layer) | {"scale": 0.5})
    with pytest.raises(ValueError, match=r"^scale: expected a layer without"):
        export(LSTM(I, H), tmp_path / "layer.onnx")
    assert not list(tmp_path.iterdir())


def test_wrong_arguments_of_export_raise_and_are_named(tmp_path):
    path = tmp_path / "layer.onnx"
    with pytest.raises(TypeError, match=r"^layer: expected an LSTM, GRU or RNN, got dict"):
        export({}, path)
    for opset in (13, 999):
        with pytest.raises(ValueError, match=r"^opset"):
            export(LSTM(I, H), path, opset=opset)
    assert not list(tmp_path.iterdir())


def test_a_file_is_replaced_only_on_demand_and_as_a_whole(tmp_path):
    path = tmp_path / "layer.onnx"
    path.write_bytes(b"before")
    with pytest.raises(FileExistsError, match=r"layer\.onnx"):
        export(LSTM(I, H), path)
    with pytest.raises(ValueError, match="layer_norm"):
        export(LSTM(I, H, layer_norm=True), path, overwrite=True)
    assert path.read_bytes() == b"before"
    export(LSTM(I, H), str(path), overwrite=True)
    assert repr(load(str(path))) == "LSTM(4, 6)"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(os.name != "posix", reason="of POSIX systems")
def test_a_link_that_leads_nowhere_is_replaced_only_on_demand(tmp_path):
    path = tmp_path / "link.onnx"
    path.symlink_to("layer.onnx")
    with pytest.raises(FileExistsError, match=r"link\.onnx"):
        export(LSTM(I, H), path)
    assert list(tmp_path.iterdir()) == [path]
    export(LSTM(I, H), path, overwrite=True)
    assert path.is_symlink()
    assert repr(load(tmp_path / "layer.onnx")) == "LSTM(4, 6)"


def test_without_the_package_onnx_the_error_names_the_extra():
    code = "import sys; sys.modules['onnx'] = None; import fastlstm; import fastlstm.onnx"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "ImportError: fastlstm.onnx needs the package onnx: pip install" in run.stderr
    assert "pip install 'onnx>=1.22'" in run.stderr
