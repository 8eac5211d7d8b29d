"""Classify real sequences with `LSTMClassifier` and with the same network in PyTorch.

Japanese vowels: 9 speakers, 12 columns, 7 to 29 steps (Kudo, Toyama & Shimbo 1999; 270 sequences
to learn from, 370 to test). Italy power demand: winter or summer from the 24 hours of a day
(Keogh et al. 2006; 67 and 1029). Both lie in the wheel of aeon, and of sktime:

    pip install '.[sklearn]' torch && pip install --no-deps aeon
    python examples/classify.py

Both libraries follow one recipe (the estimator's defaults) on the same standardised data, five
seeds each, one after the other in turn. PyTorch has two ways to deal with unequal lengths: packed
sequences, which is what it offers for it, and its fastest, padding, with each direction a layer of
its own that reads rows reversed beforehand and is asked for its output at the row's end.
"""

import argparse
import importlib.util
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

import fastlstm
from fastlstm.estimators import LSTMClassifier

Sequences = list[np.ndarray]  # of (T, I)


class Dataset(NamedTuple):
    """Sequences and their labels, to learn from and to test."""

    name: str
    X: Sequences
    y: np.ndarray
    X_test: Sequences
    y_test: np.ndarray


def directory(name: str) -> Path:
    """Return where an installed wheel has a data set, without importing it."""
    for package in ("aeon", "sktime"):
        spec = importlib.util.find_spec(package)
        if spec is not None and spec.origin is not None:
            return Path(spec.origin).parent / "datasets" / "data" / name
    raise SystemExit("The data are in the wheel of aeon: pip install --no-deps aeon")


def read(path: Path) -> tuple[Sequences, np.ndarray]:
    """Read a .ts file: a sequence per line, its columns and the label parted by colons."""
    _, _, data = path.read_text().partition("@data\n")
    X, y = [], []
    for line in data.splitlines():
        *columns, label = line.split(":")
        X.append(np.array([column.split(",") for column in columns], np.float64).T)
        y.append(label)
    return X, np.array(y)


def load(name: str) -> Dataset:
    """Load a data set."""
    parts = [read(directory(name) / f"{name}_{part}.ts") for part in ("TRAIN", "TEST")]
    return Dataset(name, *parts[0], *parts[1])


class Packed(nn.Module):
    """The network with packed sequences."""

    def __init__(self, I: int, H: int, C: int, bidirectional: bool) -> None:
        super().__init__()
        self.lstm = nn.LSTM(I, H, bidirectional=bidirectional)
        self.head = nn.Linear(H * (1 + bidirectional), C)

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Return logits (B, C) of x (T, B, I)."""
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths, enforce_sorted=False)
        _, (h_n, _) = self.lstm(packed)
        return self.head(torch.cat(list(h_n), dim=1))


class Padded(nn.Module):
    """The network on padded sequences."""

    def __init__(self, I: int, H: int, C: int, bidirectional: bool) -> None:
        super().__init__()
        self.lstms = nn.ModuleList(nn.LSTM(I, H) for _ in range(1 + bidirectional))
        self.head = nn.Linear(H * len(self.lstms), C)

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Return logits (B, C) of x (T, B, I)."""
        T, B, _ = x.shape
        rows = torch.arange(B)
        ends = []
        for lstm, reverse in zip(self.lstms, (False, True), strict=False):
            if reverse:
                steps = (lengths - 1 - torch.arange(T)[:, None]).clamp(min=0)
                x = x[steps, rows]
            y, _ = lstm(x)
            ends.append(y[lengths - 1, rows])
        return self.head(torch.cat(ends, dim=1))


class TorchClassifier:
    """What `LSTMClassifier` does, in PyTorch, with the settings of one of its instances."""

    def __init__(self, network: Any, like: LSTMClassifier) -> None:
        self.network = network
        self.like = like

    def _pad(self, X: Sequences) -> tuple[torch.Tensor, torch.Tensor]:
        X = [torch.from_numpy(((x - self.mean) / self.scale).astype(np.float32)) for x in X]
        return nn.utils.rnn.pad_sequence(X), torch.tensor([len(x) for x in X])

    def fit(self, X: Sequences, y: np.ndarray) -> "TorchClassifier":
        """Train."""
        like = self.like
        torch.manual_seed(like.random_state)
        rows = np.concatenate(X)
        self.mean, self.scale = rows.mean(axis=0), rows.std(axis=0)
        x, lengths = self._pad(X)
        self.classes, target = np.unique(y, return_inverse=True)
        target = torch.from_numpy(target)
        self.model = self.network(
            x.shape[2], like.hidden_size, len(self.classes), like.bidirectional
        )
        optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=like.learning_rate, weight_decay=like.weight_decay
        )
        for epoch in range(like.max_iter):
            for group in optimizer.param_groups:
                group["lr"] = (
                    like.learning_rate * 0.5 * (1 + math.cos(math.pi * epoch / like.max_iter))
                )
            for batch in torch.randperm(len(X)).split(like.batch_size):
                ends = lengths[batch]
                optimizer.zero_grad()
                logits = self.model(x[: ends.max(), batch], ends)
                nn.functional.cross_entropy(logits, target[batch]).backward()
                nn.utils.clip_grad_norm_(self.model.parameters(), like.max_grad_norm)
                optimizer.step()
        return self

    @torch.no_grad()
    def score(self, X: Sequences, y: np.ndarray) -> float:
        """Return the accuracy."""
        return float((self.classes[self.model(*self._pad(X)).argmax(dim=1)] == y).mean())


def compare(data: Dataset, bidirectional: bool, seeds: int) -> None:
    """Print accuracy and fit time of each library."""
    makers: dict[str, Callable[[LSTMClassifier], Any]] = {
        "fastlstm": lambda like: like,
        "torch, padded": lambda like: TorchClassifier(Padded, like),
        "torch, packed": lambda like: TorchClassifier(Packed, like),
    }
    accuracy: dict[str, list[float]] = {name: [] for name in makers}
    seconds: dict[str, list[float]] = {name: [] for name in makers}
    for seed in range(seeds):
        for name, make in makers.items():
            model = make(LSTMClassifier(bidirectional=bidirectional, random_state=seed))
            start = time.perf_counter()
            model.fit(data.X, data.y)
            seconds[name].append(time.perf_counter() - start)
            accuracy[name].append(model.score(data.X_test, data.y_test))
    print(f"\n{data.name}, {'both directions' if bidirectional else 'one direction'}")
    print(f"  {'':<14}{'accuracy':>9}{'least':>7}{'fit, median':>13}{'x fastlstm':>12}")
    ours = np.median(seconds["fastlstm"])
    for name in makers:
        median = np.median(seconds[name])
        print(
            f"  {name:<14}{np.mean(accuracy[name]):>9.3f}{np.min(accuracy[name]):>7.3f}"
            f"{median:>11.2f} s{median / ours:>12.1f}",
            flush=True,
        )


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=5, metavar="N")
    parser.add_argument("--threads", type=int, metavar="N", help="of both libraries")
    arguments = parser.parse_args()
    if arguments.threads:
        fastlstm.set_num_threads(arguments.threads)
        torch.set_num_threads(arguments.threads)
    print(
        f"fastlstm {fastlstm.__version__}, {fastlstm.get_num_threads()} threads; "
        f"torch {torch.__version__}, {torch.get_num_threads()} threads; {arguments.seeds} seeds"
    )
    for name in ("JapaneseVowels", "ItalyPowerDemand"):
        data = load(name)
        for bidirectional in (False, True):
            compare(data, bidirectional, arguments.seeds)


if __name__ == "__main__":
    main()
