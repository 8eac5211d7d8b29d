"""Episodes inside a sequence: `resets` is what cutting the sequences by hand gives."""

import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest
from cells import CELLS, LAYERS, each_cell, each_kind, each_layer, each_of, part_of
from helpers import (
    FINITE_DIFFERENCES,
    SUMS_BEFORE_KINKS,
    assert_close,
    assert_same_bits,
    forced_threads,
    normal,
    slope,
    some_lengths,
    some_resets,
)

import fastlstm
from fastlstm import reference
from fastlstm.training import truncated_bptt

ragged = pytest.mark.parametrize("ragged", [False, True], ids=["full", "ragged"])
reverse = pytest.mark.parametrize("reverse", [False, True], ids=["", "reverse"])
# where training draws no masks
each_unmasked = each_of({n: cell for n, cell in LAYERS.items() if "zoneout" not in cell.variants})

SHAPES = [(7, 5, 3, 9), (6, 1, 40, 150), (4, 14, 17, 33)]
shapes = pytest.mark.parametrize("shape", SHAPES, ids=str)


def episodes(resets, lengths):
    """Yield row, first step and end of each episode, in the order of time."""
    T, B = resets.shape
    for row in range(B):
        end = T if lengths is None else lengths[row]
        starts = sorted({0, *np.flatnonzero(resets[:end, row])})
        for start, stop in zip(starts, [*starts[1:], end], strict=True):
            if start < stop:
                yield row, start, stop


def begins_at_once(resets, row, start):
    return start > 0 or resets[0, row]


def by_hand(cell, arguments, options, upstream=None):
    """Return what calls over single episodes give together: y, final states, gradients."""
    arguments, options = dict(arguments), dict(options)
    resets, lengths = options.pop("resets"), options.pop("lengths")
    from_end = options["reverse"]
    T, B = resets.shape
    states = cell.states
    y = np.zeros((T, B, arguments["w_hh"].shape[1]), arguments["x"].dtype)
    final = [arguments[name].copy() for name in states]
    sums = {name: np.zeros_like(a) for name, a in arguments.items()}
    if upstream is not None:  # of rows without a step
        for name in states:
            empty = np.zeros(B, bool) if lengths is None else lengths == 0
            sums[name][empty] = upstream[f"d{name[0]}_n"][empty]
    for row, start, stop in episodes(resets, lengths):
        end = T if lengths is None else lengths[row]
        some = {"rows": [row], "steps": slice(start, stop)}
        part = part_of(arguments, **some)
        is_first = stop == end if from_end else not begins_at_once(resets, row, start)
        is_last = start == 0 if from_end else stop == end
        if not is_first:
            part |= {name: np.zeros_like(part[name]) for name in states}
        if upstream is None:
            y_part, *state = cell.forward(fastlstm, part, part_of(options, **some))
        else:
            given = {"dy": upstream["dy"][start:stop, [row]]}
            if is_last:
                given |= {n: upstream[n][[row]] for n in cell.final_gradients}
            (y_part, *state), gradients = cell.both(fastlstm, part, part_of(options, **some), given)
            for name in sums:
                gradient = getattr(gradients, name)
                if name == "x":
                    sums["x"][start:stop, row] = gradient[:, 0]
                elif name not in states:
                    sums[name] += gradient
                elif is_first:
                    sums[name][row] = gradient[0]
        y[start:stop, row] = y_part[:, 0]
        if is_last:
            for out, value in zip(final, state, strict=True):
                out[row] = value[0]
    return (y, *final), sums


def a_call(rng, cell, shape, dtype, ragged, reverse):
    T, B = shape[:2]
    arguments, options = cell.arguments(rng, *shape, dtype)
    options |= {
        "resets": some_resets(rng, T, B),
        "lengths": some_lengths(rng, T, B) if ragged else None,
        "reverse": reverse,
    }
    return arguments, options


@each_cell
@shapes
@ragged
@reverse
def test_outputs_have_the_bits_of_episodes_run_alone(isa, dtype, rng, cell, shape, ragged, reverse):
    arguments, options = a_call(rng, cell, shape, dtype, ragged, reverse)
    desired, _ = by_hand(cell, arguments, options)
    assert_same_bits(cell.forward(fastlstm, arguments, options), desired)
    assert_same_bits(cell.forward(fastlstm, arguments, options | {"training": True}), desired)


@each_cell
@ragged
def test_so_it_is_in_fewer_bits(compute_dtype, rng, cell, ragged):
    shape = (6, 9, 17, 33)
    arguments, options = a_call(rng, cell, shape, np.float32, ragged, ragged)
    options["compute_dtype"] = compute_dtype
    upstream = cell.upstream(rng, 6, 9, 33, np.float32)
    desired, desired_sums = by_hand(cell, arguments, options, upstream)
    outputs, gradients = cell.both(fastlstm, arguments, options, upstream)
    assert_same_bits(outputs, desired)
    actual = {name: getattr(gradients, name) for name in desired_sums}
    assert_close(actual, desired_sums, SUMS_BEFORE_KINKS)


@each_cell
@ragged
@reverse
def test_gradients_are_those_of_episodes_run_alone(isa, dtype, rng, cell, ragged, reverse):
    shape = (7, 6, 5, 19)
    arguments, options = a_call(rng, cell, shape, dtype, ragged, reverse)
    upstream = cell.upstream(rng, 7, 6, 19, dtype)
    _, desired = by_hand(cell, arguments, options, upstream)
    _, gradients = cell.both(fastlstm, arguments, options, upstream)
    actual = {name: getattr(gradients, name) for name in desired}
    assert_close(actual, desired, SUMS_BEFORE_KINKS)


@each_kind
def test_nothing_of_another_episode_is_read(isa, dtype, rng, cell):
    T, B, H = 9, 4, 17
    arguments, options = cell.arguments(rng, T, B, 3, H, dtype)
    options["resets"] = np.zeros((T, B), bool)
    options["resets"][[3, 6]] = True
    clean, clean_gradients = cell.both(
        fastlstm, arguments, options, {"dy": np.ones((T, B, H), dtype)}
    )
    arguments["x"] = arguments["x"].copy()
    arguments["x"][3:6] = np.nan
    dy = np.ones((T, B, H), dtype)
    dy[3:6] = 0
    (y, *state), gradients = cell.both(fastlstm, arguments, options, {"dy": dy})
    for outside in (slice(0, 3), slice(6, None)):
        assert_same_bits(y[outside], clean[0][outside])
        assert_same_bits(gradients.x[outside], clean_gradients.x[outside])
    assert_same_bits(tuple(state), clean[1:])
    assert np.isnan(y[3:6]).all()


@each_kind
def test_without_any_true_it_is_the_call_without(isa, dtype, rng, cell):
    arguments, options = cell.arguments(rng, 6, 5, 3, 18, dtype)
    upstream = cell.upstream(rng, 6, 5, 18, dtype)
    plain = cell.both(fastlstm, arguments, options, upstream)
    options["resets"] = np.zeros((6, 5), bool)
    assert_same_bits(cell.both(fastlstm, arguments, options, upstream), plain)


@each_kind
def test_many_rows_in_groups_equal_the_reference(isa, dtype, rng, cell):
    shape = (5, 512, 4, 12)
    arguments, options = a_call(rng, cell, shape, dtype, False, False)
    options["resets"] = rng.random((5, 512)) < 0.01
    upstream = cell.upstream(rng, 5, 512, 12, dtype)
    desired = cell.both(reference, arguments, options, upstream)
    assert_close(cell.both(fastlstm, arguments, options, upstream), desired, SUMS_BEFORE_KINKS)


@pytest.mark.parametrize(
    ("resets", "error"),
    [
        (np.zeros((3, 4), bool), ValueError),
        (np.zeros(4, bool), ValueError),
        (np.zeros((4, 3)), TypeError),
        (np.zeros((4, 3), int), TypeError),
    ],
    ids=["turned", "one row", "float", "integer"],
)
@each_kind
def test_wrong_resets_are_named(rng, cell, resets, error):
    arguments, _ = cell.arguments(rng, 4, 3, 2, 5)
    for module in (fastlstm, reference):
        with pytest.raises(error, match="resets: expected"):
            cell.forward(module, arguments, {"resets": resets})
    with pytest.raises(error, match="resets: expected"):
        cell.layer(2, 5, dtype=np.float64)(arguments["x"], resets=resets)


# --- layers ---------------------------------------------------------------------------------------

STACKS = {
    "two layers": {"num_layers": 2},
    "bidirectional": {"num_layers": 2, "bidirectional": True},
    "reverse": {"reverse": True},
}
stacks = pytest.mark.parametrize("stack", list(STACKS.values()), ids=list(STACKS))


def layer_by_hand(layer, x, resets, lengths):
    """Return the outputs of a layer over single episodes, all from zero."""
    T, B, _ = x.shape
    y = np.zeros((T, B, layer.output_size * layer.num_directions), x.dtype)
    for row, start, stop in episodes(resets, lengths):
        y[start:stop, row] = layer(x[start:stop, [row]])[0][:, 0]
    return y


@each_layer
@stacks
@ragged
def test_layers_have_the_bits_of_episodes_run_alone(isa, dtype, rng, cell, stack, ragged):
    T, B, I, H = 8, 5, 3, 11
    layer = cell.layer(I, H, dtype=dtype, rng=1, **stack)
    x, resets = normal(rng, (T, B, I), dtype), some_resets(rng, T, B)
    lengths = some_lengths(rng, T, B) if ragged else None
    desired = layer_by_hand(layer, x, resets, lengths)
    y, _ = layer(x, lengths=lengths, resets=resets)
    assert_same_bits(y, desired)
    layer.batch_first = True
    turned = layer(x.transpose(1, 0, 2), lengths=lengths, resets=resets.T)[0]
    assert_same_bits(turned.transpose(1, 0, 2), desired)


@each_unmasked
@stacks
@pytest.mark.parametrize("checkpoint", [False, 3])
def test_gradients_of_layers_equal_central_differences(isa, rng, cell, stack, checkpoint):
    T, B, I, H = 8, 3, 2, 5
    layer = cell.layer(I, H, dtype=np.float64, rng=1, **stack)
    x, resets = normal(rng, (T, B, I)), some_resets(rng, T, B)
    lengths = some_lengths(rng, T, B)
    state = cell.state_of(rng, layer, B)
    call = {"lengths": lengths, "resets": resets}
    y, final, tape = layer.forward(x, state, **call, checkpoint=checkpoint)
    assert_same_bits((y, final), layer(x, state, **call))
    dy, dfinal = normal(rng, y.shape), cell.state_of(rng, layer, B)
    gradients = layer.backward(tape, dy, dfinal)

    def flat(parts):
        return parts if isinstance(parts, tuple) else (parts,)

    def loss():
        y, final = layer(x, state, **call)
        parts = zip(flat(dfinal), flat(final), strict=True)
        return np.vdot(dy, y) + sum(np.vdot(d, out) for d, out in parts)

    pairs = [(x, gradients.x), (layer.flat, gradients.flat)]
    pairs += zip(flat(state), flat(gradients.state), strict=True)
    for array, gradient in pairs:
        direction = normal(rng, array.shape)
        assert_close(
            np.vdot(gradient, direction), slope(loss, [array], [direction]), FINITE_DIFFERENCES
        )


@each_unmasked
@stacks
@ragged
def test_a_checkpoint_changes_no_bit_of_outputs(isa, dtype, rng, cell, stack, ragged):
    T, B, I, H = 10, 4, 3, 9
    layer = cell.layer(I, H, dtype=dtype, rng=1, **stack)
    x, resets = normal(rng, (T, B, I), dtype), some_resets(rng, T, B)
    call = {"resets": resets, "lengths": some_lengths(rng, T, B) if ragged else None}
    y, final = layer(x, **call)
    y_3, final_3, tape = layer.forward(x, **call, checkpoint=3)
    assert_same_bits((y_3, final_3), (y, final))
    plain = layer.backward(layer.forward(x, **call)[2], np.ones_like(y))
    assert_close(layer.backward(tape, np.ones_like(y)).flat, plain.flat, SUMS_BEFORE_KINKS)


@each_kind
def test_a_change_after_the_call_changes_no_gradient(isa, rng, cell):
    layer = cell.layer(3, 9, dtype=np.float64, rng=1)
    x, resets = normal(rng, (8, 4, 3)), some_resets(rng, 8, 4)
    for checkpoint in (False, True):
        _, _, tape = layer.forward(x, resets=resets, checkpoint=checkpoint)
        before = layer.backward(tape, np.ones((8, 4, 9)))
        kept = resets.copy()
        resets[...] = ~resets
        assert_same_bits(layer.backward(tape, np.ones((8, 4, 9))), before)
        resets[...] = kept


@each_layer
def test_streams_with_rows_reset_have_the_bits_of_a_call(isa, dtype, rng, cell):
    T, B = 7, 4
    layer = cell.layer(3, 9, dtype=dtype, rng=1, num_layers=2)
    x, resets = normal(rng, (T, B, 3), dtype), some_resets(rng, T, B)
    state = cell.state_of(rng, layer, B)
    y, final = layer(x, state, resets=resets)
    stream = layer.stream(B)
    stream.state = state
    for t in range(T):
        stream.reset_rows(resets[t])
        assert_same_bits(stream.step(x[t]), y[t])
    assert_same_bits((stream.state,), (final,))
    for wrong, error in ((np.zeros(B), TypeError), (np.zeros(B + 1, bool), ValueError)):
        with pytest.raises(error, match="resets: expected"):
            stream.reset_rows(wrong)


@each_unmasked
@pytest.mark.parametrize("batch_first", [False, True], ids=["(T, B)", "(B, T)"])
def test_windows_of_truncated_bptt_have_episodes(rng, cell, batch_first):
    T, B = 12, 4
    layer = cell.layer(3, 7, dtype=np.float64, rng=1, batch_first=batch_first)
    x, resets = normal(rng, (T, B, 3)), some_resets(rng, T, B)
    if batch_first:
        x, resets = x.transpose(1, 0, 2), resets.T
    call = {"lengths": some_lengths(rng, T, B), "resets": resets}
    y, final, tape = layer.forward(x, **call)
    *_, last = windows = list(truncated_bptt(layer, x, 3, T, **call))
    assert_same_bits(np.concatenate([w.y for w in windows], axis=int(batch_first)), y)
    assert_same_bits((last.state,), (final,))
    dy = np.zeros_like(y)
    newest = (slice(None), slice(T - 3, None)) if batch_first else slice(T - 3, None)
    dy[newest] = 1
    assert_close(last.backward(dy[newest]).flat, layer.backward(tape, dy).flat)
    if not batch_first:
        by_function = truncated_bptt(layer, lambda a, b: x[a:b], 3, T, steps=T, **call)
        assert_same_bits(np.concatenate([w.y for w in by_function]), y)
    # one episode per window: nothing goes further back
    begins = np.zeros(resets.shape, bool)
    every = begins.T if batch_first else begins
    every[::3] = True
    windows = list(truncated_bptt(layer, x, 3, T, resets=begins))
    part = windows[-1].backward(np.ones_like(windows[-1].y))
    alone = layer.forward(x[newest])[2]
    assert_close(part.flat, layer.backward(alone, np.ones_like(windows[-1].y)).flat)
    before = part.x[:, : T - 3] if batch_first else part.x[: T - 3]
    assert not before.any()


def test_a_reversed_layer_has_no_windows_with_episodes():
    layer = fastlstm.LSTM(2, 3, reverse=True)
    x, resets = np.zeros((4, 1, 2), np.float32), np.zeros((4, 1), bool)
    with pytest.raises(ValueError, match="resets: expected None"):
        truncated_bptt(layer, x, 2, resets=resets)


def test_the_benchmark_runs_and_its_ways_agree(capsys):
    path = Path(__file__).parents[1] / "benchmarks" / "episodes.py"
    spec = importlib.util.spec_from_file_location("episodes", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with forced_threads(1):
        sizes = "--steps 9 --batch 3 --features 2 --hidden 5 --episode 3 --repeats 1"
        module.main(sizes.split())
    assert "one call with resets" in capsys.readouterr().out
    rng = np.random.default_rng(0)
    lstm = fastlstm.LSTM(2, 5, dtype=np.float64, rng=0)
    x, dy, begins = normal(rng, (9, 3, 2)), normal(rng, (9, 3, 5)), some_resets(rng, 9, 3)
    one, cut = (way(lstm, x, begins, dy) for way in (module.in_one_call, module.cut))
    assert_same_bits(one[0], module.cut(lstm, x, begins | (np.arange(9) == 0)[:, None], dy)[0])
    assert_close(one, cut)


def test_the_page_on_episodes_runs():
    page = (Path(__file__).parents[1] / "docs" / "episodes.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    found = {}
    exec(code, found)
    assert np.isfinite(found["gradients"].flat).all()
    assert found["resets"].any()


@each_layer
def test_a_trace_shows_the_states_that_steps_leave(isa, dtype, rng, cell):
    T, B = 6, 3
    layer = cell.layer(2, 7, dtype=dtype, rng=1, bidirectional=True)
    x, resets = normal(rng, (T, B, 2), dtype), some_resets(rng, T, B)
    y, _ = layer(x, resets=resets)
    trace = layer.trace(x, resets=resets)
    R = layer.output_size
    assert_same_bits(trace["l0"]["h"], y[:, :, :R])
    assert_same_bits(trace["l0_reverse"]["h"], y[:, :, R:])


def test_threads_that_share_units_change_no_bit(isa, dtype, rng):
    cell = CELLS["lstm"]
    arguments, options = a_call(rng, cell, (20, 2, 64, 200), dtype, False, False)
    upstream = cell.upstream(rng, 20, 2, 200, dtype)
    with forced_threads(1):
        one = cell.both(fastlstm, arguments, options, upstream)
    for number in (2, 3):
        with forced_threads(number):
            for _ in range(5):
                assert_same_bits(cell.both(fastlstm, arguments, options, upstream), one)
