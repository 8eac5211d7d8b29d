"""Calls of everything that is compiled, small and in every way, and a digest of their results.

    python tests/sanitize/workload.py [--sample]

All cells and variants, ragged, reversed and in episodes, on every instruction set, in both types,
on one thread and on four; layers, streams, the C API, optimisers. It runs under tools that are too
slow for pytest, or that compare the bits of two runs. Each result is looked at: it has to
be finite.
"""

import argparse
import hashlib
import sys

import numpy as np
from cells import CELLS
from helpers import forced_isa, forced_threads

import fastlstm
from fastlstm import capi, training
from fastlstm._core import runtime

SIZES = [(5, 3, 7, 4), (3, 1, 2, 33)]  # T, B, I, H: tails on every instruction set
LARGE = (6, 8, 70, 70)  # four threads take part


def arrays_of(value):
    """Yield the arrays in results of any kind."""
    if isinstance(value, np.ndarray):
        yield value
    elif isinstance(value, dict):
        for each in value.values():
            yield from arrays_of(each)
    elif isinstance(value, tuple | list):
        for each in value:
            yield from arrays_of(each)


def array_functions(rng, dtype, sizes):
    """Yield the outputs and gradients of each cell and variant."""
    for cell in CELLS.values():
        for T, B, I, H in sizes:
            upstream = cell.upstream(rng, T, B, H, dtype)
            ragged = {"lengths": rng.integers(0, T + 1, B), "reverse": True}
            episodes = {"resets": rng.random((T, B)) < 0.3}
            for extra, given in (({}, False), (ragged, True), (ragged | episodes, True)):
                arguments, options = cell.arguments(rng, T, B, I, H, dtype, bias=given, state=given)
                yield cell.both(fastlstm, arguments, options | extra, upstream)


def layers(rng, dtype):
    """Yield what layers, streams, optimisers and the C API give."""
    T, B, I, H = 4, 3, 5, 9
    x = rng.standard_normal((T, B, I)).astype(dtype)
    for cls in (fastlstm.LSTM, fastlstm.GRU, fastlstm.RNN):
        net = cls(I, H, 2, bidirectional=True, dropout=0.3, dtype=dtype, rng=0)
        y, _, tape = net.forward(x, checkpoint=2)
        gradients = net.backward(tape, np.ones_like(y))
        training.Adam([net]).step([gradients])
        yield y, gradients.x, net.flat, net(x)[0]
        stream = cls(I, H, 2, dtype=dtype, rng=0).stream(B)
        yield [stream.step(x_t) for x_t in x]
        plan = capi.Plan(cls.cell, *[net.params[f"weight_{k}_l0"] for k in ("ih", "hh")])
        yield np.array(plan.state(B)).size


def main():
    """Print the digest."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sample", action="store_true", help="fewer sizes, one instruction set")
    sample = parser.parse_args().sample
    digest, count = hashlib.sha256(), 0
    isas = runtime.available_isas()
    for isa in isas[:1] if sample else isas:
        for dtype in (np.float32, np.float64):
            for threads in (1, 4):
                with forced_isa(isa), forced_threads(threads):
                    rng = np.random.default_rng(0)
                    sizes = [LARGE] if threads > 1 else SIZES[: 1 if sample else 2]
                    results = [*array_functions(rng, dtype, sizes), *layers(rng, dtype)]
                for array in arrays_of(results):
                    if not np.isfinite(array).all():
                        sys.exit(f"{isa}, {np.dtype(dtype)}, {threads} threads: not finite")
                    digest.update(np.ascontiguousarray(array).tobytes())
                    count += 1
    print(f"{count} arrays, {digest.hexdigest()[:16]}")


if __name__ == "__main__":
    main()
