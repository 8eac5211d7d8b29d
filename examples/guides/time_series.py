"""
Time series with pandas
=======================

From a table with a time index to forecasts: many steps ahead by an estimator, and one step ahead by
a network that we train ourselves, without leaking the future.
"""

import io
from importlib.resources import files

import pandas as pd
from matplotlib import pyplot as plt

from fastlstm import plot
from fastlstm.estimators import LSTMForecaster

path = files("fastlstm") / "_commands/demo/data/co2_weekly_mauna_loa.csv"
table = pd.read_csv(io.StringIO(path.read_text()), comment="#", index_col=0, parse_dates=True)
series = table.iloc[:, 0].interpolate()
print(series.tail(3))

# %%
# Two years of monthly means, with an interval that shall hold 80 % of the values. The index of the
# forecast goes on where that of the series ends:

months = series.resample("MS").mean()
known, later = months[:-24], months[-24:]
model = LSTMForecaster(24, quantiles=(0.1, 0.5, 0.9), random_state=0).fit(known)
quantiles = model.forecast_quantiles()
print(quantiles.head(3).round(1))
error = (model.forecast() - later).abs().mean()
print(f"mean absolute error: {error:.2f} ppm")

ax = plot.forecast(known[-60:], model.forecast(), quantiles=quantiles, actual=later)
ax.set(ylabel="ppm")
plt.show()

# %%
# :doc:`How good it is </forecasting>` has been measured beside the methods of statsmodels.
#
# One step ahead, by hand
# -----------------------
#
# A network wants numbers of about 1, without a trend: weekly changes, scaled by what is known
# before the split. Time comes in as two more columns, the season.

import numpy as np

import fastlstm
from fastlstm.training import Adam, CosineDecay, Linear, mse_loss

change = series.diff().dropna()
train = change.index < "1995"
day = 2 * np.pi * change.index.day_of_year / 365.25
features = pd.DataFrame(
    {"change": change / change[train].std(), "sin": np.sin(day), "cos": np.cos(day)}
).astype(np.float32)
x = features.to_numpy()[:-1, np.newaxis]  # (T, 1, 3): steps, one row, features
target = features["change"].to_numpy()[1:, np.newaxis, np.newaxis]
seen = train[1:]

lstm, linear, steps = fastlstm.LSTM(3, 24, rng=0), Linear(24, 1, rng=0), 200
optimizer = Adam([lstm, linear], lr=CosineDecay(1e-2, steps))
for _ in range(steps):
    y, _, tape = lstm.forward(x[seen])
    answer, linear_tape = linear.forward(y)
    loss, gradient = mse_loss(answer, target[seen])
    linear_grads = linear.backward(linear_tape, gradient)
    optimizer.step([lstm.backward(tape, linear_grads.x), linear_grads])

# %%
# Then one pass over all, in which each output has seen its past only, and a look at what was not
# trained on, beside the change of the week before and that of the year before:

forecast = pd.Series(linear(lstm(x)[0])[:, 0, 0], index=change.index[1:]) * change[train].std()
errors = pd.DataFrame(
    {
        "LSTM": forecast - change,
        "no change": -change,
        "last year's": change.shift(52) - change,
    }
)[~train]
print(errors.abs().mean().round(3).rename("mean absolute error, ppm"))

figure, ax = plt.subplots()
ax.plot(change["1998":], linewidth=0.8, color="grey", label="weekly change")
ax.plot(forecast["1998":], label="said the week before")
ax.set(ylabel="ppm")
ax.legend()
plt.show()
