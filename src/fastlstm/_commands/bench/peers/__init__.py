"""The libraries that `fastlstm bench` compares with.

Decisions:
a) A peer is a class with a method `prepare`, and a place in `PEERS`. It is imported only when it is
   asked for. fastlstm itself is one of them, so that all are called in the same way.
b) Each does what its users would do: weights are handed over once, outside of what is timed; states
   and results stay in the library's own arrays.
c) What a peer changes in its library (number of threads, mostly) it puts back in `close`.
"""

import contextlib
from collections.abc import Iterator, Sequence

from fastlstm._commands.bench.peers.base import Fastlstm, Peer, Unrounded
from fastlstm._commands.bench.peers.onnx_models import ONNXRuntime, OpenVINO
from fastlstm._commands.bench.peers.pytorch import FastlstmTorch, Torch
from fastlstm._commands.bench.peers.xla import JAX

__all__ = ["OWN", "PEERS", "Fastlstm", "Peer", "opened"]

PEERS: dict[str, type[Peer]] = {
    peer.name: peer for peer in (Unrounded, FastlstmTorch, Torch, ONNXRuntime, OpenVINO, JAX)
}
OWN = (Fastlstm.name, Unrounded.name, FastlstmTorch.name)  # to which no library is compared


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
