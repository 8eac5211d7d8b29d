"""fastlstm against the NumPy reference: forward, forward + backward, one step, a training step.

The two of a group do the same work on the same arrays in one process, and their results are
compared before anything is timed. README.md says how to run it and how to read it.
"""

import numpy as np
import pytest

import fastlstm
from fastlstm import reference, training

MODULES = {"fastlstm": fastlstm, "numpy": reference}
each_module = pytest.mark.parametrize("name", MODULES)


def arguments(shape):
    """Return x, w_ih, w_hh, b and dy in float32."""
    T, B, I, H = shape
    rng = np.random.default_rng(0)
    scale = 1 / np.sqrt(H)
    sizes = {"x": (T, B, I), "w_ih": (4 * H, I), "w_hh": (4 * H, H), "b": (4 * H,), "dy": (T, B, H)}
    return {
        name: rng.standard_normal(size, np.float32) * np.float32(1 if name in "x dy" else scale)
        for name, size in sizes.items()
    }


def measure(benchmark, work, shape, name, functions):
    """Time one of `functions` in the group of this work and shape, once all of them agree."""
    results = [function() for function in functions.values()]
    for result in results[1:]:
        for actual, desired in zip(results[0], result, strict=True):
            np.testing.assert_allclose(
                actual, desired, rtol=1e-3, atol=1e-4 * max(1, np.abs(desired).max())
            )
    benchmark.group = f"{work}, (T, B, I, H) = {shape}"
    benchmark(functions[name])


@each_module
def test_forward(benchmark, shape, name):
    given = arguments(shape)
    del given["dy"]

    def forward(module):
        return lambda: module.lstm_forward(**given)[:3]

    measure(benchmark, "forward", shape, name, {n: forward(m) for n, m in MODULES.items()})


@each_module
def test_forward_and_backward(benchmark, shape, name):
    given = arguments(shape)
    dy = given.pop("dy")

    def forward_and_backward(module):
        def run():
            tape = module.lstm_forward(**given, training=True).tape
            return module.lstm_backward(tape, dy)[:4]

        return run

    functions = {n: forward_and_backward(m) for n, m in MODULES.items()}
    measure(benchmark, "forward + backward", shape, name, functions)


@each_module
def test_one_step(benchmark, shape, name):
    _, B, I, H = shape
    lstm = fastlstm.LSTM(I, H, rng=0)
    stream = lstm.stream(B)
    x_t = arguments(shape)["x"][0]
    out = np.empty((B, H), np.float32)
    weights = list(lstm.params.values())
    state = {"h_0": np.zeros((B, H), np.float32), "c_0": np.zeros((B, H), np.float32)}

    def by_reference():
        y, state["h_0"], state["c_0"], _ = reference.lstm_forward(
            x_t[np.newaxis], *weights, **state
        )
        return (y[0],)

    def by_stream():
        return (stream.step(x_t, out=out),)

    functions = {"fastlstm": by_stream, "numpy": by_reference}
    measure(benchmark, "one step", shape, name, functions)


@each_module
def test_training_step(benchmark, shape, name):
    """Forward, linear layer, loss, backward, Adam: each with a model of its own, equal at first."""
    T, B, I, H = shape
    given = arguments(shape)
    target = np.ones((T, B, 1), np.float32)

    def step_of(module):
        lstm = fastlstm.LSTM(I, H, rng=0)
        linear = training.Linear(H, 1, rng=0)
        adam = training.Adam([lstm, linear], lr=1e-3)

        def by_layer():
            y, _, tape = lstm.forward(given["x"])
            prediction, linear_tape = linear.forward(y)
            loss, dprediction = training.mse_loss(prediction, target)
            grads_linear = linear.backward(linear_tape, dprediction)
            grads = lstm.backward(tape, grads_linear.x)
            adam.step([grads, grads_linear])
            return loss, grads.flat

        def by_reference():
            y, *_, tape = reference.lstm_forward(given["x"], *lstm.params.values(), training=True)
            prediction, linear_tape = linear.forward(y)
            loss, dprediction = training.mse_loss(prediction, target)
            grads_linear = linear.backward(linear_tape, dprediction)
            grads = reference.lstm_backward(tape, grads_linear.x)
            flat = np.concatenate([g.ravel() for g in (grads.w_ih, grads.w_hh, grads.b)])
            adam.step([flat, grads_linear])
            return loss, flat

        return by_layer if module is fastlstm else by_reference

    functions = {n: step_of(m) for n, m in MODULES.items()}
    measure(benchmark, "training step", shape, name, functions)
