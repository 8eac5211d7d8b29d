"""Many calls of mixed shapes from 8 threads on one model: flat memory, the bits of a call alone.

python tests/sanitize/soak.py CALLS
"""

import resource
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np

import fastlstm

THREADS, ROUNDS = 8, 10
SHAPES = [(1, 1), (3, 2), (20, 1), (5, 17), (40, 3), (2, 64), (64, 33)]


def resident() -> int:
    """Return the memory of this process in bytes."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def main() -> None:
    """Print how memory went."""
    calls = int(sys.argv[1])
    rng = np.random.default_rng(0)
    net = fastlstm.LSTM(8, 24, 2, rng=0)
    inputs = [rng.standard_normal((T, B, 8), dtype=np.float32) for T, B in SHAPES]
    expected = [net(x)[0].tobytes() for x in inputs]

    def work(seed: int) -> int:
        order = np.random.default_rng(seed)
        wrong = 0
        for k in order.integers(0, len(SHAPES), calls // THREADS // ROUNDS):
            if order.random() < 0.1:
                y, _, tape = net.forward(inputs[k])
                net.backward(tape, y)
            else:
                y, _ = net(inputs[k])
            wrong += y.tobytes() != expected[k]
        return wrong

    sizes = []
    with ThreadPoolExecutor(THREADS) as pool:
        for part in range(ROUNDS):
            wrong = sum(pool.map(work, range(part * THREADS, (part + 1) * THREADS)))
            if wrong:
                sys.exit(f"{wrong} calls gave other bits than alone")
            sizes.append(resident())
    grown = sizes[-1] - sizes[2]  # in the first rounds every thread gets its heap
    if grown > 16e6:
        sys.exit(f"memory grew by {grown / 1e6:.1f} MB: {[round(s / 1e6) for s in sizes]}")
    print(f"{calls} calls, memory {sizes[0] / 1e6:.0f} to {sizes[-1] / 1e6:.0f} MB, bits as alone")


if __name__ == "__main__":
    main()
