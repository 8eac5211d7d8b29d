"""A layer made of given parameters, for everything that brings some from elsewhere.

Decision: a layer takes its arguments first and its memory last. So none is asked for before every
array has the shape that the sizes, whoever wrote them, demand.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastlstm._args.arrays import REAL_DTYPES
from fastlstm.layers import CELLS, GRU, LSTM, RNN


def _names(names: set[str]) -> str:
    return ", ".join(sorted(names)) or "none"


def assemble(
    cell: str, params: Mapping[str, NDArray[Any]], config: Mapping[str, Any]
) -> LSTM | GRU | RNN:
    """Return a layer with copies of these parameters.

    Parameters
    ----------
    cell : str
        A key of `CELLS`.
    params : mapping
        All of the layer's, under its names, of one dtype.
    config : mapping
        Arguments of the constructor, sizes included, but for ``dtype`` and ``forget_bias``, on
        which the parameters decide.

    Raises
    ------
    ValueError, TypeError
        If a parameter is missing, not known, or not of the shape or type that it should be, or an
        argument is out of its range.
    """
    if not params:
        raise ValueError("parameters: expected some, got none")
    dtype = next(iter(params.values())).dtype
    for name, array in params.items():
        if array.dtype not in REAL_DTYPES or array.dtype != dtype:
            wanted = dtype if dtype in REAL_DTYPES else "float32 or float64"
            raise TypeError(f"{name}: expected {wanted}, got {array.dtype}")
    layer = CELLS[cell].__new__(CELLS[cell])
    plain = layer._defaults()
    known = [*(name for name in plain if name != "dtype"), "rng"]
    for name in config:
        if name not in known:
            raise TypeError(f"{name}: expected one of {', '.join(known)}")
    layer._configure({**plain, **config, "dtype": dtype})
    if layer.num_layers > len(params):
        raise ValueError(
            f"num_layers: expected no more than the {len(params)} parameters there are, "
            f"got {layer.num_layers}"
        )
    shapes = layer._shapes()
    missing, unknown = shapes.keys() - params.keys(), params.keys() - shapes.keys()
    if missing or unknown:
        raise ValueError(
            f"parameters: expected those of {layer!r}; missing: {_names(missing)}; "
            f"unexpected: {_names(unknown)}"
        )
    for name, shape in shapes.items():
        if params[name].shape != shape:
            raise ValueError(f"{name}: expected {shape}, got {params[name].shape}")
    layer._rng = np.random.default_rng(config.get("rng"))
    layer._own(np.concatenate([params[name].ravel() for name in shapes]))
    return layer
