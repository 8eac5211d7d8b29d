"""The kernels' sigmoid and tanh: error in units in the last place (ulp) of the exact value.

Promised: float32 within 2.5 ulp, sigmoid also within 9e-8 absolute, over every float32 (`-m slow`;
`-s` prints the largest errors); float64 within 4 ulp where it is sampled.
"""

import functools
import importlib.resources

import numpy as np
import pytest
from helpers import forced_isa

from fastlstm._core import runtime
from fastlstm._core.calls import CORES

LIMIT = {np.dtype(np.float32): 2.5, np.dtype(np.float64): 4.0}
SIGMOID_ABSOLUTE_LIMIT = 9e-8
FUNCTIONS = ("sigmoid", "tanh")
LONG_DOUBLE_IS_LONGER = np.finfo(np.longdouble).nmant > 60

each_function = pytest.mark.parametrize("name", FUNCTIONS)


def evaluate(name, x):
    """Return the function of x by the vector code of the instruction set in use."""
    y = np.empty_like(x)
    getattr(CORES[x.dtype], name)(x, y)
    return y


@np.errstate(over="ignore", under="ignore", invalid="ignore")
def exact(name, x):
    """Return the function of float32 in float64, of float64 in long double."""
    wide = x.astype(np.float64 if x.dtype == np.float32 else np.longdouble)
    return np.tanh(wide) if name == "tanh" else 1 / (1 + np.exp(-wide))


@np.errstate(invalid="ignore")
def ulp(desired, dtype):
    """Return the unit in the last place of `dtype` at the exact values `desired`."""
    info = np.finfo(dtype)
    _, exponent = np.frexp(desired)  # 2^(e-1) <= |desired| < 2^e
    return np.ldexp(desired.dtype.type(1), np.maximum(exponent, info.minexp + 1) - info.nmant - 1)


def largest_errors(actual, desired, unit):
    """Return the largest error in units, and the largest absolute one; NaN must meet NaN."""
    assert np.array_equal(np.isnan(actual), np.isnan(desired))
    error = np.abs(actual - desired)
    return float(np.fmax.reduce(error / unit, initial=0)), float(np.fmax.reduce(error, initial=0))


@functools.cache  # all instruction sets ask for the same
def sampled(name, dtype):
    """Return a sample of x, the exact values, and their units in the last place."""
    x = sample(np.dtype(dtype))
    desired = exact(name, x)
    return x, desired, ulp(desired, x.dtype)


def measure(name, dtype):
    x, desired, unit = sampled(name, dtype)
    return largest_errors(evaluate(name, x), desired, unit)


def report_and_check(name, dtype, errors):
    """Print what was measured and assert that it is within the promise."""
    in_ulp, absolute = errors
    isa = runtime.get_isa()
    print(f"\n{isa:7} {name:8} {dtype.name}  {in_ulp:.3f} ulp  {absolute:.2e} absolute", end="")
    assert in_ulp <= LIMIT[dtype]
    if name == "sigmoid":
        assert absolute <= SIGMOID_ABSOLUTE_LIMIT


def special_values(dtype):
    info = np.finfo(dtype)
    tiny = [info.smallest_subnormal, info.smallest_normal, info.eps]
    values = np.array([0, *tiny, 0.5, 1, 20, 40, 87, 88, 89, 103, 104, 709, 745, 746, info.max])
    values = np.concatenate([values, -values]).astype(dtype)
    values = np.concatenate([np.nextafter(values, dtype.type(t)) for t in (-9e9, 9e9)] + [values])
    return np.concatenate([values, np.array([np.inf, -np.inf, np.nan], dtype)])


def sample(dtype):
    """Return values of every exponent and both signs, and more where the functions change."""
    if dtype == np.float32:  # the odd step changes the last bits too
        bits = np.arange(0, 2**32, 4095, dtype=np.uint64).astype(np.uint32).view(np.float32)
        near = [np.linspace(-110, 110, 400_001, dtype=np.float32)]
    else:
        rng = np.random.default_rng(20260101)
        bits = rng.integers(0, 2**64, 200_000, dtype=np.uint64).view(np.float64)
        near = [rng.uniform(-r, r, 200_000) for r in (1e-3, 1, 20, 760)]
    return np.concatenate([bits, *near, special_values(dtype)])


@each_function
def test_float32_error_is_within_the_limit_on_a_sample(isa, name):
    report_and_check(name, np.dtype(np.float32), measure(name, np.float32))


@pytest.fixture(scope="module")
def errors_over_every_float32():
    """Return the largest errors for each (isa, name), from one pass over the exact values."""
    largest = {}
    for start in range(0, 2**32, 2**17):  # a part of the cache
        x = np.arange(start, start + 2**17, dtype=np.uint64).astype(np.uint32).view(np.float32)
        for name in FUNCTIONS:
            desired = exact(name, x)
            unit = ulp(desired, x.dtype)
            for isa in runtime.available_isas():
                with forced_isa(isa):
                    errors = largest_errors(evaluate(name, x), desired, unit)
                largest[isa, name] = np.maximum(largest.get((isa, name), 0), errors)
    return largest


@pytest.mark.slow
@each_function
def test_float32_error_is_within_the_limit_on_every_value(isa, name, errors_over_every_float32):
    report_and_check(name, np.dtype(np.float32), errors_over_every_float32[isa, name])


@each_function
@pytest.mark.skipif(not LONG_DOUBLE_IS_LONGER, reason="long double is no longer than double here")
def test_float64_error_is_within_the_limit_on_a_sample(isa, name):
    report_and_check(name, np.dtype(np.float64), measure(name, np.float64))


def test_special_values(isa, dtype):
    x = np.array([0.0, -0.0, np.inf, -np.inf, np.nan], dtype)
    np.testing.assert_array_equal(evaluate("sigmoid", x), np.array([0.5, 0.5, 1, 0, np.nan], dtype))
    np.testing.assert_array_equal(evaluate("tanh", x), np.array([0, 0, 1, -1, np.nan], dtype))
    assert np.signbit(evaluate("tanh", x)).tolist()[:2] == [False, True]


@each_function
def test_a_value_does_not_depend_on_its_place_in_the_array(isa, dtype, rng, name):
    x = rng.normal(0, 5, 67).astype(dtype)
    whole = evaluate(name, x)
    for start in range(len(x)):
        np.testing.assert_array_equal(evaluate(name, x[start:]), whole[start:])


def test_tanh_agrees_with_the_values_that_numpy_ships(isa, dtype):
    # rows: dtype, input and output as hexadecimal bits, tolerance; NumPy's own test data
    path = importlib.resources.files("numpy") / "_core/tests/data/umath-validation-set-tanh.csv"
    if not path.is_file():
        pytest.skip("this NumPy comes without its test data")
    rows = [line.split(",") for line in path.read_text().splitlines()[1:]]
    rows = [row[1:3] for row in rows if row[0] == f"np.{dtype.name}"]
    bits = np.array([[int(field, 16) for field in row] for row in rows], f"u{dtype.itemsize}")
    x, desired = np.ascontiguousarray(bits.T).view(dtype)
    assert len(x) > 500
    # these are rounded values: half an ulp on top of the limit
    in_ulp, _ = largest_errors(evaluate("tanh", x), desired, ulp(desired, dtype))
    assert in_ulp <= LIMIT[dtype] + 0.5
