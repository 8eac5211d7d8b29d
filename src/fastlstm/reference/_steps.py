"""What the time loops of all cells share: which steps exist, states, dropout and zoneout."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Rows = (
    slice | NDArray[Any]
)  # the rows of the batch that have a step at one time; all, or their indices
ALL = slice(None)


class Steps:
    """The steps of a (ragged) batch.

    Attributes
    ----------
    order : list of (t, rows)
        The times in the order of processing, each with the rows that have a step then.
    """

    def __init__(
        self,
        lengths: NDArray[Any] | None,
        resets: NDArray[Any] | None,
        T: int,
        B: int,
        reverse: bool,
    ):
        self._shape = T, B
        self._exist: Rows = ALL  # among the T * B steps
        rows: list[Rows] = [ALL] * T
        if lengths is not None:
            exist = np.arange(T)[:, np.newaxis] < lengths
            self._exist = exist.reshape(T * B)
            rows = [np.flatnonzero(exist_t) for exist_t in exist]
        times = list(enumerate(rows))
        self.order = times[::-1] if reverse else times
        self._begins = resets  # before which steps, in that order, the state is 0
        if resets is not None and reverse:  # what is between t and t + 1 comes before t
            self._begins = np.zeros_like(resets)
            self._begins[:-1] = resets[1:] if lengths is None else resets[1:] & exist[1:]

    def before(self, t: int, rows: Rows, state: NDArray[Any]) -> NDArray[Any]:
        """Return the state before step t, or its gradient, with 0 where an episode begins."""
        if self._begins is None:
            return state
        return np.where(self._begins[t, rows, np.newaxis], state.dtype.type(0), state)

    def gather(self, a: NDArray[Any]) -> NDArray[Any]:
        """Return the steps that exist in `a` (T, B, ...) as the rows of one matrix."""
        T, B = self._shape
        return a.reshape(T * B, int(np.prod(a.shape[2:])))[self._exist]

    def spread(self, steps: NDArray[Any]) -> NDArray[Any]:
        """Return the inverse of `gather`, (T, B, N), with zeros where there is no step."""
        T, B = self._shape
        N = steps.shape[1]
        if isinstance(self._exist, slice):
            return steps.reshape(T, B, N)
        a = np.zeros((T * B, N), steps.dtype)
        a[self._exist] = steps
        return a.reshape(T, B, N)


def initial(
    given: NDArray[Any] | None, shape: tuple[int, int], dtype: np.dtype[Any]
) -> NDArray[Any]:
    """Return an array of our own that is `given`, or zeros."""
    return np.zeros(shape, dtype) if given is None else given.copy()


def zeros_or_none(a: NDArray[Any] | None) -> NDArray[Any] | None:
    """Return contiguous zeros in the shape of `a`, or None."""
    return None if a is None else np.zeros(a.shape, a.dtype)


def replace(state: NDArray[Any], rows: Rows, new: NDArray[Any]) -> NDArray[Any]:
    """Return `state` with some rows replaced, as another array: the tape may hold the old one."""
    if isinstance(rows, slice):
        return new
    state = state.copy()
    state[rows] = new
    return state


def drop(mask: NDArray[Any] | None, rows: Rows, a: NDArray[Any]) -> NDArray[Any]:
    """Return mask * a, or `a` without a mask; for h forward, and for its gradient backward."""
    return a if mask is None else mask[rows] * a


def zoneout(
    rate: float | NDArray[Any] | None, t: int, rows: Rows, old: NDArray[Any], new: NDArray[Any]
) -> NDArray[Any]:
    """Return ``rate * old + (1 - rate) * new``; `rate` is one number, or masks (T, B, N)."""
    if rate is None:
        return new
    keep = rate if isinstance(rate, float) else rate[t, rows]
    return keep * old + (1 - keep) * new


def zoneout_backward(
    rate: float | NDArray[Any] | None, t: int, rows: Rows, d: NDArray[Any]
) -> tuple[NDArray[Any] | None, NDArray[Any]]:
    """Return the gradients of `zoneout` with respect to `old` (None: no share) and `new`."""
    if rate is None:
        return None, d
    keep = rate if isinstance(rate, float) else rate[t, rows]
    return keep * d, (1 - keep) * d
