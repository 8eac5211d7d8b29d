"""Every cell on every instruction set: against the reference, central differences, and itself."""

import functools
import itertools

import numpy as np
import pytest
from cells import CELLS, PLAIN, each_cell, each_kind, each_of, part_of
from helpers import (
    FINITE_DIFFERENCES,
    LAYOUTS,
    SUMS_BEFORE_KINKS,
    SUMS_REORDERED,
    assert_close,
    assert_same_bits,
    forced_threads,
    normal,
    slope,
    some_lengths,
    some_resets,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fastlstm
from fastlstm import reference

ragged = pytest.mark.parametrize("ragged", [False, True], ids=["full", "ragged"])
resets = pytest.mark.parametrize("resets", [False, True], ids=["", "resets"])
reverse = pytest.mark.parametrize("reverse", [False, True], ids=["", "reverse"])

# T, B, I, H below, at, above and between the widths of vectors and tiles; each of ragged, reverse,
# bias, state and resets with and without each of the others somewhere
CALLS = [
    ((1, 1, 1, 1), "bias state"),
    ((7, 1, 32, 32), "ragged reverse bias state"),
    ((6, 5, 3, 9), "reverse bias"),
    ((6, 5, 3, 9), "ragged state"),
    ((4, 13, 17, 33), "ragged bias state"),
    ((3, 9, 70, 95), "reverse state"),
    ((5, 1, 7, 40), "reverse resets bias state"),
    ((6, 13, 17, 33), "resets bias state"),
    ((6, 5, 3, 9), "ragged reverse resets state"),
    ((3, 256, 5, 20), "resets bias state"),  # four groups of rows
    ((2, 512, 5, 20), "bias state"),  # eight groups of rows with weight gradients of their own
]
calls = pytest.mark.parametrize(("shape", "given"), CALLS, ids=str)


def check_against_reference(cell, arguments, options, upstream, desired=None):
    if desired is None:
        desired = cell.both(reference, arguments, options, upstream)
    tolerance = SUMS_BEFORE_KINKS if cell.variants else SUMS_REORDERED
    assert_close(cell.both(fastlstm, arguments, options, upstream), desired, tolerance)
    assert_close(cell.forward(fastlstm, arguments, options), desired[0], tolerance)


@functools.cache  # all instruction sets ask for the same
def solved(cell, shape, dtype, given):
    """Return arguments, options and upstream of a call, and what the reference makes of them."""
    rng = np.random.default_rng(20260101)
    T, B, _, H = shape
    with_ = {name: name in given.split() for name in ("bias", "state")}
    arguments, options = cell.arguments(rng, *shape, dtype, **with_)
    options["lengths"] = some_lengths(rng, T, B) if "ragged" in given else None
    options["resets"] = some_resets(rng, T, B) if "resets" in given else None
    options["reverse"] = "reverse" in given
    call = arguments, options, cell.upstream(rng, T, B, H, dtype)
    return *call, cell.both(reference, *call)


@each_cell
@calls
def test_outputs_and_gradients_equal_the_reference(isa, dtype, cell, shape, given):
    check_against_reference(cell, *solved(cell, shape, dtype, given))


@each_of(["lstm", "lstm everything", "gru", "gru reset before", "rnn"])
@pytest.mark.parametrize(
    "given",
    [
        "bias state",
        "reverse",
        "ragged bias",
        "ragged reverse state",
        "resets bias state",
        "ragged reverse resets",
    ],
)
def test_several_chunks_of_steps_equal_the_reference(isa, dtype, cell, given):
    shape = (13, 11, 7, 130)  # 2 to 3 chunks forward and backward, but for the RNN
    check_against_reference(cell, *solved(cell, shape, dtype, given))


@pytest.mark.parametrize(
    ("cell", "given"),
    [(cell, name) for cell in PLAIN.values() for name in ("dy", *cell.final_gradients)],
    ids=lambda value: value if isinstance(value, str) else value.kind,
)
@reverse
def test_a_gradient_that_is_not_given_is_zero(isa, dtype, rng, cell, given, reverse):
    T, B, I, H = 6, 5, 7, 19
    arguments, options = cell.arguments(rng, T, B, I, H, dtype)
    options |= {"lengths": some_lengths(rng, T, B), "reverse": reverse}
    upstream = {given: cell.upstream(rng, T, B, H, dtype)[given]}
    check_against_reference(cell, arguments, options, upstream)


@each_cell
@ragged
@reverse
@resets
def test_gradients_equal_central_differences(isa, rng, cell, ragged, reverse, resets):
    T, B, I, H = 4, 3, 2, 5
    arguments, options = cell.arguments(rng, T, B, I, H)
    options |= {"lengths": some_lengths(rng, T, B) if ragged else None, "reverse": reverse}
    options["resets"] = some_resets(rng, T, B) if resets else None
    upstream = cell.upstream(rng, T, B, H)

    def loss():
        outputs = cell.forward(fastlstm, arguments, options)
        return sum(np.vdot(d, out) for d, out in zip(upstream.values(), outputs, strict=True))

    _, gradients = cell.both(fastlstm, arguments, options, upstream)
    for name, array in arguments.items():
        direction = normal(rng, array.shape)
        actual = np.vdot(getattr(gradients, name), direction)
        assert_close(actual, slope(loss, [array], [direction]), FINITE_DIFFERENCES)


@settings(
    max_examples=6,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
@each_cell
def test_any_small_shape_and_layout_equals_the_reference(isa, cell, data):
    T, B, I, H = (
        data.draw(st.integers(low, high), label=size)
        for low, high, size in ((0, 5, "T"), (0, 20, "B"), (1, 20, "I"), (1, 40, "H"))
    )
    rng = np.random.default_rng(data.draw(st.integers(0, 99), label="seed"))
    dtype = np.dtype(data.draw(st.sampled_from([np.float32, np.float64]), label="dtype"))
    with_ = {name: data.draw(st.booleans(), label=name) for name in ("bias", "state")}
    arguments, options = cell.arguments(rng, T, B, I, H, dtype, **with_)
    upstream = cell.upstream(rng, T, B, H, dtype)
    layouts = st.sampled_from(["plain", *LAYOUTS])
    for group in (arguments, options, upstream):
        for key, value in group.items():
            if isinstance(value, np.ndarray):
                group[key] = LAYOUTS.get(data.draw(layouts, label=key), np.copy)(value)
    lengths = st.none() | st.lists(st.integers(0, T), min_size=B, max_size=B)
    options |= {"lengths": data.draw(lengths), "reverse": data.draw(st.booleans())}
    if data.draw(st.booleans(), label="resets"):
        fortran = data.draw(st.booleans(), label="fortran")
        options["resets"] = np.asarray(some_resets(rng, T, B), order="F" if fortran else "C")
    check_against_reference(cell, arguments, options, upstream)


@each_kind
def test_clip_bounds_the_input_of_each_activation(isa, dtype, rng, cell):
    arguments, options = cell.arguments(rng, 4, 3, 5, 18, dtype)
    options["clip"] = 0.5
    actual = cell.forward(fastlstm, arguments, options)
    assert_close(actual, cell.forward(reference, arguments, options))
    assert np.abs(actual[0] - cell.forward(fastlstm, arguments, {})[0]).max() > 0.1


@pytest.mark.parametrize(("T", "B", "I"), [(0, 3, 2), (4, 0, 2), (0, 0, 2), (4, 3, 0)])
@each_kind
@ragged
def test_empty_input_gives_empty_output_and_the_initial_state(
    isa, dtype, rng, cell, T, B, I, ragged
):
    arguments, options = cell.arguments(rng, T, B, I, 3, dtype)
    options |= {"lengths": np.zeros(B, int), "reverse": True} if ragged else {}
    upstream = cell.upstream(rng, T, B, 3, dtype)
    check_against_reference(cell, arguments, options, upstream)
    if T == 0 or ragged:
        final = cell.forward(fastlstm, arguments, options)[1:]
        assert_same_bits(final, tuple(arguments[name] for name in cell.states))


# --- bitwise promises -----------------------------------------------------------------------------

# every cell, and the plain LSTM where tiles, shares of threads and groups of rows end otherwise:
# units split unevenly, an input product that BLAS would split, one wide row, a batch worth several
# threads, eight groups
BITWISE = [(name, (5, 14, 9, 37)) for name in CELLS]
BITWISE += [
    ("lstm", shape)
    for shape in (
        (4, 33, 32, 32),
        (3, 8, 64, 100),
        (3, 7, 600, 24),
        (5, 1, 64, 300),
        (12, 40, 96, 128),
        (3, 512, 16, 24),
    )
]
bitwise = pytest.mark.parametrize(
    ("cell", "shape"),
    [(CELLS[name], shape) for name, shape in BITWISE],
    ids=[f"{name} {shape}" for name, shape in BITWISE],
)


@bitwise
def test_a_row_has_the_same_bits_alone_and_in_any_batch(isa, dtype, rng, cell, shape):
    B = shape[1]
    arguments, options = cell.arguments(rng, *shape, dtype)
    whole = cell.forward(fastlstm, arguments, options)
    for size in {1, 2, 3, 5, B - 1, B} & set(range(1, B + 1)):
        rows = rng.choice(B, size, replace=False)
        part = cell.forward(fastlstm, part_of(arguments, rows), part_of(options, rows))
        assert_same_bits(part, tuple(out[..., rows, :] for out in whole))


@bitwise
@reverse
def test_chunks_with_carried_state_have_the_bits_of_one_call(isa, dtype, rng, cell, shape, reverse):
    T = shape[0]
    arguments, options = cell.arguments(rng, *shape, dtype)
    options["reverse"] = reverse
    y, *state = cell.forward(fastlstm, arguments, options)
    chunks = list(itertools.pairwise(sorted({0, 1, T // 2, T})))
    carried = [arguments[name] for name in cell.states]
    for start, stop in reversed(chunks) if reverse else chunks:
        steps = slice(start, stop)
        part = part_of(arguments, steps=steps) | dict(zip(cell.states, carried, strict=True))
        y_part, *carried = cell.forward(fastlstm, part, part_of(options, steps=steps))
        assert_same_bits(y_part, y[steps])
    assert_same_bits(tuple(carried), tuple(state))


@bitwise
@reverse
def test_a_padded_row_has_the_bits_of_the_row_without_padding(
    isa, dtype, rng, cell, shape, reverse
):
    T, B = shape[:2]
    arguments, options = cell.arguments(rng, *shape, dtype)
    options["reverse"] = reverse
    lengths = some_lengths(rng, T, B)
    padded = cell.forward(fastlstm, arguments, options | {"lengths": lengths})
    for row in {0, 1 % B, B // 2, B - 1}:
        some = {"rows": [row], "steps": slice(lengths[row])}
        y, *state = cell.forward(fastlstm, part_of(arguments, **some), part_of(options, **some))
        assert_same_bits(y[:, 0], padded[0][: lengths[row], row])
        assert_same_bits(tuple(s[0] for s in state), tuple(s[row] for s in padded[1:]))
    full = cell.forward(fastlstm, arguments, options | {"lengths": np.full(B, T)})
    assert_same_bits(full, cell.forward(fastlstm, arguments, options))


@bitwise
def test_training_and_inference_give_the_same_bits(isa, dtype, rng, cell, shape):
    arguments, options = cell.arguments(rng, *shape, dtype)
    T, B = shape[:2]
    for lengths, begins in itertools.product(
        (None, some_lengths(rng, T, B)), (None, some_resets(rng, T, B))
    ):
        options |= {"lengths": lengths, "resets": begins}
        inference = cell.forward(fastlstm, arguments, options)
        assert_same_bits(cell.forward(fastlstm, arguments, options | {"training": True}), inference)


# large enough for three threads, which share units (B = 1) or rows
THREADED = [
    (name, shape, dtype, ragged)
    for name in CELLS
    for shape, dtype, ragged in (
        ((5, 1, 40, 150), np.float32, False),
        ((5, 14, 40, 150), np.float64, False),
        ((5, 14, 40, 150), np.float32, True),
    )
]
THREADED += [
    ("lstm", shape, dtype, ragged)
    for _, shape in BITWISE[len(CELLS) :]
    for dtype, ragged in itertools.product([np.float32, np.float64], [False, True])
]


@pytest.mark.parametrize(
    ("cell", "shape", "dtype", "ragged"),
    [(CELLS[name], *rest) for name, *rest in THREADED],
    ids=[f"{n} {shape} {np.dtype(d)}{' ragged' * r}" for n, shape, d, r in THREADED],
)
def test_runs_and_numbers_of_threads_have_the_same_bits(isa, rng, cell, shape, dtype, ragged):
    T, B, _, H = shape
    arguments, options = cell.arguments(rng, *shape, dtype)
    options["lengths"] = some_lengths(rng, T, B) if ragged else None
    upstream = cell.upstream(rng, T, B, H, dtype)
    for begins in (None, some_resets(rng, T, B)):
        options["resets"] = begins
        with forced_threads(1):
            one = cell.both(fastlstm, arguments, options, upstream)
        for number in (2, 3):
            with forced_threads(number):
                assert_same_bits(cell.both(fastlstm, arguments, options, upstream), one)


@each_cell
@reverse
def test_what_lies_past_a_rows_end_is_not_read(isa, dtype, rng, cell, reverse):
    T, B, H = 5, 4, 17
    arguments, options = cell.arguments(rng, T, B, 3, H, dtype)
    lengths = np.array([3, 0, 5, 1])
    options |= {"lengths": lengths, "reverse": reverse}
    upstream = cell.upstream(rng, T, B, H, dtype)
    clean = cell.both(fastlstm, arguments, options, upstream)
    past = np.arange(T)[:, None] >= lengths
    arguments["x"][past] = upstream["dy"][past] = np.nan
    poisoned = cell.both(fastlstm, arguments, options, upstream)
    assert_same_bits(poisoned, clean)
    assert not poisoned[0][0][past].any()
    assert not poisoned[1].x[past].any()


def test_the_table_holds_every_cell_of_the_array_functions():
    assert {cell.kind for cell in CELLS.values()} == set(PLAIN)
    functions = {name.removesuffix("_forward") for name in dir(fastlstm) if "_forward" in name}
    assert functions == set(PLAIN)
