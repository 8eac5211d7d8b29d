"""Products in fewer bits: the roundings of `compute_dtype`, written out.

bfloat16 keeps the upper 16 bits of a float32, rounded to nearest even; products are summed in
float32. Backward, dz is rounded too, and so is what it is multiplied with.

int8 divides a row of weights, and each row that meets them, into 127 steps of its largest element:
z = (q_a @ q_w.T) * (scale_a * scale_w), with an exact sum. For h, of which |h| <= 1 is known, the
scale is 1/127 (or more, where a state beyond 1 was given). Backward goes straight through the
rounding: in float32, with the rounded weights, and with x and h as they are.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastlstm._args.numbers import Activation

LEAST = 2.0**-100  # below it a row is taken for 0
WITHIN_1 = ("sigmoid", "tanh", "hard_sigmoid", "softsign")


def bfloat16(a: NDArray[Any]) -> NDArray[Any]:
    """Return float32 `a` rounded to nearest even in its upper 16 bits."""
    bits = np.ascontiguousarray(a).view(np.uint32)
    nearest = bits + np.uint32(0x7FFF) + (bits >> np.uint32(16) & np.uint32(1))
    rounded = np.where(np.isnan(a), bits | np.uint32(0x400000), nearest)
    return (rounded & np.uint32(0xFFFF0000)).view(np.float32)


def int8(a: NDArray[Any], least: float = 0.0) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return float32 `a` (rows, K) as integers, and scales (rows, 1) of at least least/127."""
    most = np.maximum(np.abs(a).max(axis=1, keepdims=True, initial=0), np.float32(least))
    none = most < LEAST
    inverse = np.where(none, 0, np.float32(127) / np.where(none, 1, most)).astype(np.float32)
    scale = np.where(none, 0, most / np.float32(127)).astype(np.float32)
    return np.rint(a * inverse).astype(np.int32), scale


def product(
    compute_dtype: str | None, a: NDArray[Any], w: NDArray[Any], least: float = 0.0
) -> NDArray[Any]:
    """Return a @ w.T."""
    z: NDArray[Any]
    if compute_dtype == "int8":
        (q_a, scale_a), (q_w, scale_w) = int8(a, least), int8(w)
        z = (q_a @ q_w.T).astype(np.float32) * (scale_a * scale_w.T)
        return z
    if compute_dtype == "bfloat16":
        a, w = bfloat16(a), bfloat16(w)
    z = a @ w.T
    return z


def product_backward(compute_dtype: str | None, dz: NDArray[Any], w: NDArray[Any]) -> NDArray[Any]:
    """Return dz @ w, the gradient of `product` with respect to a."""
    if compute_dtype == "bfloat16":
        dz, w = bfloat16(dz), bfloat16(w)
    if compute_dtype == "int8":
        q_w, scale_w = int8(w)
        w = q_w * scale_w
    da: NDArray[Any] = dz @ w
    return da


def weight_gradient(compute_dtype: str | None, dz: NDArray[Any], a: NDArray[Any]) -> NDArray[Any]:
    """Return dz.T @ a, the gradient of `product` with respect to w."""
    if compute_dtype == "bfloat16":
        dz, a = bfloat16(dz), bfloat16(a)
    dw: NDArray[Any] = dz.T @ a
    return dw


def least_of_h(activations: tuple[Activation, ...], projected: bool = False) -> float:
    """Return 1 where |h| <= 1 is known from the activations that h is made of, else 0."""
    return float(not projected and all(kind in WITHIN_1 for kind, *_ in activations))
