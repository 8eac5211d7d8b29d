"""What the recurrent layers share: parameters, packed weights, stacking, directions, calls.

Decisions:
a) All parameters of a layer are views of one flat buffer, so that an optimizer makes one pass.
b) Packed weights are kept between calls together with a fingerprint of the parameters they were
   made of. A call compares fingerprints (as fast as memory can be read), so a change in place is
   always seen and unchanged weights are never packed again.
c) What a call does with checked arguments is compiled (``_core/time/stack.pxi``).
d) A subclass has the arguments of its cell; `_args.cells` knows all else of it. The state of a cell
   without c is one array, else the pair (h, c).
e) The core trusts what it is given. So sizes, options and `params` are read-only, the core gets
   views of its own, and a pickled state is checked as the arguments of a constructor are. Dropout
   and the like, on which no memory depends, may be set, and are checked again.
"""

from __future__ import annotations  # so that help() shows names

import inspect
import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastlstm._args.arrays import (
    check_array,
    check_computes_in,
    check_lengths,
    check_optional,
    check_real,
    check_real_dtype,
    check_resets,
    hint_of_one_sequence,
)
from fastlstm._args.cells import PARAMETERS, PLAIN, Cell, find_cell
from fastlstm._args.numbers import (
    OPTIONS,
    check_activations,
    check_flag,
    check_probability,
    check_size,
    shortest,
)
from fastlstm._core.calls import (
    CORES,
    Masks,
    make_weights,
    restarts_of,
)
from fastlstm._core.checkpoints import Checkpoints, segment_length
from fastlstm._layers.fixed import FLAT, Fixed, check_flat
from fastlstm._layers.stream import STREAMS

LayerState = Any  # (h, c) or h, of shape (num_layers * num_directions, B, R or H)


# the arguments of constructors that are attributes, in the order of `repr`, each with its check
ARGUMENTS: dict[str, Callable[..., Any]] = {
    "input_size": check_size,
    "hidden_size": check_size,
    "num_layers": check_size,
    "bias": check_flag,
    "batch_first": check_flag,
    "dropout": check_probability,
    "bidirectional": check_flag,
    "reverse": check_flag,
    "input_dropout": check_probability,
    "recurrent_dropout": check_probability,
    "zoneout_h": check_probability,
    "proj_size": partial(check_size, least=0),
    "peephole": check_flag,
    "layer_norm": check_flag,
    "zoneout_c": check_probability,
    **OPTIONS,
    "activations": check_activations,
    "dtype": check_real_dtype,
}
# those that are properties: with more than 30 attributes CPython reads all of them slower
OF_OPTIONS = {"clip", "cell_clip", "proj_clip", "activations", "compute_dtype"}
# those on which neither memory nor packed weights depend
CHANGEABLE = {"batch_first", "dropout", "input_dropout", "recurrent_dropout"}
CHANGEABLE |= {"zoneout_h", "zoneout_c"}
# what `_configure` and `_own` make of them and of `flat`
DERIVED = {"params", "_cell", "_cell_options", "_layout", "_names", "_stack"}


class Gradients(NamedTuple):
    """Result of a layer's backward call.

    Parameters
    ----------
    x : array in the shape of the layer's input, or None if it was not asked for
    state : array, or tuple of arrays
        Gradients with respect to the initial state, also where it was not given (then it was 0).
    params : dict of arrays
        Gradients with respect to the parameters, under the keys of the layer's ``params``.
    flat : 1-d array
        The buffer of which ``params`` are views, in the order of the layer's ``flat``.
    """

    x: NDArray[Any] | None
    state: LayerState
    params: dict[str, NDArray[Any]]
    flat: NDArray[Any]


class Tape(NamedTuple):
    """What a layer's backward call needs of its forward call.

    Parameters
    ----------
    layer : LSTM, GRU or RNN
        Whose call it was.
    directions : list of lists
        The tapes of the core, layer by layer.
    masks : list
        The dropout of each layer's input, or None.
    shape : tuple of int
        T and B.
    ragged : bool
        Whether there were lengths.
    """

    layer: Recurrent
    directions: list[list[Any]]
    masks: list[NDArray[Any] | None] | None
    shape: tuple[int, int]
    ragged: bool

    @property
    def nbytes(self) -> int:
        """Memory that the tape holds, the layer's input not counted."""
        tapes: int = sum(tape.nbytes for layer in self.directions for tape in layer)
        return tapes + sum(mask.nbytes for mask in self.masks or [] if mask is not None)

    def __repr__(self) -> str:
        return f"<Tape of {self.layer!r}, {self.nbytes / 1e6:.1f} MB>"


def option(name: str) -> Any:
    """Return a property that reads one of the core's options."""

    def given(layer: Recurrent) -> Any:
        return layer._cell_options[name]

    given.__doc__ = f"`{name}` as given."
    return property(given)


class Recurrent(Fixed):
    """A stack of recurrent layers, in one direction or both; see `LSTM`, `GRU` and `RNN`."""

    cell: ClassVar[str]
    input_size: int
    hidden_size: int
    num_layers: int
    bias: bool
    batch_first: bool
    dropout: float
    bidirectional: bool
    reverse: bool
    input_dropout: float
    recurrent_dropout: float
    zoneout_h: float
    zoneout_c: float = 0.0
    compute_dtype = option("compute_dtype")
    dtype: np.dtype
    _cell: Cell
    _cell_options: dict[str, Any]
    _fixed = FLAT | {"cell", *ARGUMENTS} - CHANGEABLE

    def __init__(self, rng: np.random.Generator | int | None, **arguments: Any):
        self._configure(arguments)
        self._rng = np.random.default_rng(rng)
        bound = 1 / np.sqrt(self.hidden_size)
        self._own(self._rng.uniform(-bound, bound, self._size()).astype(self.dtype))

    def _configure(self, arguments: Mapping[str, Any]) -> None:
        """Take the arguments of the constructor, checked. No memory is asked for yet."""
        own = {n: self._check(n, arguments[n]) for n in ARGUMENTS if n in arguments}
        self._fix({name: own[name] for name in own if name not in OF_OPTIONS})
        check_computes_in("compute_dtype", own["compute_dtype"], self.dtype)
        if self.reverse and self.bidirectional:
            raise ValueError("reverse: expected False for both directions, got True")
        self._cell = find_cell(self.cell, own)
        options = {name: own[name] for name in (*OPTIONS, "activations") if name in own}
        if "nonlinearity" in options:
            options["activations"] = (options.pop("nonlinearity"),)
        self._cell_options = options

    def _check(self, name: str, value: Any) -> Any:
        if name == "activations":
            return check_activations(value, PLAIN[self.cell].roles)
        return ARGUMENTS[name](name, value)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in CHANGEABLE:
            if name not in self._defaults():
                raise AttributeError(f"{name}: is no argument of {type(self).__name__}")
            value = self._check(name, value)
        super().__setattr__(name, value)

    @classmethod
    def _defaults(cls) -> dict[str, Any]:
        """Return the names of the arguments in ARGUMENTS with their defaults."""
        owner = next(base for base in cls.__mro__ if "cell" in vars(base))
        signature = inspect.signature(owner).parameters
        return {name: signature[name].default for name in ARGUMENTS if name in signature}

    def _weight_shapes(self, I: int) -> dict[str, tuple[int, ...]]:
        """Shapes of the weights of one direction, by the beginnings of their names."""
        shapes = self._cell.shapes(0, 0, I, self.hidden_size, self.output_size)
        named = {argument: PARAMETERS[argument] for argument in self._cell.parameters}
        return {
            kind: shapes[argument]
            for argument, (kind, asked) in named.items()
            if asked is None or getattr(self, asked)
        }

    @property
    def output_size(self) -> int:
        """Features of a direction's output: the projection's size, or the number of units."""
        return self.hidden_size

    @property
    def num_directions(self) -> int:
        """2 if bidirectional, else 1."""
        return 2 if self.bidirectional else 1

    def _starts_at_end(self, direction: int) -> bool:
        return self.reverse or direction == 1

    # --- parameters -------------------------------------------------------------------------------

    def _input_size(self, layer: int) -> int:
        return self.output_size * self.num_directions if layer else self.input_size

    def _suffixes(self, layer: int) -> list[str]:
        return [f"l{layer}", f"l{layer}_reverse"][: self.num_directions]

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        return {
            f"{kind}_{suffix}": shape
            for layer in range(self.num_layers)
            for suffix in self._suffixes(layer)
            for kind, shape in self._weight_shapes(self._input_size(layer)).items()
        }

    def _size(self) -> int:
        """Return the number of parameters."""
        return sum(map(math.prod, self._shapes().values()))

    def _views(self, flat: NDArray[Any]) -> dict[str, NDArray[Any]]:
        views: dict[str, NDArray[Any]] = CORES[self.dtype].views(flat, self._layout)
        return views

    def _own(self, flat: NDArray[Any]) -> None:
        self._layout: list[tuple[str, int, tuple[int, ...]]] = []  # where each begins in flat
        start = 0
        for name, shape in self._shapes().items():
            self._layout.append((name, start, shape))
            start += math.prod(shape)
        super()._own(flat)
        # per layer and direction: the names of its parameters by the argument that each one is
        self._names: list[list[dict[str, str]]] = []
        for layer in range(self.num_layers):
            self._names.append([])
            for suffix in self._suffixes(layer):
                names = {a: f"{kind}_{suffix}" for a, (kind, _) in PARAMETERS.items()}
                names = {argument: n for argument, n in names.items() if n in self.params}
                self._names[layer].append(names)
        views = self._views(flat)  # others than those of params, whose shape anybody may set
        core = CORES[self.dtype]
        self._stack = core.Stack(
            flat,
            [{a: views[n] for a, n in names.items()} for layer in self._names for names in layer],
            partial(make_weights, core, self.cell, **{"b": None, **self._cell_options}),
            directions=self.num_directions,
            reverse=self.reverse,
            has_c=self._cell.has_c,
            hidden_size=self.hidden_size,
            output_size=self.output_size,
        )

    def __getstate__(self) -> dict[str, Any]:
        state = {name: value for name, value in vars(self).items() if name not in DERIVED}
        return state | self._config()  # activations as they may be given

    def __setstate__(self, state: dict[str, Any]) -> None:
        names = [*self._defaults(), "flat", "_rng"]
        if missing := [name for name in names if name not in state]:
            raise ValueError(f"state: expected {', '.join(missing)} too")
        others = {name: value for name, value in state.items() if name not in names}
        for name in others:  # attributes of a subclass
            if name in DERIVED or name in self._fixed or hasattr(Recurrent, name):
                raise ValueError(f"state: expected no {name}")
        self._configure({name: state[name] for name in self._defaults()})
        self._fix(others)
        self._rng = np.random.default_rng(state["_rng"])
        if self.num_layers > np.size(state["flat"]):
            raise ValueError(f"num_layers: expected fewer than parameters, got {self.num_layers}")
        self._own(check_flat(state["flat"], self._size(), self.dtype))

    def _config(self) -> dict[str, Any]:
        """Return the arguments that make a layer like this one, but for `rng` and `dtype`."""
        config = {name: getattr(self, name) for name in self._defaults() if name != "dtype"}
        if "nonlinearity" in config:
            config["nonlinearity"] = shortest(config["nonlinearity"])
        if "activations" in config:
            config["activations"] = tuple(map(shortest, config["activations"]))
        return config

    def __repr__(self) -> str:
        config, plain = self._config(), self._defaults()
        sizes = [str(config.pop(name)) for name in ("input_size", "hidden_size")]
        others = [f"{name}={value!r}" for name, value in config.items() if value != plain[name]]
        if self.dtype != np.float32:
            others.append(f"dtype={self.dtype}")
        return f"{type(self).__name__}({', '.join([*sizes, *others])})"

    # --- arguments --------------------------------------------------------------------------------

    def _check_input(self, x: ArrayLike) -> NDArray[Any]:
        """Return x as (T, B, I)."""
        if type(x) is not np.ndarray or x.dtype != self.dtype:
            x = check_real("x", x)
        if x.ndim != 3 or x.shape[2] != self.input_size:
            order = "(B, T, {})" if self.batch_first else "(T, B, {})"
            hint = hint_of_one_sequence("x", x, self.batch_first)
            raise ValueError(f"x: expected {order.format(self.input_size)}, got {x.shape}{hint}")
        if x.dtype != self.dtype:
            raise TypeError(
                f"x: expected {self.dtype}, the dtype of the layer, got {x.dtype}: take "
                f"np.asarray(x, np.{self.dtype}), or a layer with dtype=np.{x.dtype}"
            )
        return x.transpose(1, 0, 2) if self.batch_first else x

    def _check_resets(self, resets: ArrayLike | None, T: int, B: int) -> NDArray[np.bool_] | None:
        """Return a copy of `resets` as (T, B)."""
        if resets is None:
            return None
        array = check_resets(resets, (B, T) if self.batch_first else (T, B))
        return array.T if self.batch_first else array

    def _state_shapes(self, B: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the shapes of h and, if there is one, of c."""
        N = self.num_layers * self.num_directions
        return (N, B, self.output_size), (N, B, self.hidden_size)

    def _check_state(
        self, name: str, state: LayerState, B: int
    ) -> tuple[NDArray[Any] | None, NDArray[Any] | None]:
        """Return h and c, None where it is not given or the cell has no c."""
        if state is None:
            return None, None
        h, c = self._state_shapes(B)
        if not self._cell.has_c:
            return check_array(name, state, h, self.dtype), None
        if not isinstance(state, (tuple, list)) or len(state) != 2:
            raise TypeError(f"{name}: expected a pair (h, c), got {type(state).__name__}")
        return (
            check_optional(f"{name}[0]", state[0], h, self.dtype),
            check_optional(f"{name}[1]", state[1], c, self.dtype),
        )

    # --- masks ------------------------------------------------------------------------------------

    def _expected_zoneout(self) -> tuple[float | None, float | None]:
        """Return how much of h and of c stays on average, None for nothing."""
        return self.zoneout_h or None, self.zoneout_c or None

    def _random(self, probability: float, shape: tuple[int, ...]) -> NDArray[np.bool_]:
        return self._rng.random(shape) < probability

    def _dropout_mask(self, probability: float, shape: tuple[int, ...]) -> NDArray[Any]:
        """Return what to multiply with: 0, or where it is kept 1 / (1 - probability)."""
        scale = 1 / (1 - probability) if probability < 1 else 0
        return np.multiply(~self._random(probability, shape), scale, dtype=self.dtype)

    def _input_mask(self, layer: int, T: int, B: int) -> NDArray[Any] | None:
        """Return the mask of a layer's input in training: one for all steps, one per step, both."""
        I, mask = self._input_size(layer), None
        if layer and self.dropout:
            mask = self._dropout_mask(self.dropout, (T, B, I))
        if self.input_dropout:
            variational = self._dropout_mask(self.input_dropout, (B, I))
            mask = variational if mask is None else mask * variational
        return mask

    def _masks(self, T: int, B: int, training: bool) -> Masks | None:
        """Return the masks of one direction."""
        if not (self.zoneout_h or self.zoneout_c or (training and self.recurrent_dropout)):
            return None
        if not training:
            return Masks(*self._expected_zoneout())
        R, H = self.output_size, self.hidden_size
        return Masks(
            self._random(self.zoneout_h, (T, B, R)).astype(self.dtype) if self.zoneout_h else None,
            self._random(self.zoneout_c, (T, B, H)).astype(self.dtype) if self.zoneout_c else None,
            self._dropout_mask(self.recurrent_dropout, (B, R)) if self.recurrent_dropout else None,
        )

    def _all_masks(
        self, T: int, B: int, training: bool
    ) -> tuple[list[NDArray[Any] | None], list[Masks | None]]:
        """Return the masks of each layer's input, and of each layer and direction."""
        of_inputs: list[NDArray[Any] | None] = []
        of_directions: list[Masks | None] = []
        for layer in range(self.num_layers):
            of_inputs.append(self._input_mask(layer, T, B) if training else None)
            of_directions += [self._masks(T, B, training) for _ in range(self.num_directions)]
        return of_inputs, of_directions

    # --- calls ------------------------------------------------------------------------------------

    def _run(
        self,
        x: ArrayLike,
        state: LayerState,
        lengths: ArrayLike | None,
        resets: ArrayLike | None = None,
        *,
        training: bool = False,
        taped: bool = False,
        checkpoint: bool | int = False,
    ) -> tuple[NDArray[Any], LayerState, Tape | None]:
        """Run the layers: `training` draws masks, `taped` keeps a tape."""
        x = self._check_input(x)
        T, B, _ = x.shape
        initial = self._check_state("state", state, B)
        restarts = masks = input_masks = new_checkpoints = None
        if lengths is not None:
            lengths = check_lengths(lengths, T, B)
        if resets is not None:
            episodes = self._check_resets(resets, T, B)
            directions = map(self._starts_at_end, range(self.num_directions))
            restarts = [restarts_of(episodes, lengths, reverse) for reverse in directions]
        if checkpoint is not False:
            core, segment = CORES[self.dtype], segment_length(checkpoint, T)
            new_checkpoints = partial(Checkpoints, core=core, segment=segment)
        if training or self.zoneout_h or self.zoneout_c:
            input_masks, masks = self._all_masks(T, B, training)
        y, final, tapes = self._stack.forward(
            x,
            initial,
            self.batch_first,
            taped,
            lengths,
            restarts,
            input_masks,
            masks,
            new_checkpoints,
        )
        if not taped:
            return y, final, None
        return y, final, Tape(self, tapes, input_masks, (T, B), lengths is not None)

    def __call__(
        self,
        x: ArrayLike,
        state: LayerState = None,
        *,
        lengths: ArrayLike | None = None,
        resets: ArrayLike | None = None,
    ) -> tuple[NDArray[Any], Any]:
        """Run the layers for inference.

        Parameters
        ----------
        x : (T, B, I) array, or (B, T, I) if batch_first
            In the dtype of the layer.
        state : optional
            Initial state, zero by default: for the LSTM the pair of h and c, for the others h, of
            shape (num_layers * num_directions, B, R or H).
        lengths : (B,) integers in [0, T], optional
            Where the sequences end, in any order.
        resets : (T, B) array of bool, or (B, T) if batch_first, optional
            Where it is true, a new episode begins with that step: as if the sequence were cut there
            and its pieces were sequences that start from zero. No state passes, in neither
            direction, and no gradient.

        Returns
        -------
        y : (T, B, num_directions * R) array, or (B, T, ...)
            Outputs of the last layer; zero from a sequence's end on. R is `output_size`.
        state : as the argument
            After each sequence's last step.

        Raises
        ------
        ValueError, TypeError
            If an argument does not fit; the message names it.

        Examples
        --------
        An episode that begins with step 4 knows nothing of what was before:

        >>> import numpy as np
        >>> import fastlstm
        >>> lstm = fastlstm.LSTM(3, 8, bidirectional=True, rng=0)
        >>> x = np.random.default_rng(0).standard_normal((10, 1, 3), np.float32)
        >>> resets = np.arange(10)[:, None] == 4
        >>> y, _ = lstm(x, resets=resets)
        >>> bool((y[:4] == lstm(x[:4])[0]).all() and (y[4:] == lstm(x[4:])[0]).all())
        True
        """
        y, final, _ = self._run(x, state, lengths, resets)
        return y, final

    def forward(
        self,
        x: ArrayLike,
        state: LayerState = None,
        *,
        lengths: ArrayLike | None = None,
        resets: ArrayLike | None = None,
        checkpoint: bool | int = False,
    ) -> tuple[NDArray[Any], Any, Tape]:
        """Run the layers for training: with dropout and zoneout, and keeping what `backward` needs.

        The tape refers to `x`, which must not change before `backward`; weights may.

        Parameters
        ----------
        x, state, lengths, resets
            As of a call.
        checkpoint : bool or int
            Keep only the states between segments of this many steps (True: the square root of
            T), and let `backward` run each segment again: exact gradients in little memory, for a
            third more time. Layers above the first keep their inputs.

        Returns
        -------
        y, state
            As of a call.
        tape : Tape
            For `backward`, any number of times; its ``nbytes`` says what it holds.
        """
        y, final, tape = self._run(
            x, state, lengths, resets, training=True, taped=True, checkpoint=checkpoint
        )
        assert tape is not None
        return y, final, tape

    def backward(
        self,
        tape: Tape,
        dy: ArrayLike | None = None,
        dstate: LayerState = None,
        *,
        input_gradient: bool = True,
    ) -> Gradients:
        """Backpropagate through time.

        Parameters
        ----------
        tape : Tape
            From `forward` of this layer.
        dy : array in the shape of y, optional
            Gradient of the loss with respect to ``y``.
        dstate : in the shape of the state, optional
            Gradient with respect to the final state.
        input_gradient : bool
            Whether to compute the gradient of the layer's input; without it, a first layer saves
            one of its four products.

        Returns
        -------
        Gradients

        Raises
        ------
        ValueError, TypeError
            If an argument does not fit; the message names it.
        """
        if not isinstance(tape, Tape) or tape.layer is not self:  # type: ignore[redundant-expr]
            raise TypeError("tape: expected a tape from this layer's forward")
        T, B = tape.shape
        R = self.output_size
        dfinal = self._check_state("dstate", dstate, B)
        D = self.num_directions
        shape = (B, T, D * R) if self.batch_first else (T, B, D * R)
        dout = check_optional("dy", dy, shape, self.dtype)
        if dout is not None and self.batch_first:
            dout = dout.transpose(1, 0, 2)
        dx, dstate_0, flat = self._stack.backward(
            tape.directions, dout, dfinal, tape.masks, tape.ragged, input_gradient
        )
        if dx is not None and self.batch_first:
            dx = dx.transpose(1, 0, 2)
        return Gradients(dx, dstate_0, self._views(flat), flat)

    def stream(self, batch_size: int = 1) -> Any:
        """Return a `Stream`, which runs the layers one time step after the other.

        It takes the weights as they are now, and again at ``reset``.

        Raises
        ------
        ValueError
            If the layers are bidirectional or reverse: that direction needs the end first.

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
        if self.bidirectional or self.reverse:
            raise ValueError(f"stream: expected the forward direction alone, got {self!r}")
        return STREAMS[self.dtype](self, check_size("batch_size", batch_size))

    def trace(
        self,
        x: ArrayLike,
        state: LayerState = None,
        *,
        lengths: ArrayLike | None = None,
        resets: ArrayLike | None = None,
    ) -> dict[str, dict[str, NDArray[Any]]]:
        """Run the layers as a call does, and return all that is inside.

        Parameters
        ----------
        x, state, lengths, resets
            As of a call.

        Returns
        -------
        dict of dicts of arrays
            Per layer and direction (``"l0"``, ``"l0_reverse"``, ``"l1"``, ...) arrays of shape
            (T, B, H) in the order of time, zero from a sequence's end on: the gates after their
            activation, the cell state and the hidden state (T, B, R). LSTM: i, f, g, o, c, h (if
            coupled, f is 1 - i); GRU: r, z, n, h; RNN: h. That neither batch_first nor the
            direction changes.

        Examples
        --------
        >>> import numpy as np
        >>> import fastlstm
        >>> lstm = fastlstm.LSTM(3, 8, rng=0)
        >>> trace = lstm.trace(np.ones((10, 2, 3), np.float32))
        >>> sorted(trace["l0"]), trace["l0"]["f"].shape
        (['c', 'f', 'g', 'h', 'i', 'o'], (10, 2, 8))
        """
        _, _, tape = self._run(x, state, lengths, resets, taped=True)
        assert tape is not None
        T, B = tape.shape
        traces = {}
        for layer, tapes in enumerate(tape.directions):
            for direction, suffix in enumerate(self._suffixes(layer)):
                turned = self._starts_at_end(direction) and not tape.ragged
                arrays = {}
                blocks = self._cell.blocks
                for name in (*blocks, *self._cell.states[::-1]):
                    F = self.output_size if name == "h" else self.hidden_size
                    arrays[name] = np.zeros((T, B, F), self.dtype)
                    out = arrays[name][::-1] if turned else arrays[name]
                    CORES[self.dtype].copy_from_tape(tapes[direction], name, blocks.find(name), out)
                arrays.pop("q", None)
                traces[suffix] = arrays
        return traces
