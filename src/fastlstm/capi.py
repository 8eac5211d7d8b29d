"""The C API as seen from Python: for ctypes and Numba.

Decisions:
a) `f32` and `f64` are the tables of ``fastlstm.h``, where every function is explained, with ctypes
   functions in them. Numba calls these from compiled code, without the interpreter.
b) `Plan` makes plans and memory out of checked arrays. What then runs with them is C: it gets
   pointers and checks nothing.
"""

import ctypes
import weakref
from ctypes import c_double, c_int, c_size_t, c_ssize_t, c_uint, c_void_p
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastlstm._args.arrays import check_gru, check_lstm, check_real, check_rnn
from fastlstm._args.cells import CELLS, PARAMETERS, PLAIN, find_cell
from fastlstm._args.numbers import check_size, number_of
from fastlstm._core import sequence_float32, sequence_float64

VERSION = 1
ALIGNMENT = 64
LSTM, LSTM_COUPLED, GRU, GRU_RESET_BEFORE, RNN = range(1, 1 + len(CELLS))


class Activation(ctypes.Structure):
    """``fastlstm_activation``."""

    _fields_ = (("kind", c_int), ("alpha", c_double), ("beta", c_double))


class Layer(ctypes.Structure):
    """``fastlstm_layer``."""

    _fields_ = (
        ("size", c_size_t),
        *((name, c_int) for name in ("cell", "reverse", "training")),
        *((name, c_ssize_t) for name in ("input_size", "hidden_size", "proj_size")),
        *((name, c_void_p) for name in PARAMETERS),
        *((name, Activation) for name in ("gate", "candidate", "output")),
        *((name, c_double) for name in ("clip", "cell_clip", "proj_clip")),
        *((name, c_double) for name in ("zoneout_h", "zoneout_c")),
    )


class Gradients(ctypes.Structure):
    """``fastlstm_gradients``."""

    _fields_ = (
        ("size", c_size_t),
        *((name, c_void_p) for name in ("dy", "dh_n", "dc_n", "dx", "dh_0", "dc_0")),
        *((name, c_void_p) for name in ("dw_ih", "dw_hh", "db")),
        *((name, c_void_p) for name in ("dw_proj", "dpeephole", "dlayer_norm")),
    )


def _function(result: Any, *arguments: Any) -> Any:
    return ctypes.CFUNCTYPE(result, *arguments)


class API(ctypes.Structure):
    """``fastlstm_api``: a table of functions."""

    _fields_ = (
        ("version", c_uint),
        ("size", c_size_t),
        ("message", _function(ctypes.c_char_p, c_int)),
        ("create", _function(c_int, c_void_p, c_void_p)),
        ("update", _function(c_int, c_void_p, c_void_p)),
        ("destroy", _function(None, c_void_p)),
        ("state_size", _function(c_size_t, c_void_p, c_ssize_t)),
        ("init_state", _function(c_int, c_void_p, c_void_p, c_ssize_t)),
        ("set_state", _function(None, c_void_p, c_void_p, c_void_p)),
        ("get_state", _function(None, c_void_p, c_void_p, c_void_p)),
        ("step", _function(None, c_void_p, c_void_p, c_void_p)),
        ("workspace_size", _function(c_size_t, c_void_p, c_ssize_t, c_ssize_t)),
        ("forward", _function(c_int, c_void_p, c_ssize_t, c_void_p, c_void_p, c_void_p)),
        ("tape_size", _function(c_size_t, c_void_p, c_ssize_t, c_ssize_t)),
        ("forward_tape", _function(c_int, c_void_p, c_ssize_t, *[c_void_p] * 4)),
        ("backward", _function(c_int, c_void_p, c_void_p, c_void_p, c_void_p)),
        ("reset_rows", _function(None, c_void_p, c_void_p)),
        ("forward_episodes", _function(c_int, c_void_p, c_ssize_t, *[c_void_p] * 5)),
    )


# what fastlstm_import() of the header looks for
capsule_f32: Any = sequence_float32.C_API_CAPSULE
capsule_f64: Any = sequence_float64.C_API_CAPSULE

f32: API = API.from_address(sequence_float32.C_API_ADDRESS)
f64: API = API.from_address(sequence_float64.C_API_ADDRESS)


class _Memory:
    """Aligned bytes that NumPy keeps alive together with the plan that they point to."""

    def __init__(self, plan: "Plan", size: int):
        self.plan = plan
        self.bytes = np.empty(size + ALIGNMENT, np.uint8)
        at = -self.bytes.ctypes.data % ALIGNMENT
        self.__array_interface__ = self.bytes[at : at + size].__array_interface__


class Plan:
    """Packed weights of one layer in one direction, for use by C functions.

    Parameters
    ----------
    cell : {"lstm", "gru", "rnn"}
        Which of `lstm_forward`, `gru_forward` and `rnn_forward` it does.
    w_ih, w_hh, b : arrays
        As there; b may be None. They are copied. Their dtype decides between `f32` and `f64`.
    training : bool
        Prepare for ``forward_tape`` and ``backward`` too.
    reverse : bool
        Run sequences from their last step to their first.
    **options
        As there: peephole, w_proj, layer_norm, coupled, clip, cell_clip, proj_clip, activations;
        reset_after; nonlinearity; and zoneout_h and zoneout_c as numbers.

    Attributes
    ----------
    functions : API
        `f32` or `f64`.
    address : int
        The ``fastlstm_plan *``, as long as this object lives.
    input_size, hidden_size, output_size : int
        I, H and R.

    Raises
    ------
    ValueError, TypeError
        If an argument does not fit; the message names it.

    Examples
    --------
    The function is C's: it takes addresses, and trusts them.

    >>> import numpy as np
    >>> from fastlstm import capi
    >>> plan = capi.Plan("rnn", np.ones((1, 1)), np.ones((1, 1)), nonlinearity="affine")
    >>> state = plan.state(batch_size=1)
    >>> x, y = np.ones((1, 1)), np.empty((1, 1))
    >>> for _ in range(3):
    ...     capi.f64.step(state.ctypes.data, x.ctypes.data, y.ctypes.data)
    >>> y
    array([[3.]])
    """

    def __init__(
        self,
        cell: str,
        w_ih: ArrayLike,
        w_hh: ArrayLike,
        b: ArrayLike | None = None,
        *,
        training: bool = False,
        reverse: bool = False,
        **options: Any,
    ):
        if cell not in PLAIN:
            raise ValueError(f"cell: expected one of {', '.join(PLAIN)}, got {cell!r}")
        checks: dict[str, Any] = {"lstm": check_lstm, "gru": check_gru, "rnn": check_rnn}
        w_ih = check_real("w_ih", w_ih)
        x = np.empty((0, 1, w_ih.shape[-1] if w_ih.ndim else 0), w_ih.dtype)
        a = checks[cell](x, w_ih, w_hh, b, training=training, **options)._asdict()
        for name in ("zoneout_h", "zoneout_c"):
            if isinstance(a.get(name), np.ndarray):
                raise TypeError(f"{name}: expected a number, got an array")
        for name in ("lengths", "resets", "dropout_h", "h_0", "c_0"):
            if a.get(name) is not None:
                raise TypeError(f"{name}: not an option of a plan")
        layer = Layer(size=ctypes.sizeof(Layer), training=training, reverse=reverse)
        row = find_cell(cell, a)
        layer.cell = 1 + CELLS.index(row)
        layer.input_size = a["w_ih"].shape[1]
        layer.hidden_size = len(a["w_hh"]) // row.G
        arrays = {
            name: np.ascontiguousarray(a[name]) for name in PARAMETERS if a.get(name) is not None
        }
        for name, array in arrays.items():
            setattr(layer, name, array.ctypes.data)
        if "w_proj" in arrays:
            layer.proj_size = len(arrays["w_proj"])
        for name in ("clip", "cell_clip", "proj_clip", "zoneout_h", "zoneout_c"):
            setattr(layer, name, a.get(name) or 0.0)
        given = a["activations"] if "activations" in a else (a["nonlinearity"],)
        for role, activation in zip(("gate", "candidate", "output"), given, strict=False):
            kind, alpha, beta = number_of(activation)
            setattr(layer, role, Activation(1 + kind, alpha, beta))

        self.input_size: int = layer.input_size
        self.hidden_size: int = layer.hidden_size
        self.output_size: int = layer.proj_size or layer.hidden_size
        self.functions: API = f32 if w_ih.dtype == np.float32 else f64
        address = c_void_p()
        status = self.functions.create(ctypes.byref(address), ctypes.byref(layer))
        if status:
            self._raise(status)
        self.address: int | None = address.value
        weakref.finalize(self, self.functions.destroy, self.address).atexit = False

    def _raise(self, status: int) -> None:
        message = self.functions.message(status).decode()
        raise MemoryError(message) if message == "no memory" else ValueError(message)

    def _memory(self, size: int, what: str) -> NDArray[np.uint8]:
        if size == 0:
            raise ValueError(f"{what}: out of the range of the C API")
        return np.asarray(_Memory(self, size))

    def state(self, batch_size: int) -> NDArray[np.uint8]:
        """Return the memory of a new ``fastlstm_state`` of zeros; it keeps the plan alive.

        Do not copy it to use the copy: a state points into itself.

        Parameters
        ----------
        batch_size : int
            Rows, B, at least 1.

        Returns
        -------
        array of uint8
            Aligned as the C API wants it.
        """
        B = check_size("batch_size", batch_size)
        state = self._memory(self.functions.state_size(self.address, B), "batch_size")
        status = self.functions.init_state(self.address, state.ctypes.data, B)
        if status:
            self._raise(status)
        return state

    def workspace(self, T: int, B: int) -> NDArray[np.uint8]:
        """Return memory for a call of at most T steps of B rows.

        Parameters
        ----------
        T, B : int
            Steps and rows.

        Returns
        -------
        array of uint8
            Aligned as the C API wants it.
        """
        T, B = check_size("T", T, 0), check_size("B", B)
        return self._memory(self.functions.workspace_size(self.address, T, B), "T, B")

    def tape(self, T: int, B: int) -> NDArray[np.uint8]:
        """Return memory for a ``fastlstm_tape`` of T steps of B rows; it keeps the plan alive.

        Parameters
        ----------
        T, B : int
            Steps and rows.

        Returns
        -------
        array of uint8
            Aligned as the C API wants it.
        """
        T, B = check_size("T", T, 0), check_size("B", B)
        return self._memory(self.functions.tape_size(self.address, T, B), "T, B")

    def __repr__(self) -> str:
        dtype = "float32" if self.functions is f32 else "float64"
        return f"<Plan of {self.input_size} to {self.output_size}, {dtype}>"
