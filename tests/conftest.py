"""Fixtures for every test: each instruction set of this CPU, each dtype, a seeded generator."""

import os

# the reference's products are small: a second thread would cost more than it does
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import pytest
from helpers import forced_isa

from fastlstm._args.numbers import COMPUTE_DTYPES
from fastlstm._core import runtime


def pytest_configure(config):
    """Leave out the slow tests unless -m asks for them."""
    config.option.markexpr = config.option.markexpr or "not slow"


@pytest.fixture(params=runtime.available_isas())
def isa(request):
    """Force one instruction set during the test."""
    with forced_isa(request.param):
        yield request.param


@pytest.fixture(params=[np.float32, np.float64], ids=["float32", "float64"])
def dtype(request):
    return np.dtype(request.param)


SERVED = [(dtype, isa) for dtype in COMPUTE_DTYPES for isa in runtime.available_isas(dtype)]


@pytest.fixture(params=SERVED, ids="-".join)
def compute_dtype(request):
    """Compute in one dtype with one set of instructions."""
    dtype, isa = request.param
    with forced_isa(isa, dtype):
        yield dtype


@pytest.fixture
def rng():
    return np.random.default_rng(20260101)
