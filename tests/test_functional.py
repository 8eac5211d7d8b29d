"""`fastlstm.lstm_forward` and `lstm_backward` on every instruction set, against the reference."""

import itertools
import os
import signal
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from helpers import (
    LAYOUTS,
    assert_close,
    assert_same_bits,
    central_differences,
    forced_isa,
    forced_threads,
    lstm_arguments,
    output_gradients,
    some_lengths,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fastlstm
from fastlstm import reference
from fastlstm._core import runtime

# (T, B, I, H): below, at, above and between the widths of vectors and register tiles
SHAPES = [
    (1, 1, 1, 1),
    (7, 1, 32, 32),
    (6, 5, 3, 9),
    (4, 13, 17, 33),
    (5, 32, 64, 64),
    (3, 9, 70, 95),
    (2, 512, 9, 20),  # eight groups of rows, each with weight gradients of its own
]
UPSTREAM = [("dy",), ("dh_n",), ("dc_n",), ("dy", "dh_n", "dc_n")]
WEIGHTS = ("w_ih", "w_hh", "b")


def forward(arguments, **options):
    """Return y, h_n and c_n."""
    return fastlstm.lstm_forward(**arguments, **options)[:3]


def both(module, arguments, upstream, **options):
    """Return the outputs and the gradients by one implementation."""
    *outputs, tape = module.lstm_forward(**arguments, **options, training=True)
    return tuple(outputs), module.lstm_backward(tape, **upstream)


def rows_of(arguments, rows):
    """Return the same arguments for some rows of the batch."""
    part = {name: arguments[name][..., rows, :] for name in ("x", "h_0", "c_0")}
    return arguments | part


# --- values ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("ragged", [False, True], ids=["full", "ragged"])
@pytest.mark.parametrize("reverse", [False, True], ids=["", "reverse"])
@pytest.mark.parametrize("given", ["bias", "state", "bias and state", "neither"])
def test_outputs_and_gradients_equal_the_reference(isa, dtype, rng, shape, ragged, reverse, given):
    T, B, _, H = shape
    arguments = lstm_arguments(
        rng, *shape, dtype, bias=given.startswith("bias"), state=given.endswith("state")
    )
    options = {"lengths": some_lengths(rng, T, B) if ragged else None, "reverse": reverse}
    upstream = output_gradients(rng, T, B, H, dtype)
    desired = both(reference, arguments, upstream, **options)
    assert_close(both(fastlstm, arguments, upstream, **options), desired)
    assert_close(forward(arguments, **options), desired[0])  # without a tape


@pytest.mark.parametrize("given", UPSTREAM, ids="+".join)
@pytest.mark.parametrize("reverse", [False, True], ids=["", "reverse"])
def test_gradients_equal_the_reference_for_any_upstream(isa, dtype, rng, given, reverse):
    T, B, I, H = 6, 5, 7, 19
    arguments = lstm_arguments(rng, T, B, I, H, dtype)
    options = {"lengths": some_lengths(rng, T, B), "reverse": reverse}
    upstream = {name: output_gradients(rng, T, B, H, dtype)[name] for name in given}
    desired = both(reference, arguments, upstream, **options)
    assert_close(both(fastlstm, arguments, upstream, **options), desired)


@pytest.mark.parametrize("ragged", [False, True], ids=["full", "ragged"])
@pytest.mark.parametrize("reverse", [False, True], ids=["", "reverse"])
def test_gradients_equal_central_differences(isa, rng, ragged, reverse):
    T, B, I, H = 4, 3, 2, 3
    arguments = lstm_arguments(rng, T, B, I, H)
    options = {"lengths": some_lengths(rng, T, B) if ragged else None, "reverse": reverse}
    upstream = output_gradients(rng, T, B, H)

    def loss():
        outputs = forward(arguments, **options)
        return sum(np.vdot(d, out) for d, out in zip(upstream.values(), outputs, strict=True))

    _, gradients = both(fastlstm, arguments, upstream, **options)
    for name, array in arguments.items():
        assert_close(getattr(gradients, name), central_differences(loss, array), 1e-9)


@settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_any_small_shape_equals_the_reference(isa, dtype, data):
    shape = [data.draw(st.integers(0, 6), label="T")]
    shape += [
        data.draw(st.integers(low, 40), label=size) for low, size in ((0, "B"), (1, "I"), (1, "H"))
    ]
    T, B, _, H = shape
    rng = np.random.default_rng(data.draw(st.integers(0, 99), label="seed"))
    flags = {name: data.draw(st.booleans(), label=name) for name in ("bias", "state")}
    arguments = lstm_arguments(rng, *shape, dtype, **flags)
    upstream = output_gradients(rng, T, B, H, dtype)
    layouts = st.sampled_from(["plain", *LAYOUTS])
    for group in (arguments, upstream):
        for name, array in group.items():
            group[name] = LAYOUTS.get(data.draw(layouts, label=name), np.copy)(array)
    lengths = st.none() | st.lists(st.integers(0, T), min_size=B, max_size=B)
    options = {"lengths": data.draw(lengths, label="lengths"), "reverse": data.draw(st.booleans())}
    desired = both(reference, arguments, upstream, **options)
    assert_close(both(fastlstm, arguments, upstream, **options), desired)


def test_broadcast_arguments_are_read_as_their_copies(isa, dtype, rng):
    T, B, I, H = 5, 6, 4, 21
    arguments = lstm_arguments(rng, T, B, I, H, dtype)
    upstream = output_gradients(rng, T, B, H, dtype)
    for group in (arguments, upstream):  # zero strides along the first axis, and along all
        for name, array in group.items():
            part = array.flat[0] if name in ("c_0", "dc_n") else array[:1]
            group[name] = np.broadcast_to(part, array.shape)
    copies = [{name: a.copy() for name, a in group.items()} for group in (arguments, upstream)]
    assert_close(both(fastlstm, arguments, upstream), both(reference, *copies))


@pytest.mark.parametrize(
    "options", [{}, {"lengths": [4, 0, 2], "reverse": True}], ids=["full", "ragged"]
)
def test_arguments_stay_unchanged_and_results_are_new_arrays(isa, dtype, rng, options):
    T, B, I, H = 4, 3, 2, 16
    arguments = lstm_arguments(rng, T, B, I, H, dtype)
    upstream = output_gradients(rng, T, B, H, dtype)
    before = [{name: a.copy() for name, a in group.items()} for group in (arguments, upstream)]
    outputs, gradients = both(fastlstm, arguments, upstream, **options)
    assert_same_bits(({**arguments}, {**upstream}), tuple(before))
    results = [a for a in (*outputs, *gradients) if a is not None]
    for k, result in enumerate(results):
        assert result.flags.writeable
        others = [*arguments.values(), *upstream.values(), *results[:k]]
        assert not any(np.shares_memory(result, other) for other in others)


# --- NaN, Inf, nothing ----------------------------------------------------------------------------


def test_nan_reaches_only_its_own_row_and_only_later_steps(isa, dtype, rng):
    T, B, I, H = 6, 7, 5, 35
    arguments = lstm_arguments(rng, T, B, I, H, dtype)
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
    arguments = lstm_arguments(rng, 3, 2, 3, 18, dtype)
    arguments[name].flat[-1] = value
    assert_close(forward(arguments), reference.lstm_forward(**arguments)[:3])


@pytest.mark.parametrize("reverse", [False, True], ids=["", "reverse"])
def test_what_lies_past_a_rows_end_is_not_read(isa, dtype, rng, reverse):
    T, B, I, H = 5, 4, 3, 17
    lengths = np.array([3, 0, 5, 1])
    arguments = lstm_arguments(rng, T, B, I, H, dtype)
    upstream = output_gradients(rng, T, B, H, dtype)
    options = {"lengths": lengths, "reverse": reverse}
    clean = both(fastlstm, arguments, upstream, **options)
    past = np.arange(T)[:, None] >= lengths
    arguments["x"][past] = upstream["dy"][past] = np.nan
    poisoned = both(fastlstm, arguments, upstream, **options)
    assert_same_bits(poisoned, clean)
    assert not poisoned[0][0][past].any()
    assert not poisoned[1].x[past].any()


@pytest.mark.parametrize(("T", "B", "I"), [(0, 3, 2), (4, 0, 2), (0, 0, 2), (4, 3, 0)])
@pytest.mark.parametrize("options", [{}, {"lengths": 0, "reverse": True}], ids=["full", "ragged"])
def test_empty_input_gives_empty_output_and_the_initial_state(isa, dtype, rng, T, B, I, options):
    arguments = lstm_arguments(rng, T, B, I, 3, dtype)
    upstream = output_gradients(rng, T, B, 3, dtype)
    if "lengths" in options:
        options = options | {"lengths": np.zeros(B, int)}
    actual = both(fastlstm, arguments, upstream, **options)
    assert_close(actual, both(reference, arguments, upstream, **options))
    if T == 0 or options:
        assert_same_bits(actual[0][1:], (arguments["h_0"], arguments["c_0"]))


# --- errors ---------------------------------------------------------------------------------------


def base(dtype=np.float32):
    return lstm_arguments(np.random.default_rng(0), 5, 3, 7, 64, dtype)


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
@pytest.mark.parametrize(
    ("name", "value", "error", "message"),
    WRONG_ARGUMENTS,
    ids=[case[0] for case in WRONG_ARGUMENTS],
)
def test_wrong_arguments_raise_and_are_named(module, name, value, error, message):
    with pytest.raises(error, match=f"^{message}"):
        module.lstm_forward(**base() | {name: value})


@pytest.mark.parametrize("module", [fastlstm, reference], ids=["fastlstm", "reference"])
@cases(WRONG_UPSTREAM)
def test_wrong_output_gradients_raise_and_are_named(module, name, value, error, message):
    tape = module.lstm_forward(**base(), training=True).tape
    with pytest.raises(error, match=f"^{message}"):
        module.lstm_backward(tape, **{name: value})


def test_a_tape_of_another_kind_raises_type_error():
    for tape in (None, 1, (), reference.lstm_forward(**base(), training=True).tape):
        with pytest.raises(TypeError, match=r"^tape: "):
            fastlstm.lstm_backward(tape)
    assert fastlstm.lstm_forward(**base()).tape is None


def test_a_tape_may_be_used_twice(isa, dtype, rng):
    arguments = lstm_arguments(rng, 5, 3, 7, 20, dtype)
    tape = fastlstm.lstm_forward(**arguments, training=True).tape
    upstream = output_gradients(rng, 5, 3, 20, dtype)
    first = fastlstm.lstm_backward(tape, **upstream)
    fastlstm.lstm_backward(tape, upstream["dy"])
    assert_same_bits(fastlstm.lstm_backward(tape, **upstream), first)


def test_a_tape_outlives_a_change_of_the_instruction_set(isa, dtype, rng):
    arguments = lstm_arguments(rng, 5, 3, 7, 20, dtype)
    upstream = output_gradients(rng, 5, 3, 20, dtype)
    tape = fastlstm.lstm_forward(**arguments, training=True).tape
    desired = fastlstm.lstm_backward(tape, **upstream)
    for other in runtime.available_isas():
        with forced_isa(other):
            assert_close(fastlstm.lstm_backward(tape, **upstream), desired)


# --- bitwise promises -----------------------------------------------------------------------------

# after the first two: units split unevenly; an input product that BLAS would split; one wide row;
# a batch worth several threads; one in eight groups
BITWISE_SHAPES = [
    (9, 13, 5, 7),
    (4, 33, 32, 32),
    (3, 8, 64, 100),
    (3, 7, 600, 24),
    (5, 1, 64, 300),
    (12, 40, 96, 128),
    (3, 512, 16, 24),
]
bitwise_shapes = pytest.mark.parametrize("shape", BITWISE_SHAPES, ids=str)


@bitwise_shapes
@pytest.mark.parametrize("training", [False, True], ids=["", "training"])
def test_a_row_has_the_same_bits_alone_and_in_any_batch(isa, dtype, rng, shape, training):
    B = shape[1]
    arguments = lstm_arguments(rng, *shape, dtype)
    full = forward(arguments)
    for size in {1, 2, 3, 5, B - 1, B} & set(range(1, B + 1)):
        rows = rng.choice(B, size, replace=False)
        part = forward(rows_of(arguments, rows), training=training)
        assert_same_bits(part, tuple(out[..., rows, :] for out in full))


@bitwise_shapes
@pytest.mark.parametrize("reverse", [False, True], ids=["", "reverse"])
def test_chunks_with_carried_state_have_the_bits_of_one_call(isa, dtype, rng, shape, reverse):
    T = shape[0]
    arguments = lstm_arguments(rng, *shape, dtype)
    y, *state = forward(arguments, reverse=reverse)
    chunks = list(itertools.pairwise(sorted({0, 1, T // 2, T})))
    carried = [arguments["h_0"], arguments["c_0"]]
    for start, stop in reversed(chunks) if reverse else chunks:
        part = dict(zip(("h_0", "c_0"), carried, strict=True)) | {"x": arguments["x"][start:stop]}
        y_part, *carried = forward(arguments | part, reverse=reverse)
        assert_same_bits(y_part, y[start:stop])
    assert_same_bits(tuple(carried), tuple(state))


@bitwise_shapes
@pytest.mark.parametrize("reverse", [False, True], ids=["", "reverse"])
def test_a_padded_row_has_the_bits_of_the_row_without_padding(isa, dtype, rng, shape, reverse):
    T, B = shape[:2]
    arguments = lstm_arguments(rng, *shape, dtype)
    lengths = some_lengths(rng, T, B)
    ragged = forward(arguments, lengths=lengths, reverse=reverse)
    for row, length in enumerate(lengths):
        alone = rows_of(arguments, [row])
        alone["x"] = alone["x"][:length]
        y, h_n, c_n = forward(alone, reverse=reverse)
        assert_same_bits(
            (y[:, 0], h_n[0], c_n[0]), (ragged[0][:length, row], *(s[row] for s in ragged[1:]))
        )
    full = forward(arguments, reverse=reverse)
    assert_same_bits(forward(arguments, lengths=np.full(B, T), reverse=reverse), full)


@bitwise_shapes
def test_layout_and_alignment_do_not_change_a_bit(isa, dtype, rng, shape):
    arguments = lstm_arguments(rng, *shape, dtype)
    plain = forward(arguments)
    for layout in LAYOUTS.values():
        assert_same_bits(forward({name: layout(a) for name, a in arguments.items()}), plain)
    for offset in (1, 3, 7):  # elements past an address of any alignment

        def shifted(a, offset=offset):
            return np.concatenate([np.zeros(offset, dtype), a.ravel()])[offset:].reshape(a.shape)

        assert_same_bits(forward({name: shifted(a) for name, a in arguments.items()}), plain)


@bitwise_shapes
@pytest.mark.parametrize("ragged", [False, True], ids=["full", "ragged"])
def test_runs_and_numbers_of_threads_have_the_same_bits(isa, dtype, rng, shape, ragged):
    T, B, _, H = shape
    arguments = lstm_arguments(rng, *shape, dtype)
    upstream = output_gradients(rng, T, B, H, dtype)
    options = {"lengths": some_lengths(rng, T, B) if ragged else None}
    with forced_threads(1):
        one = both(fastlstm, arguments, upstream, **options)
    for number in (2, 2, 3):
        with forced_threads(number):
            assert_same_bits(both(fastlstm, arguments, upstream, **options), one)


# --- threads and processes ------------------------------------------------------------------------


def test_several_python_threads_get_the_same_bits(isa, dtype, rng):
    jobs = []
    for shape in [(9, 13, 5, 7), (4, 33, 32, 32), (12, 40, 32, 64)] * 4:
        T, B, _, H = shape
        jobs.append((lstm_arguments(rng, *shape, dtype), output_gradients(rng, T, B, H, dtype)))
    desired = [both(fastlstm, *job) for job in jobs]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(3):
            results = pool.map(lambda job: both(fastlstm, *job), jobs)
            for result, expected in zip(results, desired, strict=True):
                assert_same_bits(result, expected)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_child_computes_the_same_bits(isa, dtype, rng):
    arguments = lstm_arguments(rng, 12, 40, 32, 64, dtype)
    upstream = output_gradients(rng, 12, 40, 64, dtype)
    with forced_threads(2):
        desired = both(fastlstm, arguments, upstream)  # the parent's threads are running now
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", DeprecationWarning
            )  # fork with threads: that is the point
            child = os.fork()
        if child == 0:
            code = 1
            try:
                signal.alarm(60)  # a child that hangs is ended, and the test fails
                assert_same_bits(both(fastlstm, arguments, upstream), desired)
                code = 0
            finally:
                sys.stderr.flush()
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert_same_bits(both(fastlstm, arguments, upstream), desired)
