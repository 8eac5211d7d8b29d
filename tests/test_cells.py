"""Every cell but the plain LSTM (see test_functional), on every instruction set: the variants of
the LSTM, the GRU and the plain RNN, against the reference and central differences.
"""

import numpy as np
import pytest
from helpers import (
    LAYOUTS,
    LSTM_VARIANTS,
    assert_close,
    assert_same_bits,
    central_differences,
    forced_threads,
    gru_arguments,
    lstm_variant,
    normal,
    rnn_arguments,
    some_lengths,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fastlstm
from fastlstm import reference

ALL = [name for name in LSTM_VARIANTS if name not in ("zoneout rates", "coupled")]
MASKED_GRU = ("zoneout masks", "dropout_h", "activations")

# name: cell, and what makes its arguments and options for sizes T, B, I, H and a dtype
CELLS = {name: ("lstm", (name,)) for name in LSTM_VARIANTS}
CELLS["all but coupled"] = ("lstm", tuple(ALL))
CELLS["all, coupled"] = ("lstm", (*ALL, "coupled"))
CELLS["gru"] = ("gru", ())
CELLS["gru, masks"] = ("gru", MASKED_GRU)
CELLS["gru reset before"] = ("gru", ("reset before",))
CELLS["gru reset before, masks"] = ("gru", ("reset before", *MASKED_GRU))
CELLS["rnn"] = ("rnn", ())
CELLS["rnn relu, masks"] = ("rnn", ("relu", *MASKED_GRU[:2]))

cells = pytest.mark.parametrize("name", CELLS)
ragged = pytest.mark.parametrize("ragged", [False, True], ids=["full", "ragged"])
reverse = pytest.mark.parametrize("reverse", [False, True], ids=["", "reverse"])

# below, at, above and between the widths of vectors and tiles; groups of rows
SHAPES = [
    (1, 1, 1, 1),
    (7, 1, 32, 32),
    (6, 5, 3, 9),
    (4, 13, 17, 33),
    (3, 9, 70, 95),
    (2, 64, 5, 20),
]


def make(name, rng, T, B, I, H, dtype=np.float64):
    """Return the arrays that have gradients, and the options."""
    cell, names = CELLS[name]
    if cell == "lstm":
        return lstm_variant(rng, T, B, I, H, names, dtype)
    options = {}
    if "zoneout masks" in names:
        options["zoneout_h"] = rng.integers(0, 2, (T, B, H)).astype(dtype)
    if "dropout_h" in names:
        options["dropout_h"] = 2 * rng.integers(0, 2, (B, H)).astype(dtype)
    if cell == "rnn":
        if "relu" in names:
            options["nonlinearity"] = "relu"
        return rnn_arguments(rng, T, B, I, H, dtype), options
    if "activations" in names:
        options["activations"] = (("hard_sigmoid", 0.3), "softsign")
    reset_after = "reset before" not in names
    arguments = gru_arguments(rng, T, B, I, H, dtype, reset_after=reset_after)
    return arguments, options | {"reset_after": reset_after}


def forward(module, name, arguments, **options):
    """Return all that is not the tape."""
    return getattr(module, f"{CELLS[name][0]}_forward")(**arguments, **options)


def upstream_of(rng, outputs):
    """Return random gradients of y, h_n and perhaps c_n."""
    return [normal(rng, a.shape, a.dtype) for a in outputs]


def both(module, name, arguments, upstream, **options):
    *outputs, tape = forward(module, name, arguments, **options, training=True)
    return tuple(outputs), getattr(module, f"{CELLS[name][0]}_backward")(tape, *upstream)


def check_against_reference(name, rng, arguments, options, dtype):
    upstream = upstream_of(rng, forward(fastlstm, name, arguments, **options)[:-1])
    desired = both(reference, name, arguments, upstream, **options)
    # relu and clips have kinks, at which the last bit of a sum decides
    tolerance = {np.dtype(np.float32): 1e-4}.get(dtype)
    assert_close(both(fastlstm, name, arguments, upstream, **options), desired, tolerance)
    assert_close(forward(fastlstm, name, arguments, **options)[:-1], desired[0], tolerance)


@cells
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@ragged
@reverse
def test_outputs_and_gradients_equal_the_reference(isa, dtype, rng, name, shape, ragged, reverse):
    arguments, options = make(name, rng, *shape, dtype)
    options |= {"lengths": some_lengths(rng, *shape[:2]) if ragged else None, "reverse": reverse}
    check_against_reference(name, rng, arguments, options, dtype)


@cells
@ragged
@reverse
def test_gradients_equal_central_differences(isa, rng, name, ragged, reverse):
    T, B = 4, 3
    arguments, options = make(name, rng, T, B, 2, 5)
    options |= {"lengths": some_lengths(rng, T, B) if ragged else None, "reverse": reverse}
    upstream = upstream_of(rng, forward(fastlstm, name, arguments, **options)[:-1])

    def loss():
        outputs = forward(fastlstm, name, arguments, **options)[:-1]
        return sum(np.vdot(d, out) for d, out in zip(upstream, outputs, strict=True))

    _, gradients = both(fastlstm, name, arguments, upstream, **options)
    for key, array in arguments.items():
        assert_close(getattr(gradients, key), central_differences(loss, array), 1e-8)


@settings(
    max_examples=15,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
@cells
def test_any_small_shape_and_layout_equals_the_reference(isa, name, data):
    T, B, I, H = (
        data.draw(st.integers(low, high), label=size)
        for low, high, size in ((0, 5, "T"), (0, 20, "B"), (1, 20, "I"), (1, 40, "H"))
    )
    rng = np.random.default_rng(data.draw(st.integers(0, 99), label="seed"))
    arguments, options = make(name, rng, T, B, I, H)
    layouts = st.sampled_from(["plain", *LAYOUTS])
    for group in (arguments, options):
        for key, value in group.items():
            if isinstance(value, np.ndarray):
                group[key] = LAYOUTS.get(data.draw(layouts, label=key), np.copy)(value)
    lengths = st.none() | st.lists(st.integers(0, T), min_size=B, max_size=B)
    options |= {"lengths": data.draw(lengths), "reverse": data.draw(st.booleans())}
    check_against_reference(name, rng, arguments, options, np.dtype(np.float64))


# --- promises -------------------------------------------------------------------------------------


def rows_of(arguments, options, rows):
    """Return arguments and options for some rows of the batch."""
    arguments = {
        key: a[..., rows, :] if key in ("x", "h_0", "c_0") else a for key, a in arguments.items()
    }
    masks = ("zoneout_h", "zoneout_c", "dropout_h")
    options = {
        key: v[..., rows, :] if key in masks and isinstance(v, np.ndarray) else v
        for key, v in options.items()
    }
    return arguments, options


@cells
def test_a_row_has_the_same_bits_alone_and_in_a_batch(isa, dtype, rng, name):
    T, B = 5, 14
    arguments, options = make(name, rng, T, B, 9, 37, dtype)
    whole = forward(fastlstm, name, arguments, **options)[:-1]
    for rows in ([3], [0, 13], list(range(7))):
        part = rows_of(arguments, options, rows)
        assert_same_bits(
            tuple(a[..., rows, :] for a in whole), forward(fastlstm, name, part[0], **part[1])[:-1]
        )


@cells
def test_results_do_not_depend_on_threads(isa, dtype, rng, name):
    for B in (1, 14):
        arguments, options = make(name, rng, 6, B, 40, 150, dtype)
        upstream = upstream_of(rng, forward(fastlstm, name, arguments, **options)[:-1])
        results = []
        for threads in (1, 2, 3):
            with forced_threads(threads):
                results.append(both(fastlstm, name, arguments, upstream, **options))
        for result in results[1:]:
            assert_same_bits(result[0], results[0][0])
            assert_same_bits(result[1], results[0][1])


@cells
@ragged
def test_training_and_inference_give_the_same_bits(isa, dtype, rng, name, ragged):
    arguments, options = make(name, rng, 6, 9, 11, 37, dtype)
    options["lengths"] = some_lengths(rng, 6, 9) if ragged else None
    inference = forward(fastlstm, name, arguments, **options)[:-1]
    training = forward(fastlstm, name, arguments, **options, training=True)[:-1]
    assert_same_bits(inference, training)


@cells
def test_what_lies_past_a_rows_end_is_not_read(isa, dtype, rng, name):
    T, B = 5, 4
    arguments, options = make(name, rng, T, B, 3, 17, dtype)
    lengths = np.array([3, 0, 5, 1])
    options["lengths"] = lengths
    clean = forward(fastlstm, name, arguments, **options)[:-1]
    arguments["x"][np.arange(T)[:, None] >= lengths] = np.nan
    assert_same_bits(forward(fastlstm, name, arguments, **options)[:-1], clean)


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_clip_bounds_the_input_of_each_activation(isa, dtype, rng, cell):
    name = {"lstm": "peephole"}.get(cell, cell)
    arguments, options = make(name, rng, 4, 3, 5, 18, dtype)
    options["clip"] = 0.5
    actual = forward(fastlstm, name, arguments, **options)[:-1]
    assert_close(actual, forward(reference, name, arguments, **options)[:-1])
    with pytest.raises(ValueError, match=r"^clip: expected None"):
        forward(fastlstm, name, arguments, **options, training=True)


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_a_backward_call_wants_a_tape_of_its_own_cell(rng, cell):
    backward = getattr(fastlstm, f"{cell}_backward")
    other = "gru" if cell == "lstm" else "lstm"
    name = {"lstm": "peephole"}.get(other, other)
    tape = forward(fastlstm, name, make(name, rng, 2, 2, 2, 2)[0], training=True)[-1]
    for wrong in (tape, None, "tape"):
        with pytest.raises(TypeError, match=f"^tape: expected the tape of {cell}_forward, got"):
            backward(wrong)
