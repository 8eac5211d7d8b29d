"""A step of one row through the C API, from C: ``python benchmarks/c_step.py``.

RTNeural's figures beside it are for C++ with sizes known when it was compiled, -march=native, on
another machine: read them as an order of magnitude. Each figure is the average over 1000 steps in
a row (a step waits for the one before); of 2000 such averages, the least and the median.
"""

import ctypes
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

import fastlstm
from fastlstm import capi

RTNEURAL = {(1, 16): 0.083, (1, 20): 0.185, (1, 32): 0.133, (1, 40): 0.251}
RTNEURAL |= {(32, 32): 0.208, (64, 64): 1.06}  # microseconds
ROUNDS, STEPS = 2000, 1000


def compiled(folder: str) -> ctypes.CDLL:
    """Compile c_step.c with the C compiler at hand."""
    library = os.path.join(folder, "c_step.so")
    source = Path(__file__).with_suffix(".c")
    command = [os.environ.get("CC", "cc"), "-O2", "-shared", "-fPIC"]
    subprocess.check_call([*command, f"-I{fastlstm.get_include()}", source, "-o", library])
    return ctypes.CDLL(library)


def main() -> None:
    """Print a table."""
    cells = sys.argv[1:] or ["lstm"]
    with tempfile.TemporaryDirectory() as folder:
        library = compiled(folder)
    fastlstm.show_config()
    print(f"{'cell':5}{'I':>4}{'H':>4}{'least us':>10}{'median us':>10}{'RTNeural':>10}")
    rng = np.random.default_rng(0)
    for cell in cells:
        for (I, H), theirs in RTNEURAL.items():
            layer = {"lstm": fastlstm.LSTM, "gru": fastlstm.GRU, "rnn": fastlstm.RNN}[cell](I, H)
            names = ("weight_ih_l0", "weight_hh_l0", "bias_l0")
            plan = capi.Plan(cell, *(layer.params[name] for name in names))
            state, y = plan.state(1), np.empty(H, np.float32)
            x = rng.standard_normal((STEPS, I)).astype(np.float32)
            seconds = np.empty(ROUNDS)
            library.time_steps(
                ctypes.c_void_p(seconds.ctypes.data),
                ROUNDS,
                STEPS,
                ctypes.byref(plan.functions),
                ctypes.c_void_p(state.ctypes.data),
                ctypes.c_void_p(x.ctypes.data),
                I,
                ctypes.c_void_p(y.ctypes.data),
            )
            least, median = 1e6 * seconds.min(), 1e6 * np.median(seconds)
            beside = f"{theirs:10.3f}" if cell == "lstm" else ""
            print(f"{cell:5}{I:4}{H:4}{least:10.3f}{median:10.3f}{beside}")


if __name__ == "__main__":
    main()
