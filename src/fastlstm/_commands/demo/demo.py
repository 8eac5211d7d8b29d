"""Train an LSTM on weekly CO2 and forecast two years that it has not seen.

The series is 44 years of weekly means at Mauna Loa, Hawaii, and comes with the package. The last
104 weeks are held out: the model is trained on what came before, forecasts all of them at once
from the end of that, and is then compared with them, beside the same week of the last year
(seasonal naive). The same training steps are timed on the NumPy reference. A plot and the model
are saved in a directory of their own: files that are already there are only replaced with --force.
"""

import argparse
import copy
import importlib.util
import itertools
import os
import statistics
import time
from pathlib import Path

import numpy as np

from fastlstm._commands.command import CommandError, check_output, write_output
from fastlstm._commands.demo import co2
from fastlstm._commands.demo.forecaster import (
    BATCH,
    CONTEXT,
    HORIZON,
    Forecaster,
    ReferenceLSTM,
    Windows,
    training_step,
)
from fastlstm.training import Adam

DIRECTORY = "fastlstm-demo"
PLOT = "co2-forecast.png"
MODEL = "co2-model.npz"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``fastlstm demo``."""
    parser.add_argument("--steps", type=_positive, default=400, metavar="N", help="training steps")
    parser.add_argument(
        "--hidden-size", type=_positive, default=64, metavar="H", help="hidden units"
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="of the parameters and the windows"
    )
    parser.add_argument(
        "--reference-steps",
        type=int,
        default=5,
        metavar="N",
        help="training steps to time on the NumPy reference; 0: none",
    )
    parser.add_argument(
        "--output-dir",
        type=Path,
        metavar="DIR",
        help=f"where files are saved (default: {DIRECTORY}, numbered if it is there)",
    )
    parser.add_argument("--no-plot", action="store_true", help="save no plot")
    parser.add_argument("--force", action="store_true", help="replace files that are there")


def run(arguments: argparse.Namespace) -> int:
    """Run the demo and print its report."""
    _require("tqdm", *([] if arguments.no_plot else ["matplotlib"]))
    directory = arguments.output_dir or _new_directory(arguments.force)
    outputs = [directory / MODEL]
    if not arguments.no_plot:
        outputs.append(directory / PLOT)
    _prepare(outputs, arguments.force)

    past, held_out = co2.split(co2.load_co2(), HORIZON)
    model = Forecaster(arguments.hidden_size, arguments.seed)
    size = model.lstm.flat.size + model.linear.flat.size
    print(
        f"CO2 at Mauna Loa: {len(past.ppm)} weeks, {past.dates[0]} to {past.dates[-1]}, "
        f"{np.isnan(past.ppm).sum()} without a measurement.\n"
        f"{model.lstm} and a linear layer, {size:,} parameters; "
        f"a step learns from\n"
        f"{BATCH} windows of {CONTEXT} weeks and the {HORIZON} that follow them."
    )
    seconds = _train(model, past, arguments.steps)
    forecasts = [
        co2.Forecast("LSTM", model.forecast(past)),
        co2.Forecast("seasonal naive with drift", co2.seasonal_naive_with_drift(past.ppm, HORIZON)),
        co2.Forecast("seasonal naive", co2.seasonal_naive(past.ppm, HORIZON)),
    ]
    _report(forecasts, held_out)
    print(f"\nTraining took {seconds:.1f} s, {1e3 * seconds / arguments.steps:.1f} ms per step.")
    if arguments.reference_steps > 0:
        ours, numpys = time_steps(model, past, arguments.reference_steps)
        print(
            f"The same steps, median of {arguments.reference_steps}: {1e3 * ours:.1f} ms; "
            f"on the NumPy reference {1e3 * numpys:.1f} ms, {numpys / ours:.1f} times as long."
        )

    with write_output(directory / MODEL, arguments.force) as file:
        model.save(file)
    if not arguments.no_plot:
        from fastlstm._commands.demo.plot import draw

        figure = draw(past, held_out, forecasts)
        with write_output(directory / PLOT, arguments.force) as file:
            figure.savefig(file, format="png")
    print("Saved " + " and ".join(str(path) for path in outputs) + ".")
    return 0


def time_steps(model: Forecaster, series: co2.Series, steps: int) -> tuple[float, float]:
    """Return the median seconds of a training step: fastlstm's and the NumPy reference's.

    On the same windows, from copies of the same parameters; and one after the other, because the
    threads of NumPy's BLAS spin for a while after a product and would slow down who comes next.
    """
    rng = np.random.default_rng(0)
    batches = [Windows(series).draw(rng) for _ in range(steps)]
    medians = []
    for lstm in (copy.deepcopy(model.lstm), ReferenceLSTM(model.lstm)):
        linear = copy.deepcopy(model.linear)
        optimizer = Adam([lstm, linear])
        seconds = []
        for batch in batches:
            start = time.perf_counter()
            training_step(lstm, linear, optimizer, batch)
            seconds.append(time.perf_counter() - start)
        medians.append(statistics.median(seconds))
    return medians[0], medians[1]


def _train(model: Forecaster, series: co2.Series, steps: int) -> float:
    """Train with a progress bar; return the seconds it took."""
    from tqdm import tqdm

    start = time.perf_counter()
    losses = model.train(series, steps)
    # disable=None: no bar where nobody watches it
    with tqdm(losses, total=steps, desc="Training", unit="step", disable=None) as bar:
        for loss in bar:
            bar.set_postfix_str(f"loss {loss:.3f}", refresh=False)
    return time.perf_counter() - start


def _report(forecasts: list[co2.Forecast], held_out: co2.Series) -> None:
    print(f"\nForecast of {held_out.dates[0]} to {held_out.dates[-1]}, {HORIZON} weeks held out:")
    print(f"  {'':<26}{'MAE':>9}{'RMSE':>10}")
    for forecast in forecasts:
        mae, rmse = co2.errors(forecast.ppm, held_out.ppm)
        print(f"  {forecast.name:<26}{mae:>5.2f} ppm{rmse:>6.2f} ppm")


def _new_directory(force: bool) -> Path:
    """Return the first of fastlstm-demo, fastlstm-demo-2, ... that is not there."""
    names = itertools.chain([DIRECTORY], (f"{DIRECTORY}-{i}" for i in itertools.count(2)))
    return next(Path(name) for name in names if force or not Path(name).exists())


def _prepare(outputs: list[Path], force: bool) -> None:
    """Fail before the work, and not after it, if the files cannot be saved."""
    there = [str(path) for path in outputs if os.path.lexists(path)]
    if there and not force:
        raise CommandError(
            f"{' and '.join(there)} already there: add --force to replace, "
            "or choose another --output-dir"
        )
    try:
        outputs[0].parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CommandError(f"cannot make the directory {outputs[0].parent}: {error}") from error
    for path in outputs:
        check_output(path, force)


def _require(*packages: str) -> None:
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise CommandError(
            f"the demo needs {' and '.join(missing)}: pip install {' '.join(missing)}"
            + (" (or run it with --no-plot)" if missing == ["matplotlib"] else "")
        )


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected at least 1, got {value}")
    return value
