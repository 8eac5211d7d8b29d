"""Losses: each returns its value and its gradient."""

from __future__ import annotations  # so that help() shows names

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastlstm._args.arrays import as_array, check_dtype, check_real


def mse_loss(
    prediction: ArrayLike, target: ArrayLike, *, mask: ArrayLike | None = None
) -> tuple[float, NDArray[Any]]:
    """Return the mean squared error and its gradient with respect to the prediction.

    Parameters
    ----------
    prediction, target : array_like
        Both float32 or both float64, of one dtype and one shape. Nothing is broadcast.
    mask : array_like of bool, optional
        Of the same shape, True where a value counts. What does not count may be anything, NaN
        included, and has a gradient of 0: gaps in a series (``~np.isnan(target)``), or steps past
        the end of a row of a ragged batch.

    Returns
    -------
    loss : float
        The mean over the values that count.
    gradient : ndarray
        Of the prediction's shape and dtype.

    Raises
    ------
    ValueError
        If the shapes differ or no value counts.
    TypeError
        If the dtypes differ or are not real, or the mask is not boolean.

    Examples
    --------
    >>> import numpy as np
    >>> from fastlstm.training import mse_loss
    >>> mse_loss(np.array([1.0, 2.0]), np.array([1.0, 4.0]))
    (2.0, array([ 0., -2.]))
    >>> target = np.array([np.nan, 4.0])
    >>> mse_loss(np.array([1.0, 2.0]), target, mask=~np.isnan(target))
    (4.0, array([ 0., -4.]))
    """
    prediction = check_real("prediction", prediction)
    target = check_dtype("target", target, prediction.dtype)
    if target.shape != prediction.shape:
        raise ValueError(
            f"target: expected {prediction.shape}, the shape of prediction, got {target.shape}"
        )
    counts, n = _check_mask(mask, prediction.shape, "prediction")
    gradient = np.zeros_like(prediction)
    np.subtract(prediction, target, out=gradient, where=True if counts is None else counts)
    loss = float(np.square(gradient).sum(dtype=np.float64)) / n
    gradient *= 2 / n
    return loss, gradient


def quantile_loss(
    prediction: ArrayLike,
    target: ArrayLike,
    quantiles: ArrayLike,
    *,
    mask: ArrayLike | None = None,
) -> tuple[float, NDArray[Any]]:
    """Return the mean pinball loss and its gradient with respect to the prediction.

    What makes it least is that a part q of the targets lies below the prediction of quantile q
    (Koenker and Bassett 1978, doi:10.2307/1913643).

    Parameters
    ----------
    prediction : array_like, (..., Q)
        Of float32 or float64; along the last axis one for each quantile.
    target : array_like, (...,)
        Of the prediction's dtype.
    quantiles : array_like, (Q,)
        Within (0, 1).
    mask : array_like of bool, (...,), optional
        True where a target counts, as of `mse_loss`.

    Returns
    -------
    loss : float
        The mean over targets and quantiles of ``max(q * (y - p), (q - 1) * (y - p))``.
    gradient : ndarray, (..., Q)
        Of the prediction's dtype.

    Raises
    ------
    ValueError
        If the shapes do not fit, a quantile is not within (0, 1), or no value counts.
    TypeError
        If the dtypes differ or are not real, or the mask is not boolean.

    Examples
    --------
    >>> import numpy as np
    >>> from fastlstm.training import quantile_loss
    >>> quantile_loss(np.array([[1.0, 3.0]]), np.array([2.0]), [0.25, 0.75])
    (0.25, array([[-0.125,  0.125]]))
    """
    prediction = check_real("prediction", prediction)
    target = check_dtype("target", target, prediction.dtype)
    q = np.asarray(quantiles, np.float64)
    if q.ndim != 1 or not q.size or not ((q > 0) & (q < 1)).all():
        raise ValueError(f"quantiles: expected some numbers within (0, 1), got {quantiles!r}")
    if prediction.shape != (*target.shape, q.size):
        raise ValueError(
            f"prediction: expected {(*target.shape, q.size)}, the shape of target and one for "
            f"each quantile, got {prediction.shape}"
        )
    counts, n = _check_mask(mask, target.shape, "target")
    error = np.zeros_like(prediction)
    where = True if counts is None else counts[..., np.newaxis]
    np.subtract(target[..., np.newaxis], prediction, out=error, where=where)
    slope = (q - (error < 0)).astype(prediction.dtype)
    loss = float((slope * error).sum(dtype=np.float64)) / (n * q.size)
    gradient = np.zeros_like(prediction)
    np.divide(slope, -n * q.size, out=gradient, where=where)
    return loss, gradient


def cross_entropy_loss(
    logits: ArrayLike, classes: ArrayLike, *, mask: ArrayLike | None = None
) -> tuple[float, NDArray[Any]]:
    """Return the mean of -log softmax(logits)[class] and its gradient with respect to the logits.

    Parameters
    ----------
    logits : array_like, (..., C)
        Of float32 or float64 and any magnitude. The classes are along the last axis.
    classes : array_like of int, (...,)
        The right class of each row, in [0, C).
    mask : array_like of bool, (...,), optional
        True where a row counts. The class of a row that does not may be any integer, and its
        gradient is 0.

    Returns
    -------
    loss : float
        The mean over the rows that count, in nats.
    gradient : ndarray, (..., C)
        Of the dtype of the logits.

    Raises
    ------
    ValueError
        If the shapes do not fit, a class that counts is not in [0, C), or no row counts.
    TypeError
        If a dtype is none of those above.

    Examples
    --------
    >>> import numpy as np
    >>> from fastlstm.training import cross_entropy_loss
    >>> loss, gradient = cross_entropy_loss(np.zeros((1, 4)), [2])
    >>> round(loss, 4), gradient
    (1.3863, array([[ 0.25,  0.25, -0.75,  0.25]]))
    """
    logits = check_real("logits", logits)
    if logits.ndim == 0 or logits.shape[-1] == 0:
        raise ValueError(f"logits: expected (..., C) with C >= 1, got {logits.shape}")
    C = logits.shape[-1]
    classes = as_array("classes", classes)
    if classes.dtype.kind not in "iu" and classes.size:
        raise TypeError(f"classes: expected integers, got {classes.dtype}")
    if classes.shape != logits.shape[:-1]:
        raise ValueError(f"classes: expected {logits.shape[:-1]}, got {classes.shape}")
    counts, n = _check_mask(mask, classes.shape, "classes")
    selected = ... if counts is None else counts
    rows = logits[selected].reshape(n, C)
    right = classes[selected].reshape(n)
    if right.min() < 0 or right.max() >= C:
        raise ValueError(f"classes: expected values in [0, {C}), got {right.min()}..{right.max()}")

    each = np.arange(n)
    shifted = rows - rows.max(axis=1, keepdims=True)  # the largest is 0: exp cannot overflow
    softmax = np.exp(shifted)
    sums = softmax.sum(axis=1, keepdims=True)
    losses = np.log(sums[:, 0]) - shifted[each, right]
    softmax /= sums
    softmax[each, right] -= 1
    softmax /= n
    gradient = np.zeros_like(logits)
    gradient[selected] = softmax.reshape(gradient[selected].shape)
    return float(losses.sum(dtype=np.float64)) / n, gradient


def _check_mask(
    mask: ArrayLike | None, shape: tuple[int, ...], like: str
) -> tuple[NDArray[np.bool_] | None, int]:
    """Return the mask and how many values count."""
    if mask is None:
        counts, n = None, math.prod(shape)
    else:
        counts = as_array("mask", mask)
        if counts.dtype != np.bool_:
            raise TypeError(f"mask: expected bool, got {counts.dtype}")
        if counts.shape != shape:
            raise ValueError(f"mask: expected {shape}, the shape of {like}, got {counts.shape}")
        n = int(np.count_nonzero(counts))
    if n == 0:
        raise ValueError(f"{like}: expected at least one value that counts, got none")
    return counts, n
