"""Measure the LSTM on shapes of your own, and compare with other libraries.

Times are medians of rounds in which the libraries take turns, after their results were found
equal. The ratio is the time of the fastest other library to ours. The bound is the least time
that the machine allows: the arithmetic, or the reading of the weights, at the speed measured
just before.

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
from typing import Any, BinaryIO, NamedTuple

import fastlstm
from fastlstm._command import CommandError, write_whole
from fastlstm._measure import KINDS, Case, Problem, check_equal, median_times
from fastlstm._peers import PEERS, Fastlstm, opened
from fastlstm._roofline import Roofline, measure_roofline

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
        "different lengths; step: one time step of a stream (default: forward)",
    )
    parser.add_argument(
        "--train", dest="kind", action="store_const", const=["train"], help="same as --kind train"
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
        help="numbers of threads, each measured in turn (default: %(default)s)",
    )
    parser.add_argument("--dtype", choices=["float32", "float64"], default="float32")
    parser.add_argument(
        "--rounds",
        type=positive,
        default=9,
        metavar="N",
        help="of which the median counts (default: 9)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results here")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the results here")
    parser.add_argument("--force", action="store_true", help="replace FILE if it exists")


def run(args: argparse.Namespace) -> int:
    """Measure, print the table, write the files."""
    for path in filter(None, (args.json, args.plot)):
        check_output(path, args.force)
    if args.plot:
        try:
            import matplotlib  # noqa: F401
        except ImportError as error:
            raise CommandError("--plot needs matplotlib: pip install matplotlib") from error
    names = list(PEERS) if args.peers == [] else args.peers or []
    report: dict[str, Any] = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": configuration(),
        "dtype": args.dtype,
        "rounds": args.rounds,
        "versions": {},
        "skipped": {},
        "roofline": [],
    }
    results: list[Result] = []
    print("\n".join(report["machine"]))
    for threads in args.threads:
        with opened(names, threads) as (libraries, skipped):
            roofline = measure_roofline(threads, args.dtype)
            report["versions"] |= {library.name: library.version for library in libraries}
            report["skipped"] |= skipped
            report["roofline"].append(roofline._asdict())
            print(f"\n{describe(roofline)}")
            for name, reason in skipped.items():
                print(f"{name}: skipped, {reason}")
            columns = [library.name for library in libraries]
            print(f"\n{header(columns)}")
            for case in cases_of(args):
                problem = Problem(case, args.dtype)
                calls = {
                    library.name: library.prepare(problem)
                    for library in libraries
                    if library.supports(problem)
                }
                check_equal(calls, problem)
                results.append(
                    Result(
                        case,
                        threads,
                        problem.operations,
                        roofline.least_time(problem),
                        median_times(calls, args.rounds),
                    )
                )
                print(row(results[-1], columns), flush=True)
    if args.json:
        report["results"] = [result.as_dict() for result in results]
        with write_whole(args.json) as file:
            file.write(json.dumps(report, indent=1).encode())
    if args.plot:
        with write_whole(args.plot) as file:
            plot(results, report["machine"][1], file, args.plot.suffix[1:] or "png")
    return 0


def cases_of(args: argparse.Namespace) -> Iterable[Case]:
    """Return what the arguments ask for; a step has T = 1."""
    if args.grid:
        return args.grid
    cases = (Case(kind, *sizes) for kind in args.kind for sizes in args.shapes)
    return dict.fromkeys(case._replace(T=1) if case.kind == "step" else case for case in cases)


def configuration() -> list[str]:
    """Return the lines of `fastlstm.show_config`."""
    with contextlib.redirect_stdout(io.StringIO()) as text:
        fastlstm.show_config()
    return text.getvalue().splitlines()


def describe(roofline: Roofline) -> str:
    """Return the limits of the machine in a line."""
    rates = ", ".join(f"{name} {rate / 1e9:.0f}" for name, rate in roofline.bandwidth.items())
    return (
        f"threads: {roofline.threads}; arithmetic {roofline.arithmetic / 1e9:.0f} GFLOP/s; "
        f"reads in GB/s: {rates}"
    )


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


def plot(results: Sequence[Result], title: str, file: BinaryIO, suffix: str) -> None:
    """Draw ratios and per cent of roofline, side by side for each number of threads."""
    from matplotlib.figure import Figure

    threads = list(dict.fromkeys(result.threads for result in results))
    peers = list(dict.fromkeys(name for result in results for name in result.ratios))
    cases = list(dict.fromkeys(result.case for result in results))
    figure = Figure(figsize=(7 * len(threads), 1.8 + 0.22 * len(cases)), layout="constrained")
    axes = figure.subplots(1, 2 * len(threads), sharey=True, squeeze=False)[0]
    for n, left, right in zip(threads, axes[::2], axes[1::2], strict=True):
        rows = [result for result in results if result.threads == n]
        places = [cases.index(result.case) for result in rows]
        for number, name in enumerate(peers):
            left.plot(
                [result.ratios.get(name) for result in rows],
                places,
                "osD^"[number % 4],
                color=f"C{number}",
                label=name,
            )
        left.axvline(1, color="black", label="fastlstm")
        left.set_xscale("log")
        left.set_xlabel("time / time of fastlstm")
        right.barh(places, [result.percent for result in rows], color="0.6")
        right.axvline(100, color="black")
        right.set_xlabel("% of roofline")
        for axis in (left, right):
            axis.set_title(f"{n} thread{'s' * (n > 1)}")
            axis.grid(axis="x", alpha=0.4)
    axes[0].set_yticks(range(len(cases)), map(str, cases))
    axes[0].set_ylim(len(cases) - 0.5, -0.5)
    axes[0].set_ylabel("T,B,I,H")
    axes[0].legend()
    figure.suptitle(title)
    figure.savefig(file, format=suffix, dpi=120)


def check_output(path: Path, force: bool) -> None:
    """Raise CommandError if `path` cannot become a file or may not be replaced."""
    if not path.parent.is_dir():
        raise CommandError(f"{path.parent} is not a directory")
    if path.exists() and not force:
        raise CommandError(f"{path} exists; --force replaces it")
