"""The command and its demo: the data, a forecast that sees no future, and files that are whole."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import AFTER_TRAINING, assert_close, assert_same_bits, largest_file

from fastlstm.__main__ import COMMANDS, main
from fastlstm._commands import command
from fastlstm._commands.demo import co2, demo
from fastlstm._commands.demo.forecaster import (
    CONTEXT,
    HORIZON,
    WEEK,
    Forecaster,
    ReferenceLSTM,
    Windows,
    training_step,
)
from fastlstm.training import Adam

SMALL_BENCH = ["bench", "--shapes", "2,1,1,1", "--rounds", "1"]
COMMAND = [sys.executable, "-m", "fastlstm"]
SMALL = ["demo", "--steps", "2", "--hidden-size", "4", "--reference-steps", "1"]


@pytest.fixture(scope="module")
def series():
    return co2.load_co2()


@pytest.fixture
def small(tmp_path, monkeypatch):
    """Return a function that runs a small demo in a directory of its own."""
    pytest.importorskip("tqdm")
    monkeypatch.chdir(tmp_path)
    return lambda *options: main([*SMALL, *options])


class TestData:
    def test_is_weekly_with_gaps(self, series):
        assert series.dates[0] == np.datetime64("1958-03-29")
        assert series.dates[-1] == np.datetime64("2001-12-29")
        assert (np.diff(series.dates) == WEEK).all()
        assert len(series.ppm) == 2284
        assert np.isnan(series.ppm).sum() == 59
        assert 312 < np.nanmin(series.ppm) < np.nanmax(series.ppm) < 375
        assert series.ppm[0] == 316.1

    def test_gaps_are_filled_by_straight_lines(self, series):
        filled = co2.fill_gaps(np.array([1.0, np.nan, np.nan, 4.0, np.nan]))
        assert filled.tolist() == [1, 2, 3, 4, 4]
        known = ~np.isnan(series.ppm)
        assert_same_bits(co2.fill_gaps(series.ppm)[known], series.ppm[known])
        assert np.isfinite(co2.fill_gaps(series.ppm)).all()

    def test_seasonal_naive_repeats_the_last_year(self):
        ppm = np.arange(12 * 52.0)
        assert co2.seasonal_naive(ppm, 104).tolist() == [*range(11 * 52, 12 * 52)] * 2
        assert_close(co2.seasonal_naive_with_drift(ppm, 104), np.arange(12 * 52.0, 14 * 52))

    def test_errors_leave_gaps_out(self):
        mae, rmse = co2.errors(np.array([1.0, 5.0, 9.0]), np.array([1.0, np.nan, 5.0]))
        assert mae == 2
        assert rmse == pytest.approx(np.sqrt(8))


class TestForecaster:
    def test_windows_hide_what_is_to_be_forecast(self, series):
        starts = np.array([CONTEXT, 700])
        before = Windows(series).cut(starts)
        assert before.x.shape == (CONTEXT + HORIZON, 2, 4)
        assert not before.x[CONTEXT:, :, :2].any()
        for row, start in enumerate(starts):
            changed = series.ppm.copy()
            changed[start : start + HORIZON] = 1000
            after = Windows(co2.Series(series.dates, changed)).cut(starts[row : row + 1])
            if not np.isnan(series.ppm[start - 1]):  # or its filling leans on what comes next
                assert_same_bits(after.x[:, 0, 0], before.x[:, row, 0])
            assert (after.target != before.target[:, row : row + 1]).all()

    def test_gaps_are_marked_in_the_input_and_left_out_of_the_loss(self, series):
        start = CONTEXT + 60
        batch = Windows(series).cut(np.array([start]))
        measured = ~np.isnan(series.ppm)
        assert batch.x[:CONTEXT, 0, 1].tolist() == measured[start - CONTEXT : start].tolist()
        assert batch.known[:, 0, 0].tolist() == measured[start : start + HORIZON].tolist()
        assert 0 < batch.known.sum() < HORIZON

    def test_forecast_uses_no_future(self, series, monkeypatch):
        """The demo's model and forecast are the same whatever the held-out weeks hold."""
        forecasts = []
        for future in (0.0, 1000.0):
            ppm = np.concatenate([series.ppm[:-HORIZON], np.full(HORIZON, future)])
            past, held_out = co2.split(co2.Series(series.dates, ppm), HORIZON)
            assert held_out.dates[0] == past.dates[-1] + WEEK
            model = Forecaster(4, 0)
            losses = list(model.train(past, 3))
            assert len(losses) == 3
            forecasts.append(model.forecast(past))
        assert forecasts[0].shape == (HORIZON,)
        assert_same_bits(forecasts[0], forecasts[1])

    def test_beats_seasonal_naive_before_the_held_out_years(self, series):
        earlier, _ = co2.split(series, HORIZON)
        past, truth = co2.split(earlier, HORIZON)
        model = Forecaster(16, 0)
        for _ in model.train(past, 60):
            pass
        mae, _ = co2.errors(model.forecast(past), truth.ppm)
        naive, _ = co2.errors(co2.seasonal_naive(past.ppm, HORIZON), truth.ppm)
        assert mae < 0.8 * naive

    def test_reference_trains_the_same(self, series):
        ours, theirs = Forecaster(8, 0), Forecaster(8, 0)
        numpys = ReferenceLSTM(theirs.lstm)
        windows = Windows(series)
        optimizers = Adam([ours.lstm, ours.linear]), Adam([numpys, theirs.linear])
        for _ in range(3):
            batch = windows.draw(np.random.default_rng(1))
            loss = training_step(ours.lstm, ours.linear, optimizers[0], batch)
            expected = training_step(numpys, theirs.linear, optimizers[1], batch)
            assert loss == pytest.approx(expected, rel=AFTER_TRAINING)
        assert_close(ours.lstm.flat, numpys.flat, AFTER_TRAINING)


class TestCommand:
    def test_end_to_end(self, small, tmp_path, series, capsys):
        pytest.importorskip("matplotlib")
        assert small() == 0
        files = {path.name for path in (tmp_path / "fastlstm-demo").iterdir()}
        assert files == {demo.PLOT, demo.MODEL}
        assert (tmp_path / "fastlstm-demo" / demo.PLOT).read_bytes().startswith(b"\x89PNG")
        report = capsys.readouterr().out
        for words in ("seasonal naive with drift", "ppm", "ms per step", "NumPy reference"):
            assert words in report

    def test_saved_model_forecasts_the_same(self, small, tmp_path, series, capsys):
        assert small("--no-plot", "--output-dir", "out") == 0
        past, held_out = co2.split(series, HORIZON)
        forecast = Forecaster.load(tmp_path / "out" / demo.MODEL).forecast(past)
        mae, rmse = co2.errors(forecast, held_out.ppm)
        assert f"LSTM {mae:>26.2f} ppm{rmse:>6.2f} ppm" in capsys.readouterr().out
        assert [path.name for path in (tmp_path / "out").iterdir()] == [demo.MODEL]
        again = Forecaster(4, 0)
        assert len(list(again.train(past, 2))) == 2
        assert_same_bits(again.forecast(past), forecast)

    def test_replaces_files_only_when_told(self, small, tmp_path, capsys):
        path = tmp_path / "fastlstm-demo" / demo.MODEL
        path.parent.mkdir()
        path.write_text("mine")
        assert small("--no-plot", "--output-dir", "fastlstm-demo") == 1
        assert path.read_text() == "mine"
        assert "--force" in capsys.readouterr().err
        assert small("--no-plot") == 0
        assert path.read_text() == "mine"
        assert (tmp_path / "fastlstm-demo-2" / demo.MODEL).exists()
        assert small("--no-plot", "--force") == 0
        assert path.read_bytes().startswith(b"PK")

    def test_says_when_the_directory_cannot_be_made(self, small, tmp_path, capsys):
        (tmp_path / "file").touch()
        assert small("--no-plot", "--output-dir", "file/out") == 1
        assert "cannot make the directory file/out" in capsys.readouterr().err

    def test_says_what_to_install(self, small, monkeypatch, capsys):
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
        assert small() == 1
        message = capsys.readouterr().err
        assert "the demo needs tqdm and matplotlib: pip install tqdm matplotlib" in message

    def test_ctrl_c_leaves_no_half_written_file(self, small, tmp_path, monkeypatch, capsys):
        def half(self, file):
            file.write(b"half")
            raise KeyboardInterrupt

        monkeypatch.setattr(Forecaster, "save", half)
        assert small("--no-plot") == 130
        assert list((tmp_path / "fastlstm-demo").iterdir()) == []
        assert capsys.readouterr().err.endswith("\nfastlstm: interrupted\n")

    @pytest.mark.skipif(os.name != "posix", reason="of POSIX systems")
    def test_a_full_disk_fails_before_the_work(self, small, tmp_path, capsys):
        with largest_file(1000):
            assert small("--no-plot") == 1
        captured = capsys.readouterr()
        expected = f"cannot write {Path('fastlstm-demo', demo.MODEL)}: File too large"
        assert captured.err == f"fastlstm: error: {expected}\n"
        assert not captured.out
        assert list((tmp_path / "fastlstm-demo").iterdir()) == []

    @pytest.mark.skipif(os.name != "posix", reason="of POSIX systems")
    def test_a_disk_that_fills_up_costs_the_files_only(self, small, tmp_path, capsys, monkeypatch):
        monkeypatch.setattr(command, "ROOM", 1)
        with largest_file(1000):
            assert small("--no-plot") == 1
        captured = capsys.readouterr()
        assert captured.err.endswith(f"{demo.MODEL}: File too large\n")
        assert "seasonal naive with drift" in captured.out
        assert "Saved" not in captured.out
        assert list((tmp_path / "fastlstm-demo").iterdir()) == []

    @pytest.mark.parametrize("argv", [["--help"], *([name, "--help"] for name in COMMANDS)])
    def test_help(self, argv, capsys):
        with pytest.raises(SystemExit) as exit_:
            main(argv)
        assert exit_.value.code == 0
        text = capsys.readouterr().out
        assert text.startswith("usage: fastlstm")
        for words in COMMANDS if argv == ["--help"] else ["default"]:
            assert words in text

    @pytest.mark.parametrize("argv", [[], ["nothing"], ["demo", "--steps", "0"]])
    def test_misuse_exits_with_2(self, argv, capsys):
        with pytest.raises(SystemExit) as exit_:
            main(argv)
        assert exit_.value.code == 2
        assert "usage: fastlstm" in capsys.readouterr().err

    def test_runs_as_a_module(self):
        result = subprocess.run([*COMMAND, "--version"], capture_output=True, text=True, check=True)
        assert result.stdout.startswith("fastlstm ")

    @pytest.mark.skipif(os.name != "posix", reason="of POSIX systems")
    @pytest.mark.parametrize("argv", [["--help"], SMALL_BENCH])
    @pytest.mark.parametrize("also_stderr", [False, True])
    def test_ends_quietly_when_nobody_reads_on(self, argv, also_stderr):
        reader, writer = os.pipe()
        os.close(reader)
        run = run_into(writer, argv, writer if also_stderr else subprocess.PIPE)
        os.close(writer)
        assert run.returncode == 128 + signal.SIGPIPE
        assert not run.stderr

    @pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
    @pytest.mark.parametrize("argv", [["--help"], SMALL_BENCH])
    def test_says_when_the_output_is_full(self, argv):
        with open("/dev/full", "w") as full:
            run = run_into(full, argv)
        assert run.returncode == 1
        assert run.stderr == "fastlstm: error: [Errno 28] No space left on device\n"


def run_into(stdout, argv, stderr=subprocess.PIPE):
    """Run the command with its output buffered, as it is by default where nobody watches it."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"}
    command = [*COMMAND, *argv]
    return subprocess.run(command, stdout=stdout, stderr=stderr, env=environment, text=True)
