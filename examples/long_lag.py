"""Learn what the LSTM was invented for: a lag of hundreds of steps (docs/long-lag.md has results).

The adding problem of Hochreiter & Schmidhuber (1997, experiment 4): two of T to T + T/10 numbers
are marked, the second at least T/2 steps before the end, and at the end their sum is asked for.

    pip install '.[demo]'
    python examples/long_lag.py                                    # the table: T = 100, 500, 1000
    python examples/long_lag.py --cell rnn                         # what a plain RNN makes of it
    python examples/long_lag.py --length 400 --forget-bias 0 1 long
    python examples/long_lag.py --figures docs                     # gates, and flow of gradients

The task and its measure are theirs; the network is not. Theirs has 4 cells without forget gates
and 93 weights, feeds the gates' outputs back to the gates, and learns by truncated gradients from
one sequence at a time. Here a modern layer of 16 units (LSTM: 1,216 weights, and 17 of the output)
learns by full BPTT and Adam from batches of 16; it is sequences that are counted.
"""

import argparse
import json
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

import fastlstm
from fastlstm import training

CELLS = {"lstm": fastlstm.LSTM, "gru": fastlstm.GRU, "rnn": fastlstm.RNN}
# their table 7, means of 10 trials: sequences until it was learned, wrong of 2560
PUBLISHED = {100: (74_000, 1), 500: (209_000, 0), 1000: (853_000, 1)}
BATCH, RECENT, TEST = 16, 2000, 2560
TOLERANCE = 0.04  # of a right answer
MEAN_ERROR = 0.01  # at which training stops, if there are RECENT right ones in a row as well


def draw(rng: np.random.Generator, T: int, B: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return x (1.1 T, B, 2), values and marks; where each row ends; the targets (B,)."""
    lengths = rng.integers(T, T + T // 10 + 1, B)
    x = np.zeros((lengths.max(), B, 2), np.float32)
    rows = np.arange(B)
    x[..., 0] = rng.uniform(-1, 1, x.shape[:2])
    first = rng.integers(0, 10, B)
    second = rng.integers(0, T // 2 - 1, B)
    second += second >= first  # the first T/2 - 1 that are not marked yet
    x[first, rows, 1] = x[second, rows, 1] = 1
    # -1 marks both ends; where that replaces a 1, the value marked is 0
    x[0, (first == 0) | (second == 0), 0] = 0
    x[0, :, 1] = x[lengths - 1, rows, 1] = -1
    return x, lengths, 0.5 + (x[first, rows, 0] + x[second, rows, 0]) / 4


class Network:
    """A recurrent layer, and a linear output of its last h.

    `forget_bias` is the initial bias of the LSTM's forget gates, or "long": then each unit's memory
    is on a time scale of its own, up to T (Tallec & Ollivier 2018, arXiv:1804.11188), by
    b_f = log(uniform(1, T - 1)), b_i = -b_f; for the GRU, b_z is that b_f.
    """

    def __init__(
        self, cell: str, H: int, T: int, forget_bias: float | str, seed: int, **options: Any
    ):
        rng = np.random.default_rng(seed)
        self.layer = CELLS[cell](2, H, rng=rng, **options)
        self.output = training.Linear(H, 1, rng=rng)
        if cell == "rnn":
            return
        bias = self.layer.params["bias_l0"]  # in rows H to 2H of the gate that keeps: f, or z
        if forget_bias == "long":
            bias[H : 2 * H] = np.log(rng.uniform(1, T - 1, H))
            if cell == "lstm":
                bias[:H] = -bias[H : 2 * H]
        else:
            bias[H : 2 * H] = forget_bias

    def __call__(self, x: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """Return the answers (B,)."""
        _, state = self.layer(x, lengths=lengths)
        return self.output(last_h(state))[:, 0]

    def train(self, rng: np.random.Generator, T: int, learning_rate: float) -> Iterator[np.ndarray]:
        """Yield the absolute errors of batch after batch, each answered before it is learned."""
        modules = [self.layer, self.output]
        optimizer = training.Adam(modules, lr=learning_rate)
        while True:
            x, lengths, target = draw(rng, T, BATCH)
            _, state, tape = self.layer.forward(x, lengths=lengths)
            answer, output_tape = self.output.forward(last_h(state))
            _, gradient = training.mse_loss(answer, target[:, None])
            output_gradients = self.output.backward(output_tape, gradient)
            dh = output_gradients.x[None]
            dstate = (dh, np.zeros_like(dh)) if isinstance(state, tuple) else dh
            gradients = [self.layer.backward(tape, dstate=dstate), output_gradients]
            training.clip_grad_norm(gradients, 1.0)
            optimizer.step(gradients)
            yield np.abs(answer[:, 0] - target)


def last_h(state: Any) -> np.ndarray:
    """Return h (B, H) of a layer's state."""
    h = state[0] if isinstance(state, tuple) else state
    return h[0]


@dataclass
class Trial:
    """How one network learned, or not."""

    T: int
    cell: str
    forget_bias: float | str | None
    hidden_size: int
    learning_rate: float
    seed: int
    learned: bool
    sequences: int
    cpu_seconds: float  # of training, drawing the sequences included
    wrong: int  # of TEST new sequences
    mse: float  # on those


def learn(
    network: Network, T: int, budget: int, learning_rate: float, seed: int
) -> tuple[bool, int]:
    """Train until it is learned or the budget is spent; return whether it is, and the sequences."""
    recent = np.empty(0, np.float32)
    sequences = 0
    errors = network.train(np.random.default_rng((seed, 1)), T, learning_rate)
    # disable=None: no bar where nobody watches it
    with tqdm(total=budget, desc=f"T={T}", unit="seq", disable=None, leave=False) as bar:
        for error in errors:
            sequences += BATCH
            recent = np.concatenate([recent, error])[-RECENT:]
            if len(recent) == RECENT and recent.max() < TOLERANCE and recent.mean() < MEAN_ERROR:
                return True, sequences
            if sequences >= budget:
                return False, sequences
            bar.set_postfix_str(f"mean error {recent.mean():.4f}", refresh=False)
            bar.update(BATCH)
    raise AssertionError("training ends by itself")


def run_trial(
    T: int,
    cell: str,
    forget_bias: float | str,
    H: int,
    budget: int,
    learning_rate: float,
    seed: int,
) -> Trial:
    """Train one network and test it."""
    network = Network(cell, H, T, forget_bias, seed)
    start = time.process_time()
    learned, sequences = learn(network, T, budget, learning_rate, seed)
    seconds = time.process_time() - start
    x, lengths, target = draw(np.random.default_rng((seed, 2)), T, TEST)
    error = np.abs(network(x, lengths) - target)
    return Trial(
        T=T,
        cell=cell,
        forget_bias=None if cell == "rnn" else forget_bias,
        hidden_size=H,
        learning_rate=learning_rate,
        seed=seed,
        learned=learned,
        sequences=sequences,
        cpu_seconds=round(seconds, 2),
        wrong=int(np.count_nonzero(~(error < TOLERANCE))),  # a NaN is wrong
        mse=float(np.mean(error.astype(np.float64) ** 2)),
    )


def report(trials: list[Trial]) -> str:
    """Return a row of the table: means over trials that differ in their seeds."""
    first = trials[0]
    bias = f"{first.forget_bias:g}" if isinstance(first.forget_bias, float) else first.forget_bias
    done = [trial for trial in trials if trial.learned]
    wrong = [trial.wrong for trial in trials]
    published = PUBLISHED.get(first.T)
    return (
        f"{first.T:>5}  {first.cell:<5}{bias or '-':>6}{first.learning_rate:>7g}"
        f"{len(done):>6} of {len(trials):<3}"
        f"{np.mean([trial.sequences for trial in trials]):>10,.0f}"
        f"{np.mean([trial.cpu_seconds for trial in trials]):>9.1f}"
        f"{np.mean(wrong):>9.1f}{max(wrong):>6}"
        f"{np.mean([trial.mse for trial in trials]):>10.5f}"
        + (f"{published[0]:>12,}{published[1]:>7}" if published else "")
    )


HEADER = (
    "    T  cell   bias     lr   learned  sequences    CPU s    wrong   max       mse"
    "   1997: seq.  wrong"
)


def draw_figures(directory: Path, H: int, learning_rate: float) -> None:
    """Save what a trained LSTM does with a sequence, and how gradients flow in untrained layers."""
    from fastlstm import plot

    directory.mkdir(parents=True, exist_ok=True)
    T = 100
    network = Network("lstm", H, T, "long", seed=0)
    learned, sequences = learn(network, T, PUBLISHED[T][0], learning_rate, seed=0)
    x, _, _ = draw(np.random.default_rng(5), T, 1)
    ax = plot.gates(network.layer.trace(x))
    for step in np.flatnonzero(x[:, 0, 1] == 1):
        ax.axvline(step + 0.5, color="black", linewidth=0.8, linestyle=":")
    state = "trained" if learned else "not yet trained"
    ax.set_title(f"An LSTM {state} on {sequences:,} sequences; dotted: the two marked steps")
    ax.figure.savefig(directory / "long-lag-gates.png")

    T = 200
    x, _, _ = draw(np.random.default_rng(0), T, 64)
    x = x[:T].astype(np.float64)
    networks: dict[str, tuple[str, float | str]] = {
        "RNN": ("rnn", 0),
        "GRU, bias 0": ("gru", 0),
        "LSTM, bias 0": ("lstm", 0),
        "LSTM, bias 1": ("lstm", 1),
        "GRU, long": ("gru", "long"),
        "LSTM, long": ("lstm", "long"),
    }
    flows = {
        name: training.gradient_flow(Network(cell, H, T, bias, 0, dtype=np.float64).layer, x)
        for name, (cell, bias) in networks.items()
    }
    ax = plot.gradient_flow(flows)
    ax.set_ylim(bottom=1e-30)
    ax.set_title(f"Gradients of the sum of the last h, untrained layers of {H} units")
    ax.figure.savefig(directory / "long-lag-gradients.png")
    for name, flow in flows.items():
        norms = ", ".join(f"|dL/d{part}_0| {np.median(flow[part][0]):.1e}" for part in flow)
        print(f"{name:<12} lag {T}: {norms}")


def main(arguments: list[str] | None = None) -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--length",
        type=length,
        nargs="+",
        default=list(PUBLISHED),
        metavar="T",
        help="sequences have T to T + T/10 steps",
    )
    parser.add_argument("--cell", choices=CELLS, nargs="+", default=["lstm"])
    parser.add_argument(
        "--forget-bias",
        type=bias,
        nargs="+",
        default=["long"],
        metavar="B",
        help='initial bias of the forget gates, or "long" (default): time scales up to T',
    )
    parser.add_argument(
        "--budget",
        type=int,
        metavar="N",
        help="sequences after which a trial gives up (default: what the network of 1997 took)",
    )
    parser.add_argument("--trials", type=int, default=10, metavar="N", help="seeds 0 to N - 1")
    parser.add_argument("--hidden-size", type=int, default=16, metavar="H")
    parser.add_argument("--learning-rate", type=float, default=0.01, metavar="R")
    parser.add_argument("--threads", type=int, default=1, metavar="N")
    parser.add_argument("--save", type=Path, metavar="FILE", help="add the trials to a JSON file")
    parser.add_argument("--figures", type=Path, metavar="DIR", help="only draw the figures, there")
    options = parser.parse_args(arguments)
    fastlstm.set_num_threads(options.threads)
    if options.figures:
        draw_figures(options.figures, options.hidden_size, options.learning_rate)
        return
    print(HEADER)
    for T in options.length:
        budget = options.budget or PUBLISHED.get(T, PUBLISHED[500])[0]
        for cell in options.cell:
            for forget_bias in options.forget_bias[: 1 if cell == "rnn" else None]:
                trials = []
                for seed in range(options.trials):
                    trials.append(
                        run_trial(
                            T,
                            cell,
                            forget_bias,
                            options.hidden_size,
                            budget,
                            options.learning_rate,
                            seed,
                        )
                    )
                    if options.save:
                        save(options.save, trials[-1])
                print(report(trials), flush=True)


def save(path: Path, trial: Trial) -> None:
    """Add a trial to a file."""
    trials = json.loads(path.read_text()) if path.exists() else []
    rows = [json.dumps(row) for row in [*trials, asdict(trial)]]
    path.write_text("[\n" + ",\n".join(rows) + "\n]\n")


def length(text: str) -> int:
    """Return T, for which there is room for the marks."""
    if (T := int(text)) < 20:
        raise argparse.ArgumentTypeError(f"expected at least 20, got {T}")
    return T


def bias(text: str) -> float | str:
    """Return the initial bias of the forget gates."""
    value = text if text == "long" else float(text)
    if isinstance(value, float) and not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"expected a number, got {text}")
    return value


if __name__ == "__main__":
    main()
