"""The C API: its bits are those of Python, and its examples are built, run and compared.

Extensions are compiled in a temporary folder against the fastlstm that is imported.
"""

import ctypes
import os
import shutil
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from cells import LAYERS, each_layer, lstm_arguments
from helpers import assert_close, assert_same_bits, forced_threads, normal, some_resets

import fastlstm
from fastlstm import capi

WATCH = Path(__file__).parent / "embedding"
EXAMPLES = Path(__file__).parents[1] / "examples" / "embedding"
COMPILER = shutil.which(os.environ.get("CC", "cc"))
needs_compiler = pytest.mark.skipif(COMPILER is None, reason="no C compiler")

DIFFERENTIABLE = ("x", "w_ih", "w_hh", "b", "h_0", "c_0", "peephole", "w_proj", "layer_norm")


def plan_of(cell, arrays, options, **more):
    parameters = {k: v for k, v in arrays.items() if k not in ("x", "h_0", "c_0")}
    return capi.Plan(cell, **parameters, **options, **more)


def at(array):
    """Return the address of a contiguous array or of memory, or None."""
    if array is None:
        return None
    if isinstance(array, Memory):
        return array.address
    assert array.flags.c_contiguous
    return array.ctypes.data


class Memory:
    """The caller's memory: aligned, full of NaN, between guards."""

    GUARD = 256

    def __init__(self, size):
        self.whole = np.full(size + 2 * self.GUARD, 255, np.uint8)
        self.first = self.GUARD + -self.whole.ctypes.data % 64
        self.last = self.first + size
        self.address = self.whole.ctypes.data + self.first

    def is_intact(self):
        return (self.whole[: self.first] == 255).all() and (self.whole[self.last :] == 255).all()


class Runner:
    """A state of a plan that starts where the arrays say."""

    def __init__(self, plan, arrays):
        self.plan, self.api = plan, plan.functions
        self.T, self.B, _ = arrays["x"].shape
        self.dtype = arrays["x"].dtype
        self.state = Memory(self.api.state_size(plan.address, self.B))
        self.workspace = Memory(self.api.workspace_size(plan.address, self.T, self.B))
        assert self.api.init_state(plan.address, at(self.state), self.B) == 0
        self.start = [np.ascontiguousarray(arrays[k]) for k in ("h_0", "c_0") if k in arrays]
        self.api.set_state(at(self.state), at(self.start[0]), at(self.start[-1]))

    def final(self):
        """Return h and, of an LSTM, c."""
        h = np.empty((self.B, self.plan.output_size), self.dtype)
        c = np.full((self.B, self.plan.hidden_size), 7, self.dtype)
        self.api.get_state(at(self.state), at(h), at(c))
        if len(self.start) == 2:
            return h, c
        assert (c == 7).all()
        return (h,)

    def steps(self, x):
        y = np.empty((len(x), self.B, self.plan.output_size), self.dtype)
        for x_t, y_t in zip(x, y, strict=True):
            self.api.step(at(self.state), at(x_t), at(y_t))
        return y

    def forward(self, x, resets=None):
        y = np.empty((len(x), self.B, self.plan.output_size), self.dtype)
        call, memory = (at(self.state), len(x), at(x)), at(self.workspace)
        if resets is None:
            assert self.api.forward(*call, at(y), memory) == 0
        else:
            assert self.api.forward_episodes(*call, at(resets), at(y), None, memory) == 0
        return y


@each_layer
def test_steps_and_sequences_have_the_bits_of_python(isa, dtype, rng, cell):
    for T, B, I, H in ((6, 1, 1, 20), (5, 7, 9, 5)):
        arrays, options = cell.arguments(rng, T, B, I, H, dtype)
        y, *final = cell.forward(fastlstm, arrays, options)
        x, plan = arrays["x"], plan_of(cell.kind, arrays, options)
        whole, chunks, mixed, silent = (Runner(plan, arrays) for _ in range(4))
        assert_same_bits(whole.forward(x), y)
        assert_same_bits(np.concatenate([chunks.steps(x[:3]), chunks.steps(x[3:])]), y)
        pieces = [mixed.steps(x[:1]), mixed.forward(x[1:4]), mixed.forward(x[:0])]
        assert_same_bits(np.concatenate([*pieces, mixed.steps(x[4:])]), y)
        silent.api.step(at(silent.state), at(x), None)
        silent.api.forward(at(silent.state), T - 1, at(x[1:]), None, at(silent.workspace))
        for runner in (whole, chunks, mixed, silent):
            assert_same_bits(runner.final(), tuple(final))
            assert runner.state.is_intact()
            assert runner.workspace.is_intact()


@each_layer
def test_episodes_have_the_bits_of_python(isa, dtype, rng, cell):
    T, B = 9, 5
    arrays, options = cell.arguments(rng, T, B, 3, 21, dtype)
    x, resets = arrays["x"], some_resets(rng, T, B)
    for reverse in (False, True):
        call = {"resets": resets, "reverse": reverse}
        y, *final = cell.forward(fastlstm, arrays, options | call)
        plan = plan_of(cell.kind, arrays, options, reverse=reverse)
        whole, steps = Runner(plan, arrays), Runner(plan, arrays)
        assert_same_bits(whole.forward(x, resets), y)
        runners = [whole]
        if not reverse:
            for t in range(T):
                steps.api.reset_rows(at(steps.state), at(resets[t]))
                assert_same_bits(steps.steps(x[t : t + 1])[0], y[t])
            runners.append(steps)
        for runner in runners:
            assert_same_bits(runner.final(), tuple(final))
            assert runner.state.is_intact()
            assert runner.workspace.is_intact()


@each_layer
@pytest.mark.parametrize("episodes", [False, True], ids=["", "resets"])
def test_gradients_have_the_bits_of_python(isa, dtype, rng, cell, episodes):
    for T, B, I, H, reverse in ((6, 1, 4, 20, False), (40, 16, 3, 17, True)):
        arrays, options = cell.arguments(rng, T, B, I, H, dtype)
        given = cell.upstream(rng, T, B, H, dtype)
        resets = some_resets(rng, T, B) if episodes else None
        call = options | {"reverse": reverse, "resets": resets}
        outputs, expected = cell.both(fastlstm, arrays, call, given)
        expected = expected._asdict()

        plan = plan_of(cell.kind, arrays, options, training=True, reverse=reverse)
        runner = Runner(plan, arrays)
        tape = Memory(runner.api.tape_size(plan.address, T, B))
        y = np.empty_like(outputs[0])
        memory = at(tape), at(runner.workspace)
        x = at(arrays["x"])
        if episodes:
            call = at(runner.state), T, x, at(resets), at(y)
            assert runner.api.forward_episodes(*call, *memory) == 0
            resets[...] = False  # the tape has its own
        else:
            assert runner.api.forward_tape(at(runner.state), T, x, at(y), *memory) == 0
        assert_same_bits(y, outputs[0])
        results = {
            f"d{name}": np.zeros(arrays[name].shape, dtype)
            for name in DIFFERENTIABLE
            if name in arrays
        }
        gradients = capi.Gradients(ctypes.sizeof(capi.Gradients))
        for name, array in (given | results).items():
            setattr(gradients, name, at(array))
        assert runner.api.backward(memory[0], x, ctypes.byref(gradients), memory[1]) == 0
        for name, result in results.items():
            assert_same_bits(result, expected[name[1:]])
        assert runner.api.backward(memory[0], x, ctypes.byref(gradients), memory[1]) == 0
        for name, result in results.items():  # those of the parameters are added to
            twice = 1 if name in ("dx", "dh_0", "dc_0") else 2
            assert_close(result, twice * expected[name[1:]])
        assert tape.is_intact()
        assert runner.workspace.is_intact()


def test_gradients_that_are_not_wanted(dtype, rng):
    arrays, options = LAYERS["lstm everything, coupled"].arguments(rng, 5, 3, 4, 6, dtype)
    runner = Runner(plan_of("lstm", arrays, options, training=True), arrays)
    expected = fastlstm.lstm_backward(
        fastlstm.lstm_forward(**arrays, **options, training=True).tape, dh_n=arrays["h_0"] + 1
    )
    tape, workspace = runner.plan.tape(5, 3), runner.workspace
    runner.api.forward_tape(at(runner.state), 5, at(arrays["x"]), None, at(tape), at(workspace))
    wanted = {name: np.zeros(arrays[name].shape, dtype) for name in ("x", "w_ih", "w_hh")}
    gradients = capi.Gradients(ctypes.sizeof(capi.Gradients))
    dh_n = arrays["h_0"] + 1
    gradients.dh_n = gradients.dh_0 = at(dh_n)  # in place
    for name, array in wanted.items():
        setattr(gradients, f"d{name}", at(array))
    assert (
        runner.api.backward(at(tape), at(arrays["x"]), ctypes.byref(gradients), at(workspace)) == 0
    )
    for name, array in wanted.items():
        assert_same_bits(array, getattr(expected, name))
    assert_same_bits(dh_n, expected.h_0)


def test_a_reversed_plan_runs_a_sequence_from_its_end(dtype, rng):
    arrays = lstm_arguments(rng, 8, 3, 4, 6, dtype)
    expected = fastlstm.lstm_forward(**arrays, reverse=True)
    runner = Runner(plan_of("lstm", arrays, {}, reverse=True), arrays)
    assert_same_bits(runner.forward(arrays["x"]), expected.y)
    assert_same_bits(runner.final(), (expected.h_n, expected.c_n))


def layer_of(arrays, **fields):
    layer = capi.Layer(ctypes.sizeof(capi.Layer), capi.LSTM, **fields)
    layer.input_size, layer.hidden_size = arrays["w_ih"].shape[1], arrays["w_hh"].shape[1]
    for name in ("w_ih", "w_hh", "b"):
        setattr(layer, name, at(arrays[name]))
    return layer


def test_update_takes_other_weights_and_states_go_on(dtype, rng):
    arrays = lstm_arguments(rng, 8, 3, 4, 6, dtype)
    others = lstm_arguments(rng, 8, 3, 4, 6, dtype)
    runner = Runner(plan_of("lstm", arrays, {}), arrays)
    runner.steps(arrays["x"][:3])
    h, c = runner.final()
    update = runner.api.update
    assert update(runner.plan.address, ctypes.byref(layer_of(others))) == 0
    expected = fastlstm.lstm_forward(
        arrays["x"][3:], others["w_ih"], others["w_hh"], others["b"], h, c
    )
    assert_same_bits(runner.steps(arrays["x"][3:]), expected.y)

    wider = lstm_arguments(rng, 8, 3, 4, 7, dtype)
    assert update(runner.plan.address, ctypes.byref(layer_of(wider))) == 2
    extra = layer_of(others)
    extra.peephole = at(np.zeros((3, 6), dtype))
    assert update(runner.plan.address, ctypes.byref(extra)) == 2


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("size", 8),
        ("cell", 0),
        ("cell", 6),
        ("input_size", -1),
        ("hidden_size", 0),
        ("hidden_size", 1 << 29),
        ("proj_size", 3),
        ("w_ih", None),
        ("w_hh", None),
        ("gate", capi.Activation(12, 0, 0)),
        ("gate", capi.Activation(5, -1, 0)),
        ("output", capi.Activation(7, 0, 0)),
        ("clip", 1.0),
        ("cell_clip", -1.0),
        ("cell_clip", float("nan")),
        ("zoneout_h", 1.5),
    ],
)
def test_a_layer_that_does_not_fit_is_refused(dtype, rng, field, value):
    arrays = lstm_arguments(rng, 1, 1, 2, 3, dtype)
    api = capi.f32 if dtype == np.float32 else capi.f64
    plan = ctypes.c_void_p(1)
    good = layer_of(arrays, training=1)
    assert api.create(ctypes.byref(plan), ctypes.byref(good)) == 0
    api.destroy(plan)
    bad = layer_of(arrays, training=1)
    setattr(bad, field, value)
    assert api.create(ctypes.byref(plan), ctypes.byref(bad)) == 2
    assert plan.value is None
    assert b"layer" in api.message(2)


def test_sizes_and_alignment(rng):
    arrays = lstm_arguments(rng, 4, 2, 3, 5, np.float32)
    runner = Runner(plan_of("lstm", arrays, {}), arrays)
    api, plan = runner.api, runner.plan.address
    for size in (
        api.state_size(plan, 3),
        api.tape_size(plan, 4, 2),
        api.workspace_size(plan, 4, 2),
    ):
        assert size > 0
        assert size % 64 == 0
    assert api.state_size(plan, 0) == api.state_size(plan, -1) == 0
    assert api.tape_size(plan, -1, 1) == api.workspace_size(plan, 1, 0) == 0
    state, workspace, x = at(runner.state), at(runner.workspace), at(arrays["x"])
    assert api.init_state(plan, state + 16, 1) == 4
    assert api.init_state(plan, state, 0) == 3
    assert api.forward(state, -1, x, None, workspace) == 3
    assert api.forward(state, 1, x, None, workspace + 4) == 4
    assert api.forward_tape(state, 1, x, None, workspace, workspace) == 5
    assert api.forward_episodes(state, -1, x, x, None, None, workspace) == 3
    assert api.forward_episodes(state, 1, x, x, None, None, workspace + 4) == 4
    assert api.forward_episodes(state, 1, x, x, None, workspace, workspace) == 5
    assert [api.message(i) for i in range(7)] == sorted(
        {api.message(i) for i in range(7)}, key=[api.message(i) for i in range(7)].index
    )
    api.destroy(None)


def test_threads_share_a_plan(rng):
    """ctypes lets go of the GIL, so that these calls do run at once."""
    arrays = lstm_arguments(rng, 200, 2, 8, 32, np.float32)
    plan = plan_of("lstm", arrays, {}, training=True)
    runners = [Runner(plan, arrays) for _ in range(4)]
    expected = fastlstm.lstm_forward(**arrays).y
    with ThreadPoolExecutor(4) as pool:
        for _ in range(3):
            for y in pool.map(lambda runner: runner.forward(arrays["x"]), runners):
                assert_same_bits(y, expected)
            for runner in runners:
                runner.api.set_state(at(runner.state), *map(at, runner.start))


def test_a_plan_keeps_the_set_of_instructions_it_was_made_with(isa, rng):
    arrays = lstm_arguments(rng, 4, 2, 3, 5, np.float32)
    runner = Runner(plan_of("lstm", arrays, {}), arrays)
    expected = fastlstm.lstm_forward(**arrays).y
    fastlstm._core.runtime.set_isa("scalar")  # the fixture puts it back
    assert_same_bits(runner.forward(arrays["x"]), expected)


def test_python_checks_what_a_plan_is_made_of(rng):
    w_ih, w_hh = normal(rng, (12, 2)), normal(rng, (12, 3))
    with pytest.raises(ValueError, match="cell: expected one of lstm, gru, rnn, got 'lstn'"):
        capi.Plan("lstn", w_ih, w_hh)
    with pytest.raises(ValueError, match="w_ih: expected"):
        capi.Plan("lstm", w_ih[:4], w_hh)
    with pytest.raises(TypeError, match="w_hh: expected float64"):
        capi.Plan("lstm", w_ih, w_hh.astype(np.float32))
    with pytest.raises(TypeError, match="zoneout_h: expected a number"):
        capi.Plan("lstm", w_ih, w_hh, zoneout_h=np.zeros((0, 1, 3)))
    with pytest.raises(TypeError, match="lengths: not an option"):
        capi.Plan("lstm", w_ih, w_hh, lengths=[0])
    with pytest.raises(ValueError, match="batch_size: expected at least 1"):
        capi.Plan("lstm", w_ih, w_hh).state(0)


# --- compiled against the header ------------------------------------------------------------------


def environment():
    """Return what lets a process import the fastlstm that is imported here."""
    home = str(Path(fastlstm.__file__).parents[1])
    return os.environ | {"PYTHONPATH": os.pathsep.join([home, os.environ.get("PYTHONPATH", "")])}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Copy the examples to a temporary folder and build them there."""
    for module in ("Cython", "setuptools"):
        pytest.importorskip(module)
    folder = tmp_path_factory.mktemp("embedding") / "examples"
    shutil.copytree(EXAMPLES, folder)
    build = [sys.executable, "setup.py", "build_ext", "--inplace"]
    # what is tested is not their speed, and gcc takes 3 s to optimise what Cython writes
    quick = environment() | {"CFLAGS": "-O0"}
    done = subprocess.run(build, cwd=folder, env=quick, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


def run_in(folder, *command):
    return subprocess.run(
        [sys.executable, *command], cwd=folder, env=environment(), capture_output=True, text=True
    )


@needs_compiler
@pytest.mark.parametrize("program", ["run_c.py", "run_cython.py"])
def test_extensions_run_and_agree_with_python(built, program):
    done = run_in(built, program)
    assert done.returncode == 0, done.stderr
    assert "extension: " in done.stdout


@pytest.mark.parametrize("program", ["run_ctypes.py", "run_numba.py"])
def test_programs_run_and_agree_with_python(program):
    if program == "run_numba.py":
        pytest.importorskip("numba")
    done = run_in(EXAMPLES, program)
    assert done.returncode == 0, done.stderr
    assert done.stdout


@needs_compiler
def test_an_extension_refuses_another_version_of_the_api(tmp_path):
    pytest.importorskip("setuptools")
    for path in (Path(fastlstm.get_include()) / "fastlstm.h", EXAMPLES / "lstm_filter.c"):
        shutil.copy(path, tmp_path)
    header = tmp_path / "fastlstm.h"
    text = header.read_text()
    header.write_text(
        text.replace("#define FASTLSTM_API_VERSION 1u", "#define FASTLSTM_API_VERSION 9u")
    )
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    include = sysconfig.get_paths()["include"]
    flags = ["-shared", "-fPIC", "-std=c11"]
    if sys.platform == "darwin":
        flags += ["-undefined", "dynamic_lookup"]
    subprocess.check_call(
        [COMPILER, *flags, "-I.", f"-I{include}", "lstm_filter.c", "-o", f"lstm_filter{suffix}"],
        cwd=tmp_path,
    )
    done = run_in(tmp_path, "-c", "import lstm_filter")
    assert "ImportError: fastlstm: compiled for C API 9" in done.stderr


@needs_compiler
@pytest.mark.parametrize(
    ("language", "flags"),
    [("c", ["-std=c11", "-pedantic"]), ("c++", ["-std=c++11", "-pedantic"])],
)
def test_the_header_is_plain_and_matches_ctypes(tmp_path, language, flags):
    """Without Python.h, and after <complex.h>, whose I is not ours."""
    sizes = {"api": capi.API, "layer": capi.Layer, "gradients": capi.Gradients}
    checks = "".join(
        f"typedef char {name}_fits[sizeof(fastlstm_{name}) == {ctypes.sizeof(struct)} ? 1 : -1];\n"
        for name, struct in sizes.items()
    )
    source = tmp_path / "plain.c"
    complex_header = "#include <complex.h>\n" if language == "c" else ""
    source.write_text(
        f"{complex_header}#include <fastlstm.h>\n{checks}int main(void) {{ return 0; }}\n"
    )
    warnings = ["-Wall", "-Wextra", "-Werror", "-fsyntax-only"]
    include = f"-I{fastlstm.get_include()}"
    subprocess.check_call([COMPILER, "-x", language, *flags, *warnings, include, str(source)])
    for api in (capi.f32, capi.f64):
        assert (api.version, api.size) == (capi.VERSION, ctypes.sizeof(capi.API))


@pytest.fixture(scope="module")
def watch(tmp_path_factory):
    """Return a library that stands before malloc, free and locks, and counts."""
    if not sys.platform.startswith("linux") or os.confstr("CS_GNU_LIBC_VERSION") is None:
        pytest.skip("watch.c is preloaded as Linux has it, and passes on to glibc's functions")
    library = tmp_path_factory.mktemp("watch") / "watch.so"
    command = [COMPILER, "-O1", "-shared", "-fPIC", f"-I{fastlstm.get_include()}"]
    subprocess.check_call([*command, WATCH / "watch.c", "-o", library, "-ldl"])
    return library


@needs_compiler
def test_steps_and_sequences_allocate_nothing_and_take_no_lock(watch, isa):
    """The kernel watches what the library does not."""
    done = subprocess.run(
        [sys.executable, WATCH / "watch.py", watch],
        env=environment() | {"LD_PRELOAD": str(watch), "FASTLSTM_ISA": isa},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    plans = done.stdout.splitlines()
    assert len(plans) == 2 * 5
    for line in plans:
        by_create, calls, control, ended = map(int, line.split())
        assert by_create == 2
        assert calls == 0
        assert (control, ended) in ((1, 0), (2, 2))  # 2: the kernel cannot watch


def test_sequences_in_c_have_the_same_bits_for_any_number_of_threads(rng):
    arrays = lstm_arguments(rng, 100, 16, 32, 64, np.float32)
    runner = Runner(plan_of("lstm", arrays, {}), arrays)
    y = runner.forward(arrays["x"])  # on the calling thread
    for threads in (1, 2):
        with forced_threads(threads):
            assert_same_bits(fastlstm.lstm_forward(**arrays).y, y)
