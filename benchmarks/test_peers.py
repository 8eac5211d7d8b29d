"""fastlstm against PyTorch, ONNX Runtime, OpenVINO and JAX, as far as they are installed.

The peers are those of `fastlstm bench`. Each result is compared with that of fastlstm before
anything is timed. README.md says how to run it and how to read it.
"""

import contextlib

import pytest

import fastlstm
from fastlstm._commands.bench.measure import Case, Problem, check_equal
from fastlstm._commands.bench.peers import PEERS, Fastlstm

CASES = [
    Case("forward", 100, 1, 32, 32),
    Case("forward", 100, 32, 64, 64),
    Case("forward", 100, 32, 256, 256),
    Case("train", 100, 1, 32, 32),
    Case("train", 100, 32, 64, 64),
    Case("ragged", 100, 32, 64, 64),
    Case("step", 1, 1, 32, 32),
    Case("step", 1, 1, 256, 256),
    Case("fit", 50, 32, 1, 32),
    Case("forward", 100, 32, 64, 64, "gru"),
    Case("train", 100, 32, 64, 64, "gru"),
    Case("forward", 100, 32, 64, 64, "rnn"),
    Case("train", 100, 32, 64, 64, "rnn"),
]


@pytest.mark.parametrize("library", [Fastlstm, *PEERS.values()], ids=lambda each: each.name)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_peers(benchmark, case, library):
    benchmark.group = str(case)
    threads = fastlstm.get_num_threads()
    problem = Problem(case)
    with contextlib.ExitStack() as stack:
        ours = stack.enter_context(contextlib.closing(Fastlstm(threads)))
        try:
            theirs = stack.enter_context(contextlib.closing(library(threads)))
        except ImportError as error:
            pytest.skip(f"{library.name}: {error}")
        if not theirs.supports(problem):
            pytest.skip(f"{library.name} has no {case.kind}")
        call = theirs.prepare(problem)
        check_equal({ours.name: ours.prepare(problem), library.name: call}, problem)
        benchmark(call)
