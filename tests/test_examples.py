"""Examples run, at a tiny size, as someone would run them."""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


@pytest.fixture
def long_lag(monkeypatch):
    pytest.importorskip("tqdm")
    monkeypatch.setenv("MPLBACKEND", "agg")
    import fastlstm

    threads = fastlstm.get_num_threads()
    spec = importlib.util.spec_from_file_location("long_lag", EXAMPLES / "long_lag.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "long_lag", module)  # dataclasses look there
    spec.loader.exec_module(module)
    yield module
    fastlstm.set_num_threads(threads)


class TestLongLag:
    @pytest.mark.parametrize("T", [20, 100])
    def test_sequences_are_those_of_1997(self, long_lag, T):
        x, lengths, target = long_lag.draw(np.random.default_rng(0), T, 3000)
        assert lengths.min() == T
        assert lengths.max() == T + T // 10
        assert len(x) == lengths.max()
        assert set(np.unique(x[..., 1])) == {-1, 0, 1}
        starts_marked = 0
        latest = 0
        for b, end in enumerate(lengths):
            values, marks = x[:end, b].T
            assert marks[0] == marks[-1] == -1
            marked = np.flatnonzero(marks == 1)
            if len(marked) == 2:
                assert marked[0] < 10
            else:  # the mark of the first pair gave way to that of the start
                assert (len(marked), values[0]) == (1, 0)
                starts_marked += 1
            latest = max(latest, marked[-1])
            assert target[b] == pytest.approx(0.5 + values[marked].sum() / 4, abs=1e-6)
        assert latest == T // 2 - 1  # so that at least T/2 steps remain
        assert 0.5 < starts_marked / (3000 * (0.1 + 0.9 / (T / 2 - 1))) < 1.5

    @pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
    def test_a_budget_is_kept_and_a_table_printed(self, long_lag, capsys, tmp_path, cell):
        path = tmp_path / "trials.json"
        options = f"--length 20 --cell {cell} --budget 64 --trials 2 --hidden-size 4 --save {path}"
        long_lag.main(options.split())
        _, row = capsys.readouterr().out.splitlines()
        assert row.split()[:2] == ["20", cell]
        trials = json.loads(path.read_text())
        assert [trial["seed"] for trial in trials] == [0, 1]
        assert all(trial["sequences"] == 64 and not trial["learned"] for trial in trials)

    def test_a_short_lag_is_learned(self, long_lag):
        trial = long_lag.run_trial(20, "lstm", "long", 16, 40_000, 0.01, seed=0)
        assert trial.learned
        assert trial.wrong < 0.02 * long_lag.TEST

    def test_a_seed_gives_the_same_trial(self, long_lag):
        trials = [long_lag.run_trial(20, "lstm", 1.0, 4, 320, 0.01, seed=3) for _ in range(2)]
        assert trials[0].mse == trials[1].mse

    def test_figures(self, long_lag, capsys, tmp_path, monkeypatch):
        pytest.importorskip("matplotlib")
        monkeypatch.setitem(long_lag.PUBLISHED, 100, (64, 0))  # sequences to train on
        long_lag.main(["--figures", str(tmp_path), "--hidden-size", "4"])
        assert len(list(tmp_path.glob("*.png"))) == 2
        assert "LSTM, long" in capsys.readouterr().out


def test_the_character_model_learns_and_is_short(capsys, monkeypatch):
    monkeypatch.setattr(sys, "path", sys.path[:])
    source = (EXAMPLES / "guides" / "characters.py").read_text()
    code = source.split('"""')[2].split("# %%")[0]
    assert sum(bool(line.strip()) for line in code.splitlines()) <= 25
    assert "1500, np.random" in code
    names = {}
    exec(code.replace("1500, np.random", "120, np.random"), names)
    frequency = np.bincount(names["ids"]) / len(names["ids"])
    losses = names["losses"]
    assert losses[0] == pytest.approx(np.log(names["C"]), rel=0.05)
    assert np.mean(losses[-5:]) < -(frequency @ np.log(frequency)) + 0.1
    assert len(capsys.readouterr().out) == 601
