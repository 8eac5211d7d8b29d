"""The GRU and the plain RNN of the NumPy reference, and what holds for every cell."""

import os

import numpy as np
import pytest
from helpers import (
    assert_close,
    assert_same_bits,
    central_differences,
    gru_arguments,
    lstm_arguments,
    normal,
    rnn_arguments,
    some_lengths,
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
ragged = pytest.mark.parametrize("ragged", [False, True], ids=["full", "ragged"])
reverse = pytest.mark.parametrize("reverse", [False, True], ids=["", "reverse"])

# cell: its functions, its arguments, and the options that distinguish its kinds
CELLS = {
    "lstm": (reference.lstm_forward, reference.lstm_backward, lstm_arguments, {}),
    "gru": (reference.gru_forward, reference.gru_backward, gru_arguments, {}),
    "gru reset before": (
        reference.gru_forward,
        reference.gru_backward,
        lambda *sizes: gru_arguments(*sizes, reset_after=False),
        {"reset_after": False},
    ),
    "rnn": (reference.rnn_forward, reference.rnn_backward, rnn_arguments, {}),
    "rnn softsign": (
        reference.rnn_forward,
        reference.rnn_backward,
        rnn_arguments,
        {"nonlinearity": "softsign"},
    ),
}
GRUS_AND_RNNS = [name for name in CELLS if name != "lstm"]


def upstream_of(rng, outputs):
    """Return random gradients of outputs."""
    return [normal(rng, out.shape, out.dtype) for out in outputs]


def masks(rng, dtype=np.float64):
    return {
        "zoneout_h": rng.integers(0, 2, (T, B, H)).astype(dtype),
        "dropout_h": 2 * rng.integers(0, 2, (B, H)).astype(dtype),
    }


def assert_gradients_equal_central_differences(rng, forward, backward, arguments, options):
    """Check the gradients of all arguments for a random linear function of all outputs."""
    *outputs, tape = forward(**arguments, **options, training=True)
    upstream = upstream_of(rng, outputs)

    def loss():
        outputs = forward(**arguments, **options)[:-1]
        return sum(np.vdot(d, out) for d, out in zip(upstream, outputs, strict=True))

    gradients = backward(tape, *upstream)._asdict()
    for name, array in arguments.items():
        assert_close(gradients[name], central_differences(loss, array), 1e-9)


# --- gradients ------------------------------------------------------------------------------------


@pytest.mark.parametrize("cell", GRUS_AND_RNNS)
@pytest.mark.parametrize("variant", ["plain", "rate", "masks"])
@ragged
@reverse
def test_gradients_equal_central_differences(rng, cell, variant, ragged, reverse):
    forward, backward, make, options = CELLS[cell]
    options = options | {"lengths": some_lengths(rng, T, B) if ragged else None}
    options |= {"plain": {}, "rate": {"zoneout_h": 0.2}, "masks": masks(rng)}[variant]
    options |= {"reverse": reverse}
    arguments = make(rng, T, B, I, H)
    assert_gradients_equal_central_differences(rng, forward, backward, arguments, options)


@activations
def test_gradients_through_every_activation(rng, activation):
    arguments = rnn_arguments(rng, T, B, I, H)
    options = {"nonlinearity": activation}
    assert_gradients_equal_central_differences(
        rng, reference.rnn_forward, reference.rnn_backward, arguments, options
    )
    arguments = gru_arguments(rng, T, B, I, H)
    options = {"activations": ("hard_sigmoid", activation)}
    assert_gradients_equal_central_differences(
        rng, reference.gru_forward, reference.gru_backward, arguments, options
    )


@pytest.mark.parametrize("cell", GRUS_AND_RNNS)
def test_only_what_is_given_has_a_gradient(rng, cell):
    forward, backward, make, options = CELLS[cell]
    arguments = make(rng, T, B, I, H)
    del arguments["b"], arguments["h_0"]
    *outputs, tape = forward(**arguments, **options, training=True)
    gradients = backward(tape, outputs[0])
    assert gradients.b is gradients.h_0 is None
    zeros = np.zeros((B, H))
    assert_close(gradients, backward(tape, dy=outputs[0], dh_n=zeros))
    assert_same_bits(gradients, backward(tape, outputs[0]))  # a second time


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
    arguments = gru_arguments(rng, T, B, I, H, dtype)
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
    assert_close(tuple(own), outputs)
    dw_ih, dw_hh, db_ih, db_hh = dparameters.values()
    db = np.concatenate([db_ih, db_hh[2 * H :]])
    desired = (dx, dw_ih, dw_hh, db, dh_0.numpy())
    assert_close(reference.gru_backward(tape, *upstream), desired)


@pytest.mark.parametrize("nonlinearity", ["tanh", "relu"])
def test_rnn_equals_torch(rng, dtype, nonlinearity):
    torch = pytest.importorskip("torch")
    arguments = rnn_arguments(rng, T, B, I, H, dtype)
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
    assert_close(tuple(own), outputs)
    dw_ih, dw_hh, db, _ = dparameters.values()
    desired = (dx, dw_ih, dw_hh, db, dh_0.numpy())
    assert_close(reference.rnn_backward(tape, *upstream), desired)


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
    arguments = gru_arguments(rng, T, B, I, H, np.float32, reset_after=reset_after)
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
    arguments = rnn_arguments(rng, T, B, I, H, np.float32)
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
    arguments = gru_arguments(rng, T, B, I, H, np.float32, reset_after=reset_after)

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
    assert_close(reference.gru_forward(**arguments, reset_after=reset_after).y, desired)


# --- what holds for every cell --------------------------------------------------------------------


@pytest.mark.parametrize("cell", CELLS)
def test_zoneout_and_dropout_equal_single_steps(rng, cell, dtype):
    forward, _, make, options = CELLS[cell]
    arguments = make(rng, T, B, I, H, dtype)
    drawn = masks(rng, dtype)
    if cell == "lstm":
        drawn["zoneout_c"] = rng.integers(0, 2, (T, B, H)).astype(dtype)
    names = ["h_0", "c_0"][: 2 if cell == "lstm" else 1]
    states = [arguments[name] for name in names]
    drop = drawn["dropout_h"]
    for t in range(T):
        step = arguments | {"x": arguments["x"][t : t + 1]} | dict(zip(names, states, strict=True))
        # dropout is only at the recurrent product: its mask can go into the weights of a row alone
        new = []
        for row in range(B):
            alone = {k: a[..., row : row + 1, :] for k, a in step.items() if k in ("x", *names)}
            w_hh = arguments["w_hh"] * drop[row]
            new.append(forward(**step | alone | {"w_hh": w_hh}, **options)[1:-1])
        for k, name in enumerate(["zoneout_h", "zoneout_c"][: len(names)]):
            new_state = np.concatenate([rows[k] for rows in new])
            states[k] = np.where(drawn[name][t] == 1, states[k], new_state)
    assert_close(forward(**arguments, **options, **drawn)[1:-1], tuple(states))


@pytest.mark.parametrize("cell", CELLS)
def test_reverse_equals_flipping_each_row_within_its_length(rng, cell):
    forward, _, make, options = CELLS[cell]
    arguments = make(rng, T, B, I, H)
    lengths = np.array([3, 0, 5, 1])
    order = np.arange(T)[:, None]
    order = np.where(order < lengths, lengths - 1 - order, order)
    flipped = {"x": np.take_along_axis(arguments["x"], order[:, :, None], axis=0)}
    y, *states, _ = forward(**arguments, **options, lengths=lengths, reverse=True)
    y_flipped, *states_flipped, _ = forward(**arguments | flipped, **options, lengths=lengths)
    desired = np.take_along_axis(y_flipped, order[:, :, None], axis=0)
    assert_close((y, *states), (desired, *states_flipped))


@pytest.mark.parametrize("cell", GRUS_AND_RNNS)
def test_rows_end_at_their_length(rng, cell, dtype):
    forward, backward, make, options = CELLS[cell]
    arguments = make(rng, T, B, I, H, dtype)
    lengths = np.array([3, 0, 5, 1])
    past = np.arange(T)[:, None] >= lengths
    arguments["x"][past] = np.nan  # must not be read
    y, h_n, tape = forward(**arguments, **options, lengths=lengths, training=True)
    dy = normal(rng, y.shape, dtype)
    dy[past] = np.nan
    gradients = backward(tape, dy)
    assert all(np.isfinite(gradient).all() for gradient in gradients)
    assert not gradients.x[past].any()
    assert not y[past].any()
    for row, length in enumerate(lengths):
        alone = {"x": arguments["x"][:length, [row]], "h_0": arguments["h_0"][[row]]}
        desired = forward(**arguments | alone, **options)
        assert_close((y[:length, row], h_n[row]), (desired.y[:, 0], desired.h_n[0]))


@pytest.mark.parametrize(("T", "B", "I"), [(0, 3, 2), (4, 0, 2), (0, 0, 2), (4, 3, 0)])
@pytest.mark.parametrize("cell", GRUS_AND_RNNS)
@ragged
def test_empty_input_gives_empty_output_and_the_initial_state(rng, dtype, T, B, I, cell, ragged):
    forward, backward, make, options = CELLS[cell]
    arguments = make(rng, T, B, I, H, dtype)
    lengths = np.zeros(B, int) if ragged else None
    y, h_n, tape = forward(**arguments, **options, lengths=lengths, training=True)
    assert y.shape == (T, B, H)
    if T == 0 or ragged:
        assert_same_bits(h_n, arguments["h_0"])
    gradients = backward(tape, y, h_n)
    for name, array in arguments.items():
        assert getattr(gradients, name).shape == array.shape
        assert getattr(gradients, name).dtype == dtype


@activations
def test_activations_keep_the_dtype_and_pass_nan_on(rng, activation, dtype):
    x = np.array([[[-2.0]], [[0.0]], [[np.nan]]], dtype)
    one, zero = np.ones((1, 1), dtype), np.zeros((1, 1), dtype)
    y, _, tape = reference.rnn_forward(x, one, zero, nonlinearity=activation, training=True)
    assert y.dtype == dtype
    assert np.isnan(y).ravel().tolist() == [False, False, True]
    assert {g.dtype for g in reference.rnn_backward(tape, y) if g is not None} == {dtype}
