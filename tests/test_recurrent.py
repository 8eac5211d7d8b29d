"""What `LSTM`, `GRU` and `RNN` share, and their options: against the reference, layer by layer."""

import pickle
import signal

import numpy as np
import pytest
from cells import LAYERS, each_layer, each_of
from helpers import (
    FINITE_DIFFERENCES,
    SUMS_BEFORE_KINKS,
    assert_close,
    assert_same_bits,
    forced_threads,
    normal,
    slope,
    some_lengths,
)

import fastlstm
from fastlstm import GRU, LSTM, RNN, reference

ragged = pytest.mark.parametrize("ragged", [False, True], ids=["full", "ragged"])
DROPOUTS = {"dropout": 0.3, "input_dropout": 0.2, "recurrent_dropout": 0.4}
T, B, I, H = 7, 5, 4, 9


def make(cell, dtype=np.float64, **options):
    return cell.layer(I, H, **options, dtype=dtype, rng=0)


def parts(state):
    return state if isinstance(state, tuple) else (state,)


ARGUMENTS = {"weight_ih": "w_ih", "weight_hh": "w_hh", "bias": "b", "weight_hr": "w_proj"}


def by_reference(cell, layer, x, state, lengths):
    """Run a layer through the reference, one direction after the other."""
    finals, options, i = [], {**cell.options(), "lengths": lengths}, 0
    for number in range(layer.num_layers):
        outputs = []
        for suffix in ("", "_reverse")[: 2 if layer.bidirectional else 1]:
            place = f"_l{number}{suffix}"
            arguments = {"x": x} | dict(zip(cell.states, (a[i] for a in parts(state)), strict=True))
            for name, array in layer.params.items():
                if name.endswith(place):
                    kind = name.removesuffix(place)
                    arguments[ARGUMENTS.get(kind, kind)] = array
            reverse = layer.reverse or suffix == "_reverse"
            y, *final = cell.forward(reference, arguments, options | {"reverse": reverse})
            outputs.append(y)
            finals.append(final)
            i += 1
        x = np.concatenate(outputs, axis=2)
    state = tuple(map(np.stack, zip(*finals, strict=True)))
    return x, state if len(state) == 2 else state[0]


STACKS = [{"bidirectional": True, "batch_first": True}, {"reverse": True}]


@each_layer
@ragged
@pytest.mark.parametrize("options", STACKS, ids=" ".join)
def test_a_stack_is_what_the_reference_computes(isa, dtype, rng, cell, ragged, options):
    layer = make(cell, dtype, num_layers=2, **options)
    x, state = normal(rng, (T, B, I), dtype), cell.state_of(rng, layer, B)
    lengths = some_lengths(rng, T, B) if ragged else None
    desired = by_reference(cell, layer, x, state, lengths)
    y, final = layer(x.swapaxes(0, 1) if layer.batch_first else x, state, lengths=lengths)
    actual = y.swapaxes(0, 1) if layer.batch_first else y, final
    assert_close(actual, desired, SUMS_BEFORE_KINKS)


@each_of(["lstm everything", "gru", "rnn"])
@ragged
def test_a_reverse_layer_is_the_second_half_of_a_bidirectional_one(dtype, rng, cell, ragged):
    both, layer = make(cell, dtype, bidirectional=True), make(cell, dtype, reverse=True)
    for key, param in layer.params.items():
        param[...] = both.params[f"{key}_reverse"]
    x, R = normal(rng, (T, B, I), dtype), layer.output_size
    lengths = some_lengths(rng, T, B) if ragged else None
    y, _, tape = layer.forward(x, lengths=lengths)
    y_both, _, tape_both = both.forward(x, lengths=lengths)
    assert_same_bits(y, np.ascontiguousarray(y_both[:, :, R:]))
    dy = np.zeros_like(y_both)
    dy[:, :, R:] = normal(rng, y.shape, dtype)
    gradients, desired = layer.backward(tape, dy[:, :, R:]), both.backward(tape_both, dy)
    for key, gradient in gradients.params.items():
        assert_same_bits(gradient, desired.params[f"{key}_reverse"])
    assert_same_bits(layer.trace(x)["l0"]["h"], both.trace(x)["l0_reverse"]["h"])


@each_layer
@pytest.mark.parametrize("dropouts", [{}, DROPOUTS], ids=["", "dropouts"])
@pytest.mark.parametrize("checkpoint", [False, True, 3])
def test_gradients_equal_central_differences(rng, cell, dropouts, checkpoint):
    layer = make(cell, num_layers=2, bidirectional=True, **dropouts)
    x, state = normal(rng, (T, B, I)), cell.state_of(rng, layer, B)
    lengths = some_lengths(rng, T, B)

    def forward():
        layer._rng = np.random.default_rng(1)  # the same masks each time
        return layer.forward(x, state, lengths=lengths, checkpoint=checkpoint)

    y, final, tape = forward()
    dy, dstate = normal(rng, y.shape), tuple(normal(rng, a.shape) for a in parts(final))

    def loss():
        y, final, _ = forward()
        return np.vdot(dy, y) + sum(map(np.vdot, dstate, parts(final)))

    gradients = layer.backward(tape, dy, dstate if len(dstate) == 2 else dstate[0])
    pairs = [(gradients.flat, layer.flat), (gradients.x, x)]
    for gradient, array in [*pairs, *zip(parts(gradients.state), parts(state), strict=True)]:
        direction = normal(rng, array.shape)
        actual = np.vdot(gradient, direction)
        assert_close(actual, slope(loss, [array], [direction]), FINITE_DIFFERENCES)


@each_layer
@pytest.mark.parametrize("checkpoint", [False, 3])
def test_without_the_inputs_gradient_the_others_stay_the_same(rng, cell, checkpoint):
    layer = make(cell, num_layers=2, bidirectional=True)
    x = normal(rng, (T, B, I))
    y, _, tape = layer.forward(x, lengths=some_lengths(rng, T, B), checkpoint=checkpoint)
    whole = layer.backward(tape, y)
    part = layer.backward(tape, y, input_gradient=False)
    assert part.x is None
    assert_same_bits((part.state, part.flat), (whole.state, whole.flat))


@each_layer
def test_streams_give_the_bits_of_a_call(isa, dtype, rng, cell):
    layer = make(cell, dtype, num_layers=2)
    x, state = normal(rng, (T, B, I), dtype), cell.state_of(rng, layer, B)
    y, final = layer(x, state)
    stream = layer.stream(B)
    stream.state = state
    assert_same_bits(tuple(parts(stream.state)), tuple(parts(state)))
    assert_same_bits(np.stack([stream.step(x_t) for x_t in x]), y)
    assert_same_bits(tuple(parts(stream.state)), tuple(parts(final)))


@each_layer
@pytest.mark.parametrize(
    ("checkpoint", "ragged"), [(True, False), (True, True), (1, False), (3, True), (100, False)]
)
def test_checkpoints_change_memory_and_nothing_else(dtype, rng, cell, ragged, checkpoint):
    layer = make(cell, dtype, num_layers=2, bidirectional=True)
    x, state = normal(rng, (T, B, I), dtype), cell.state_of(rng, layer, B)
    options = {"lengths": some_lengths(rng, T, B) if ragged else None}
    results = []
    for segment in (False, checkpoint):
        layer._rng = np.random.default_rng(1)
        y, final, tape = layer.forward(x, state, **options, checkpoint=segment)
        gradients = layer.backward(tape, np.ones_like(y), final)
        results.append(((y, final), gradients))
    assert_same_bits(results[1][0], results[0][0])
    assert_close(tuple(results[1][1])[:2], tuple(results[0][1])[:2], SUMS_BEFORE_KINKS)
    assert_close(results[1][1].flat, results[0][1].flat, SUMS_BEFORE_KINKS)


def test_a_checkpointed_tape_holds_the_square_root(rng):
    lstm = LSTM(3, 16, rng=0)
    x = normal(rng, (10_000, 1, 3), np.float32)
    plain = lstm.forward(x)[2].nbytes
    checkpointed = lstm.forward(x, checkpoint=True)[2].nbytes
    assert plain >= 10_000 * 6 * 16 * 4
    assert checkpointed <= 101 * 2 * 16 * 4


@pytest.mark.parametrize("checkpoint", [0, -1, 2.5, "yes"])
def test_a_wrong_checkpoint_raises_and_is_named(checkpoint):
    error = ValueError if isinstance(checkpoint, int) else TypeError
    with pytest.raises(error, match=r"^checkpoint: expected .*, got"):
        LSTM(1, 1).forward(np.ones((2, 1, 1), np.float32), checkpoint=checkpoint)


@each_layer
@ragged
def test_a_trace_shows_what_the_equations_say(isa, rng, cell, ragged):
    layer = make(cell, num_layers=2, bidirectional=True)
    x = normal(rng, (T, B, I))
    lengths = some_lengths(rng, T, B) if ragged else None
    y, _ = layer(x, lengths=lengths)
    trace = layer.trace(x, lengths=lengths)
    assert list(trace) == ["l0", "l0_reverse", "l1", "l1_reverse"]
    h = np.concatenate([trace["l1"]["h"], trace["l1_reverse"]["h"]], axis=2)
    assert_same_bits(h, y)
    names = {"lstm": "fgioch", "gru": "nrzh", "rnn": "h"}[layer.cell]
    past = np.arange(T)[:, None] >= (np.full(B, T) if lengths is None else lengths)
    for arrays in trace.values():
        assert sorted(arrays) == sorted(names)
        assert all(not a[past].any() for a in arrays.values())
    if cell == LAYERS["lstm"]:
        a = trace["l0"]
        c_prev = np.concatenate([np.zeros((1, B, H)), a["c"][:-1]])
        inside = ~past
        assert_close(a["c"][inside], (a["f"] * c_prev + a["i"] * a["g"])[inside])
        assert_close(a["h"], a["o"] * np.tanh(a["c"]))
    if cell == LAYERS["gru"]:
        a = trace["l0"]
        h_prev = np.concatenate([np.zeros((1, B, H)), a["h"][:-1]])
        assert_close(a["h"][~past], ((1 - a["z"]) * a["n"] + a["z"] * h_prev)[~past])


@each_layer
def test_repr_makes_an_equal_layer_and_pickling_a_copy(rng, cell):
    layer = make(cell, np.float32, num_layers=2, batch_first=True, **DROPOUTS)
    again = eval(repr(layer), {"LSTM": LSTM, "GRU": GRU, "RNN": RNN})
    assert repr(again) == repr(layer)
    assert {k: v.shape for k, v in again.params.items()} == {
        k: v.shape for k, v in layer.params.items()
    }
    x = normal(rng, (B, T, I), np.float32)
    copy = pickle.loads(pickle.dumps(layer))
    assert_same_bits(copy(x)[0], layer(x)[0])


@pytest.mark.parametrize("cls", [LSTM, GRU, RNN])
def test_masks_are_drawn_in_training_only_and_reproducibly(rng, cls):
    layer = cls(I, H, 2, **DROPOUTS, zoneout_h=0.5, rng=3)
    x = normal(rng, (T, B, I), np.float32)
    assert_same_bits(layer(x)[0], layer(x)[0])
    first, second = layer.forward(x)[0], layer.forward(x)[0]
    assert (first != second).any()
    again = cls(I, H, 2, **DROPOUTS, zoneout_h=0.5, rng=3)
    assert_same_bits(again.forward(x)[0], first)


def test_recurrent_dropout_has_one_mask_for_all_steps():
    """With W_hh = 1 in one unit, a dropped unit sees nothing of its past at any step."""
    rnn = RNN(1, 64, recurrent_dropout=0.5, nonlinearity=("affine", 1.0, 0.0), rng=0)
    for value, name in ((1, "weight_ih_l0"), (0, "bias_l0")):
        rnn.params[name][...] = value
    rnn.params["weight_hh_l0"][...] = np.eye(64)
    y = rnn.forward(np.ones((4, 1, 1), np.float32))[0][:, 0]
    dropped = y[1] == 1
    assert 15 < dropped.sum() < 50
    assert (y[:, dropped] == 1).all()
    np.testing.assert_array_equal(
        y[:, ~dropped], np.array([1, 3, 7, 15])[:, None] * np.ones(64)[~dropped]
    )


def test_zoneout_keeps_the_old_state_where_it_is_drawn():
    rnn = RNN(1, 200, zoneout_h=0.3, nonlinearity=("affine", 1.0, 0.0), rng=0)
    for value, name in ((1, "weight_ih_l0"), (0, "weight_hh_l0"), (0, "bias_l0")):
        rnn.params[name][...] = value
    x = np.arange(1, 6, dtype=np.float32).reshape(5, 1, 1)
    y = rnn.forward(x)[0][:, 0]
    before = np.concatenate([np.zeros((1, 200), np.float32), y[:-1]])
    kept = y == before
    assert (kept | (y == x[:, 0])).all()
    assert 0.2 < kept.mean() < 0.4
    expected = rnn(x)[0][0, 0]  # 0.3 * 0 + 0.7 * 1
    assert_close(expected, np.full(200, 0.7, np.float32))


def test_public_names():
    assert {"LSTM", "GRU", "RNN", "gru_forward", "rnn_backward"} <= set(fastlstm.__all__)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="signals of POSIX")
@pytest.mark.parametrize("call", ["__call__", "forward", "backward"])
def test_a_signal_ends_a_long_call_and_leaves_the_layer_as_it_was(rng, call):
    class InterruptedError(Exception):
        pass

    def interrupt(*_):
        raise InterruptedError

    lstm = LSTM(128, 128, rng=0)
    x = normal(rng, (600, 64, 128), np.float32)  # 10 GFLOP forward, twice as many backward
    short = lstm(x[:3])[0]
    arguments = (x,)
    if call == "backward":
        y, _, tape = lstm.forward(x)
        arguments = (tape, y)
    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.005)
    try:
        with forced_threads(1), pytest.raises(InterruptedError):
            getattr(lstm, call)(*arguments)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert_same_bits(lstm(x[:3])[0], short)
