"""The array functions: what they take and give back, threads and processes (values: test_cells)."""

import os
import signal
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from cells import CELLS, each_kind
from helpers import (
    LAYOUTS,
    assert_close,
    assert_same_bits,
    forced_isa,
    forced_threads,
)

import fastlstm
from fastlstm import reference
from fastlstm._core import runtime

LSTM = CELLS["lstm"]


def case(rng, T, B, I, H, dtype, cell=LSTM):
    """Return arguments of a cell without options, and gradients of its outputs."""
    arguments, _ = cell.arguments(rng, T, B, I, H, dtype)
    return arguments, cell.upstream(rng, T, B, H, dtype)


def forward(arguments, **options):
    """Return y, h_n and c_n."""
    return LSTM.forward(fastlstm, arguments, options)


def both(arguments, upstream, cell=LSTM, **options):
    """Return the outputs and the gradients."""
    return cell.both(fastlstm, arguments, options, upstream)


# --- arrays ---------------------------------------------------------------------------------------


@each_kind
def test_broadcast_arguments_are_read_as_their_copies(isa, dtype, rng, cell):
    arguments, upstream = case(rng, 5, 6, 4, 21, dtype, cell)
    for group in (arguments, upstream):  # zero strides along the first axis, and along all
        for name, array in group.items():
            part = array.flat[0] if name in ("h_0", "dh_n") else array[:1]
            group[name] = np.broadcast_to(part, array.shape)
    copies = [{name: a.copy() for name, a in group.items()} for group in (arguments, upstream)]
    desired = cell.both(reference, copies[0], {}, copies[1])
    assert_close(both(arguments, upstream, cell), desired)


@pytest.mark.parametrize(
    "options", [{}, {"lengths": [4, 0, 2], "reverse": True}], ids=["full", "ragged"]
)
@each_kind
def test_arguments_stay_unchanged_and_results_are_new_arrays(dtype, rng, cell, options):
    arguments, upstream = case(rng, 4, 3, 2, 16, dtype, cell)
    before = [{name: a.copy() for name, a in group.items()} for group in (arguments, upstream)]
    outputs, gradients = both(arguments, upstream, cell, **options)
    assert_same_bits(({**arguments}, {**upstream}), tuple(before))
    results = [a for a in (*outputs, *gradients) if a is not None]
    for k, result in enumerate(results):
        assert result.flags.writeable
        others = [*arguments.values(), *upstream.values(), *results[:k]]
        assert not any(np.shares_memory(result, other) for other in others)


# --- NaN and Inf ----------------------------------------------------------------------------------


def test_nan_reaches_only_its_own_row_and_only_later_steps(isa, dtype, rng):
    T, B, I, H = 6, 7, 5, 35
    arguments, _ = case(rng, T, B, I, H, dtype)
    clean = forward(arguments)
    t, row = 2, 3
    arguments["x"][t, row, 1] = np.nan
    y, h_n, c_n = forward(arguments)
    assert np.isnan(y[t:, row]).all()
    assert np.isnan([h_n[row], c_n[row]]).all()
    keep = np.arange(B) != row
    for poisoned, untouched in zip((y, h_n, c_n), clean, strict=True):
        assert_same_bits(poisoned[..., keep, :], untouched[..., keep, :])


@pytest.mark.parametrize("name", ["x", "w_ih", "w_hh", "b", "h_0", "c_0"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.filterwarnings("ignore:invalid value")
def test_nan_and_inf_propagate_as_in_the_reference(isa, dtype, rng, name, value):
    arguments, _ = case(rng, 3, 2, 3, 18, dtype)
    arguments[name].flat[-1] = value
    assert_close(forward(arguments), reference.lstm_forward(**arguments)[:3])


# --- errors ---------------------------------------------------------------------------------------


def base():
    return case(np.random.default_rng(0), 5, 3, 7, 64, np.float32)[0]


def cases(table):
    columns = ("name", "value", "error", "message")
    return pytest.mark.parametrize(columns, table, ids=[row[0] for row in table])


ZEROS = np.zeros
WRONG_ARGUMENTS = [
    ("x", ZEROS((5, 7), "f4"), ValueError, r"x: expected .*\(T, B, I\), got .*\(5, 7\)"),
    ("x", ZEROS((5, 3, 8), "f4"), ValueError, r"w_ih: expected \(256, 8\), got \(256, 7\)"),
    ("w_ih", ZEROS((256, 6), "f4"), ValueError, r"w_ih: expected \(256, 7\), got \(256, 6\)"),
    ("w_ih", ZEROS(256, "f4"), ValueError, r"w_ih: expected \(256, 7\), got \(256,\)"),
    ("w_hh", ZEROS((256, 32), "f4"), ValueError, r"w_hh: expected \(256, 64\), got \(256, 32\)"),
    ("w_hh", ZEROS(256, "f4"), ValueError, r"w_hh: expected .*, got \(256,\)"),
    ("b", ZEROS(255, "f4"), ValueError, r"b: expected \(256,\), got \(255,\)"),
    ("b", ZEROS((256, 1), "f4"), ValueError, r"b: expected \(256,\), got \(256, 1\)"),
    ("h_0", ZEROS((1, 64), "f4"), ValueError, r"h_0: expected \(3, 64\), got \(1, 64\)"),
    ("c_0", ZEROS((3, 63), "f4"), ValueError, r"c_0: expected \(3, 64\), got \(3, 63\)"),
    ("lengths", [1, 2], ValueError, r"lengths: expected \(3,\), got \(2,\)"),
    ("lengths", [1, 2, 6], ValueError, r"lengths: expected .*\[0, 5\], got 1\.\.6"),
    ("lengths", [1, -1, 2], ValueError, r"lengths: expected .*\[0, 5\], got -1\.\.2"),
    ("lengths", [1.0, 2.0, 3.0], TypeError, "lengths: expected integers, got float64"),
    ("x", ZEROS((5, 3, 7), int), TypeError, "x: expected float32 or float64, got int64"),
    ("x", ZEROS((5, 3, 7), "f2"), TypeError, "x: expected float32 or float64, got float16"),
    ("x", ZEROS((5, 3, 7), complex), TypeError, "x: expected float32 or float64, got complex128"),
    ("x", ZEROS((5, 3, 7), object), TypeError, "x: expected float32 or float64, got object"),
    ("x", ZEROS((5, 3, 7)), TypeError, "w_ih: expected float64.*, got float32"),
    ("w_ih", ZEROS((256, 7)), TypeError, "w_ih: expected float32.*, got float64"),
    ("w_hh", ZEROS((256, 64)), TypeError, "w_hh: expected float32.*, got float64"),
    ("b", ZEROS(256), TypeError, "b: expected float32.*, got float64"),
    ("h_0", ZEROS((3, 64)), TypeError, "h_0: expected float32.*, got float64"),
    ("c_0", ZEROS((3, 64), int), TypeError, "c_0: expected float32.*, got int64"),
]
WRONG_UPSTREAM = [
    ("dy", ZEROS((4, 3, 64), "f4"), ValueError, r"dy: expected \(5, 3, 64\), got \(4, 3, 64\)"),
    ("dh_n", ZEROS((3, 1), "f4"), ValueError, r"dh_n: expected \(3, 64\), got \(3, 1\)"),
    ("dc_n", ZEROS((1, 3, 64), "f4"), ValueError, r"dc_n: expected \(3, 64\), got \(1, 3, 64\)"),
    ("dy", ZEROS((5, 3, 64)), TypeError, "dy: expected float32.*, got float64"),
]


@pytest.mark.parametrize("module", [fastlstm, reference], ids=["fastlstm", "reference"])
@cases(WRONG_ARGUMENTS)
def test_wrong_arguments_raise_and_are_named(module, name, value, error, message):
    with pytest.raises(error, match=f"^{message}"):
        module.lstm_forward(**base() | {name: value})


@pytest.mark.parametrize("module", [fastlstm, reference], ids=["fastlstm", "reference"])
@cases(WRONG_UPSTREAM)
def test_wrong_output_gradients_raise_and_are_named(module, name, value, error, message):
    tape = module.lstm_forward(**base(), training=True).tape
    with pytest.raises(error, match=f"^{message}"):
        module.lstm_backward(tape, **{name: value})


@each_kind
def test_a_backward_call_wants_a_tape_of_its_own_cell(rng, cell):
    other = CELLS["gru" if cell.kind == "lstm" else "lstm"]
    arguments, _ = other.arguments(rng, 2, 2, 2, 2)
    run = getattr(fastlstm, f"{other.kind}_forward")
    of_reference = getattr(reference, f"{cell.kind}_forward")
    given, _ = cell.arguments(rng, 2, 2, 2, 2)
    wrong = run(**arguments, training=True).tape, of_reference(**given, training=True).tape
    for tape in (*wrong, None, "tape", ()):
        with pytest.raises(
            TypeError, match=f"^tape: expected the tape of {cell.kind}_forward, got"
        ):
            getattr(fastlstm, f"{cell.kind}_backward")(tape)
    assert run(**arguments).tape is None


@each_kind
def test_clip_is_for_inference(cell):
    arguments, _ = cell.arguments(np.random.default_rng(0), 2, 2, 2, 2)
    with pytest.raises(ValueError, match=r"^clip: expected None"):
        getattr(fastlstm, f"{cell.kind}_forward")(**arguments, clip=0.5, training=True)


# --- tapes ----------------------------------------------------------------------------------------


@each_kind
def test_a_tape_may_be_used_twice(dtype, rng, cell):
    arguments, upstream = case(rng, 5, 3, 7, 20, dtype, cell)
    tape = getattr(fastlstm, f"{cell.kind}_forward")(**arguments, training=True).tape
    backward = getattr(fastlstm, f"{cell.kind}_backward")
    first = backward(tape, **upstream)
    backward(tape, upstream["dy"])
    assert_same_bits(backward(tape, **upstream), first)


def test_a_tape_outlives_a_change_of_the_instruction_set(isa, dtype, rng):
    arguments, upstream = case(rng, 5, 3, 7, 20, dtype)
    tape = fastlstm.lstm_forward(**arguments, training=True).tape
    desired = fastlstm.lstm_backward(tape, **upstream)
    for other in runtime.available_isas():
        with forced_isa(other):
            assert_close(fastlstm.lstm_backward(tape, **upstream), desired)


# --- layouts --------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(9, 13, 5, 7), (4, 33, 32, 32), (5, 1, 64, 300)], ids=str)
def test_layout_and_alignment_do_not_change_a_bit(isa, dtype, rng, shape):
    arguments, _ = case(rng, *shape, dtype)
    plain = forward(arguments)
    for layout in LAYOUTS.values():
        assert_same_bits(forward({name: layout(a) for name, a in arguments.items()}), plain)
    for offset in (1, 3, 7):  # elements past an address of any alignment

        def shifted(a, offset=offset):
            return np.concatenate([np.zeros(offset, dtype), a.ravel()])[offset:].reshape(a.shape)

        assert_same_bits(forward({name: shifted(a) for name, a in arguments.items()}), plain)


# --- threads and processes ------------------------------------------------------------------------


def test_several_python_threads_get_the_same_bits(dtype, rng):
    shapes = [(9, 13, 5, 7), (4, 33, 32, 32), (12, 40, 32, 64)] * 4
    jobs = [case(rng, *shape, dtype) for shape in shapes]
    desired = [both(*job) for job in jobs]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(3):
            results = pool.map(lambda job: both(*job), jobs)
            for result, expected in zip(results, desired, strict=True):
                assert_same_bits(result, expected)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_child_computes_the_same_bits(dtype, rng):
    arguments, upstream = case(rng, 12, 40, 32, 64, dtype)
    with forced_threads(2):
        desired = both(arguments, upstream)  # the parent's threads are running now
        with warnings.catch_warnings():
            # fork with threads: that is the point
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if child == 0:
            code = 1
            try:
                signal.alarm(60)  # a child that hangs is ended, and the test fails
                assert_same_bits(both(arguments, upstream), desired)
                code = 0
            finally:
                sys.stderr.flush()
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert_same_bits(both(arguments, upstream), desired)
