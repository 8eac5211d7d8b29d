"""The results of `fastlstm bench`: as lines of a table, and as rows of a JSON file."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from fastlstm._commands.bench.measure import Case
from fastlstm._commands.bench.peers import OWN, Fastlstm
from fastlstm._commands.bench.roofline import ARITHMETIC


class Result(NamedTuple):
    """One row of the table; times in seconds."""

    case: Case
    threads: int
    operations: int
    least: float
    times: dict[str, float]
    p99: dict[str, float] | None = None  # beside busy processes

    @property
    def ours(self) -> float:
        """Our time."""
        return self.times[Fastlstm.name]

    @property
    def ratios(self) -> dict[str, float]:
        """How many times as long as ours each other library takes."""
        return {name: t / self.ours for name, t in self.times.items() if name not in OWN}

    @property
    def ratio(self) -> float | None:
        """How many times as long as ours the fastest peer takes; None without a peer."""
        return min(self.ratios.values(), default=None)

    @property
    def percent(self) -> float:
        """Per cent of the roofline that we reach."""
        return 100 * self.least / self.ours

    def as_dict(self) -> dict[str, Any]:
        """Return this result for JSON."""
        p99 = None if self.p99 is None else _microseconds(self.p99)
        return self.case._asdict() | {
            "threads": self.threads,
            "microseconds": _microseconds(self.times),
            **({} if p99 is None else {"p99_microseconds": p99}),
            "ratio": None if self.ratio is None else round(self.ratio, 3),
            "gflops": round(self.operations / self.ours / 1e9, 2),
            "least_microseconds": round(1e6 * self.least, 6),
            "percent_of_roofline": round(self.percent, 1),
        }

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> "Result":
        """Return the result of which `row` is the dict; without a cell, it is of an LSTM."""
        case = Case(**{name: row[name] for name in Case._fields if name in row})
        times = {name: 1e-6 * t for name, t in row["microseconds"].items()}
        operations = round(1e9 * row["gflops"] * times[Fastlstm.name])
        p99 = row.get("p99_microseconds")
        if p99 is not None:
            p99 = {name: 1e-6 * t for name, t in p99.items()}
        return cls(case, row["threads"], operations, 1e-6 * row["least_microseconds"], times, p99)


def _microseconds(times: Mapping[str, float]) -> dict[str, float]:
    return {name: round(1e6 * t, 3) for name, t in times.items()}


WIDTH = 18  # of a library's column


def describe(rates: dict[str, float]) -> str:
    """Return the limits of the machine in a line."""
    reads = ", ".join(f"{name} {rates[name] / 1e9:.0f}" for name in rates if name != ARITHMETIC)
    return f"arithmetic in GFLOP/s: {rates[ARITHMETIC] / 1e9:.0f}; reads in GB/s: {reads}"


def header(columns: Sequence[str]) -> str:
    """Return the first line of the table; times are in microseconds."""
    names = "".join(f"{name:>{WIDTH}}" for name in columns)
    return f"{'microseconds':<30}{names}{'ratio':>7}{'GFLOP/s':>9}{'bound':>11}{'% of it':>9}"


def _cell(result: Result, name: str) -> str:
    if name not in result.times:
        return "-"
    median = f"{1e6 * result.times[name]:.1f}"
    return median if result.p99 is None else f"{median} ({1e6 * result.p99[name]:.0f})"


def row(result: Result, columns: Sequence[str]) -> str:
    """Return a line of the table; what a library cannot do is a dash."""
    times = "".join(f"{_cell(result, name):>{WIDTH}}" for name in columns)
    ratio = "-" if result.ratio is None else f"{result.ratio:.2f}"
    gflops = result.operations / result.ours / 1e9
    return (
        f"{result.case!s:<30}{times}{ratio:>7}{gflops:9.1f}"
        f"{1e6 * result.least:11.1f}{result.percent:9.0f}"
    )
