"""JAX as a peer."""

import importlib
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from fastlstm._commands.bench.measure import Call, Problem
from fastlstm._commands.bench.peers.base import Peer


class JAX(Peer):
    """JAX, by a compiled scan over time; ragged batches are masked."""

    name = "jax"
    kinds = ("forward", "train", "ragged", "step")

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
        jnp = jax.numpy
        _, T, B, _, H, cell = problem.case
        x, dy = jnp.asarray(problem.x), jnp.asarray(problem.dy)
        GH = len(problem.w_ih)
        arrays = (problem.w_ih, problem.w_hh, problem.b[:GH], problem.b[GH:])
        weights = tuple(jnp.asarray(array) for array in arrays if array.size)
        ends = None if problem.lengths is None else jnp.asarray(problem.lengths)[:, np.newaxis]
        zeros = (jnp.zeros((B, H), problem.dtype),) * (2 if cell == "lstm" else 1)
        next_state = getattr(self, f"_{cell}")
        # whichever measures faster: one product with all inputs, or one in every step
        at_once = problem.trains or B == 1

        def run(x: Any, weights: Any, state: Any) -> Any:
            w_ih, w_hh, b, *b_n = weights

            def step(state: Any, inputs: Any) -> Any:
                t, z = inputs
                if not at_once:
                    z = z @ w_ih.T + b
                new = next_state(z, state[0] @ w_hh.T, state, *b_n)
                if ends is None:
                    return new, new[0]
                kept = tuple(jnp.where(t < ends, *pair) for pair in zip(new, state, strict=True))
                return kept, jnp.where(t < ends, new[0], 0)

            z = x @ w_ih.T + b if at_once else x
            return jax.lax.scan(step, state, (jnp.arange(T), z))

        @jax.jit
        def gradients(x: Any, weights: Any, dy: Any) -> Any:
            y, backward = jax.vjp(lambda x, weights: run(x, weights, zeros)[1], x, weights)
            dx, dweights = backward(dy)
            return y, dx, *dweights

        sequence = jax.jit(lambda x, state: run(x, weights, state))  # weights as constants
        state = zeros

        def forward() -> Sequence[Any]:
            return (jax.block_until_ready(sequence(x, state)[1]),)

        def step() -> Sequence[Any]:
            nonlocal state
            state, _ = jax.block_until_ready(sequence(x, state))
            return (state[0],)

        def train() -> Sequence[Any]:
            return (*jax.block_until_ready(gradients(x, weights, dy)),)

        if problem.trains:
            return train
        return step if problem.case.kind == "step" else forward

    # the state after a step, given the products of x and b and of h, and the state before

    def _lstm(self, zx: Any, zh: Any, state: Any) -> Any:
        jnp, sigmoid = self.module.numpy, self.module.nn.sigmoid
        i, f, g, o = jnp.split(zx + zh, 4, axis=1)
        c = sigmoid(f) * state[1] + sigmoid(i) * jnp.tanh(g)
        return sigmoid(o) * jnp.tanh(c), c

    def _gru(self, zx: Any, zh: Any, state: Any, b_n: Any) -> Any:
        jnp, sigmoid = self.module.numpy, self.module.nn.sigmoid
        (xr, xz, xn), (hr, hz, hn) = jnp.split(zx, 3, axis=1), jnp.split(zh, 3, axis=1)
        z = sigmoid(xz + hz)
        n = jnp.tanh(xn + sigmoid(xr + hr) * (hn + b_n))
        return ((1 - z) * n + z * state[0],)

    def _rnn(self, zx: Any, zh: Any, state: Any) -> Any:
        return (self.module.numpy.tanh(zx + zh),)

    def close(self) -> None:
        if self._before is None:
            del os.environ["PJRT_NPROC"]
        else:
            os.environ["PJRT_NPROC"] = self._before
        self.module.config.update("jax_enable_x64", self._x64)
        self._restart()
