"""What several test files share: tolerances, central differences, random arguments, layouts."""

import contextlib

import numpy as np

from fastlstm._core import runtime

# relative to the largest element, for sums of some hundred products in another order
TOLERANCE = {np.dtype(np.float32): 2e-5, np.dtype(np.float64): 1e-12}


@contextlib.contextmanager
def forced_isa(name):
    """Use one instruction set inside the block, and the one of before after it."""
    before = runtime.get_isa()
    runtime.set_isa(name)
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


def assert_close(actual, desired, tolerance=None):
    """Check dtype, shape and value; tuples and dicts are compared element by element."""
    actual, desired = as_tuple(actual), as_tuple(desired)
    assert len(actual) == len(desired)
    for a, d in zip(actual, desired, strict=True):
        assert (a is None) == (d is None)
        if a is None:
            continue
        assert a.dtype == d.dtype
        tol = tolerance or TOLERANCE[a.dtype]
        finite = np.abs(d[np.isfinite(d)])
        scale = max(1, finite.max(initial=0))
        np.testing.assert_allclose(a, d, rtol=10 * tol, atol=tol * scale, strict=True)


def assert_same_bits(actual, desired):
    """Check that two results are equal bit by bit (so that NaN equals the same NaN)."""
    for a, d in zip(as_tuple(actual), as_tuple(desired), strict=True):
        assert (a is None) == (d is None)
        if a is not None:
            assert a.dtype == d.dtype
            assert a.shape == d.shape
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


def normal(rng, shape, dtype=np.float64, scale=1.0):
    """Return normally distributed values of one dtype."""
    return (scale * rng.standard_normal(shape)).astype(dtype)


def lstm_arguments(rng, T, B, I, H, dtype=np.float64, *, bias=True, state=True):
    """Return random arguments of `lstm_forward`, the weights on the scale of trained ones."""
    scale = 1.5 / np.sqrt(H)
    arguments = {
        "x": normal(rng, (T, B, I), dtype),
        "w_ih": normal(rng, (4 * H, I), dtype, 1.5 / np.sqrt(max(I, 1))),
        "w_hh": normal(rng, (4 * H, H), dtype, scale),
    }
    if bias:
        arguments["b"] = normal(rng, 4 * H, dtype)
    if state:
        arguments |= {"h_0": normal(rng, (B, H), dtype), "c_0": normal(rng, (B, H), dtype)}
    return arguments


LSTM_VARIANTS = (
    "peephole",
    "w_proj",
    "layer_norm",
    "coupled",
    "cell_clip",
    "proj_clip",
    "zoneout rates",
    "zoneout masks",
    "dropout_h",
    "activations",
)


def lstm_variant(rng, T, B, I, H, names, dtype=np.float64):
    """Return the arrays of `lstm_forward` that have gradients, and its options, for variants.

    The names are those of `LSTM_VARIANTS`; with a projection, h has 1 + H // 2 elements.
    """
    names = set(names) | ({"w_proj"} if "proj_clip" in names else set())
    G, R = 3 if "coupled" in names else 4, 1 + H // 2 if "w_proj" in names else H
    arguments = lstm_arguments(rng, T, B, I, H, dtype)
    arguments |= {name: arguments[name][: G * H] for name in ("w_ih", "b")}
    arguments |= {"w_hh": arguments["w_hh"][: G * H, :R], "h_0": arguments["h_0"][:, :R]}
    arrays = {"peephole": (G - 1, H), "w_proj": (R, H), "layer_norm": (2 * G + 2, H)}
    arguments |= {k: normal(rng, shape, dtype) for k, shape in arrays.items() if k in names}
    options = {"coupled": True, "cell_clip": 0.8, "proj_clip": 0.3}
    options |= {
        "dropout_h": 2 * rng.integers(0, 2, (B, R)).astype(dtype),
        "activations": ("hard_sigmoid", "softsign", ("scaled_tanh", 1.7, 0.6)),
    }
    options = {name: option for name, option in options.items() if name in names}
    if "zoneout rates" in names:
        options |= {"zoneout_h": 0.1, "zoneout_c": 0.3}
    if "zoneout masks" in names:
        for name, width in (("zoneout_h", R), ("zoneout_c", H)):
            options[name] = rng.integers(0, 2, (T, B, width)).astype(dtype)
    return arguments, options


def gru_arguments(rng, T, B, I, H, dtype=np.float64, *, reset_after=True):
    """Return random arguments of `gru_forward`."""
    arguments = lstm_arguments(rng, T, B, I, H, dtype)
    del arguments["c_0"]
    arguments |= {name: arguments[name][: 3 * H] for name in ("w_ih", "w_hh")}
    if not reset_after:
        arguments["b"] = arguments["b"][: 3 * H]
    return arguments


def rnn_arguments(rng, T, B, I, H, dtype=np.float64):
    """Return random arguments of `rnn_forward`."""
    arguments = lstm_arguments(rng, T, B, I, H, dtype)
    del arguments["c_0"]
    return arguments | {name: arguments[name][:H] for name in ("w_ih", "w_hh", "b")}


def output_gradients(rng, T, B, H, dtype=np.float64):
    """Return random dy, dh_n and dc_n."""
    shapes = {"dy": (T, B, H), "dh_n": (B, H), "dc_n": (B, H)}
    return {name: normal(rng, shape, dtype) for name, shape in shapes.items()}


def some_lengths(rng, T, B):
    """Return unordered lengths among which 0 and T occur where there is room."""
    lengths = rng.integers(0, T + 1, B)
    lengths[:2] = [0, T][:B]
    return rng.permutation(lengths)


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
