"""Layers and networks in safetensors files: written whole or not at all, read without trust.

Needs safetensors (``pip install safetensors``).

Decisions:
a) The tensors are `params` under their names, so that any reader of safetensors finds them. The
   metadata has one entry, ``fastlstm``: JSON with the version of this layout, the cell and the
   arguments of its constructor. Nothing in a file is ever executed. A network has a list of such
   layers instead, and the names of tensors begin with the place of theirs: ``0.weight_ih_l0``. What
   is stored of an estimator is said in `estimators._stored`.
b) Whoever looks finds the old file or the new one, see `_args.atomic_write`.
c) The file is read, not mapped to memory: one that shrinks meanwhile is an error, not a SIGBUS.
d) Whatever is wrong within a file is a ValueError that begins with the path. That it cannot be
   opened is an OSError.
"""

import json
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastlstm._args.atomic_write import atomic_write
from fastlstm._args.numbers import shortest
from fastlstm._layers.from_params import assemble
from fastlstm._layers.recurrent import Recurrent
from fastlstm.layers import CELLS
from fastlstm.training import Linear

try:
    from safetensors import SafetensorError, safe_open
    from safetensors.numpy import save as to_bytes
except ImportError as _error:
    raise ImportError("fastlstm.files needs safetensors: pip install safetensors") from _error

__all__ = ["load", "save"]

VERSION = 1  # of the layout
DTYPES = ("F32", "F64")
NEEDED = {"input_size", "hidden_size", "num_layers"}  # all else has defaults
LONGEST = 1000  # characters of a message, which may quote the file


LINEAR = {"in_features", "out_features", "bias", "activation"}  # the arguments of a linear map

Layer = Recurrent | Linear


def save(layer: Any, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
    """Write a layer, a network of them, or a fitted estimator to a safetensors file.

    Parameters
    ----------
    layer : LSTM, GRU, RNN or Linear, a sequence of them, or an estimator
        Of an estimator all but the optimiser's moments, a callback and the index of pandas.
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
    about: dict[str, Any] = {"version": VERSION}
    params: dict[str, NDArray[Any]] = {}
    if type(layer).__module__.startswith("fastlstm.estimators."):
        from fastlstm.estimators._stored import to_store

        stored, params = to_store(layer)
        about |= stored
    elif isinstance(layer, list | tuple):
        if not layer:
            raise ValueError("layer: expected at least one, got none")
        about["network"] = [_about(f"layer[{k}]", each) for k, each in enumerate(layer)]
        for k, each in enumerate(layer):
            params |= {f"{k}.{name}": array for name, array in each.params.items()}
    else:
        about |= _about("layer", layer)
        params = dict(layer.params)
    with atomic_write(path, overwrite=overwrite) as file:
        file.write(to_bytes(params, {"fastlstm": json.dumps(about)}))


def _about(name: str, layer: Any) -> dict[str, Any]:
    """Return what a file says of a layer."""
    if isinstance(layer, Recurrent):
        return {"cell": layer.cell, "config": layer._config()}
    if not isinstance(layer, Linear):
        raise TypeError(f"{name}: expected LSTM, GRU, RNN or Linear, got {type(layer).__name__}")
    config = {each: getattr(layer, each) for each in LINEAR}
    if layer.activation is not None:
        config["activation"] = shortest(layer.activation)
    return {"cell": "linear", "config": config}


def load(path: str | os.PathLike[str], *, rng: np.random.Generator | int | None = None) -> Any:
    """Return the layer, network or estimator that `save` wrote.

    Parameters
    ----------
    path : path-like
    rng : None, int or numpy.random.Generator
        Of the layer, for dropout and zoneout in training; a file has none.

    Returns
    -------
    LSTM, GRU, RNN or Linear, a list of them, or an estimator
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
        return _assembled(_check_version(about), params, rng)
    except (SafetensorError, ValueError, TypeError, OverflowError, RecursionError) as error:
        raise ValueError(f"{path}: {str(error)[:LONGEST]}") from error


def _read(path: str) -> tuple[str, dict[str, NDArray[Any]]]:
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


def _check_version(text: str) -> dict[str, Any]:
    """Return the metadata, of the layout that we know."""
    about = json.loads(text)
    if not isinstance(about, dict) or about.get("version") != VERSION:
        raise ValueError(f"metadata: expected version {VERSION}, got {text}")
    return about


def _assembled(
    about: dict[str, Any], params: dict[str, NDArray[Any]], rng: np.random.Generator
) -> Any:
    if "estimator" in about:
        return _estimator(about, params)
    if "network" not in about:
        return _layer(about, params, rng)
    network = about["network"]
    if not isinstance(network, list) or not network or len(network) > len(params):
        raise ValueError(f"network: expected a list of layers, got {network!r}")
    parts: list[dict[str, NDArray[Any]]] = [{} for _ in network]
    for name, array in params.items():
        place, _, own = name.partition(".")
        if not place.isascii() or not place.isdigit() or int(place) >= len(network):
            raise ValueError(f"{name}: expected a layer's number before its name")
        parts[int(place)][own] = array
    return [_layer(each, own, rng) for each, own in zip(network, parts, strict=True)]


def _layer(about: Any, params: dict[str, NDArray[Any]], rng: np.random.Generator) -> Layer:
    if not isinstance(about, dict):
        raise ValueError(f"layer: expected cell and config, got {about!r}")
    if about.get("cell") == "linear":
        return _linear(about.get("config"), params)
    cell, config = _check_about(about)
    return assemble(cell, params, config | {"rng": rng})


def _linear(config: Any, params: dict[str, NDArray[Any]]) -> Linear:
    """Return a linear map; no memory is asked for before every array has its shape."""
    if not isinstance(config, dict) or config.keys() != LINEAR:
        raise ValueError(f"config: expected {', '.join(sorted(LINEAR))}, got {config!r}")
    if not isinstance(config["bias"], bool):
        raise ValueError(f"bias: expected true or false, got {config['bias']!r}")
    names = {"weight", "bias"} if config["bias"] else {"weight"}
    if params.keys() != names or len({array.dtype for array in params.values()}) != 1:
        raise ValueError(f"parameters: expected {sorted(names)} of one type, got {sorted(params)}")
    linear = Linear.__new__(Linear)
    activation = config["activation"]
    activation = tuple(activation) if isinstance(activation, list) else activation
    linear._configure(
        config["in_features"],
        config["out_features"],
        config["bias"],
        params["weight"].dtype,
        activation,
    )
    J, K = linear.out_features, linear.in_features
    for name, shape in {"weight": (J, K), "bias": (J,)}.items():
        if name in params and params[name].shape != shape:
            raise ValueError(f"{name}: expected {shape}, got {params[name].shape}")
    linear._own(np.concatenate([params[name].ravel() for name in sorted(names, reverse=True)]))
    return linear


def _check_about(about: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the cell and the arguments of its constructor from the metadata."""
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


def _estimator(about: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> Any:
    from fastlstm.estimators._stored import from_store

    try:
        return from_store(about, arrays)
    except (AttributeError, KeyError) as error:
        raise ValueError(f"estimator: {type(error).__name__}: {error}") from error
