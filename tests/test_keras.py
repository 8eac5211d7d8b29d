"""fastlstm.keras runs Keras' own layers: equal results, and what it hands back to Keras."""

import os
import subprocess
import sys

import numpy as np
import pytest
from helpers import AGAINST_KERAS

os.environ.setdefault("KERAS_BACKEND", "torch")
keras = pytest.importorskip("keras")
if keras.backend.backend() != "torch":
    pytest.skip("needs KERAS_BACKEND=torch", allow_module_level=True)

import torch  # noqa: E402

import fastlstm.keras  # noqa: E402
from fastlstm.keras import calls  # noqa: E402

B, T, I, H = 5, 7, 3, 4
LENGTHS = np.array([7, 3, 1, 5, 0])[:, None]
MASKS = {
    "none": None,
    "right": np.arange(T) < LENGTHS,
    "left": np.arange(T) >= T - LENGTHS,
    "holes": np.random.default_rng(0).random((B, T)) < 0.5,
    "nothing there": np.zeros((B, T), bool),
}
LAYERS = {
    "LSTM": {},
    "GRU": {},
    "SimpleRNN": {},
    "SimpleRNN relu": {"activation": "relu"},
}
each_layer = pytest.mark.parametrize("name", LAYERS)


@pytest.fixture(autouse=True)
def hooked():
    fastlstm.keras.enable()
    calls.clear()
    yield
    fastlstm.keras.disable()


def made(name, rng, wrap=None, **options):
    """Return a built layer with random weights, and its options from LAYERS."""
    layer = getattr(keras.layers, name.split()[0])(H, **LAYERS[name], **options)
    layer = layer if wrap is None else wrap(layer)
    layer.build((B, T, I))
    for weight in layer.weights:
        if weight.trainable:
            weight.assign(0.5 * rng.standard_normal(weight.shape))
    return layer


def outputs(layer, x, **options):
    found = layer(x, **options)
    return list(found) if isinstance(found, (list, tuple)) else [found]


def gradients(layer, x, **options):
    """Return outputs, and the gradients of x and of all weights."""
    x = torch.tensor(x, requires_grad=True)
    found = outputs(layer, x, **options)
    torch.manual_seed(0)
    loss = sum((o * torch.randn(o.shape, dtype=o.dtype)).sum() for o in found)
    wanted = [x, *(v.value for v in layer.trainable_variables)]
    return found + list(torch.autograd.grad(loss, wanted, materialize_grads=True))


def assert_equal_to_keras(run, expected_calls):
    """Compare what `run` returns with fastlstm and without."""
    ours = run()
    assert dict(calls) == expected_calls
    fastlstm.keras.disable()
    theirs = run()
    assert dict(calls) == expected_calls
    assert len(ours) == len(theirs)
    for a, d in zip(ours, theirs, strict=True):
        tolerance = AGAINST_KERAS * max(1, d.abs().max())
        torch.testing.assert_close(a, d, rtol=0, atol=float(tolerance))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("mask", MASKS)
@each_layer
def test_outputs_states_and_gradients(name, mask, backwards, dtype, rng):
    x = rng.standard_normal((B, T, I)).astype(dtype)
    for sequences in (False, True):
        for zero in (False, True):
            layer = made(
                name,
                rng,
                return_sequences=sequences,
                return_state=True,
                go_backwards=backwards,
                use_bias=not zero,
                zero_output_for_mask=zero,
                dtype=dtype,
            )
            fastlstm.keras.enable()
            calls.clear()
            assert_equal_to_keras(
                lambda layer=layer: gradients(layer, x, mask=MASKS[mask]), {name.split()[0]: 1}
            )


@each_layer
def test_every_instruction_set(name, isa, rng):
    x = rng.standard_normal((B, T, I)).astype(np.float32)
    layer = made(name, rng, return_sequences=True)
    kind = name.split()[0]
    assert_equal_to_keras(lambda: gradients(layer, x, mask=MASKS["holes"]), {kind: 1})


@pytest.mark.parametrize("merge", ["concat", "sum", "ave", "mul", None])
@each_layer
def test_bidirectional(name, merge, rng):
    x = rng.standard_normal((B, T, I)).astype(np.float32)
    layer = made(
        name, rng, lambda own: keras.layers.Bidirectional(own, merge), return_sequences=True
    )
    kind = name.split()[0]
    assert_equal_to_keras(lambda: gradients(layer, x, mask=MASKS["left"]), {kind: 2})


@each_layer
def test_states_given_and_kept(name, rng):
    x = rng.standard_normal((B, T, I)).astype(np.float32)
    count = 2 if name == "LSTM" else 1
    state = [torch.tensor(rng.standard_normal((B, H)), dtype=torch.float32) for _ in range(count)]
    layer, kind = made(name, rng, return_state=True), name.split()[0]
    assert_equal_to_keras(lambda: gradients(layer, x, initial_state=state), {kind: 1})

    fastlstm.keras.enable()
    calls.clear()
    kept = made(name, rng, stateful=True)

    def twice():
        kept.reset_state()
        return outputs(kept, x) + outputs(kept, x)

    assert_equal_to_keras(twice, {kind: 2})
    fastlstm.keras.enable()
    assert len(gradients(kept, x)) > 2  # Keras 3.15 itself fails here: it writes into what it needs


@each_layer
def test_dropout_draws_what_keras_draws(name, rng):
    x = rng.standard_normal((B, T, I)).astype(np.float32)
    layer, kind = made(name, rng, dropout=0.4, seed=1), name.split()[0]
    seeds = layer.cell.seed_generator.state
    start = keras.ops.convert_to_numpy(seeds).copy()

    def run():
        seeds.assign(start)
        return gradients(layer, x, training=True)

    assert_equal_to_keras(run, {kind: 1})


def test_integers_are_cast_as_in_keras(rng):
    x = rng.integers(0, 3, (B, T, I))
    layer = made("GRU", rng)
    assert_equal_to_keras(lambda: outputs(layer, x), {"GRU": 1})


def test_training_a_model_reaches_the_same_loss(rng):
    x = rng.integers(0, 9, (32, T))
    target = rng.standard_normal((32, 1)).astype(np.float32)

    def fit():
        keras.utils.set_random_seed(0)
        model = keras.Sequential(
            [
                keras.layers.Embedding(9, 8, mask_zero=True),
                keras.layers.Bidirectional(keras.layers.LSTM(8, return_sequences=True)),
                keras.layers.GRU(8),
                keras.layers.Dense(1),
            ]
        )
        model.compile("adam", "mse")
        history = model.fit(x, target, epochs=3, batch_size=8, verbose=0, shuffle=False)
        return [torch.tensor(history.history["loss"])]

    assert_equal_to_keras(fit, {"LSTM": 24, "GRU": 12})


# --- what is Keras' -----------------------------------------------------------------------------


class OwnCell(keras.layers.LSTMCell):
    def call(self, inputs, states, training=False):
        return super().call(2 * inputs, states, training=training)


class OwnLSTM(keras.layers.LSTM):
    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.cell = OwnCell(H)


HANDED_BACK = {
    "activations": lambda: keras.layers.LSTM(H, activation="elu"),
    "reset_after=False": lambda: keras.layers.GRU(H, reset_after=False),
    "recurrent dropout": lambda: keras.layers.LSTM(H, recurrent_dropout=0.5, seed=0),
    "torch.bfloat16": lambda: keras.layers.SimpleRNN(
        H, dtype="bfloat16", recurrent_initializer="zeros"
    ),
    "use_cudnn=True": lambda: keras.layers.LSTM(H, use_cudnn=True),
    "a cell of another class": lambda: OwnLSTM(H),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("reason", HANDED_BACK)
def test_what_is_not_done_here_is_handed_back_and_counted(reason, rng):
    layer = HANDED_BACK[reason]()
    x = rng.standard_normal((B, T, I)).astype(np.float32)
    layer(x)
    calls.clear()
    training = reason == "recurrent dropout"
    found = layer(x, training=training)
    assert dict(calls) == {f"Keras: {reason}": 1}
    if not training:
        fastlstm.keras.disable()
        torch.testing.assert_close(found, layer(x), rtol=0, atol=0)


def test_symbolic_calls_do_not_count():
    keras.Sequential([keras.Input((T, I)), keras.layers.LSTM(H), keras.layers.Dense(1)])
    assert not calls


def test_enable_and_disable():
    kinds = [keras.layers.LSTM, keras.layers.GRU, keras.layers.SimpleRNN]
    fastlstm.keras.disable()
    before = [kind.inner_loop for kind in kinds]
    assert "inner_loop" not in vars(keras.layers.SimpleRNN)
    fastlstm.keras.enable()
    fastlstm.keras.enable()
    assert all(kind.inner_loop is not b for kind, b in zip(kinds, before, strict=True))
    fastlstm.keras.disable()
    fastlstm.keras.disable()
    assert [kind.inner_loop for kind in kinds] == before


def in_a_process(code, **environment):
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout + done.stderr


def test_other_backends_are_refused():
    pytest.importorskip("openvino")  # the backend of Keras that needs nothing else
    said = in_a_process("import fastlstm.keras", KERAS_BACKEND="openvino")
    assert "ImportError: fastlstm.keras needs KERAS_BACKEND=torch, got openvino" in said


def test_keras_own_tests_of_layers(tmp_path):
    """They come with Keras; run in a process of their own, with fastlstm.keras as a plugin."""
    names = ["lstm", "gru", "simple_rnn", "bidirectional", "rnn", "stacked_rnn_cells"]
    modules = [f"keras.src.layers.rnn.{name}_test" for name in names]
    code = f"""
import os, pytest
os.chdir({str(tmp_path)!r})
import fastlstm.keras
failed = pytest.main(["-q", "-p", "no:cacheprovider", "--pyargs", *{modules!r}])
ours = sum(n for name, n in fastlstm.keras.calls.items() if not name.startswith("Keras"))
print("result", int(failed), ours, sum(fastlstm.keras.calls.values()))
"""
    said = in_a_process(code)
    failed, ours, all_calls = map(int, said.rpartition("\nresult ")[2].split()[:3])
    assert failed == 0, said
    assert 100 <= ours < all_calls
