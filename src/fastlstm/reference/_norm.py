"""Normalisation of rows, and clipping: each forward, with its derivative below it."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

EPSILON = 1e-5


class Normalized(NamedTuple):
    """N(v) (rows, N) and what its derivative needs."""

    value: NDArray[Any]
    inverse: NDArray[Any]  # 1 / sqrt(var + EPSILON), (rows, 1)
    gain: NDArray[Any]  # (N,)


def normalize(v: NDArray[Any], gain: NDArray[Any]) -> Normalized:
    """Return ``N(v) = (v - mean) / sqrt(var + EPSILON)`` of each row, to be scaled by `gain`.

    References
    ----------
    Ba, Kiros & Hinton (2016), Layer normalization, arXiv:1607.06450.
    """
    deviation = v - v.mean(axis=1, keepdims=True)
    inverse = 1 / np.sqrt(np.square(deviation).mean(axis=1, keepdims=True) + EPSILON)
    return Normalized(deviation * inverse, inverse, gain)


def normalize_backward(d: NDArray[Any], n: Normalized) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the gradients of v and gain, from that of ``N(v) * gain``."""
    dn = d * n.gain
    along = (dn * n.value).mean(axis=1, keepdims=True)
    dv = n.inverse * (dn - dn.mean(axis=1, keepdims=True) - n.value * along)
    return dv, (d * n.value).sum(axis=0)


def clipped(v: NDArray[Any], bound: float | None) -> NDArray[Any]:
    """Return `v` within +-bound, if there is one."""
    return v if bound is None else np.clip(v, -bound, bound)


def clipped_backward(d: NDArray[Any], out: NDArray[Any], bound: float | None) -> NDArray[Any]:
    """Return `d` where the clipped value `out` lies inside the bound, 0 elsewhere."""
    return d if bound is None else np.where(np.abs(out) < bound, d, 0)
