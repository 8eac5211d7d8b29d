"""What `fastlstm bench` measures, and how libraries are compared.

Decisions:
a) Before anything is timed, results must agree.
b) Calls take turns, since the machine's speed changes from one second to the next; the median of
   the rounds counts.
c) Beside busy processes it is single calls that count: a scheduler takes a core away for some
   milliseconds, which a mean of many calls would hide and the user feels.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fastlstm._args.cells import PLAIN

Call = Callable[[], Sequence[Any]]

KINDS = ("forward", "train", "ragged", "step", "fit")

# by what is multiplied, relative to the largest element; gradients are sums over all rows and steps
TOLERANCE = {"float32": 2e-4, "float64": 1e-9, "bfloat16": 5e-2, "int8": 1e-1}

# Adam's settings in a fit. PyTorch's defaults but for eps: with 1e-8, an update is the sign of a
# gradient that may be rounding and nothing else, and equal libraries would seem to differ.
ADAM: dict[str, Any] = {"lr": 1e-3, "eps": 1e-4}


class Case(NamedTuple):
    """What is measured: a kind of call, the sizes, and the cell.

    ``forward`` is inference on whole sequences. ``train`` is forward and backward, with the
    gradients of the input and of all parameters; ``ragged`` the same on sequences of different
    lengths. ``step`` is one time step that takes up the state of the one before. ``fit`` is one
    training step of a model: the layer, a linear map of its last output to one number, the mean
    squared error, the gradients of all parameters, and Adam.
    """

    kind: str
    T: int
    B: int
    I: int
    H: int
    cell: str = "lstm"

    def __str__(self) -> str:
        return f"{self.cell} {self.kind} {self.T},{self.B},{self.I},{self.H}"


class Problem:
    """The arrays of a case, the same at each call.

    Attributes
    ----------
    compute_dtype : str or None
        What is multiplied, as in `fastlstm.LSTM`; peers may keep all else in it as well.
    x : (T, B, I) array
    w_ih, w_hh, b : arrays
        (GH, I), (GH, H) and (GH,) with G = 4, 3 or 1 gates, in the order of
        `fastlstm.lstm_forward`, `gru_forward` or `rnn_forward`; b of the GRU is (4H,).
    dy : (T, B, H) array
        Gradient of the loss with respect to the outputs, 0 past a sequence's end.
    lengths : (B,) integers in [1, T], or None
    w_out, b_out, target : arrays
        (1, H) and (1,), the linear map of a fit, and (B, 1), what it is to give.
    """

    def __init__(self, case: Case, dtype: DTypeLike = np.float32, compute_dtype: str | None = None):
        self.case = case
        self.dtype = np.dtype(dtype)
        self.compute_dtype = compute_dtype
        kind, T, B, I, H, cell = case
        rng = np.random.default_rng(0)

        def uniform(*shape: int) -> NDArray[Any]:
            return rng.uniform(-1, 1, shape).astype(self.dtype)

        scale = self.dtype.type(H**-0.5)
        rows = PLAIN[cell].G * H
        self.x, self.dy = uniform(T, B, I), uniform(T, B, H)
        self.w_ih, self.w_hh, self.b = (
            scale * uniform(rows, I),
            scale * uniform(rows, H),
            scale * uniform(len(PLAIN[cell].bias) * H),
        )
        self.lengths = rng.integers(1, T + 1, B) if kind == "ragged" else None
        if self.lengths is not None:
            self.dy[np.arange(T)[:, np.newaxis] >= self.lengths] = 0
        self.w_out, self.b_out, self.target = scale * uniform(1, H), uniform(1), uniform(B, 1)

    @property
    def trains(self) -> bool:
        """Whether there is a backward pass."""
        return self.case.kind in ("train", "ragged", "fit")

    @property
    def operations(self) -> int:
        """Multiplications and additions of the matrix products.

        The backward pass has two products where the forward pass has one, but for a fit, which
        needs no gradient of x.
        """
        kind, T, B, I, H, cell = self.case
        rows = T * B if self.lengths is None else int(self.lengths.sum())
        products = 2 * rows * PLAIN[cell].G * H
        if kind == "fit":
            return products * (2 * I + 3 * H) + 3 * 2 * B * H
        return products * (I + H) * (3 if self.trains else 1)


def check_equal(calls: dict[str, Call], problem: Problem) -> None:
    """Run each call once (what has a state three times) and compare with the first.

    Raises
    ------
    RuntimeError
        If a result differs; the message names the library.
    """
    times = 3 if problem.case.kind in ("step", "fit") else 1
    results = {
        name: [array_of(a).copy() for a in chain.from_iterable(call() for _ in range(times))]
        for name, call in calls.items()
    }
    first, *others = results
    for name in others:
        for actual, desired in zip(results[name], results[first], strict=True):
            difference = np.abs(actual.reshape(desired.shape) - desired).max()
            tolerance = TOLERANCE[problem.compute_dtype or problem.dtype.name]
            if not difference <= tolerance * max(1, np.abs(desired).max()):
                raise RuntimeError(
                    f"{problem.case}: {name} differs from {first} by {difference:.1e}"
                )


def array_of(result: Any) -> NDArray[Any]:
    """Return a result as an array; PyTorch's bfloat16 are none of NumPy's."""
    is_bfloat16 = str(getattr(result, "dtype", None)) == "torch.bfloat16"
    return np.asarray(result.float() if is_bfloat16 else result)


PAUSE = 0.01  # seconds


def median_times(calls: dict[str, Call], rounds: int, pause: float = PAUSE) -> dict[str, float]:
    """Return the median time of each call in seconds; the calls take turns.

    Each round repeats a call for about 10 ms. Before it, a pause lets the threads of the library
    before go to sleep (several spin for some milliseconds), and one call is not counted.
    """
    repeats = {}
    for name, call in calls.items():
        call()
        repeats[name] = max(1, int(0.01 / seconds(call)))
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            time.sleep(pause)
            if pause and repeats[name] > 1:
                call()
            times[name].append(seconds(call, repeats[name]))
    return {name: statistics.median(each) for name, each in times.items()}


def times_of_calls(
    calls: dict[str, Call], rounds: int, pause: float = PAUSE
) -> dict[str, NDArray[np.float64]]:
    """Return the times of single calls in seconds; the calls take turns of about 100 ms."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    for _ in range(rounds):
        for name, call in calls.items():
            time.sleep(pause)
            end = time.perf_counter() + 0.1
            while time.perf_counter() < end:
                times[name].append(seconds(call))
    return {name: np.array(each) for name, each in times.items()}


def seconds(call: Callable[[], Any], repeats: int = 1) -> float:
    """Return the time of one call."""
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - start) / repeats
