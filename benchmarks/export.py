"""A step of exported C beside the C API's and RTNeural's layers: ``python benchmarks/export.py``.

    python benchmarks/export.py lstm gru --shapes 1,16 1,40 --rtneural ~/RTNeural

All take turns in one process; a figure is the least of the means over 1000 steps in a row, each of
which waits for the one before. First their outputs are compared. All with -O3 -march=native:

    C API            through the table of functions, kernels of this CPU
    exact            exported, -ffp-contract=off: the bits of FASTLSTM_ISA=scalar
    contracted       exported, -ffp-contract=fast: products and sums fused
    fast             the same and -DNET_FAST: sums in several chains
    std, eigen       rtneural_layers.cpp, what RTNeural does; Eigen wants libeigen3-dev
    RTNeural         its own headers with its Eigen or xsimd back end, where a checkout is given
"""

import argparse
import ctypes
import os
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

import fastlstm
import fastlstm.export
from fastlstm import capi

HERE = Path(__file__).parent
SHAPES = [(1, H) for H in (8, 16, 20, 24, 32, 40, 64)] + [(32, 32), (64, 64)]
STEPS = 1000
NATIVE = ["-O3", "-march=native"]
EXPORTED = {
    "exact": ["-ffp-contract=off"],
    "contracted": ["-ffp-contract=fast"],
    "fast": ["-ffp-contract=fast", "-DNET_FAST"],
}
TIMER = r"""
#include <time.h>
static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}
double seconds(const float *x, float *y, int rounds, int steps)
{
    double least = 1e9;
    for (int round = 0; round < rounds; round++) {
        const double start = now();
        RUN(x, y, steps);
        const double took = now() - start;
        least = took < least ? took : least;
    }
    return least / steps;
}
"""


class Candidate:
    """A library with `seconds` in it, and a function that puts it into its initial state."""

    def __init__(self, path: Path, reset: Callable[[ctypes.CDLL], object] | None = None):
        self.library = ctypes.CDLL(str(path))
        self.library.seconds.restype = ctypes.c_double
        if reset:
            reset(self.library)

    def __call__(self, x: np.ndarray, y: np.ndarray, rounds: int) -> float:
        """Return the seconds of a step."""
        return self.library.seconds(pointer(x), pointer(y), rounds, len(x))


def pointer(array: np.ndarray) -> ctypes.c_void_p:
    """Return the address of an array."""
    return ctypes.c_void_p(array.ctypes.data)


def compiled(folder: Path, name: str, source: str, *flags: str, suffix: str = ".c") -> Path:
    """Compile a text and return the library."""
    (folder / f"{name}{suffix}").write_text(source)
    compiler = os.environ.get(*(("CC", "gcc") if suffix == ".c" else ("CXX", "g++")))
    command = [compiler, *NATIVE, *flags, "-shared", "-fPIC", f"{name}{suffix}"]
    subprocess.run([*command, "-o", f"{name}.so"], cwd=folder, check=True)
    return folder / f"{name}.so"


def exported(
    folder: Path, layer: fastlstm.layers.Recurrent, only: list[str]
) -> dict[str, Candidate]:
    """Return the exported file, compiled in each way."""
    fastlstm.export.c(folder / "net.c", layer, name="net")
    run = "static net_state state;\n"
    run += (
        "static void run(const float *x, float *y, int n) { net_run(&state, x, y, (size_t)n); }\n"
    )
    source = f'#include "net.c"\n{run}#define RUN run\n{TIMER}'
    return {
        name: Candidate(compiled(folder, name, source, *flags))
        for name, flags in EXPORTED.items()
        if name in only
    }


def c_api(folder: Path, layer: fastlstm.layers.Recurrent) -> Candidate:
    """Return the step of the C API, called from C."""
    source = f"""
#include <fastlstm.h>
static const fastlstm_api *api;
static fastlstm_state *state;
void begin(const fastlstm_api *a, fastlstm_state *s) {{ api = a; state = s; }}
static void run(const float *x, float *y, int n)
{{
    for (int t = 0; t < n; t++)
        api->step(state, x + t * {layer.input_size}, y + t * {layer.hidden_size});
}}
#define RUN run
{TIMER}"""
    names = ("weight_ih_l0", "weight_hh_l0", "bias_l0")
    plan = capi.Plan(layer.cell, *(layer.params[name] for name in names))
    state = plan.state(1)
    path = compiled(folder, "api", source, f"-I{fastlstm.get_include()}")
    candidate = Candidate(
        path, lambda library: library.begin(ctypes.byref(plan.functions), pointer(state))
    )
    candidate.kept = plan, state  # type: ignore[attr-defined]
    return candidate


def peers(
    folder: Path, layer: fastlstm.layers.Recurrent, rtneural: Path | None
) -> dict[str, Candidate]:
    """Return RTNeural's layers in our words, and its own."""
    text = (HERE / "rtneural_layers.cpp").read_text()
    text += f'#define RUN peer_run\nextern "C" {{\n{TIMER.replace("#include <time.h>", "")}\n}}\n'
    flags = [f"-DCELL_{layer.cell.upper()}", f"-DINPUTS={layer.input_size}"]
    flags += [f"-DUNITS={layer.hidden_size}", "-std=c++17"]
    variants = {"std": ["-DPLAIN"]}
    if Path("/usr/include/eigen3").is_dir():
        variants["eigen"] = [
            "-DEIGEN",
            "-DEIGEN_STACK_ALLOCATION_LIMIT=0",
            "-isystem",
            "/usr/include/eigen3",
        ]
    if rtneural:
        own = ["-DRTNEURAL", f"-I{rtneural}", "-isystem", f"{rtneural}/modules/json"]
        eigen = [
            "-DRTNEURAL_USE_EIGEN=1",
            "-DEIGEN_STACK_ALLOCATION_LIMIT=0",
            "-isystem",
            f"{rtneural}/modules/Eigen",
        ]
        variants["RTNeural, Eigen"] = [*own, *eigen, "-DRTNEURAL_DEFAULT_ALIGNMENT=32"]
        include = rtneural / "modules" / "xsimd" / "include"
        if include.is_dir():
            xsimd = ["-DRTNEURAL_USE_XSIMD=1", "-isystem", str(include)]
            xsimd.append("-DRTNEURAL_DEFAULT_ALIGNMENT=64")
            variants["RTNeural, xsimd"] = [*own, *xsimd]
    arrays = [np.ascontiguousarray(layer.params[n]) for n in ("weight_ih_l0", "weight_hh_l0")]
    arrays.append(np.ascontiguousarray(layer.params["bias_l0"]))
    if layer.cell == "lstm":  # from PyTorch's i, f, g, o to f, i, g, o
        arrays = [in_our_order(array, "ifgo", "figo") for array in arrays]
    else:  # from r, z, n (and q) to n, r, z (and q)
        arrays[:2] = [in_our_order(array, "rzn", "nrz") for array in arrays[:2]]
        arrays[2] = in_our_order(arrays[2], "rznq", "nrzq")
    found = {}
    for k, (name, own_flags) in enumerate(variants.items()):
        path = compiled(folder, f"peer{k}", text, *flags, *own_flags, suffix=".cpp")
        found[name] = Candidate(path, lambda library: library.peer_set(*map(pointer, arrays)))
    return found


def in_our_order(array: np.ndarray, letters: str, order: str) -> np.ndarray:
    """Return blocks of rows, named by letters, in another order."""
    blocks = array.reshape(len(letters), -1)
    return np.ascontiguousarray(blocks[[letters.index(letter) for letter in order]])


def shape(text: str) -> tuple[int, int]:
    """Return I and H."""
    I, H = map(int, text.split(","))
    return I, H


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("cells", nargs="*", default=["lstm", "gru"], help="lstm, gru")
    parser.add_argument(
        "--shapes", nargs="+", help="I,H", type=lambda t: tuple(map(int, t.split(",")))
    )
    parser.add_argument("--rounds", type=int, default=600)
    parser.add_argument("--rtneural", type=Path, help="a checkout of RTNeural")
    parser.add_argument("--only", nargs="+", default=list(EXPORTED), help="ways to compile ours")
    parser.add_argument("--no-peers", action="store_true")
    arguments = parser.parse_args()
    fastlstm.show_config()
    rng = np.random.default_rng(0)
    titles: list[str] = []
    for cell in arguments.cells or ["lstm", "gru"]:
        for I, H in arguments.shapes or SHAPES:
            layer = getattr(fastlstm, cell.upper())(I, H, rng=0)
            x = rng.standard_normal((STEPS, I)).astype(np.float32)
            with tempfile.TemporaryDirectory() as text:
                folder = Path(text)
                all_ = {"C API": c_api(folder, layer)}
                all_ |= exported(folder, layer, arguments.only)
                if not arguments.no_peers:
                    all_ |= peers(folder, layer, arguments.rtneural)
                times = timed(layer, all_, x, arguments.rounds)
            if not titles:
                titles = list(all_)
                print("ns per step".ljust(14) + "".join(f"{title:>16}" for title in titles))
            row = "".join(f"{1e9 * t:16.0f}" for t in times.values())
            print(f"{cell:5}{I:4},{H:3} {row}", flush=True)


def timed(
    layer: fastlstm.layers.Recurrent, all_: dict[str, Candidate], x: np.ndarray, rounds: int
) -> dict[str, float]:
    """Compare outputs, then return the least time of a step of each."""
    desired = layer(x[:, np.newaxis])[0][:, 0]
    least = dict.fromkeys(all_, np.inf)
    y = np.empty_like(desired)
    for name, candidate in all_.items():
        candidate(x, y, 1)
        np.testing.assert_allclose(y, desired, atol=1e-5, err_msg=name)
    for _ in range(10):
        for name, candidate in all_.items():
            least[name] = min(least[name], candidate(x, y, max(rounds // 10, 1)))
    return least


if __name__ == "__main__":
    main()
