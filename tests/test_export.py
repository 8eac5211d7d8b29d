"""Exported C: compiled by the compilers at hand, it gives the bits of Python's scalar kernels."""

import ctypes
import os
import shutil
import subprocess

import numpy as np
import pytest
from cells import each_layer
from helpers import assert_close, assert_same_bits, forced_isa, normal

import fastlstm
import fastlstm.export
from fastlstm.training import Linear

COMPILERS = [name for name in ("gcc", "clang") if shutil.which(name)]
WARNINGS = ["-Wall", "-Wextra", "-pedantic", "-Wconversion", "-Werror"]
EXACT = ["-ffp-contract=off"]
FAST = ["-O3", "-march=native", "-ffp-contract=fast"]
TARGETS = {"plain C": ["-DNET_LANES=1"], "generic": [], "native": ["-march=native"]}

pytestmark = pytest.mark.skipif(not COMPILERS, reason="needs gcc or clang")


def compiled(folder, network, *flags, compiler=None, standard="-std=c99", **options):
    """Export a network, compile it, and return its library."""
    fastlstm.export.c(folder / "net.c", network, name="net", overwrite=True, **options)
    compiler = compiler or COMPILERS[0]
    name = f"net{len(os.listdir(folder))}.so"
    command = [compiler, standard, "-O2", "-shared", "-fPIC", *EXACT, *WARNINGS, *flags]
    subprocess.run([*command, "net.c", "-o", name], cwd=folder, check=True)
    return ctypes.CDLL(str(folder / name))


def pointer(array):
    return ctypes.c_void_p(array.ctypes.data)


def run(library, network, x):
    """Return what the exported network makes of x (T, I)."""
    layers = network if isinstance(network, list) else [network]
    last = layers[-1]
    width = (
        last.out_features if isinstance(last, Linear) else last.output_size * last.num_directions
    )
    y = np.full((len(x), width), np.nan, x.dtype)
    state = np.full(1 << 16, 0xFF, np.uint8)
    library.net_reset(pointer(state))
    library.net_run(pointer(state), pointer(x), pointer(y), ctypes.c_size_t(len(x)))
    return y


def by_python(network, x):
    """Return what Python's scalar kernels make of x (T, I)."""
    y = x[:, np.newaxis]
    with forced_isa("scalar"):
        for layer in network if isinstance(network, list) else [network]:
            y = layer(y) if isinstance(layer, Linear) else layer(y)[0]
    return y[:, 0]


def trained(layer, rng):
    """Return a layer with parameters on the scale of trained ones."""
    layer.flat[:] = normal(rng, layer.flat.shape, layer.dtype, 1.5 / np.sqrt(layer.hidden_size))
    return layer


@each_layer
@pytest.mark.parametrize("target", TARGETS)
def test_the_bits_are_those_of_the_scalar_kernels(tmp_path, cell, dtype, rng, target):
    layer = trained(cell.layer(3, 19, num_layers=2, dtype=dtype), rng)
    x = normal(rng, (30, 3), dtype, 2)
    library = compiled(tmp_path, layer, *TARGETS[target])
    actual, desired = run(library, layer, x), by_python(layer, x)
    if dtype == np.float64 and "activations" in repr(layer):  # scaled_tanh is no longer libm's
        assert_close(actual, desired, 1e-14)
    else:
        assert_same_bits(actual, desired)
