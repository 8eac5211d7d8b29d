"""Plots of gates and of gradients: what is drawn, where, and what is refused."""

import subprocess
import sys

import numpy as np
import pytest

import fastlstm
from fastlstm import plot, training

T, B, I, H = 9, 2, 3, 5


@pytest.fixture
def pyplot(monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.setenv("MPLBACKEND", "agg")
    from matplotlib import pyplot

    yield pyplot
    pyplot.close("all")


def traced(layer):
    return layer.trace(np.random.default_rng(0).standard_normal((T, B, I)).astype(np.float32))


class TestGates:
    @pytest.mark.parametrize(
        ("layer", "names"),
        [
            (fastlstm.LSTM(I, H, rng=0), "ifogch"),
            (fastlstm.GRU(I, H, rng=0), "rznh"),
            (fastlstm.RNN(I, H, rng=0), "h"),
        ],
        ids=["lstm", "gru", "rnn"],
    )
    def test_a_band_for_each_gate_and_state(self, pyplot, layer, names):
        trace = traced(layer)["l0"]
        ax = plot.gates({"l0": trace}, row=1)
        assert [label.get_text() for label in ax.get_yticklabels()] == list(names)
        for image, name in zip(ax.images, names, strict=True):
            np.testing.assert_array_equal(image.get_array(), trace[name][:, 1].T)
            left, right, bottom, top = image.get_extent()
            assert (left, right) == (0, T)
            assert bottom > top  # unit 0 above
        tops = [image.get_extent()[3] for image in ax.images]
        assert tops == sorted(tops)
        ax.figure.canvas.draw()

    def test_the_scale_of_a_large_cell_state_is_told(self, pyplot):
        trace = traced(fastlstm.LSTM(I, H, rng=0))
        trace["l0"]["c"][3, 0, 1] = -7
        ax = plot.gates(trace)
        assert ax.get_yticklabels()[4].get_text() == "c, to ±7"
        assert ax.images[4].get_clim() == (-7, 7)

    def test_draws_the_layer_and_the_axes_asked_for(self, pyplot):
        trace = traced(fastlstm.GRU(I, H, 2, rng=0))
        figure, axes = pyplot.subplots(2)
        assert plot.gates(trace, layer="l1", ax=axes[1]) is axes[1]
        np.testing.assert_array_equal(axes[1].images[0].get_array(), trace["l1"]["r"][:, 0].T)
        assert not axes[0].images
        figure.canvas.draw()

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"layer": "l1"}, r"layer: expected one of \['l0'\], got 'l1'"),
            ({"row": 2}, "row: expected one of a trace of 9 steps and 2 rows, got 2"),
            ({"row": -1}, "row: expected at least 0, got -1"),
        ],
    )
    def test_refuses_what_is_not_there(self, pyplot, arguments, message):
        with pytest.raises(ValueError, match=message):
            plot.gates(traced(fastlstm.LSTM(I, H, rng=0)), **arguments)


class TestGradientFlow:
    def test_lines_are_medians_over_the_lag(self, pyplot):
        x = np.random.default_rng(0).standard_normal((T, B, I))
        layers = (fastlstm.LSTM(I, H, dtype=np.float64, rng=0), fastlstm.RNN(I, H, dtype=float))
        flows = {layer.cell: training.gradient_flow(layer, x) for layer in layers}
        ax = plot.gradient_flow(flows)
        assert [line.get_linestyle() for line in ax.lines] == ["-", "--", "-"]
        h, c, _ = (line.get_ydata() for line in ax.lines)
        np.testing.assert_allclose(h, np.median(flows["lstm"]["h"], axis=1)[::-1])
        assert np.isnan(c[0])  # dL/dc at the loss is 0
        np.testing.assert_allclose(c[1:], np.median(flows["lstm"]["c"], axis=1)[-2::-1])
        assert ax.get_yscale() == "log"
        assert len(ax.get_legend().get_texts()) == 3
        ax.figure.canvas.draw()

    def test_axes_and_nothing_to_draw(self, pyplot):
        _, ax = pyplot.subplots()
        assert plot.gradient_flow({"ones": {"h": np.ones((4, 1))}}, ax) is ax
        with pytest.raises(ValueError, match="flows: expected at least one"):
            plot.gradient_flow({})


class TestForecast:
    def test_lines_and_band(self, pyplot):
        band = np.array([[3.0, 4, 5], [3, 5, 7]])
        ax = plot.forecast([1, 2, 3], [4, 5], quantiles=band, actual=[4, 6])
        assert [line.get_label() for line in ax.lines] == ["past", "forecast", "actual"]
        assert ax.lines[0].get_xdata().tolist() == [-2, -1, 0]
        assert ax.lines[1].get_xdata().tolist() == [1, 2]
        corners = ax.collections[0].get_paths()[0].vertices
        assert corners[:, 1].min() == 3
        assert corners[:, 1].max() == 7
        with pytest.raises(ValueError, match="past: expected one series"):
            plot.forecast(np.zeros((3, 2)), [1])
        with pytest.raises(ValueError, match=r"quantiles: expected \(2, Q\)"):
            plot.forecast([1], [1, 2], quantiles=[[1, 2]])
        with pytest.raises(ValueError, match="actual: expected"):
            plot.forecast([1], [1, 2], actual=[1])

    def test_over_the_index(self, pyplot):
        pandas = pytest.importorskip("pandas")
        index = pandas.date_range("2020-01-01", periods=5)
        y = pandas.Series(np.arange(5.0), index)
        ax = plot.forecast(y[:3], y[3:])
        assert (ax.lines[1].get_xdata() == index[3:]).all()
        ax.figure.canvas.draw()


def test_training_curve(pyplot):
    from types import SimpleNamespace

    model = SimpleNamespace(loss_curve_=[3.0, 2, 1], validation_loss_curve_=[4.0, 3, 3])
    ax = plot.training_curve(model)
    assert [line.get_ydata().tolist() for line in ax.lines] == [[3, 2, 1], [4, 3, 3]]
    with pytest.raises(ValueError, match="estimator: expected one with a loss_curve_"):
        plot.training_curve(SimpleNamespace())


def test_without_matplotlib_it_imports_and_names_the_extra():
    code = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "import numpy as np, fastlstm.plot\n"
        "try: fastlstm.plot.gradient_flow({'a': {'h': np.ones((3, 1))}})\n"
        "except ImportError as error: print(error)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "plots need matplotlib: pip install matplotlib\n"


def test_what_is_no_trace_is_named():
    with pytest.raises(TypeError, match="trace: expected what a layer's trace"):
        plot.gates(fastlstm.LSTM(2, 3))


def test_the_two_colour_bars_do_not_overlap():
    pyplot = pytest.importorskip("matplotlib.pyplot")
    figure, axes = pyplot.subplots(1, 2)
    trace = fastlstm.LSTM(2, 3, rng=0).trace(np.ones((5, 1, 2), np.float32))
    ax = plot.gates(trace, ax=axes[0])
    figure.canvas.draw()
    upper, lower = (bar.get_window_extent() for bar in ax.child_axes)
    assert upper.y0 > lower.y1
    assert upper.x0 > ax.get_window_extent().x1
    pyplot.close(figure)
