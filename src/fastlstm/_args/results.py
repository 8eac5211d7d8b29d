"""Result types of the array API, shared by `functional` and `reference`."""

from typing import Any, NamedTuple

from numpy.typing import NDArray


class LSTMOutput(NamedTuple):
    """Result of `lstm_forward`: ``y`` (T, B, R), ``h_n`` (B, R), ``c_n`` (B, H) and the tape."""

    y: NDArray[Any]
    h_n: NDArray[Any]
    c_n: NDArray[Any]
    tape: object | None


class LSTMGradients(NamedTuple):
    """Result of `lstm_backward`: the gradient of each argument, None for what was not given."""

    x: NDArray[Any]
    w_ih: NDArray[Any]
    w_hh: NDArray[Any]
    b: NDArray[Any] | None
    h_0: NDArray[Any] | None
    c_0: NDArray[Any] | None
    peephole: NDArray[Any] | None
    w_proj: NDArray[Any] | None
    layer_norm: NDArray[Any] | None


class GRUOutput(NamedTuple):
    """Result of `gru_forward`: ``y`` (T, B, H), ``h_n`` (B, H) and the tape."""

    y: NDArray[Any]
    h_n: NDArray[Any]
    tape: object | None


class GRUGradients(NamedTuple):
    """Result of `gru_backward`: the gradient of each argument, None for what was not given."""

    x: NDArray[Any]
    w_ih: NDArray[Any]
    w_hh: NDArray[Any]
    b: NDArray[Any] | None
    h_0: NDArray[Any] | None


class RNNOutput(NamedTuple):
    """Result of `rnn_forward`: ``y`` (T, B, H), ``h_n`` (B, H) and the tape."""

    y: NDArray[Any]
    h_n: NDArray[Any]
    tape: object | None


class RNNGradients(NamedTuple):
    """Result of `rnn_backward`: the gradient of each argument, None for what was not given."""

    x: NDArray[Any]
    w_ih: NDArray[Any]
    w_hh: NDArray[Any]
    b: NDArray[Any] | None
    h_0: NDArray[Any] | None
