"""Plots: gates over time, how far back gradients reach, a forecast, how training went.

They draw into Axes and return them; saving and showing are the caller's. Matplotlib is imported
when something is drawn (``pip install matplotlib``).
"""

from __future__ import annotations  # so that help() shows names

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fastlstm._args.cells import PLAIN
from fastlstm._args.numbers import check_size

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["forecast", "gates", "gradient_flow", "training_curve"]

# from 0 to 1; what else is traced is drawn around 0
GATES = [gate for cell in PLAIN.values() for gate in cell.gates if gate != cell.candidate]
GAP = 0.15  # between bands, as a part of a band
COLOURS = ("#c8401f", "#2f6f9f", "#5a8f3c", "#8a5fa8", "#b8860b", "#555555")


def gates(
    trace: Mapping[str, Mapping[str, NDArray[Any]]],
    *,
    layer: str = "l0",
    row: int = 0,
    ax: Axes | None = None,
) -> Axes:
    """Draw a trace over time: a band for each gate and state, in it a line of pixels per unit.

    Parameters
    ----------
    trace : dict
        What a layer's `trace` returned.
    layer : str
        A key of it: ``"l0"``, ``"l0_reverse"``, ``"l1"``, ...
    row : int
        Of the batch.
    ax : Axes, optional
        Where to draw; a new figure if not given.

    Returns
    -------
    Axes
        Gates go from 0, white, to 1. The others are blue below 0 and red above it; the cell state's
        scale ends at its largest magnitude, which its label gives, that of the others at 1.

    Raises
    ------
    ImportError
        If there is no Matplotlib.
    ValueError
        If the trace has no such layer or row, or no steps.
    TypeError
        If `trace` is not what `trace` returned.

    Examples
    --------
    >>> import numpy as np
    >>> import fastlstm
    >>> from fastlstm import plot
    >>> lstm = fastlstm.LSTM(3, 8, rng=0)
    >>> trace = lstm.trace(np.ones((50, 1, 3), np.float32))
    >>> ax = plot.gates(trace)  # doctest: +SKIP
    >>> ax.figure.savefig("gates.png")  # doctest: +SKIP
    """
    if not isinstance(trace, Mapping):
        raise TypeError(f"trace: expected what a layer's trace() returned, got {trace!r}")
    if layer not in trace:
        raise ValueError(f"layer: expected one of {list(trace)}, got {layer!r}")
    arrays = trace[layer]
    T, B, _ = arrays["h"].shape
    row = check_size("row", row, least=0)
    if not T or row >= B:
        raise ValueError(f"row: expected one of a trace of {T} steps and {B} rows, got {row}")
    names = [name for name in GATES if name in arrays]
    names += [name for name in arrays if name not in GATES]
    ax = _axes(ax, (9, 0.6 + 1.1 * len(names)))
    ticks, images = [], {}
    for k, name in enumerate(names):
        values = arrays[name][:, row].T
        limit = max(1.0, float(np.nanmax(np.abs(values)))) if name == "c" else 1.0
        kind = "gate" if name in GATES else "state"
        images[kind] = ax.imshow(
            values,
            cmap="Greens" if kind == "gate" else "RdBu_r",
            vmin=0 if kind == "gate" else -limit,
            vmax=limit,
            extent=(0, T, (1 + GAP) * k + 1, (1 + GAP) * k),
            aspect="auto",
            interpolation="nearest",
        )
        ticks.append(f"c, to ±{limit:.2g}" if name == "c" and limit > 1 else name)
    ax.set_ylim((1 + GAP) * len(names) - GAP, 0)
    ax.set_yticks(0.5 + (1 + GAP) * np.arange(len(names)), ticks)
    ax.tick_params(axis="y", length=0)
    ax.spines[:].set_visible(False)
    ax.set_xlabel("step")
    if "gate" in images:
        bar = ax.figure.colorbar(images["gate"], cax=ax.inset_axes((1.02, 0.52, 0.02, 0.48)))
        bar.set_ticks([0, 1], labels=["closed", "open"])
    bar = ax.figure.colorbar(images["state"], cax=ax.inset_axes((1.02, 0.0, 0.02, 0.46)))
    least, most = images["state"].get_clim()
    bar.set_ticks([least, 0, most], labels=["-", "0", "+"])
    return ax


def gradient_flow(flows: Mapping[str, Mapping[str, NDArray[Any]]], ax: Axes | None = None) -> Axes:
    """Draw the size of gradients over the lag: how many steps before the loss they are taken.

    Parameters
    ----------
    flows : dict of dicts
        By the names to show, what `fastlstm.training.gradient_flow` returned. The line is the
        median over the rows.
    ax : Axes, optional
        Where to draw; a new figure if not given.

    Returns
    -------
    Axes
        On a logarithmic scale: the norm of dL/dh_t as lines, of dL/dc_t dashed, a colour for each
        name, for stacks of each layer. What is 0 has no point.

    Raises
    ------
    ImportError
        If there is no Matplotlib.
    ValueError
        If there is nothing to draw.

    Examples
    --------
    >>> import numpy as np
    >>> import fastlstm
    >>> from fastlstm import plot, training
    >>> x = np.random.default_rng(0).standard_normal((200, 8, 2))
    >>> layers = [cls(2, 8, dtype=np.float64, rng=0) for cls in (fastlstm.RNN, fastlstm.LSTM)]
    >>> flows = {layer.cell: training.gradient_flow(layer, x) for layer in layers}
    >>> ax = plot.gradient_flow(flows)  # doctest: +SKIP
    """
    if not flows:
        raise ValueError("flows: expected at least one, got none")
    ax = _axes(ax, (8, 4.5))
    lines: dict[tuple[str, str], str] = {}  # the colour of each layer of each network
    for label, flow in flows.items():
        for name, norms in flow.items():
            medians = np.median(norms, axis=1)[::-1].astype(np.float64)
            medians[medians == 0] = np.nan
            part, _, layer = name.partition("_")
            colour = lines.setdefault((label, layer), COLOURS[len(lines) % len(COLOURS)])
            text = ", ".join(filter(None, (label, layer, f"$|dL/d{part}_t|$")))
            style = "--" if part == "c" else "-"
            ax.plot(medians, style, color=colour, linewidth=1.8, label=text)
    ax.set_yscale("log")
    ax.set_xlim(left=0)
    ax.set_xlabel("lag: steps before the loss")
    ax.set_ylabel("norm of the gradient")
    return _finished(ax)


def forecast(
    past: Any, forecast: Any, *, quantiles: Any = None, actual: Any = None, ax: Axes | None = None
) -> Axes:
    """Draw a series, its forecast, and the interval between the outer quantiles.

    Parameters
    ----------
    past : (T,) array-like or Series of pandas
        What came before; as much of it as is to be shown.
    forecast : (horizon,) array-like or Series
        What `LSTMForecaster.forecast` returned.
    quantiles : (horizon, Q) array-like or DataFrame, optional
        What `forecast_quantiles` returned.
    actual : (horizon,) array-like, optional
        What came true.
    ax : Axes, optional
        Where to draw; a new figure if not given.

    Returns
    -------
    Axes
        Over the index if both are of pandas, else over steps, where 0 is the last of `past`.

    Raises
    ------
    ImportError
        If there is no Matplotlib.
    ValueError
        If the lengths do not fit or there are several columns.

    Examples
    --------
    >>> from fastlstm import plot
    >>> ax = plot.forecast([1, 2, 3], [4, 5], quantiles=[[3, 4, 5], [3, 5, 7]])  # doctest: +SKIP
    """
    before, after = np.asarray(past, np.float64), np.asarray(forecast, np.float64)
    for name, values in (("past", before), ("forecast", after)):
        if values.ndim != 1 or not values.size:
            raise ValueError(f"{name}: expected one series, got shape {values.shape}")
    steps: Any = np.arange(1 - len(before), len(after) + 1)
    x_before, x_after = steps[: len(before)], steps[len(before) :]
    if hasattr(past, "iloc") and hasattr(forecast, "iloc"):
        x_before, x_after = (
            one.index.to_timestamp() if hasattr(one.index, "to_timestamp") else one.index
            for one in (past, forecast)
        )
    ax = _axes(ax, (9, 4))
    ax.plot(x_before, before, color="#333333", linewidth=1.4, label="past")
    if quantiles is not None:
        band = np.asarray(quantiles, np.float64)
        if band.ndim != 2 or len(band) != len(after):
            raise ValueError(
                f"quantiles: expected ({len(after)}, Q), a row for each step, got {band.shape}"
            )
        label = "outer quantiles"
        ax.fill_between(x_after, band[:, 0], band[:, -1], color=COLOURS[0], alpha=0.2, label=label)
    ax.plot(x_after, after, color=COLOURS[0], linewidth=1.8, label="forecast")
    if actual is not None:
        true = np.asarray(actual, np.float64)
        if true.shape != after.shape:
            raise ValueError(f"actual: expected {after.shape}, as forecast, got {true.shape}")
        ax.plot(x_after, true, "--", color="#333333", linewidth=1.2, label="actual")
    return _finished(ax)


def training_curve(estimator: Any, ax: Axes | None = None) -> Axes:
    """Draw the losses of a fitted estimator over its epochs.

    Parameters
    ----------
    estimator
        Anything with ``loss_curve_``, and ``validation_loss_curve_`` if it held something out:
        those of `fastlstm.estimators`, and scikit-learn's MLP.
    ax : Axes, optional
        Where to draw; a new figure if not given.

    Returns
    -------
    Axes
        With a line for each curve.

    Raises
    ------
    ImportError
        If there is no Matplotlib.
    ValueError
        If there is no curve: it is not fitted, or its series was too short for a network.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> from fastlstm import plot
    >>> ax = plot.training_curve(SimpleNamespace(loss_curve_=[2.0, 1.0]))  # doctest: +SKIP
    """
    if not len(getattr(estimator, "loss_curve_", [])):
        raise ValueError("estimator: expected one with a loss_curve_ of some epochs")
    ax = _axes(ax, (6, 4))
    curves = {"training": estimator.loss_curve_}
    if len(getattr(estimator, "validation_loss_curve_", None) or []):
        curves["held out"] = estimator.validation_loss_curve_
    for k, (label, curve) in enumerate(curves.items()):
        epochs = np.arange(1, len(curve) + 1)
        ax.plot(epochs, curve, color=COLOURS[k], linewidth=1.8, label=label)
    ax.set_xlabel("epoch")
    ax.set_ylabel("loss")
    return _finished(ax)


def _axes(ax: Axes | None, size: tuple[float, float]) -> Axes:
    if ax is not None:
        return ax
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise ImportError("plots need matplotlib: pip install matplotlib") from error
    return pyplot.figure(figsize=size, dpi=130, layout="constrained").add_subplot()


def _finished(ax: Axes) -> Axes:
    """Return axes of lines with their grid and legend."""
    ax.grid(color="#d9d9d9", linewidth=0.6)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False)
    return ax
