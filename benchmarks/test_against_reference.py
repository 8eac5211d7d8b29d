"""fastlstm against the NumPy reference: every cell and dtype; forward, training, ragged, one step.

The two of a group do the same work on the same arrays in one process, and their results are
compared before anything is timed. README.md says how to run it and how to read it.
"""

import numpy as np
import pytest

import fastlstm
from fastlstm import reference, training

MODULES = {"fastlstm": fastlstm, "numpy": reference}
CELLS = {"lstm": fastlstm.LSTM, "gru": fastlstm.GRU, "rnn": fastlstm.RNN}
TOLERANCE = {"float32": 1e-4, "float64": 1e-10}  # sums in another order, over all steps
pytestmark = pytest.mark.benchmark(max_time=0.5)

each_module = pytest.mark.parametrize("name", MODULES)
each_cell = pytest.mark.parametrize("cell", CELLS)
each_dtype = pytest.mark.parametrize("dtype", TOLERANCE)


def problem(cell, shape, dtype):
    """Return a layer with random parameters, x, dy, and lengths of which one is T."""
    T, B, I, H = shape
    rng = np.random.default_rng(0)
    layer = CELLS[cell](I, H, dtype=dtype, rng=0)
    lengths = rng.integers(1, T + 1, B)
    lengths[0] = T
    return (
        layer,
        rng.standard_normal((T, B, I), dtype),
        rng.standard_normal((T, B, H), dtype),
        lengths,
    )


def measure(benchmark, group, name, functions, tolerance):
    """Time one of `functions` in a group, once all of them agree."""
    results = [function() for function in functions.values()]
    for result in results[1:]:
        for actual, desired in zip(results[0], result, strict=True):
            scale = max(1, np.abs(desired).max())
            np.testing.assert_allclose(actual, desired, rtol=10 * tolerance, atol=tolerance * scale)
    benchmark.group = group
    benchmark(functions[name])


@each_module
@each_cell
@each_dtype
@pytest.mark.parametrize("work", ["forward", "forward + backward", "ragged"])
def test_sequence(benchmark, shape, name, cell, dtype, work):
    """Ragged is forward + backward too."""
    layer, x, dy, lengths = problem(cell, shape, dtype)
    options = {"lengths": lengths} if work == "ragged" else {}

    def function(module):
        forward, backward = (getattr(module, f"{cell}_{way}") for way in ("forward", "backward"))

        def run():
            if work == "forward":
                return forward(x, *layer.params.values())[:-1]
            tape = forward(x, *layer.params.values(), **options, training=True).tape
            return backward(tape, dy)[:4]

        return run

    functions = {n: function(module) for n, module in MODULES.items()}
    group = f"{cell} {work}, {dtype}, (T, B, I, H) = {shape}"
    measure(benchmark, group, name, functions, TOLERANCE[dtype])


@each_module
@each_cell
@each_dtype
def test_one_step(benchmark, shape, name, cell, dtype):
    """A stream's step, and a call with T = 1 that is given the state of the one before."""
    _, B, _, H = shape
    layer, x, *_ = problem(cell, shape, dtype)
    stream, out = layer.stream(B), np.empty((B, H), dtype)
    forward = getattr(reference, f"{cell}_forward")
    states = ("h_0", "c_0") if cell == "lstm" else ("h_0",)
    state = {key: np.zeros((B, H), dtype) for key in states}

    def by_reference():
        y, *new, _ = forward(x[:1], *layer.params.values(), **state)
        state.update(zip(states, new, strict=True))
        return (y[0],)

    def by_stream():
        return (stream.step(x[0], out=out),)

    functions = {"fastlstm": by_stream, "numpy": by_reference}
    group = f"{cell} one step, {dtype}, (B, I, H) = {shape[1:]}"
    measure(benchmark, group, name, functions, TOLERANCE[dtype])


@each_module
def test_training_step(benchmark, shape, name):
    """Forward, linear layer, loss, backward, Adam: each with a model of its own, equal at first."""
    T, B, _, H = shape
    x = problem("lstm", shape, "float32")[1]
    target = np.ones((T, B, 1), np.float32)

    def step_of(module):
        lstm = problem("lstm", shape, "float32")[0]
        linear = training.Linear(H, 1, rng=0)
        adam = training.Adam([lstm, linear], lr=1e-3)

        def by_layer():
            y, _, tape = lstm.forward(x)
            prediction, linear_tape = linear.forward(y)
            loss, dprediction = training.mse_loss(prediction, target)
            grads_linear = linear.backward(linear_tape, dprediction)
            grads = lstm.backward(tape, grads_linear.x)
            adam.step([grads, grads_linear])
            return loss, grads.flat

        def by_reference():
            y, *_, tape = reference.lstm_forward(x, *lstm.params.values(), training=True)
            prediction, linear_tape = linear.forward(y)
            loss, dprediction = training.mse_loss(prediction, target)
            grads_linear = linear.backward(linear_tape, dprediction)
            grads = reference.lstm_backward(tape, grads_linear.x)
            flat = np.concatenate([g.ravel() for g in (grads.w_ih, grads.w_hh, grads.b)])
            adam.step([flat, grads_linear])
            return loss, flat

        return by_layer if module is fastlstm else by_reference

    functions = {n: step_of(module) for n, module in MODULES.items()}
    group = f"training step, float32, (T, B, I, H) = {shape}"
    measure(benchmark, group, name, functions, TOLERANCE["float32"])
