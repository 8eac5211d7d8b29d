"""A forecaster of the next two years of a weekly series: one LSTM, read by one linear layer.

Decisions:
a) One pass over a window of three years of measurements and the two years to forecast. In the
   second part the measurements are hidden, and what the LSTM puts out there is the forecast: all
   of it at once, nothing fed back.
b) Each step sees four numbers: the value, as its deviation from the mean of the last known year
   (the level of the series grows without bound, its deviations do not); whether it was measured;
   sine and cosine of the time of year.
c) A gap is filled with a straight line for the input, where the second number says so, and is left
   out of the loss: the model is never asked to learn what nobody measured.
d) The settings were chosen on two-year windows before the demo's held-out years.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastlstm import reference
from fastlstm._commands.demo.co2 import WEEKS_PER_YEAR, Series, fill_gaps
from fastlstm.layers import LSTM, Gradients
from fastlstm.training import Adam, HasFlat, Linear, clip_grad_norm, mse_loss

CONTEXT = 3 * WEEKS_PER_YEAR
HORIZON = 2 * WEEKS_PER_YEAR
BATCH = 64
LEARNING_RATE = 5e-3
PPM_PER_UNIT = 3.0  # about the amplitude of the seasons
WEEK = np.timedelta64(7, "D")


class Batch(NamedTuple):
    """Windows to learn from, or to forecast."""

    x: NDArray[np.float32]  # (CONTEXT + HORIZON, B, 4)
    target: NDArray[np.float32]  # (HORIZON, B, 1): deviation from the level
    known: NDArray[np.bool_]  # (HORIZON, B, 1): whether it was measured
    level: NDArray[np.float64]  # (B,): mean of the last year of the context, ppm


class Windows:
    """Cuts windows out of a series, to which HORIZON unknown weeks are appended."""

    def __init__(self, series: Series) -> None:
        unknown = np.full(HORIZON, np.nan)
        future = series.dates[-1] + WEEK * np.arange(1, HORIZON + 1)
        days = np.concatenate([series.dates, future]).astype(np.int64)
        angle = 2 * np.pi * days / 365.2425
        self.season = np.stack([np.sin(angle), np.cos(angle)], axis=-1)
        self.known = ~np.isnan(np.concatenate([series.ppm, unknown]))
        self.filled = np.concatenate([fill_gaps(series.ppm), unknown])
        self.end = len(series.ppm)

    def cut(self, starts: NDArray[np.int64]) -> Batch:
        """Return the windows whose forecast starts in these weeks."""
        weeks = starts + np.arange(-CONTEXT, HORIZON)[:, np.newaxis]
        level = self.filled[weeks[CONTEXT - WEEKS_PER_YEAR : CONTEXT]].mean(axis=0)
        deviation = (self.filled[weeks] - level) / PPM_PER_UNIT
        x = np.empty((*weeks.shape, 4), np.float32)
        x[..., 0] = deviation
        x[..., 1] = self.known[weeks]
        x[CONTEXT:, :, :2] = 0  # what is to be forecast is not shown
        x[..., 2:] = self.season[weeks]
        future = weeks[CONTEXT:, :, np.newaxis]
        return Batch(
            x, deviation[CONTEXT:, :, np.newaxis].astype(np.float32), self.known[future], level
        )

    def draw(self, rng: np.random.Generator) -> Batch:
        """Return BATCH windows that lie within the series."""
        return self.cut(rng.integers(CONTEXT, self.end - HORIZON + 1, BATCH))


class Forecaster:
    """The model.

    Parameters
    ----------
    hidden_size : int
        Hidden units of the LSTM.
    rng : numpy.random.Generator, int or None
        Draws the initial parameters and the windows to learn from.
    """

    def __init__(self, hidden_size: int, rng: np.random.Generator | int | None = None) -> None:
        self.rng = np.random.default_rng(rng)
        self.lstm = LSTM(4, hidden_size, rng=self.rng)
        self.linear = Linear(hidden_size, 1, rng=self.rng)

    def train(self, series: Series, steps: int) -> Iterator[float]:
        """Make one training step for each item asked of the iterator: its loss."""
        windows = Windows(series)
        optimizer = Adam([self.lstm, self.linear])
        for step in range(steps):
            optimizer.lr = LEARNING_RATE * 0.5 * (1 + math.cos(math.pi * step / steps))
            yield training_step(self.lstm, self.linear, optimizer, windows.draw(self.rng))

    def forecast(self, series: Series) -> NDArray[np.float64]:
        """Return the HORIZON weeks after the end of a series, in ppm."""
        windows = Windows(series)
        batch = windows.cut(np.array([windows.end]))
        y, _ = self.lstm(batch.x)
        return self.linear(y[CONTEXT:])[:, 0, 0] * PPM_PER_UNIT + batch.level

    def save(self, file: BinaryIO) -> None:
        """Write the parameters as an npz file, from which `load` makes the model again."""
        parts = {"lstm": self.lstm.params, "linear": self.linear.params}
        arrays: dict[str, Any] = {
            f"{part}.{name}": array
            for part, params in parts.items()
            for name, array in params.items()
        }
        np.savez(file, hidden_size=self.lstm.hidden_size, **arrays)

    @classmethod
    def load(cls, path: str | Path) -> "Forecaster":
        """Read a model that `save` wrote."""
        with np.load(path) as saved:
            model = cls(int(saved["hidden_size"]))
            for part, params in (("lstm", model.lstm.params), ("linear", model.linear.params)):
                for name, array in params.items():
                    array[...] = saved[f"{part}.{name}"]
        return model


class ReferenceLSTM:
    """The training half of `LSTM`, computed by the NumPy reference, with a copy of the weights."""

    def __init__(self, lstm: LSTM) -> None:
        self._views = lstm._views
        self.flat = lstm.flat.copy()
        self.params = self._views(self.flat)

    def forward(self, x: NDArray[Any]) -> tuple[NDArray[Any], None, Any]:
        """Do what `LSTM.forward` does."""
        output = reference.lstm_forward(x, *self.params.values(), training=True)
        return output.y, None, output.tape

    def backward(self, tape: Any, dy: NDArray[Any]) -> Gradients:
        """Do what `LSTM.backward` does."""
        g = reference.lstm_backward(tape, dy)
        flat = np.concatenate([part.ravel() for part in (g.w_ih, g.w_hh, g.b) if part is not None])
        return Gradients(g.x, (np.empty(0), np.empty(0)), self._views(flat), flat)


def training_step(
    lstm: LSTM | ReferenceLSTM, linear: Linear, optimizer: Adam, batch: Batch
) -> float:
    """Update the parameters once and return the loss before it, in squared units."""
    y, _, tape = lstm.forward(batch.x)
    prediction, linear_tape = linear.forward(y[CONTEXT:])
    loss, dprediction = mse_loss(prediction, batch.target, mask=batch.known)
    linear_gradients = linear.backward(linear_tape, dprediction)
    dy = np.zeros_like(y)
    dy[CONTEXT:] = linear_gradients.x
    gradients: list[HasFlat] = [lstm.backward(tape, dy), linear_gradients]
    clip_grad_norm(gradients, max_norm=1.0)
    optimizer.step(gradients)
    return loss
