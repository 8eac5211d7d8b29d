"""The plot of `fastlstm bench`: ratios and per cent of roofline, for each number of threads."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fastlstm._commands.bench.measure import Case
from fastlstm._commands.bench.table import Result

MARKERS = "osD^vP"


def draw(results: Sequence[Result], title: str) -> Figure:
    """Return the figure; there are no ratios where there are no peers."""
    threads = list(dict.fromkeys(result.threads for result in results))
    peers = list(dict.fromkeys(name for result in results for name in result.ratios))
    cases = list(dict.fromkeys(result.case for result in results))
    panels = 2 if peers else 1
    size = 1.5 + 3 * panels * len(threads), 1.6 + 0.2 * len(cases)
    figure = Figure(figsize=size, dpi=130, layout="constrained")
    axes = figure.subplots(1, panels * len(threads), sharey=True, squeeze=False)
    axes = axes.reshape(len(threads), panels)
    for n, pair in zip(threads, axes, strict=True):
        rows = [result for result in results if result.threads == n]
        if peers:
            _draw_ratios(pair[0], rows, cases, peers)
        _draw_percents(pair[-1], rows, cases)
        for ax in pair:
            ax.set_title(f"{n} thread{'s' * (n > 1)}")
            ax.grid(axis="x", alpha=0.4)
            ax.set_axisbelow(True)
    first = axes[0, 0]
    first.set_yticks(range(len(cases)), map(str, cases))
    first.set_ylabel("cell kind T,B,I,H")
    first.set_ylim(len(cases) - 0.5, -0.5)
    if peers:
        handles, labels = first.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    figure.suptitle(title)
    return figure


def _draw_ratios(ax: Axes, rows: list[Result], cases: list[Case], peers: list[str]) -> None:
    for marker, name in zip(MARKERS, peers, strict=False):
        measured = [row for row in rows if name in row.ratios]
        places = [cases.index(row.case) for row in measured]
        ax.plot([row.ratios[name] for row in measured], places, marker, label=name)
    ax.axvline(1, color="black", label="fastlstm")
    ax.set_xscale("log")
    ax.xaxis.set_major_formatter("{x:g}")
    ax.set_xlabel("time / time of fastlstm")


def _draw_percents(ax: Axes, rows: list[Result], cases: list[Case]) -> None:
    ax.barh([cases.index(row.case) for row in rows], [row.percent for row in rows], color="0.6")
    ax.set_xlim(0, 105)
    ax.set_xlabel("% of roofline")
