"""What the machine can do, and from that the least time that a case can take.

Decisions:
a) Arithmetic and reading are calls like those of the libraries, with the instruction set and the
   number of threads in use, and take turns with them: a machine whose speed drifts by a third from
   one second to the next (frequency, neighbours) drifts for all of them.
b) The bound is one of two: all matrix products at the speed of arithmetic, or the recurrent weights
   read once in every step (the input weights once), from the nearest cache that can hold them. The
   batch shares that read, and the threads share the weights.
c) Not counted is what works either way by little: the cell's exponentials, and weights so few that
   they stay in registers, or so many that a part of them stays in a nearer cache.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fastlstm._commands.bench.measure import Call, Problem, seconds
from fastlstm._core.calls import CORES

CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
ARITHMETIC = "arithmetic"
BEYOND = "memory"  # what lies beyond the core's own caches: a shared L3 as well


class Roofline:
    """The limits of the machine, as calls to time.

    Attributes
    ----------
    caches : dict of int
        Size in bytes of each cache that a core has for itself, nearest first.
    calls : dict of functions
        Work of some milliseconds: arithmetic in registers, reads from each cache and from beyond.
    amounts : dict of int
        What a call does, all threads together: floating point operations (a fused multiply-add is
        two) or bytes read.
    """

    def __init__(self, threads: int, dtype: DTypeLike = np.float32):
        self.threads = threads
        self.caches = cache_sizes()
        self.calls: dict[str, Call] = {}
        self.amounts: dict[str, int] = {}
        self._pool = ThreadPoolExecutor(threads)
        core: Any = CORES[np.dtype(dtype)]

        def add_read(name: str, size: int) -> None:
            arrays = [aligned_ones(size, np.dtype(dtype)) for _ in range(threads)]
            self._add(name, lambda i, repeats: core.read(arrays[i], repeats), arrays[0].nbytes)

        self._add(ARITHMETIC, lambda _, repeats: core.fma_peak(repeats), core.fma_peak_operations())
        for name, size in self.caches.items():
            add_read(name, size // 2)
        add_read(BEYOND, 8 * self.caches["L2"])

    def _add(self, name: str, work: Callable[[int, int], None], amount: int) -> None:
        """Add a call in which each thread i does ``work(i, repeats)``, of `amount` per repeat."""
        repeats = 1
        while seconds(partial(work, 0, repeats)) < 0.003:
            repeats *= 2

        def call() -> Sequence[Any]:
            others = [self._pool.submit(work, i, repeats) for i in range(1, self.threads)]
            work(0, repeats)
            return [other.result() for other in others]

        self.calls[name] = call
        self.amounts[name] = amount * repeats * self.threads

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown()

    def level(self, size: int) -> str:
        """Return the nearest level that holds `size` bytes when the threads share them."""
        for name, capacity in self.caches.items():
            if size <= capacity * self.threads:
                return name
        return BEYOND

    def calls_for(self, problem: Problem) -> dict[str, Call]:
        """Return the calls whose times `least_time` needs."""
        level = self.level(problem.w_hh.nbytes)
        return {name: self.calls[name] for name in (ARITHMETIC, level)}

    def least_time(self, problem: Problem, times: Mapping[str, float]) -> float:
        """Return the lower bound of the time, given the times of the calls, in seconds."""
        level = self.level(problem.w_hh.nbytes)
        steps = problem.case.T if problem.lengths is None else int(problem.lengths.max())
        traffic = steps * problem.w_hh.nbytes + problem.w_ih.nbytes
        if problem.trains:
            traffic *= 2
        arithmetic = problem.operations / self.amounts[ARITHMETIC] * times[ARITHMETIC]
        return float(max(arithmetic, traffic / self.amounts[level] * times[level]))


def cache_sizes() -> dict[str, int]:
    """Return the sizes of L1 and L2 in bytes, or usual ones where the system does not tell."""
    sizes = {"L1": 32 << 10, "L2": 1 << 20}
    for index in sorted(CACHES.glob("index*")):
        level, kind, size = (
            (index / name).read_text().strip() for name in ("level", "type", "size")
        )
        if f"L{level}" in sizes and kind != "Instruction":
            sizes[f"L{level}"] = int(size.removesuffix("K")) << 10
    return sizes


def aligned_ones(size: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return about `size` bytes of ones, aligned to a cache line and of whole blocks of 128."""
    elements = max(128, size // dtype.itemsize // 128 * 128)
    buffer = np.ones(elements + 64 // dtype.itemsize, dtype)
    start = -buffer.ctypes.data % 64 // dtype.itemsize
    return buffer[start : start + elements]
