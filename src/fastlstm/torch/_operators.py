"""One layer in one direction as an operator of PyTorch, with its gradient.

Decisions:
a) ``fastlstm::recurrence`` and its backward are opaque to compilers. They take and return tensors
   and have no state, so that PyTorch may trace, repeat or reorder them.
b) The tape is an output, a plain tensor of bytes over the core's memory. Autograd saves it and
   frees it with the graph; whoever copies, moves or recomputes saved tensors may do so with it.
c) Plain tensors take a short cut past PyTorch's dispatcher and its registered gradients, which
   would cost a training step at H = 64 some 5 % more.
d) If gradients are to be differentiated again, the backward pass runs PyTorch's recurrence.
"""

import warnings
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from fastlstm._args.arrays import readable
from fastlstm._core.calls import (
    CORES,
    restarts_in_order,
    restarts_of,
    run_backward,
    run_forward,
)
from fastlstm.torch._arrays import CELLS, array_of, lengths_of, make_packed, pack, sequence_of

_Optional: TypeAlias = Tensor | None

_said: set[str] = set()


def say_once(what: str) -> None:
    """Warn that PyTorch does this."""
    if what not in _said:
        _said.add(what)
        warnings.warn(f"fastlstm.torch leaves {what} to PyTorch's own code", stacklevel=2)


def _forward(
    mode: str,
    x: Tensor,
    h_0: _Optional,
    c_0: _Optional,
    w_ih: Tensor,
    w_hh: Tensor,
    w_hr: _Optional,
    b_ih: _Optional,
    b_hh: _Optional,
    batch_sizes: _Optional,
    resets: _Optional,
    B: int,
    reverse: bool,
    keep_tape: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return y, h_n, c_n (empty unless there is a cell state) and the tape (empty unless kept).

    x is (T, B, I), or with `batch_sizes` the data of a PackedSequence; y alike. `resets` (T, B) is
    true where an episode begins. Shapes and dtypes have been checked.
    """
    weights = pack(mode, w_ih, w_hh, w_hr, b_ih, b_hh, backward=keep_tape)
    inputs, lengths = sequence_of(x), lengths_of(batch_sizes, x.shape[0])
    y, h_n, c_n = (np.empty(shape, inputs.dtype) for shape in _output_shapes(mode, x, w_hh, B))
    tape = run_forward(
        CORES[inputs.dtype],
        weights,
        inputs,
        y if y.ndim == 3 else y[np.newaxis],
        initial=(array_of(h_0), array_of(c_0)),
        final=(h_n, c_n if CELLS[mode].has_c else None),
        lengths=lengths,
        restarts=restarts_of(array_of(resets), lengths, reverse),
        reverse=reverse,
        training=keep_tape,
        concatenated=batch_sizes is not None,
    )
    memory = np.empty(0, np.uint8) if tape is None else np.asarray(tape.memory)[: tape.nbytes]
    results: Any = tuple(map(torch.from_numpy, (y, h_n, c_n, memory)))
    return results


def _output_shapes(mode, x, w_hh, B):
    """Return the shapes of y, h_n and c_n."""
    cell, (N, R) = CELLS[mode], w_hh.shape
    return (*x.shape[:-1], R), (B, R), (B, N // cell.G) if cell.has_c else (0,)


def _gradients(
    mode, dy, dh_n, dc_n, tape, x, w_ih, w_hh, w_hr, batch_sizes, resets, B, reverse, wanted
) -> list[Any]:
    """Return the gradients of x, h_0, c_0, w_ih, w_hh, w_hr and the core's bias.

    None are those of x, h_0, c_0 and the bias that are not `wanted`, and of what does not exist.
    """
    weights = pack(mode, w_ih, w_hh, w_hr, backward=True)
    lengths = lengths_of(batch_sizes, x.shape[0])
    ragged = lengths is not None
    turned = reverse and not ragged
    inputs = readable(sequence_of(x))
    if turned:
        inputs = inputs[::-1]
    core = CORES[inputs.dtype]
    core_tape = core.Tape(
        weights,
        inputs,
        array_of(tape),
        lengths=lengths,
        resets=restarts_in_order(restarts_of(array_of(resets), lengths, reverse), turned),
        reverse=reverse,
        concatenated=ragged,
    )
    dtype, shapes = inputs.dtype, _gradient_shapes(mode, x, w_ih, w_hh, w_hr, B, wanted)
    filled = [shape and np.empty(shape, dtype) for shape in shapes[:3]]
    added = [shape and np.zeros(shape, dtype) for shape in shapes[3:]]
    (dx, dh_0, dc_0), (dw_ih, dw_hh, dw_hr, db) = filled, added
    run_backward(
        core,
        core_tape,
        ragged=ragged,
        reverse=reverse,
        dy=sequence_of(dy),
        dfinal=(array_of(dh_n), array_of(dc_n)),
        dx=dx if dx is None or dx.ndim == 3 else dx[np.newaxis],
        dinitial=(dh_0, dc_0),
        gradients={"w_ih": dw_ih, "w_hh": dw_hh, "b": db, "w_proj": dw_hr},
    )
    return [a if a is None else torch.from_numpy(a) for a in (*filled, *added)]


def _gradient_shapes(mode, x, w_ih, w_hh, w_hr, B, wanted):
    """Return the shapes of what `_gradients` returns."""
    cell, (N, R) = CELLS[mode], w_hh.shape
    H = N // cell.G
    return (
        x.shape if wanted[0] else None,
        (B, R) if wanted[1] else None,
        (B, H) if wanted[2] else None,
        w_ih.shape,
        w_hh.shape,
        None if w_hr is None else w_hr.shape,
        (len(cell.bias) * H,) if wanted[3] else None,
    )


recurrence = torch.library.custom_op("fastlstm::recurrence", _forward, mutates_args=())


@recurrence.register_fake
def _(mode, x, h_0, c_0, w_ih, w_hh, w_hr, b_ih, b_hh, batch_sizes, resets, B, reverse, keep_tape):
    size = _tape_size(mode, x, w_hh, w_hr, batch_sizes, B) if keep_tape else 0
    outputs = map(x.new_empty, _output_shapes(mode, x, w_hh, B))
    return *outputs, x.new_empty(size, dtype=torch.uint8)


def _tape_size(mode, x, w_hh, w_hr, batch_sizes, B):
    """Return the bytes of a tape, whose layout the core knows; sizes of x may be symbols."""
    dtype = np.dtype(str(x.dtype).removeprefix("torch."))
    N, R = map(int, w_hh.shape)
    w_proj = None if w_hr is None else np.zeros((R, N // CELLS[mode].G), dtype)
    some = np.zeros((N, 1), dtype), np.zeros((N, R), dtype)
    weights = make_packed(mode, CORES[dtype], *some, None, w_proj)
    rows = x.shape[0] * B if batch_sizes is None else x.shape[0]
    return CORES[dtype].tape_bytes(weights, rows, B)


@torch.library.custom_op("fastlstm::recurrence_backward", mutates_args=())
def recurrence_backward(
    mode: str,
    dy: _Optional,
    dh_n: _Optional,
    dc_n: _Optional,
    tape: Tensor,
    x: Tensor,
    w_ih: Tensor,
    w_hh: Tensor,
    w_hr: _Optional,
    batch_sizes: _Optional,
    resets: _Optional,
    B: int,
    reverse: bool,
    wanted: list[bool],
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return what `_gradients` returns, with empty tensors for None."""
    gradients = _gradients(
        mode, dy, dh_n, dc_n, tape, x, w_ih, w_hh, w_hr, batch_sizes, resets, B, reverse, wanted
    )
    full: Any = tuple(x.new_empty(0) if g is None else g for g in gradients)
    return full


@recurrence_backward.register_fake
def _(mode, dy, dh_n, dc_n, tape, x, w_ih, w_hh, w_hr, batch_sizes, resets, B, reverse, wanted):
    shapes = _gradient_shapes(mode, x, w_ih, w_hh, w_hr, B, wanted)
    return tuple(x.new_empty(0 if shape is None else shape) for shape in shapes)


def is_plain(x: Tensor) -> bool:
    """Whether nobody but autograd wants to know what happens to this tensor."""
    return (
        not torch.compiler.is_compiling()
        and type(x) in (Tensor, torch.nn.Parameter)
        and torch._C._len_torch_dispatch_stack() == 0
    )


def _save(ctx, inputs, output):
    """Save what the backward pass needs."""
    ctx.mode, *tensors, ctx.B, ctx.reverse, _ = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*tensors, output[3])


def _differentiate(ctx, dy, dh_n, dc_n, _):
    """Return the gradients of the arguments of `recurrence`."""
    *tensors, batch_sizes, resets, tape = ctx.saved_tensors
    needed = [t is not None and n for t, n in zip(tensors, ctx.needs_input_grad[1:], strict=False)]
    rest = batch_sizes, resets, ctx.B, ctx.reverse
    if not CELLS[ctx.mode].has_c:
        dc_n = None
    if torch.is_grad_enabled():
        say_once("gradients of gradients")
        gradients = _pytorch_gradients(ctx.mode, tensors, rest, needed, (dy, dh_n, dc_n))
    else:
        x, _, _, w_ih, w_hh, w_hr, b_ih, _ = tensors
        wanted = [*needed[:3], needed[6] or needed[7]]
        backward = _gradients if is_plain(x) else recurrence_backward
        *gradients, db = backward(
            ctx.mode, dy, dh_n, dc_n, tape, x, w_ih, w_hh, w_hr, *rest, wanted
        )
        db_ih = db_hh = db
        if ctx.mode == "GRU" and wanted[3]:
            n = b_ih.shape[0]
            db_ih, db_hh = db[:n], torch.cat([db[: 2 * n // 3], db[n:]])
        gradients += [db_ih, db_hh]
    gradients = [g if n else None for g, n in zip(gradients, needed, strict=True)]
    return None, *gradients, None, None, None, None, None


recurrence.register_autograd(_differentiate, setup_context=_save)


class Recurrence(torch.autograd.Function):
    """`recurrence` and its gradient for the modules of this package."""

    @staticmethod
    def forward(ctx, *inputs):
        """Return what `recurrence` returns."""
        output = (_forward if is_plain(inputs[1]) else recurrence)(*inputs)
        _save(ctx, inputs, output)
        return output

    @staticmethod
    def backward(ctx, *gradients):
        """Return the gradients of all inputs."""
        return _differentiate(ctx, *gradients)


def run(*inputs):
    """Return what `recurrence` returns, by the shortest way."""
    if inputs[-1]:  # keep_tape
        return Recurrence.apply(*inputs)
    return (_forward if is_plain(inputs[1]) else recurrence)(*inputs)


def _pytorch_gradients(mode, tensors, rest, needed, output_gradients):
    """Return gradients that can be differentiated again."""
    tensors = [None if t is None else t.view_as(t) for t in tensors]  # one may depend on another
    outputs = _pytorch_recurrence(mode, *tensors, *rest)
    pairs = [pair for pair in zip(outputs, output_gradients, strict=False) if pair[1] is not None]
    of, weighted = zip(*pairs, strict=True)
    inputs = [t for t, n in zip(tensors, needed, strict=True) if n]
    found = iter(torch.autograd.grad(of, inputs, weighted, create_graph=True))
    return [next(found) if n else None for n in needed]


def _pytorch_recurrence(
    mode, x, h_0, c_0, w_ih, w_hh, w_hr, b_ih, b_hh, batch_sizes, resets, B, reverse
):
    """Return y, h_n and perhaps c_n of PyTorch's own, which has reverse only beside forward."""
    if resets is not None:
        weights = w_ih, w_hh, w_hr, b_ih, b_hh
        return _pytorch_episodes(mode, x, h_0, c_0, weights, batch_sizes, resets, B, reverse)
    H, R, D = w_hh.shape[0] // CELLS[mode].G, w_hh.shape[1], 2 if reverse else 1
    state = (x.new_zeros(B, R) if h_0 is None else h_0).expand(D, B, R)
    if CELLS[mode].has_c:
        state = state, (x.new_zeros(B, H) if c_0 is None else c_0).expand(D, B, H)
    weights = [w for w in (w_ih, w_hh, b_ih, b_hh, w_hr) if w is not None] * D
    options = b_ih is not None, 1, 0.0, False, reverse  # layers, dropout, training
    function = getattr(torch, mode.lower())
    if batch_sizes is None:
        y, *states = function(x, state, weights, *options, False)
    else:
        y, *states = function(x, batch_sizes, state, weights, *options)
    return y[..., -R:], *(s[-1] for s in states)


def _pytorch_episodes(mode, x, h_0, c_0, weights, batch_sizes, resets, B, reverse):
    """Return the same with resets, which PyTorch does not have: one step after the other."""
    lengths = lengths_of(batch_sizes, x.shape[0])
    restarts = torch.from_numpy(restarts_of(array_of(resets), lengths, reverse)).unsqueeze(-1)
    steps = x.unbind() if lengths is None else x.split(batch_sizes.tolist())
    y = list(steps)
    H, R = weights[0].shape[0] // CELLS[mode].G, weights[1].shape[1]
    states = [x.new_zeros(B, R) if h_0 is None else h_0]
    if CELLS[mode].has_c:
        states.append(x.new_zeros(B, H) if c_0 is None else c_0)
    for t in reversed(range(len(steps))) if reverse else range(len(steps)):
        n = len(steps[t])  # the rows that have this step
        before = [s[:n].masked_fill(restarts[t, :n], 0) for s in states]
        h, c = (*before, None)[:2]
        y_t, *after = _pytorch_recurrence(
            mode, steps[t][None], h, c, *weights, None, None, n, False
        )
        y[t] = y_t[0]
        states = [torch.cat([a, s[n:]]) for a, s in zip(after, states, strict=True)]
    return torch.stack(y) if lengths is None else torch.cat(y), *states
