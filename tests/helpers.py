"""What several test files share: tolerances, central differences, layouts (not cells: cells.py)."""

import contextlib

import numpy as np

from fastlstm._core import runtime

# How far results may differ, relative to the largest element: one tolerance per reason, by dtype
# where it comes from rounding.
FLOAT32, FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)
# sums of some hundred products in another order
SUMS_REORDERED = {FLOAT32: 2e-5, FLOAT64: 1e-12}
# the same before relu and clips, whose kinks the last bit of a sum decides, or layer upon layer
SUMS_BEFORE_KINKS = {FLOAT32: 1e-4, FLOAT64: 1e-12}
# the normalisation of nearly equal numbers loses digits
NORMALISED = {FLOAT32: 2e-4, FLOAT64: 1e-12}
# PyTorch and Keras: other sums, other sigmoid and tanh
AGAINST_TORCH = {FLOAT32: 5e-5, FLOAT64: 1e-11}
# no layer of Keras but the fused ones has more digits, even of float64 (Keras 3.15 on PyTorch)
AGAINST_KERAS = 2e-5
# central differences in float64: the square of the step, and rounding divided by it
FINITE_DIFFERENCES = 1e-8
# a mean over a batch, once in float32 and once in float64
LOSSES = 1e-6
# a few steps of Adam in float32, each as long for a small gradient as for a large one
AFTER_TRAINING = 1e-3


@contextlib.contextmanager
def forced_isa(name, compute_dtype=None):
    """Use one instruction set inside the block, and the one of before after it.

    With a compute dtype, for that.
    """
    before = runtime.get_isa()
    runtime.set_isa(name, compute_dtype)
    try:
        yield
    finally:
        runtime.set_isa(before)


@contextlib.contextmanager
def forced_threads(number):
    """Use this many threads inside the block, and as many as before after it."""
    import fastlstm

    before = fastlstm.get_num_threads()
    fastlstm.set_num_threads(number)
    try:
        yield
    finally:
        fastlstm.set_num_threads(before)


@contextlib.contextmanager
def largest_file(size):
    """Let no file grow beyond `size` bytes inside the block, as if the disk were full."""
    import resource

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def as_tuple(result):
    """Return a named tuple, dict, tuple or array as a flat list of arrays and Nones."""
    if isinstance(result, dict):
        return [a for key in sorted(result) for a in as_tuple(result[key])]
    if isinstance(result, tuple):
        return [a for item in result for a in as_tuple(item)]
    return [result]


def assert_close(actual, desired, tolerance=SUMS_REORDERED):
    """Check dtype, shape and value; tuples and dicts are compared element by element.

    The tolerance is one of those above: a number, or numbers by dtype.
    """
    actual, desired = as_tuple(actual), as_tuple(desired)
    assert len(actual) == len(desired)
    for a, d in zip(actual, desired, strict=True):
        assert (a is None) == (d is None)
        if a is None:
            continue
        assert a.dtype == d.dtype
        tol = tolerance[a.dtype] if isinstance(tolerance, dict) else tolerance
        size, finite = np.abs(d), np.isfinite(d)
        scale = max(1, size.max(initial=0, where=finite))
        near = a.shape == d.shape and finite.all() and np.abs(a - d) <= tol * (scale + 10 * size)
        if np.all(near):
            continue  # much quicker than the line below, which also says what differs
        np.testing.assert_allclose(a, d, rtol=10 * tol, atol=tol * scale, strict=True)


def assert_same_bits(actual, desired):
    """Check that two results are equal bit by bit (so that NaN equals the same NaN)."""
    for a, d in zip(as_tuple(actual), as_tuple(desired), strict=True):
        assert (a is None) == (d is None)
        if a is not None:
            assert a.dtype == d.dtype
            assert a.shape == d.shape
            if a.tobytes() == d.tobytes():
                continue
            bits = [np.ascontiguousarray(each).view(f"u{a.itemsize}") for each in (a, d)]
            differ = bits[0] != bits[1]
            assert not differ.any(), f"{np.count_nonzero(differ)} of {a.size} elements differ"


def central_differences(function, array, step=1e-5):
    """Return the gradient of the scalar ``function()`` with respect to a float64 `array`."""
    gradient = np.empty_like(array)
    for index in np.ndindex(array.shape):
        value = array[index]
        array[index] = value + step
        above = function()
        array[index] = value - step
        below = function()
        array[index] = value
        gradient[index] = (above - below) / (2 * step)
    return gradient


def slope(function, arrays, directions, step=1e-5):
    """Return the derivative of the scalar ``function()`` along directions in float64 arrays.

    A gradient that is wrong in any element is wrong along a random direction.
    """
    step /= np.sqrt(sum(np.sum(d * d) for d in directions))
    kept, values = [a.copy() for a in arrays], []
    for sign in (1, -1):
        for a, d, start in zip(arrays, directions, kept, strict=True):
            a[...] = start + sign * step * d
        values.append(function())
    for a, start in zip(arrays, kept, strict=True):
        a[...] = start
    return np.float64((values[0] - values[1]) / (2 * step))


def normal(rng, shape, dtype=np.float64, scale=1.0):
    """Return normally distributed values of one dtype."""
    return (scale * rng.standard_normal(shape)).astype(dtype)


def some_lengths(rng, T, B):
    """Return unordered lengths among which 0 and T occur where there is room."""
    lengths = rng.integers(0, T + 1, B)
    lengths[:2] = [0, T][:B]
    return rng.permutation(lengths)


def some_resets(rng, T, B):
    """Return where episodes begin: from nowhere to everywhere in a row, also at the first step."""
    return rng.random((T, B)) < rng.choice([0.0, 0.2, 0.5, 1.0], B, p=[0.2, 0.4, 0.3, 0.1])


def _misaligned(a):
    buffer = np.empty(a.nbytes + 1, np.uint8)
    view = buffer[1:].view(a.dtype).reshape(a.shape)
    view[...] = a
    return view


def _read_only(a):
    a = a.copy()
    a.flags.writeable = False
    return a


def _every_second(a):
    wide = np.full((*a.shape[:-1], 2 * a.shape[-1]), np.nan, a.dtype)
    wide[..., ::2] = a
    return wide[..., ::2]


def _padded_rows(a):
    wide = np.full((*a.shape[:-1], a.shape[-1] + 3), np.nan, a.dtype)
    wide[..., :-3] = a
    return wide[..., :-3]


# the same values in other layouts
LAYOUTS = {
    "fortran": np.asfortranarray,
    "transposed": lambda a: np.ascontiguousarray(np.moveaxis(a, 0, -1)).transpose(
        [a.ndim - 1, *range(a.ndim - 1)]
    ),
    "negative": lambda a: np.flip(np.flip(a).copy()),
    "step 2": _every_second,
    "padded rows": _padded_rows,
    "read-only": _read_only,
    "byte-swapped": lambda a: a.astype(a.dtype.newbyteorder()),
    "misaligned": _misaligned,
}
