"""Layers that own their parameters: `LSTM`.

Decisions:
a) All parameters of a layer are views of one flat buffer, so that an optimizer makes one pass.
b) Packed weights are kept between calls together with a fingerprint of the parameters they were
   made of. A call compares fingerprints (as fast as memory can be read), so a change in place is
   always seen and unchanged weights are never packed again.
c) Packed weights are never modified, only replaced: any number of threads may run one layer.
"""

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from fastlstm._arguments import REAL_DTYPES, check_lengths, check_optional, check_real
from fastlstm._calls import CORES, make_weights, run_backward, run_forward

if TYPE_CHECKING:
    from fastlstm._sequence_float32 import Stream

State = tuple[NDArray, NDArray]


class Gradients(NamedTuple):
    """Result of a layer's backward call.

    Attributes
    ----------
    x : array in the shape of the layer's input
    state : tuple of arrays
        Gradients with respect to the initial state, also where it was not given (then it was 0).
    params : dict of arrays
        Gradients with respect to the parameters, under the keys of the layer's ``params``.
    flat : 1-d array
        The buffer of which ``params`` are views, in the order of the layer's ``flat``.
    """

    x: NDArray
    state: State
    params: dict[str, NDArray]
    flat: NDArray


class Tape(NamedTuple):
    """What a layer's backward call needs of its forward call."""

    layer: "LSTM"
    directions: list[list[Any]]
    masks: list[NDArray]
    shape: tuple[int, int]
    ragged: bool

    @property
    def nbytes(self) -> int:
        """Memory that the tape holds, the input not counted."""
        tapes = sum(tape.nbytes for layer in self.directions for tape in layer)
        return tapes + sum(mask.nbytes for mask in self.masks)

    def __repr__(self) -> str:
        return f"<Tape of {self.layer!r}, {self.nbytes / 1e6:.1f} MB>"


def check_size(name: str, value: Any, least: int = 1) -> int:
    """Return `value` as an integer of at least `least`."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{name}: expected an integer, got {type(value).__name__}")
    if value < least:
        raise ValueError(f"{name}: expected at least {least}, got {value}")
    return int(value)


class LSTM:
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
        Probability of dropping an output between layers, in `forward` only.
    bidirectional : bool
        Run a second set of weights from each sequence's end; ``y`` has both outputs side by side.
    proj_size, peephole
        Not implemented yet.
    dtype : float32 or float64
        Of the parameters and of all arrays that go in and out.
    rng : None, int or numpy.random.Generator
        For the initial parameters, uniform in +-1/sqrt(H) as PyTorch's, and for dropout.
    forget_bias : float, optional
        Initial bias of the forget gates; 1 helps to learn long lags (Jozefowicz, Zaremba &
        Sutskever 2015).

    Attributes
    ----------
    params : dict of arrays
        ``weight_ih_l0`` (4H, I), ``weight_hh_l0`` (4H, H), ``bias_l0`` (4H,), with the suffix
        ``_reverse`` for the other direction; gates in the order i, f, g, o. They are writable
        views of `flat`; a change in place is seen by the next call.
    flat : 1-d array
        All parameters.

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
        proj_size: int = 0,
        peephole: bool = False,
        dtype: DTypeLike = np.float32,
        rng: np.random.Generator | int | None = None,
        forget_bias: float | None = None,
    ):
        if proj_size:
            raise NotImplementedError("proj_size: not implemented yet")
        if peephole:
            raise NotImplementedError("peephole: not implemented yet")
        self.input_size = check_size("input_size", input_size)
        self.hidden_size = check_size("hidden_size", hidden_size)
        self.num_layers = check_size("num_layers", num_layers)
        self.bias = bool(bias)
        self.batch_first = bool(batch_first)
        self.dropout = float(dropout)
        self.bidirectional = bool(bidirectional)
        self.dtype = np.dtype(dtype)
        if not 0 <= self.dropout <= 1:
            raise ValueError(f"dropout: expected a probability, got {dropout}")
        if self.dtype not in REAL_DTYPES:
            raise TypeError(f"dtype: expected float32 or float64, got {self.dtype}")
        self._rng = np.random.default_rng(rng)
        bound = 1 / np.sqrt(self.hidden_size)
        size = sum(int(np.prod(shape)) for shape in self._shapes().values())
        self._own(self._rng.uniform(-bound, bound, size).astype(self.dtype))
        if forget_bias is not None:
            H = self.hidden_size
            for name, param in self.params.items():
                if name.startswith("bias"):
                    param[H : 2 * H] = forget_bias

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        H, I = self.hidden_size, self.input_size
        shapes: dict[str, tuple[int, ...]] = {}
        for layer in range(self.num_layers):
            for suffix in self._suffixes(layer):
                shapes[f"weight_ih_{suffix}"] = (4 * H, I)
                shapes[f"weight_hh_{suffix}"] = (4 * H, H)
                if self.bias:
                    shapes[f"bias_{suffix}"] = (4 * H,)
            I = H * self.num_directions
        return shapes

    def _suffixes(self, layer: int) -> list[str]:
        return [f"l{layer}", f"l{layer}_reverse"][: self.num_directions]

    @property
    def num_directions(self) -> int:
        """2 if bidirectional, else 1."""
        return 2 if self.bidirectional else 1

    def _views(self, flat: NDArray) -> dict[str, NDArray]:
        views, start = {}, 0
        for name, shape in self._shapes().items():
            size = int(np.prod(shape))
            views[name] = flat[start : start + size].reshape(shape)
            start += size
        return views

    def _own(self, flat: NDArray) -> None:
        """Make `flat` the parameters."""
        self.flat = flat
        self.params = self._views(flat)
        # per layer and direction: its weights, the part of flat that they are, what is packed
        self._weights: list[list[tuple]] = []
        self._parts: list[list[NDArray]] = []
        self._packed: list[list[tuple[bytes, Any] | None]] = []
        start = 0
        for layer in range(self.num_layers):
            weights, parts = [], []
            for suffix in self._suffixes(layer):
                arrays = tuple(
                    self.params.get(f"{kind}_{suffix}")
                    for kind in ("weight_ih", "weight_hh", "bias")
                )
                size = sum(a.size for a in arrays if a is not None)
                weights.append(arrays)
                parts.append(flat[start : start + size])
                start += size
            self._weights.append(weights)
            self._parts.append(parts)
            self._packed.append([None] * self.num_directions)
        self._core = CORES[self.dtype]

    def __getstate__(self) -> dict[str, Any]:
        derived = ("params", "_weights", "_parts", "_packed", "_core")
        return {name: value for name, value in self.__dict__.items() if name not in derived}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._own(state["flat"])

    def __repr__(self) -> str:
        options = [f"{self.input_size}, {self.hidden_size}"]
        if self.num_layers != 1:
            options.append(f"num_layers={self.num_layers}")
        if not self.bias:
            options.append("bias=False")
        if self.batch_first:
            options.append("batch_first=True")
        if self.dropout:
            options.append(f"dropout={self.dropout}")
        if self.bidirectional:
            options.append("bidirectional=True")
        if self.dtype != np.float32:
            options.append(f"dtype={self.dtype}")
        return f"LSTM({', '.join(options)})"

    def _pack(self, layer: int, direction: int, training: bool):
        """Return packed weights that agree with the parameters as they are now."""
        fingerprint = self._core.fingerprint(self._parts[layer][direction])
        packed = self._packed[layer][direction]
        if packed is None or packed[0] != fingerprint:
            packed = (
                fingerprint,
                make_weights(self._core, "lstm", *self._weights[layer][direction]),
            )
            self._packed[layer][direction] = packed
        if training:
            packed[1].prepare_backward(*self._weights[layer][direction][:2])
        return packed[1]

    def _expected_zoneout(self) -> tuple[None, None]:
        return None, None

    def _check_input(self, x: ArrayLike) -> NDArray:
        """Return x as (T, B, I)."""
        x = check_real("x", x)
        order = "(B, T, {})" if self.batch_first else "(T, B, {})"
        if x.ndim != 3 or x.shape[2] != self.input_size:
            raise ValueError(f"x: expected {order.format(self.input_size)}, got {x.shape}")
        if x.dtype != self.dtype:
            raise TypeError(f"x: expected {self.dtype}, the dtype of the layer, got {x.dtype}")
        return x.transpose(1, 0, 2) if self.batch_first else x

    def _check_state(self, name: str, state: Any, B: int) -> tuple[NDArray | None, NDArray | None]:
        if state is None:
            return None, None
        if not isinstance(state, (tuple, list)) or len(state) != 2:
            raise TypeError(f"{name}: expected a pair (h, c), got {type(state).__name__}")
        shape = (self.num_layers * self.num_directions, B, self.hidden_size)
        h, c = (
            check_optional(f"{name}[{i}]", part, shape, self.dtype) for i, part in enumerate(state)
        )
        return h, c

    def _dropout_mask(self, shape: tuple[int, ...]) -> NDArray:
        """Return what to multiply with: 0, or where it is kept 1 / (1 - dropout)."""
        kept = self._rng.random(shape) >= self.dropout
        scale = 1 / (1 - self.dropout) if self.dropout < 1 else 0
        return np.multiply(kept, scale, dtype=self.dtype)

    def _run(self, x: ArrayLike, state: Any, lengths: ArrayLike | None, training: bool):
        x = self._check_input(x)
        T, B, _ = x.shape
        h_0, c_0 = self._check_state("state", state, B)
        lengths = check_lengths(lengths, T, B)
        H, D, L = self.hidden_size, self.num_directions, self.num_layers
        h_n = np.empty((L * D, B, H), self.dtype)
        c_n = np.empty((L * D, B, H), self.dtype)
        tapes: list[list[Any]] = [[] for _ in range(L)]
        masks: list[NDArray] = []
        for layer in range(L):
            if self.batch_first and layer == L - 1:
                y = np.empty((B, T, D * H), self.dtype).transpose(1, 0, 2)
            else:
                y = np.empty((T, B, D * H), self.dtype)
            for direction in range(D):
                i = layer * D + direction
                tape = run_forward(
                    self._core,
                    self._pack(layer, direction, training),
                    x,
                    None if h_0 is None else h_0[i],
                    None if c_0 is None else c_0[i],
                    lengths,
                    direction == 1,
                    training,
                    y if D == 1 else y[:, :, direction * H : (direction + 1) * H],
                    h_n[i],
                    c_n[i],
                )
                tapes[layer].append(tape)
            x = y
            if training and self.dropout and layer < L - 1:
                masks.append(self._dropout_mask(y.shape))
                x = y * masks[-1]
        if self.batch_first:
            y = y.transpose(1, 0, 2)
        tape = Tape(self, tapes, masks, (T, B), lengths is not None) if training else None
        return y, (h_n, c_n), tape

    def __call__(
        self, x: ArrayLike, state: Any = None, *, lengths: ArrayLike | None = None
    ) -> tuple[NDArray, State]:
        """Run the layers for inference.

        Parameters
        ----------
        x : (T, B, I) array, or (B, T, I) if batch_first
            In the dtype of the layer.
        state : pair of (num_layers * num_directions, B, H) arrays, optional
            Initial h and c; zero by default.
        lengths : (B,) integers in [0, T], optional
            Where the sequences end, in any order.

        Returns
        -------
        y : (T, B, num_directions * H) array, or (B, T, ...)
            Outputs of the last layer; zero from a sequence's end on.
        state : pair of arrays
            h and c after each sequence's last step.

        Raises
        ------
        ValueError, TypeError
            If an argument does not fit; the message names it.
        """
        y, state, _ = self._run(x, state, lengths, training=False)
        return y, state

    def forward(
        self, x: ArrayLike, state: Any = None, *, lengths: ArrayLike | None = None
    ) -> tuple[NDArray, State, Tape]:
        """Run the layers for training: as a call, with dropout, and keeping what `backward` needs.

        The tape refers to `x`, which must not change before `backward`; weights may.

        Returns
        -------
        y, state
            As of a call.
        tape : Tape
            For `backward`, any number of times.
        """
        y, state, tape = self._run(x, state, lengths, training=True)
        return y, state, tape

    def backward(self, tape: Tape, dy: ArrayLike | None = None, dstate: Any = None) -> Gradients:
        """Backpropagate through time.

        Parameters
        ----------
        tape : Tape
            From `forward` of this layer.
        dy : array in the shape of y, optional
            Gradient of the loss with respect to ``y``.
        dstate : pair of arrays in the shape of the state, optional
            Gradients with respect to the final h and c.

        Returns
        -------
        Gradients

        Raises
        ------
        ValueError, TypeError
            If an argument does not fit; the message names it.
        """
        if not isinstance(tape, Tape) or tape.layer is not self:
            raise TypeError("tape: expected a tape from this layer's forward")
        T, B = tape.shape
        H, D, L = self.hidden_size, self.num_directions, self.num_layers
        dh_n, dc_n = self._check_state("dstate", dstate, B)
        shape = (B, T, D * H) if self.batch_first else (T, B, D * H)
        dout = check_optional("dy", dy, shape, self.dtype)
        if dout is not None and self.batch_first:
            dout = dout.transpose(1, 0, 2)
        flat = np.zeros_like(self.flat)
        params = self._views(flat)
        dh_0 = np.empty((L * D, B, H), self.dtype)
        dc_0 = np.empty((L * D, B, H), self.dtype)
        for layer in reversed(range(L)):
            I = self.input_size if layer == 0 else D * H
            parts: list[NDArray] = []
            for direction, suffix in enumerate(self._suffixes(layer)):
                i = layer * D + direction
                parts.append(np.zeros((T, B, I), self.dtype))
                run_backward(
                    self._core,
                    tape.directions[layer][direction],
                    tape.ragged,
                    direction == 1,
                    None if dout is None else dout[:, :, direction * H : (direction + 1) * H],
                    None if dh_n is None else dh_n[i],
                    None if dc_n is None else dc_n[i],
                    parts[-1],
                    params[f"weight_ih_{suffix}"],
                    params[f"weight_hh_{suffix}"],
                    params.get(f"bias_{suffix}"),
                    dh_0[i],
                    dc_0[i],
                )
            dx = parts[0] if D == 1 else parts[0] + parts[1]
            dout = dx * tape.masks[layer - 1] if layer and tape.masks else dx
        return Gradients(
            dx.transpose(1, 0, 2) if self.batch_first else dx, (dh_0, dc_0), params, flat
        )

    def stream(self, batch_size: int = 1) -> "Stream":
        """Return a `Stream`, which runs the layers one time step after the other.

        It takes the weights as they are now, and again at ``reset``.

        Raises
        ------
        ValueError
            If the layers are bidirectional: the other direction needs the end first.

        Examples
        --------
        >>> import numpy as np
        >>> import fastlstm
        >>> lstm = fastlstm.LSTM(3, 8, rng=0)
        >>> x = np.ones((10, 1, 3), np.float32)
        >>> stream = lstm.stream()
        >>> y = np.stack([stream.step(x_t) for x_t in x])
        >>> bool((y == lstm(x)[0]).all())
        True
        """
        if self.bidirectional:
            raise ValueError("stream: expected one direction, got a bidirectional LSTM")
        return self._core.Stream(self, check_size("batch_size", batch_size))
