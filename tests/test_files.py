"""Layers in safetensors files: round trips, whole or not at all, and every kind of broken file."""

import json
import os
import pickle
import struct
import subprocess
import sys

import numpy as np
import pytest
from helpers import assert_same_bits, normal

pytest.importorskip("safetensors")

from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save as to_bytes

import fastlstm
from fastlstm import files
from fastlstm.files import load, save
from fastlstm.training import Linear

LAYERS = [
    ("LSTM", {}),
    ("LSTM", {"num_layers": 2, "bidirectional": True, "batch_first": True, "dropout": 0.1}),
    ("LSTM", {"proj_size": 2, "proj_clip": 1.5, "bias": False, "recurrent_dropout": 0.25}),
    ("LSTM", {"peephole": True, "coupled": True, "layer_norm": True, "num_layers": 2}),
    ("LSTM", {"zoneout_h": 0.1, "zoneout_c": 0.2, "cell_clip": 3.0, "clip": 0.1}),
    ("LSTM", {"activations": ("hard_sigmoid", ("leaky_relu", 0.3), ("scaled_tanh", 1.7, 0.6))}),
    ("GRU", {"input_dropout": 0.1}),
    ("GRU", {"reset_after": False, "activations": (("hard_sigmoid", 1 / 6, 0.5), "tanh")}),
    ("RNN", {"nonlinearity": "relu", "num_layers": 3}),
    ("RNN", {"nonlinearity": ("elu", 0.5)}),
]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "layer.safetensors"


def parts(layer):
    """Return what `save` writes about a layer, and its arrays."""
    about = {"version": 1, "cell": layer.cell, "config": layer._config()}
    return json.loads(json.dumps(about)), dict(layer.params)


def write(path, about, params):
    metadata = about if about is None else {"fastlstm": json.dumps(about)}
    path.write_bytes(to_bytes(params, metadata))


# --- what is well ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("cell", "options"), LAYERS, ids=str)
def test_round_trip(path, rng, dtype, cell, options):
    layer = getattr(fastlstm, cell)(3, 5, **options, dtype=dtype, rng=rng)
    layer.flat[0] = np.nan
    save(layer, path)
    back = load(str(path))
    assert type(back) is type(layer)
    assert repr(back) == repr(layer)
    assert back._config() == layer._config()
    assert_same_bits(back.params, layer.params)
    x = normal(rng, (4, 3, 3), dtype)
    assert_same_bits(back(x), layer(x))
    back.flat[:] = 1
    assert_same_bits(load(path).params, layer.params)


@pytest.mark.parametrize("activation", [None, "tanh", ("hard_sigmoid", 0.3, 0.4)], ids=str)
def test_round_trip_of_a_network(path, rng, dtype, activation):
    network = [
        fastlstm.GRU(3, 5, 2, reset_after=False, dtype=dtype, rng=rng),
        Linear(5, 2, bias=activation is None, activation=activation, dtype=dtype, rng=rng),
    ]
    save(network, path)
    back = load(path)
    assert [repr(layer) for layer in back] == [repr(layer) for layer in network]
    for layer, other in zip(network, back, strict=True):
        assert_same_bits(dict(other.params), dict(layer.params))
    save(network[1], path, overwrite=True)
    assert repr(load(path)) == repr(network[1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda about, params: about.update(network=[]), "network: expected a list"),
        (lambda about, params: about.update(network=about["network"] * 9), "network: expected a"),
        (lambda about, params: about["network"].pop(), "1.bias: expected a layer's number"),
        (lambda about, params: about["network"].__setitem__(1, 7), "layer: expected cell and"),
        (lambda about, params: params.pop("1.weight"), "parameters: expected"),
        (lambda about, params: params.update({"x.weight": np.ones(2, "f4")}), "x.weight: expected"),
        (lambda about, params: params.update({"1.bias": np.ones(9, "f4")}), "bias: expected"),
        (lambda about, params: params.update({"1.bias": np.ones(2, "f8")}), "of one type"),
        (lambda about, params: about["network"][1]["config"].pop("bias"), "config: expected"),
        (
            lambda about, params: about["network"][1]["config"].update(in_features=10**15),
            "weight: expected",
        ),
        (
            lambda about, params: about["network"][1]["config"].update(activation="os.system"),
            "activation: expected one of",
        ),
    ],
)
def test_a_broken_network_is_refused(path, change, message):
    save([fastlstm.GRU(3, 5), Linear(5, 2)], path)
    with files.safe_open(path, framework="numpy") as file:
        about = json.loads(file.metadata()["fastlstm"])
        params = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    change(about, params)
    write(path, about, params)
    check_refused(path, message)


def test_a_loaded_layer_trains(path, rng):
    layer = fastlstm.LSTM(3, 5, recurrent_dropout=0.5, rng=rng)
    save(layer, path)
    x = normal(rng, (4, 2, 3), np.float32)
    results = []
    for _ in range(2):
        back = load(path, rng=7)
        y, _, tape = back.forward(x)
        results.append((y, *back.backward(tape, y).params.values()))
    assert_same_bits(*results)


def test_the_tensors_are_the_parameters(path, rng):
    safetensors = pytest.importorskip("safetensors.numpy")
    layer = fastlstm.GRU(3, 5, 2, bidirectional=True, rng=rng)
    save(layer, path)
    assert_same_bits(safetensors.load_file(path), layer.params)


def test_what_is_not_said_is_as_usual(path):
    about, params = parts(fastlstm.LSTM(3, 5))
    about["config"] = {name: about["config"][name] for name in files.NEEDED}
    write(path, about, params)
    assert repr(load(path)) == "LSTM(3, 5)"


def test_a_file_is_replaced_only_if_asked(path):
    save(fastlstm.LSTM(3, 5), path)
    with pytest.raises(FileExistsError, match="overwrite=True"):
        save(fastlstm.GRU(3, 5), path)
    assert repr(load(path)) == "LSTM(3, 5)"
    save(fastlstm.GRU(3, 5), path, overwrite=True)
    assert repr(load(path)) == "GRU(3, 5)"
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.skipif(os.name != "posix", reason="of POSIX systems")
def test_a_link_that_leads_nowhere_is_replaced_only_if_asked(path):
    path.symlink_to("other")
    with pytest.raises(FileExistsError, match="overwrite=True"):
        save(fastlstm.LSTM(3, 5), path)
    save(fastlstm.LSTM(3, 5), path, overwrite=True)
    assert os.readlink(path) == "other"
    assert repr(load(path.with_name("other"))) == "LSTM(3, 5)"


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_failed_save_leaves_the_old_file(path, monkeypatch, failing):
    save(fastlstm.LSTM(3, 5), path)

    def fail(*arguments):
        raise OSError("no space left")

    monkeypatch.setattr(files.os, failing, fail)
    with pytest.raises(OSError, match="no space left"):
        save(fastlstm.GRU(3, 5), path, overwrite=True)
    assert repr(load(path)) == "LSTM(3, 5)"
    assert os.listdir(path.parent) == [path.name]


def test_permissions_are_those_of_any_new_file(path):
    save(fastlstm.LSTM(3, 5), path)
    other = path.with_name("other")
    other.touch()
    assert path.stat().st_mode == other.stat().st_mode


def test_bad_arguments(path):
    with pytest.raises(TypeError, match="layer: expected LSTM, GRU, RNN or Linear, got dict"):
        save({}, path)
    with pytest.raises(FileNotFoundError):
        save(fastlstm.LSTM(3, 5), path / "no" / "such")
    for unreadable in (path, path.parent):
        with pytest.raises(OSError, match=str(unreadable)):
            load(unreadable)


# --- what is not ----------------------------------------------------------------------------------


def check_refused(path, message=None):
    with pytest.raises(ValueError, match=message) as caught:
        load(path)
    text = str(caught.value)
    assert text.startswith(f"{path}: ")
    assert len(text) < 1200 + len(str(path))


def remove(name):
    return lambda about, params: params.pop(name)


def put(name, array):
    return lambda about, params: params.update({name: array})


def configure(**config):
    return lambda about, params: about["config"].update(config)


def describe(**entries):
    return lambda about, params: about.update(entries)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (remove("weight_hh_l1"), "missing: weight_hh_l1; unexpected: none"),
        (put("other", np.zeros(2, "f4")), "missing: none; unexpected: other"),
        (put("weight_ih_l0", np.zeros((20, 4), "f4")), r"weight_ih_l0: expected \(20, 3\), got"),
        (put("weight_ih_l0", np.zeros((3, 20), "f4")), r"weight_ih_l0: expected \(20, 3\), got"),
        (put("bias_l0", np.zeros((20, 1), "f4")), r"bias_l0: expected \(20,\), got \(20, 1\)"),
        (put("bias_l0", np.zeros((0,), "f4")), r"bias_l0: expected \(20,\), got \(0,\)"),
        (put("bias_l0", np.zeros((), "f4")), r"bias_l0: expected \(20,\), got \(\)"),
        (put("bias_l0", np.zeros(20, "f8")), "float"),
        (put("bias_l0", np.zeros(20, "f2")), "bias_l0: expected float32 or float64, got F16"),
        (put("bias_l0", np.zeros(20, "i4")), "bias_l0: expected float32 or float64, got I32"),
        (lambda about, params: params.clear(), "parameters: expected some"),
        (describe(version=2), "metadata: expected version 1"),
        (describe(cell="transformer"), "cell: expected one of lstm, gru, rnn, got 'transformer'"),
        (describe(cell=["lstm"]), "cell: expected one of lstm, gru, rnn"),
        (describe(cell="gru"), "config: expected no 'proj_size', which gru does not have"),
        (describe(cell=None), "cell: expected"),
        (describe(config=None), "config: expected at least"),
        (describe(config=[]), "config: expected at least"),
        (describe(config={"input_size": 3}), "config: expected at least"),
        (configure(rng=0), "config: expected no 'rng'"),
        (configure(dtype="float64"), "config: expected no 'dtype'"),
        (configure(forget_bias=1.0), "config: expected no 'forget_bias'"),
        (configure(input_size=4), r"weight_ih_l0: expected \(20, 4\), got \(20, 3\)"),
        (configure(hidden_size=10**12), "weight_ih_l0: expected"),
        (configure(input_size=10**300, hidden_size=10**300), "weight_ih_l0: expected"),
        (configure(num_layers=10**15), "num_layers: expected no more than the 6 parameters"),
        (configure(num_layers=3), "missing: bias_l2"),
        (configure(num_layers=0), "num_layers: expected at least 1"),
        (configure(num_layers=2.0), "num_layers: expected an integer, got float"),
        (configure(num_layers=True), "num_layers: expected an integer, got bool"),
        (configure(hidden_size=None), "hidden_size: expected an integer"),
        (configure(proj_size=-1), "proj_size: expected at least 0"),
        (configure(proj_size=10**15), "missing: weight_hr_l0"),
        (configure(bidirectional=True), "missing: bias_l0_reverse"),
        (configure(bidirectional="no"), "bidirectional: expected true or false, got 'no'"),
        (configure(bias=0), "bias: expected true or false"),
        (configure(dropout=1.5), "dropout: expected a probability"),
        (configure(dropout="0"), "dropout: expected a number"),
        (configure(zoneout_h=float("nan")), "zoneout_h: expected a probability"),
        (configure(clip=-1), "clip: expected a number above 0"),
        (configure(clip=10**400), "too large"),
        (configure(proj_clip=1), "proj_clip: expected None"),
        (configure(activations="tanh"), "activations: expected a tuple"),
        (configure(activations=["tanh"]), "activations: expected 3"),
        (configure(activations=["tanh", "tanh", "os.system"]), r"activations\[2\]: expected one"),
        (configure(activations=["tanh", "tanh", ["affine", 10**400]]), "too large"),
        (configure(activations=["tanh", "tanh", {}]), r"activations\[2\]: expected a name"),
    ],
)
def test_a_wrong_part(path, change, message):
    about, params = parts(fastlstm.LSTM(3, 5, 2))
    change(about, params)
    write(path, about, params)
    check_refused(path, message)


@pytest.mark.parametrize(
    "text",
    ["", "{", "null", "[]", "1", "{}", '"text"', "[" * 100_000, "9" * 10_000, '{"version": 1}'],
    ids=lambda text: text[:12],
)
def test_bad_metadata(path, text):
    path.write_bytes(to_bytes(fastlstm.LSTM(3, 5).params, {"fastlstm": text}))
    check_refused(path)


def test_metadata_of_another_program(path):
    for metadata in (None, {"format": "pt"}):
        path.write_bytes(to_bytes(fastlstm.LSTM(3, 5).params, metadata))
        check_refused(path, "metadata: expected the entry fastlstm")


def with_header(header, data=b""):
    header = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(header)) + header + data


TENSOR = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
ABOUT = {"__metadata__": {"fastlstm": json.dumps(parts(fastlstm.LSTM(1, 1))[0])}}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"text",
        b"\0" * 7,
        b"\0" * 8,
        b"\xff" * 64,
        struct.pack("<Q", 2**63) + b"{" * 100,
        struct.pack("<Q", 10**9) + b"{" * 100,
        with_header(b"[" * 100_000),
        with_header(b"\xff\xfe"),
        with_header(b"{}"),
        with_header({"a": TENSOR}, b"12345678"),
        with_header(ABOUT),
        with_header(ABOUT | {"a": TENSOR}, b"1234567"),
        with_header(ABOUT | {"a": TENSOR}, b"123456789"),
        with_header(ABOUT | {"a": TENSOR, "b": TENSOR}, b"12345678"),
        with_header(ABOUT | {"a": TENSOR | {"dtype": "BF16", "shape": [4]}}, b"12345678"),
        with_header(ABOUT | {"a": TENSOR | {"dtype": "F99"}}, b"12345678"),
        with_header(ABOUT | {"a": TENSOR | {"shape": [-2]}}, b"12345678"),
        with_header(ABOUT | {"a": TENSOR | {"shape": [2**63, 2**63]}}, b"12345678"),
        with_header(
            ABOUT | {"a": TENSOR | {"shape": [0, 2**63 - 1], "data_offsets": [0, 0]}},
        ),
        with_header(ABOUT | {"a" * 10**6: TENSOR}, b"12345678"),
        with_header({"__metadata__": {"fastlstm": 1}}),
        with_header({"__metadata__": []}),
        b"PK\x03\x04",
    ],
    ids=lambda content: repr(content[:16]),
)
def test_not_such_a_file(path, content):
    path.write_bytes(content)
    check_refused(path)


class Payload:
    def __init__(self, victim):
        self.victim = victim

    def __reduce__(self):
        return os.mkdir, (self.victim,)


def test_nothing_is_executed(path, tmp_path):
    victim = str(tmp_path / "executed")
    path.write_bytes(pickle.dumps(Payload(victim)))
    check_refused(path)
    about, params = parts(fastlstm.LSTM(3, 5))
    for code in (
        f"__import__('os').mkdir({victim!r})",
        f"!!python/object/apply:os.mkdir [{victim}]",
    ):
        for change in (
            describe(cell=code),
            describe(config=code),
            configure(activations=[code] * 3),
        ):
            changed = json.loads(json.dumps(about))
            change(changed, params)
            write(path, changed, params)
            check_refused(path)
    assert not os.path.exists(victim)


def test_every_truncation(path):
    save(fastlstm.GRU(2, 3), path)
    content = path.read_bytes()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        check_refused(path)


def corruptible():
    layer = fastlstm.LSTM(2, 3, peephole=True, rng=0)
    about, params = parts(layer)
    return to_bytes(params, {"fastlstm": json.dumps(about)})


CONTENT = corruptible()
HEADER = 8 + struct.unpack("<Q", CONTENT[:8])[0]


@settings(max_examples=300, deadline=None)
@given(
    changes=st.dictionaries(st.integers(0, len(CONTENT) - 1), st.integers(0, 255), max_size=6),
    in_header=st.dictionaries(st.integers(0, HEADER - 1), st.integers(32, 126), max_size=3),
    cut=st.none() | st.tuples(st.integers(0, HEADER), st.binary(max_size=9)),
)
def test_corrupted_bytes_are_an_error_or_a_layer(tmp_path_factory, changes, in_header, cut):
    content = bytearray(CONTENT)
    for where, byte in {**changes, **in_header}.items():
        content[where] = byte
    if cut is not None:
        start, instead = cut
        content[start : start + len(instead)] = instead
    path = tmp_path_factory.getbasetemp() / "corrupted.safetensors"
    path.write_bytes(content)
    try:
        layer = load(path)
    except ValueError as error:
        assert str(error).startswith(f"{path}: ")  # noqa: PT017, most are, but not all
    else:
        assert layer(np.zeros((1, 1, 2), layer.dtype))[0].shape == (1, 1, 3)


def test_missing_safetensors_names_the_extra():
    program = (
        "import sys, fastlstm; assert 'safetensors' not in sys.modules\n"
        "sys.modules['safetensors'] = None\n"
        "try: import fastlstm.files\n"
        'except ImportError as error: assert "pip install safetensors" in str(error)\n'
        "else: raise AssertionError"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
