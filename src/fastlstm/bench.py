"""Measure the LSTM on shapes of your own, and compare with other libraries.

Times are medians of rounds in which the libraries take turns, after their results were found
equal. The ratio is the time of the fastest other library to ours. The bound is the least time
that the machine allows: for the arithmetic, or for reading the weights, at speeds that are
measured in the same rounds.

    fastlstm bench --shapes 100,32,64,64 50,1,8,128 --peers --threads 1 2
    fastlstm bench --train --peers torch --plot train.png
"""

import argparse
import contextlib
import io
import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import fastlstm
from fastlstm._command import CommandError, write_whole
from fastlstm._measure import KINDS, Case, Problem, check_equal, median_times
from fastlstm._peers import PEERS, Fastlstm, Peer, opened
from fastlstm._roofline import ARITHMETIC, Roofline

DEFAULT_SHAPES = (
    (100, 1, 32, 32),
    (100, 1, 256, 256),
    (100, 32, 64, 64),
    (100, 32, 256, 256),
    (20, 32, 1024, 1024),
)


class Result(NamedTuple):
    """One row of the table; times in seconds."""

    case: Case
    threads: int
    operations: int
    least: float
    times: dict[str, float]

    @property
    def ours(self) -> float:
        """Our time."""
        return self.times[Fastlstm.name]

    @property
    def ratios(self) -> dict[str, float]:
        """How many times as long as ours each peer takes."""
        return {name: t / self.ours for name, t in self.times.items() if name != Fastlstm.name}

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
        return self.case._asdict() | {
            "threads": self.threads,
            "microseconds": {name: round(1e6 * t, 3) for name, t in self.times.items()},
            "ratio": None if self.ratio is None else round(self.ratio, 3),
            "gflops": round(self.operations / self.ours / 1e9, 2),
            "least_microseconds": round(1e6 * self.least, 3),
            "percent_of_roofline": round(self.percent, 1),
        }


def shape(text: str) -> tuple[int, ...]:
    """Return T, B, I and H of a text such as 100,32,64,64."""
    sizes = [size.strip() for size in text.split(",")]
    if len(sizes) != 4 or not all(size.isdecimal() and int(size) for size in sizes):
        raise argparse.ArgumentTypeError(
            f"expected T,B,I,H as four positive integers, got {text!r}"
        )
    return tuple(map(int, sizes))


def positive(text: str) -> int:
    """Return a positive integer."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"expected a positive integer, got {text!r}")
    return int(text)


def grid(text: str) -> list[Case]:
    """Return the cases of a JSON file with a list of [kind, T, B, I, H]."""
    try:
        rows = json.loads(Path(text).read_text())
        cases = [Case(*row) for row in rows]
        for case in cases:
            if case.kind not in KINDS:
                raise ValueError(f"{case.kind!r} is none of {', '.join(KINDS)}")
            shape(",".join(map(str, case[1:])))
    except (OSError, TypeError, ValueError, argparse.ArgumentTypeError) as error:
        raise argparse.ArgumentTypeError(
            f"expected a JSON list of [kind, T, B, I, H]: {error}"
        ) from error
    return cases


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--shapes",
        type=shape,
        nargs="+",
        metavar="T,B,I,H",
        default=DEFAULT_SHAPES,
        help="time steps, batch, input and hidden size of each shape",
    )
    which.add_argument(
        "--grid", type=grid, metavar="FILE", help="a JSON list of [kind, T, B, I, H] instead"
    )
    parser.add_argument(
        "--kind",
        choices=KINDS,
        nargs="+",
        default=["forward"],
        help="forward: inference; train: forward and backward; ragged: train on sequences of "
        "different lengths; step: one time step of a stream",
    )
    parser.add_argument(
        "--train",
        dest="kind",
        action="store_const",
        const=["train"],
        default=argparse.SUPPRESS,
        help="same as --kind train",
    )
    parser.add_argument(
        "--peers",
        choices=PEERS,
        nargs="*",
        metavar="NAME",
        help=f"compare with these, or all of {', '.join(PEERS)}, as far as they are installed",
    )
    parser.add_argument(
        "--threads",
        type=positive,
        nargs="+",
        metavar="N",
        default=[fastlstm.get_num_threads()],
        help="numbers of threads, each measured in turn",
    )
    parser.add_argument(
        "--dtype", choices=["float32", "float64"], default="float32", help="of all arrays"
    )
    parser.add_argument(
        "--rounds",
        type=positive,
        default=9,
        metavar="N",
        help="of which the median counts",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results here")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the results here")
    parser.add_argument("--force", action="store_true", help="replace FILE if it exists")


def run(arguments: argparse.Namespace) -> int:
    """Measure, print the table, write the files."""
    for path in filter(None, (arguments.json, arguments.plot)):
        check_output(path, arguments.force)
    if arguments.plot:
        check_format(arguments.plot)
    names = list(PEERS) if arguments.peers == [] else arguments.peers or []
    report: dict[str, Any] = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": configuration(),
        "dtype": arguments.dtype,
        "rounds": arguments.rounds,
        "versions": {},
        "skipped": {},
        "roofline": [],
    }
    results: list[Result] = []
    print("\n".join(report["machine"]))
    for threads in arguments.threads:
        with (
            opened(names, threads) as (libraries, skipped),
            contextlib.closing(Roofline(threads, arguments.dtype)) as roofline,
        ):
            rates = {
                name: roofline.amounts[name] / time
                for name, time in median_times(roofline.calls, arguments.rounds).items()
            }
            print(f"\nthreads: {threads}; {describe(rates)}")
            for name, reason in skipped.items():
                print(f"{name}: skipped, {reason}")
            columns = [library.name for library in libraries]
            report["versions"] |= {library.name: library.version for library in libraries}
            report["skipped"] |= skipped
            report["roofline"].append({"threads": threads, "per_second": rates})
            print(f"\n{header(columns)}")
            for case in cases_of(arguments):
                results.append(measure(case, arguments, libraries, roofline))
                print(row(results[-1], columns), flush=True)
    if arguments.json:
        report["results"] = [result.as_dict() for result in results]
        with write_whole(arguments.json) as file:
            file.write(json.dumps(report, indent=1).encode())
    if arguments.plot:
        from fastlstm._bench_plot import draw

        title = f"fastlstm {fastlstm.__version__}, {arguments.dtype}, {report['machine'][1]}"
        figure = draw(results, title)
        with write_whole(arguments.plot) as file:
            figure.savefig(file, format=arguments.plot.suffix[1:])
    return 0


def measure(
    case: Case, arguments: argparse.Namespace, libraries: Sequence[Peer], roofline: Roofline
) -> Result:
    """Measure one case, together with the roofline's part in it."""
    problem = Problem(case, arguments.dtype)
    calls = {each.name: each.prepare(problem) for each in libraries if each.supports(problem)}
    try:
        check_equal(calls, problem)
    except RuntimeError as error:
        raise CommandError(str(error)) from error
    limits = roofline.calls_for(problem)
    times = median_times(calls | limits, arguments.rounds)
    least = roofline.least_time(problem, times)
    times = {name: times[name] for name in calls}
    return Result(case, roofline.threads, problem.operations, least, times)


def cases_of(arguments: argparse.Namespace) -> Iterable[Case]:
    """Return what the arguments ask for; a step has T = 1."""
    if arguments.grid:
        return arguments.grid
    cases = (Case(kind, *sizes) for kind in arguments.kind for sizes in arguments.shapes)
    return dict.fromkeys(case._replace(T=1) if case.kind == "step" else case for case in cases)


def configuration() -> list[str]:
    """Return the lines of `fastlstm.show_config`."""
    with contextlib.redirect_stdout(io.StringIO()) as text:
        fastlstm.show_config()
    return text.getvalue().splitlines()


def describe(rates: dict[str, float]) -> str:
    """Return the limits of the machine in a line."""
    reads = ", ".join(f"{name} {rates[name] / 1e9:.0f}" for name in rates if name != ARITHMETIC)
    return f"arithmetic in GFLOP/s: {rates[ARITHMETIC] / 1e9:.0f}; reads in GB/s: {reads}"


def header(columns: Sequence[str]) -> str:
    """Return the first line of the table; times are in microseconds."""
    names = "".join(f"{name:>12}" for name in columns)
    return f"{'microseconds':<24}{names}{'ratio':>7}{'GFLOP/s':>9}{'bound':>11}{'% of it':>9}"


def row(result: Result, columns: Sequence[str]) -> str:
    """Return a line of the table; what a library cannot do is a dash."""
    times = "".join(
        f"{1e6 * result.times[name]:12.1f}" if name in result.times else f"{'-':>12}"
        for name in columns
    )
    ratio = "-" if result.ratio is None else f"{result.ratio:.2f}"
    gflops = result.operations / result.ours / 1e9
    return (
        f"{result.case!s:<24}{times}{ratio:>7}{gflops:9.1f}"
        f"{1e6 * result.least:11.1f}{result.percent:9.0f}"
    )


def check_output(path: Path, force: bool) -> None:
    """Raise CommandError if `path` cannot become a file or may not be replaced."""
    if not path.parent.is_dir():
        raise CommandError(f"{path.parent} is not a directory")
    if path.exists() and not force:
        raise CommandError(f"{path} exists; --force replaces it")


def check_format(path: Path) -> None:
    """Raise CommandError if no picture can be written in the format of `path`."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise CommandError("--plot needs matplotlib: pip install matplotlib") from error
    formats = Figure().canvas.get_supported_filetypes()
    if path.suffix[1:] not in formats:
        raise CommandError(f"--plot: {path} should end in one of {', '.join(sorted(formats))}")
