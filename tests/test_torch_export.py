"""fastlstm.torch in models for others: torch.onnx.export by both exporters, and torch.jit."""

import warnings

import pytest
from cells import PLAIN, each_of
from helpers import AGAINST_TORCH, FLOAT32

torch = pytest.importorskip("torch")

from torch.testing import assert_close  # noqa: E402

import fastlstm.torch  # noqa: E402
from fastlstm.torch import _operators  # noqa: E402

T, B, I, H = 6, 5, 4, 7
VARIANTS = {
    "plain": {},
    "no bias": {"bias": False},
    "stack": {"num_layers": 2, "bidirectional": True, "batch_first": True},
}
CELLS = PLAIN | {"rnn relu": PLAIN["rnn"]._replace(variants=("relu",))}
each_variant = pytest.mark.parametrize("options", VARIANTS.values(), ids=list(VARIANTS))
pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning:torch"
)


class Model(torch.nn.Module):
    """A module with a state, between layers of other kinds."""

    def __init__(self, recurrent):
        super().__init__()
        self.recurrent = recurrent
        self.linear = torch.nn.Linear(H * (2 if recurrent.bidirectional else 1), 2)

    def forward(self, x, *state):
        if state:
            y, state = self.recurrent(x.tanh(), state if len(state) == 2 else state[0])
        else:
            y, state = self.recurrent(x.tanh())
        return (self.linear(y), *(state if isinstance(state, tuple) else (state,)))


def model_of(cell, options):
    torch.manual_seed(0)
    own = cell.layer_options(H) | options
    return Model(cell.layer_class(fastlstm.torch)(I, H, **own)).eval()


def inputs_of(model, steps, rows, with_state):
    module = model.recurrent
    x = torch.randn((rows, steps, I) if module.batch_first else (steps, rows, I))
    shape = (module.num_layers * (1 + module.bidirectional), rows, H)
    count = with_state * (2 if module.mode == "LSTM" else 1)
    return (x, *(torch.randn(shape) for _ in range(count)))


def run(path, inputs):
    runtime = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_inputs()]
    arrays = [tensor.numpy() for tensor in inputs]
    outputs = session.run(None, dict(zip(names, arrays, strict=True)))
    return tuple(torch.from_numpy(array) for array in outputs)


def assert_same(actual, desired):
    tolerance = AGAINST_TORCH[FLOAT32]
    assert_close(actual, desired, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("with_state", [False, True])
@each_variant
@each_of(CELLS)
def test_the_default_exporter(cell, options, with_state, tmp_path):
    """A node for each layer and direction, with T and B open; no warning of ours."""
    onnx, _ = pytest.importorskip("onnx"), pytest.importorskip("onnxscript")
    model, path = model_of(cell, options), tmp_path / "model.onnx"
    inputs = inputs_of(model, T, B, with_state)
    steps, rows = torch.export.Dim("steps"), torch.export.Dim("rows")
    order = {0: rows, 1: steps} if model.recurrent.batch_first else {0: steps, 1: rows}
    sizes = (order, tuple({1: rows} for _ in inputs[1:]))[: 1 + with_state]
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "fastlstm")
        torch.onnx.export(model, inputs, path, dynamic_shapes=sizes, verbose=False)
    nodes = [node.op_type for node in onnx.load(path).graph.node]
    module = model.recurrent
    assert nodes.count(cell.kind.upper()) == module.num_layers * (1 + module.bidirectional)
    assert len(nodes) < 60  # steps are not written out one by one
    for steps, rows in ((T, B), (1, 3), (9, 2)):
        inputs = inputs_of(model, steps, rows, with_state)
        assert_same(run(path, inputs), model(*inputs))


def test_what_onnx_cannot_say_is_left_to_pytorch_and_said(tmp_path, monkeypatch):
    pytest.importorskip("onnxscript")
    monkeypatch.setattr(_operators, "_said", set())
    module = fastlstm.torch.LSTM(I, H, proj_size=3)
    with pytest.warns(UserWarning, match=r"projections and .* in torch\.onnx\.export to PyTorch"):
        torch.onnx.export(module, (torch.randn(T, B, I),), tmp_path / "m.onnx", verbose=False)


@each_variant
@each_of(CELLS)
def test_the_exporter_that_traces(cell, options, tmp_path):
    pytest.importorskip("onnx")
    model, path = model_of(cell, options), tmp_path / "model.onnx"
    inputs = inputs_of(model, T, B, with_state=True)
    torch.onnx.export(model, inputs, path, dynamo=False)
    inputs = inputs_of(model, T, B, with_state=True)
    assert_same(run(path, inputs), model(*inputs))


@each_variant
@each_of(CELLS)
def test_scripted_models_run_pytorchs_code_on_the_same_weights(cell, options):
    own = cell.layer_options(H) | options
    module = cell.layer_class(fastlstm.torch)(I, H, **own)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scripted = torch.jit.script(torch.nn.Sequential(module))
    x = torch.randn(2, 3, I)
    assert_same(scripted(x), module(x))
    assert type(module).__module__.startswith("fastlstm")
    with torch.no_grad():
        module.weight_hh_l0 += 0.5
    assert_same(scripted(x), module(x))
