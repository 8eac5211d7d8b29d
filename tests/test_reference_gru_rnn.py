"""The GRU and the plain RNN of the NumPy reference with every activation, against others' code."""

import os

import numpy as np
import pytest
from cells import CELLS, PLAIN
from helpers import (
    AGAINST_KERAS,
    AGAINST_TORCH,
    FINITE_DIFFERENCES,
    assert_close,
    normal,
    slope,
)
from onnx_peer import onnx_blocks, run_onnx

from fastlstm import reference

T, B, I, H = 5, 4, 3, 2

CUSTOM = [
    "sigmoid",
    "tanh",
    "relu",
    ("affine", 0.7, 0.2),
    ("leaky_relu", 0.3),
    ("thresholded_relu", 0.4),
    ("scaled_tanh", 1.7, 0.6),
    ("hard_sigmoid", 0.3, 0.4),
    ("elu", 1.3),
    "softsign",
    "softplus",
]
activations = pytest.mark.parametrize(
    "activation", CUSTOM, ids=lambda a: a if isinstance(a, str) else a[0]
)
reverse = pytest.mark.parametrize("reverse", [False, True], ids=["", "reverse"])


def gru_arguments(rng, dtype=np.float64, reset_after=True):
    return CELLS["gru" if reset_after else "gru reset before"].arguments(rng, T, B, I, H, dtype)[0]


def rnn_arguments(rng, dtype=np.float64):
    return PLAIN["rnn"].arguments(rng, T, B, I, H, dtype)[0]


def upstream_of(rng, outputs):
    """Return random gradients of outputs."""
    return [normal(rng, out.shape, out.dtype) for out in outputs]


# --- gradients ------------------------------------------------------------------------------------


@activations
@pytest.mark.parametrize("kind", ["gru", "rnn"])
def test_gradients_through_every_activation(rng, activation, kind):
    if kind == "gru":
        arguments, options = gru_arguments(rng), {"activations": ("hard_sigmoid", activation)}
    else:
        arguments, options = rnn_arguments(rng), {"nonlinearity": activation}
    cell = PLAIN[kind]
    upstream = cell.upstream(rng, T, B, H)
    _, gradients = cell.both(reference, arguments, options, upstream)

    def loss():
        outputs = cell.forward(reference, arguments, options)
        return sum(np.vdot(d, out) for d, out in zip(upstream.values(), outputs, strict=True))

    for name, array in arguments.items():
        direction = normal(rng, array.shape)
        actual = np.vdot(getattr(gradients, name), direction)
        assert_close(actual, slope(loss, [array], [direction]), FINITE_DIFFERENCES)


# --- values ---------------------------------------------------------------------------------------


def torch_outputs_and_gradients(torch, peer, arguments, upstream, parameters, h_0):
    """Return y, h_n and the gradients of x, the parameters and h_0 by a module of PyTorch."""
    x, h_0 = (torch.tensor(a, requires_grad=True) for a in (arguments["x"], h_0))
    with torch.no_grad():
        for parameter, value in parameters.items():
            getattr(peer, parameter)[:] = torch.tensor(value)
    y, h_n = peer(x, h_0[None])
    torch.autograd.backward([y, h_n[0]], [torch.tensor(d) for d in upstream])
    outputs = (y.detach().numpy(), h_n[0].detach().numpy())
    return outputs, x.grad.numpy(), {k: getattr(peer, k).grad.numpy() for k in parameters}, h_0.grad


def test_gru_equals_torch(rng, dtype):
    torch = pytest.importorskip("torch")
    arguments = gru_arguments(rng, dtype)
    *own, tape = reference.gru_forward(**arguments, training=True)
    upstream = upstream_of(rng, own)
    b = arguments["b"]
    b_hh = np.concatenate([np.zeros(2 * H, dtype), b[3 * H :]])
    parameters = {
        "weight_ih_l0": arguments["w_ih"],
        "weight_hh_l0": arguments["w_hh"],
        "bias_ih_l0": b[: 3 * H],
        "bias_hh_l0": b_hh,
    }
    peer = torch.nn.GRU(I, H, dtype=getattr(torch, dtype.name))
    outputs, dx, dparameters, dh_0 = torch_outputs_and_gradients(
        torch, peer, arguments, upstream, parameters, arguments["h_0"]
    )
    assert_close(tuple(own), outputs, AGAINST_TORCH)
    dw_ih, dw_hh, db_ih, db_hh = dparameters.values()
    db = np.concatenate([db_ih, db_hh[2 * H :]])
    desired = (dx, dw_ih, dw_hh, db, dh_0.numpy())
    assert_close(reference.gru_backward(tape, *upstream), desired, AGAINST_TORCH)


@pytest.mark.parametrize("nonlinearity", ["tanh", "relu"])
def test_rnn_equals_torch(rng, dtype, nonlinearity):
    torch = pytest.importorskip("torch")
    arguments = rnn_arguments(rng, dtype)
    *own, tape = reference.rnn_forward(**arguments, nonlinearity=nonlinearity, training=True)
    upstream = upstream_of(rng, own)
    parameters = {
        "weight_ih_l0": arguments["w_ih"],
        "weight_hh_l0": arguments["w_hh"],
        "bias_ih_l0": 0.25 * arguments["b"],
        "bias_hh_l0": 0.75 * arguments["b"],
    }
    peer = torch.nn.RNN(I, H, nonlinearity=nonlinearity, dtype=getattr(torch, dtype.name))
    outputs, dx, dparameters, dh_0 = torch_outputs_and_gradients(
        torch, peer, arguments, upstream, parameters, arguments["h_0"]
    )
    assert_close(tuple(own), outputs, AGAINST_TORCH)
    dw_ih, dw_hh, db, _ = dparameters.values()
    desired = (dx, dw_ih, dw_hh, db, dh_0.numpy())
    assert_close(reference.rnn_backward(tape, *upstream), desired, AGAINST_TORCH)


# ONNX Runtime loses the state of a row without steps
LENGTHS = np.array([2, 5, 1, 3])


def onnx_name(activation):
    """Return the attributes of an activation, which is given as (name, alpha, beta)."""
    name, *parameters = (activation,) if isinstance(activation, str) else activation
    attributes = {"activations": ["".join(part.capitalize() for part in name.split("_"))]}
    keys = ("activation_alpha", "activation_beta")
    return attributes | {k: [p] for k, p in zip(keys, parameters, strict=False)}


@pytest.mark.parametrize("reset_after", [False, True])
@pytest.mark.parametrize("clip", [None, 0.5])
@reverse
def test_gru_equals_onnx_runtime(rng, reset_after, clip, reverse):
    arguments = gru_arguments(rng, np.float32, reset_after)
    own = reference.gru_forward(
        **arguments, lengths=LENGTHS, reverse=reverse, reset_after=reset_after, clip=clip
    )
    w, r, b = (onnx_blocks("GRU", arguments[k][: 3 * H]) for k in ("w_ih", "w_hh", "b"))
    b_recurrent = np.zeros_like(b)
    if reset_after:
        b_recurrent[2 * H :] = arguments["b"][3 * H :]
    desired = run_onnx(
        "GRU",
        arguments["x"],
        w,
        r,
        np.concatenate([b, b_recurrent]),
        LENGTHS,
        arguments["h_0"],
        direction="reverse" if reverse else "forward",
        linear_before_reset=int(reset_after),
        **({} if clip is None else {"clip": clip}),
    )
    assert_close(own[:2], desired)


@activations
@pytest.mark.parametrize("clip", [None, 0.5])
@reverse
def test_rnn_with_every_activation_equals_onnx_runtime(rng, activation, clip, reverse):
    arguments = rnn_arguments(rng, np.float32)
    own = reference.rnn_forward(
        **arguments, lengths=LENGTHS, reverse=reverse, nonlinearity=activation, clip=clip
    )
    w, r, b = (arguments[name] for name in ("w_ih", "w_hh", "b"))
    desired = run_onnx(
        "RNN",
        arguments["x"],
        w,
        r,
        np.concatenate([0.25 * b, 0.75 * b]),
        LENGTHS,
        arguments["h_0"],
        direction="reverse" if reverse else "forward",
        **onnx_name(activation),
        **({} if clip is None else {"clip": clip}),
    )
    assert_close(own[:2], desired)


@pytest.mark.parametrize("reset_after", [False, True])
def test_gru_equals_keras(rng, reset_after):
    os.environ.setdefault("KERAS_BACKEND", "torch")
    keras = pytest.importorskip("keras")
    arguments = gru_arguments(rng, np.float32, reset_after)

    def kernel(a):  # Keras's order is z, r, n
        return np.ascontiguousarray(a.reshape(3, H, -1)[[1, 0, 2]].reshape(3 * H, -1).T)

    b = kernel(arguments["b"][: 3 * H])[0]
    if reset_after:
        b = np.stack([b, np.concatenate([np.zeros(2 * H, np.float32), arguments["b"][3 * H :]])])
    peer = keras.layers.GRU(H, reset_after=reset_after, return_sequences=True)
    peer.build((B, T, I))
    peer.set_weights([kernel(arguments["w_ih"]), kernel(arguments["w_hh"]), b])
    y = peer(arguments["x"].swapaxes(0, 1), initial_state=arguments["h_0"])
    desired = keras.ops.convert_to_numpy(y).swapaxes(0, 1)
    actual = reference.gru_forward(**arguments, reset_after=reset_after).y
    assert_close(actual, desired, AGAINST_KERAS)


@activations
def test_activations_keep_the_dtype_and_pass_nan_on(rng, activation, dtype):
    x = np.array([[[-2.0]], [[0.0]], [[np.nan]]], dtype)
    one, zero = np.ones((1, 1), dtype), np.zeros((1, 1), dtype)
    y, _, tape = reference.rnn_forward(x, one, zero, nonlinearity=activation, training=True)
    assert y.dtype == dtype
    assert np.isnan(y).ravel().tolist() == [False, False, True]
    assert {g.dtype for g in reference.rnn_backward(tape, y) if g is not None} == {dtype}
