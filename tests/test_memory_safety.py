"""No argument, however wrong, and no change behind the back of a call reads or writes elsewhere.

Before the checks that these tests guard, most of them ended in a segmentation fault or a wrong
number; the address sanitizer shows the others.
"""

import ctypes
import signal

import numpy as np
import pytest
from cells import lstm_arguments
from helpers import LAYOUTS, assert_same_bits, normal

import fastlstm
from fastlstm import capi
from fastlstm._args.arrays import check_lengths, readable
from fastlstm._core import sequence_float64 as core
from fastlstm._layers import recurrent

SIGMOID, TANH = (0, 0.0, 0.0), (1, 0.0, 0.0)
PLAIN = {"activations": (SIGMOID, TANH, TANH)}
CELLS = (fastlstm.LSTM, fastlstm.GRU, fastlstm.RNN)


def core_call(**changes):
    """Return the arguments of a correct call of the core, with changes."""
    rng = np.random.default_rng(0)
    T, B, I, H = 5, 3, 2, 4
    weights = core.Weights("lstm", normal(rng, (16, I)), normal(rng, (16, H)), None, **PLAIN)
    weights.prepare_backward(normal(rng, (16, I)), normal(rng, (16, H)))
    arguments = {
        "x": normal(rng, (T, B, I)),
        "y": np.zeros((T, B, H)),
        "initial": (None, None),
        "final": (np.zeros((B, H)), np.zeros((B, H))),
    }
    arguments |= changes
    return weights, arguments


def run(weights, arguments):
    """Make a forward call of the core and run it; return its tape."""
    call = core.ForwardCall(weights, **arguments)
    core.run_forward([call])
    return call.tape


def run_backward(tape, arguments):
    core.run_backward([core.BackwardCall(tape, **arguments)])


def core_backward():
    """Return the tape of a correct call of the core, and the arguments of its backward."""
    tape = run(*core_call(training=True))
    arguments = {"dy": None, "dx": np.zeros((5, 3, 2)), "w_ih": np.zeros((16, 2))}
    arguments |= {"w_hh": np.zeros((16, 4)), "dfinal": (None, None), "dinitial": (None, None)}
    return tape, arguments


class TestTheCoreComparesShapes:
    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("x", np.zeros((5, 3, 3))),
            ("x", np.zeros((5, 3, 4))[..., ::2]),
            ("y", np.zeros((5, 2, 4))),
            ("y", np.zeros((4, 3, 4))),
            ("h_0", np.zeros((2, 4))),
            ("c_0", np.zeros((3, 5))),
            ("h_n", np.zeros((3, 3))),
            ("c_n", np.zeros((1, 4))),
            ("lengths", np.array([5, 5], np.intp)),
            ("lengths", np.array([5, 6, 0], np.intp)),
            ("lengths", np.array([5, -1, 0], np.intp)),
            ("resets", np.zeros((3, 5), np.uint8)),
            ("resets", np.zeros((6, 3), np.uint8)),
            ("zoneout_h", np.zeros((5, 3, 3))),
            ("zoneout_c", np.zeros((4, 3, 4))),
            ("dropout_h", np.zeros((3, 5))),
        ],
    )
    def test_forward(self, name, value):
        weights, arguments = core_call()
        pairs = {"h_0": ("initial", 0), "c_0": ("initial", 1), "h_n": ("final", 0)}
        pairs |= {"c_n": ("final", 1), "zoneout_h": ("masks", 0), "zoneout_c": ("masks", 1)}
        pairs |= {"dropout_h": ("masks", 2)}
        if name in pairs:
            group, i = pairs[name]
            parts = list(arguments.get(group, (None, None, None)))
            parts[i] = value
            arguments[group] = tuple(parts)
        else:
            arguments[name] = value
        with pytest.raises(ValueError, match=f"^{name}: expected"):
            run(weights, arguments)

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("dy", np.zeros((5, 3, 3))),
            ("dx", np.zeros((5, 2, 2))),
            ("w_ih", np.zeros((16, 3))),
            ("w_hh", np.zeros((12, 4))),
            ("b", np.zeros(12)),
            ("peephole", np.zeros((3, 4))),
            ("layer_norm", np.zeros((10, 4))),
            ("dh_n", np.zeros((3, 3))),
            ("dc_0", np.zeros((2, 4))),
        ],
    )
    def test_backward(self, name, value):
        tape, given = core_backward()
        run_backward(tape, given)
        states = {"dh_n": ("dfinal", (value, None)), "dc_0": ("dinitial", (None, value))}
        key, wrong = states.get(name, (name, value))
        with pytest.raises(ValueError, match=f"^{name}: expected"):
            run_backward(tape, given | {key: wrong})

    def test_a_projection_cannot_be_left_out_of_one_side(self):
        tape, given = core_backward()
        with pytest.raises(ValueError, match="w_proj"):
            run_backward(tape, given | {"w_proj": np.zeros((4, 4))})

    @pytest.mark.parametrize(
        "shapes",
        [((16, 2), (16, 3)), ((12, 2), (16, 4)), ((16, 2), (14, 4)), ((0, 2), (0, 0))],
    )
    def test_weights(self, shapes):
        with pytest.raises(ValueError, match="expected"):
            core.Weights("lstm", *map(np.zeros, shapes), None, **PLAIN)

    def test_layer_norm_is_read_row_after_row(self):
        weights = np.zeros((16, 2)), np.zeros((16, 4)), None
        for layer_norm in (np.zeros((4, 10)).T, np.zeros((20, 4))[::2]):
            with pytest.raises(ValueError, match="contiguous"):
                core.Weights("lstm", *weights, layer_norm=layer_norm, **PLAIN)

    def test_x_of_a_tape_that_was_reshaped_is_read_as_it_was(self):
        tape, given = core_backward()
        run_backward(tape, given)
        expected = given["w_ih"].copy()
        tape.x.shape = (3, 5, 2)
        given["w_ih"][...] = 0
        run_backward(tape, given)
        assert_same_bits(given["w_ih"], expected)


class TestWhatChangesDuringACall:
    def test_lengths_are_the_callers_own_no_longer(self):
        lengths = np.array([3, 1], np.intp)
        checked = check_lengths(lengths, 3, 2)
        lengths[:] = 10**7
        assert checked.tolist() == [3, 1]

    def test_lengths_that_change_between_layers_change_nothing(self, rng, monkeypatch):
        lstm = fastlstm.LSTM(3, 5, 3, input_dropout=0.5, rng=0)
        x, lengths = normal(rng, (6, 4, 3), np.float32), np.array([6, 2, 0, 5], np.intp)
        given = []

        class Disturbing(np.ndarray):
            def __rmul__(self, other):
                for array in given:
                    array[:] = 10**7
                return np.asarray(self) * other

        def check(*arguments):
            given.append(check_lengths(*arguments))
            return given[-1]

        masks = [np.ones((6, 4, 3), np.float32), *2 * [np.ones((6, 4, 5), np.float32)]]
        monkeypatch.setattr(recurrent, "check_lengths", check)
        monkeypatch.setattr(
            lstm, "_all_masks", lambda *_: ([mask.view(Disturbing) for mask in masks], None)
        )
        got = lstm.forward(x, lengths=lengths)[:2]
        assert (given[0] == 10**7).all()
        assert_same_bits(got, lstm(x, lengths=np.array([6, 2, 0, 5], np.intp)))

    @pytest.mark.parametrize("layer", CELLS)
    def test_checkpoints_keep_their_own_lengths_and_state(self, layer, rng):
        net = layer(3, 5, rng=0)
        x, lengths = normal(rng, (20, 4, 3), np.float32), np.array([20, 2, 0, 15], np.intp)
        h = normal(rng, (1, 4, 5), np.float32)
        state = (h, h.copy()) if layer is fastlstm.LSTM else h
        y, _, tape = net.forward(x, state, lengths=lengths, checkpoint=4)
        expected = net.backward(tape, np.ones_like(y))
        lengths[:] = 1
        for array in state if layer is fastlstm.LSTM else (state,):
            array[...] = np.nan
        got = net.backward(tape, np.ones_like(y))
        assert_same_bits((got.x, got.flat), (expected.x, expected.flat))


class TestSizesThatNobodyHas:
    @pytest.mark.parametrize("B", [2**63 - 1, 2**62, 2**58 + 1, 2**41])
    @pytest.mark.parametrize("layer", CELLS)
    def test_a_stream_of_too_many_rows(self, layer, B):
        with pytest.raises((MemoryError, OverflowError)):
            layer(1, 1).stream(B)

    def test_weights_wider_than_memory(self):
        wide = np.broadcast_to(np.float32(0), (4, 2**56))
        x = np.broadcast_to(np.float32(0), (0, 1, 2**56))
        with pytest.raises(MemoryError):
            fastlstm.lstm_forward(x, wide, np.zeros((4, 1), np.float32))

    def test_more_steps_than_memory(self):
        x = np.empty((2**61 - 2, 0, 1), np.float32)
        zeros = np.zeros((4, 1), np.float32)
        output = fastlstm.lstm_forward(x, zeros, zeros, lengths=np.zeros(0, int))
        assert output.y.shape == (2**61 - 2, 0, 1)

    def test_more_rows_than_memory(self):
        x = np.broadcast_to(np.float32(0), (2**30, 2**28, 0))
        with pytest.raises(MemoryError):
            fastlstm.rnn_forward(x, np.zeros((1, 0), "f"), np.zeros((1, 1), "f"))

    @pytest.mark.parametrize(("T", "B"), [(2**28, 2**28), (2**29, 1), (1, 2**29), (-1, 1), (1, 0)])
    def test_the_c_api_has_no_size_for_them(self, T, B):
        plan = capi.Plan("lstm", np.zeros((128, 1), "f"), np.zeros((128, 32), "f"), training=True)
        assert capi.f32.tape_size(plan.address, T, B) == 0
        assert capi.f32.workspace_size(plan.address, T, B) == 0

    def test_python_says_so(self):
        plan = capi.Plan("lstm", np.zeros((4, 1), "f"), np.zeros((4, 1), "f"), training=True)
        for method, arguments in ((plan.workspace, (2**29, 1)), (plan.tape, (1, 2**29))):
            with pytest.raises(ValueError, match="T, B: out of the range"):
                method(*arguments)
        with pytest.raises(ValueError, match="batch_size: out of the range"):
            plan.state(2**29)


@pytest.mark.parametrize("option", ["dw_proj", "dpeephole", "dlayer_norm", "dc_0", "dc_n"])
def test_the_c_api_refuses_gradients_of_what_a_plan_lacks(option, rng):
    """As it is refused, nothing is written."""
    cell = "gru" if option.startswith("dc") else "lstm"
    gates = {"gru": 3, "lstm": 4}[cell]
    plan = capi.Plan(cell, normal(rng, (gates * 4, 2)), normal(rng, (gates * 4, 4)), training=True)
    state, tape, workspace = plan.state(2), plan.tape(3, 2), plan.workspace(3, 2)
    x, guard = normal(rng, (3, 2, 2)), np.full(4096, 7.0)
    address = [a.ctypes.data for a in (state, tape, workspace, x)]
    assert capi.f64.forward_tape(address[0], 3, address[3], None, address[1], address[2]) == 0
    gradients = capi.Gradients(ctypes.sizeof(capi.Gradients))
    results = {"dx": x.shape, "dw_ih": (gates * 4, 2), "dw_hh": (gates * 4, 4)}
    arrays = {name: np.zeros(shape) for name, shape in results.items()}
    for name, array in arrays.items():
        setattr(gradients, name, array.ctypes.data)
    call = (address[1], address[3], ctypes.byref(gradients), address[2])
    assert capi.f64.backward(*call) == 0
    before = {name: array.copy() for name, array in arrays.items()}
    setattr(gradients, option, guard.ctypes.data)
    assert capi.f64.message(capi.f64.backward(*call)).startswith(b"the layer or the gradients")
    assert (guard == 7).all()
    assert_same_bits(arrays, before)


class TestMisalignedArrays:
    def test_are_copied_before_the_core_reads_them(self, dtype, rng):
        array = LAYOUTS["misaligned"](normal(rng, (3, 4), dtype))
        assert not array.flags.aligned
        assert readable(array).flags.aligned
        assert_same_bits(readable(array), array.copy())

    def test_the_core_refuses_them(self, rng):
        weights, arguments = core_call(x=LAYOUTS["misaligned"](normal(rng, (5, 3, 2))))
        with pytest.raises(ValueError, match="x: expected an aligned array"):
            run(weights, arguments)

    def test_of_options_and_steps(self, rng):
        arguments = lstm_arguments(rng, 4, 2, 3, 5)
        options = {"peephole": normal(rng, (3, 5)), "layer_norm": normal(rng, (10, 5))}
        expected = fastlstm.lstm_forward(**arguments, **options)
        moved = {name: LAYOUTS["misaligned"](a) for name, a in (arguments | options).items()}
        assert_same_bits(fastlstm.lstm_forward(**moved), expected)
        stream = fastlstm.LSTM(3, 5, dtype=np.float64, rng=0).stream(2)
        other = fastlstm.LSTM(3, 5, dtype=np.float64, rng=0).stream(2)
        x = normal(rng, (2, 3))
        assert_same_bits(stream.step(LAYOUTS["misaligned"](x)), other.step(x))
        with pytest.raises(ValueError, match="out: expected"):
            stream.step(x, out=LAYOUTS["misaligned"](np.zeros((2, 5))))


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="signals of POSIX")
def test_ctrl_c_is_heard_in_the_middle_of_very_small_steps():
    """A step of one unit takes its time for other things than multiplications."""

    def interrupt(*_):
        raise KeyboardInterrupt

    T = 6_000_000
    weights = core.Weights("rnn", np.ones((1, 1)), np.ones((1, 1)), None, activations=(TANH,))
    y = np.full((T, 1, 1), np.nan)
    arguments = {
        "x": np.zeros((T, 1, 1)),
        "y": y,
        "initial": (None, None),
        "final": (np.zeros((1, 1)), None),
    }
    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.01)
    try:
        with pytest.raises(KeyboardInterrupt):
            run(weights, arguments)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert np.isnan(y[T // 2 :]).all()
