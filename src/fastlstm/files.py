"""Layers in safetensors files: written whole or not at all, read without trust.

Needs safetensors (``pip install 'fastlstm[safetensors]'``).

Decisions:
a) The tensors are `params` under their names, so that any reader of safetensors finds them. The
   metadata has one entry, ``fastlstm``: JSON with the version of this layout, the cell and the
   arguments of its constructor. Nothing in a file is ever executed.
b) Whoever looks finds the old file or the new one, see `_args.atomic_write`.
c) The file is read, not mapped to memory: one that shrinks meanwhile is an error, not a SIGBUS.
d) Whatever is wrong within a file is a ValueError that begins with the path. That it cannot be
   opened is an OSError.
"""

import json
import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastlstm._args.atomic_write import atomic_write
from fastlstm._layers.from_params import assemble
from fastlstm._layers.recurrent import Recurrent
from fastlstm.layers import CELLS, GRU, LSTM, RNN

try:
    from safetensors import SafetensorError, safe_open
    from safetensors.numpy import save as to_bytes
except ImportError as error:
    raise ImportError("fastlstm.files needs safetensors: pip install safetensors") from error

__all__ = ["load", "save"]

VERSION = 1  # of the layout
DTYPES = ("F32", "F64")
NEEDED = {"input_size", "hidden_size", "num_layers"}  # all else has defaults
LONGEST = 1000  # characters of a message, which may quote the file


def save(layer: Recurrent, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
    """Write a layer to a safetensors file.

    Parameters
    ----------
    layer : LSTM, GRU or RNN
    path : path-like
        A symbolic link stays, and leads to the new file.
    overwrite : bool
        Whether to replace a file that is there; its permissions remain.

    Raises
    ------
    FileExistsError
        If there is a file, or a link, and `overwrite` is False.
    OSError
        If it cannot be written, or `path` is no regular file; what was there is as it was.

    Examples
    --------
    >>> import tempfile
    >>> import fastlstm
    >>> from fastlstm.files import load, save
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     save(fastlstm.GRU(3, 8, 2, rng=0), f"{directory}/gru.safetensors")
    ...     load(f"{directory}/gru.safetensors")
    GRU(3, 8, num_layers=2)
    """
    if not isinstance(layer, Recurrent):
        raise TypeError(f"layer: expected LSTM, GRU or RNN, got {type(layer).__name__}")
    about = {"version": VERSION, "cell": layer.cell, "config": layer._config()}
    with atomic_write(path, overwrite=overwrite) as file:
        file.write(to_bytes(layer.params, {"fastlstm": json.dumps(about)}))


def load(
    path: str | os.PathLike[str], *, rng: np.random.Generator | int | None = None
) -> LSTM | GRU | RNN:
    """Return the layer that `save` wrote.

    Parameters
    ----------
    path : path-like
    rng : None, int or numpy.random.Generator
        Of the layer, for dropout and zoneout in training; a file has none.

    Returns
    -------
    LSTM, GRU or RNN
        As it was, to the bit.

    Raises
    ------
    ValueError
        If the file is not one that `save` wrote, whole and unchanged in form; the message begins
        with the path and names what is wrong.
    OSError
        If it cannot be read.
    """
    path, rng = os.fspath(path), np.random.default_rng(rng)
    try:
        about, params = _read(path)
        cell, config = _check_about(about)
        return assemble(cell, params, config | {"rng": rng})
    except (SafetensorError, ValueError, TypeError, OverflowError, RecursionError) as error:
        raise ValueError(f"{path}: {str(error)[:LONGEST]}") from error


def _read(path: str) -> tuple[str, dict[str, NDArray]]:
    """Return our metadata and the tensors."""
    with open(path, "rb"):
        pass  # for a plainer OSError than safetensors has
    with safe_open(path, framework="numpy", backend="pread") as file:
        about = (file.metadata() or {}).get("fastlstm")
        if about is None:
            raise ValueError("metadata: expected the entry fastlstm, which `save` writes")
        params = {}
        for name in file.keys():  # noqa: SIM118, it is no mapping
            kind = file.get_slice(name).get_dtype()
            if kind not in DTYPES:
                raise ValueError(f"{name}: expected float32 or float64, got {kind}")
            params[name] = file.get_tensor(name)
    return about, params


def _check_about(text: str) -> tuple[str, dict[str, Any]]:
    """Return the cell and the arguments of its constructor from the metadata."""
    about = json.loads(text)
    if not isinstance(about, dict) or about.get("version") != VERSION:
        raise ValueError(f"metadata: expected version {VERSION}, got {text}")
    cell, config = about.get("cell"), about.get("config")
    if not isinstance(cell, str) or cell not in CELLS:
        raise ValueError(f"cell: expected one of {', '.join(CELLS)}, got {cell!r}")
    if not isinstance(config, dict) or not config.keys() >= NEEDED:
        raise ValueError(f"config: expected at least {', '.join(sorted(NEEDED))}, got {config!r}")
    plain = CELLS[cell](1, 1)._config()
    for name, value in config.items():
        if name not in plain:
            raise ValueError(f"config: expected no {name!r}, which {cell} does not have")
        if isinstance(plain[name], bool) and not isinstance(value, bool):
            raise ValueError(f"{name}: expected true or false, got {value!r}")
    return cell, config
