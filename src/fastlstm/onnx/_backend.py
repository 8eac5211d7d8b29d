"""The backend: ONNX's reference evaluator, with LSTM, GRU and RNN replaced by the compiled core."""

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import numpy as np
import onnx
from numpy.typing import ArrayLike, NDArray
from onnx.backend.base import Backend as BackendBase
from onnx.backend.base import BackendRep
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from fastlstm._args.cells import PLAIN
from fastlstm.functional import gru_forward, lstm_forward, rnn_forward
from fastlstm.onnx._graph import naming
from fastlstm.onnx._node import check_weights, read_node, read_weights
from fastlstm.onnx._tensors import Budget, read_tensor

FORWARD: dict[str, Any] = {"LSTM": lstm_forward, "GRU": gru_forward, "RNN": rnn_forward}


class _Recurrent(OpRun):
    """A recurrent operator; the name of the class is that of the operator."""

    def run(self, *inputs: Any, **attributes: Any) -> Any:
        """Run the node; what is raised begins with its name, if it has one."""
        with naming(self.onnx_node) if self.onnx_node.name else nullcontext():
            return super().run(*inputs, **attributes)

    def _run(
        self,
        X: NDArray[Any],
        W: NDArray[Any],
        R: NDArray[Any],
        B: NDArray[Any] | None = None,
        sequence_lens: NDArray[Any] | None = None,
        initial_h: NDArray[Any] | None = None,
        initial_c: NDArray[Any] | None = None,
        P: NDArray[Any] | None = None,
        **attributes: Any,
    ) -> tuple[NDArray[Any], ...]:
        node = read_node(type(self).__name__, attributes)
        weights = check_weights(node, W, R, B, P)
        states_given = {"h_0": initial_h, "c_0": initial_c}
        initial = {name: state for name, state in states_given.items() if state is not None}
        if node.batch_first:
            X = X.swapaxes(0, 1)
            initial = {name: state.swapaxes(0, 1) for name, state in initial.items()}
        outputs = [
            FORWARD[node.kind](
                X,
                **read_weights(node, weights, d),
                **{name: state[d] for name, state in initial.items()},
                **node.options[d],
                lengths=sequence_lens,
                reverse=reverse,
            )
            for d, reverse in enumerate(node.reverse)
        ]
        y, *states = (
            np.stack([output[k] for output in outputs], axis=1 if k == 0 else 0)
            for k in range(1 + len(PLAIN[node.kind.lower()].states))
        )
        if node.batch_first:
            y = y.transpose(2, 0, 1, 3)  # from (T, D, B, H)
            states = [state.swapaxes(0, 1) for state in states]
        return (y, *states)[: len(self.onnx_node.output)]


class LSTM(_Recurrent):
    """ONNX's operator LSTM."""


class GRU(_Recurrent):
    """ONNX's operator GRU."""


class RNN(_Recurrent):
    """ONNX's operator RNN."""


class PreparedModel(BackendRep):
    """A model ready to run, as `Backend.prepare` returns it."""

    def __init__(self, model: onnx.ModelProto):
        named = onnx.ModelProto()
        named.CopyFrom(model)
        for n, node in enumerate(named.graph.node):
            node.name = node.name or " ".join(node.output[:1])
            # ReferenceEvaluator (1.23) keeps an output without a name under "", where later nodes
            # find it in place of an input that is not given
            for k, name in enumerate(node.output):
                node.output[k] = name or f"unused output {k} of node {n}"
        self._evaluator = ReferenceEvaluator(named, new_ops=[LSTM, GRU, RNN])
        initialized = {tensor.name for tensor in named.graph.initializer}
        self._inputs = [i.name for i in named.graph.input if i.name not in initialized]

    def run(
        self, inputs: Mapping[str, ArrayLike] | list[ArrayLike] | tuple[ArrayLike, ...], **_: Any
    ) -> tuple[Any, ...]:
        """Return the model's outputs.

        Parameters
        ----------
        inputs : dict of arrays by name, or sequence of arrays
            The model's inputs; in a sequence those that have no default, in the model's order.

        Raises
        ------
        ValueError, TypeError
            If an input does not fit.
        """
        if not isinstance(inputs, Mapping):
            if len(inputs) != len(self._inputs):
                raise ValueError(
                    f"inputs: expected {len(self._inputs)} ({', '.join(self._inputs)}), "
                    f"got {len(inputs)}"
                )
            inputs = dict(zip(self._inputs, inputs, strict=True))
        return tuple(self._evaluator.run(None, dict(inputs)))


class Backend(BackendBase):
    """Runs ONNX models (``onnx.backend.base``) with the recurrent nodes in the compiled core.

    Every other node is run by ONNX's reference evaluator, in NumPy: the backend is for testing and
    for whole small models. It does what a model says, however much that is; `load` is for models
    that are not trusted. For speed, too, `load` the recurrent part as a layer, which keeps its
    packed weights between calls.

    Examples
    --------
    >>> import numpy as np
    >>> from onnx import helper
    >>> import fastlstm.onnx
    >>> node = helper.make_node("RNN", ["x", "w", "r"], ["y", "h"], hidden_size=1)
    >>> x, w, r = np.ones((2, 1, 1)), np.ones((1, 1, 1)), np.zeros((1, 1, 1))
    >>> y, h = fastlstm.onnx.Backend.run_node(node, [x, w, r])
    >>> np.allclose(y, np.tanh(1))
    True
    """

    @classmethod
    def prepare(cls, model: onnx.ModelProto, device: str = "CPU", **kwargs: Any) -> PreparedModel:
        """Check a model and return it ready to run.

        Raises
        ------
        onnx.checker.ValidationError
            If the model is malformed.
        ValueError
            If one of its initializers is, or has its data elsewhere.
        """
        super().prepare(model, device, **kwargs)
        budget = Budget()
        budget.grant("", model.ByteSize())
        for tensor in model.graph.initializer:
            read_tensor(tensor, budget)
        return PreparedModel(model)

    @classmethod
    def run_node(
        cls,
        node: onnx.NodeProto,
        inputs: Any,
        device: str = "CPU",
        outputs_info: Any = None,
        **kwargs: Any,
    ) -> tuple[Any, ...]:
        """Run one node on a sequence of inputs, one for each name that is not empty."""
        super().run_node(node, inputs, device, outputs_info, **kwargs)
        names = [name for name in node.input if name]
        if len(inputs) != len(names):
            raise ValueError(f"inputs: expected {len(names)}, got {len(inputs)}")
        evaluator = ReferenceEvaluator(node, new_ops=[LSTM, GRU, RNN])
        return tuple(evaluator.run(None, dict(zip(names, inputs, strict=True))))

    @classmethod
    def supports_device(cls, device: str) -> bool:
        """Return whether `device` is the CPU."""
        return device.split(":")[0] == "CPU"
