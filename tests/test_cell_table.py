"""The table of cells and the list of activations agree with the C headers, which number them, and
with the defaults that signatures write out for the reader.
"""

import inspect
import re
from pathlib import Path

import numpy as np
import pytest

import fastlstm
from fastlstm import capi, reference
from fastlstm._args.cells import CELLS, PARAMETERS, PLAIN, join_biases, split_bias
from fastlstm._args.numbers import ACTIVATIONS, OPTIONS, number_of

PACKAGE = Path(fastlstm.__file__).parent
KERNELS = PACKAGE.parents[1] / "csrc" / "kernels.h"


def enum(text, first):
    """Return the names of the C enum that begins with this one, in lower case, with its values."""
    plain = re.sub(r"/\*.*?\*/", "", text, flags=re.S)
    bodies = re.findall(r"enum\s*\{(.*?)\}", plain, re.S)
    body = next(body for body in bodies if re.match(rf"\s*{first}\b", body))
    values, value = {}, -1
    for item in filter(None, map(str.strip, body.split(","))):
        name, _, given = map(str.strip, item.partition("="))
        value = int(given) if given else value + 1
        values[name.lower()] = value
    return values


def test_activations_are_numbered_as_the_kernels_do():
    if not KERNELS.exists():
        pytest.skip("the C sources are not installed")
    numbers = {name: number_of((name, 0.0, 0.0))[0] for name in ACTIVATIONS}
    assert enum(KERNELS.read_text(), "SIGMOID") == numbers


def test_activations_and_cells_are_numbered_as_the_c_api_does():
    header = (PACKAGE / "include" / "fastlstm.h").read_text()
    activations = {f"fastlstm_{name}": 1 + k for k, name in enumerate(ACTIVATIONS)}
    assert enum(header, "FASTLSTM_DEFAULT") == {"fastlstm_default": 0} | activations
    cells = enum(header, "FASTLSTM_LSTM")
    assert list(cells.values()) == list(range(1, 1 + len(CELLS)))
    for name, value in cells.items():
        assert getattr(capi, name.removeprefix("fastlstm_").upper()) == value


def test_cython_declares_what_the_header_does():
    header = (PACKAGE / "include" / "fastlstm.h").read_text()
    declared = set(re.findall(r"^\s+(FASTLSTM_\w+)$", (PACKAGE / "__init__.pxd").read_text(), re.M))
    for first in ("FASTLSTM_OK", "FASTLSTM_LSTM", "FASTLSTM_DEFAULT"):
        assert {name.upper() for name in enum(header, first)} <= declared


def test_blocks_of_gates_are_those_that_the_kernels_name():
    """kernels.h: "for the LSTM f, i, g, o ...; for the GRU n, r, z and ... q"."""
    if not KERNELS.exists():
        pytest.skip("the C sources are not installed")
    said = re.search(r"for the LSTM (.*?)\(.*?for the GRU (.*?)=", KERNELS.read_text(), re.S)
    assert [re.findall(r"\b[a-z]\b", part) for part in said.groups()] == [
        list(PLAIN["lstm"].blocks),
        list(PLAIN["gru"].blocks),
    ]


@pytest.mark.parametrize("kind", PLAIN)
def test_the_defaults_that_signatures_show_are_the_tables(kind):
    cell = PLAIN[kind]
    layer = getattr(fastlstm, kind.upper())
    for function in (layer, *(getattr(m, f"{kind}_forward") for m in (fastlstm, reference))):
        parameters = inspect.signature(function).parameters
        if len(cell.roles) == 1:
            assert (parameters["nonlinearity"].default,) == cell.activations
        else:
            assert parameters["activations"].default == cell.activations


@pytest.mark.parametrize("kind", PLAIN)
def test_every_array_and_option_of_a_function_is_in_the_table(kind):
    cell = PLAIN[kind]
    of_calls = {"x", "lengths", "resets", "reverse", "training"}
    names = set(inspect.signature(getattr(fastlstm, f"{kind}_forward")).parameters) - of_calls
    shapes = cell.shapes(5, 2, 3, 4, 4)
    arrays = {name for name in names if name in shapes}
    assert names - arrays <= {*OPTIONS, "activations"}
    assert arrays & PARAMETERS.keys() == set(cell.parameters)
    assert {f"{state}_0" for state in cell.states} == {n for n in arrays if n.endswith("_0")}


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: f"{cell.kind}, b of {cell.bias}")
def test_two_biases_are_the_one_that_computes_the_same(cell):
    H = 3
    b = np.arange(1.0, 1 + len(cell.bias) * H)
    b_ih, b_hh = split_bias(cell, b)
    assert b_ih.shape == b_hh.shape == (cell.G * H,)
    np.testing.assert_array_equal(join_biases(cell, b_ih, b_hh), b)
    assert not np.shares_memory(b_ih, b)
    moved = join_biases(cell, b_ih - 7, b_hh + 7)  # from one to the other, but within the reset
    same = slice(None) if len(cell.bias) == cell.G else slice(2 * H)
    np.testing.assert_array_equal(moved[same], b[same])
