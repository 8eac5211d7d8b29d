"""The libraries that `fastlstm bench` compares with.

Decisions:
a) A peer is a class with a method `prepare`, and a place in `PEERS`. It is imported only when it is
   asked for. fastlstm itself is one of them, so that all are called in the same way.
b) Each does what its users would do: weights are handed over once, outside of what is timed; states
   and results stay in the library's own arrays.
c) What a peer changes in its library (number of threads, mostly) it puts back in `close`.
"""

import contextlib
import importlib
import os
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

import fastlstm
from fastlstm._measure import KINDS, Call, Problem


class Peer:
    """A library under measurement. Subclasses override `prepare`, and `close` if they must."""

    name: ClassVar[str]  # of the module, the table's column and the command's option
    needs: ClassVar[tuple[str, ...]] = ()  # other modules
    kinds: ClassVar[tuple[str, ...]] = KINDS
    dtypes: ClassVar[tuple[str, ...]] = ("float32", "float64")

    def __init__(self, threads: int):
        """Import the library and let it use this number of threads."""
        self.threads = threads
        self.module: Any = importlib.import_module(self.name)
        for name in self.needs:
            importlib.import_module(name)

    @property
    def version(self) -> str:
        """Version of the library."""
        return self.module.__version__

    def supports(self, problem: Problem) -> bool:
        """Return whether the library can do this."""
        return problem.case.kind in self.kinds and problem.dtype.name in self.dtypes

    def prepare(self, problem: Problem) -> Call:
        """Return the call to time.

        What it returns can be made NumPy arrays: of `forward` the outputs, of `step` the new
        hidden state, else the outputs and the gradients of x, w_ih, w_hh and b.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Undo what this object changed in its library."""


class Fastlstm(Peer):
    """The package itself."""

    name = "fastlstm"

    def __init__(self, threads: int):
        super().__init__(threads)
        self._before = fastlstm.get_num_threads()
        fastlstm.set_num_threads(threads)

    def prepare(self, problem: Problem) -> Call:
        _, _, B, I, H = problem.case
        lstm = fastlstm.LSTM(I, H, dtype=problem.dtype)
        lstm.params["weight_ih_l0"][...] = problem.w_ih
        lstm.params["weight_hh_l0"][...] = problem.w_hh
        lstm.params["bias_l0"][...] = problem.b
        x, dy, lengths = problem.x, problem.dy, problem.lengths
        if problem.case.kind == "step":
            stream, x_t, out = lstm.stream(B), x[0], np.empty((B, H), problem.dtype)
            return lambda: (stream.step(x_t, out),)

        def forward() -> Sequence[Any]:
            return (lstm(x)[0],)

        def train() -> Sequence[Any]:
            y, _, tape = lstm.forward(x, lengths=lengths)
            gradients = lstm.backward(tape, dy)
            return y, gradients.x, *gradients.params.values()

        return train if problem.trains else forward

    def close(self) -> None:
        fastlstm.set_num_threads(self._before)


class Torch(Peer):
    """PyTorch, by torch.nn.LSTM; ragged batches are packed sequences."""

    name = "torch"

    def __init__(self, threads: int):
        super().__init__(threads)
        self._before = self.module.get_num_threads()
        self.module.set_num_threads(threads)

    def prepare(self, problem: Problem) -> Call:
        torch = self.module
        lstm = torch.nn.LSTM(
            problem.case.I, problem.case.H, dtype=getattr(torch, problem.dtype.name)
        )
        with torch.no_grad():
            lstm.weight_ih_l0.copy_(torch.from_numpy(problem.w_ih))
            lstm.weight_hh_l0.copy_(torch.from_numpy(problem.w_hh))
            lstm.bias_ih_l0.copy_(torch.from_numpy(problem.b))
            lstm.bias_hh_l0.zero_()
        x, dy = torch.from_numpy(problem.x), torch.from_numpy(problem.dy)
        rnn = torch.nn.utils.rnn
        state = None

        @torch.inference_mode()
        def forward() -> Sequence[Any]:
            return (lstm(x)[0],)

        @torch.inference_mode()
        def step() -> Sequence[Any]:
            nonlocal state
            y, state = lstm(x, state)
            return (y,)

        def train() -> Sequence[Any]:
            lstm.zero_grad()
            x.grad = None
            if problem.lengths is None:
                y, _ = lstm(x)
            else:
                packed = rnn.pack_padded_sequence(x, lengths, enforce_sorted=False)
                y, _ = rnn.pad_packed_sequence(lstm(packed)[0], total_length=len(x))
            y.backward(dy)
            weights = (lstm.weight_ih_l0, lstm.weight_hh_l0, lstm.bias_ih_l0)
            return y.detach(), x.grad, *(weight.grad for weight in weights)

        if problem.trains:
            x.requires_grad_(True)
            if problem.lengths is not None:
                lengths = torch.from_numpy(problem.lengths)
            return train
        return step if problem.case.kind == "step" else forward

    def close(self) -> None:
        self.module.set_num_threads(self._before)


def onnx_model(problem: Problem) -> bytes:
    """Return an ONNX model of inputs x, h_0, c_0 and outputs y, h_n, c_n with fixed sizes."""
    onnx: Any = importlib.import_module("onnx")
    _, T, B, I, H = problem.case
    state = [1, B, H]

    def value(name: str, shape: list[int]) -> Any:
        return onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)

    def weight(name: str, array: NDArray) -> Any:
        iofg = array.reshape(4, H, -1)[[0, 3, 1, 2]]  # the order of the gates in ONNX
        return onnx.numpy_helper.from_array(iofg.reshape(1, 4 * H, -1), name)

    biases = np.concatenate([problem.b.reshape(4, H)[[0, 3, 1, 2]].ravel(), np.zeros(4 * H)])
    graph = onnx.helper.make_graph(
        [
            onnx.helper.make_node(
                "LSTM",
                ["x", "w", "r", "b", "", "h_0", "c_0"],
                ["y", "h_n", "c_n"],
                hidden_size=H,
            )
        ],
        "lstm",
        [value("x", [T, B, I]), value("h_0", state), value("c_0", state)],
        [value("y", [T, 1, B, H]), value("h_n", state), value("c_n", state)],
        [
            weight("w", problem.w_ih),
            weight("r", problem.w_hh),
            onnx.numpy_helper.from_array(biases.astype(problem.dtype)[np.newaxis], "b"),
        ],
    )
    opset = [onnx.helper.make_opsetid("", 17)]
    return onnx.helper.make_model(graph, opset_imports=opset, ir_version=9).SerializeToString()


class ONNXRuntime(Peer):
    """ONNX Runtime, by the operator LSTM."""

    name = "onnxruntime"
    needs = ("onnx",)
    kinds = ("forward", "step")
    dtypes = ("float32",)

    def prepare(self, problem: Problem) -> Call:
        options = self.module.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        session = self.module.InferenceSession(
            onnx_model(problem), options, providers=["CPUExecutionProvider"]
        )
        zeros = np.zeros((1, problem.case.B, problem.case.H), problem.dtype)
        feed = {"x": problem.x, "h_0": zeros, "c_0": zeros}

        def forward() -> Sequence[Any]:
            return session.run(None, feed)[:1]

        def step() -> Sequence[Any]:
            feed["h_0"], feed["c_0"] = session.run(["h_n", "c_n"], feed)
            return (feed["h_0"],)

        return step if problem.case.kind == "step" else forward


class OpenVINO(Peer):
    """OpenVINO, which reads the same ONNX model."""

    name = "openvino"
    needs = ("onnx",)
    kinds = ("forward", "step")
    dtypes = ("float32",)

    def prepare(self, problem: Problem) -> Call:
        openvino = self.module
        core = openvino.Core()
        model = core.compile_model(
            core.read_model(onnx_model(problem), b""),
            "CPU",
            {
                "INFERENCE_NUM_THREADS": self.threads,
                "NUM_STREAMS": 1,
                "PERFORMANCE_HINT": "LATENCY",
                "INFERENCE_PRECISION_HINT": "f32",
                "ENABLE_CPU_PINNING": False,  # pinned, it loses most when other work is about
            },
        )
        zeros = np.zeros((1, problem.case.B, problem.case.H), problem.dtype)
        request = model.create_infer_request()
        for name, array in {"x": problem.x, "h_0": zeros, "c_0": zeros.copy()}.items():
            request.set_tensor(name, openvino.Tensor(array))
        h, c, h_n, c_n, y = map(request.get_tensor, ("h_0", "c_0", "h_n", "c_n", "y"))

        def forward() -> Sequence[Any]:
            request.infer()
            return (y.data,)

        def step() -> Sequence[Any]:
            request.infer()
            h.data[...] = h_n.data
            c.data[...] = c_n.data
            return (h_n.data,)

        return step if problem.case.kind == "step" else forward


class JAX(Peer):
    """JAX, by a compiled scan over time; ragged batches are masked."""

    name = "jax"

    def __init__(self, threads: int):
        super().__init__(threads)
        self._before = os.environ.get("PJRT_NPROC")
        os.environ["PJRT_NPROC"] = str(threads)  # read when JAX starts its threads
        self._restart()
        self._x64 = self.module.config.jax_enable_x64
        self.module.config.update("jax_enable_x64", True)

    def _restart(self) -> None:
        importlib.import_module("jax.extend.backend").clear_backends()

    def prepare(self, problem: Problem) -> Call:
        jax = self.module
        jnp, sigmoid = jax.numpy, jax.nn.sigmoid
        _, T, B, _, H = problem.case
        x, dy = jnp.asarray(problem.x), jnp.asarray(problem.dy)
        weights = tuple(map(jnp.asarray, (problem.w_ih, problem.w_hh, problem.b)))
        ends = None if problem.lengths is None else jnp.asarray(problem.lengths)[:, np.newaxis]
        zeros = jnp.zeros((B, H), problem.dtype)
        # whichever measures faster: one product with all inputs, or one in every step
        at_once = problem.trains or B == 1

        def run(x: Any, weights: Any, state: Any) -> Any:
            w_ih, w_hh, b = weights

            def step(state: Any, inputs: Any) -> Any:
                t, z = inputs
                if not at_once:
                    z = z @ w_ih.T + b
                i, f, g, o = jnp.split(z + state[0] @ w_hh.T, 4, axis=1)
                c = sigmoid(f) * state[1] + sigmoid(i) * jnp.tanh(g)
                h = sigmoid(o) * jnp.tanh(c)
                if ends is None:
                    return (h, c), h
                new = jnp.where(t < ends, h, state[0]), jnp.where(t < ends, c, state[1])
                return new, jnp.where(t < ends, h, 0)

            z = x @ w_ih.T + b if at_once else x
            return jax.lax.scan(step, state, (jnp.arange(T), z))

        @jax.jit
        def gradients(x: Any, weights: Any, dy: Any) -> Any:
            y, backward = jax.vjp(lambda x, weights: run(x, weights, (zeros, zeros))[1], x, weights)
            dx, dweights = backward(dy)
            return y, dx, *dweights

        sequence = jax.jit(lambda x, state: run(x, weights, state))  # weights as constants
        state = zeros, zeros

        def forward() -> Sequence[Any]:
            return jax.block_until_ready((sequence(x, state)[1],))

        def step() -> Sequence[Any]:
            nonlocal state
            state, _ = jax.block_until_ready(sequence(x, state))
            return state[:1]

        def train() -> Sequence[Any]:
            return jax.block_until_ready(gradients(x, weights, dy))

        if problem.trains:
            return train
        return step if problem.case.kind == "step" else forward

    def close(self) -> None:
        if self._before is None:
            del os.environ["PJRT_NPROC"]
        else:
            os.environ["PJRT_NPROC"] = self._before
        self.module.config.update("jax_enable_x64", self._x64)
        self._restart()


PEERS: dict[str, type[Peer]] = {peer.name: peer for peer in (Torch, ONNXRuntime, OpenVINO, JAX)}


@contextlib.contextmanager
def opened(names: Sequence[str], threads: int) -> Iterator[tuple[list[Peer], dict[str, str]]]:
    """Open fastlstm and the peers of these names; also give why some could not be imported."""
    skipped = {}
    with contextlib.ExitStack() as stack:
        libraries: list[Peer] = [stack.enter_context(contextlib.closing(Fastlstm(threads)))]
        for name in names:
            try:
                libraries.append(stack.enter_context(contextlib.closing(PEERS[name](threads))))
            except ImportError as error:
                skipped[name] = str(error)
        yield libraries, skipped
