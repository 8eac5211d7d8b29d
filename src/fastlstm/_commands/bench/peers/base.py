"""What a peer is, and fastlstm as one."""

import importlib
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

import fastlstm
from fastlstm import training
from fastlstm._args.cells import PLAIN
from fastlstm._args.numbers import COMPUTE_DTYPES
from fastlstm._commands.bench.measure import ADAM, KINDS, Call, Problem


class Peer:
    """A library under measurement. Subclasses override `prepare`, and `close` if they must."""

    name: ClassVar[str]  # of the module, the table's column and the command's option
    compute_dtypes: ClassVar[tuple[str | None, ...]] = (None,)
    needs: ClassVar[tuple[str, ...]] = ()  # other modules
    kinds: ClassVar[tuple[str, ...]] = KINDS
    dtypes: ClassVar[tuple[str, ...]] = ("float32", "float64")

    def __init__(self, threads: int):
        """Import the library and let it use this number of threads."""
        self.threads = threads
        self.module: Any = importlib.import_module(self.name.split("-")[0])
        for name in self.needs:
            importlib.import_module(name)

    @property
    def version(self) -> str:
        """Version of the library."""
        return str(self.module.__version__)

    def supports(self, problem: Problem) -> bool:
        """Return whether the library can do this."""
        return (
            problem.case.kind in self.kinds
            and problem.dtype.name in self.dtypes
            and problem.compute_dtype in self.compute_dtypes
        )

    def prepare(self, problem: Problem) -> Call:
        """Return the call to time.

        What it returns can be made NumPy arrays. Of `forward` the outputs; of `step` the new
        hidden state; of `train` and `ragged` the outputs and the gradients of x, w_ih, w_hh and b,
        that of the GRU in two parts, (3H,) and (H,); of `fit` the loss before the step and the
        parameters after it: w_ih, w_hh, b as there, w_out, b_out.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Undo what this object changed in its library."""


class Fastlstm(Peer):
    """The package itself."""

    name = "fastlstm"
    compute_dtypes: ClassVar[tuple[str | None, ...]] = (None, *COMPUTE_DTYPES)

    def __init__(self, threads: int):
        super().__init__(threads)
        self._before = fastlstm.get_num_threads()
        fastlstm.set_num_threads(threads)

    def prepare(self, problem: Problem) -> Call:
        kind, _, B, I, H, cell = problem.case
        layer = getattr(fastlstm, cell.upper())(
            I, H, dtype=problem.dtype, compute_dtype=self._compute_dtype(problem)
        )
        layer.params["weight_ih_l0"][...] = problem.w_ih
        layer.params["weight_hh_l0"][...] = problem.w_hh
        layer.params["bias_l0"][...] = problem.b
        x, dy, lengths = problem.x, problem.dy, problem.lengths

        def forward() -> Sequence[Any]:
            return (layer(x)[0],)

        def train() -> Sequence[Any]:
            y, _, tape = layer.forward(x, lengths=lengths)
            gradients = layer.backward(tape, dy)
            return y, gradients.x, *_parts(gradients.params, problem)

        if kind == "step":
            stream, x_t, out = layer.stream(B), x[0], np.empty((B, H), problem.dtype)
            return lambda: (stream.step(x_t, out),)
        if kind == "fit":
            return _fit(layer, problem)
        return train if problem.trains else forward

    def _compute_dtype(self, problem: Problem) -> str | None:
        return problem.compute_dtype

    def close(self) -> None:
        fastlstm.set_num_threads(self._before)


class Unrounded(Fastlstm):
    """The package itself in float32, where the others compute in less."""

    name = "fastlstm-f32"
    dtypes = ("float32",)
    compute_dtypes: ClassVar[tuple[str | None, ...]] = COMPUTE_DTYPES

    def _compute_dtype(self, problem: Problem) -> None:
        return None


def _parts(params: dict[str, NDArray[Any]], problem: Problem) -> list[NDArray[Any]]:
    """Return w_ih, w_hh and b, that of the GRU in two parts."""
    w_ih, w_hh, b = params.values()
    n = len(problem.w_ih)
    return [w_ih, w_hh, b[:n], b[n:]] if len(b) > n else [w_ih, w_hh, b]


def _fit(layer: Any, problem: Problem) -> Call:
    linear = training.Linear(problem.case.H, 1, dtype=problem.dtype)
    linear.params["weight"][...] = problem.w_out
    linear.params["bias"][...] = problem.b_out
    adam = training.Adam([layer, linear], **ADAM)
    parameters = *_parts(layer.params, problem), *linear.params.values()
    has_c = PLAIN[problem.case.cell].has_c

    def fit() -> Sequence[Any]:
        _, state, tape = layer.forward(problem.x)
        h_n = state[0] if has_c else state
        prediction, linear_tape = linear.forward(h_n[0])
        loss, dprediction = training.mse_loss(prediction, problem.target)
        dlinear = linear.backward(linear_tape, dprediction)
        dh_n = dlinear.x[np.newaxis]
        gradients = layer.backward(
            tape, dstate=(dh_n, None) if has_c else dh_n, input_gradient=False
        )
        adam.step([gradients, dlinear])
        return loss, *parameters

    return fit
