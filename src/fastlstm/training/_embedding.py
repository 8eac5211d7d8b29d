"""The embedding: from integers, such as characters or categories, to vectors that are trained."""

from __future__ import annotations  # so that help() shows names

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from fastlstm._args.arrays import as_array, check_dtype, check_real_dtype
from fastlstm._args.numbers import check_size
from fastlstm._layers.fixed import FLAT, Fixed, check_flat


class EmbeddingGradients(NamedTuple):
    """Result of `Embedding.backward`: the gradient of the table, a view of `flat`.

    Parameters
    ----------
    params : dict of arrays
        Gradients of the parameters, by name; views of `flat`.
    flat : ndarray
        All of them in one dimension.
    """

    params: dict[str, NDArray[Any]]
    flat: NDArray[Any]


class Embedding(Fixed):
    """A table of vectors, of which each integer of the input takes one: ``y = weight[indices]``.

    Parameters
    ----------
    num_embeddings : int
        How many vectors, N; indices are in [0, N).
    embedding_dim : int
        How long each is, at least 1.
    dtype : dtype
        Type, float32 or float64, of the vectors.
    rng : numpy.random.Generator, int or None
        Draws the initial vectors: standard normal, as PyTorch does.

    Attributes
    ----------
    params : dict
        ``weight`` (num_embeddings, embedding_dim), a writable view of `flat`.
    flat : ndarray
        All parameters in one dimension. Neither this nor the arguments can be set.

    Raises
    ------
    ValueError
        If a size is less than 1.
    TypeError
        If a size is not an integer or `dtype` is not float32 or float64.

    Examples
    --------
    >>> from fastlstm.training import Embedding
    >>> embedding = Embedding(100, 8, rng=0)
    >>> embedding([[3, 99], [0, 3]]).shape
    (2, 2, 8)
    """

    num_embeddings: int
    embedding_dim: int
    dtype: np.dtype
    _fixed = FLAT | {"num_embeddings", "embedding_dim", "dtype"}

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        *,
        dtype: DTypeLike = np.float32,
        rng: np.random.Generator | int | None = None,
    ) -> None:
        size = self._configure(num_embeddings, embedding_dim, dtype)
        self._own(np.random.default_rng(rng).standard_normal(size).astype(self.dtype))

    def _configure(self, num_embeddings: Any, embedding_dim: Any, dtype: Any) -> int:
        """Take the arguments, checked; return the number of parameters."""
        self._fix(
            {
                "num_embeddings": check_size("num_embeddings", num_embeddings),
                "embedding_dim": check_size("embedding_dim", embedding_dim),
                "dtype": check_real_dtype("dtype", dtype),
            }
        )
        return self.num_embeddings * self.embedding_dim

    def _views(self, flat: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Name the parts of a flat buffer."""
        return {"weight": flat.reshape(self.num_embeddings, self.embedding_dim)}

    def __repr__(self) -> str:
        return f"Embedding({self.num_embeddings}, {self.embedding_dim}, dtype={self.dtype.name})"

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "params"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        flat, *arguments = (
            state[name] for name in ("flat", "num_embeddings", "embedding_dim", "dtype")
        )
        self._own(check_flat(flat, self._configure(*arguments), self.dtype))

    def __call__(self, indices: ArrayLike) -> NDArray[Any]:
        """Return y (..., embedding_dim) of indices (...).

        Raises
        ------
        ValueError
            If an index is not in [0, num_embeddings).
        TypeError
            If the indices are not integers.
        """
        return np.asarray(self.params["weight"][self._check_indices("indices", indices)])

    def forward(self, indices: ArrayLike) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return y, as a call does, and the tape for `backward`: a copy of the indices.

        Parameters
        ----------
        indices : array_like of int
            Within 0 and ``num_embeddings - 1``, of any shape.

        Returns
        -------
        y : (..., embedding_dim) array
            The vectors.
        tape : ndarray
            A copy of the indices.
        """
        taken = self._check_indices("indices", indices).copy()
        return self.params["weight"][taken], taken

    def backward(self, tape: ArrayLike, dy: ArrayLike) -> EmbeddingGradients:
        """Return the gradient of the table, given that of y.

        Parameters
        ----------
        tape : array_like of int
            From `forward`: the indices, of any number of steps, since nothing else is needed.
        dy : array_like, (..., embedding_dim)
            Gradient of the loss with respect to y. What came of one index is added up.

        Returns
        -------
        EmbeddingGradients
            ``params`` with the keys of the module's, and ``flat``.

        Raises
        ------
        ValueError
            If dy has not the shape of y, or an index is not in [0, num_embeddings).
        TypeError
            If dy has another dtype than the module, or the tape is not one of integers.
        """
        from scipy.sparse import csc_array  # takes longer to import than all of fastlstm

        indices = self._check_indices("tape", tape)
        dy = check_dtype("dy", dy, self.dtype)
        shape = (*indices.shape, self.embedding_dim)
        if dy.shape != shape:
            raise ValueError(f"dy: expected {shape}, got {dy.shape}")
        # a product with one 1 per column, the row of its index: sums in the order of the steps
        n = math.prod(indices.shape)
        ones = np.ones(n, self.dtype)
        sums = csc_array(
            (ones, indices.reshape(n), np.arange(n + 1)), shape=(self.num_embeddings, n)
        )
        gradient = sums @ dy.reshape(n, self.embedding_dim)
        flat = np.ascontiguousarray(gradient).reshape(-1)
        return EmbeddingGradients(self._views(flat), flat)

    def _check_indices(self, name: str, value: ArrayLike) -> NDArray[np.intp]:
        indices = as_array(name, value)
        if indices.dtype.kind not in "iu" and indices.size:
            raise TypeError(f"{name}: expected integers, got {indices.dtype}")
        if indices.size and (indices.min() < 0 or indices.max() >= self.num_embeddings):
            raise ValueError(
                f"{name}: expected values in [0, {self.num_embeddings}), "
                f"got {indices.min()}..{indices.max()}"
            )
        return indices.astype(np.intp, copy=False)
