"""What memory is laid out for cannot be changed behind a layer's back: by attributes, by what
`params` holds, or by the state in a pickle.
"""

import copy
import pickle
import re

import numpy as np
import pytest
from helpers import assert_same_bits, normal

import fastlstm
from fastlstm import GRU, LSTM, RNN
from fastlstm.training import SGD, Adam, AdamW, Linear

I, H = 3, 6
LAYERS = {
    "lstm": (LSTM, {}),
    "lstm everything": (
        LSTM,
        {
            "num_layers": 2,
            "bidirectional": True,
            "proj_size": 4,
            "peephole": True,
            "coupled": True,
            "layer_norm": True,
            "activations": ("hard_sigmoid", ("elu", 0.5), "softsign"),
        },
    ),
    "gru": (GRU, {}),
    "gru reset before": (GRU, {"reset_after": False, "clip": 3.0}),
    "rnn": (RNN, {"nonlinearity": ("leaky_relu", 0.3), "reverse": True}),
}
layers = pytest.mark.parametrize("name", LAYERS)

COPIES = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda model: pickle.loads(pickle.dumps(model)),
    "joblib": None,  # through a file, see `duplicate`
    "joblib, mapped": None,
}


def make(name, **options):
    cls, own = LAYERS[name]
    return cls(I, H, **own, **options, rng=0)


def run(layer):
    return layer(normal(np.random.default_rng(1), (5, 2, I), layer.dtype))[0]


def duplicate(how, model, path):
    if COPIES[how] is not None:
        return COPIES[how](model)
    joblib = pytest.importorskip("joblib")
    joblib.dump(model, path)
    return joblib.load(path, mmap_mode="r" if "mapped" in how else None)


def raises_of(name, error=ValueError):
    return pytest.raises(error, match=rf"^{re.escape(name)}: ")


# --- attributes -----------------------------------------------------------------------------------

SIZES = ("input_size", "hidden_size", "num_layers", "bias", "bidirectional", "reverse", "dtype")
OPTIONS = {
    "lstm": ("proj_size", "peephole", "coupled", "layer_norm", "cell_clip", "activations"),
    "gru": ("reset_after", "clip", "activations"),
    "rnn": ("nonlinearity", "clip"),
}


@layers
def test_what_memory_depends_on_can_be_read_but_not_set_or_deleted(name):
    layer = make(name)
    desired = run(layer)
    for attribute in (*SIZES, *OPTIONS[layer.cell], "cell", "flat", "params"):
        for value in (7, "other", np.zeros(1, np.float32)):
            with raises_of(attribute, AttributeError):
                setattr(layer, attribute, value)
        with raises_of(attribute, AttributeError):
            delattr(layer, attribute)
    assert_same_bits(run(layer), desired)


@layers
def test_options_of_another_cell_cannot_be_put_on(name):
    layer = make(name)
    for other in ("proj_size", "peephole", "reset_after", "nonlinearity", "zoneout_c"):
        if other not in vars(layer):
            with raises_of(other, AttributeError):
                setattr(layer, other, 0.5)


def test_what_no_memory_depends_on_is_checked_again():
    lstm = LSTM(I, H, 2, rng=0)
    for name in ("dropout", "input_dropout", "recurrent_dropout", "zoneout_h", "zoneout_c"):
        setattr(lstm, name, 0.25)
        assert getattr(lstm, name) == 0.25
        with raises_of(name):
            setattr(lstm, name, 1.5)
        with raises_of(name, TypeError):
            setattr(lstm, name, "0.5")
        setattr(lstm, name, 0)
    x = normal(np.random.default_rng(0), (5, 2, I), np.float32)
    y, _ = lstm(x)
    lstm.batch_first = True
    assert_same_bits(lstm(x.transpose(1, 0, 2))[0].transpose(1, 0, 2), y)


def test_params_cannot_be_replaced_but_written():
    lstm = LSTM(I, H, rng=0)
    names, flat, desired = list(lstm.params), lstm.flat.copy(), run(lstm)
    other = np.zeros((1, 64), np.float32)
    for change in (
        lambda p: p.__setitem__("weight_ih_l0", other),
        lambda p: p.__setitem__("weight_ih_l9", other),
        lambda p: p.__delitem__("weight_ih_l0"),
        lambda p: p.__ior__({"weight_ih_l0": other}),
        lambda p: p.update(weight_ih_l0=other),
        lambda p: p.setdefault("weight_ih_l9", other),
        lambda p: p.pop("weight_ih_l0"),
        lambda p: p.popitem(),
        lambda p: p.clear(),
    ):
        with raises_of("params", TypeError):
            change(lstm.params)
    assert list(lstm.params) == names
    assert_same_bits(lstm.flat, flat)
    assert_same_bits(run(lstm), desired)
    lstm.params["weight_ih_l0"][...] = 0
    assert not np.array_equal(run(lstm), desired)


def test_parameters_may_be_changed_in_place_by_operators():
    lstm = LSTM(I, H, rng=0)
    for name in ("cell", "clip", "flat", "params", "input_size"):
        setattr(lstm, name, getattr(lstm, name))  # what such an operator ends with
    assert repr(pickle.loads(pickle.dumps(lstm))) == repr(lstm)
    before = lstm.flat.copy()
    lstm.flat *= 2
    lstm.params["bias_l0"] += 1
    assert_same_bits(lstm.flat[:-24], 2 * before[:-24])
    assert_same_bits(lstm.flat[-24:], 2 * before[-24:] + 1)


def test_the_core_does_not_trust_the_shapes_of_the_views_given_out():
    """In NumPy anybody may set the shape of an array, also of one that is shared."""
    lstm = LSTM(I, H, rng=0)
    desired = run(copy.deepcopy(lstm))
    for param in lstm.params.values():
        param.shape = (1, param.size)
    assert_same_bits(run(lstm), desired)


def test_params_are_copied_as_plain_arrays():
    lstm = LSTM(I, H, rng=0)
    for best in (copy.deepcopy(lstm.params), pickle.loads(pickle.dumps(lstm.params))):
        assert type(best) is dict
        assert_same_bits(best, dict(lstm.params))
        assert not any(np.shares_memory(a, lstm.flat) for a in best.values())


# --- copies ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", COPIES)
@layers
def test_copies_are_views_of_a_flat_buffer_of_their_own(tmp_path, name, how):
    layer = make(name)
    twin = duplicate(how, layer, tmp_path / "layer")
    assert repr(twin) == repr(layer)
    assert not np.shares_memory(twin.flat, layer.flat)
    assert all(np.shares_memory(p, twin.flat) for p in twin.params.values())
    assert_same_bits(twin.params, layer.params)
    assert_same_bits(run(twin), run(layer))
    if "mapped" not in how:
        twin.flat[...] = 0
        assert not any(p.any() for p in twin.params.values())
        assert not np.array_equal(run(twin), run(layer))
    with raises_of("params", TypeError):
        twin.params["bias_l0"] = np.zeros(1)


@pytest.mark.parametrize("how", ["deepcopy", "pickle", "joblib"])
@layers
def test_copies_train_on_alike(tmp_path, name, how):
    layer = make(name)
    layer = layer if layer.__getstate__().get("clip") is None else GRU(I, H, rng=0)
    twin = duplicate(how, layer, tmp_path / "layer")
    x = normal(np.random.default_rng(1), (5, 2, I), layer.dtype)
    for each in (layer, twin):
        optimizer = SGD([each], lr=0.1)
        for _ in range(2):
            y, _, tape = each.forward(x)
            optimizer.step([each.backward(tape, y)])
    assert_same_bits(twin.flat, layer.flat)
    assert_same_bits(run(twin), run(layer))


def test_a_subclass_keeps_its_own_attributes():
    copied = pickle.loads(pickle.dumps(Named("a", I, H)))
    assert copied.label == "a"
    assert_same_bits(run(copied), run(Named("b", I, H)))
    assert repr(copied) == "Named(3, 6)"


class Named(LSTM):
    """One that takes other arguments."""

    def __init__(self, label, *sizes):
        super().__init__(*sizes, rng=0)
        self.label = label


# --- states that have been tampered with ----------------------------------------------------------

WRONG = [  # layer, what is changed in its state, error, beginning of the message
    ("lstm", {"coupled": True}, ValueError, "flat"),
    ("lstm", {"cell": "gru"}, ValueError, "state"),
    ("lstm", {"hidden_size": 7}, ValueError, "flat"),
    ("lstm", {"hidden_size": -6}, ValueError, "hidden_size"),
    ("lstm", {"hidden_size": 6.0}, TypeError, "hidden_size"),
    ("lstm", {"hidden_size": 2**62}, ValueError, "flat"),
    ("lstm", {"num_layers": 2**62}, ValueError, "num_layers"),
    ("lstm", {"num_layers": 2}, ValueError, "flat"),
    ("lstm", {"bias": False}, ValueError, "flat"),
    ("lstm", {"bidirectional": True}, ValueError, "flat"),
    ("lstm", {"bidirectional": True, "reverse": True}, ValueError, "reverse"),
    ("lstm", {"proj_size": 2}, ValueError, "flat"),
    ("lstm", {"peephole": True}, ValueError, "flat"),
    ("lstm", {"layer_norm": True}, ValueError, "flat"),
    ("lstm", {"proj_clip": 1.0}, ValueError, "proj_clip"),
    ("lstm", {"cell_clip": -1.0}, ValueError, "cell_clip"),
    ("lstm", {"activations": ()}, ValueError, "activations"),
    ("lstm", {"activations": (("sigmoid", 0.0, 0.0),)}, ValueError, "activations"),
    ("lstm", {"activations": ("tanh", "tanh", "gelu")}, ValueError, "activations[2]"),
    ("lstm", {"activations": None}, TypeError, "activations"),
    ("lstm", {"dropout": 2.0}, ValueError, "dropout"),
    ("lstm", {"dtype": np.dtype(np.float64)}, TypeError, "flat"),
    ("lstm", {"dtype": np.dtype(np.int32)}, TypeError, "dtype"),
    ("lstm", {"flat": np.zeros(10, np.float32)}, ValueError, "flat"),
    ("lstm", {"flat": np.zeros((240, 1), np.float32)}, ValueError, "flat"),
    ("lstm", {"flat": np.zeros(240)}, TypeError, "flat"),
    ("lstm", {"flat": np.zeros(240, ">f4")}, TypeError, "flat"),
    ("lstm", {"flat": [0.0] * 240}, TypeError, "flat"),
    ("lstm", {"flat": b"\0" * 4 * 240}, TypeError, "flat"),
    ("lstm", {"_cell_options": {}}, ValueError, "state"),
    ("lstm", {"_stack": None}, ValueError, "state"),
    ("lstm", {"params": {}}, ValueError, "state"),
    ("lstm", {"reset_after": False}, ValueError, "state"),
    ("lstm", {"output_size": 3}, ValueError, "state"),
    ("gru", {"reset_after": False}, ValueError, "flat"),
    ("gru", {"activations": ("sigmoid", "tanh", "tanh")}, ValueError, "activations"),
    ("gru", {"zoneout_c": 0.5}, ValueError, "state"),
    ("gru", {"coupled": True}, ValueError, "state"),
    ("gru reset before", {"reset_after": True}, ValueError, "flat"),
    ("rnn", {"nonlinearity": ()}, TypeError, "nonlinearity"),
    ("rnn", {"activations": ("tanh",) * 3}, ValueError, "state"),
]


@pytest.mark.parametrize(
    ("name", "changes", "error", "message"), WRONG, ids=[", ".join(row[1]) for row in WRONG]
)
def test_a_tampered_state_is_refused(name, changes, error, message):
    layer = make(name)
    if "flat" in changes:
        assert np.size(layer.flat) == 240
    with raises_of(message, error):
        type(layer).__new__(type(layer)).__setstate__(layer.__getstate__() | changes)


@layers
def test_a_state_with_a_part_missing_is_refused(name):
    layer = make(name)
    for missing in layer.__getstate__():
        state = layer.__getstate__()
        del state[missing]
        with raises_of("state"):
            type(layer).__new__(type(layer)).__setstate__(state)


def test_a_state_of_another_cell_is_refused():
    for name in ("gru", "rnn"):
        with raises_of("state"):
            LSTM.__new__(LSTM).__setstate__(make(name).__getstate__())


def test_a_buffer_that_the_core_cannot_read_in_place_is_copied():
    layer = make("lstm")
    n = layer.flat.size
    odd = np.zeros(4 * n + 1, np.uint8)[1:].view(np.float32)
    for strange in (odd, np.zeros(2 * n, np.float32)[::2], np.zeros(n, np.float32)[::-1]):
        strange[...] = layer.flat
        twin = LSTM.__new__(LSTM)
        twin.__setstate__(layer.__getstate__() | {"flat": strange})
        assert twin.flat.flags.c_contiguous
        assert twin.flat.flags.aligned
        assert_same_bits(run(twin), run(layer))


# --- Linear ---------------------------------------------------------------------------------------


def test_a_linear_map_is_as_fixed():
    linear = Linear(3, 2, rng=0)
    desired = linear(np.ones(3, np.float32))
    for name in ("in_features", "out_features", "bias", "dtype", "flat", "params"):
        with raises_of(name, AttributeError):
            setattr(linear, name, np.zeros(8, np.float32))
    with raises_of("params", TypeError):
        linear.params["weight"] = np.zeros((2, 3), np.float32)
    assert_same_bits(linear(np.ones(3, np.float32)), desired)
    linear.flat *= 0
    assert not linear(np.ones(3, np.float32)).any()


@pytest.mark.parametrize("how", COPIES)
def test_copies_of_a_linear_map_are_views_of_their_own(tmp_path, how):
    linear = Linear(3, 2, rng=0)
    twin = duplicate(how, linear, tmp_path / "linear")
    assert_same_bits(twin.params, linear.params)
    assert not np.shares_memory(twin.flat, linear.flat)
    assert all(np.shares_memory(p, twin.flat) for p in twin.params.values())


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"in_features": 4}, ValueError, "flat"),
        ({"out_features": 0}, ValueError, "out_features"),
        ({"bias": False}, ValueError, "flat"),
        ({"dtype": np.dtype(np.float64)}, TypeError, "flat"),
        ({"flat": np.zeros(8)}, TypeError, "flat"),
        ({"flat": [0.0] * 8}, TypeError, "flat"),
    ],
)
def test_a_tampered_state_of_a_linear_map_is_refused(changes, error, message):
    linear = Linear(3, 2, rng=0)
    with raises_of(message, error):
        Linear.__new__(Linear).__setstate__(linear.__getstate__() | changes)


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("kind", ["LSTMClassifier", "LSTMRegressor"])
def test_an_estimator_learns_on_after_a_copy(tmp_path, how, kind):
    """What is mapped from a file for reading becomes memory of its own first."""
    pytest.importorskip("sklearn")
    from fastlstm import estimators

    rng = np.random.default_rng(0)
    x, y = normal(rng, (20, 5, 2)), rng.integers(0, 2, 20)
    model = getattr(estimators, kind)(4, max_iter=30, dropout=0.2, random_state=0).fit(x, y)
    twin = duplicate(how, model, tmp_path / "model")
    before = twin.predict(x)
    assert_same_bits(before, model.predict(x))
    flat = twin._network.layers.flat
    kept = flat.copy()
    for each in (model, twin, model, twin):
        each.partial_fit(x, y)
    assert_same_bits(twin.predict(x), model.predict(x))
    assert_same_bits(twin._network.layers.flat, model._network.layers.flat)
    assert not np.array_equal(twin._network.layers.flat, kept)
    assert np.array_equal(flat, kept) == ("mapped" in how)


# --- optimisers -----------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["deepcopy", "pickle", "joblib"])
@pytest.mark.parametrize("optimizer", [SGD, Adam, AdamW])
def test_an_optimizer_is_copied_with_the_modules_it_updates(tmp_path, how, optimizer):
    modules = [make("gru"), Linear(3, 2, rng=0)]
    own = optimizer(modules, lr=0.1)
    twins, twin = duplicate(how, (modules, own), tmp_path / "both")
    for of, step in ((modules, own.step), (twins, twin.step)):
        step([np.ones_like(module.flat) for module in of])
    for module, copied in zip(modules, twins, strict=True):
        assert_same_bits(copied.flat, module.flat)
        assert not np.shares_memory(copied.flat, module.flat)
    assert not np.array_equal(modules[0].flat, make("gru").flat)


def test_an_optimizer_of_what_is_mapped_for_reading_says_so(tmp_path):
    linear = Linear(3, 2, rng=0)
    twin, optimizer = duplicate("joblib, mapped", (linear, Adam([linear])), tmp_path / "both")
    with raises_of("parameters[0]"):
        optimizer.step([np.ones_like(twin.flat)])
    assert optimizer.t == 0
    twin, optimizer = copy.deepcopy((twin, optimizer))
    optimizer.step([np.ones_like(twin.flat)])
    assert not np.array_equal(twin.flat, linear.flat)


@pytest.mark.parametrize(
    ("optimizer", "moments"),
    [(Adam, "m"), (Adam, "v"), (lambda p: SGD(p, 0.1, momentum=0.9), "velocity")],
)
def test_moments_of_another_length_are_refused(optimizer, moments):
    linear = Linear(3, 2, rng=0)
    own = optimizer([linear])
    getattr(own, moments)[0] = np.zeros(1, np.float32)
    with raises_of(f"{moments}[0]"):
        own.step([np.ones_like(linear.flat)])


def test_attributes_are_documented_to_be_so():
    assert "read-only" in LSTM.__doc__
    assert fastlstm.LSTM(1, 1).activations == (("sigmoid", 0, 0), ("tanh", 0, 0), ("tanh", 0, 0))
