"""`fastlstm bench`: its arguments, its table and files, the lower bound, and equal results."""

import itertools
import json
import os
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest
from helpers import assert_close, forced_threads, largest_file

import fastlstm
from fastlstm import reference
from fastlstm.__main__ import main
from fastlstm._args.cells import PLAIN
from fastlstm._args.numbers import COMPUTE_DTYPES
from fastlstm._commands import command
from fastlstm._commands.bench.beside import busy_processes
from fastlstm._commands.bench.measure import (
    ADAM,
    KINDS,
    Case,
    Problem,
    check_equal,
    median_times,
)
from fastlstm._commands.bench.peers import PEERS, Fastlstm, opened
from fastlstm._commands.bench.roofline import ARITHMETIC, BEYOND, Roofline
from fastlstm._commands.bench.table import Result, header, row

TINY = ["bench", "--rounds", "1", "--threads", "1", "--shapes", "3,2,4,5"]


KEPT = Path(__file__).parents[1] / "benchmarks" / "results" / "xeon-avx512-0.1.0.json"


def small(kind, cell):
    return Case(kind, 1 if kind == "step" else 6, 3, 5, 7, cell)


def functions(cell):
    """Return forward and backward of the reference."""
    return [getattr(reference, f"{cell}_{way}") for way in ("forward", "backward")]


def in_parts(problem, arrays, k):
    """Return arrays with the GRU's bias, which is number k, in two."""
    if problem.case.cell != "gru":
        return arrays
    n = len(problem.w_ih)
    return *arrays[:k], arrays[k][:n], arrays[k][n:], *arrays[k + 1 :]


def fitted_by_reference(problem):
    """Return the loss of a fit, and the parameters after it by Adam's formula for step one."""
    forward, backward = functions(problem.case.cell)
    w_out, b_out = problem.w_out, problem.b_out
    y, *_, tape = forward(problem.x, problem.w_ih, problem.w_hh, problem.b, training=True)
    difference = y[-1] @ w_out.T + b_out - problem.target
    d = 2 * difference / difference.size
    dy = np.zeros_like(y)
    dy[-1] = d @ w_out
    gradients = *backward(tape, dy)[1:4], d.T @ y[-1], d.sum(axis=0)
    params = problem.w_ih, problem.w_hh, problem.b, w_out, b_out
    return np.mean(difference**2), tuple(
        w - (ADAM["lr"] * g / (np.abs(g) + ADAM["eps"])).astype(w.dtype)
        for w, g in zip(params, gradients, strict=True)
    )


@pytest.fixture(scope="module")
def roofline():
    roofline = Roofline(2)
    yield roofline
    roofline.close()


class TestArguments:
    @pytest.mark.parametrize("text", ["1,2,3", "1,2,3,4,5", "1,2,3,0", "1,2,3,x", "1,2,3,-4", ""])
    def test_bad_shapes_are_named(self, capsys, text):
        with pytest.raises(SystemExit, match="2"):
            main(["bench", "--shapes", "1,2,3,4", text])
        error = capsys.readouterr().err
        assert "argument --shapes: expected T,B,I,H" in error
        assert repr(text) in error

    @pytest.mark.parametrize("option", ["--threads", "--rounds"])
    @pytest.mark.parametrize("text", ["0", "x", "1.5"])
    def test_bad_numbers_are_named(self, capsys, option, text):
        with pytest.raises(SystemExit, match="2"):
            main(["bench", option, text])
        assert f"argument {option}: expected a positive integer" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("option", "text", "message"),
        [
            ("--pause", "x", "expected milliseconds"),
            ("--pause", "-1", "expected milliseconds"),
            ("--pause", "nan", "expected milliseconds"),
            ("--beside", "0", "expected a positive integer"),
        ],
    )
    def test_bad_pauses_and_neighbours_are_named(self, capsys, option, text, message):
        with pytest.raises(SystemExit, match="2"):
            main(["bench", option, text])
        assert f"argument {option}: {message}" in capsys.readouterr().err

    @pytest.mark.parametrize(
        "content", ["", "{}x", "[1]", '[["forward", 1, 2, 3]]', '[["walk", 1, 2, 3, 4]]']
    )
    def test_bad_grids_are_named(self, capsys, tmp_path, content):
        path = tmp_path / "grid.json"
        path.write_text(content)
        with pytest.raises(SystemExit, match="2"):
            main(["bench", "--grid", str(path)])
        assert "argument --grid: expected a JSON list" in capsys.readouterr().err

    @pytest.mark.parametrize("name", ["absent/a.json", "."])
    def test_impossible_files_fail_before_measuring(self, capsys, tmp_path, name):
        assert main([*TINY, "--json", str(tmp_path / name)]) == 1
        captured = capsys.readouterr()
        assert str(tmp_path) in captured.err
        assert not captured.out

    def test_fewer_bits_are_of_float32(self, capsys):
        assert main([*TINY, "--compute-dtype", "int8", "--dtype", "float64"]) == 1
        captured = capsys.readouterr()
        assert "--compute-dtype: expected --dtype float32, got float64" in captured.err
        assert not captured.out

    def test_unknown_picture_formats_fail_before_measuring(self, capsys, tmp_path):
        pytest.importorskip("matplotlib")
        assert main([*TINY, "--plot", str(tmp_path / "a.doc")]) == 1
        captured = capsys.readouterr()
        assert "png" in captured.err
        assert not captured.out


class TestCommand:
    def test_table_json_and_picture(self, capsys, tmp_path):
        pytest.importorskip("matplotlib")
        files = tmp_path / "a.json", tmp_path / "a.png"
        options = ["--kind", *KINDS, "--cell", *PLAIN]
        options += ["--json", str(files[0]), "--plot", str(files[1])]
        threads = fastlstm.get_num_threads()
        assert main([*TINY, *options]) == 0
        assert fastlstm.get_num_threads() == threads
        assert sorted(tmp_path.iterdir()) == sorted(files)
        assert files[1].read_bytes().startswith(b"\x89PNG")

        report = json.loads(files[0].read_text())
        assert report["versions"] == {"fastlstm": fastlstm.__version__}
        assert set(report["roofline"][0]["per_second"]) == {"arithmetic", "L1", "L2", "memory"}
        assert [(result["cell"], result["kind"], result["T"]) for result in report["results"]] == [
            (cell, kind, 1 if kind == "step" else 3) for cell in PLAIN for kind in KINDS
        ]
        for result in report["results"]:
            assert result["microseconds"]["fastlstm"] > 0
            assert result["least_microseconds"] > 0
            assert result["ratio"] is None

        lines = capsys.readouterr().out.splitlines()
        for cell, kind in itertools.product(PLAIN, KINDS):
            assert any(line.startswith(f"{cell} {kind} ") for line in lines)

    def test_beside_busy_processes(self, capsys, tmp_path):
        path = tmp_path / "a.json"
        assert main([*TINY, "--pause", "0", "--beside", "1", "--json", str(path)]) == 0
        report = json.loads(path.read_text())
        assert (report["beside"], report["pause_milliseconds"]) == (1, 0)
        (result,) = report["results"]
        assert result["p99_microseconds"]["fastlstm"] >= result["microseconds"]["fastlstm"] > 0
        out = capsys.readouterr().out
        assert "beside 1 busy processes" in out
        assert main(["bench", "--from", str(path)]) == 0
        again = capsys.readouterr().out
        assert "beside 1 busy processes" in again
        assert again.splitlines()[-1].split()[:5] == out.splitlines()[-1].split()[:5]  # p99 is one
        assert again.splitlines()[-1].count("(") == 1

    @pytest.mark.parametrize("cells", [[], ["gru", "rnn"]])
    def test_grid(self, capsys, tmp_path, cells):
        path = tmp_path / "grid.json"
        path.write_text('[["train", 2, 1, 3, 4], ["step", 1, 1, 2, 2]]')
        options = ["--grid", str(path), *(["--cell", *cells] if cells else [])]
        assert main(["bench", "--rounds", "1", *options, "--threads", "1", "2"]) == 0
        out = capsys.readouterr().out
        for cell in cells or ["lstm"]:
            assert out.count(f"{cell} train 2,1,3,4 ") == out.count(f"{cell} step 1,1,2,2 ") == 2

    def test_kept_results_are_shown_again(self, capsys, tmp_path):
        first, second, third = (tmp_path / f"{i}.json" for i in range(3))
        assert main([*TINY, "--cell", "gru", "--kind", *KINDS, "--json", str(first)]) == 0
        measured = capsys.readouterr().out
        assert main(["bench", "--from", str(first), "--json", str(second)]) == 0
        shown = capsys.readouterr().out
        assert len(shown.splitlines()) == len(measured.splitlines())
        a, b = (json.loads(file.read_text()) for file in (first, second))
        for name in ("cell", "kind", "threads", "microseconds"):
            assert [each[name] for each in a["results"]] == [each[name] for each in b["results"]]
        # what was computed before rounding may have changed by it, but only once
        assert main(["bench", "--from", str(second), "--json", str(third)]) == 0
        assert capsys.readouterr().out == shown
        assert json.loads(third.read_text()) == b
        del a["results"], b["results"]
        assert a == b

    def test_results_kept_before_there_were_cells_are_of_lstms(self, capsys, tmp_path):
        pytest.importorskip("matplotlib")
        picture = tmp_path / "a.png"
        assert main(["bench", "--from", str(KEPT), "--plot", str(picture)]) == 0
        assert "\nlstm train 100,32,64,64 " in capsys.readouterr().out
        assert picture.read_bytes().startswith(b"\x89PNG")

    @pytest.mark.parametrize("content", ["", "{}", "[]", '{"versions": {}, "machine": []}'])
    def test_what_is_no_report_is_named(self, capsys, tmp_path, content):
        path = tmp_path / "a.json"
        path.write_text(content)
        with pytest.raises(SystemExit, match="2"):
            main(["bench", "--from", str(path)])
        assert "argument --from: expected a file that --json wrote" in capsys.readouterr().err

    def test_files_are_replaced_only_on_request(self, capsys, tmp_path):
        path = tmp_path / "a.json"
        path.write_text("mine")
        assert main([*TINY, "--json", str(path)]) == 1
        assert f"{path} exists; --force" in capsys.readouterr().err
        assert path.read_text() == "mine"
        assert main([*TINY, "--train", "--json", str(path), "--force"]) == 0
        assert json.loads(path.read_text())["results"][0]["kind"] == "train"

    @pytest.mark.skipif(os.name != "posix", reason="of POSIX systems")
    def test_a_full_disk_fails_before_measuring(self, capsys, tmp_path):
        with largest_file(1000):
            assert main([*TINY, "--json", str(tmp_path / "a.json")]) == 1
        captured = capsys.readouterr()
        assert captured.err == (
            f"fastlstm: error: cannot write {tmp_path / 'a.json'}: File too large\n"
        )
        assert not captured.out
        assert not list(tmp_path.iterdir())

    @pytest.mark.skipif(os.name != "posix", reason="of POSIX systems")
    def test_a_disk_that_fills_up_costs_the_files_only(self, capsys, tmp_path, monkeypatch):
        monkeypatch.setattr(command, "ROOM", 1)
        with largest_file(10):
            assert main([*TINY, "--json", str(tmp_path / "a.json")]) == 1
        captured = capsys.readouterr()
        assert captured.err.endswith("a.json: File too large\n")
        assert "forward 3,2,4,5 " in captured.out
        assert not list(tmp_path.iterdir())

    @pytest.mark.skipif(os.name != "posix", reason="of POSIX systems")
    def test_what_is_no_file_is_refused_before_measuring(self, capsys):
        assert main([*TINY, "--json", os.devnull, "--force"]) == 1
        captured = capsys.readouterr()
        assert f"{os.devnull}: expected a regular file, got a device" in captured.err
        assert not captured.out

    def test_absent_peers_are_named(self, capsys, monkeypatch):
        monkeypatch.setattr(PEERS["jax"], "name", "no_such_module")
        assert main([*TINY, "--peers", "jax"]) == 0
        assert "jax: skipped, No module named 'no_such_module'" in capsys.readouterr().out

    def test_different_results_are_no_race(self, capsys, monkeypatch):
        class Wrong(Fastlstm):
            name = "fastlstm._version"  # a module with a version

            def prepare(self, problem):
                right = super().prepare(problem)
                return lambda: [a + 1 for a in right()]

        monkeypatch.setitem(PEERS, "torch", Wrong)
        assert main([*TINY, "--peers", "torch"]) == 1
        assert "forward 3,2,4,5: fastlstm._version differs" in capsys.readouterr().err


class TestResult:
    result = Result(
        Case("forward", 10, 2, 3, 4),
        2,
        8_000,
        1e-6,
        {"fastlstm": 4e-6, "torch": 20e-6, "jax": 6e-6},
    )

    def test_ratio_is_that_of_the_fastest_peer(self):
        assert self.result.ratios == pytest.approx({"torch": 5, "jax": 1.5})
        assert self.result.ratio == pytest.approx(1.5)
        assert self.result._replace(times={"fastlstm": 1.0}).ratio is None

    def test_row_stands_under_its_header(self):
        columns = ["fastlstm", "torch", "onnxruntime", "jax"]
        line = row(self.result, columns)
        assert line.split() == (
            ["lstm", "forward", "10,2,3,4", "4.0", "20.0", "-", "6.0", "1.50", "2.0", "1.0", "25"]
        )
        assert len(line) == len(header(columns))

    def test_as_dict_and_back(self):
        kept = self.result.as_dict()
        assert kept["cell"] == "lstm"
        assert kept["ratio"] == 1.5
        assert kept["gflops"] == 2
        assert kept["percent_of_roofline"] == 25
        again = Result.from_dict(kept)
        assert again.case == self.result.case
        assert again.as_dict() == kept
        del kept["cell"]
        assert Result.from_dict(kept).case.cell == "lstm"


class TestLeastTime:
    def test_operations(self):
        assert Problem(Case("forward", 10, 2, 3, 4)).operations == 2 * 20 * 16 * 7
        assert Problem(Case("forward", 10, 2, 3, 4, "gru")).operations == 2 * 20 * 12 * 7
        assert Problem(Case("forward", 10, 2, 3, 4, "rnn")).operations == 2 * 20 * 4 * 7
        assert Problem(Case("train", 10, 2, 3, 4)).operations == 3 * 2 * 20 * 16 * 7
        # of a fit: all but the gradient of x; the linear layer forward, and its two gradients
        fit = Problem(Case("fit", 10, 2, 3, 4)).operations
        assert fit == 2 * 20 * 16 * (7 + 7 + 4) + 3 * 2 * 2 * 4
        ragged = Problem(Case("ragged", 10, 2, 3, 4))
        assert ragged.operations == 3 * 2 * ragged.lengths.sum() * 16 * 7

    def test_level_is_the_nearest_that_holds_the_weights(self, roofline):
        L1, L2 = roofline.caches.values()
        assert roofline.level(1) == roofline.level(2 * L1) == "L1"
        assert roofline.level(2 * L1 + 1) == roofline.level(2 * L2) == "L2"
        assert roofline.level(2 * L2 + 1) == BEYOND

    def test_is_the_greater_of_arithmetic_and_traffic(self, roofline):
        problem = Problem(Case("forward", 10, 2, 8, 16))
        calls = roofline.calls_for(problem)
        assert list(calls) == [ARITHMETIC, "L1"]
        per_second = dict(roofline.amounts)  # if each call takes a second
        arithmetic = 2 * 20 * 64 * 24 / per_second[ARITHMETIC]
        traffic = 4 * (10 * 64 * 16 + 64 * 8) / per_second["L1"]
        least = roofline.least_time(problem, {ARITHMETIC: 1, "L1": 1e-9})
        assert least == pytest.approx(arithmetic)
        least = roofline.least_time(problem, {ARITHMETIC: 1e-9, "L1": 1})
        assert least == pytest.approx(traffic)
        train = Problem(Case("train", 10, 2, 8, 16))
        least = roofline.least_time(train, {ARITHMETIC: 1e-9, "L1": 1})
        assert least == pytest.approx(2 * traffic)

    def test_calls_do_what_their_amounts_say(self, roofline):
        assert set(roofline.calls) == set(roofline.amounts) == {ARITHMETIC, "L1", "L2", BEYOND}
        assert all(time > 0 for time in median_times(roofline.calls, 1).values())


class TestPeers:
    @pytest.mark.parametrize("cell", PLAIN)
    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("name", PEERS)
    def test_agree_with_fastlstm(self, name, kind, cell, dtype):
        for module in (name.split("-")[0], *PEERS[name].needs):
            pytest.importorskip(module)
        problem = Problem(small(kind, cell), dtype)
        with opened([name], 1) as (libraries, skipped):
            assert not skipped
            if not libraries[1].supports(problem):
                pytest.skip(f"{name} has no {kind} in {dtype}")
            check_equal({each.name: each.prepare(problem) for each in libraries}, problem)

    @pytest.mark.parametrize("cell", PLAIN)
    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("name", PEERS)
    @pytest.mark.parametrize("compute_dtype", COMPUTE_DTYPES)
    def test_agree_in_fewer_bits(self, name, kind, cell, compute_dtype):
        for module in PEERS[name].needs:
            pytest.importorskip(module)
        problem = Problem(small(kind, cell), np.float32, compute_dtype)
        with opened([name], 1) as (libraries, skipped):
            if skipped or not libraries[1].supports(problem):
                pytest.skip(f"{name} has no {kind} in {compute_dtype}")
            check_equal({each.name: each.prepare(problem) for each in libraries}, problem)

    def test_leave_the_number_of_threads_as_it_was(self):
        torch = pytest.importorskip("torch")
        before = torch.get_num_threads()
        with forced_threads(2), opened(["torch"], 1):
            assert fastlstm.get_num_threads() == torch.get_num_threads() == 1
        assert torch.get_num_threads() == before

    @pytest.mark.parametrize("cell", PLAIN)
    @pytest.mark.parametrize("kind", KINDS)
    def test_fastlstm_itself_agrees_with_the_reference(self, kind, cell, dtype):
        problem = Problem(small(kind, cell), dtype)
        with opened([], 1) as (libraries, _):
            call = libraries[0].prepare(problem)
            result = [np.array(a) for a in call()]
        if kind == "fit":
            loss, params = fitted_by_reference(problem)
            assert result[0] == pytest.approx(loss)
            assert_close(tuple(result[1:]), in_parts(problem, params, 2))
            return
        forward, backward = functions(cell)
        arguments = problem.x, problem.w_ih, problem.w_hh, problem.b
        y, *_, tape = forward(*arguments, lengths=problem.lengths, training=True)
        if problem.trains:
            gradients = backward(tape, problem.dy)[:4]
            assert_close(tuple(result), (y, *in_parts(problem, gradients, 3)))
        else:
            assert_close(np.reshape(result[0], y.shape), y)

    def test_neighbours_are_busy_and_end(self, monkeypatch):
        started, popen = [], subprocess.Popen

        def recorded(*arguments):
            started.append(popen(*arguments))
            return started[-1]

        monkeypatch.setattr(subprocess, "Popen", recorded)
        with busy_processes(2):
            assert [process.poll() for process in started] == [None, None]
        assert [process.returncode for process in started] == [-signal.SIGKILL] * 2

    def test_times_are_those_of_the_calls(self):
        counts = dict.fromkeys("ab", 0)

        def call(name):
            counts[name] += 1
            return ()

        times = median_times({"a": lambda: call("a"), "b": lambda: call("b")}, 3)
        assert list(times) == ["a", "b"]
        assert min(counts.values()) > 3
