"""One step of the LSTM and of its variants, forward and backward.

The cell state is *added to*, ``c_t = f * c_{t-1} + i * g``, not concatenated: it stays H wide, and
because of that sum its gradient goes back one step by a product with f alone (near 1 where the cell
remembers) and not through a matrix and a squashing function, so that it survives long lags.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastlstm._args.arrays import LSTMArguments
from fastlstm.reference._activations import Function
from fastlstm.reference._norm import (
    Normalized,
    clipped,
    clipped_backward,
    normalize,
    normalize_backward,
)
from fastlstm.reference._products import least_of_h, product, product_backward, weight_gradient


class LSTMStep(NamedTuple):
    """What one step leaves for its backward pass, for the rows that have this step."""

    h_in: NDArray[Any]  # h' = dropout_h * h_{t-1}, (rows, R)
    c_prev: NDArray[Any]  # c_{t-1}; this and what follows (rows, H)
    i: NDArray[Any]
    f: NDArray[Any]
    g: NDArray[Any]
    o: NDArray[Any]
    c: NDArray[Any]  # c~, before zoneout
    s2_c: NDArray[Any]  # the output activation's value
    m: NDArray[Any]
    h: NDArray[Any]  # h~, before zoneout, (rows, R)
    n_h: Normalized | None  # N(zh)
    n_c: Normalized | None  # N(c~)


class NormGains(NamedTuple):
    """The parts of `layer_norm`, or of its gradient, as views."""

    x: NDArray[Any]  # (G * H,)
    h: NDArray[Any]  # (G * H,)
    c: NDArray[Any]  # (H,)
    b: NDArray[Any]  # (H,): not a gain but the bias beside that of c

    @classmethod
    def of(cls, layer_norm: NDArray[Any]) -> "NormGains":
        """Take `layer_norm`, (2G + 2, H), apart."""
        G = len(layer_norm) // 2 - 1
        x, h = layer_norm[:G].reshape(-1), layer_norm[G : 2 * G].reshape(-1)
        return cls(x, h, layer_norm[-2], layer_norm[-1])


class LSTMSums(NamedTuple):
    """Gradients to which each step adds its share: arrays, or None where no argument is given."""

    peephole: Any
    w_proj: Any
    layer_norm: Any


def lstm_step(
    a: LSTMArguments, s: list[Function], z_x: NDArray[Any], h_in: NDArray[Any], c_prev: NDArray[Any]
) -> LSTMStep:
    """Compute the cell once: z_x (rows, G * H) is the input's share of z, with the bias."""
    G, H = 3 if a.coupled else 4, c_prev.shape[1]
    least = least_of_h(a.activations[::2], a.w_proj is not None)
    z_h, n_h, n_c = product(a.compute_dtype, h_in, a.w_hh, least), None, None
    if a.layer_norm is not None:
        n_h = normalize(z_h, NormGains.of(a.layer_norm).h)
        z_h = n_h.value * n_h.gain

    z = (z_x + z_h).reshape(-1, G, H).swapaxes(0, 1)
    z_if, z_g, z_o = z[:-2], z[-2], z[-1]  # z_if: one block if coupled, else two
    if a.peephole is not None:
        z_if += a.peephole[:-1, np.newaxis] * c_prev
    gates = s[0](z_if)
    i, f = (gates[0], 1 - gates[0]) if a.coupled else gates
    g = s[1](z_g)
    c = clipped(f * c_prev + i * g, a.cell_clip)
    if a.peephole is not None:
        z_o += a.peephole[-1] * c
    o = s[0](z_o)

    if a.layer_norm is None:
        s2_c = s[2](c)
    else:
        gain = NormGains.of(a.layer_norm)
        n_c = normalize(c, gain.c)
        s2_c = s[2](n_c.value * gain.c + gain.b)
    m = o * s2_c
    h = m if a.w_proj is None else clipped(product(a.compute_dtype, m, a.w_proj), a.proj_clip)
    return LSTMStep(h_in, c_prev, i, f, g, o, c, s2_c, m, h, n_h, n_c)


def lstm_step_backward(
    a: LSTMArguments,
    ds: list[Function],
    step: LSTMStep,
    dh: NDArray[Any],
    dc: NDArray[Any],
    sums: LSTMSums,
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Return dz, dzh (rows, G * H) and dc_{t-1}, from the gradients of h~ and c~.

    The gradients of peephole, w_proj and layer_norm are added to those in `sums`.
    """
    _, c_prev, i, f, g, o, c, s2_c, m, h, n_h, n_c = step
    dm = dh
    if a.w_proj is not None:
        dh = clipped_backward(dh, h, a.proj_clip)
        sums.w_proj[...] += weight_gradient(a.compute_dtype, dh, m)
        dm = product_backward(a.compute_dtype, dh, a.w_proj)

    do = dm * s2_c
    ds2 = dm * o * ds[2](s2_c)
    if n_c is not None:
        gain_sums = NormGains.of(sums.layer_norm)
        gain_sums.b[...] += ds2.sum(axis=0)
        ds2, dgain = normalize_backward(ds2, n_c)
        gain_sums.c[...] += dgain
    dz_o = do * ds[0](o)
    dc = dc + ds2
    if a.peephole is not None:
        sums.peephole[-1] += (dz_o * c).sum(axis=0)
        dc += dz_o * a.peephole[-1]
    dc = clipped_backward(dc, c, a.cell_clip)

    di, df, dg = dc * g, dc * c_prev, dc * i
    dc_prev = dc * f
    if a.coupled:
        dz_blocks = [(di - df) * ds[0](i), dg * ds[1](g), dz_o]
    else:
        dz_blocks = [di * ds[0](i), df * ds[0](f), dg * ds[1](g), dz_o]
    if a.peephole is not None:
        for p, dp, dz_gate in zip(a.peephole[:-1], sums.peephole, dz_blocks, strict=False):
            dp += (dz_gate * c_prev).sum(axis=0)
            dc_prev += dz_gate * p

    dz = dzh = np.concatenate(dz_blocks, axis=1)
    if n_h is not None:
        dzh, dgain = normalize_backward(dz, n_h)
        gain_sums.h[...] += dgain
    return dz, dzh, dc_prev
