"""The modules: PyTorch's own with another `forward`.

Decisions:
a) Constructor, parameters, state_dict, repr and checks are inherited. What is not done here, and
   every call that PyTorch refuses, goes to PyTorch's `forward`: its results, its messages.
b) Between layers stands what PyTorch does there, so that dropout draws what it would have drawn
   from the same seed.
c) PyTorch's threads are left alone: the core has its own, see `fastlstm.set_num_threads`.
d) A module here has what PyTorch's has and nothing more, so one becomes the other by its class
   alone: weights, hooks, and who refers to it stay.
"""

import copy
import functools
import operator
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn.utils.parametrize import is_parametrized
from torch.nn.utils.rnn import PackedSequence

from fastlstm.torch import _onnx
from fastlstm.torch._arrays import CELLS
from fastlstm.torch._inference import infer
from fastlstm.torch._operators import is_plain, run, say_once

CPU = torch.device("cpu")
REAL_DTYPES = (torch.float32, torch.float64)


def foreign_tensors(tensors: tuple[Tensor, ...]) -> str | None:
    """Return what there is about these tensors, or now, that only PyTorch can do."""
    for tensor in tensors:
        if tensor.device != CPU:
            return f"tensors on {tensor.device.type}"
    if tensors[0].dtype not in REAL_DTYPES:
        return str(tensors[0].dtype)
    if torch.is_autocast_enabled("cpu"):
        return "autocast"
    if torch.compiler.is_compiling():
        return None
    if torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0:
        return "function transforms and forward derivatives"
    return "torch.jit.trace" if torch.jit.is_tracing() else None


class _Recurrent(torch.nn.RNNBase):
    """The `forward` of all modules; that of the next class in line is PyTorch's."""

    @property
    def _sizes(self) -> tuple[int, int, int, int]:
        """Layers, directions, hidden units and outputs."""
        H = self.hidden_size
        return self.num_layers, 2 if self.bidirectional else 1, H, self.proj_size or H

    def forward(self, input: Any, hx: Any = None, *, resets: Tensor | None = None) -> Any:
        """Run the layers, as PyTorch's module does.

        `resets`, which PyTorch does not have, is a bool tensor (T, B), or (B, T) if batch_first, or
        (T,) without a batch: where it is true, an episode begins with that step, and neither state
        nor gradient passes between it and the step before, in both directions. With a
        PackedSequence it is padded, and its rows are in the order of `hx`.
        """
        self._update_flat_weights()
        packed = isinstance(input, PackedSequence)
        parts: Any = input if packed else (input, None, None, None)
        x, batch_sizes, order, back = parts
        states = () if hx is None else tuple(hx) if isinstance(hx, (tuple, list)) else (hx,)
        if not self._can_run(x, batch_sizes, states):
            outputs = super().forward(input, hx)
            if resets is not None:
                raise NotImplementedError("resets: expected None where PyTorch's own code runs")
            return outputs
        single = not packed and x.dim() == 2
        if resets is not None and _onnx.is_wanted():
            raise NotImplementedError("resets: expected None in torch.onnx.export, ONNX has none")
        if resets is not None:
            shape = x.shape[:-1]
            if packed:
                shape = len(batch_sizes), int(batch_sizes[0])
                shape = shape[::-1] if self.batch_first else shape
            resets = _checked_resets(resets, shape)
            if single:
                resets = resets.unsqueeze(1)
            elif self.batch_first:
                resets = resets.t()
            if packed and order is not None:
                resets = resets.index_select(1, order)
        if packed:
            states = _in_order(states, order)
        elif single:
            x = x.unsqueeze(1)
            states = tuple(s.unsqueeze(1) for s in states)
        elif self.batch_first:
            x = x.transpose(0, 1)
        y, states = self._run(x, batch_sizes, resets, states)
        if packed:
            y = PackedSequence(y, batch_sizes, order, back)
            states = _in_order(states, back)
        elif single:
            y = y.squeeze(1)
            states = tuple(s.squeeze(1) for s in states)
        elif self.batch_first:
            y = y.transpose(0, 1)
        return y, states if self.mode == "LSTM" else states[0]

    def _update_flat_weights(self) -> None:
        """Do what PyTorch does; where every weight is the parameter as before it takes no time."""
        now, before = self._parameters, self._flat_weights
        names = self._flat_weights_names
        if not all(map(operator.is_, map(now.get, names), before)):
            super()._update_flat_weights()

    def __prepare_scriptable__(self) -> Any:
        """Return what torch.jit.script is to compile in the place of this: PyTorch's module."""
        say_once("torch.jit.script")
        theirs = copy.copy(self)
        theirs.__class__ = _PYTORCHS[type(self)]
        return theirs

    def _can_run(self, x: Any, batch_sizes: Any, states: Any) -> bool:
        """Whether this call is as it should be, and for the core."""
        tensors, autocast = (x, *states, *self._flat_weights), torch.is_autocast_enabled("cpu")
        for tensor in tensors:
            if not isinstance(tensor, Tensor) or (tensor.dtype is not x.dtype and not autocast):
                return False
        foreign = foreign_tensors(tensors)
        if _onnx.is_wanted() and (self.proj_size or batch_sizes is not None):
            foreign = "projections and packed sequences in torch.onnx.export"
        if foreign is not None:
            say_once(foreign)
            return False
        if x.dim() not in ((2, 3) if batch_sizes is None else (2,)):
            return False
        if x.shape[-1] != self.input_size or x.numel() == 0:
            return False
        rows: tuple[int, ...] = ()
        if batch_sizes is not None:
            rows = (int(batch_sizes[0]),)
        elif x.dim() == 3:
            rows = (x.shape[0 if self.batch_first else 1],)
        L, D, H, R = sizes = self._sizes
        if len(states) not in (0, 2 if self.mode == "LSTM" else 1):
            return False
        shapes = ((L * D, *rows, R), (L * D, *rows, H))[: len(states)]
        shapes += _weight_shapes(*sizes, self.mode, self.input_size, self.bias, self.proj_size)
        return tuple([tensor.shape for tensor in tensors[1:]]) == shapes

    def _weights(self) -> list[tuple[Tensor | None, ...]]:
        """Return for each layer and direction w_ih, w_hh, w_hr, b_ih and b_hh."""
        flat, n = self._flat_weights, 2 + 2 * self.bias + (self.proj_size > 0)
        found = []
        for k in range(0, len(flat), n):
            w_ih, w_hh, *rest = flat[k : k + n]
            w_hr = rest.pop() if self.proj_size else None
            found.append((w_ih, w_hh, w_hr, *(rest or (None, None))))
        return found

    def _run(self, x: Any, batch_sizes: Any, resets: Any, states: Any) -> Any:
        """Run all layers over x (T, B, I), or over packed data."""
        L, D, _, _ = self._sizes
        B = x.shape[1] if batch_sizes is None else int(batch_sizes[0])
        keep_tape = torch.is_grad_enabled() and any(
            t.requires_grad for t in (*self._flat_weights, x, *states)
        )
        weights, drops = self._weights(), self.dropout and self.training and L > 1
        if not keep_tape and not drops and is_plain(x):
            return infer(self.mode, x, batch_sizes, resets, B, states, weights, D)
        run_one: Any = _onnx.node if _onnx.is_wanted() else run
        ends = []
        for layer in range(L):
            outputs = []
            for direction in range(D):
                i = layer * D + direction
                h_0, c_0 = (*(s[i] for s in states), None, None)[:2]
                inputs = self.mode, x, h_0, c_0, *weights[i], batch_sizes, resets, B
                y, *end, _ = run_one(*inputs, direction == 1, keep_tape)
                outputs.append(y)
                ends.append(end if self.mode == "LSTM" else end[:1])
            x = outputs[0] if D == 1 else torch.cat(outputs, -1)
            if drops and layer < L - 1:
                x = torch.nn.functional.dropout(x, self.dropout)
        if len(ends) == 1:
            return x, tuple(end.unsqueeze(0) for end in ends[0])
        return x, tuple(torch.stack(end) for end in zip(*ends, strict=True))


def _checked_resets(resets: object, shape: tuple[int, ...]) -> Tensor:
    """Return `resets` if it is a bool tensor of this shape."""
    if not isinstance(resets, Tensor) or resets.dtype != torch.bool:
        got = resets.dtype if isinstance(resets, Tensor) else type(resets).__name__
        raise TypeError(f"resets: expected a tensor of bool, got {got}")
    if resets.shape != shape:
        raise ValueError(f"resets: expected {tuple(shape)}, got {tuple(resets.shape)}")
    return resets.cpu()


@functools.lru_cache(maxsize=64)
def _weight_shapes(
    L: int, D: int, H: int, R: int, mode: str, input_size: int, bias: bool, proj_size: int
) -> tuple[tuple[int, ...], ...]:
    """Return the shapes of a module's flat weights."""
    N = CELLS[mode].G * H
    shapes: list[tuple[int, ...]] = []
    for layer in range(L):
        one: list[tuple[int, ...]] = [(N, D * R if layer else input_size), (N, R)]
        if bias:
            one += [(N,), (N,)]
        if proj_size:
            one.append((R, H))
        shapes += one * D
    return tuple(shapes)


def _in_order(states: tuple[Tensor, ...], order: Tensor | None) -> tuple[Tensor, ...]:
    """Return states (layers, B, .) with their rows in another order."""
    return states if order is None else tuple(s.index_select(1, order) for s in states)


class LSTM(_Recurrent, torch.nn.LSTM):
    """`torch.nn.LSTM` on fastlstm's core.

    It takes the same arguments, has the same parameters under the same names, returns the same
    (up to rounding) and raises the same errors. CPU tensors of float32 and float64 are read in
    place. What the core does not do (other devices and dtypes, autocast, gradients of gradients) is
    left to PyTorch, with one warning for each. Beyond PyTorch it takes ``resets``: where episodes
    begin inside a sequence, see `forward`.

    Parameters
    ----------
    *args, **kwargs
        As of `torch.nn.LSTM`.

    Notes
    -----
    In ``torch.compile`` it is, like PyTorch's, a break of the graph, unless
    ``torch._dynamo.config.allow_rnn`` is true: then it is one operator per layer and direction. In
    ``torch.onnx.export`` it is one node of ONNX per layer and direction, with T and B as open as
    ``dynamic_shapes`` asks for; for that, export the module, not a program of ``torch.export``, in
    which the operator is fixed. ``torch.jit.script`` and ``trace`` get PyTorch's own code with the
    same weights.

    Examples
    --------
    >>> import torch
    >>> import fastlstm.torch
    >>> lstm = fastlstm.torch.LSTM(3, 8, batch_first=True)
    >>> _ = lstm.load_state_dict(torch.nn.LSTM(3, 8).state_dict())
    >>> y, (h_n, c_n) = lstm(torch.ones(2, 10, 3))
    >>> y.shape, h_n.shape
    (torch.Size([2, 10, 8]), torch.Size([1, 2, 8]))
    >>> y.sum().backward()
    >>> lstm.weight_hh_l0.grad.shape
    torch.Size([32, 8])
    """


class GRU(_Recurrent, torch.nn.GRU):
    """`torch.nn.GRU` on fastlstm's core; all that is said of `LSTM` holds.

    Parameters
    ----------
    *args, **kwargs
        As of `torch.nn.GRU`.

    Examples
    --------
    >>> import torch
    >>> import fastlstm.torch
    >>> y, h_n = fastlstm.torch.GRU(3, 8)(torch.ones(10, 2, 3))
    >>> y.shape, h_n.shape
    (torch.Size([10, 2, 8]), torch.Size([1, 2, 8]))
    """


class RNN(_Recurrent, torch.nn.RNN):
    """`torch.nn.RNN` on fastlstm's core; all that is said of `LSTM` holds.

    Parameters
    ----------
    *args, **kwargs
        As of `torch.nn.RNN`.

    Examples
    --------
    >>> import torch
    >>> import fastlstm.torch
    >>> y, h_n = fastlstm.torch.RNN(3, 8, nonlinearity="relu")(torch.ones(10, 2, 3))
    >>> y.shape, h_n.shape
    (torch.Size([10, 2, 8]), torch.Size([1, 2, 8]))
    """


_OURS: dict[type, type] = {torch.nn.LSTM: LSTM, torch.nn.GRU: GRU, torch.nn.RNN: RNN}
_PYTORCHS = {ours: theirs for theirs, ours in _OURS.items()}


def replace(model: torch.nn.Module, *, back: bool = False) -> list[str]:
    """Let the recurrent modules of a model run on fastlstm's core, in place.

    Every `torch.nn.LSTM`, `GRU` and `RNN` in it becomes the one of this package, or the other way
    round. The modules stay the same objects with the same parameters: optimizers, hooks, shared
    weights, parametrizations and state dicts notice nothing. Subclasses, whose own code might be
    bypassed, are left as they are, and so are modules that torch.jit has compiled.

    Parameters
    ----------
    model : torch.nn.Module
        Itself one of them, or one that contains them.
    back : bool
        Whether to put PyTorch's own in the place of those of this package.

    Returns
    -------
    list of str
        The names of the modules that changed, as in ``model.named_modules()``.

    Raises
    ------
    TypeError
        If `model` is not a module.

    Examples
    --------
    >>> import torch
    >>> import fastlstm.torch
    >>> model = torch.nn.ModuleDict({"rnn": torch.nn.GRU(3, 8), "out": torch.nn.Linear(8, 1)})
    >>> fastlstm.torch.replace(model)
    ['rnn']
    >>> type(model["rnn"]) is fastlstm.torch.GRU
    True
    >>> fastlstm.torch.replace(model, back=True)
    ['rnn']
    """
    if not isinstance(model, torch.nn.Module):
        raise TypeError(f"model: expected a torch.nn.Module, got {type(model).__name__}")
    classes, names = _PYTORCHS if back else _OURS, []
    for name, module in model.named_modules():
        kind = type(module)
        if kind in classes:
            module.__class__ = classes[kind]
        elif is_parametrized(module) and kind.__base__ in classes:
            # a class that PyTorch made for this module and its copies, with a property per weight
            own = {n: v for n, v in vars(kind).items() if n not in ("__dict__", "__weakref__")}
            module.__class__ = type(kind.__name__, (classes[kind.__base__],), own)
        else:
            continue
        names.append(name)
    return names
