"""Exported C: compiled by the compilers at hand, it gives the bits of Python's scalar kernels."""

import ctypes
import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from cells import each_layer
from export.targets import TARGETS, Target, self_test, size_of
from helpers import assert_close, assert_same_bits, forced_isa, normal

import fastlstm
import fastlstm.export
from fastlstm.__main__ import main
from fastlstm._args.numbers import ACTIVATIONS
from fastlstm.export._activations import EXP, EXPM1_2, FORMAT
from fastlstm.training import Linear

COMPILERS = [name for name in ("gcc", "clang") if shutil.which(name)]
WARNINGS = ["-Wall", "-Wextra", "-pedantic", "-Wconversion", "-Werror"]
EXACT = ["-ffp-contract=off"]
FAST = ["-O3", "-march=native", "-ffp-contract=fast"]
VECTORS = {"plain C": ["-DNET_LANES=1"], "generic": [], "native": ["-march=native"]}

HOST = Target(COMPILERS[:1], [], [], "gcc")

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
@pytest.mark.parametrize("target", VECTORS)
def test_the_bits_are_those_of_the_scalar_kernels(tmp_path, cell, dtype, rng, target):
    layer = trained(cell.layer(3, 19, num_layers=2, dtype=dtype), rng)
    x = normal(rng, (30, 3), dtype, 2)
    library = compiled(tmp_path, layer, *VECTORS[target])
    actual, desired = run(library, layer, x), by_python(layer, x)
    if dtype == np.float64 and "activations" in repr(layer):  # scaled_tanh is no longer libm's
        assert_close(actual, desired, 1e-14)
    else:
        assert_same_bits(actual, desired)


# --- other shapes of networks ---------------------------------------------------------------------


@pytest.mark.parametrize("H", [1, 2, 3, 4, 8, 17, 33, 70])
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_any_number_of_units(tmp_path, kind, H, rng):
    layer = trained(getattr(fastlstm, kind)(5, H, rng=0), rng)
    x = normal(rng, (12, 5), np.float32)
    library = compiled(tmp_path, layer, "-march=native")
    assert_same_bits(run(library, layer, x), by_python(layer, x))


@pytest.mark.parametrize("name", [n for n in ACTIVATIONS if n not in ("sigmoid", "tanh", "relu")])
def test_any_activation(tmp_path, name, dtype, rng):
    layer = fastlstm.LSTM(3, 8, activations=(name, name, name), clip=3.0, dtype=dtype, rng=rng)
    x = normal(rng, (12, 3), dtype, 3)
    actual = run(compiled(tmp_path, layer), layer, x)
    if dtype == np.float64 and name in ("scaled_tanh", "elu", "softplus"):  # no longer libm's
        assert_close(actual, by_python(layer, x), 1e-14)
    else:
        assert_same_bits(actual, by_python(layer, x))


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan, 3e38, -3e38, 1e-40, -0.0])
def test_the_edges_of_sigmoid_and_tanh(tmp_path, value, rng):
    layer = fastlstm.LSTM(1, 8, rng=rng)
    x = np.full((3, 1), value, np.float32)
    actual, desired = run(compiled(tmp_path, layer), layer, x), by_python(layer, x)
    np.testing.assert_array_equal(actual, desired)


@pytest.mark.parametrize("J", [1, 3, 16, 21])
@pytest.mark.parametrize("activation", [None, "tanh", "relu"])
def test_a_linear_map(tmp_path, J, activation, dtype, rng):
    network = [
        Linear(2, 20, activation="tanh", dtype=dtype, rng=rng),
        fastlstm.GRU(20, 9, dtype=dtype, rng=rng),
        Linear(9, J, bias=J != 3, activation=activation, dtype=dtype, rng=rng),
    ]
    x = normal(rng, (12, 2), dtype)
    actual = run(compiled(tmp_path, network), network, x)
    assert_close(actual, by_python(network, x), {np.dtype("f4"): 2e-6, np.dtype("f8"): 1e-14})


@pytest.mark.parametrize("options", [{"bidirectional": True}, {"reverse": True}], ids=str)
@pytest.mark.parametrize("num_layers", [1, 2, 3])
def test_a_network_that_reads_from_the_end_has_run_alone(tmp_path, options, num_layers, rng):
    layer = fastlstm.LSTM(3, 5, num_layers, proj_size=4, rng=rng, **options)
    x = normal(rng, (12, 3), np.float32)
    library = compiled(tmp_path, layer)
    assert not hasattr(library, "net_step")
    header = (tmp_path / "net.h").read_text()
    width = layer.output_size * layer.num_directions
    room = 12 * int(re.search(r"#define NET_WORK\(T\) \(\(size_t\)\(T\) \* (\d+)\)", header)[1])
    y, work = np.empty((12, width), np.float32), np.full(room + 8, 7, np.float32)
    library.net_run(pointer(x), pointer(y), pointer(work), ctypes.c_size_t(12))
    assert_same_bits(y, by_python(layer, x))
    assert (work[room:] == 7).all()


def test_bfloat16_weights(tmp_path, rng):
    layer = trained(fastlstm.LSTM(3, 19, proj_size=6, peephole=True, rng=rng), rng)
    x = normal(rng, (20, 3), np.float32)
    actual = run(compiled(tmp_path, layer, storage="bfloat16"), layer, x)
    for name, param in layer.params.items():
        if name.startswith("weight"):
            torch = pytest.importorskip("torch")
            param[:] = torch.from_numpy(param.copy()).bfloat16().float().numpy()
    assert_same_bits(actual, by_python(layer, x))


def test_steps_are_what_a_run_is(tmp_path, rng):
    layer = fastlstm.GRU(3, 8, rng=rng)
    x = normal(rng, (10, 3), np.float32)
    library = compiled(tmp_path, layer)
    y, state = np.empty((10, 8), np.float32), np.zeros(8, np.float32)
    for t in range(10):
        library.net_step(pointer(state), pointer(x[t]), pointer(y[t]))
    assert_same_bits(y, run(library, layer, x))


# --- compilers and targets ------------------------------------------------------------------------

ALL_IN_ONE = [
    fastlstm.LSTM(2, 17, peephole=True, layer_norm=True, proj_size=5, cell_clip=3.0, rng=0),
    fastlstm.GRU(5, 16, reset_after=False, activations=("hard_sigmoid", "softsign"), rng=1),
    fastlstm.RNN(16, 20, nonlinearity="relu", zoneout_h=0.1, rng=2),
    Linear(20, 3, activation="softplus", rng=3),
]


@pytest.mark.parametrize("compiler", COMPILERS)
@pytest.mark.parametrize("language", ["-std=c99", "-std=c11", "-xc++ -std=c++17"])
@pytest.mark.parametrize("storage", [None, "bfloat16"])
def test_no_compiler_warns_and_the_self_test_passes(tmp_path, compiler, language, storage):
    fastlstm.export.c(tmp_path / "net.c", ALL_IN_ONE, name="net", storage=storage)
    target = Target([compiler, *language.split(), *WARNINGS], [], [], compiler)
    assert "24 of 24 values have the same bits" in self_test(target, tmp_path)


@pytest.mark.parametrize("compiler", COMPILERS)
@pytest.mark.parametrize("flags", [[], ["-DNET_FAST"], ["-DNET_FAST", "-DNET_LANES=1"]], ids=str)
def test_contracted_and_fast_it_is_within_2e6(tmp_path, compiler, flags):
    fastlstm.export.c(tmp_path / "net.c", ALL_IN_ONE, name="net")
    command = [compiler, *FAST, *WARNINGS, *flags, "-DNET_TEST", "net.c", "-o", "fast"]
    subprocess.run(command, cwd=tmp_path, check=True)
    assert subprocess.run([tmp_path / "fast"], capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize("H", [3, 16, 20, 33, 70])
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_fast_networks_of_any_size(tmp_path, kind, H, dtype, rng):
    layer = trained(getattr(fastlstm, kind)(5, H, dtype=dtype, rng=0), rng)
    x = normal(rng, (12, 5), dtype)
    library = compiled(tmp_path, layer, "-march=native", "-DNET_FAST")
    tolerance = {np.dtype("f4"): 2e-6, np.dtype("f8"): 1e-14}
    assert_close(run(library, layer, x), by_python(layer, x), tolerance)


def test_fast_sigmoid_and_tanh_are_within_2e7(tmp_path):
    layer = fastlstm.LSTM(1, 1, rng=0)
    fastlstm.export.c(tmp_path / "net.c", layer, name="net")
    (tmp_path / "probe.c").write_text(
        '#include "net.c"\n'
        "void probe(const float *x, float *s, float *t, int n)\n"
        "{ for (int k = 0; k < n; k++) { s[k] = vec_sigmoid(x[k]); t[k] = vec_tanh(x[k]); } }\n"
    )
    flags = ["-O2", "-DNET_FAST", "-ffp-contract=off", "-shared", "-fPIC"]
    subprocess.run([COMPILERS[0], *flags, "probe.c", "-o", "probe.so"], cwd=tmp_path, check=True)
    bits = np.arange(0, 1 << 32, 1999, dtype=np.uint32)  # every 1999th float of both signs
    x = bits.view(np.float32)
    x = np.append(x[np.isfinite(x)], np.float32([np.inf, -np.inf, np.nan]))
    s, t = np.empty_like(x), np.empty_like(x)
    library = ctypes.CDLL(str(tmp_path / "probe.so"))
    library.probe(pointer(x), pointer(s), pointer(t), len(x))
    wide = x.astype(np.float64)
    with np.errstate(over="ignore"):
        np.testing.assert_allclose(s, 1 / (1 + np.exp(-wide)), rtol=0, atol=2e-7)
    np.testing.assert_allclose(t, np.tanh(wide), rtol=0, atol=2e-7)


def test_a_self_test_that_fails_says_so(tmp_path):
    fastlstm.export.c(tmp_path / "net.c", ALL_IN_ONE, name="net")
    text = (tmp_path / "net.c").read_text()
    (tmp_path / "net.c").write_text(
        text.replace("state) { memset(state, 0,", "state) { memset(state, 60,")
    )
    with pytest.raises(AssertionError, match="largest difference"):
        self_test(HOST, tmp_path)


@pytest.mark.parametrize("name", TARGETS)
def test_the_same_bits_on_other_targets(tmp_path, name):
    if missing := TARGETS[name].missing():
        pytest.skip(f"needs {missing}")
    fastlstm.export.c(tmp_path / "net.c", ALL_IN_ONE, name="net")
    assert "24 of 24 values have the same bits" in self_test(TARGETS[name], tmp_path)


@pytest.mark.parametrize("name", TARGETS)
def test_flash_and_ram_are_what_weights_and_state_take(tmp_path, name):
    if missing := TARGETS[name].missing():
        pytest.skip(f"needs {missing}")
    fastlstm.export.c(tmp_path / "net.c", fastlstm.LSTM(1, 40, rng=0), name="net")
    size = size_of(TARGETS[name], tmp_path)
    weights = 4 * 4 * 40 * (1 + 40 + 1)
    assert weights <= size.constants < weights + 1500
    assert size.state == 2 * 4 * 40
    assert 500 < size.code < 6000


def test_a_single_header(tmp_path):
    fastlstm.export.c(tmp_path / "one.h", fastlstm.LSTM(2, 9, rng=0), single_header=True)
    fastlstm.export.c(tmp_path / "two.h", fastlstm.GRU(2, 5, rng=0), single_header=True)
    (tmp_path / "main.c").write_text(
        "#include <math.h>\n#define ONE_IMPLEMENTATION\n#define TWO_IMPLEMENTATION\n"
        '#define ONE_TEST\n#include "one.h"\n#include "two.h"\n#include "one.h"\n'
    )
    command = [COMPILERS[0], *WARNINGS, *EXACT, "main.c", "-o", "main"]
    subprocess.run(command, cwd=tmp_path, check=True)
    assert (
        b"72 of 72" in subprocess.run([tmp_path / "main"], capture_output=True, check=True).stdout
    )


def test_it_needs_nothing_but_memory_functions(tmp_path):
    nm = shutil.which("nm")
    if not nm:
        pytest.skip("needs nm")
    fastlstm.export.c(tmp_path / "net.c", ALL_IN_ONE, name="net")
    subprocess.run([COMPILERS[0], "-O2", *EXACT, "-c", "net.c"], cwd=tmp_path, check=True)
    listed = subprocess.run([nm, "net.o"], cwd=tmp_path, check=True, capture_output=True, text=True)
    symbols = [line.split()[-2:] for line in listed.stdout.splitlines()]
    undefined = {name for kind, name in symbols if kind == "U"}
    assert undefined <= {"memcpy", "memset", "__stack_chk_fail", "_GLOBAL_OFFSET_TABLE_"}
    assert not [name for kind, name in symbols if kind in "dDbB"], "no variables"


def test_the_numbers_are_those_of_the_kernels():
    text = (Path(__file__).parents[1] / "csrc" / "activations.h").read_text()
    wide, narrow = text.split("#else")[0], text.split("#else")[1].split("#endif")[0]
    for kind, part in (("double", wide), ("float", narrow)):
        for name, table in (("EXP", EXP), ("EXPM1_2", EXPM1_2)):
            listed = re.search(rf"\b{name}\[\] = {{(.*?)}}", part, re.DOTALL)[1]
            numbers = [float(word.strip().rstrip("f")) for word in listed.split(",")]
            assert numbers == [float(c) for c in table[kind]]
        for name in ("LN2_HIGH", "LN2_LOW"):
            theirs = float(re.search(rf"#define {name} (\S+)", part)[1].rstrip("f"))
            ours = np.array(
                [FORMAT[kind][each].removesuffix("_r") for each in (name, f"HALF_{name}")]
            )
            real = np.float32 if kind == "float" else np.float64
            assert (ours.astype(real) == np.array([theirs, theirs / 2]).astype(real)).all()


# --- files and arguments --------------------------------------------------------------------------


def test_bad_arguments(tmp_path):
    gru, path = fastlstm.GRU(3, 4), tmp_path / "net.c"
    broken = fastlstm.GRU(3, 4)
    broken.flat[0] = np.nan
    for network, error, message in (
        ("gru", TypeError, "network: expected layers or a sequence"),
        ([], TypeError, "network: expected layers"),
        ([gru, 3], TypeError, r"network\[1\]: expected LSTM, GRU, RNN or Linear, got int"),
        ([gru, Linear(3, 1)], ValueError, r"network\[1\]: expected an input of 4"),
        ([gru, Linear(4, 1, dtype="f8")], TypeError, r"network\[1\]: expected float32"),
        (Linear(4, 1), ValueError, "network: expected a recurrent layer"),
        (broken, ValueError, r"network\[0\]: expected finite parameters"),
        (
            fastlstm.GRU(3, 4, compute_dtype="int8"),
            ValueError,
            r"network\[0\]: expected compute_dtype=None, .* got 'int8'",
        ),
    ):
        with pytest.raises(error, match=message):
            fastlstm.export.c(path, network)
    for options, message in (
        ({"name": "7up"}, "name: expected a lower-case identifier"),
        ({"name": "lstm_0"}, "name: expected another one"),
        ({"storage": "int4"}, "storage: expected None or 'bfloat16'"),
    ):
        with pytest.raises(ValueError, match=message):
            fastlstm.export.c(path, gru, **options)
    with pytest.raises(ValueError, match="storage: expected None for float64"):
        fastlstm.export.c(path, fastlstm.GRU(3, 4, dtype="f8"), storage="bfloat16")
    with pytest.raises(ValueError, match="path: expected that of a source"):
        fastlstm.export.c(tmp_path / "net.h", gru)
    assert not os.listdir(tmp_path)


def test_files_are_replaced_only_if_asked(tmp_path):
    (tmp_path / "net.h").write_text("mine")
    with pytest.raises(FileExistsError, match="overwrite=True"):
        fastlstm.export.c(tmp_path / "net.c", fastlstm.GRU(3, 4))
    assert os.listdir(tmp_path) == ["net.h"]
    fastlstm.export.c(tmp_path / "net.c", fastlstm.GRU(3, 4), overwrite=True)
    assert "net_step" in (tmp_path / "net.h").read_text()


def test_the_command(tmp_path, capsys):
    pytest.importorskip("safetensors")
    from fastlstm import files

    model, path = tmp_path / "model.safetensors", tmp_path / "net.c"
    files.save(ALL_IN_ONE, model)
    assert main(["export", str(model), str(path), "--name", "net"]) == 0
    assert "24 of 24" in self_test(HOST, tmp_path)
    assert main(["export", str(model), str(path)]) == 1
    assert "--force replaces it" in capsys.readouterr().err
    assert main(["export", str(path), str(path), "--force"]) == 1
    assert "net.c: " in capsys.readouterr().err
