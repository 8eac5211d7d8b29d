"""Result types of the array API, shared by `functional` and `reference`."""

from typing import NamedTuple

from numpy.typing import NDArray


class LSTMOutput(NamedTuple):
    """Result of `lstm_forward`: ``y`` (T, B, R), ``h_n`` (B, R), ``c_n`` (B, H) and the tape."""

    y: NDArray
    h_n: NDArray
    c_n: NDArray
    tape: object | None


class LSTMGradients(NamedTuple):
    """Result of `lstm_backward`: the gradient of each argument, None for what was not given."""

    x: NDArray
    w_ih: NDArray
    w_hh: NDArray
    b: NDArray | None
    h_0: NDArray | None
    c_0: NDArray | None
    peephole: NDArray | None
    w_proj: NDArray | None
    layer_norm: NDArray | None


class GRUOutput(NamedTuple):
    """Result of `gru_forward`: ``y`` (T, B, H), ``h_n`` (B, H) and the tape."""

    y: NDArray
    h_n: NDArray
    tape: object | None


class GRUGradients(NamedTuple):
    """Result of `gru_backward`: the gradient of each argument, None for what was not given."""

    x: NDArray
    w_ih: NDArray
    w_hh: NDArray
    b: NDArray | None
    h_0: NDArray | None


class RNNOutput(NamedTuple):
    """Result of `rnn_forward`: ``y`` (T, B, H), ``h_n`` (B, H) and the tape."""

    y: NDArray
    h_n: NDArray
    tape: object | None


class RNNGradients(NamedTuple):
    """Result of `rnn_backward`: the gradient of each argument, None for what was not given."""

    x: NDArray
    w_ih: NDArray
    w_hh: NDArray
    b: NDArray | None
    h_0: NDArray | None
