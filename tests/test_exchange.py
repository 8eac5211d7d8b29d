"""Weights from and to PyTorch and Keras: equal outputs, round trips, clear errors."""

import os
import subprocess
import sys

import numpy as np
import pytest
from cells import IN_PYTORCH, LAYERS
from helpers import AGAINST_KERAS, AGAINST_TORCH, assert_close, assert_same_bits, normal

import fastlstm
from fastlstm.exchange import from_keras, from_torch, to_keras, to_torch

I, H, T, B = 3, 5, 7, 4
CELLS = ("LSTM", "GRU", "RNN")
SHAPES = [
    {},
    {"bias": False},
    {"num_layers": 2, "bidirectional": True},
    {"num_layers": 3, "batch_first": True},
]


def random_layer(rng, cell, **options):
    layer = getattr(fastlstm, cell)(I, H, **options, rng=rng)
    layer.flat[:] = normal(rng, layer.flat.shape, layer.dtype, 0.5)
    return layer


def assert_equal_layers(actual, desired):
    assert repr(actual) == repr(desired)
    assert actual._config() == desired._config()
    assert_same_bits(actual.params, desired.params)


# --- PyTorch --------------------------------------------------------------------------------------

TORCH_CASES = [
    (LAYERS[name].layer_class().__name__, LAYERS[name].layer_options(H) | shape)
    for name in IN_PYTORCH
    for shape in SHAPES
]


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


def torch_outputs(torch, peer, x):
    with torch.no_grad():
        y, state = peer(torch.from_numpy(x))
    state = state if isinstance(state, tuple) else (state,)
    return [tensor.numpy() for tensor in (y, *state)]


def own_outputs(layer, x):
    y, state = layer(x)
    return [y, *(state if isinstance(state, tuple) else (state,))]


def assert_same_outputs(actual, desired):
    for a, d in zip(actual, desired, strict=True):
        assert_close(a, d, AGAINST_TORCH)


@pytest.mark.parametrize(("cell", "options"), TORCH_CASES, ids=str)
class TestTorch:
    def test_from_a_module(self, torch, rng, dtype, cell, options):
        torch.manual_seed(0)
        peer = getattr(torch.nn, cell)(I, H, **options, dtype=getattr(torch, dtype.name))
        layer = from_torch(peer)
        x = normal(rng, (T, B, I), dtype)
        assert_same_outputs(own_outputs(layer, x), torch_outputs(torch, peer, x))
        told = {name: options[name] for name in ("batch_first", "nonlinearity") if name in options}
        assert_equal_layers(from_torch(peer.state_dict(), **told), layer)

    def test_to_a_module(self, torch, rng, dtype, cell, options):
        layer = random_layer(rng, cell, **options, dtype=dtype)
        peer = getattr(torch.nn, cell)(I, H, **options, dtype=getattr(torch, dtype.name))
        state_dict = {name: torch.from_numpy(array) for name, array in to_torch(layer).items()}
        assert list(state_dict) == list(peer.state_dict())
        peer.load_state_dict(state_dict)
        x = normal(rng, (T, B, I), dtype)
        assert_same_outputs(own_outputs(layer, x), torch_outputs(torch, peer, x))

    def test_round_trip(self, rng, dtype, cell, options):
        layer = random_layer(rng, cell, **options, dtype=dtype)
        told = {name: options[name] for name in ("batch_first", "nonlinearity") if name in options}
        state_dict = to_torch(layer)
        back = from_torch(state_dict, **told)
        assert_equal_layers(back, layer)
        assert_equal_layers(from_torch(layer.params, **told), layer)  # with one bias
        for array in state_dict.values():
            array[...] = 0
        assert_equal_layers(back, layer)
        assert layer.flat.all()


def test_options_of_a_torch_module(torch):
    peer = torch.nn.LSTM(I, H, 2, dropout=0.25, batch_first=True)
    layer = from_torch(peer, recurrent_dropout=0.5)
    assert (layer.dropout, layer.recurrent_dropout, layer.batch_first) == (0.25, 0.5, True)
    assert from_torch(peer, batch_first=False).batch_first is False


def test_a_module_within_a_model(torch, rng):
    model = torch.nn.ModuleDict(
        {
            "encoder": torch.nn.Sequential(torch.nn.Linear(I, I), torch.nn.GRU(I, H, 2)),
            "lstm": torch.nn.LSTM(H, H, batch_first=True),
        }
    )
    state = model.state_dict()
    gru = from_torch(model["encoder"][1])
    for prefix in ("encoder.1", "encoder.1."):
        for source in (model, state):
            assert_equal_layers(from_torch(source, prefix=prefix), gru)
    assert from_torch(model, prefix="lstm").batch_first
    assert not from_torch(state, prefix="lstm").batch_first

    choice = "prefix.* one of encoder.1, lstm"
    for prefix in ("encoder", "encoder.0", "ls", "lstm.weight_ih_l0"):
        with pytest.raises(ValueError, match=f"{choice}, got '{prefix}'"):
            from_torch(state, prefix=prefix)
    with pytest.raises(ValueError, match=choice):
        from_torch(state)
    with pytest.raises(ValueError, match=r"prefix: expected the name of a module: .* `decoder`"):
        from_torch(model, prefix="decoder")
    with pytest.raises(TypeError, match=r"source: expected LSTM, GRU or RNN .*, got Linear"):
        from_torch(model, prefix="encoder.0")
    with pytest.raises(TypeError, match="prefix: expected a str, got int"):
        from_torch(state, prefix=1)


def test_to_torch_refuses_what_pytorch_does_not_have():
    for name, value in {
        "peephole": True,
        "layer_norm": True,
        "coupled": True,
        "clip": 3.0,
        "cell_clip": 3.0,
        "zoneout_h": 0.1,
        "activations": ("hard_sigmoid", "tanh", "tanh"),
    }.items():
        with pytest.raises(ValueError, match=f"layer: expected {name}=.*, as PyTorch has it, got"):
            to_torch(fastlstm.LSTM(I, H, **{name: value}))
    with pytest.raises(ValueError, match="reset_after=True"):
        to_torch(fastlstm.GRU(I, H, reset_after=False))
    with pytest.raises(ValueError, match="nonlinearity='tanh'"):
        to_torch(fastlstm.RNN(I, H, nonlinearity="softsign"))
    with pytest.raises(TypeError, match="layer: expected LSTM, GRU or RNN, got dict"):
        to_torch({})


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"weight_ih_l0": None}, ValueError, "weight_ih_l0: expected an array of this name"),
        ({"weight_hh_l0": None}, ValueError, "weight_hh_l0: expected an array of this name"),
        ({"bias_ih_l0": None}, ValueError, "missing: bias_l0; unexpected: bias_hh_l0"),
        ({"bias_hh_l1": None}, ValueError, "missing: bias_l1; unexpected: bias_ih_l1"),
        ({"weight_hh_l1": None}, ValueError, "missing: weight_hh_l1; unexpected: none"),
        ({"other": np.zeros(3)}, ValueError, "unexpected: other"),
        ({"peephole_l0": np.zeros((3, H))}, ValueError, "unexpected: peephole_l0"),
        ({"weight_ih_l0": np.zeros((4 * H, I, 1))}, ValueError, "weight_ih_l0: expected 2 dim"),
        ({"weight_hh_l0": np.zeros((4 * H + 1, H))}, ValueError, "4, 3 or 1 times 5 units"),
        ({"weight_hh_l0": np.zeros((0, 0))}, ValueError, "hidden_size: expected at least 1"),
        ({"weight_ih_l1": np.zeros((4 * H, H + 1))}, ValueError, r"weight_ih_l1: expected \(20, 5"),
        ({"bias_hh_l0": np.zeros(1)}, ValueError, "bias_ih_l0: expected two biases alike"),
        ({"bias_ih_l0": np.zeros(3), "bias_hh_l0": np.zeros(3)}, ValueError, r"bias_l0: .*\(20,\)"),
        ({"weight_hh_l1": np.zeros((4 * H, H), "f4")}, TypeError, "weight_hh_l1: expected float64"),
        ({"weight_hh_l1": np.zeros((4 * H, H), "i8")}, TypeError, "weight_hh_l1: expected float32"),
        ({"weight_hh_l1": "text"}, TypeError, "weight_hh_l1: expected float32 or float64"),
    ],
    ids=str,
)
def test_malformed_state_dict(change, error, message):
    state_dict = to_torch(fastlstm.LSTM(I, H, 2, dtype=np.float64)) | change
    with pytest.raises(error, match=message):
        from_torch({name: array for name, array in state_dict.items() if array is not None})


def test_malformed_source(torch):
    with pytest.raises(TypeError, match=r"source: expected LSTM, GRU or RNN of torch.nn, got Lin"):
        from_torch(torch.nn.Linear(2, 2))
    with pytest.raises(TypeError, match="source: expected a module or a mapping, got list"):
        from_torch([])
    with pytest.raises(TypeError, match=r"weight_ih_l0: .* got torch.bfloat16"):
        from_torch(torch.nn.GRU(I, H, dtype=torch.bfloat16))
    with pytest.raises(ValueError, match="weight_ih_l0: expected an array of this name"):
        from_torch({})


@pytest.mark.parametrize("name", ["dtype", "forget_bias", "peepholes", "reset_after"])
def test_options_that_do_not_exist(name):
    state_dict = to_torch(fastlstm.LSTM(I, H))
    with pytest.raises(TypeError, match=f"{name}: expected one of input_size, "):
        from_torch(state_dict, **{name: True})


def test_options_that_arrays_contradict():
    state_dict = to_torch(fastlstm.LSTM(I, H))
    for name, value, message in [
        ("hidden_size", 2 * H, r"weight_ih_l0: expected \(40, 3\), got \(20, 3\)"),
        ("num_layers", 2, "missing: bias_l1"),
        ("bidirectional", True, "missing: bias_l0_reverse"),
    ]:
        with pytest.raises(ValueError, match=message):
            from_torch(state_dict, **{name: value})


# --- Keras ----------------------------------------------------------------------------------------

KERAS_CASES = [
    ("LSTM", {}),
    ("LSTM", {"bias": False}),
    ("GRU", {}),
    ("GRU", {"bias": False}),
    ("GRU", {"reset_after": False}),
    ("GRU", {"reset_after": False, "bias": False}),
    ("RNN", {}),
    ("RNN", {"bias": False}),
]
KERAS_CASES = [
    (cell, options | shape)
    for cell, options in KERAS_CASES
    for shape in ({}, {"num_layers": 2, "bidirectional": True})
]


# Keras' own affair
QUIET = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture
def keras():
    os.environ.setdefault("KERAS_BACKEND", "torch")
    return pytest.importorskip("keras")


def keras_layers(
    keras, rng, cell, *, dtype="float32", num_layers=1, bidirectional=False, bias=True, **more
):
    """Return built layers with random weights, also where Keras would begin with zeros."""
    layers, width = [], I
    for _ in range(num_layers):
        kind = getattr(keras.layers, "SimpleRNN" if cell == "RNN" else cell)
        layer = kind(H, use_bias=bias, return_sequences=True, dtype=dtype, **more)
        if bidirectional:
            layer = keras.layers.Bidirectional(layer, dtype=dtype)
        layer.build((None, None, width))
        layer.set_weights([normal(rng, w.shape, dtype, 0.5) for w in layer.get_weights()])
        layers.append(layer)
        width = 2 * H if bidirectional else H
    return layers


def assert_outputs_of_keras(keras, layers, x, actual):
    y = x
    for layer in layers:
        y = layer(y)
    assert_close(actual, keras.ops.convert_to_numpy(y), AGAINST_KERAS)


@QUIET
@pytest.mark.parametrize(("cell", "options"), KERAS_CASES, ids=str)
class TestKeras:
    def test_from_layers(self, keras, rng, cell, options):
        peers = keras_layers(keras, rng, cell, **options)
        layer = from_keras(*peers)
        x = normal(rng, (B, T, I), np.float32)
        assert_outputs_of_keras(keras, peers, x, layer(x)[0])
        told = {name: options[name] for name in ("reset_after",) if name in options}
        lists = [peer.get_weights() for peer in peers]
        assert_equal_layers(from_keras(*lists, **told), layer)

    def test_to_layers(self, keras, rng, cell, options):
        layer = random_layer(rng, cell, **options, batch_first=True)
        peers = keras_layers(keras, rng, cell, **options)
        for peer, weights in zip(peers, to_keras(layer), strict=True):
            peer.set_weights(weights)
        x = normal(rng, (B, T, I), np.float32)
        assert_outputs_of_keras(keras, peers, x, layer(x)[0])

    def test_round_trip(self, rng, dtype, cell, options):
        layer = random_layer(rng, cell, **options, dtype=dtype)
        weights = to_keras(layer)
        told = {name: options[name] for name in ("reset_after",) if name in options}
        back = from_keras(*weights, batch_first=False, **told)
        assert_equal_layers(back, layer)
        for array in (a for arrays in weights for a in arrays):
            array[...] = 0
        assert_equal_layers(back, layer)
        assert layer.flat.all()


@QUIET
@pytest.mark.parametrize("activation", ["relu", "hard_sigmoid", "elu", "leaky_relu", "softplus"])
@pytest.mark.parametrize("cell", CELLS)
def test_activations_of_keras(keras, rng, cell, activation):
    more = {} if cell == "RNN" else {"recurrent_activation": "hard_sigmoid"}
    peers = keras_layers(keras, rng, cell, dtype="float64", activation=activation, **more)
    x = normal(rng, (B, T, I))
    assert_outputs_of_keras(keras, peers, x, from_keras(*peers)(x)[0])


@QUIET
def test_dropouts_of_keras(keras, rng):
    peers = keras_layers(keras, rng, "GRU", dropout=0.25, recurrent_dropout=0.5)
    layer = from_keras(*peers)
    assert (layer.input_dropout, layer.recurrent_dropout, layer.dropout) == (0.25, 0.5, 0)
    assert from_keras(*peers, input_dropout=0).input_dropout == 0


@QUIET
def test_from_keras_refuses_what_does_not_exist_here(keras, rng):
    def built(layer):
        layer.build((None, None, I))
        return layer

    L = keras.layers
    for layer, error, message in [
        (L.LSTM(H, go_backwards=True), ValueError, r"layers\[0\]: expected go_backwards=False"),
        (L.LSTM(H, activation="gelu"), ValueError, "expected one of the activations .* got 'gelu'"),
        (L.Bidirectional(L.GRU(H), merge_mode="sum"), ValueError, "merge_mode='concat', got 'sum'"),
        (
            L.Bidirectional(L.GRU(H), backward_layer=L.GRU(H, dropout=0.1, go_backwards=True)),
            ValueError,
            "expected directions alike",
        ),
        (L.Dense(H), TypeError, "expected LSTM, GRU, SimpleRNN or Bidirectional, got Dense"),
        (L.RNN(L.LSTMCell(H)), TypeError, "got RNN"),
    ]:
        with pytest.raises(error, match=message):
            from_keras(built(layer))
    with pytest.raises(ValueError, match=r"layers\[0\]: expected a built layer"):
        from_keras(L.LSTM(H))
    different = (
        keras_layers(keras, rng, "RNN", activation=activation)[0] for activation in ("relu", "tanh")
    )
    with pytest.raises(ValueError, match="layers: expected the same options"):
        from_keras(*different)


def test_to_keras_refuses_what_keras_does_not_have():
    for options in ({"proj_size": 2}, {"peephole": True}, {"zoneout_c": 0.1}, {"reverse": True}):
        with pytest.raises(ValueError, match=f"layer: expected {next(iter(options))}=.*Keras"):
            to_keras(fastlstm.LSTM(I, H, **options))
    with pytest.raises(TypeError, match="layer: expected LSTM, GRU or RNN, got list"):
        to_keras([])


@pytest.mark.parametrize(
    ("cell", "change", "error", "message"),
    [
        ("LSTM", {0: np.zeros((I, 4 * H + 1))}, ValueError, r"layers\[0\], l0: expected kernels"),
        ("LSTM", {0: np.zeros(3)}, ValueError, r"layers\[0\], l0: expected kernels"),
        ("LSTM", {1: np.zeros((4, 4 * H))}, ValueError, "4, 3 or 1 times 4 units in the gates"),
        ("LSTM", {2: np.zeros(H)}, ValueError, r"layers\[0\], l0: expected a bias \(20,\), got"),
        ("LSTM", {2: np.zeros((2, 4 * H))}, ValueError, r"expected a bias \(20,\), got \(2, 20\)"),
        ("GRU", {2: np.zeros((2, H))}, ValueError, r"expected a bias \(15,\), got \(2, 5\)"),
        ("GRU", {2: np.zeros((3, 3 * H))}, ValueError, r"expected a bias \(15,\), got \(3, 15\)"),
        ("GRU", {2: np.zeros(())}, ValueError, r"expected a bias \(15,\), got \(\)"),
        ("RNN", {2: np.zeros(H, np.float32)}, TypeError, "bias_l0: expected float64, got float32"),
        ("RNN", {1: np.zeros((H, H), int)}, TypeError, r"layers\[0\]\[1\]: expected float32 or"),
    ],
    ids=str,
)
def test_malformed_keras_weights(cell, change, error, message):
    weights = to_keras(getattr(fastlstm, cell)(I, H, dtype=np.float64))[0]
    for index, array in change.items():
        weights[index] = array
    with pytest.raises(error, match=message):
        from_keras(weights)


def test_malformed_stack_of_keras_weights():
    lstm, wide = (to_keras(fastlstm.LSTM(n, H))[0] for n in (I, H))
    gru = to_keras(fastlstm.GRU(H, H))[0]
    assert from_keras(lstm, wide).num_layers == 2
    with pytest.raises(ValueError, match="layers: expected one kind of cell, got lstm and gru"):
        from_keras(lstm, gru)
    with pytest.raises(ValueError, match="weight_ih_l1"):
        from_keras(lstm, lstm)
    with pytest.raises(ValueError, match="missing: none; unexpected: bias_l1_reverse"):
        from_keras(lstm, [*wide, *wide])
    with pytest.raises(ValueError, match="missing: bias_l1"):
        from_keras(lstm, wide[:2])
    with pytest.raises(ValueError, match=r"layers\[1\]: expected a built layer, or a list of"):
        from_keras(lstm, wide[:1])
    with pytest.raises(TypeError, match="layers: expected at least one"):
        from_keras()


def test_exchange_needs_neither():
    program = (
        "import sys; sys.modules['torch'] = sys.modules['keras'] = None\n"
        "import fastlstm; from fastlstm.exchange import from_torch, to_torch\n"
        "from_torch(to_torch(fastlstm.LSTM(2, 3)))"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
