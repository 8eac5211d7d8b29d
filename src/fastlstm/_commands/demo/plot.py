"""The plot of the demo: the forecast beside the truth, its error, and the series it comes from."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fastlstm._commands.demo.co2 import Forecast, Series, errors

INK, GREY, FAINT = "#222222", "#8a8a8a", "#d9d9d9"
COLOURS = {"LSTM": "#c8401f", "seasonal naive with drift": "#2f6f9f", "seasonal naive": GREY}
SHOWN_BEFORE = 78  # weeks before the forecast


def draw(past: Series, held_out: Series, forecasts: list[Forecast]) -> Figure:
    """Return the figure; the first forecast is the one it is about."""
    figure = Figure(figsize=(11, 8.5), dpi=130, layout="constrained")
    axes = figure.subplots(3, 1, height_ratios=[3.2, 1.3, 1.3])
    _draw_forecasts(axes[0], past, held_out, forecasts)
    _draw_residuals(axes[1], held_out, forecasts)
    _draw_series(axes[2], past, held_out, forecasts[0])
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
        ax.tick_params(colors=INK)
        ax.grid(axis="y", color=FAINT, linewidth=0.6)
        ax.set_axisbelow(True)
    return figure


def _draw_forecasts(ax: Axes, past: Series, held_out: Series, forecasts: list[Forecast]) -> None:
    ax.plot(past.dates[-SHOWN_BEFORE:], past.ppm[-SHOWN_BEFORE:], ".", color=GREY, markersize=4)
    ax.plot(
        held_out.dates, held_out.ppm, "o", color=INK, markersize=3.5, label="measured, held out"
    )
    for forecast in reversed(forecasts):
        mae, _ = errors(forecast.ppm, held_out.ppm)
        ax.plot(
            held_out.dates,
            forecast.ppm,
            color=COLOURS[forecast.name],
            linewidth=2.4 if forecast is forecasts[0] else 1.3,
            linestyle="-" if forecast is forecasts[0] else "--",
            label=f"{forecast.name}: off by {mae:.2f} ppm on average",
        )
    ax.axvline(held_out.dates[0], color=GREY, linewidth=0.8)
    ax.text(
        held_out.dates[0],
        1.0,
        " forecast begins: nothing to the right was seen",
        color=GREY,
        va="top",
        transform=ax.get_xaxis_transform(),
    )
    ax.set_title(
        "Weekly CO$_2$ at Mauna Loa, forecast two years ahead by an LSTM",
        loc="left",
        fontsize=14,
        fontweight="bold",
        color=INK,
    )
    ax.set_ylabel("CO$_2$ (ppm)")
    handles, labels = ax.get_legend_handles_labels()
    ax.legend(
        handles[::-1], labels[::-1], frameon=False, loc="upper left", bbox_to_anchor=(0, 0.97)
    )


def _draw_residuals(ax: Axes, held_out: Series, forecasts: list[Forecast]) -> None:
    for forecast in forecasts[:2]:
        residual = forecast.ppm - held_out.ppm
        if forecast is forecasts[0]:
            ax.bar(held_out.dates, residual, width=5.5, color=COLOURS[forecast.name])
        else:
            ax.plot(held_out.dates, residual, "--", color=COLOURS[forecast.name], linewidth=1.3)
    ax.axhline(0, color=INK, linewidth=0.8)
    limit = 1.1 * max(np.nanmax(np.abs(f.ppm - held_out.ppm)) for f in forecasts[:2])
    ax.set_ylim(-limit, limit)
    ax.set_ylabel("forecast - measured\n(ppm)")


def _draw_series(ax: Axes, past: Series, held_out: Series, forecast: Forecast) -> None:
    ax.plot(past.dates, past.ppm, color=GREY, linewidth=0.9)  # a NaN leaves a gap
    ax.plot(held_out.dates, held_out.ppm, color=INK, linewidth=0.9)
    ax.plot(held_out.dates, forecast.ppm, color=COLOURS[forecast.name], linewidth=1.8)
    ax.set_ylabel("whole series\n(ppm)")
    ax.text(
        1.0,
        -0.25,
        "Data: Keeling and Whorf (2004), Scripps Institution of Oceanography, by way of CDIAC",
        ha="right",
        va="top",
        fontsize=8,
        color=GREY,
        transform=ax.transAxes,
    )
