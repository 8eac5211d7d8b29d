"""PyTorch as a peer, and `fastlstm.torch`, which is used in the same way."""

import importlib
import warnings
from collections.abc import Sequence
from typing import Any, ClassVar

import fastlstm
from fastlstm._args.cells import PLAIN, split_bias
from fastlstm._args.numbers import COMPUTE_DTYPES
from fastlstm._commands.bench.measure import ADAM, Call, Problem
from fastlstm._commands.bench.peers.base import Peer


class Torch(Peer):
    """PyTorch, by torch.nn.LSTM, GRU and RNN; ragged batches are packed sequences.

    In bfloat16 modules and tensors are; in int8 modules are what `quantize_dynamic` makes of them.
    """

    name = "torch"
    compute_dtypes: ClassVar[tuple[str | None, ...]] = (None, *COMPUTE_DTYPES)

    def __init__(self, threads: int):
        super().__init__(threads)
        self.torch: Any = importlib.import_module("torch")
        self._before = self.torch.get_num_threads()
        self.torch.set_num_threads(threads)

    def supports(self, problem: Problem) -> bool:
        """Return whether the library can do this; int8 is for inference, and not of the RNN."""
        if problem.compute_dtype == "bfloat16" and problem.case.kind == "fit":
            return False  # its Adam would step in bfloat16
        return super().supports(problem) and not (
            problem.compute_dtype == "int8" and (problem.trains or problem.case.cell == "rnn")
        )

    @property
    def _layers(self) -> Any:
        """What has LSTM, GRU and RNN."""
        return self.torch.nn

    def prepare(self, problem: Problem) -> Call:
        torch = self.torch
        layer = self._layer(problem)
        weights = list(layer.parameters())
        x, dy = (torch.from_numpy(a).to(self._dtype(problem)) for a in (problem.x, problem.dy))
        rnn = torch.nn.utils.rnn
        state = None

        @torch.inference_mode()
        def forward() -> Sequence[Any]:
            return (layer(x)[0],)

        @torch.inference_mode()
        def step() -> Sequence[Any]:
            nonlocal state
            y, state = layer(x, state)
            return (y,)

        def train() -> Sequence[Any]:
            layer.zero_grad()
            x.grad = None
            if problem.lengths is None:
                y, _ = layer(x)
            else:
                packed = rnn.pack_padded_sequence(x, lengths, enforce_sorted=False)
                y, _ = rnn.pad_packed_sequence(layer(packed)[0], total_length=len(x))
            y.backward(dy)
            return y.detach(), x.grad, *_parts([weight.grad for weight in weights], problem)

        if problem.case.kind == "fit":
            return self._fit(layer, problem)
        if problem.trains:
            x.requires_grad_(True)
            if problem.lengths is not None:
                lengths = torch.from_numpy(problem.lengths)
            return train
        call: Call = step if problem.case.kind == "step" else forward
        return call

    def _layer(self, problem: Problem) -> Any:
        torch = self.torch
        _, _, _, I, H, cell = problem.case
        layer = getattr(self._layers, cell.upper())(I, H, dtype=self._dtype(problem))
        b_ih, b_hh = split_bias(PLAIN[cell], problem.b)
        with torch.no_grad():
            layer.weight_ih_l0.copy_(torch.from_numpy(problem.w_ih))
            layer.weight_hh_l0.copy_(torch.from_numpy(problem.w_hh))
            layer.bias_ih_l0.copy_(torch.from_numpy(b_ih))
            layer.bias_hh_l0.copy_(torch.from_numpy(b_hh))
        if problem.compute_dtype == "int8":
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that it will leave PyTorch
                return torch.ao.quantization.quantize_dynamic(
                    torch.nn.Sequential(layer), {type(layer)}
                )[0]
        return layer

    def _dtype(self, problem: Problem) -> Any:
        bfloat16 = problem.compute_dtype == "bfloat16"
        return self.torch.bfloat16 if bfloat16 else getattr(self.torch, problem.dtype.name)

    def _fit(self, layer: Any, problem: Problem) -> Call:
        torch = self.torch
        _, _, _, _, H, cell = problem.case
        linear = torch.nn.Linear(H, 1, dtype=layer.weight_ih_l0.dtype)
        with torch.no_grad():
            linear.weight.copy_(torch.from_numpy(problem.w_out))
            linear.bias.copy_(torch.from_numpy(problem.b_out))
        # two biases where one would do: both would take Adam's step, twice ours
        if cell == "gru":
            only_n = torch.zeros_like(layer.bias_hh_l0)
            only_n[2 * H :] = 1
            layer.bias_hh_l0.register_hook(lambda gradient: gradient * only_n)
        else:
            layer.bias_hh_l0.requires_grad_(False)
        model = torch.nn.ModuleList([layer, linear])
        adam = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], **ADAM)
        mse_loss = torch.nn.MSELoss()
        x, target = (
            torch.from_numpy(a).to(self._dtype(problem)) for a in (problem.x, problem.target)
        )
        w_ih, w_hh, b_ih, b_hh, w_out, b_out = (p.detach() for p in model.parameters())
        parameters = *_parts([w_ih, w_hh, b_ih, b_hh], problem), w_out, b_out

        def fit() -> Sequence[Any]:
            y, _ = layer(x)
            loss = mse_loss(linear(y[-1]), target)
            adam.zero_grad()
            loss.backward()
            adam.step()
            return loss.detach(), *parameters

        return fit

    def close(self) -> None:
        self.torch.set_num_threads(self._before)


class FastlstmTorch(Torch):
    """The modules of this package in PyTorch's place: what they cost beside plain arrays."""

    name = "fastlstm.torch"
    compute_dtypes: ClassVar[tuple[str | None, ...]] = (None,)

    @property
    def _layers(self) -> Any:
        return self.module

    @property
    def version(self) -> str:
        """Version of the package."""
        return fastlstm.__version__


def _parts(tensors: Sequence[Any], problem: Problem) -> list[Any]:
    """Return w_ih, w_hh and b; of the GRU's second bias what is not in the first."""
    w_ih, w_hh, b_ih, b_hh = tensors
    inner = [b_hh[2 * problem.case.H :]] if problem.case.cell == "gru" else []
    return [w_ih, w_hh, b_ih, *inner]
