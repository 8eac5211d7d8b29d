"""`fastlstm.onnx.load`: models of PyTorch's exporters, and models made node by node."""

import contextlib
import io
import logging
import warnings

import numpy as np
import pytest
from helpers import assert_close, assert_same_bits, normal
from onnx_peer import run_model

from fastlstm import LSTM

onnx = pytest.importorskip("onnx")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from fastlstm.onnx import Backend, load, load_all  # noqa: E402
from fastlstm.onnx._export import make_model  # noqa: E402

T, B, I, H = 5, 3, 4, 6

# --- models of PyTorch's exporters ----------------------------------------------------------


@contextlib.contextmanager
def quiet():
    """Silence PyTorch's exporters, which warn of much that does not matter here."""
    logging.disable(logging.WARNING)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield
    logging.disable(logging.NOTSET)


def export_torch(module, args, path, **options):
    torch = pytest.importorskip("torch")
    with quiet():
        torch.onnx.export(module.eval(), args, str(path), **{"dynamo": False, **options})


def torch_call(kind, num_layers, bidirectional, batch_first):
    """Return a PyTorch module, x and the state."""
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    options = {"bidirectional": bidirectional, "batch_first": batch_first}
    module = getattr(torch.nn, kind)(I, H, num_layers, **options)
    shape = (num_layers * (1 + bidirectional), B, H)
    h, c = torch.randn(shape), torch.randn(shape)
    x = torch.randn((B, T, I) if batch_first else (T, B, I))
    return module, x, (h, c) if kind == "LSTM" else h


def as_arrays(value):
    return tuple(map(as_arrays, value)) if isinstance(value, tuple) else value.detach().numpy()


def check_equal_to_torch(loaded, module, x, state):
    assert loaded.num_layers == module.num_layers
    assert loaded.batch_first == module.batch_first
    args = (x,) if state is None else (x, state)
    assert_close(loaded(*as_arrays(args)), as_arrays(module(*args)))


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("num_layers", [1, 2])
@pytest.mark.parametrize("bidirectional", [False, True], ids=["", "bidirectional"])
@pytest.mark.parametrize("batch_first", [False, True], ids=["", "batch_first"])
@pytest.mark.parametrize("given", [False, True], ids=["", "state"])
@pytest.mark.parametrize("dynamic", [False, True], ids=["", "dynamic"])
def test_a_model_of_torch_gives_equal_outputs(
    tmp_path, kind, num_layers, bidirectional, batch_first, given, dynamic
):
    module, x, state = torch_call(kind, num_layers, bidirectional, batch_first)
    args = (x, state) if given else (x,)
    names = ["x", "h", "c"][: (3 if kind == "LSTM" else 2) if given else 1]
    axes = {"x": {0: "n0", 1: "n1"}, "h": {1: "B"}, "c": {1: "B"}}
    options = {"input_names": names, "dynamic_axes": {n: axes[n] for n in names}}
    export_torch(module, args, tmp_path / "torch.onnx", **(options if dynamic else {}))
    loaded = load(tmp_path / "torch.onnx")
    check_equal_to_torch(loaded, module, x, state if given else None)


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])  # nn.RNN becomes MatMul and Tanh, step by step
@pytest.mark.parametrize("bidirectional", [False, True], ids=["", "bidirectional"])
def test_a_model_of_torchs_new_exporter_gives_equal_outputs(tmp_path, kind, bidirectional):
    pytest.importorskip("onnxscript")
    module, x, state = torch_call(kind, 2, bidirectional, True)
    export_torch(module, (x, state), tmp_path / "torch.onnx", dynamo=True, verbose=False)
    check_equal_to_torch(load(tmp_path / "torch.onnx"), module, x, state)


def test_the_recurrent_part_of_a_whole_model_with_lengths_is_loaded(tmp_path):
    torch = pytest.importorskip("torch")
    rnn = torch.nn.utils.rnn

    class Tagger(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = torch.nn.Embedding(10, I)
            self.lstm = torch.nn.LSTM(I, H, 2, bidirectional=True, batch_first=True)
            self.head = torch.nn.Linear(2 * H, 3)

        def forward(self, words, lengths):
            x = rnn.pack_padded_sequence(self.embedding(words), lengths, batch_first=True)
            y, _ = rnn.pad_packed_sequence(self.lstm(x)[0], batch_first=True)
            return self.head(y)

    torch.manual_seed(0)
    tagger, words, lengths = Tagger(), torch.randint(10, (B, T)), torch.tensor([T, 3, 1])
    axes = {"words": {0: "B", 1: "T"}, "lengths": {0: "B"}}
    path = tmp_path / "tagger.onnx"
    export_torch(tagger, (words, lengths), path, input_names=list(axes), dynamic_axes=axes)
    desired = tagger(words, lengths).detach().numpy()

    lstm = load(path)
    assert repr(lstm) == "LSTM(4, 6, num_layers=2, batch_first=True, bidirectional=True)"
    y, _ = lstm(tagger.embedding(words).detach().numpy(), lengths=lengths.numpy())
    assert_close(tagger.head(torch.from_numpy(y)).detach().numpy(), desired)

    inputs = {"words": words.numpy(), "lengths": lengths.numpy()}
    assert_close(Backend.run_model(onnx.load(path), inputs), (desired,))


def test_a_learnt_initial_state_is_not_lost(tmp_path):
    torch = pytest.importorskip("torch")

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = torch.nn.Embedding(10, I)
            self.gru = torch.nn.GRU(I, H)
            self.h_0 = torch.nn.Parameter(torch.ones(1, 1, H))

        def forward(self, words):
            h_0 = self.h_0.expand(-1, words.shape[1], -1)
            return self.gru(self.embedding(words), h_0.contiguous())

    words = torch.zeros((T, B), dtype=torch.int64)
    axes = {"words": {0: "T", 1: "B"}}
    export_torch(
        Model(), (words,), tmp_path / "torch.onnx", input_names=["words"], dynamic_axes=axes
    )
    with pytest.raises(ValueError, match=r"initial_h: expected zeros or an input of the model"):
        load(tmp_path / "torch.onnx")


# --- what is one layer ----------------------------------------------------------------------


class Graph:
    """Collects nodes and constants."""

    def __init__(self, rng):
        self.rng, self.nodes, self.constants = rng, [], {}

    def constant(self, value):
        name = f"constant {len(self.constants)}"
        self.constants[name] = np.asarray(value)
        return name

    def add(self, op, *inputs, **attributes):
        names = [i if isinstance(i, str) else self.constant(i) for i in inputs]
        outputs = [f"{op} {len(self.nodes)}"]
        if op in ("LSTM", "GRU", "RNN"):
            outputs += [f"{op} {len(self.nodes)} {state}" for state in "hc"[: 1 + (op == "LSTM")]]
        self.nodes.append(helper.make_node(op, names, outputs, **attributes))
        return outputs[0]

    def lstm(self, x, width=I, units=H, **attributes):
        """Add an LSTM with random weights; `inputs` are those after its bias."""
        inputs = attributes.pop("inputs", [])
        D = 2 if attributes.get("direction") == "bidirectional" else 1
        weights = [
            normal(self.rng, shape, np.float32)
            for shape in [(D, 4 * units, width), (D, 4 * units, units), (D, 8 * units)]
        ]
        return self.add("LSTM", x, *weights, *inputs, hidden_size=units, **attributes)

    def squeeze(self, y, axis=1):
        return self.add("Squeeze", y, np.array([axis]))

    def state(self, x, value):
        """Add an initial state of one value, in the shape that follows from that of x."""
        batch = self.add("Gather", self.add("Shape", x), np.array([1]))
        shape = self.add("Concat", np.array([1]), batch, np.array([H]), axis=0)
        return self.add("Expand", np.full((1, 1, H), value, np.float32), shape)

    def model(self, *outputs, inputs=("x",), rank=4, ir_version=8):
        declare, real = helper.make_tensor_value_info, TensorProto.FLOAT
        types = {n: (real, self.constants[n].shape) for n in inputs if n in self.constants}
        types["lengths"] = (TensorProto.INT32, ["B"])
        graph = helper.make_graph(
            self.nodes,
            "test",
            [declare(n, *types.get(n, (real, [None] * 3))) for n in inputs],
            [declare(n, real, [None] * rank) for n in outputs],
            [numpy_helper.from_array(a, n) for n, a in self.constants.items()],
        )
        opsets = [helper.make_opsetid("", 17)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=ir_version)


@pytest.fixture
def graph(rng):
    return Graph(rng)


def sizes(layers):
    return [(layer.input_size, layer.hidden_size, layer.num_layers) for layer in layers]


def test_a_stack_in_tf2onnxs_idiom_is_one_layer(rng, graph):
    # batch-major between the layers; lengths and states made from the shape of x
    y = "x"
    for width in (I, H):
        x = graph.add("Transpose", y, perm=[1, 0, 2])
        steps, batch = (graph.add("Gather", graph.add("Shape", x), np.array([k])) for k in (0, 1))
        lengths = graph.add("Cast", graph.add("Expand", steps, batch), to=TensorProto.INT32)
        state = graph.state(x, 0)
        y = graph.lstm(x, width, inputs=[lengths, state, state])
        y = graph.add("Transpose", graph.squeeze(y), perm=[1, 0, 2])
    model = graph.model(y, rank=3)
    lstm = load(model)
    assert repr(lstm) == "LSTM(4, 6, num_layers=2, batch_first=True)"
    x = normal(rng, (B, T, I), np.float32)
    assert_close((lstm(x)[0],), tuple(run_model(model, {"x": x})))


@pytest.mark.parametrize("layout", [0, 1])
def test_bidirectional_layers_join_by_transpose_and_reshape(rng, graph, layout):
    axes = [0, 1, 2, 3] if layout else [0, 2, 1, 3]
    attributes = {"direction": "bidirectional", "layout": layout}
    y = graph.lstm("x", **attributes)
    y = graph.add("Transpose", y, perm=axes)
    y = graph.add("Reshape", y, np.array([0, 0, 2 * H]))
    y = graph.lstm(y, 2 * H, **attributes)
    model = graph.model(y)
    lstm = load(model)
    assert sizes([lstm]) == [(I, H, 2)]
    assert lstm.batch_first == bool(layout)
    x = normal(rng, (T, B, I), np.float32)
    (desired,) = Backend.run_model(model, {"x": x})
    assert_close(lstm(x)[0], np.transpose(desired, axes).reshape(T, B, 2 * H))


def swap_time_and_batch(graph, y):
    return graph.add("Transpose", graph.squeeze(y), perm=[1, 0, 2])


BETWEEN = {
    "Relu": lambda graph, y: graph.add("Relu", graph.squeeze(y)),
    "a bound": lambda graph, y: graph.add("Clip", graph.squeeze(y), np.float32(-6), np.float32(6)),
    "a skip connection": lambda graph, y: graph.add("Add", graph.squeeze(y), "x"),
    "B and T swapped": swap_time_and_batch,
    "a product": lambda graph, y: graph.add(
        "MatMul", graph.squeeze(y), np.eye(H, dtype=np.float32) * np.float32(0.5)
    ),
}


@pytest.mark.parametrize("between", BETWEEN)
def test_layers_with_something_between_are_not_joined(graph, between):
    y = graph.lstm("x", H)
    model = graph.model(graph.lstm(BETWEEN[between](graph, y), H))
    assert sizes(load_all(model)) == [(H, H, 1), (H, H, 1)]
    with pytest.raises(ValueError, match=r"^source: expected one recurrent part, got 2: LSTM"):
        load(model)


def test_identity_and_dropout_between_layers_do_not_part_them(graph):
    y = graph.squeeze(graph.lstm("x"))
    y = graph.add("Identity", graph.add("Dropout", y, np.float32(0.5)))
    assert sizes([load(graph.model(graph.lstm(y, H)))]) == [(I, H, 2)]


@pytest.mark.parametrize(
    "attributes",
    [
        {"direction": "reverse"},
        {"clip": 0.5},
        {"input_forget": 1},
        {"activations": ["Sigmoid", "Relu", "Tanh"]},
        {"inputs": ["lengths"]},
        {"units": H + 1},
    ],
    ids=str,
)
def test_layers_that_differ_are_loaded_one_by_one(graph, attributes):
    y = graph.squeeze(graph.lstm("x"))
    model = graph.model(graph.lstm(y, H, **attributes), inputs=["x", "lengths"])
    assert len(load_all(model)) == 2


def test_layers_may_differ_in_having_biases_and_peepholes(rng, graph):
    weights = [normal(rng, (1, 4 * H, n), np.float32) for n in (I, H)]
    y = graph.squeeze(graph.add("LSTM", "x", *weights, hidden_size=H))
    peepholes = ["", "", "", normal(rng, (1, 3 * H), np.float32)]
    model = graph.model(graph.lstm(y, H, inputs=peepholes))
    lstm = load(model)
    assert sizes([lstm]) == [(I, H, 2)]
    x = normal(rng, (T, B, I), np.float32)
    assert_close((lstm(x)[0][:, np.newaxis],), tuple(run_model(model, {"x": x})))


def test_two_layers_that_read_one_input_or_one_output_are_not_a_stack(graph):
    y = graph.squeeze(graph.lstm("x"))
    outputs = [graph.lstm("x"), graph.lstm(y, H), graph.lstm(y, H)]
    assert sizes(load_all(graph.model(*outputs))) == [(I, H, 1)] * 2 + [(H, H, 1)] * 2


def test_a_decoder_that_starts_from_the_encoders_state_has_its_state_as_an_argument(graph):
    encoder = graph.lstm("x")
    decoder = graph.lstm("target", inputs=["", f"{encoder} h", f"{encoder} c"])
    assert sizes(load_all(graph.model(decoder, inputs=["x", "target"]))) == [(I, H, 1)] * 2


def test_weights_may_be_computed_from_constants(rng, graph):
    halves = [normal(rng, (1, 2 * H, I), np.float32) for _ in range(2)]
    w = graph.add("Concat", *halves, axis=1)
    y = graph.add("LSTM", "x", w, normal(rng, (1, 4 * H, H), np.float32), hidden_size=H)
    model = graph.model(y)
    x = normal(rng, (T, B, I), np.float32)
    assert_close((load(model)(x)[0][:, np.newaxis],), tuple(run_model(model, {"x": x})))


def test_an_initializer_may_also_be_an_input_as_in_old_models(graph):
    y = graph.lstm("x")
    assert sizes([load(graph.model(y, inputs=["x", *graph.constants], ir_version=3))])


def test_local_functions_are_read(rng):
    layer = LSTM(I, H, 2)
    model = make_model(layer)
    function = helper.make_function(
        "local",
        "Stack",
        [v.name for v in model.graph.input] + [t.name for t in model.graph.initializer],
        [v.name for v in model.graph.output],
        list(model.graph.node),
        list(model.opset_import),
    )
    node = helper.make_node("Stack", function.input, function.output, domain="local")
    del model.graph.node[:]
    model.graph.node.append(node)
    model.functions.append(function)
    model.opset_import.append(helper.make_opsetid("local", 1))
    assert_same_bits(load(model).flat, layer.flat)


# --- errors ---------------------------------------------------------------------------------


BROKEN = {
    "learnt initial state": (
        lambda g: g.lstm("x", inputs=["", np.ones((1, 1, H), np.float32)]),
        "initial_h: expected zeros or an input of the model, got constants",
    ),
    "learnt initial state for each row": (
        lambda g: g.lstm("x", inputs=["", g.state("x", 0.5)]),
        "initial_h: expected zeros or an input of the model, got constants",
    ),
    "constant lengths": (
        lambda g: g.lstm("x", inputs=[np.array([2, 1], np.int32)]),
        "sequence_lens: expected an input of the model, got constants",
    ),
    "weights from the input": (
        lambda g: g.add("LSTM", "x", "x", np.zeros((1, 4 * H, H), np.float32)),
        "W: expected constants",
    ),
    "wrong shape of W": (
        lambda g: g.add("RNN", "x", np.zeros((1, H, I, 1)), np.zeros((1, H, H))),
        r"W: expected \(1, 6, I\)",
    ),
    "wrong shape of R": (
        lambda g: g.add("RNN", "x", np.zeros((1, H, I)), np.zeros((2, H, H))),
        r"R: expected \(1, 1 \* H, H\)",
    ),
    "wrong shape of B": (
        lambda g: g.add("RNN", "x", np.zeros((1, H, I)), np.zeros((1, H, H)), np.zeros((1, H))),
        r"B: expected \(1, 12\)",
    ),
    "wrong hidden_size": (
        lambda g: g.add("RNN", "x", np.zeros((1, H, I)), np.zeros((1, H, H)), hidden_size=3),
        "hidden_size: expected 6",
    ),
    "a stack whose widths do not fit": (
        lambda g: g.lstm(g.squeeze(g.lstm("x")), H + 1),
        "W: expected 6 columns",
    ),
    "direction": (lambda g: g.lstm("x", direction="up"), "direction: expected one of forward"),
    "direction in no encoding": (lambda g: g.lstm("x", direction=b"\xff"), "'utf-8'"),
    "direction of another type": (lambda g: g.lstm("x", direction=1), ".*attribute type"),
    "layout": (lambda g: g.lstm("x", layout=2), "layout: expected 0 or 1"),
    "clip": (lambda g: g.lstm("x", clip=-1.0), "clip: expected a number above 0"),
    "unknown attribute": (lambda g: g.lstm("x", gates=4), "Unrecognized attribute"),
    "unknown activation": (
        lambda g: g.lstm("x", activations=["Sigmoid", "Tanh", "Gelu"]),
        "activations: expected some of .* got 'Gelu'",
    ),
    "too few activations": (
        lambda g: g.lstm("x", activations=["Sigmoid", "Tanh"]),
        "activations: expected 3 names for LSTM",
    ),
    "no R": (lambda g: g.add("LSTM", "x", np.zeros((1, 4 * H, I))), ".*has input size 2"),
    "no X": (lambda g: g.lstm(""), ".*input 0 is marked single"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_cannot_be_a_layer_raises_with_the_nodes_name_and_the_reason(graph, case):
    build, message = BROKEN[case]
    model = graph.model(build(graph))
    with pytest.raises(ValueError, match=rf"^(LSTM|RNN) [^:]*: {message}"):
        load(model)


def test_directions_that_differ_cannot_be_a_layer(graph):
    names = ["Sigmoid", "Tanh", "Tanh", "Sigmoid", "Relu", "Tanh"]
    model = graph.model(graph.lstm("x", direction="bidirectional", activations=names))
    with pytest.raises(ValueError, match=r"^activations: expected the same in both directions"):
        load(model)


def test_other_types_than_float32_and_float64_raise(graph):
    weights = [np.zeros(shape, np.float16) for shape in [(1, H, I), (1, H, H)]]
    model = graph.model(graph.add("RNN", "x", *weights))
    with pytest.raises(TypeError, match=r"^RNN [^:]*: W: expected float32 or float64, got float16"):
        load(model)


def test_a_model_without_recurrent_nodes_raises(graph):
    with pytest.raises(ValueError, match=r"^source: expected a node LSTM, GRU or RNN"):
        load(graph.model(graph.add("Relu", "x"), rank=3))


def test_what_is_not_a_model_raises_and_is_named(tmp_path):
    path = tmp_path / "model.onnx"
    for content in (bytes(range(256)), make_model(LSTM(I, H)).SerializeToString()[:-9]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=rf"^{path}: expected an ONNX model: "):
            load(path)
    path.write_bytes(b"")
    with pytest.raises(ValueError, match=rf"^{path}: expected a node"):
        load(path)
    with pytest.raises(FileNotFoundError, match=r"nowhere\.onnx"):
        load(tmp_path / "nowhere.onnx")
    with pytest.raises(TypeError, match=r"^source: expected a path or a ModelProto, got int"):
        load(3)
