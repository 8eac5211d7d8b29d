"""fastlstm.torch stands in for torch.nn: results, gradients, errors, and PyTorch's machinery."""

import copy
import itertools
import os
import pickle
import threading
import warnings
import weakref

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from cells import IN_PYTORCH, LAYERS, each_of  # noqa: E402
from helpers import AGAINST_TORCH  # noqa: E402
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence  # noqa: E402
from torch.testing import assert_close  # noqa: E402

import fastlstm  # noqa: E402
import fastlstm.torch  # noqa: E402
from fastlstm.torch import _arrays, _modules, _operators  # noqa: E402

each_cell = each_of(IN_PYTORCH)
T, B, I, H = 6, 5, 4, 7


@pytest.fixture(autouse=True)
def one_thread_in_pytorch():
    """Threads of its own would only wait for each other on these sizes."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def no_way_out(monkeypatch):
    """Fail where PyTorch's own code is asked to run."""
    can_run = _modules._Recurrent._can_run

    def must_run(self, *arguments):
        assert can_run(self, *arguments)
        return True

    monkeypatch.setattr(_modules._Recurrent, "_can_run", must_run)


@pytest.fixture
def nothing_said(monkeypatch):
    monkeypatch.setattr(_operators, "_said", set())


def twins(cell="lstm", seed=0, **options):
    """Return PyTorch's module and this package's with the same parameters."""
    cell = LAYERS[cell] if isinstance(cell, str) else cell
    options = cell.layer_options(H) | options
    torch.manual_seed(seed)
    theirs, ours = (cell.layer_class(nn)(I, H, **options) for nn in (torch.nn, fastlstm.torch))
    assert ours.load_state_dict(theirs.state_dict()).missing_keys == []
    return theirs, ours


def arguments(module, kind, with_state, seed=1):
    """Return leaf tensors: x, and the parts of the state."""
    torch.manual_seed(seed)
    dtype = module.weight_ih_l0.dtype
    layers = module.num_layers * (2 if module.bidirectional else 1)
    rows = () if kind == "single" else (B,)
    shape = (T, *rows, I) if kind == "single" or not module.batch_first else (*rows, T, I)
    shapes = [shape, (layers, *rows, module.proj_size or H), (layers, *rows, H)]
    count = 1 + with_state * (2 if module.mode == "LSTM" else 1)
    return [torch.randn(s, dtype=dtype, requires_grad=True) for s in shapes[:count]]


def call(module, x, *state, kind="padded"):
    """Return the outputs as a list of tensors; a packed sequence counts as its parts."""
    if kind.startswith("packed"):
        lengths = torch.tensor([6, 6, 4, 2, 1] if kind == "packed sorted" else [2, 6, 1, 6, 4])
        x = pack_padded_sequence(
            x, lengths, module.batch_first, enforce_sorted=kind == "packed sorted"
        )
    hx = None if not state else state if module.mode == "LSTM" else state[0]
    torch.manual_seed(2)  # of dropout
    y, state = module(x, hx)
    parts = [*y] if isinstance(y, PackedSequence) else [y]
    return [*parts, *(state if isinstance(state, tuple) else [state])]


def gradients(module, inputs, kind="padded", **options):
    """Return outputs, and gradients of all inputs and parameters, for random output gradients."""
    outputs = call(module, *inputs, kind=kind, **options)
    real = [o for o in outputs if o is not None and o.requires_grad]
    torch.manual_seed(3)
    loss = sum((o * torch.randn(o.shape, dtype=o.dtype)).sum() for o in real)
    return outputs, torch.autograd.grad(loss, [*inputs, *module.parameters()])


def assert_same(actual, desired):
    actual, desired = list(actual), list(desired)
    assert [a is None for a in actual] == [d is None for d in desired]
    for a, d in zip(actual, desired, strict=True):
        if a is not None:
            tolerance = AGAINST_TORCH.get(a.detach().numpy().dtype, 0)  # sizes are integers
            assert_close(a, d, rtol=tolerance, atol=tolerance)


# --- results ------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:LSTM with projections")  # PyTorch's, about oneDNN
@pytest.mark.parametrize("kind", ["padded", "single", "packed", "packed sorted"])
@each_cell
def test_outputs_states_and_gradients_equal_pytorchs(cell, kind, dtype, no_way_out):
    dtype = getattr(torch, dtype.name)
    grid = itertools.product([False, True], [False, True], [1, 2], [False, True])
    for bidirectional, batch_first, layers, with_state in grid:
        theirs, ours = twins(
            cell,
            bidirectional=bidirectional,
            batch_first=batch_first,
            num_layers=layers,
            dropout=0.3 if layers > 1 else 0.0,  # the same mask from the same seed
            bias=not with_state,
            dtype=dtype,
        )
        inputs = arguments(ours, kind, with_state)
        (out, grads), (their_out, their_grads) = (
            gradients(module, inputs, kind=kind) for module in (ours, theirs)
        )
        assert_same(out, their_out)
        assert_same(grads, their_grads)
        taped = call(ours.eval(), *inputs, kind=kind)
        with torch.no_grad():
            plain = call(ours, *inputs, kind=kind)
            assert_same(plain, call(theirs.eval(), *inputs, kind=kind))
        for one, other in zip(taped, plain, strict=True):
            assert one is other or torch.equal(one, other)  # to the bit


@pytest.mark.filterwarnings("ignore:LSTM with projections")
@pytest.mark.parametrize("kind", ["padded", "packed"])
@each_cell
def test_every_instruction_set(cell, kind, isa, dtype, no_way_out):
    dtype = getattr(torch, dtype.name)
    theirs, ours = twins(cell, bidirectional=True, dtype=dtype)
    inputs = arguments(ours, kind, with_state=True)
    (out, grads), (their_out, their_grads) = (
        gradients(module, inputs, kind=kind) for module in (ours, theirs)
    )
    assert_same(out, their_out)
    assert_same(grads, their_grads)


@each_cell
def test_gradients_agree_with_differences(cell, no_way_out):
    _, ours = twins(cell, num_layers=2, bidirectional=True, dtype=torch.float64)
    names = list(dict(ours.named_parameters()))

    for kind in ("padded", "packed"):
        inputs = arguments(ours, kind, with_state=True)

        def outputs(*tensors, kind=kind):
            n = len(tensors) - len(names)
            x, *state = tensors[:n]
            weights = dict(zip(names, tensors[n:], strict=True))
            hx = state if ours.mode == "LSTM" else state[0]
            if kind == "packed":
                x = pack_padded_sequence(x, torch.tensor([2, 6, 1, 6, 4]), enforce_sorted=False)
            y, state = torch.func.functional_call(ours, weights, (x, hx))
            y = y.data if kind == "packed" else y
            return (y, *state) if ours.mode == "LSTM" else (y, state)

        assert torch.autograd.gradcheck(outputs, (*inputs, *ours.parameters()), fast_mode=True)


def samples(name):
    modules = pytest.importorskip("torch.testing._internal.common_modules")
    return next(m for m in modules.module_db if m.module_cls is getattr(torch.nn, name))


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", ["LSTM", "GRU", "RNN"])
def test_pytorchs_own_samples(name, training, no_way_out):
    info = samples(name)
    options = {"device": "cpu", "dtype": torch.float64, "requires_grad": False}
    count = 0
    for sample in info.module_inputs_func(info, training=training, **options):
        made = sample.constructor_input
        module = getattr(fastlstm.torch, name)(*made.args, **made.kwargs, dtype=torch.float64)
        module.train(training)
        theirs = getattr(torch.nn, name)(*made.args, **made.kwargs, dtype=torch.float64)
        theirs.load_state_dict(module.state_dict())
        given = sample.forward_input
        output = module(*given.args, **given.kwargs)
        assert_close(output, sample.reference_fn(module, *given.args, **given.kwargs))
        assert_close(output, theirs(*given.args, **given.kwargs))
        count += 1
    assert count >= 16


@pytest.mark.parametrize("name", ["LSTM", "GRU", "RNN"])
def test_pytorchs_own_errors(name):
    info = samples(name)
    options = {"device": "cpu", "dtype": torch.float32, "requires_grad": False}
    for sample in info.module_error_inputs_func(info, training=True, **options):
        made, given = (
            sample.module_error_input.constructor_input,
            sample.module_error_input.forward_input,
        )
        make = getattr(fastlstm.torch, name)
        if "CONSTRUCTION" in sample.error_on.name:
            with pytest.raises(sample.error_type, match=sample.error_regex):
                make(*made.args, **made.kwargs)
        else:
            module = make(*made.args, **made.kwargs)
            with pytest.raises(sample.error_type, match=sample.error_regex):
                module(*given.args, **given.kwargs)


def bad_calls():
    x, h = torch.zeros(T, B, I), torch.zeros(1, B, H)
    return {
        "dimensions": (x[None],),
        "width": (x[..., :2],),
        "dtype": (x.double(),),
        "integers": (x.int(),),
        "empty": (x[:0],),
        "state's rows": (x, (h[:, :2], h)),
        "state's width": (x, (h[..., :2], h)),
        "cell state": (x, (h, h[:, :2])),
        "state of a single row": (x, (h[:, 0], h[:, 0])),
        "state's dtype": (x, (h.double(), h.double())),
        "no tensor": (x.numpy(),),
    }


@pytest.mark.parametrize("name", bad_calls())
def test_errors_are_pytorchs(name):
    theirs, ours = twins()
    messages = []
    for module in (ours, theirs):
        with pytest.raises((ValueError, TypeError, RuntimeError, AttributeError)) as error:
            module(*bad_calls()[name])
        messages.append((error.type, str(error.value)))
    assert messages[0] == messages[1]


def test_weights_of_a_wrong_shape_are_refused():
    _, ours = twins("gru")  # PyTorch does not check the LSTM's
    ours.weight_hh_l0 = torch.nn.Parameter(torch.zeros(3 * H, H + 1))
    with pytest.raises(RuntimeError, match="shape"):
        ours(torch.zeros(T, B, I))


def test_batch_sizes_that_rise_are_refused():
    _, ours = twins()
    with pytest.raises(ValueError, match="batch_sizes: expected falling sizes"):
        ours(PackedSequence(torch.zeros(5, I), torch.tensor([2, 3])))
    with pytest.raises(ValueError, match="with the sum 5"):
        ours(PackedSequence(torch.zeros(5, I), torch.tensor([3, 3])))


# --- it is a module of PyTorch ------------------------------------------------------------------


@each_cell
def test_is_a_module_like_pytorchs(cell):
    theirs, ours = twins(cell, num_layers=2, bidirectional=True)
    assert isinstance(ours, type(theirs))
    assert repr(ours) == repr(theirs)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    x = torch.randn(T, B, I)
    for other in (copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))):
        assert type(other) is type(ours)
        assert_close(other(x), ours(x), rtol=0, atol=0)
    torch.manual_seed(5)
    first = type(theirs)(I, H)
    torch.manual_seed(5)
    assert_close(dict(type(ours)(I, H).state_dict()), dict(first.state_dict()))


def test_strange_memory_layouts(no_way_out):
    theirs, ours = twins(num_layers=2)
    tensors = {
        "every second": torch.randn(2 * T, B, 2 * I)[::2, :, ::2],
        "transposed": torch.randn(I, B, T).permute(2, 1, 0),
        "expanded": torch.randn(1, 1, I).expand(T, B, I),
        "one number": torch.ones(()).expand(T, B, I),
        "reversed": torch.randn(T, B, I).flip(0),
    }
    state = torch.randn(H, B, 2, 2).permute(2, 3, 1, 0)
    for x in tensors.values():
        inputs = [x.detach().requires_grad_(), *(s.detach().requires_grad_() for s in state)]
        (out, grads), (their_out, their_grads) = (gradients(m, inputs) for m in (ours, theirs))
        assert_same(out, their_out)
        assert_same(grads, their_grads)
    ours.weight_ih_l0 = torch.nn.Parameter(torch.randn(I, 4 * H).T)
    theirs.weight_ih_l0 = torch.nn.Parameter(ours.weight_ih_l0.detach())
    assert_close(ours(x), theirs(x))


@each_cell
@pytest.mark.filterwarnings("ignore:LSTM with projections")
def test_parameters_of_any_layout(cell, dtype, no_way_out):
    """Strided, transposed, reversed and expanded ones, which PyTorch's modules take too."""
    pairs = twins(cell, dtype=getattr(torch, dtype.name))
    layouts = itertools.cycle(
        [
            lambda p: torch.stack([p, p], -1)[..., 0],
            lambda p: p.T.contiguous().T if p.dim() == 2 else torch.stack([p, p])[0],
            lambda p: p.reshape(-1)[:1].expand(p.shape) if p.dim() == 1 else p[:, :1].expand_as(p),
        ]
    )
    names = list(dict(pairs[0].named_parameters()))
    for turn in range(3):
        next(layouts)
        for name, layout in zip(names, layouts, strict=False):
            value = layout(pairs[0].get_parameter(name).detach())
            for module in pairs:
                setattr(module, name, torch.nn.Parameter(value))
        assert turn or not pairs[1].weight_hh_l0.is_contiguous()
        inputs = arguments(pairs[1], "padded", with_state=True)
        (their_out, their_grads), (out, grads) = (gradients(m, inputs) for m in pairs)
        assert_same(out, their_out)
        assert_same(grads, their_grads)


def test_tensors_are_read_in_place(monkeypatch):
    _, ours = twins(batch_first=True)
    seen = []
    run_forward = _operators.run_forward
    monkeypatch.setattr(
        _operators, "run_forward", lambda *a, **k: seen.append(a) or run_forward(*a, **k)
    )
    x = torch.randn(B, T, I)
    y = ours(x)[0]
    assert np.shares_memory(seen[0][2], x.numpy())
    assert np.shares_memory(seen[0][3], y.detach().numpy())


def test_only_what_is_asked_for():
    """Gradients of some outputs with respect to some inputs."""
    theirs, ours = twins("lstm", bidirectional=True)
    inputs = arguments(ours, "padded", with_state=True)
    for output in range(3):
        grads = [
            torch.autograd.grad(call(m, *inputs)[output].sum(), inputs) for m in (ours, theirs)
        ]
        assert_same(*grads)
    for module in (ours, theirs):
        module.weight_hh_l0.requires_grad_(False)
        module.bias_ih_l0.requires_grad_(False)
        call(module, inputs[0].detach())[0].sum().backward()
    for name, parameter in ours.named_parameters():
        assert_same([parameter.grad], [theirs.get_parameter(name).grad])
    assert ours.bias_hh_l0.grad is not ours.bias_ih_l0.grad
    frozen = ours.requires_grad_(False)(inputs[0])[0].sum()
    assert_same(
        torch.autograd.grad(frozen, inputs[0]),
        torch.autograd.grad(theirs(inputs[0])[0].sum(), inputs[0]),
    )


def test_inference_mode_and_no_grad_keep_nothing(no_way_out):
    theirs, ours = twins()
    for context in (torch.no_grad, torch.inference_mode):
        with context():
            y = ours(torch.ones(T, B, I))[0]
            assert_close(y, theirs(torch.ones(T, B, I))[0])
        assert y.grad_fn is None


# --- in a model that exists -----------------------------------------------------------------------


class Encoder(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = torch.nn.LSTM(I, H, 2, batch_first=True)
        self.more = torch.nn.ModuleList([torch.nn.GRU(H, H), torch.nn.RNN(H, H)])
        self.tied = self.more[0]

    def forward(self, x):
        x = self.lstm(x)[0].transpose(0, 1)
        for layer in (*self.more, self.tied):
            x = layer(x)[0]
        return x


def test_replace_swaps_in_place_and_back():
    model = Encoder()
    x = torch.randn(B, T, I)
    expected = model(x)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    seen = []
    model.lstm.register_forward_hook(lambda *arguments: seen.append(arguments))
    before = [(name, id(module)) for name, module in model.named_modules()]
    weights = [id(parameter) for parameter in model.parameters()]

    names = ["lstm", "more.0", "more.1"]
    assert fastlstm.torch.replace(model) == names
    kinds = fastlstm.torch.LSTM, fastlstm.torch.GRU, fastlstm.torch.RNN
    assert (type(model.lstm), *map(type, model.more)) == kinds
    assert fastlstm.torch.replace(model) == []
    assert_same([model(x)], [expected])
    assert len(seen) == 1
    model(x).square().sum().backward()
    optimizer.step()
    trained = model(x)

    assert fastlstm.torch.replace(model, back=True) == names
    assert type(model.lstm) is torch.nn.LSTM
    assert_same([model(x)], [trained])
    assert not torch.equal(trained, expected)
    assert before == [(name, id(module)) for name, module in model.named_modules()]
    assert weights == [id(parameter) for parameter in model.parameters()]


def test_replace_takes_a_module_itself_and_parametrized_ones():
    module = torch.nn.LSTM(I, H)
    torch.nn.utils.parametrizations.weight_norm(module, "weight_hh_l0")
    other = copy.deepcopy(module)
    x = torch.randn(T, B, I)
    expected = module(x)[0]
    assert fastlstm.torch.replace(module) == [""]
    assert isinstance(module, fastlstm.torch.LSTM)
    assert not isinstance(other, fastlstm.torch.LSTM)
    assert_same([module(x)[0]], [expected])
    torch.nn.utils.parametrize.remove_parametrizations(module, "weight_hh_l0")
    assert type(module) is fastlstm.torch.LSTM
    assert_same([module(x)[0]], [expected])


def test_replace_leaves_alone_what_may_not_be_the_same():
    class Own(torch.nn.LSTM):
        def forward(self, x):
            return super().forward(2 * x)

    model = torch.nn.ModuleList([Own(I, H), torch.jit.script(torch.nn.GRU(I, H))])
    kinds = [type(module) for module in model]
    assert fastlstm.torch.replace(model) == []
    assert [type(module) for module in model] == kinds
    with pytest.raises(TypeError, match=r"model: expected a torch\.nn\.Module, got list"):
        fastlstm.torch.replace([torch.nn.LSTM(I, H)])


# --- weights ------------------------------------------------------------------------------------


def changes():
    def optimizer(m):
        m.weight_hh_l0.grad = torch.ones_like(m.weight_hh_l0)
        torch.optim.SGD([m.weight_hh_l0], lr=0.1).step()

    def no_grad(m):
        with torch.no_grad():
            m.weight_ih_l0[0, 0] += 1

    def data(m):
        m.bias_hh_l0.data[1] = 3.0

    def other_data(m):
        m.weight_hh_l0.data = torch.randn_like(m.weight_hh_l0)

    def numpy_view(m):
        m.bias_ih_l0.detach().numpy()[2] = -2.0

    def projection(m):
        m.weight_hr_l0.detach().numpy()[0, 0] += 1

    def state_dict(m):
        m.load_state_dict({k: v + 0.1 for k, v in m.state_dict().items()})

    def parameter(m):
        m.weight_ih_l0 = torch.nn.Parameter(torch.ones_like(m.weight_ih_l0))

    return [optimizer, no_grad, data, other_data, numpy_view, projection, state_dict, parameter]


@pytest.mark.filterwarnings("ignore:LSTM with projections")
@pytest.mark.parametrize("change", changes(), ids=lambda c: c.__name__)
def test_a_change_of_weights_by_any_route_is_seen(change):
    theirs, ours = twins("lstm projection")
    inputs = arguments(ours, "padded", with_state=True)
    gradients(ours, inputs)
    torch.manual_seed(7)
    change(ours)
    torch.manual_seed(7)
    change(theirs)
    (out, grads), (their_out, their_grads) = (gradients(m, inputs) for m in (ours, theirs))
    assert_same(out, their_out)
    assert_same(grads, their_grads)


def test_weights_are_packed_once_and_kept_no_longer_than_the_parameter(monkeypatch):
    _, ours = twins(num_layers=2)
    packed = []
    make = _arrays.make_weights
    monkeypatch.setattr(_arrays, "make_weights", lambda *a, **k: packed.append(a) or make(*a, **k))
    x = torch.ones(T, B, I)
    for _ in range(3):
        ours(x)[0].sum().backward()
        ours.eval()(x)
    assert len(packed) == 2
    before = len(_arrays._kept)
    assert id(ours.weight_hh_l0) in _arrays._kept
    del ours
    assert len(_arrays._kept) == before - 2


def test_weights_changed_between_forward_and_backward_are_an_error():
    _, ours = twins()
    y = ours(torch.ones(T, B, I))[0]
    with torch.no_grad():
        ours.weight_hh_l0.zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_weight_norm():
    pairs = twins()
    for module in pairs:
        torch.nn.utils.parametrizations.weight_norm(module, "weight_hh_l0")
        module(torch.ones(T, B, I))[0].sum().backward()
    theirs, ours = pairs
    for name, parameter in ours.named_parameters():
        assert_same([parameter.grad], [theirs.get_parameter(name).grad])


# --- the tape -----------------------------------------------------------------------------------


def test_the_tape_dies_with_the_graph():
    _, ours = twins()
    saved = []

    def pack(tensor):
        if tensor.dtype == torch.uint8:
            saved.append(weakref.ref(tensor.untyped_storage()))
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        y = ours(torch.ones(T, B, I))[0]
    assert [ref() is not None for ref in saved] == [True]
    y.sum().backward()
    assert saved[0]() is None
    with pytest.raises(RuntimeError, match="second time"):
        y.sum().backward()


def test_a_graph_can_be_used_twice():
    _, ours = twins()
    inputs = arguments(ours, "padded", with_state=True)
    loss = call(ours, *inputs)[0].square().sum()
    first, second = (torch.autograd.grad(loss, inputs, retain_graph=True) for _ in range(2))
    assert_close(first, second, rtol=0, atol=0)


def test_a_tape_of_another_size_is_refused():
    _, ours = twins()
    with (
        torch.autograd.graph.saved_tensors_hooks(
            lambda tensor: tensor,
            lambda tensor: tensor[:-1] if tensor.dtype == torch.uint8 else tensor,
        ),
        pytest.raises(ValueError, match=r"memory: expected \d+ bytes, got"),
    ):
        ours(torch.ones(T, B, I))[0].sum().backward()


@pytest.mark.parametrize("kind", ["padded", "packed"])
def test_saved_tensors_may_be_copied_or_recomputed(kind):
    _, ours = twins(num_layers=2, bidirectional=True)
    inputs = arguments(ours, kind, with_state=True)
    _, expected = gradients(ours, inputs, kind=kind)

    with torch.autograd.graph.saved_tensors_hooks(
        lambda tensor: tensor.numpy(force=True).copy(), lambda array: torch.from_numpy(array)
    ):
        _, copied = gradients(ours, inputs, kind=kind)
    assert_close(copied, expected, rtol=0, atol=0)
    if kind == "padded":
        again = torch.utils.checkpoint.checkpoint(
            lambda *tensors: call(ours, *tensors)[0], *inputs, use_reentrant=False
        )
        grads = torch.autograd.grad(again.sum(), inputs)
        assert_close(grads, torch.autograd.grad(call(ours, *inputs)[0].sum(), inputs))


# --- episodes inside a sequence, which PyTorch does not have ------------------------------------


def cut(lengths, resets):
    """Yield row, first step and end of each episode."""
    for row, end in enumerate(lengths):
        starts = sorted({0, *np.flatnonzero(resets[:end, row].numpy()).tolist()})
        for start, stop in zip(starts, [*starts[1:], end], strict=True):
            yield row, start, stop


@each_cell
@pytest.mark.parametrize("kind", ["(T, B)", "(B, T)", "packed", "packed (B, T)"])
def test_episodes_are_sequences_cut_by_hand(no_way_out, cell, kind):
    theirs, ours = twins(
        cell, num_layers=2, bidirectional=True, dtype=torch.float64, batch_first="(B, T)" in kind
    )
    x = torch.randn(T, B, I, dtype=torch.float64, requires_grad=True)
    resets = torch.rand(T, B) < 0.3
    lengths = [2, T, 4, 1, T] if "packed" in kind else [T] * B
    input, given = x, resets
    if "(B, T)" in kind:
        input, given = x.transpose(0, 1), resets.t()
    if "packed" in kind:
        input = pack_padded_sequence(
            input, lengths, batch_first="(B, T)" in kind, enforce_sorted=False
        )
    y, _ = ours(input, resets=given)
    if "packed" in kind:
        y = torch.nn.utils.rnn.pad_packed_sequence(y, total_length=T)[0]
    elif "(B, T)" in kind:
        y = y.transpose(0, 1)
    desired = torch.zeros_like(y)
    theirs.batch_first = False
    for row, start, stop in cut(lengths, resets):
        desired[start:stop, row] = theirs(x[start:stop, row : row + 1])[0][:, 0]
    assert_close(y, desired, rtol=1e-9, atol=1e-9)
    weights = torch.randn_like(y)
    actual = torch.autograd.grad((y * weights).sum(), [x, *ours.parameters()])
    expected = torch.autograd.grad((desired * weights).sum(), [x, *theirs.parameters()])
    assert_close(actual, expected, rtol=1e-9, atol=1e-9)


@each_cell
def test_episodes_of_one_sequence_and_a_given_state(no_way_out, cell):
    _, ours = twins(cell, dtype=torch.float64)
    x = torch.randn(T, I, dtype=torch.float64)
    _, state = ours(x)
    resets = torch.zeros(T, dtype=torch.bool)
    y, end = ours(x, state, resets=resets)
    assert_close((y, end), ours(x, state), rtol=0, atol=0)
    resets[[0, 3]] = True
    y, end = ours(x, state, resets=resets)
    late, late_end = ours(x[3:])
    assert_close((y, end), (torch.cat([ours(x[:3])[0], late]), late_end), rtol=0, atol=0)


@each_cell
@pytest.mark.parametrize("kind", ["padded", "packed"])
@pytest.mark.filterwarnings("ignore:fastlstm.torch leaves")
def test_gradients_of_gradients_with_episodes(cell, kind):
    _, ours = twins(cell, bidirectional=True, dtype=torch.float64)
    x = torch.randn(T, B, I, dtype=torch.float64, requires_grad=True)
    resets = torch.rand(T, B) < 0.3

    def outputs(x):
        lengths = [2, T, 4, 1, T]
        packed = pack_padded_sequence(x, lengths, enforce_sorted=False)
        y, _ = ours(x if kind == "padded" else packed, resets=resets)
        return y if kind == "padded" else y.data

    assert torch.autograd.gradgradcheck(outputs, [x], fast_mode=True)
    one, two = (torch.autograd.grad(outputs(x).sum(), x, create_graph=c) for c in (0, 1))
    assert_close(one, two)


@pytest.mark.filterwarnings("ignore:fastlstm.torch leaves")
def test_wrong_episodes_are_named():
    lstm, x = fastlstm.torch.LSTM(I, H), torch.ones(T, B, I)
    for wrong, error in (
        (torch.zeros(T, B), TypeError),
        (np.zeros((T, B), bool), TypeError),
        (torch.zeros(B, T, dtype=torch.bool), ValueError),
        (torch.zeros(T, dtype=torch.bool), ValueError),
    ):
        with pytest.raises(error, match="resets: expected"):
            lstm(x, resets=wrong)
    with torch.autocast("cpu"), pytest.raises(NotImplementedError, match="resets: expected None"):
        lstm(x, resets=torch.zeros(T, B, dtype=torch.bool))


# --- what is left to PyTorch --------------------------------------------------------------------


@each_cell
@pytest.mark.parametrize("kind", ["padded", "packed"])
@pytest.mark.filterwarnings("ignore:fastlstm.torch leaves")
def test_gradients_of_gradients(cell, kind):
    _, ours = twins(cell, bidirectional=True, dtype=torch.float64)
    inputs = arguments(ours, kind, with_state=True)

    def outputs(x, *state):
        parts = call(ours, x, *state, kind=kind)
        return tuple(p for p in parts if p is not None and p.requires_grad)

    assert torch.autograd.gradgradcheck(outputs, inputs, fast_mode=True)
    one, two = (
        torch.autograd.grad(outputs(*inputs)[0].sum(), inputs, create_graph=c) for c in (0, 1)
    )
    assert_close(one, two)


def left_to_pytorch():
    x = torch.ones(T, B, I)

    def autocast(m):
        with torch.autocast("cpu"):
            return m(x)[0]

    def bfloat16(m):
        return copy.deepcopy(m).bfloat16()(x.bfloat16())[0]

    def meta(m):
        return copy.deepcopy(m).to("meta")(x.to("meta"))[0]

    def function_transform(m):
        weights = {k: v.detach() for k, v in m.named_parameters()}
        return torch.func.grad(lambda w: torch.func.functional_call(m, w, (x,))[0].sum())(weights)

    def trace(m):
        return torch.jit.trace(m, (x,))(x)[0]

    return [autocast, bfloat16, meta, function_transform, trace]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("use", left_to_pytorch(), ids=lambda use: use.__name__)
def test_what_is_not_done_here_is_left_to_pytorch_and_said_once(use, nothing_said):
    theirs, ours = twins()
    with pytest.warns(UserWarning, match="fastlstm.torch leaves .* to PyTorch's own code"):
        got = use(ours)
    assert_close(got, use(theirs))
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "fastlstm")
        use(ours)


def test_forward_derivatives_are_never_dropped(nothing_said):
    _, ours = twins()
    with torch.autograd.forward_ad.dual_level(), torch.no_grad():
        x = torch.autograd.forward_ad.make_dual(torch.ones(T, B, I), torch.ones(T, B, I))
        with (
            pytest.warns(UserWarning, match="forward derivatives"),
            torch.backends.mkldnn.flags(enabled=False),  # which has none
        ):
            y = ours(x)[0]
        assert torch.autograd.forward_ad.unpack_dual(y).tangent is not None


# --- operators and compilers --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "packed", "reverse", "R", "episodes"),
    [
        ("LSTM", False, False, H, False),
        ("LSTM", True, True, 3, True),
        ("GRU", True, False, H, False),
        ("RNN_TANH", False, True, H, True),
    ],
)
def test_opcheck(mode, packed, reverse, R, episodes):
    torch.manual_seed(0)
    gates = _arrays.CELLS[mode].G
    rows = torch.tensor([3, 2, 2, 1]) if packed else None
    shapes = {
        "x": (8, I) if packed else (4, 3, I),
        "h_0": (3, R),
        "c_0": (3, H) if mode == "LSTM" else None,
        "w_ih": (gates * H, I),
        "w_hh": (gates * H, R),
        "w_hr": (R, H) if R != H else None,
        "b_ih": (gates * H,),
        "b_hh": (gates * H,),
    }
    given = {
        name: None if shape is None else torch.randn(shape, requires_grad=True)
        for name, shape in shapes.items()
    }
    resets = torch.rand(4, 3) < 0.5 if episodes else None
    arguments = (mode, *given.values(), rows, resets, 3, reverse, True)
    torch.library.opcheck(_operators.recurrence, arguments)
    with torch.no_grad():
        y, _, _, tape = _operators.recurrence(*arguments)
    x, _, _, w_ih, w_hh, w_hr, _, _ = (t if t is None else t.detach() for t in given.values())
    wanted = [True, True, mode == "LSTM", True]
    torch.library.opcheck(
        _operators.recurrence_backward,
        (
            mode,
            torch.randn_like(y),
            None,
            None,
            tape,
            x,
            w_ih,
            w_hh,
            w_hr,
            rows,
            resets,
            3,
            reverse,
            wanted,
        ),
        test_utils=("test_schema", "test_faketensor", "test_aot_dispatch_dynamic"),
    )


class Model(torch.nn.Module):
    def __init__(self, recurrent):
        super().__init__()
        self.recurrent = recurrent
        self.linear = torch.nn.Linear(2 * H, 2)

    def forward(self, x):
        return self.linear(self.recurrent(x.tanh())[0].relu())


@pytest.mark.parametrize("whole", [False, True])
@each_of(["lstm", "gru", "rnn"])
def test_compiled_models(cell, whole, no_way_out):
    """In one graph where PyTorch lets recurrent modules into one, else around a break."""
    _, ours = twins(cell, bidirectional=True, batch_first=True)
    model = Model(ours)
    torch._dynamo.reset()
    with torch._dynamo.config.patch(allow_rnn=whole):
        compiled = torch.compile(model, fullgraph=whole, backend="aot_eager")
        for steps in (3, 5, 6):
            x = torch.randn(2, steps, I, requires_grad=True)
            wanted = [x, *model.parameters()]
            grads = [torch.autograd.grad(f(x).square().sum(), wanted) for f in (compiled, model)]
            assert_close(*grads)
            with torch.no_grad():
                assert_close(compiled(x), model(x))
    torch._dynamo.reset()


def test_exported_programs():
    _, ours = twins(bidirectional=True)
    program = torch.export.export(ours, (torch.randn(T, B, I),))
    assert sum("fastlstm.recurrence" in str(node.target) for node in program.graph.nodes) == 2
    x = torch.randn(T, B, I)
    assert_close(program.module()(x), ours(x))


# --- threads and processes ----------------------------------------------------------------------


def test_pytorchs_threads_are_left_alone():
    before = torch.get_num_threads()
    number = fastlstm.get_num_threads()
    try:
        fastlstm.set_num_threads(number + 1)
        twins()[1](torch.ones(T, B, I))[0].sum().backward()
        assert torch.get_num_threads() == before
    finally:
        fastlstm.set_num_threads(number)


def test_one_module_in_many_threads():
    _, ours = twins(num_layers=2)
    x = torch.randn(T, B, I)
    expected = gradients(ours, [x.requires_grad_()])[1]
    results = [None] * 8

    def work(i):
        results[i] = torch.autograd.grad(call(ours, x)[0].sum(), [x, *ours.parameters()])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(expected) == len(results[0])
    for result in results[1:]:
        assert_close(result, results[0], rtol=0, atol=0)


class Features(torch.utils.data.Dataset):
    """A data set that runs a module where it is read."""

    def __init__(self, module):
        self.module = module

    def __len__(self):
        return 6

    def __getitem__(self, i):
        with torch.no_grad():
            return self.module(torch.full((50, 32, I), float(i)))[0]


@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
def test_forked_workers_of_a_data_loader():
    _, ours = twins()
    before = fastlstm.get_num_threads()
    fastlstm.set_num_threads(2)
    try:
        expected = [Features(ours)[i] for i in range(6)]  # the parent's threads are running
        ours(torch.ones(50, 32, I))[0].sum().backward()
        loader = torch.utils.data.DataLoader(
            Features(ours),
            batch_size=None,
            num_workers=2,
            multiprocessing_context="fork",
            timeout=60,
        )
        for got, wanted in zip(loader, expected, strict=True):
            assert_close(got, wanted, rtol=0, atol=0)
    finally:
        fastlstm.set_num_threads(before)


def train(wrap, rows):
    """Train on these rows of each batch; return the parameters."""
    fastlstm.set_num_threads(1)
    torch.set_num_threads(1)
    _, ours = twins(bidirectional=True, dtype=torch.float64)
    torch.manual_seed(11)
    model = wrap(Model(ours).double())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    torch.manual_seed(12)
    for _ in range(5):
        x = torch.randn(T, 4, I, dtype=torch.float64)
        optimizer.zero_grad()
        model(x[:, rows]).square().mean().backward()
        optimizer.step()
    return [parameter.detach() for parameter in model.parameters()]


def train_as_one_of_two(rank, folder):
    """Train half of each batch in a process of its own."""
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2
    )
    parameters = train(torch.nn.parallel.DistributedDataParallel, slice(2 * rank, 2 * rank + 2))
    torch.save(parameters, f"{folder}/{rank}.pt")
    torch.distributed.barrier()
    os._exit(0)  # gloo aborts at times while it is taken down, without fastlstm too


@pytest.mark.skipif(not torch.distributed.is_available(), reason="no torch.distributed here")
def test_two_processes_train_to_the_weights_of_one(tmp_path):
    torch.multiprocessing.spawn(train_as_one_of_two, (str(tmp_path),), nprocs=2)
    threads = fastlstm.get_num_threads(), torch.get_num_threads()
    try:
        expected = train(lambda model: model, slice(None))
    finally:
        fastlstm.set_num_threads(threads[0])
        torch.set_num_threads(threads[1])
    for rank in range(2):
        assert_same(torch.load(tmp_path / f"{rank}.pt"), expected)
