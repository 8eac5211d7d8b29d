"""Every allocation fails in turn, threads cannot be started: MemoryError, or the bits of before.

    python tests/sanitize/run.py failures

Run under `preload.c`, which counts allocations and lets one of them fail: Python's, NumPy's and
ours alike. Each operation is repeated with the first allocation failing, with the second, and so
on, until none is left to fail. Whatever is not MemoryError must be the right result, and afterwards
the operation works as before.

Layers are made beforehand: `numpy.random.default_rng` itself crashes where its lock has no memory
(NumPy 2.4; so `files.load`, which makes a layer, is not tried either). Nor is `capi.Plan`, since
NumPy's ``array.ctypes.data`` crashes alike, nor `files.save`: safetensors, in Rust, aborts.
"""

import ctypes
import gc
import hashlib
import re
import sys

import numpy as np
from helpers import forced_threads

import fastlstm
from fastlstm.training import Adam

PRELOADED = ctypes.CDLL(None)
PRELOADED.fail_allocation.argtypes = [ctypes.c_long, ctypes.c_long]
PRELOADED.fail_allocation.restype = ctypes.c_long
NET = fastlstm.LSTM(3, 9, 2, bidirectional=True, rng=0)
X = np.random.default_rng(0).standard_normal((5, 2, 3)).astype(np.float32)
TRAINED, STEPPED = fastlstm.LSTM(3, 9, rng=0), fastlstm.RNN(3, 5, 2, rng=0)
START = TRAINED.flat.copy()
LARGE = fastlstm.LSTM(70, 70, rng=0)
LARGE_X = np.random.default_rng(0).standard_normal((8, 8, 70)).astype(np.float32)


def call():
    return NET(X)


def train():
    lstm = TRAINED
    lstm.flat[...] = START
    y, _, tape = lstm.forward(X, checkpoint=2, lengths=[5, 3])
    gradients = lstm.backward(tape, np.ones_like(y))
    Adam([lstm]).step([gradients])
    return gradients.x, gradients.flat, lstm.flat.copy()


def gru():
    w_ih, w_hh = np.linspace(-1, 1, 36).reshape(12, 3), np.linspace(1, -1, 48).reshape(12, 4)
    out = fastlstm.gru_forward(X.astype(float), w_ih, w_hh, training=True)
    return out.y, *fastlstm.gru_backward(out.tape, dh_n=out.h_n)[:3]


def stream():
    steps = STEPPED.stream(2)
    return [steps.step(x_t) for x_t in X]


def threads():
    with forced_threads(4):
        return LARGE(LARGE_X)


OPERATIONS = [call, train, gru, stream, threads]


def bits(value):
    """Return a digest of arrays and numbers."""
    digest = hashlib.sha256()

    def add(each):
        if isinstance(each, tuple | list):
            for part in each:
                add(part)
        else:
            digest.update(np.ascontiguousarray(each).tobytes())

    add(value)
    return digest.hexdigest()


def fail_in_turn(operation, least):
    """Return how often an allocation failed, and how often that was MemoryError."""
    expected, failed, errors = bits(operation()), 0, 0
    while True:
        result = None
        gc.collect()
        PRELOADED.fail_allocation(failed + 1, least)
        try:
            result = operation()
        except (MemoryError, ctypes.ArgumentError):  # ctypes wraps the MemoryError of an argument
            errors += 1
        except (OSError, RuntimeError) as error:  # what Python says where a lock needs memory
            if not isinstance(error, OSError) and not re.search("allocate.* lock", str(error)):
                raise
            errors += 1
        except SystemError as error:  # NumPy's reductions and `array.ctypes` forget to say what
            last = error.__traceback__
            while last.tb_next:
                last = last.tb_next
            of_numpy = "numpy" in last.tb_frame.f_code.co_filename
            if not of_numpy and "NULL object passed to Py_BuildValue" not in str(error):
                raise
            errors += 1
        try:
            left = PRELOADED.fail_allocation(0, 0)
        except (MemoryError, ctypes.ArgumentError):  # of the argument: the operation was over
            left = 1
        if result is not None and bits(result) != expected:
            sys.exit(f"{operation.__name__}: a wrong number when allocation {failed + 1} fails")
        if left > 0:
            return failed, errors
        failed += 1
        if bits(operation()) != expected:
            sys.exit(f"{operation.__name__}: wrong after allocation {failed} has failed")


def main():
    """Print how often what failed."""
    for operation in OPERATIONS:
        for least in (1, 2048):
            operation()
            failed, errors = fail_in_turn(operation, least)
            if not errors and least == 1:
                sys.exit(f"{operation.__name__}: no MemoryError at all: nothing was tried")
            print(
                f"{operation.__name__}, allocations of {least} bytes or more: {failed} failed, "
                f"{errors} times MemoryError, else the result",
                flush=True,
            )
    expected = bits(LARGE(LARGE_X))
    for failing in (1, 2, 3):  # a new process each time would have no threads yet: see run.py
        PRELOADED.fail_threads(failing)
        with forced_threads(8 + 8 * failing):
            for _ in range(20):
                if bits(LARGE(LARGE_X)) != expected:
                    sys.exit(f"a wrong number when {failing} threads cannot be started")
    PRELOADED.fail_threads(0)
    print("threads that cannot be started: the same bits")


if __name__ == "__main__":
    main()
