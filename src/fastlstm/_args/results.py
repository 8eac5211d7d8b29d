"""Result types of the array API, shared by `functional` and `reference`."""

from typing import Any, NamedTuple

from numpy.typing import NDArray


class LSTMOutput(NamedTuple):
    """Result of `lstm_forward`.

    Parameters
    ----------
    y : (T, B, R) array
        The outputs, in the order of time, 0 past a row's end.
    h_n : (B, R) array
        The state h after each row's last step.
    c_n : (B, H) array
        The cell state after it.
    tape : object or None
        What `lstm_backward` needs, if it was asked for.
    """

    y: NDArray[Any]
    h_n: NDArray[Any]
    c_n: NDArray[Any]
    tape: object | None


class LSTMGradients(NamedTuple):
    """Result of `lstm_backward`.

    Parameters
    ----------
    x, w_ih, w_hh, b, h_0, c_0, peephole, w_proj, layer_norm : array or None
        Gradient of the argument of this name, None if it was not given.
    """

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
    """Result of `gru_forward`.

    Parameters
    ----------
    y : (T, B, H) array
        The outputs, in the order of time, 0 past a row's end.
    h_n : (B, H) array
        The state after each row's last step.
    tape : object or None
        What `gru_backward` needs, if it was asked for.
    """

    y: NDArray[Any]
    h_n: NDArray[Any]
    tape: object | None


class GRUGradients(NamedTuple):
    """Result of `gru_backward`.

    Parameters
    ----------
    x, w_ih, w_hh, b, h_0 : array or None
        Gradient of the argument of this name, None if it was not given.
    """

    x: NDArray[Any]
    w_ih: NDArray[Any]
    w_hh: NDArray[Any]
    b: NDArray[Any] | None
    h_0: NDArray[Any] | None


class RNNOutput(NamedTuple):
    """Result of `rnn_forward`.

    Parameters
    ----------
    y : (T, B, H) array
        The outputs, in the order of time, 0 past a row's end.
    h_n : (B, H) array
        The state after each row's last step.
    tape : object or None
        What `rnn_backward` needs, if it was asked for.
    """

    y: NDArray[Any]
    h_n: NDArray[Any]
    tape: object | None


class RNNGradients(NamedTuple):
    """Result of `rnn_backward`.

    Parameters
    ----------
    x, w_ih, w_hh, b, h_0 : array or None
        Gradient of the argument of this name, None if it was not given.
    """

    x: NDArray[Any]
    w_ih: NDArray[Any]
    w_hh: NDArray[Any]
    b: NDArray[Any] | None
    h_0: NDArray[Any] | None
