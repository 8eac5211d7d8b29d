"""What the machine can do, and from that the least time that a case can take.

Decisions:
a) Arithmetic and bandwidth are measured with the instruction set and the number of threads in use,
   each thread on its own memory; of several rounds the best counts, since it is a limit.
b) The bound is one of two: all matrix products at the speed of arithmetic, or the recurrent weights
   read once in every step (the input weights once), from the nearest cache that can hold them. The
   batch shares that read, and the threads share the weights.
c) Not counted is what works either way by little: the cell's exponentials, and weights so few that
   they stay in registers, or so many that a part of them stays in a nearer cache.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fastlstm._measure import Problem, seconds
from fastlstm.functional import CORES

CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
BEYOND = "memory"  # what lies beyond the core's own caches: a shared L3 as well


class Roofline(NamedTuple):
    """Limits of the machine.

    Attributes
    ----------
    threads : int
    arithmetic : float
        Floating point operations per second, all threads together; a fused multiply-add is two.
    caches : dict of int
        Size in bytes of each cache that a core has for itself, nearest first.
    bandwidth : dict of float
        Bytes read per second, all threads together, from each of the caches and from beyond.
    """

    threads: int
    arithmetic: float
    caches: dict[str, int]
    bandwidth: dict[str, float]

    def level(self, size: int) -> str:
        """Return the nearest level that holds `size` bytes when threads share them."""
        for name, capacity in self.caches.items():
            if size <= capacity * self.threads:
                return name
        return BEYOND

    def least_time(self, problem: Problem) -> float:
        """Return the lower bound of the time in seconds."""
        steps = problem.case.T if problem.lengths is None else int(problem.lengths.max())
        passes = 2 if problem.trains else 1
        traffic = passes * (steps * problem.w_hh.nbytes + problem.w_ih.nbytes)
        bandwidth = self.bandwidth[self.level(problem.w_hh.nbytes)]
        return max(problem.operations / self.arithmetic, traffic / bandwidth)


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


def measure_roofline(threads: int, dtype: DTypeLike = np.float32, rounds: int = 20) -> Roofline:
    """Measure the limits of this machine for a number of threads."""
    dtype = np.dtype(dtype)
    core: Any = CORES[dtype]
    caches = cache_sizes()
    with ThreadPoolExecutor(threads) as pool:

        def rate(work: Callable[[int, int], Any], amount: int) -> float:
            """Return how much all threads do per second, `amount` being one thread's per repeat."""
            repeats = max(1, int(0.005 / seconds(lambda: work(0, 100)) * 100))

            def together() -> None:
                list(pool.map(work, range(threads), [repeats] * threads))

            return threads * amount * repeats / min(seconds(together) for _ in range(rounds))

        def read_rate(size: int) -> float:
            arrays = [aligned_ones(size, dtype) for _ in range(threads)]
            return rate(lambda i, repeats: core.read(arrays[i], repeats), arrays[0].nbytes)

        return Roofline(
            threads,
            rate(lambda i, repeats: core.fma_peak(repeats), core.fma_peak_operations()),
            caches,
            {name: read_rate(size // 2) for name, size in caches.items()}
            | {BEYOND: read_rate(8 * caches["L2"])},
        )


def aligned_ones(size: int, dtype: np.dtype) -> NDArray:
    """Return about `size` bytes of ones, aligned to a cache line and of whole blocks of 128."""
    elements = max(128, size // dtype.itemsize // 128 * 128)
    buffer = np.ones(elements + 64 // dtype.itemsize, dtype)
    start = -buffer.ctypes.data % 64 // dtype.itemsize
    return buffer[start : start + elements]
