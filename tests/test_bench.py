"""`fastlstm bench`: its arguments, its table and files, the lower bound, and equal results."""

import json

import numpy as np
import pytest
from helpers import assert_close, forced_threads

import fastlstm
from fastlstm import bench, reference
from fastlstm.__main__ import main
from fastlstm._measure import KINDS, Case, Problem, check_equal, median_times
from fastlstm._peers import PEERS, Fastlstm, opened
from fastlstm._roofline import ARITHMETIC, BEYOND, Roofline

TINY = ["bench", "--rounds", "1", "--threads", "1", "--shapes", "3,2,4,5"]


def small(kind):
    return Case(kind, 1 if kind == "step" else 6, 3, 5, 7)


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
        options = ["--kind", *KINDS, "--json", str(files[0]), "--plot", str(files[1])]
        threads = fastlstm.get_num_threads()
        assert main([*TINY, *options]) == 0
        assert fastlstm.get_num_threads() == threads
        assert sorted(tmp_path.iterdir()) == sorted(files)
        assert files[1].read_bytes().startswith(b"\x89PNG")

        report = json.loads(files[0].read_text())
        assert report["versions"] == {"fastlstm": fastlstm.__version__}
        assert set(report["roofline"][0]["per_second"]) == {"arithmetic", "L1", "L2", "memory"}
        assert [row["kind"] for row in report["results"]] == list(KINDS)
        assert [row["T"] for row in report["results"]] == [3, 3, 3, 1]
        for row in report["results"]:
            assert row["microseconds"]["fastlstm"] > 0
            assert row["least_microseconds"] > 0
            assert row["ratio"] is None

        lines = capsys.readouterr().out.splitlines()
        for kind in KINDS:
            assert any(line.startswith(f"{kind} ") for line in lines)

    def test_grid(self, capsys, tmp_path):
        path = tmp_path / "grid.json"
        path.write_text('[["train", 2, 1, 3, 4], ["step", 1, 1, 2, 2]]')
        assert main(["bench", "--rounds", "1", "--grid", str(path), "--threads", "1", "2"]) == 0
        out = capsys.readouterr().out
        assert out.count("train 2,1,3,4 ") == out.count("step 1,1,2,2 ") == 2

    def test_files_are_replaced_only_on_request(self, capsys, tmp_path):
        path = tmp_path / "a.json"
        path.write_text("mine")
        assert main([*TINY, "--json", str(path)]) == 1
        assert f"{path} exists; --force" in capsys.readouterr().err
        assert path.read_text() == "mine"
        assert main([*TINY, "--train", "--json", str(path), "--force"]) == 0
        assert json.loads(path.read_text())["results"][0]["kind"] == "train"

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
    result = bench.Result(
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
        row = bench.row(self.result, columns)
        assert row.split() == (
            ["forward", "10,2,3,4", "4.0", "20.0", "-", "6.0", "1.50", "2.0", "1.0", "25"]
        )
        assert len(row) == len(bench.header(columns))

    def test_as_dict(self):
        row = self.result.as_dict()
        assert row["ratio"] == 1.5
        assert row["gflops"] == 2
        assert row["percent_of_roofline"] == 25


class TestLeastTime:
    def test_operations(self):
        assert Problem(Case("forward", 10, 2, 3, 4)).operations == 2 * 20 * 16 * 7
        assert Problem(Case("train", 10, 2, 3, 4)).operations == 3 * 2 * 20 * 16 * 7
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
    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("name", PEERS)
    def test_agree_with_fastlstm(self, name, kind, dtype):
        for module in (name, *PEERS[name].needs):
            pytest.importorskip(module)
        problem = Problem(small(kind), dtype)
        with opened([name], 1) as (libraries, skipped):
            assert not skipped
            if not libraries[1].supports(problem):
                pytest.skip(f"{name} has no {kind} in {dtype}")
            check_equal({each.name: each.prepare(problem) for each in libraries}, problem)

    def test_leave_the_number_of_threads_as_it_was(self):
        torch = pytest.importorskip("torch")
        before = torch.get_num_threads()
        with forced_threads(2), opened(["torch"], 1):
            assert fastlstm.get_num_threads() == torch.get_num_threads() == 1
        assert torch.get_num_threads() == before

    @pytest.mark.parametrize("kind", KINDS)
    def test_fastlstm_itself_agrees_with_the_reference(self, kind, dtype):
        problem = Problem(small(kind), dtype)
        with opened([], 1) as (libraries, _):
            result = libraries[0].prepare(problem)()
        y, _, _, tape = reference.lstm_forward(
            problem.x, problem.w_ih, problem.w_hh, problem.b, lengths=problem.lengths, training=True
        )
        if not problem.trains:
            assert_close(np.reshape(result[0], y.shape), y)
        else:
            assert_close(result, (y, *reference.lstm_backward(tape, problem.dy)[:4]))

    def test_times_are_those_of_the_calls(self):
        counts = dict.fromkeys("ab", 0)

        def call(name):
            counts[name] += 1
            return ()

        times = median_times({"a": lambda: call("a"), "b": lambda: call("b")}, 3)
        assert list(times) == ["a", "b"]
        assert min(counts.values()) > 3
