"""Products in bfloat16 and int8: against the reference, and bit by bit against themselves."""

import functools
import hashlib
import pickle

import numpy as np
import pytest
from cells import CELLS, LAYERS, PLAIN, each_kind, each_layer, each_of, part_of
from helpers import assert_same_bits, forced_isa, forced_threads, normal, some_lengths, some_resets

import fastlstm
from fastlstm import reference
from fastlstm._core import runtime
from fastlstm.reference._products import bfloat16, int8

# T, B, I, H at the edges of vectors, tiles (of 2, 3, 6, 16 rows) and groups (of 2, 4, 32)
SHAPES = [(1, 1, 1, 1), (6, 5, 3, 9), (5, 17, 33, 50), (3, 40, 70, 95), (2, 512, 5, 20)]
# the sums of layer norm, as those of all, depend on the width of vectors; exp and log1p are libm's
INDEPENDENT_OF_SETS = {k: c for k, c in CELLS.items() if not {"layer norm"} & {*c.variants}}


@functools.cache  # all instruction sets ask for the same
def solved(cell, shape, given, compute_dtype):
    """Return the arguments of a call, and what the reference makes of them."""
    rng = np.random.default_rng(20260101)
    T, B, _, H = shape
    arguments, options = cell.arguments(rng, *shape, np.float32)
    options["compute_dtype"] = compute_dtype
    if "ragged" in given:
        options["lengths"] = some_lengths(rng, T, B)
    if "resets" in given:
        options["resets"] = some_resets(rng, T, B)
    options["reverse"] = "reverse" in given
    call = arguments, options, cell.upstream(rng, T, B, H, np.float32)
    exact = cell.both(reference, arguments, options | {"compute_dtype": None}, call[2])
    return *call, cell.both(reference, *call), exact


def flat(results):
    """Return outputs and gradients as one list of arrays."""
    return [a for group in results for a in group if a is not None]


@each_of(CELLS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("given", ["", "ragged reverse", "resets"])
def test_outputs_and_gradients_equal_the_reference(compute_dtype, cell, shape, given):
    # Where the last bit of a float decides how a number is rounded, core and reference may differ
    # by a step of it. That is seldom, so that nearly all of the error of rounding is the same.
    arguments, options, upstream, desired, exact = solved(cell, shape, given, compute_dtype)
    actual = cell.both(fastlstm, arguments, options, upstream)
    for a, d, e in zip(flat(actual), flat(desired), flat(exact), strict=True):
        assert a.dtype == np.float32
        assert a.shape == d.shape
        size = np.linalg.norm(d)
        rounding = np.linalg.norm(d - e)
        assert np.linalg.norm(a - d) <= 0.25 * rounding + 1e-4 * size + 1e-6
        if not cell.variants:  # relu and clips have kinks, where a gradient jumps
            assert rounding <= 0.3 * size + 1e-3


@pytest.mark.parametrize("shape", [(7, 35, 40, 130), (20, 64, 48, 64)], ids=str)
@each_of(["lstm", "gru", "rnn", "lstm everything"])
def test_several_chunks_and_groups_of_rows_equal_the_reference(compute_dtype, cell, shape):
    arguments, options, upstream, desired, exact = solved(cell, shape, "", compute_dtype)
    actual = cell.both(fastlstm, arguments, options, upstream)
    for a, d, e in zip(flat(actual), flat(desired), flat(exact), strict=True):
        assert np.linalg.norm(a - d) <= 0.25 * np.linalg.norm(d - e) + 1e-4 * np.linalg.norm(d)


@each_of(CELLS)
def test_rows_have_the_same_bits_alone_and_in_chunks(compute_dtype, rng, cell):
    T, B, I, H = 6, 21, 40, 37
    arguments, options = cell.arguments(rng, T, B, I, H, np.float32)
    options["compute_dtype"] = compute_dtype
    together = cell.forward(fastlstm, arguments, options)
    for rows in (slice(0, 1), slice(3, 20)):
        groups = (part_of(group, rows) for group in (arguments, options))
        assert_same_bits(cell.forward(fastlstm, *groups), tuple(a[..., rows, :] for a in together))
    state = {name: arguments[name] for name in cell.states}
    for t in range(T):
        step = slice(t, t + 1)
        part, call = (part_of(group, steps=step) for group in (arguments, options))
        y, *last = cell.forward(fastlstm, part | state, call)
        assert_same_bits(y[0], together[0][t])
        state = dict(zip(cell.states, last, strict=True))


@each_of(["lstm", "lstm everything", "gru", "gru reset before", "rnn"])
@pytest.mark.parametrize("B", [1, 3, 40])
def test_any_number_of_threads_makes_the_same_bits(compute_dtype, rng, cell, B):
    T, I, H = 5, 300, 320
    arguments, options = cell.arguments(rng, T, B, I, H, np.float32)
    options["compute_dtype"] = compute_dtype
    upstream = cell.upstream(rng, T, B, H, np.float32)
    results = []
    for threads in (1, 3):
        with forced_threads(threads):
            results.append(cell.both(fastlstm, arguments, options, upstream))
    assert_same_bits(*results)


@each_of(INDEPENDENT_OF_SETS)
@pytest.mark.parametrize("shape", SHAPES[:4], ids=str)
def test_int8_has_the_same_bits_on_every_set(rng, cell, shape):
    arguments, options = cell.arguments(rng, *shape, np.float32)
    options["compute_dtype"] = "int8"
    results = []
    for isa in runtime.available_isas("int8"):
        with forced_isa(isa, "int8"):
            results.append(cell.forward(fastlstm, arguments, options))
    for result in results[1:]:
        assert_same_bits(result, results[0])


def test_bfloat16_is_rounded_to_nearest_even():
    x = np.array([1, 1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-8 + 2**-20, -3e38, np.inf, np.nan, 1e-40])
    rounded = bfloat16(x.astype(np.float32))
    expected = [1, 1, 1 + 2**-6, 1 + 2**-7, -3.0042e38, np.inf, np.nan, 1e-40]
    np.testing.assert_allclose(rounded, np.float32(expected), rtol=1e-3, atol=1e-41)
    torch = pytest.importorskip("torch")
    values = normal(np.random.default_rng(0), 10000, np.float32, 100)
    theirs = torch.from_numpy(values).to(torch.bfloat16).to(torch.float32).numpy()
    assert_same_bits(bfloat16(values), theirs)


def test_int8_rounds_to_127_steps_of_the_largest():
    q, scale = int8(np.array([[0.5, -1.0, 0.251], [0, 0, 0]], np.float32))
    np.testing.assert_array_equal(q, [[64, -127, 32], [0, 0, 0]])
    np.testing.assert_allclose(scale, [[1 / 127], [0]])
    q, scale = int8(np.array([[0.5, -0.25]], np.float32), least=1)
    np.testing.assert_array_equal(q, [[64, -32]])


@each_of(["lstm", "gru", "rnn", "rnn relu"])
def test_what_is_not_finite_stays_in_its_row(compute_dtype, rng, cell):
    arguments, options = cell.arguments(rng, 3, 4, 5, 20, np.float32)
    options["compute_dtype"] = compute_dtype
    clean = cell.forward(fastlstm, arguments, options)[0]
    arguments["x"][1, 2, 3] = np.nan
    spoilt = cell.forward(fastlstm, arguments, options)[0]
    rows = [0, 1, 3]
    assert_same_bits(spoilt[:, rows], clean[:, rows])
    assert_same_bits(spoilt[0], clean[0])
    assert np.isnan(spoilt[1:, 2]).all()


@each_of({name: cell for name, cell in LAYERS.items() if "zoneout" not in cell.variants})
def test_a_stream_has_the_bits_of_a_call(compute_dtype, rng, cell):
    layer = cell.layer(5, 20, num_layers=2, rng=0, compute_dtype=compute_dtype)
    x = normal(rng, (6, 3, 5), np.float32)
    stream = layer.stream(3)
    assert_same_bits(np.stack([stream.step(x_t) for x_t in x]), layer(x)[0])


@each_kind
def test_checkpoints_trace_and_pickle_know_it(compute_dtype, rng, cell):
    layer = cell.layer(5, 20, rng=0, bidirectional=True, compute_dtype=compute_dtype)
    assert f"compute_dtype={compute_dtype!r}" in repr(layer)
    x = normal(rng, (9, 3, 5), np.float32)
    y, _, tape = layer.forward(x)
    y_too, _, tape_too = layer.forward(x, checkpoint=2)
    assert_same_bits(y_too, y)
    actual, desired = (layer.backward(each, y) for each in (tape_too, tape))
    np.testing.assert_allclose(actual.flat, desired.flat, rtol=2e-2, atol=2e-3)
    assert_same_bits(layer.trace(x)["l0"]["h"], y[..., :20])
    again = pickle.loads(pickle.dumps(layer))
    assert again.compute_dtype == compute_dtype
    assert_same_bits(again(x)[0], y)


@each_layer
def test_training_lowers_the_loss(compute_dtype, rng, cell):
    layer = cell.layer(3, 8, rng=0, compute_dtype=compute_dtype)
    x, target = normal(rng, (6, 16, 3), np.float32), np.float32(0.1)
    losses = []
    for _ in range(8):
        y, _, tape = layer.forward(x)
        losses.append(float(np.square(y - target).mean()))
        layer.flat[...] -= 0.5 * layer.backward(tape, 2 * (y - target) / y.size * 10).flat
    assert losses[-1] < losses[0]


def test_files_know_it(tmp_path):
    pytest.importorskip("safetensors")
    from fastlstm import files

    layer = fastlstm.LSTM(3, 8, compute_dtype="int8", rng=0)
    files.save(layer, tmp_path / "a.safetensors")
    assert files.load(tmp_path / "a.safetensors").compute_dtype == "int8"


@pytest.mark.parametrize("module", [fastlstm, reference])
@each_of(PLAIN)
def test_bad_arguments_are_named(rng, cell, module):
    arguments, options = cell.arguments(rng, 2, 3, 4, 5, np.float32)
    forward = functools.partial(getattr(module, f"{cell.kind}_forward"), **options)
    with pytest.raises(ValueError, match="compute_dtype: expected None, 'bfloat16' or 'int8'"):
        forward(**arguments, compute_dtype="float16")
    with pytest.raises(TypeError, match="compute_dtype: expected None or a name, got int"):
        forward(**arguments, compute_dtype=8)
    doubles = {name: a.astype(np.float64) for name, a in arguments.items()}
    with pytest.raises(TypeError, match="compute_dtype: expected None with float64"):
        forward(**doubles, compute_dtype="int8")
    if module is fastlstm:
        with pytest.raises(TypeError, match="compute_dtype: expected None with float64"):
            cell.layer(4, 5, dtype=np.float64, compute_dtype="bfloat16")


def test_show_config_says_what_serves_it(compute_dtype, capsys):
    fastlstm.show_config()
    assert f"{compute_dtype}: {runtime.get_isa(compute_dtype)} (" in capsys.readouterr().out


def numbers(*shape):
    """Return numbers in [-1, 1) that any machine makes the same: multiples of 2^-15."""
    n = np.arange(np.prod(shape), dtype=np.uint64)
    n = (n * np.uint64(2654435761) + np.uint64(12345)) % np.uint64(2**32)
    n = (n * np.uint64(40503) >> np.uint64(8)) % np.uint64(2**16)
    return (n.astype(np.float32) / np.float32(2**15) - np.float32(1)).reshape(shape)


# sha256 of y, the same on every machine with fma
FIXED_BITS = {
    "lstm": "e4d1ab961cb48fb0",
    "lstm peephole": "df01bd9f52056181",
    "lstm coupled": "cc3208a3e3112acf",
    "lstm cell clip": "9e63352f6b0f196f",
    "lstm zoneout": "4a49bfc7dbb425ae",
    "gru": "94680e63ecd73087",
    "gru reset before": "dd6f7b3450f747eb",
    "rnn": "e67ba424f4eefbcb",
    "rnn relu": "df37d06812c79671",
}


@each_of(list(FIXED_BITS))
def test_int8_has_the_bits_of_the_repository(compute_dtype, cell):
    if compute_dtype != "int8":
        pytest.skip("bits of bfloat16 hold per instruction set")
    G, T, B, I, H = cell.gates, 20, 3, 13, 21
    options = cell.options() | {"compute_dtype": "int8"}
    arrays = {"x": 2 * numbers(T, B, I), "w_ih": numbers(G * H, I), "w_hh": numbers(G * H, H)}
    if "peephole" in cell.variants:
        arrays["peephole"] = numbers(3, H)
    y = getattr(fastlstm, f"{cell.kind}_forward")(**arrays, **options)[0]
    name = next(name for name, each in CELLS.items() if each is cell)
    assert FIXED_BITS[name] == hashlib.sha256(y.tobytes()).hexdigest()[:16]
