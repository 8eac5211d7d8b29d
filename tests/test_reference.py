"""What holds for every cell of the NumPy reference: gradients, rows and their ends, dtypes, tapes.

Others' code to compare with is in test_reference_lstm and test_reference_gru_rnn.
"""

import warnings

import numpy as np
import pytest
from cells import PLAIN, each_cell, each_layer, each_of, part_of
from helpers import (
    FINITE_DIFFERENCES,
    NORMALISED,
    SUMS_REORDERED,
    assert_close,
    assert_same_bits,
    normal,
    slope,
    some_lengths,
)

from fastlstm import reference

T, B, I, H = 5, 4, 3, 2
ragged = pytest.mark.parametrize("ragged", [False, True], ids=["full", "ragged"])
reverse = pytest.mark.parametrize("reverse", [False, True], ids=["", "reverse"])


def run(cell, arguments, options):
    """Return y, the last states, and the tape or None."""
    return getattr(reference, f"{cell.kind}_forward")(**arguments, **options)


def backward(cell, tape, **upstream):
    return getattr(reference, f"{cell.kind}_backward")(tape, **upstream)


# --- gradients ------------------------------------------------------------------------------------


@each_cell
@ragged
@reverse
def test_gradients_equal_central_differences(rng, cell, ragged, reverse):
    arguments, options = cell.arguments(rng, T, B, I, H)
    options |= {"lengths": some_lengths(rng, T, B) if ragged else None, "reverse": reverse}
    upstream = cell.upstream(rng, T, B, H)

    def loss():
        outputs = run(cell, arguments, options)[:-1]
        return sum(np.vdot(d, out) for d, out in zip(upstream.values(), outputs, strict=True))

    gradients = cell.both(reference, arguments, options, upstream)[1]._asdict()
    for name, array in arguments.items():
        direction = normal(rng, array.shape)
        # a small step, because the normalisation of a small z is strongly curved
        expected = slope(loss, [array], [direction], 1e-6)
        assert_close(np.vdot(gradients.pop(name), direction), expected, FINITE_DIFFERENCES)
    assert set(gradients.values()) <= {None}


@pytest.mark.parametrize(
    ("cell", "given"),
    [(cell, name) for cell in PLAIN.values() for name in ("dy", *cell.final_gradients)],
    ids=lambda value: value if isinstance(value, str) else value.kind,
)
def test_gradients_are_linear_in_what_is_given(rng, cell, given):
    upstream = cell.upstream(rng, T, B, H)
    tape = run(cell, cell.arguments(rng, T, B, I, H)[0], {"training": True}).tape
    alone = backward(cell, tape, **{given: upstream[given]})
    zeros = {name: np.zeros_like(array) for name, array in upstream.items()}
    assert_close(alone, backward(cell, tape, **zeros | {given: upstream[given]}))


@each_layer
def test_only_what_is_given_has_a_gradient(rng, cell):
    arguments, options = cell.arguments(rng, T, B, I, H, bias=False, state=False)
    tape = run(cell, arguments, options | {"training": True}).tape
    gradients = backward(cell, tape, dy=cell.upstream(rng, T, B, H)["dy"])._asdict()
    assert {name for name, gradient in gradients.items() if gradient is not None} == {*arguments}


@each_cell
def test_float32_stays_float32_and_close_to_float64(rng, cell):
    arguments, options = cell.arguments(rng, T, B, I, H, np.float32)
    call = arguments, options, cell.upstream(rng, T, B, H, np.float32)

    def wide(given):
        return {k: a.astype(float) if isinstance(a, np.ndarray) else a for k, a in given.items()}

    actual, desired = cell.both(reference, *call), cell.both(reference, *map(wide, call))
    narrow = [tuple(None if a is None else a.astype(np.float32) for a in part) for part in desired]
    tolerance = NORMALISED if "layer norm" in cell.variants else SUMS_REORDERED
    assert_close(actual, tuple(narrow), tolerance)


# --- rows -----------------------------------------------------------------------------------------


@each_layer
def test_reverse_equals_flipping_each_row_within_its_length(rng, dtype, cell):
    arguments, options = cell.arguments(rng, T, B, I, H, dtype)
    lengths = np.array([3, 0, 5, 1])
    options["lengths"] = lengths
    order = np.arange(T)[:, None]  # each row's own steps backwards, the rest in place
    order = np.where(order < lengths, lengths - 1 - order, order)
    flipped = {"x": np.take_along_axis(arguments["x"], order[:, :, None], axis=0)}

    y, *states, _ = run(cell, arguments, options | {"reverse": True})
    y_flipped, *states_flipped, _ = run(cell, arguments | flipped, options)
    desired = np.take_along_axis(y_flipped, order[:, :, None], axis=0)
    assert_close((y, *states), (desired, *states_flipped))
    np.testing.assert_array_equal(states[0][lengths > 0], y[0, lengths > 0])


@each_cell
def test_rows_end_at_their_length(rng, cell):
    arguments, options = cell.arguments(rng, T, B, I, H)
    lengths = np.array([3, 0, 5, 1])
    past = np.arange(T)[:, None] >= lengths
    upstream = cell.upstream(rng, T, B, H)
    arguments["x"][past] = upstream["dy"][past] = np.nan  # must not be read
    (y, *states), gradients = cell.both(
        reference, arguments, options | {"lengths": lengths}, upstream
    )
    assert all(np.isfinite(g).all() for g in gradients if g is not None)
    assert not gradients.x[past].any()
    assert not y[past].any()
    for row, length in enumerate(lengths):
        some = {"rows": [row], "steps": slice(length)}
        alone = cell.forward(reference, part_of(arguments, **some), part_of(options, **some))
        assert_close((y[:length, [row]], *(s[[row]] for s in states)), alone)


@pytest.mark.parametrize(("T", "B", "I"), [(0, 3, 2), (4, 0, 2), (0, 0, 2), (4, 3, 0)])
@each_cell
@ragged
def test_empty_input_gives_empty_output_and_the_initial_state(rng, cell, T, B, I, ragged):
    arguments, options = cell.arguments(rng, T, B, I, H, np.float32)
    options["lengths"] = np.zeros(B, int) if ragged else None
    upstream = cell.upstream(rng, T, B, H, np.float32)
    (y, *states), gradients = cell.both(reference, arguments, options, upstream)
    assert y.shape == (T, B, cell.output_size(H))
    if T == 0 or ragged:
        assert_same_bits(tuple(states), tuple(arguments[name] for name in cell.states))
    for name, array in arguments.items():
        assert getattr(gradients, name).shape == array.shape
        assert getattr(gradients, name).dtype == np.float32


@each_of(["lstm", "gru", "gru reset before", "rnn", "rnn relu"])
def test_zoneout_and_dropout_equal_single_steps(rng, cell, dtype):
    arguments, options = cell.arguments(rng, T, B, I, H, dtype)
    drawn = cell._replace(variants=("masks", "dropout")).masks(rng, T, B, H, dtype)
    states = [arguments[name] for name in cell.states]
    for t in range(T):
        step = arguments | dict(zip(cell.states, states, strict=True))
        # dropout is only at the recurrent product: its mask can go into the weights of a row alone
        rows = []
        for row in range(B):
            alone = part_of(step, [row], slice(t, t + 1))
            w_hh = arguments["w_hh"] * drawn["dropout_h"][row]
            rows.append(cell.forward(reference, alone | {"w_hh": w_hh}, options)[1:])
        new = [np.concatenate(parts) for parts in zip(*rows, strict=True)]
        for k, name in enumerate(["zoneout_h", "zoneout_c"][: len(new)]):
            states[k] = np.where(drawn[name][t] == 1, states[k], new[k])
    assert_close(run(cell, arguments, options | drawn)[1:-1], tuple(states))


# --- tapes and numbers ----------------------------------------------------------------------------


@each_of(["lstm", "lstm everything, masks", "gru", "rnn"])
def test_a_tape_may_be_used_twice_and_shares_no_memory_with_results(rng, cell):
    arguments, options = cell.arguments(rng, T, B, I, H)
    upstream = cell.upstream(rng, T, B, H)
    _, desired = cell.both(reference, arguments, options, upstream)
    *outputs, tape = run(cell, arguments, options | {"training": True})
    assert_same_bits(backward(cell, tape, **upstream), desired)
    for array in (*outputs, *(arguments[name] for name in cell.states)):
        array[...] = np.nan
    assert_same_bits(backward(cell, tape, **upstream), desired)


def test_large_inputs_saturate_without_warning(dtype):
    x = np.array([[[1e4]], [[-1e4]]], dtype)
    weights = np.ones((4, 1), dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        y = reference.lstm_forward(x, weights, weights).y
    assert_close(y, np.array([[[np.tanh(1)]], [[0]]], dtype))
