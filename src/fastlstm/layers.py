"""Layers that own their parameters: `LSTM`, `GRU`, `RNN`; what they share: `_layers`."""

from __future__ import annotations  # so that help() shows names

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import DTypeLike

from fastlstm._args.numbers import Activation, ActivationLike
from fastlstm._layers.recurrent import Gradients, Recurrent, Tape, option

__all__ = ["GRU", "LSTM", "RNN", "Gradients", "Tape"]


class LSTM(Recurrent):
    """A stack of LSTM layers, in one direction or both.

    Parameters
    ----------
    input_size : int
        Features of the input, I.
    hidden_size : int
        Hidden units, H.
    num_layers : int
        Layers; each but the first reads the outputs of the one below.
    bias : bool
        Whether there is a bias.
    batch_first : bool
        Whether ``x`` and ``y`` are (B, T, ...) instead of (T, B, ...). States are not affected.
    dropout : float
        Probability of dropping an output between layers, drawn anew at each step.
    bidirectional : bool
        Run a second set of weights from each sequence's end; ``y`` has both outputs side by side.
    reverse : bool
        Run from each sequence's end to its start, in one direction; ``y`` is in the order of time.
    proj_size : int
        Size R of a projection of h (Sak, Senior & Beaufays 2014, arXiv:1402.1128); 0 for none.
    peephole : bool
        Whether the gates see the cell state (Gers, Schraudolph & Schmidhuber 2002).
    coupled : bool
        Whether the forget gate is 1 - i (Greff et al. 2017): then three gates i, g, o.
    layer_norm : bool
        Whether the gates and the cell are normalised (Ba, Kiros & Hinton 2016, arXiv:1607.06450).
    clip : float, optional
        Bound of the input of every activation, as ONNX's; for inference only.
    cell_clip, proj_clip : float, optional
        Bounds of the cell state and of the projection.
    zoneout_h : float
        Probability that a unit keeps its old h for a step (Krueger et al. 2017,
        arXiv:1606.01305). Outside `forward`, the expectation stands in for the draw.
    zoneout_c : float
        As zoneout_h, for the cell state.
    input_dropout, recurrent_dropout : float
        Probabilities of variational dropout (Gal & Ghahramani 2016, arXiv:1512.05287) on the input
        of each layer and on h where it is fed back: one mask for all steps of a sequence.
    activations : tuple of three
        Of the gates, the candidate g and the output, see `lstm_forward`.
    compute_dtype : None, "bfloat16" or "int8"
        In which numbers are multiplied, see `lstm_forward`; all arrays stay float32. `forward`
        and `backward` of int8 are quantisation-aware training.
    dtype : float32 or float64
        Of the parameters and of all arrays that go in and out.
    rng : None, int or numpy.random.Generator
        For the initial parameters, uniform in +-1/sqrt(H) as PyTorch's, and for the masks of
        dropout and zoneout, which only `forward` draws.
    forget_bias : float, optional
        Initial bias of the forget gates; 1 is a common choice (Jozefowicz, Zaremba & Sutskever
        2015), long lags ask for more: see docs/long-lag.md.

    Attributes
    ----------
    params : dict of arrays
        ``weight_ih_l0`` (4H, I), ``weight_hh_l0`` (4H, R), ``bias_l0`` (4H,), with the suffix
        ``_reverse`` for the other direction; gates in the order i, f, g, o. As far as asked for,
        ``weight_hr_l0`` (R, H), ``peephole_l0`` (3, H) for i, f, o, and ``layer_norm_l0`` (10, H):
        gains of the input's and of the recurrent product, gain and shift of c. They are writable
        views of `flat`; a change in place is seen by the next call.
    flat : 1-d array
        All parameters.
    batch_first, dropout, input_dropout, recurrent_dropout, zoneout_h, zoneout_c
        As given; may be set.
    input_size, hidden_size and so on
        As given, read-only as `params` and `flat` themselves are: memory is laid out for them.

    Raises
    ------
    ValueError, TypeError
        If an argument is out of its range or of the wrong type.

    Examples
    --------
    >>> import numpy as np
    >>> import fastlstm
    >>> lstm = fastlstm.LSTM(3, 8, rng=0)
    >>> x = np.ones((10, 2, 3), np.float32)
    >>> y, (h_n, c_n) = lstm(x)
    >>> y.shape, h_n.shape
    ((10, 2, 8), (1, 2, 8))
    """

    cell: ClassVar[str] = "lstm"
    proj_size: int
    clip: float | None = option("clip")
    cell_clip: float | None = option("cell_clip")
    proj_clip: float | None = option("proj_clip")
    activations: tuple[Activation, ...] = option("activations")

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        reverse: bool = False,
        proj_size: int = 0,
        peephole: bool = False,
        coupled: bool = False,
        layer_norm: bool = False,
        clip: float | None = None,
        cell_clip: float | None = None,
        proj_clip: float | None = None,
        zoneout_h: float = 0.0,
        zoneout_c: float = 0.0,
        input_dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        activations: tuple[ActivationLike, ...] = ("sigmoid", "tanh", "tanh"),
        compute_dtype: str | None = None,
        dtype: DTypeLike = np.float32,
        rng: np.random.Generator | int | None = None,
        forget_bias: float | None = None,
    ):
        if forget_bias is not None and coupled:
            raise ValueError("forget_bias: expected None with coupled gates")
        super().__init__(
            rng,
            input_size=input_size,
            hidden_size=hidden_size,
            num_layers=num_layers,
            bias=bias,
            batch_first=batch_first,
            dropout=dropout,
            bidirectional=bidirectional,
            reverse=reverse,
            input_dropout=input_dropout,
            recurrent_dropout=recurrent_dropout,
            zoneout_h=zoneout_h,
            proj_size=proj_size,
            peephole=peephole,
            layer_norm=layer_norm,
            zoneout_c=zoneout_c,
            coupled=coupled,
            clip=clip,
            cell_clip=cell_clip,
            proj_clip=proj_clip,
            activations=activations,
            compute_dtype=compute_dtype,
            dtype=dtype,
        )
        for name, param in self.params.items():
            if forget_bias is not None and name.startswith("bias"):
                param.reshape(-1, self.hidden_size)[self._cell.gates.index("f")] = forget_bias
            if name.startswith("layer_norm"):
                param[:-1], param[-1] = 1, 0

    def _configure(self, arguments: Mapping[str, Any]) -> None:
        super()._configure(arguments)
        if self.proj_clip is not None and not self.proj_size:
            raise ValueError(f"proj_clip: expected None without proj_size, got {self.proj_clip}")

    @property
    def output_size(self) -> int:
        """Features of a direction's output: proj_size, or hidden_size."""
        return self.proj_size or self.hidden_size


class GRU(Recurrent):
    """A stack of gated recurrent units (Cho et al. 2014, arXiv:1406.1078).

    Parameters
    ----------
    input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, reverse
        As of `LSTM`.
    reset_after : bool
        Whether the reset gate acts on the recurrent product (PyTorch, cuDNN, Keras' default), which
        then has a bias of its own, or on the state that enters it (Cho et al., ONNX's default).
    clip : float, optional
        Bound of the input of every activation, as ONNX's; for inference only.
    zoneout_h, input_dropout, recurrent_dropout
        As of `LSTM`.
    activations : tuple of two
        Of the gates and of the candidate n, see `lstm_forward`.
    compute_dtype, dtype, rng
        As of `LSTM`.

    Attributes
    ----------
    params : dict of arrays
        ``weight_ih_l0`` (3H, I), ``weight_hh_l0`` (3H, H), gates in the order r, z, n, and
        ``bias_l0`` (4H,): r, z, n, and what is within the reset; (3H,) if not reset_after.
    flat : 1-d array
        All parameters, as of `LSTM`.

    Raises
    ------
    ValueError, TypeError
        If an argument is out of its range or of the wrong type.

    Examples
    --------
    >>> import numpy as np
    >>> import fastlstm
    >>> gru = fastlstm.GRU(3, 8, rng=0)
    >>> y, h_n = gru(np.ones((10, 2, 3), np.float32))
    >>> y.shape, h_n.shape
    ((10, 2, 8), (1, 2, 8))
    """

    cell: ClassVar[str] = "gru"
    clip: float | None = option("clip")
    activations: tuple[Activation, ...] = option("activations")

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        reverse: bool = False,
        reset_after: bool = True,
        clip: float | None = None,
        zoneout_h: float = 0.0,
        input_dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        activations: tuple[ActivationLike, ...] = ("sigmoid", "tanh"),
        compute_dtype: str | None = None,
        dtype: DTypeLike = np.float32,
        rng: np.random.Generator | int | None = None,
    ):
        super().__init__(
            rng,
            input_size=input_size,
            hidden_size=hidden_size,
            num_layers=num_layers,
            bias=bias,
            batch_first=batch_first,
            dropout=dropout,
            bidirectional=bidirectional,
            reverse=reverse,
            input_dropout=input_dropout,
            recurrent_dropout=recurrent_dropout,
            zoneout_h=zoneout_h,
            reset_after=reset_after,
            clip=clip,
            activations=activations,
            compute_dtype=compute_dtype,
            dtype=dtype,
        )


class RNN(Recurrent):
    """A stack of plain recurrent layers (Elman 1990), which long lags defeat: see `LSTM`.

    Parameters
    ----------
    input_size, hidden_size, num_layers
        As of `LSTM`.
    nonlinearity : str or tuple
        ``"tanh"``, ``"relu"`` or another activation, see `lstm_forward`.
    bias, batch_first, dropout, bidirectional, reverse
        As of `LSTM`.
    clip : float, optional
        Bound of the input of the activation, as ONNX's; for inference only.
    zoneout_h, input_dropout, recurrent_dropout, compute_dtype, dtype, rng
        As of `LSTM`.

    Attributes
    ----------
    params : dict of arrays
        ``weight_ih_l0`` (H, I), ``weight_hh_l0`` (H, H), ``bias_l0`` (H,).
    flat : 1-d array
        All parameters, as of `LSTM`.

    Raises
    ------
    ValueError, TypeError
        If an argument is out of its range or of the wrong type.

    Examples
    --------
    >>> import numpy as np
    >>> import fastlstm
    >>> rnn = fastlstm.RNN(3, 8, rng=0)
    >>> y, h_n = rnn(np.ones((10, 2, 3), np.float32))
    >>> y.shape, h_n.shape
    ((10, 2, 8), (1, 2, 8))
    """

    cell: ClassVar[str] = "rnn"
    clip: float | None = option("clip")

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        nonlinearity: ActivationLike = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        reverse: bool = False,
        clip: float | None = None,
        zoneout_h: float = 0.0,
        input_dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        compute_dtype: str | None = None,
        dtype: DTypeLike = np.float32,
        rng: np.random.Generator | int | None = None,
    ):
        super().__init__(
            rng,
            input_size=input_size,
            hidden_size=hidden_size,
            num_layers=num_layers,
            bias=bias,
            batch_first=batch_first,
            dropout=dropout,
            bidirectional=bidirectional,
            reverse=reverse,
            input_dropout=input_dropout,
            recurrent_dropout=recurrent_dropout,
            zoneout_h=zoneout_h,
            nonlinearity=nonlinearity,
            clip=clip,
            compute_dtype=compute_dtype,
            dtype=dtype,
        )


CELLS: dict[str, type[LSTM | GRU | RNN]] = {layer.cell: layer for layer in (LSTM, GRU, RNN)}
