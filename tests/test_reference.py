"""The NumPy reference, held against central differences, PyTorch, and itself reversed."""

import warnings

import numpy as np
import pytest
from helpers import (
    assert_close,
    assert_same_bits,
    central_differences,
    lstm_arguments,
    normal,
    output_gradients,
    some_lengths,
)

from fastlstm import reference

T, B, I, H = 5, 4, 3, 2
OPTIONS = [
    pytest.param(lengths, reverse, id=f"{'ragged' if lengths else 'full'}{'-reverse' * reverse}")
    for lengths in (False, True)
    for reverse in (False, True)
]


@pytest.mark.parametrize(("ragged", "reverse"), OPTIONS)
def test_gradients_equal_central_differences(rng, ragged, reverse):
    arguments = lstm_arguments(rng, T, B, I, H)
    options = {"lengths": some_lengths(rng, T, B) if ragged else None, "reverse": reverse}
    upstream = output_gradients(rng, T, B, H)

    def loss():
        y, h_n, c_n, _ = reference.lstm_forward(**arguments, **options)
        return sum(np.vdot(d, out) for d, out in zip(upstream.values(), (y, h_n, c_n), strict=True))

    tape = reference.lstm_forward(**arguments, **options, training=True).tape
    gradients = reference.lstm_backward(tape, **upstream)._asdict()
    for name, array in arguments.items():
        assert_close(gradients.pop(name), central_differences(loss, array), 1e-9)
    assert set(gradients.values()) == {None}


@pytest.mark.parametrize("given", ["dy", "dh_n", "dc_n"])
def test_gradients_are_linear_in_what_is_given(rng, given):
    tape = reference.lstm_forward(**lstm_arguments(rng, T, B, I, H), training=True).tape
    upstream = output_gradients(rng, T, B, H)
    alone = reference.lstm_backward(tape, **{given: upstream[given]})
    zeros = {name: np.zeros_like(array) for name, array in upstream.items()}
    assert_close(alone, reference.lstm_backward(tape, **zeros | {given: upstream[given]}))


@pytest.mark.parametrize("ragged", [False, True])
def test_forward_and_backward_equal_torch(rng, dtype, ragged):
    torch = pytest.importorskip("torch")
    arguments = lstm_arguments(rng, T, B, I, H, dtype)
    upstream = output_gradients(rng, T, B, H, dtype)
    # torch's packed sequences have no empty rows
    lengths = np.array([2, 5, 1, 3]) if ragged else np.full(B, T)
    upstream["dy"][np.arange(T)[:, None] >= lengths] = 0

    peer = torch.nn.LSTM(I, H, dtype=getattr(torch, dtype.name))
    leaves = {name: torch.from_numpy(array.copy()) for name, array in arguments.items()}
    with torch.no_grad():
        peer.weight_ih_l0[:], peer.weight_hh_l0[:] = leaves["w_ih"], leaves["w_hh"]
        peer.bias_ih_l0[:], peer.bias_hh_l0[:] = 0.25 * leaves["b"], 0.75 * leaves["b"]
    x, h_0, c_0 = (leaves[name].requires_grad_() for name in ("x", "h_0", "c_0"))
    packed = torch.nn.utils.rnn.pack_padded_sequence(
        x, torch.from_numpy(lengths), enforce_sorted=False
    )
    y, (h_n, c_n) = peer(packed if ragged else x, (h_0[None], c_0[None]))
    if ragged:
        y, _ = torch.nn.utils.rnn.pad_packed_sequence(y, total_length=T)
    outputs = (y, h_n[0], c_n[0])
    torch.autograd.backward(outputs, [torch.from_numpy(d) for d in upstream.values()])

    *own, tape = reference.lstm_forward(
        **arguments, lengths=lengths if ragged else None, training=True
    )
    assert_close(tuple(own), tuple(out.detach().numpy() for out in outputs))
    desired = [x, peer.weight_ih_l0, peer.weight_hh_l0, peer.bias_ih_l0, h_0, c_0]
    desired = tuple(tensor.grad.numpy() for tensor in desired)
    assert_close(reference.lstm_backward(tape, **upstream)[:6], desired)


def test_reverse_equals_flipping_each_row_within_its_length(rng, dtype):
    arguments = lstm_arguments(rng, T, B, I, H, dtype)
    lengths = np.array([3, 0, 5, 1])
    order = np.arange(T)[:, None]  # each row's own steps backwards, the rest in place
    order = np.where(order < lengths, lengths - 1 - order, order)
    flipped = {"x": np.take_along_axis(arguments["x"], order[:, :, None], axis=0)}

    reverse = reference.lstm_forward(**arguments, lengths=lengths, reverse=True)
    forward = reference.lstm_forward(**arguments | flipped, lengths=lengths)
    desired = np.take_along_axis(forward.y, order[:, :, None], axis=0)
    assert_close(reverse[:3], (desired, *forward[1:3]))
    np.testing.assert_array_equal(reverse.h_n[lengths > 0], reverse.y[0, lengths > 0])


def test_rows_end_at_their_length(rng, dtype):
    arguments = lstm_arguments(rng, T, B, I, H, dtype)
    lengths = np.array([3, 0, 5, 1])
    arguments["x"][np.arange(T)[:, None] >= lengths] = np.nan  # must not be read
    y, h_n, c_n, _ = reference.lstm_forward(**arguments, lengths=lengths)
    for row, length in enumerate(lengths):
        alone = {name: arguments[name] for name in ("w_ih", "w_hh", "b")} | {
            "x": arguments["x"][:length, row : row + 1],
            "h_0": arguments["h_0"][row : row + 1],
            "c_0": arguments["c_0"][row : row + 1],
        }
        desired = reference.lstm_forward(**alone)
        assert_close(
            (y[:length, row], h_n[row], c_n[row]), tuple(a[..., 0, :] for a in desired[:3])
        )
        assert not y[length:, row].any()


@pytest.mark.parametrize(("T", "B", "I"), [(0, 3, 2), (4, 0, 2), (0, 0, 2), (4, 3, 0)])
@pytest.mark.parametrize("ragged", [False, True])
def test_empty_input_gives_empty_output_and_the_initial_state(rng, dtype, T, B, I, ragged):
    arguments = lstm_arguments(rng, T, B, I, H, dtype)
    options = {"lengths": np.zeros(B, int) if ragged else None}
    y, h_n, c_n, tape = reference.lstm_forward(**arguments, **options, training=True)
    assert y.shape == (T, B, H)
    if T == 0 or ragged:
        assert_same_bits((h_n, c_n), (arguments["h_0"], arguments["c_0"]))
    gradients = reference.lstm_backward(tape, dy=y, dh_n=h_n, dc_n=c_n)
    for name, array in arguments.items():
        assert getattr(gradients, name).shape == array.shape
        assert getattr(gradients, name).dtype == dtype


def test_large_inputs_saturate_without_warning(dtype):
    x = np.array([[[1e4]], [[-1e4]]], dtype)
    weights = np.ones((4, 1), dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        y = reference.lstm_forward(x, weights, weights).y
    np.testing.assert_allclose(y, [[[np.tanh(1)]], [[0]]], rtol=1e-6)


def test_a_tape_may_be_used_twice_and_only_with_what_fits(rng):
    arguments = lstm_arguments(rng, T, B, I, H)
    tape = reference.lstm_forward(**arguments, training=True).tape
    upstream = output_gradients(rng, T, B, H)
    first = reference.lstm_backward(tape, **upstream)
    assert_same_bits(reference.lstm_backward(tape, **upstream), first)
    with pytest.raises(ValueError, match=r"^dy: expected \(5, 4, 2\), got \(4, 4, 2\)$"):
        reference.lstm_backward(tape, upstream["dy"][1:])
    with pytest.raises(TypeError, match=r"^dh_n: expected float64"):
        reference.lstm_backward(tape, dh_n=normal(rng, (B, H), np.float32))
    with pytest.raises(TypeError, match=r"^tape: expected .* got NoneType"):
        reference.lstm_backward(reference.lstm_forward(**arguments).tape)
