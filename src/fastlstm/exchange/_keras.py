"""Keras: kernels are transposed, a GRU's gates are in the order z, r, h, its biases two rows."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastlstm._args.cells import Cell, find_cell, join_biases, split_bias
from fastlstm._layers.from_params import assemble
from fastlstm._layers.recurrent import Recurrent
from fastlstm.exchange._arrays import (
    HARMLESS,
    cell_of,
    check_expressible,
    to_array,
)
from fastlstm.layers import GRU, LSTM, RNN

ACTIVATIONS: dict[str, Any] = {
    "elu": "elu",
    "hard_sigmoid": ("hard_sigmoid", 1 / 6, 0.5),
    "leaky_relu": ("leaky_relu", 0.2),
    "linear": "affine",
    "relu": "relu",
    "sigmoid": "sigmoid",
    "softplus": "softplus",
    "softsign": "softsign",
    "tanh": "tanh",
}


def from_keras(*layers: Any, **options: Any) -> LSTM | GRU | RNN:
    """Return a layer with the weights of recurrent layers of Keras.

    Parameters
    ----------
    *layers : keras.layers.LSTM, GRU, SimpleRNN or Bidirectional, or lists of arrays
        From the first to the last of a stack: Keras' layers, which must be built, or what their
        ``get_weights()`` returns.
    **options
        Arguments of the layer; ``batch_first`` is True unless given, as in Keras. A Keras layer
        tells its activations and dropouts. A list of arrays does not, and without a bias it does
        not even tell ``reset_after``.

    Returns
    -------
    LSTM, GRU or RNN
        With copies of the weights, in their dtype. Unlike Keras' layers it always returns the
        outputs of all steps and the final state.

    Raises
    ------
    ValueError, TypeError
        If a layer has what does not exist here, or a list is not of this kind.

    Examples
    --------
    >>> import fastlstm
    >>> from fastlstm.exchange import from_keras, to_keras
    >>> weights = to_keras(fastlstm.LSTM(3, 8, 2, bidirectional=True, rng=0))
    >>> from_keras(*weights)
    LSTM(3, 8, num_layers=2, batch_first=True, bidirectional=True)
    """
    if not layers:
        raise TypeError("layers: expected at least one")
    told: list[dict[str, Any]] = []
    params: dict[str, NDArray[Any]] = {}
    found: list[tuple[str, dict[str, Any]]] = []
    for k, layer in enumerate(layers):
        name = f"layers[{k}]"
        weights = layer
        if hasattr(layer, "get_weights"):
            told.append(_layer_options(name, layer))
            weights = layer.get_weights()
        if not isinstance(weights, Sequence) or len(weights) not in (2, 3, 4, 6):
            raise ValueError(f"{name}: expected a built layer, or a list of 2, 3, 4 or 6 arrays")
        arrays = [to_array(f"{name}[{i}]", array) for i, array in enumerate(weights)]
        D = 2 if len(arrays) > 3 else 1
        n = len(arrays) // D
        for suffix, own in zip((f"l{k}", f"l{k}_reverse"), (arrays[:n], arrays[n:]), strict=True):
            if own:
                cell, config = _read_direction(f"{name}, {suffix}", suffix, own, params)
                found.append((cell, config | {"bidirectional": D == 2}))
    for each in told:
        if each != told[0]:
            raise ValueError(f"layers: expected the same options, got {told[0]} and {each}")
    cell, config = found[0]
    for other, _ in found:
        if other != cell:
            raise ValueError(f"layers: expected one kind of cell, got {cell} and {other}")
    config |= {"num_layers": len(layers), "batch_first": True}
    return assemble(cell, params, config | (told[0] if told else {}) | options)


def to_keras(layer: Recurrent) -> list[list[NDArray[Any]]]:
    """Return the weights of a layer as Keras has them.

    Parameters
    ----------
    layer : LSTM, GRU or RNN

    Returns
    -------
    list of lists of arrays
        For each of the ``num_layers`` what ``set_weights`` of a Keras layer takes: of ``LSTM``,
        ``GRU`` or ``SimpleRNN``, or of ``Bidirectional`` with one of them. The arguments of those
        layers are not in it: units, ``use_bias``, ``reset_after``, activations.

    Raises
    ------
    ValueError
        If the layer has what Keras' do not have: a projection, peepholes, clips, zoneout.

    Examples
    --------
    >>> import fastlstm
    >>> from fastlstm.exchange import to_keras
    >>> [array.shape for array in to_keras(fastlstm.GRU(3, 8))[0]]
    [(3, 24), (8, 24), (2, 24)]
    """
    check_expressible(layer, "Keras", HARMLESS | {"reset_after", "activations", "nonlinearity"})
    cell = find_cell(layer.cell, layer._config())
    weights: list[list[NDArray[Any]]] = []
    for k in range(layer.num_layers):
        weights.append([])
        for suffix in layer._suffixes(k):
            for kind in ("weight_ih", "weight_hh"):
                weights[k].append(_reordered(cell, layer.params[f"{kind}_{suffix}"]).T.copy())
            if not layer.bias:
                continue
            bias = layer.params[f"bias_{suffix}"]
            if len(cell.bias) > cell.G:
                rows = [_reordered(cell, row) for row in split_bias(cell, bias)]
                weights[k].append(np.stack(rows))
            else:
                weights[k].append(_reordered(cell, bias).copy())
    return weights


def _reordered(cell: Cell, array: NDArray[Any]) -> NDArray[Any]:
    """Return the rows of a GRU in the order z, r, n for r, z, n, or the reverse."""
    if cell.kind != "gru":
        return array
    first, second, third = np.split(array, 3)
    return np.concatenate([second, first, third])


def _read_direction(
    name: str, suffix: str, arrays: list[NDArray[Any]], params: dict[str, NDArray[Any]]
) -> tuple[str, dict[str, Any]]:
    """Add to `params` the arrays of one direction; return its cell and what they tell."""
    kernel, recurrent, *biases = arrays
    if kernel.ndim != 2 or recurrent.ndim != 2 or kernel.shape[1] != recurrent.shape[1]:
        raise ValueError(
            f"{name}: expected kernels (I, N) and (H, N), got {kernel.shape} and {recurrent.shape}"
        )
    H, N = recurrent.shape
    cell = cell_of(name, N, H)
    config = {"input_size": len(kernel), "hidden_size": H, "bias": bool(biases)}
    params[f"weight_ih_{suffix}"] = _reordered(cell, kernel.T)
    params[f"weight_hh_{suffix}"] = _reordered(cell, recurrent.T)
    for bias in biases:
        two = cell.kind == "gru" and bias.ndim == 2
        if bias.shape != ((2, N) if two else (N,)):
            raise ValueError(f"{name}: expected a bias ({N},), got {bias.shape}")
        rows = [_reordered(cell, row) for row in np.atleast_2d(bias)]
        params[f"bias_{suffix}"] = join_biases(cell, *rows) if two else rows[0]
        if cell.kind == "gru":
            config["reset_after"] = two
    return cell.kind, config


def _layer_options(name: str, layer: Any) -> dict[str, Any]:
    """Return the arguments that a Keras layer tells and its weights do not."""
    if not hasattr(layer, "forward_layer"):
        return _direction_options(name, layer, False)
    if layer.merge_mode != "concat":
        raise ValueError(f"{name}: expected merge_mode='concat', got {layer.merge_mode!r}")
    forward = _direction_options(f"{name}.forward_layer", layer.forward_layer, False)
    backward = _direction_options(f"{name}.backward_layer", layer.backward_layer, True)
    if forward != backward:
        raise ValueError(f"{name}: expected directions alike, got {forward} and {backward}")
    return forward


def _direction_options(name: str, layer: Any, backwards: bool) -> dict[str, Any]:
    config = layer.get_config()
    if "units" not in config or "go_backwards" not in config:
        raise TypeError(
            f"{name}: expected LSTM, GRU, SimpleRNN or Bidirectional, got {type(layer).__name__}"
        )
    if config["go_backwards"] != backwards:
        raise ValueError(f"{name}: expected go_backwards={backwards}, got {not backwards}")
    activation = _activation(name, config["activation"])
    options = {
        "input_dropout": config["dropout"],
        "recurrent_dropout": config["recurrent_dropout"],
    }
    if "recurrent_activation" not in config:
        return options | {"nonlinearity": activation}
    gates = _activation(name, config["recurrent_activation"])
    if "reset_after" not in config:
        return options | {"activations": (gates, activation, activation)}
    return options | {"activations": (gates, activation), "reset_after": config["reset_after"]}


def _activation(name: str, kind: Any) -> Any:
    if not isinstance(kind, str) or kind not in ACTIVATIONS:
        known = ", ".join(ACTIVATIONS)
        raise ValueError(f"{name}: expected one of the activations {known}, got {kind!r}")
    return ACTIVATIONS[kind]
