"""The libraries that `fastlstm bench` compares with, and how they are compared.

Decisions:
a) A peer is a class with a method `prepare`, and a place in `PEERS`. It is imported only when it is
   asked for. fastlstm itself is one of them, so that all are called in the same way.
b) Each does what its users would do: weights are handed over once, outside of what is timed; states
   and results stay in the library's own arrays.
c) Before anything is timed, results must agree with those of fastlstm.
d) Calls take turns, since the machine's speed changes from one second to the next.
"""

import contextlib
import importlib
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

import fastlstm

Call = Callable[[], Sequence[Any]]

KINDS = ("forward", "train", "ragged", "step")

# relative to the largest element; gradients are sums over all rows and steps
TOLERANCE = {np.dtype(np.float32): 2e-4, np.dtype(np.float64): 1e-9}


class Case(NamedTuple):
    """What is measured: a kind of call, and the sizes.

    ``forward`` is inference on whole sequences. ``train`` is forward and backward, with the
    gradients of the input and of all parameters; ``ragged`` the same on sequences of different
    lengths. ``step`` is one time step that takes up the state of the one before.
    """

    kind: str
    T: int
    B: int
    I: int
    H: int

    def __str__(self) -> str:
        return f"{self.kind} {self.T},{self.B},{self.I},{self.H}"


class Problem:
    """The arrays of a case, the same at each call.

    Attributes
    ----------
    x : (T, B, I) array
    w_ih, w_hh, b : arrays
        (4H, I), (4H, H) and (4H,), in the order of `fastlstm.lstm_forward`.
    dy : (T, B, H) array
        Gradient of the loss with respect to the outputs, 0 past a sequence's end.
    lengths : (B,) integers in [1, T], or None
    """

    def __init__(self, case: Case, dtype: DTypeLike = np.float32):
        self.case = case
        self.dtype = np.dtype(dtype)
        kind, T, B, I, H = case
        rng = np.random.default_rng(0)

        def uniform(*shape: int) -> NDArray:
            return rng.uniform(-1, 1, shape).astype(self.dtype)

        scale = self.dtype.type(H**-0.5)
        self.x, self.dy = uniform(T, B, I), uniform(T, B, H)
        self.w_ih, self.w_hh, self.b = (
            scale * uniform(4 * H, I),
            scale * uniform(4 * H, H),
            scale * uniform(4 * H),
        )
        self.lengths = rng.integers(1, T + 1, B) if kind == "ragged" else None
        if self.lengths is not None:
            self.dy[np.arange(T)[:, np.newaxis] >= self.lengths] = 0

    @property
    def trains(self) -> bool:
        """Whether there is a backward pass."""
        return self.case.kind in ("train", "ragged")

    @property
    def operations(self) -> int:
        """Multiplications and additions of the matrix products.

        The backward pass has two products where the forward pass has one.
        """
        _, T, B, I, H = self.case
        rows = T * B if self.lengths is None else int(self.lengths.sum())
        return 2 * rows * 4 * H * (I + H) * (3 if self.trains else 1)


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
    """This package."""

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
        self._before = os.environ.get("PJRT_NPROC")
        os.environ["PJRT_NPROC"] = str(threads)  # read when JAX starts its threads
        super().__init__(threads)
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

        def run(x: Any, weights: Any, state: Any) -> Any:
            w_ih, w_hh, b = weights

            def step(state: Any, inputs: Any) -> Any:
                t, z = inputs
                i, f, g, o = jnp.split(z + state[0] @ w_hh.T, 4, axis=1)
                c = sigmoid(f) * state[1] + sigmoid(i) * jnp.tanh(g)
                h = sigmoid(o) * jnp.tanh(c)
                if ends is None:
                    return (h, c), h
                new = jnp.where(t < ends, h, state[0]), jnp.where(t < ends, c, state[1])
                return new, jnp.where(t < ends, h, 0)

            return jax.lax.scan(step, state, (jnp.arange(T), x @ w_ih.T + b))

        @jax.jit
        def gradients(x: Any, weights: Any, dy: Any) -> Any:
            y, backward = jax.vjp(lambda *a: run(*a, (zeros, zeros))[1], x, weights)
            dx, dweights = backward(dy)
            return y, dx, *dweights

        run = jax.jit(run)
        state = zeros, zeros

        def forward() -> Sequence[Any]:
            return jax.block_until_ready((run(x, weights, state)[1],))

        def step() -> Sequence[Any]:
            nonlocal state
            state, _ = jax.block_until_ready(run(x, weights, state))
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


def check_equal(calls: dict[str, Call], problem: Problem) -> None:
    """Run each call once (steps three times) and compare with the call of fastlstm.

    Raises
    ------
    RuntimeError
        If a result differs; the message names the library.
    """
    times = 3 if problem.case.kind == "step" else 1
    results = {
        name: [[np.array(a) for a in call()] for _ in range(times)] for name, call in calls.items()
    }
    tolerance = TOLERANCE[problem.dtype]
    expected = results.pop(Fastlstm.name)
    for name, result in results.items():
        for theirs, ours in zip(sum(result, []), sum(expected, []), strict=True):
            difference = np.abs(theirs.reshape(ours.shape) - ours).max()
            if not difference <= tolerance * max(1, np.abs(ours).max()):
                raise RuntimeError(
                    f"{name}: {problem.case} differs from fastlstm by {difference:.1e}"
                )


def median_times(calls: dict[str, Call], rounds: int) -> dict[str, float]:
    """Return the median time of each call in seconds; the calls take turns.

    Each round repeats a call for about 10 ms. Before it, a pause lets the threads of the library
    before go to sleep (several spin for some milliseconds), and one call is not counted.
    """
    repeats = {}
    for name, call in calls.items():
        call()
        repeats[name] = max(1, int(0.01 / seconds(call)))
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            time.sleep(0.01)
            if repeats[name] > 1:
                call()
            times[name].append(seconds(call, repeats[name]))
    return {name: statistics.median(each) for name, each in times.items()}


def seconds(call: Callable[[], Any], repeats: int = 1) -> float:
    """Return the time of one call."""
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - start) / repeats
