"""Sequences as users have them, turned into one array of rows.

Decisions:
a) All sequences lie in one array of time steps, one after the other, whatever they came as; a
   batch is gathered from it. Padding repeats a sequence's last step, and is never computed.
b) A 2-d array is one univariate sequence per row, so that a table of samples, scikit-learn's only
   kind of input, is one of sequences too. Its number of columns is what scikit-learn checks;
   of any other input it is the number of columns of a sequence, whose length is free.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import check_array

from fastlstm._args.arrays import as_array

FLOATS = (np.float64, np.float32)


class Sequences(NamedTuple):
    """N sequences of any lengths."""

    rows: NDArray[Any]  # (sum of lengths, I)
    starts: NDArray[np.intp]  # (N,)
    lengths: NDArray[np.intp]  # (N,)

    @classmethod
    def from_rows(cls, rows: NDArray[Any], lengths: NDArray[np.intp]) -> "Sequences":
        """Name the parts of `rows`, which has the sequences one after the other."""
        return cls(rows, np.cumsum(lengths) - lengths, lengths)

    @property
    def n(self) -> int:
        """How many they are."""
        return len(self.lengths)

    def take(self, which: NDArray[np.intp]) -> "Sequences":
        """Return some of them, on the same rows."""
        return Sequences(self.rows, self.starts[which], self.lengths[which])

    def own_rows(self) -> NDArray[Any]:
        """Return the rows of these sequences, without those of others."""
        shift = self.starts - (np.cumsum(self.lengths) - self.lengths)
        own = np.repeat(shift, self.lengths) + np.arange(self.lengths.sum())
        return self.rows.take(own, axis=0)

    def gather(self, which: NDArray[np.intp]) -> tuple[NDArray[Any], NDArray[np.intp] | None]:
        """Return some of them side by side, (T, B, I), and their lengths if these differ."""
        lengths = self.lengths[which]
        T = lengths.max()
        steps = np.minimum(np.arange(T)[:, np.newaxis], lengths - 1)
        x = self.rows.take(self.starts[which] + steps, axis=0)
        return x, None if (lengths == T).all() else lengths


def is_list_of_sequences(X: Any) -> bool:
    """Whether X is not one array: a list of arrays, or of lists of different lengths."""
    if isinstance(X, np.ndarray):
        return X.ndim == 1 and X.dtype == object
    if not isinstance(X, list | tuple) or not all(hasattr(s, "__len__") for s in X):
        return False
    return any(hasattr(s, "shape") for s in X) or len({len(s) for s in X}) > 1


def from_list(X: Sequence[Any]) -> Sequences:
    """Return a list of (T,) or (T, I) array-likes."""
    arrays = [as_array(f"X[{k}]", s) for k, s in enumerate(X)]
    arrays = [a[:, np.newaxis] if a.ndim == 1 else a for a in arrays]
    I = arrays[0].shape[-1] if arrays[0].ndim else 0
    for k, a in enumerate(arrays):
        if a.ndim != 2 or a.shape[1] != I or not a.size:
            raise ValueError(f"X[{k}]: expected (T,) or (T, {I}) with T >= 1, got {a.shape}")
    rows = check_array(np.concatenate(arrays), dtype=FLOATS, input_name="X")
    return Sequences.from_rows(rows, np.array([len(a) for a in arrays]))


def from_array(X: Any) -> Sequences:
    """Return an (N, T, I) array-like."""
    X = check_array(X, dtype=FLOATS, allow_nd=True, input_name="X")
    if X.ndim != 3 or not X.size:
        raise ValueError(f"X: expected (N, T) or (N, T, I), none of them 0, got {X.shape}")
    N, T, I = X.shape
    return Sequences.from_rows(X.reshape(-1, I), np.full(N, T))
