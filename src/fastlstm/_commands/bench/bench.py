"""Measure LSTM, GRU and RNN on shapes of your own, and compare with other libraries.

Times are medians of rounds in which the libraries take turns, after their results were found
equal. The ratio is the time of the fastest other library to ours. The bound is the least time
that the machine allows: for the arithmetic, or for reading the weights, at speeds that are
measured in the same rounds.

    fastlstm bench --shapes 100,32,64,64 50,1,8,128 --peers --threads 1 2
    fastlstm bench --train --cell gru --peers torch --plot train.png
    fastlstm bench --kind fit --shapes 50,32,1,32 --peers torch
    fastlstm bench --compute-dtype bfloat16 --peers
    fastlstm bench --beside 2 --threads 1 2 --peers

Beside busy processes a cell has the median of single calls and, in brackets, what one of a hundred
takes at least (p99).
"""

import argparse
import contextlib
import io
import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

import fastlstm
from fastlstm._args.cells import PLAIN
from fastlstm._args.numbers import COMPUTE_DTYPES
from fastlstm._commands.bench.beside import busy_processes
from fastlstm._commands.bench.measure import (
    KINDS,
    PAUSE,
    Case,
    Problem,
    check_equal,
    median_times,
    times_of_calls,
)
from fastlstm._commands.bench.peers import PEERS, Peer, opened
from fastlstm._commands.bench.roofline import Roofline
from fastlstm._commands.bench.table import Result, describe, header, row
from fastlstm._commands.command import CommandError, check_output, write_output

DEFAULT_SHAPES = (
    (100, 1, 32, 32),
    (100, 1, 256, 256),
    (100, 32, 64, 64),
    (100, 32, 256, 256),
    (20, 32, 1024, 1024),
)


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


def milliseconds(text: str) -> float:
    """Return a time in milliseconds."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 10_000:
        raise argparse.ArgumentTypeError(f"expected milliseconds from 0 to 10000, got {text!r}")
    return value


def grid(text: str) -> list[Case]:
    """Return the cases of a JSON file with a list of [kind, T, B, I, H]."""
    try:
        rows = json.loads(Path(text).read_text())
        for kind, *sizes in rows:
            if kind not in KINDS:
                raise ValueError(f"{kind!r} is none of {', '.join(KINDS)}")
            shape(",".join(map(str, sizes)))
        cases = [Case(*row) for row in rows]
    except (OSError, TypeError, ValueError, argparse.ArgumentTypeError) as error:
        raise argparse.ArgumentTypeError(
            f"expected a JSON list of [kind, T, B, I, H]: {error}"
        ) from error
    return cases


def kept(text: str) -> tuple[dict[str, Any], list[Result]]:
    """Return the report in a file that --json wrote, and its results."""
    try:
        report = json.loads(Path(text).read_text())
        plot_title(report)
        return report, [Result.from_dict(row) for row in report["results"]]
    except (OSError, LookupError, TypeError, ValueError) as error:
        raise argparse.ArgumentTypeError(f"expected a file that --json wrote: {error!r}") from error


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
    which.add_argument(
        "--from",
        dest="kept",
        type=kept,
        metavar="FILE",
        help="show what --json has kept there, and measure nothing",
    )
    parser.add_argument(
        "--kind",
        choices=KINDS,
        nargs="+",
        default=["forward"],
        help="forward: inference; train: forward and backward; ragged: train on sequences of "
        "different lengths; step: one time step of a stream; fit: one training step of a model, "
        "with linear layer, loss and Adam",
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
        "--cell", choices=PLAIN, nargs="+", default=["lstm"], help="kinds of layers, each in turn"
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
        "--compute-dtype",
        choices=COMPUTE_DTYPES,
        help="what is multiplied, of float32 arrays; a library that has nothing like it is a dash",
    )
    parser.add_argument(
        "--rounds",
        type=positive,
        default=9,
        metavar="N",
        help="of which the median counts",
    )
    parser.add_argument(
        "--pause",
        type=milliseconds,
        default=1e3 * PAUSE,
        metavar="MS",
        help="before a library's turn, so that the threads of the one before sleep; 0: none",
    )
    parser.add_argument(
        "--beside",
        type=positive,
        default=0,
        metavar="N",
        help="keep N processes busy meanwhile; medians and 99th percentiles of single calls",
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
    if arguments.compute_dtype and arguments.dtype != "float32":
        raise CommandError(f"--compute-dtype: expected --dtype float32, got {arguments.dtype}")
    report, results = arguments.kept or measured(arguments)
    if arguments.kept:
        print_again(report, results)
    if arguments.json:
        report["results"] = [result.as_dict() for result in results]
        with write_output(arguments.json, arguments.force) as file:
            file.write(json.dumps(report, indent=1).encode())
    if arguments.plot:
        from fastlstm._commands.bench.plot import draw

        figure = draw(results, plot_title(report))
        with write_output(arguments.plot, arguments.force) as file:
            figure.savefig(file, format=arguments.plot.suffix[1:])
    return 0


def measured(arguments: argparse.Namespace) -> tuple[dict[str, Any], list[Result]]:
    """Measure all cases and print the table as it grows; return the report, and its results."""
    names = list(PEERS) if arguments.peers == [] else arguments.peers or []
    report: dict[str, Any] = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": configuration(),
        "dtype": arguments.dtype,
        "compute_dtype": arguments.compute_dtype,
        "rounds": arguments.rounds,
        "pause_milliseconds": arguments.pause,
        "beside": arguments.beside,
        "versions": {},
        "skipped": {},
        "roofline": [],
    }
    results: list[Result] = []
    print("\n".join(report["machine"]))
    for threads in arguments.threads:
        with (
            busy_processes(arguments.beside),
            opened(names, threads) as (libraries, skipped),
            contextlib.closing(Roofline(threads, arguments.dtype)) as roofline,
        ):
            rates = {
                name: roofline.amounts[name] / time
                for name, time in median_times(roofline.calls, arguments.rounds).items()
            }
            print(f"\n{heading(threads, rates, arguments.beside)}")
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
    return report, results


def print_again(report: dict[str, Any], results: Sequence[Result]) -> None:
    """Print the tables of a report that was kept."""
    columns = list(report["versions"])
    print("\n".join(report["machine"]))
    for limits in report["roofline"]:
        rates = limits["per_second"]
        print(f"\n{heading(limits['threads'], rates, report.get('beside', 0))}")
        print(f"\n{header(columns)}")
        for result in results:
            if result.threads == limits["threads"]:
                print(row(result, columns))


def heading(threads: int, rates: dict[str, float], beside: int) -> str:
    """Return the line above a table."""
    neighbours = f"; beside {beside} busy processes" if beside else ""
    return f"threads: {threads}; {describe(rates)}{neighbours}"


def plot_title(report: dict[str, Any]) -> str:
    """Return what the results of a report are of."""
    version, machine = report["versions"][fastlstm.__name__], report["machine"][1]
    return f"fastlstm {version}, {report.get('compute_dtype') or report['dtype']}, {machine}"


def measure(
    case: Case, arguments: argparse.Namespace, libraries: Sequence[Peer], roofline: Roofline
) -> Result:
    """Measure one case, together with the roofline's part in it."""
    problem = Problem(case, arguments.dtype, arguments.compute_dtype)
    calls = {each.name: each.prepare(problem) for each in libraries if each.supports(problem)}
    try:
        check_equal(calls, problem)
    except RuntimeError as error:
        raise CommandError(str(error)) from error
    limits = roofline.calls_for(problem)
    pause, p99 = 1e-3 * arguments.pause, None
    if arguments.beside:
        single = times_of_calls(calls | limits, arguments.rounds, pause)
        times = {name: float(np.median(each)) for name, each in single.items()}
        p99 = {name: float(np.quantile(single[name], 0.99)) for name in calls}
    else:
        times = median_times(calls | limits, arguments.rounds, pause)
    least = roofline.least_time(problem, times)
    times = {name: times[name] for name in calls}
    return Result(case, roofline.threads, problem.operations, least, times, p99)


def cases_of(arguments: argparse.Namespace) -> Iterable[Case]:
    """Return what the arguments ask for; a step has T = 1."""
    cases = arguments.grid or dict.fromkeys(
        Case(kind, 1 if kind == "step" else T, *others)
        for kind in arguments.kind
        for T, *others in arguments.shapes
    )
    return [case._replace(cell=cell) for cell in arguments.cell for case in cases]


def configuration() -> list[str]:
    """Return the lines of `fastlstm.show_config`."""
    with contextlib.redirect_stdout(io.StringIO()) as text:
        fastlstm.show_config()
    return text.getvalue().splitlines()


def check_format(path: Path) -> None:
    """Raise CommandError if no picture can be written in the format of `path`."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise CommandError("--plot needs matplotlib: pip install matplotlib") from error
    formats = Figure().canvas.get_supported_filetypes()
    if path.suffix[1:] not in formats:
        raise CommandError(f"--plot: {path} should end in one of {', '.join(sorted(formats))}")
