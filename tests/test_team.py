"""Threads claim tasks: which of them runs one, and how many come, changes no bit."""

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import fastlstm

# stacks, directions, groups of rows, shared hidden units (few rows, large weights), one chunk, many
SHAPES = [
    ("stack", (90, 2, 9, 40), {"num_layers": 3}),
    ("stack of many", (20, 3, 5, 70), {"num_layers": 7}),
    ("directions", (60, 3, 9, 70), {"num_layers": 2, "bidirectional": True}),
    ("rows", (40, 50, 20, 40), {}),
    ("odd rows", (150, 7, 33, 65), {}),
    ("one row", (30, 1, 20, 301), {}),
    ("large weights", (12, 5, 70, 300), {}),
]


@pytest.fixture
def threads():
    before = fastlstm.get_num_threads()
    yield fastlstm.set_num_threads
    fastlstm.set_num_threads(before)


def outcome(layer, x, lengths=None, resets=None):
    y, state = layer(x, lengths=lengths, resets=resets)
    taped_y, _, tape = layer.forward(x, lengths=lengths, resets=resets)
    gradients = layer.backward(tape, np.cos(y))
    return [a.tobytes() for a in (y, *state, taped_y, gradients.x, gradients.flat)]


@pytest.mark.parametrize(("name", "shape", "options"), SHAPES, ids=[s[0] for s in SHAPES])
@pytest.mark.parametrize("ragged", [False, True], ids=["", "ragged"])
def test_any_number_of_threads_gives_the_same_bits(
    dtype, rng, threads, name, shape, options, ragged
):
    T, B, I, H = shape
    layer = fastlstm.LSTM(I, H, rng=0, dtype=dtype, **options)
    x = rng.standard_normal((T, B, I)).astype(dtype)
    lengths = rng.integers(0, T + 1, B) if ragged else None
    threads(1)
    expected = outcome(layer, x, lengths)
    for n in (2, 3, 8):
        threads(n)
        for _ in range(3):
            assert outcome(layer, x, lengths) == expected


@pytest.mark.parametrize(("name", "shape", "options"), SHAPES, ids=[s[0] for s in SHAPES])
@pytest.mark.parametrize("cell", [fastlstm.LSTM, fastlstm.RNN])
def test_so_it_does_in_fewer_bits(compute_dtype, rng, threads, cell, name, shape, options):
    T, B, I, H = shape
    layer = cell(I, H, rng=0, compute_dtype=compute_dtype, **options)
    x = rng.standard_normal((T, B, I)).astype(np.float32)
    resets = rng.random((T, B)) < 0.1
    for given in ({}, {"lengths": rng.integers(0, T + 1, B)}, {"resets": resets}):
        threads(1)
        expected = outcome(layer, x, **given)
        for n in (2, 3, 8):
            threads(n)
            assert outcome(layer, x, **given) == expected


def test_several_callers_at_once_give_the_same_bits(rng, threads):
    layers = [fastlstm.LSTM(20, H, 2, rng=H) for H in (33, 64, 120)] * 4
    x = rng.standard_normal((80, 8, 20)).astype(np.float32)
    threads(1)
    expected = [outcome(layer, x, None) for layer in layers]
    threads(3)
    with ThreadPoolExecutor(len(layers)) as pool:
        for _ in range(3):
            assert list(pool.map(lambda layer: outcome(layer, x, None), layers)) == expected


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:This process.*fork:DeprecationWarning")
def test_a_forked_child_has_a_team_of_its_own(rng, threads):
    layer = fastlstm.LSTM(20, 64, 2, rng=0)
    x = rng.standard_normal((80, 8, 20)).astype(np.float32)
    threads(2)
    expected = outcome(layer, x, None)
    child = os.fork()
    if child == 0:
        same = all(outcome(layer, x, None) == expected for _ in range(5))
        os._exit(0 if same else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert outcome(layer, x, None) == expected
