"""What other libraries hold data in, as inputs: what works, and what is said where it does not."""

import numpy as np
import pytest
from helpers import assert_same_bits, normal

import fastlstm

T, B, I, H = 6, 2, 3, 4


def torch_tensor(x):
    return pytest.importorskip("torch").from_numpy(x)


def strided_tensor(x):
    return torch_tensor(np.repeat(x, 2, axis=2))[..., ::2]


def from_pandas(x):
    """Columns by feature, one row per time and sequence."""
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(x.reshape(T * B, I), columns=["a", "b", "c"])
    return frame.to_numpy().reshape(T, B, I)


def frames_of_sequences(x):
    """A list of frames (T, I), one per sequence."""
    pandas = pytest.importorskip("pandas")
    return np.stack([pandas.DataFrame(x[:, b]) for b in range(B)], axis=1)


def from_polars(x):
    polars = pytest.importorskip("polars")
    frames = [polars.from_numpy(np.ascontiguousarray(x[:, b])) for b in range(B)]
    return np.stack(frames, axis=1)


def lists_of_arrays(x):
    return [list(step) for step in x]


KINDS = [torch_tensor, strided_tensor, from_pandas, frames_of_sequences, from_polars]
KINDS += [lists_of_arrays]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_other_containers_give_the_bits_of_the_array(kind, isa, dtype, rng):
    layer = fastlstm.LSTM(I, H, rng=0, dtype=dtype)
    x = normal(rng, (T, B, I), dtype)
    assert_same_bits(layer(kind(x)), layer(x))
    weights = [layer.params[f"{name}_l0"] for name in ("weight_ih", "weight_hh", "bias")]
    assert_same_bits(
        fastlstm.lstm_forward(kind(x), *weights)[:3], fastlstm.lstm_forward(x, *weights)[:3]
    )


def test_lists_of_numbers_are_float64(rng):
    layer = fastlstm.GRU(I, H, rng=0, dtype=np.float64)
    x = normal(rng, (T, B, I))
    assert_same_bits(layer(x.tolist()), layer(x))


def test_parameters_and_states_may_be_tensors(rng, dtype):
    torch = pytest.importorskip("torch")
    layer = fastlstm.LSTM(I, H, rng=0, dtype=dtype)
    x, state = normal(rng, (T, B, I), dtype), normal(rng, (2, 1, B, H), dtype)
    tensors = tuple(map(torch.from_numpy, state))
    assert_same_bits(layer(torch.from_numpy(x), tensors), layer(x, tuple(state)))


class TestMessages:
    """The way out is named."""

    @pytest.mark.parametrize("function", [fastlstm.LSTM(I, H), fastlstm.RNN(I, H).forward])
    def test_float64_into_a_float32_layer(self, function):
        with pytest.raises(
            TypeError,
            match=r"x: expected float32, the dtype of the layer, got float64: "
            r"take np\.asarray\(x, np\.float32\), or a layer with dtype=np\.float64",
        ):
            function(np.zeros((T, B, I)))

    @pytest.mark.parametrize("batch_first", [False, True])
    def test_one_sequence_without_a_batch(self, batch_first, rng):
        layer = fastlstm.LSTM(I, H, batch_first=batch_first)
        x = normal(rng, (T, I), np.float32)
        with pytest.raises(ValueError, match=r"x: expected .*; for one sequence take x") as error:
            layer(x)
        advice = str(error.value).rpartition("take ")[2]
        y, _ = layer(eval(advice))
        assert y.shape == ((1, T, H) if batch_first else (T, 1, H))

    def test_one_sequence_in_a_function(self):
        weights = np.zeros((4 * H, I)), np.zeros((4 * H, H))
        with pytest.raises(ValueError, match=r"\(6, 3\); for one sequence take x\[:, np.newaxis\]"):
            fastlstm.lstm_forward(np.zeros((T, I)), *weights)

    def test_tensors_that_require_gradients(self):
        torch = pytest.importorskip("torch")
        layer = fastlstm.LSTM(I, H)
        x, h = torch.zeros(T, B, I), torch.zeros(1, B, H)
        for name, call in {
            "x": lambda: layer(x.clone().requires_grad_()),
            r"state\[1\]": lambda: layer(x, (h, h.clone().requires_grad_())),
            "w_ih": lambda: fastlstm.lstm_forward(
                x, torch.nn.Parameter(torch.zeros(4 * H, I)), torch.zeros(4 * H, H)
            ),
            "w_hh": lambda: fastlstm.gru_forward(
                x, torch.zeros(3 * H, I), torch.nn.Parameter(torch.zeros(3 * H, H))
            ),
        }.items():
            message = rf"{name}: expected no requires_grad, .*: use fastlstm\.torch, or {name}\.det"
            with pytest.raises(TypeError, match=message):
                call()

    def test_what_numpy_cannot_read(self):
        layer = fastlstm.LSTM(I, H)
        with pytest.raises(ValueError, match=r"x: expected an array of numbers: .*inhomogeneous"):
            layer([[[1.0, 2.0, 3.0]], [[1.0]]])
        torch = pytest.importorskip("torch")
        with pytest.raises(TypeError, match=r"x: expected an array of numbers: .*meta"):
            layer(torch.zeros(T, B, I, device="meta"))
        with pytest.raises(TypeError, match=r"x: expected an array of numbers: .*BFloat16"):
            layer(torch.zeros(T, B, I).bfloat16())
