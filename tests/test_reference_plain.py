"""The plain cells against the full reference, the kernels, PyTorch and central differences."""

import numpy as np
import pytest
from helpers import AGAINST_TORCH, FINITE_DIFFERENCES, assert_close, central_differences, normal

import fastlstm
from fastlstm import reference
from fastlstm.reference import plain

T, B, I, H = 6, 3, 4, 5


def arguments(rng, gates, dtype=np.float64, bias=None):
    """Return x, W, U, b and a first h."""
    x, W, U = normal(rng, (T, B, I)), normal(rng, (gates * H, I)), normal(rng, (gates * H, H))
    b, h = normal(rng, ((bias or gates) * H,)), normal(rng, (B, H))
    return [a.astype(dtype) for a in (x, W, U, b, h)]


@pytest.mark.parametrize("functions", [reference, fastlstm], ids=["reference", "kernels"])
class TestSameNumbers:
    def test_lstm(self, isa, dtype, rng, functions):
        x, W, U, b, h = arguments(rng, 4, dtype)
        c, dy = normal(rng, (B, H)).astype(dtype), normal(rng, (T, B, H)).astype(dtype)
        y, c_n, tape = plain.lstm_forward(x, W, U, b, h, c)
        full = functions.lstm_forward(x, W, U, b, h, c, training=True)
        assert_close((y, c_n), (full.y, full.c_n))
        grads = functions.lstm_backward(full.tape, dy)
        wanted = grads.w_ih, grads.w_hh, grads.b, grads.x, grads.h_0, grads.c_0
        assert_close(plain.lstm_backward(tape, W, U, dy), wanted)

    def test_rnn(self, isa, dtype, rng, functions):
        x, W, U, b, h = arguments(rng, 1, dtype)
        dy = normal(rng, (T, B, H)).astype(dtype)
        states = plain.rnn_forward(x, W, U, b, h)
        full = functions.rnn_forward(x, W, U, b, h, training=True)
        assert_close(states[1:], full.y)
        grads = functions.rnn_backward(full.tape, dy)
        wanted = grads.w_ih, grads.w_hh, grads.b, grads.x, grads.h_0
        assert_close(plain.rnn_backward(x, W, U, states, dy), wanted)

    def test_gru(self, isa, dtype, rng, functions):
        x, W, U, b, h = arguments(rng, 3, dtype, bias=4)
        y = functions.gru_forward(x, W, U, b, h).y
        for t in range(T):
            h, _ = plain.gru_step(x[t], W, U, b, h)
            assert_close(h, y[t])


def test_lstm_backward_is_the_slope(rng):
    x, W, U, b, h = arguments(rng, 4)
    c, dy = normal(rng, (B, H)), normal(rng, (T, B, H))

    def loss():
        return float((plain.lstm_forward(x, W, U, b, h, c)[0] * dy).sum())

    _, _, tape = plain.lstm_forward(x, W, U, b, h, c)
    for gradient, array in zip(
        plain.lstm_backward(tape, W, U, dy), (W, U, b, x, h, c), strict=True
    ):
        assert_close(gradient, central_differences(loss, array), FINITE_DIFFERENCES)


@pytest.mark.parametrize("cell", ["LSTM", "GRU", "RNN"])
def test_against_pytorch(dtype, rng, cell):
    torch = pytest.importorskip("torch")
    layer = getattr(torch.nn, cell)(I, H, dtype=torch.float64)
    W, U, b_ih, b_hh = (p.detach().numpy() for p in layer.parameters())
    b = b_ih + b_hh
    if cell == "GRU":
        b = np.concatenate([b[: 2 * H], b_ih[2 * H :], b_hh[2 * H :]])
    x, h = normal(rng, (T, B, I)), np.zeros((B, H))
    y = layer(torch.from_numpy(x))[0].detach().numpy().astype(dtype)
    x, W, U, b, h = (a.astype(dtype) for a in (x, W, U, b, h))
    if cell == "LSTM":
        ours = plain.lstm_forward(x, W, U, b, h, h)[0]
    elif cell == "RNN":
        ours = plain.rnn_forward(x, W, U, b, h)[1:]
    else:
        steps = []
        for x_t in x:
            h, _ = plain.gru_step(x_t, W, U, b, h)
            steps.append(h)
        ours = np.stack(steps)
    assert_close(ours, y, AGAINST_TORCH)
