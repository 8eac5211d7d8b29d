"""`fastlstm.onnx.load` of files that nobody should trust: an error that names the file, and soon.

What might take all memory or all time is loaded in a process of its own, with a bound on both.
"""

import contextlib
import itertools
import json
import random
import re
import subprocess
import sys

import numpy as np
import pytest
from helpers import assert_close, assert_same_bits, normal

from fastlstm import GRU, LSTM, RNN

onnx = pytest.importorskip("onnx")

from google.protobuf.descriptor import FieldDescriptor  # noqa: E402
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from fastlstm.onnx import Backend, load, load_all  # noqa: E402
from fastlstm.onnx._export import make_model  # noqa: E402

I, H = 4, 6
OPSETS = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]


def declare(name, shape=(None, None, None), code=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, code, shape)


def constant(name, value):
    return numpy_helper.from_array(np.asarray(value), name)


def weights(kind="RNN", width=I, units=H):
    G = {"LSTM": 4, "GRU": 3, "RNN": 1}[kind]
    rng = np.random.default_rng(0)
    shapes = {"W": (1, G * units, width), "R": (1, G * units, units)}
    return [constant(name, normal(rng, shape, np.float32)) for name, shape in shapes.items()]


def rnn(*inputs, name="y"):
    return helper.make_node("RNN", ["x", "W", "R", *inputs], [name], hidden_size=H)


def make(nodes, constants=(), x=(None, None, I), functions=()):
    graph = helper.make_graph(
        nodes, "hostile", [declare("x", x)], [declare("y", [None] * 4)], list(constants)
    )
    return helper.make_model(graph, opset_imports=OPSETS, ir_version=8, functions=functions)


def broken_tensor(**fields):
    """Return a model whose W has other fields than it should."""
    W, R = weights()
    for name, value in fields.items():
        if name == "dims":
            W.ClearField(name)
            W.dims.extend(value)
        else:
            setattr(W, name, value)
    return make([rnn()], [W, R])


def data_beside(location, **more):
    W, R = weights()
    W.ClearField("raw_data")
    W.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **more}.items():
        entry = W.external_data.add()
        entry.key, entry.value = key, str(value)
    return make([rnn()], [W, R])


# --- what asks for more than a small file may ----------------------------------------------------


def loops(turns):
    """Return a model whose initial state is what a Loop makes."""
    values = [declare("i", [], TensorProto.INT64), declare("go", [], TensorProto.BOOL)]
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Add", ["s", "s"], ["t"])],
        "body",
        [*values, declare("s", [1, 3, H])],
        [declare("on", [], TensorProto.BOOL), declare("t", [1, 3, H])],
    )
    loop = helper.make_node("Loop", ["turns", "", "zeros"], ["state"], body=body)
    more = [constant("turns", np.int64(turns)), constant("zeros", np.zeros((1, 3, H), "f"))]
    return make([loop, rnn("", "", "state")], [*weights(), *more])


def state_of(op, *inputs, **attributes):
    """Return a model whose initial state is what one operator makes."""
    names = [f"input {k}" for k in range(len(inputs))]
    node = helper.make_node(op, names, ["state"], **attributes)
    return make([node, rnn("", "", "state")], [*weights(), *map(constant, names, inputs)])


def functions_that_double(depth):
    """Return a model of one node that is 2 ** depth nodes."""
    leaf = [helper.make_node("Identity", ["a"], ["b"])]
    functions = [helper.make_function("local", "f0", ["a"], ["b"], leaf, OPSETS)]
    for k in range(depth):
        calls = [helper.make_node(f"f{k}", [a], [b], domain="local") for a, b in ("am", "mb")]
        functions.append(helper.make_function("local", f"f{k + 1}", ["a"], ["b"], calls, OPSETS))
    call = helper.make_node(f"f{depth}", ["x"], ["z"], domain="local")
    return make([call, rnn()], weights(), functions=functions)


def weights_from_nothing():
    """Return a model whose 4 GB of weights are one number."""
    size = 1 << 15
    nodes = [helper.make_node("Expand", ["one", "shape"], ["R"])]
    nodes += [helper.make_node("RNN", ["x", "W", "R"], ["y"])]
    more = {"one": np.float32(1), "shape": np.array([1, size, size])}
    more["W"] = np.ones((1, size, 1), np.float32)
    return make(nodes, [constant(*each) for each in more.items()], x=(None, None, 1))


def weights_again_and_again():
    """Return a model of 4000 layers with the same 3 MB of weights."""
    nodes = [rnn(name=f"y{k}") for k in range(4000)]
    for node in nodes:
        node.attribute[0].i = 600
    return make(nodes, weights(units=600))


def many_layers():
    """Return a model of 5000 layers, each of which reads the one before."""
    nodes = []
    for k in range(5000):
        nodes.append(helper.make_node("RNN", [f"x{k}" if k else "x", "W", "R"], [f"y{k}"]))
        nodes.append(helper.make_node("Squeeze", [f"y{k}", "axes"], [f"x{k + 1}"]))
    return make(nodes, [*weights(width=H), constant("axes", np.array([1]))], x=(None, None, H))


def many_nodes():
    """Return a model of 600 kB, whose weights are copied 20,000 times."""
    names = ["W", *(f"copy {k}" for k in range(20_000))]
    nodes = [helper.make_node("Identity", [a], [b]) for a, b in itertools.pairwise(names)]
    return make([*nodes, helper.make_node("RNN", ["x", names[-1], "R"], ["y"])], weights())


def split_in_many():
    """Return a model whose initial state is one of 2**40 parts."""
    model = state_of("Split", np.zeros((1, 1, H), "f"), num_outputs=1 << 40)
    model.opset_import[0].version = 18
    return model


HUGE = np.array([1 << 20, 1 << 10, H])
GREEDY = {
    "a loop of 2**62 turns": lambda: loops(1 << 62),
    "a static shape of x": lambda: make([rnn()], weights(), x=(1 << 14, 1 << 14, I)),
    "a static shape of x beyond 64 bits": lambda: make([rnn()], weights(), x=(1 << 62, 1 << 62, I)),
    "ConstantOfShape": lambda: state_of("ConstantOfShape", HUGE),
    "Expand": lambda: state_of("Expand", np.zeros((1, 1, H), "f"), HUGE),
    "Tile": lambda: state_of("Tile", np.zeros((1, 1, H), "f"), HUGE),
    "Range": lambda: state_of("Range", np.int64(0), np.int64(1 << 40), np.int64(1)),
    "Pad": lambda: state_of("Pad", np.zeros((1, 1, H), "f"), np.array([0, 1 << 30, 0] * 2)),
    "functions that call each other": lambda: functions_that_double(40),
    "a Split in 2**40": split_in_many,
    "many layers": many_layers,
    "many nodes": many_nodes,
    "weights from nothing": weights_from_nothing,
    "weights again and again": weights_again_and_again,
    "dims of 24 PiB": lambda: broken_tensor(dims=[1, 1 << 40, 6 << 10]),
    "a million dims": lambda: broken_tensor(dims=[1 << 62] * 1_000_000),
}

BOUNDED = """
import json, resource, sys
from fastlstm.onnx import load_all
here = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (here + (300 << 20),) * 2)
try:
    result = ["", repr(load_all(sys.argv[1]))]
except Exception as error:
    result = [type(error).__name__, str(error)]
print(json.dumps(result))
"""


def load_bounded(path):
    """Return the exception and message of `load_all`, with 300 MB at most and in 60 s at most."""
    if sys.platform != "linux":
        pytest.skip("needs Linux, to bound a process")
    done = subprocess.run(
        [sys.executable, "-c", BOUNDED, path],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return json.loads(done.stdout)


@pytest.mark.parametrize("case", GREEDY)
def test_a_file_that_asks_for_more_than_its_size_allows_is_refused(tmp_path, case):
    path = tmp_path / "model.onnx"
    path.write_bytes(GREEDY[case]().SerializeToString())
    kind, message = load_bounded(path)
    assert (kind, message.startswith(f"{path}: ")) == ("ValueError", True), message
    assert "alloc" not in message  # that memory was asked for, and not had


# --- what is malformed ---------------------------------------------------------------------------


def changed(change):
    model = make([rnn()], weights())
    change(model)
    return model


def opset(version):
    return lambda: changed(lambda m: setattr(m.opset_import[0], "version", version))


def constant_of(data):
    """Return a model whose initial state is a Constant with this data."""
    value = TensorProto(dims=[1, 1, H], data_type=TensorProto.DOUBLE, raw_data=data)
    return state_of("Constant", value=value)


MALFORMED = {
    "raw data too short": (lambda: broken_tensor(raw_data=b"123"), "tensor 'W': expected 96 bytes"),
    "a Constant too short": (lambda: constant_of(b"12"), "Constant state: tensor '': expected 48"),
    "an axis of 32 bits": (
        lambda: state_of("Concat", np.zeros((1, 1, H), "f"), axis=1 << 32),
        "Concat state: axis: expected at most 64",
    ),
    "a Scan without a body": (
        lambda: state_of("Scan", np.zeros((1, 1, H), "f")),
        "RNN y: initial_h",
    ),
    "negative dims": (lambda: broken_tensor(dims=[-1, -6, 4]), "tensor 'W': expected sizes that"),
    "undefined type": (lambda: broken_tensor(data_type=0), "tensor 'W': expected a known element"),
    "unknown type": (lambda: broken_tensor(data_type=99), "tensor 'W': expected a known element"),
    "strings": (lambda: broken_tensor(data_type=8), "RNN y: W: expected constants, got what"),
    "other data": (
        lambda: changed(lambda m: m.graph.initializer[0].ClearField("raw_data")),
        "tens",
    ),
    "integers": (lambda: broken_tensor(data_type=6), "RNN y: W: expected float32 or float64"),
    "no inputs": (
        lambda: changed(lambda m: m.graph.node[0].ClearField("input")),
        "expected a valid model",
    ),
    "absent inputs": (lambda: make([rnn()]), "RNN y: expected inputs that are made before it"),
    "two of one name": (lambda: make([rnn(), rnn()], weights()), "RNN y: expected new names"),
    "two constants": (lambda: make([rnn()], [*weights(), *weights()]), "tensor 'W': expected one"),
    "a cycle": (
        lambda: make([rnn("", "", "y")], weights()),
        "RNN y: expected inputs that",
    ),
    "no opset": (lambda: changed(lambda m: m.ClearField("opset_import")), ""),
    "opset of 63 bits": (opset(1 << 62), "expected versions of 31 bits"),
    "negative opset": (opset(-1), "expected versions of 31 bits"),
    "ir_version of 63 bits": (
        lambda: changed(lambda m: setattr(m, "ir_version", 1 << 62)),
        "expected versions of 31 bits",
    ),
    "hidden_size of 63 bits": (
        lambda: changed(lambda m: setattr(m.graph.node[0].attribute[0], "i", 1 << 62)),
        "RNN y: hidden_size: expected 6",
    ),
    "W of 4 axes": (lambda: broken_tensor(dims=[1, 6, 4, 1]), "RNN y: W: expected"),
    "W without columns": (lambda: broken_tensor(dims=[1, 6, 0], raw_data=b""), "input_size: "),
    "a function that calls itself": (
        lambda: make(
            [helper.make_node("f", ["x"], ["z"], domain="local"), rnn()],
            weights(),
            functions=[
                helper.make_function(
                    "local",
                    "f",
                    ["a"],
                    ["b"],
                    [helper.make_node("f", ["a"], ["b"], domain="local")],
                    OPSETS,
                )
            ],
        ),
        "functions: expected at most 100 calls one within another",
    ),
    "data in another folder": (lambda: data_beside("../secret"), "tensor 'W': location: expected"),
    "data at an absolute path": (lambda: data_beside("/etc/passwd"), "tensor 'W': location: exp"),
    "data behind a symlink": (lambda: data_beside("link"), "tensor 'W': location: expected"),
    "data in a folder": (lambda: data_beside("."), "tensor 'W': location: expected a file"),
    "data nowhere": (lambda: data_beside("nowhere"), "tensor 'W': location: expected a file"),
    "data under no name": (
        lambda: data_beside("x" * 5000),
        "tensor 'W': location: expected a file",
    ),
    "data under a NUL": (lambda: data_beside("\0"), "tensor 'W': "),
    "data too short": (lambda: data_beside("short"), "tensor 'W': expected 96 bytes"),
    "data before the file": (lambda: data_beside("long", offset=-1, length=96), "tensor 'W': exp"),
    "data behind the file": (lambda: data_beside("long", offset=9, length=96), "tensor 'W': exp"),
    "data at no number": (lambda: data_beside("long", offset="x"), "tensor 'W': invalid literal"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_a_malformed_file_is_refused_by_its_path_and_the_part_that_is_wrong(tmp_path, case):
    folder = tmp_path / "model"
    folder.mkdir()
    path = folder / "model.onnx"
    (tmp_path / "secret").write_bytes(bytes(96))
    (folder / "link").symlink_to(tmp_path / "secret")
    (folder / "short").write_bytes(bytes(90))
    (folder / "long").write_bytes(bytes(100))
    build, message = MALFORMED[case]
    path.write_bytes(build().SerializeToString())
    with pytest.raises(ValueError, match="^" + re.escape(f"{path}: {message}")):
        load(path)


def test_messages_do_not_grow_with_what_the_file_says(tmp_path):
    path = tmp_path / "model.onnx"
    model = make([rnn("", "", "state")], weights())
    model.graph.node[0].name = "n" * 100_000
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ValueError, match=rf"^{path}: RNN nnn") as raised:
        load(path)
    assert len(str(raised.value)) < 2000


@pytest.mark.parametrize(
    "model", [broken_tensor(dims=[1, 1 << 40, 4]), data_beside("long")], ids=["dims", "beside"]
)
def test_a_model_in_memory_is_refused_by_the_name_of_its_tensor(model):
    with pytest.raises(ValueError, match=r"^tensor 'W': expected"):
        load(model)


# --- what is a little unusual, and is loaded -----------------------------------------------------


def test_weights_may_lie_in_a_file_beside_the_model(tmp_path):
    layer = LSTM(I, H, 2, rng=0)
    path = tmp_path / "model.onnx"
    onnx.save(
        make_model(layer),
        path,
        save_as_external_data=True,
        location="model.data",
        size_threshold=0,
    )
    assert_same_bits(load(path).flat, layer.flat)


def test_weights_may_be_scaled_to_a_norm(tmp_path, rng):
    # as in torch.nn.utils.weight_norm
    v, g = normal(rng, (1, H, I), np.float32), normal(rng, (1, H, 1), np.float32)
    nodes = [helper.make_node("ReduceL2", ["v"], ["norm"], axes=[2])]
    nodes += [
        helper.make_node("Div", ["v", "norm"], ["u"]),
        helper.make_node("Mul", list("ug"), "W"),
    ]
    path = tmp_path / "model.onnx"
    model = make([*nodes, rnn()], [constant("v", v), constant("g", g), weights()[1]])
    path.write_bytes(model.SerializeToString())
    loaded = load(path)
    assert_close(loaded.params["weight_ih_l0"], (g * v / np.linalg.norm(v, axis=2)[..., None])[0])


def test_an_input_may_be_a_part_of_one_that_is_read_later(tmp_path):
    nodes = [
        helper.make_node("Split", ["x"], ["a", "b"], axis=2),
        helper.make_node("RNN", ["a", "W", "R"], ["y a"]),
        helper.make_node("RNN", ["x", "W2", "R"], ["y x"]),
        helper.make_node("Add", ["a", "unknown"], ["sum"]),
        helper.make_node("RNN", ["sum", "W", "R"], ["y sum"]),
    ]
    model = make(nodes, [*weights(width=2), constant("W2", np.zeros((1, H, 4), np.float32))])
    model.graph.input.append(declare("unknown"))
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    assert [layer.input_size for layer in load_all(path)] == [2, 4, 2]


def test_an_operator_that_is_not_computed_is_named(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(loops(3).SerializeToString())
    with pytest.raises(ValueError, match=rf"^{path}: RNN y: initial_h: .* depends on Loop state"):
        load(path)


def test_what_is_not_used_is_not_looked_at(tmp_path):
    head = helper.make_node("Expand", ["y", "shape"], ["z"])
    layer, broken = weights(), constant("nowhere", np.zeros(3))
    broken.data_type = 99
    model = make([rnn(), head], [*layer, constant("shape", HUGE), broken])
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    assert repr(load(path)) == f"RNN({I}, {H}, bias=False)"


# --- the backend ---------------------------------------------------------------------------------


def test_the_backend_names_the_node_that_is_wrong():
    model = make([rnn()], weights(units=H + 1), x=(2, 3, I))
    model.graph.node[0].ClearField("attribute")
    model.graph.output[0].CopyFrom(declare("y", [2, 1, 3, H + 1]))
    x = np.zeros((2, 3, I + 1), np.float32)
    with pytest.raises(ValueError, match=r"^RNN y: "):
        Backend.run_model(model, [x])


@pytest.mark.parametrize("model", [broken_tensor(data_type=99), data_beside("long")])
def test_the_backend_names_the_tensor_that_is_wrong(model, tmp_path, monkeypatch):
    (tmp_path / "long").write_bytes(bytes(100))
    monkeypatch.chdir(tmp_path)
    model.graph.input[0].CopyFrom(declare("x", [2, 3, I]))
    with pytest.raises(ValueError, match=r"^tensor 'W': expected"):
        Backend.prepare(model)


# --- anything at all -----------------------------------------------------------------------------

NUMBERS = [0, 1, -1, 2, 3, 7, 64, 99, 2**16, 2**31 - 1, 2**40, 2**62, -(2**63)]


def seeds():
    return [
        make_model(LSTM(2, 3, 2, bidirectional=True, peephole=True, rng=0)),
        make_model(GRU(2, 3, batch_first=True, dtype="float64", rng=0), opset=21),
        make_model(RNN(2, 2, nonlinearity="relu", rng=0)),
        loops(3),
        functions_that_double(2),
        state_of("Expand", np.zeros((1, 1, H), "f"), np.array([1, 3, H])),
        state_of("ConstantOfShape", np.array([1, 3, H]), value=constant("value", np.zeros(1, "f"))),
        data_beside("long"),
    ]


def is_repeated(value):
    return hasattr(value, "extend")


def messages(message):
    """Yield a message and all messages in it."""
    yield message
    for field, value in message.ListFields():
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            for each in value if is_repeated(value) else [value]:
                yield from messages(each)


def draw(rng, field, names):
    """Return some value of a field."""
    if field.enum_type is not None:
        return rng.choice(field.enum_type.values).number
    if field.type in (FieldDescriptor.TYPE_FLOAT, FieldDescriptor.TYPE_DOUBLE):
        return rng.choice([0.0, -1.0, 1e30, np.inf, np.nan])
    if field.type == FieldDescriptor.TYPE_STRING:
        return rng.choice([*names, "", "Loop", "Expand", "Reshape", "../../etc/passwd"])
    if field.type == FieldDescriptor.TYPE_BYTES:
        return rng.choice([b"", b"\xff", b"reverse", b"bidirectional", bytes(4), bytes(96)])
    return rng.choice(NUMBERS)


def mutate(rng, model):
    """Return the bytes of a model with some fields changed, or some bytes."""
    if rng.random() < 0.3:
        content = bytearray(model.SerializeToString())
        for _ in range(rng.choice([1, 2, 9])):
            start = rng.randrange(len(content))
            content[start : start + rng.choice([0, 1, 1, 8])] = rng.randbytes(rng.choice([0, 1, 4]))
        return bytes(content)
    changed = onnx.ModelProto.FromString(model.SerializeToString())
    names = [name for node in model.graph.node for name in (*node.input, *node.output)]
    for _ in range(rng.choice([1, 1, 2, 5])):
        message = rng.choice(list(messages(changed)))
        given = [field for field, _ in message.ListFields()]
        field = rng.choice(given if given and rng.random() < 0.8 else message.DESCRIPTOR.fields)
        with contextlib.suppress(ValueError, TypeError):  # what the field cannot hold
            change(rng, message, field, names)
    return changed.SerializeToString()


def change(rng, message, field, names):
    value = getattr(message, field.name)
    if not is_repeated(value):
        if field.type == FieldDescriptor.TYPE_MESSAGE or rng.random() < 0.3:
            message.ClearField(field.name)
        else:
            setattr(message, field.name, draw(rng, field, names))
    elif not value or rng.random() < 0.3:
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            value.add()
        else:
            value.append(draw(rng, field, names))
    elif rng.random() < 0.3:
        del value[rng.randrange(len(value))]
    elif field.type == FieldDescriptor.TYPE_MESSAGE:
        value.add().CopyFrom(rng.choice(value))
        content = rng.choice(value).SerializeToString()
        rng.choice(value).ParseFromString(content)
    else:
        value[rng.randrange(len(value))] = draw(rng, field, names)


@pytest.mark.parametrize("seed", range(5))
def test_any_change_of_a_file_is_loaded_or_refused_by_its_path(tmp_path, seed):
    path = tmp_path / "model.onnx"
    (tmp_path / "long").write_bytes(bytes(96))
    rng, models, said = random.Random(seed), seeds(), []
    for _ in range(150):
        path.write_bytes(mutate(rng, rng.choice(models)))
        try:
            load_all(path)
        except ValueError as error:
            said.append(str(error))
    assert 0 < len(said) < 150
    assert [message for message in said if not message.startswith(f"{path}: ")] == []
