"""``fastlstm demo``: a forecaster of weekly CO2, from the series to the picture."""
