"""From a model to layers: see which recurrent nodes are a stack, make a layer of each stack."""

import os
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx

from fastlstm._args.cells import PARAMETERS
from fastlstm._layers.from_params import assemble
from fastlstm.onnx._graph import read_graph
from fastlstm.onnx._node import read_weights
from fastlstm.onnx._parts import Part, find_parts

NAMES = {argument: name for argument, (name, _) in PARAMETERS.items()}
LONGEST = 1000  # characters of a message, which may quote the file


def load(source: Any) -> Any:
    """Load the recurrent part of an ONNX model as one layer.

    Nodes LSTM, GRU and RNN that feed one another through nothing but a change of shape, as the
    exporters of PyTorch and Keras write a stack, become the layers of one `LSTM`, `GRU` or `RNN`
    with ``num_layers``. All attributes of the operators are understood. Initial states and lengths
    that are inputs of the model are arguments of the layer's call; its state has the shape
    (num_layers * num_directions, B, H) also where the node has ``layout=1``. What the model
    computes before and after is not loaded: `Backend` runs whole models.

    Parameters
    ----------
    source : path or onnx.ModelProto

    Returns
    -------
    LSTM, GRU or RNN
        ``batch_first`` if the nodes have ``layout=1`` or read a Transpose that swaps B and T.

    Raises
    ------
    ValueError
        If the source is not a model, is malformed, has no or more than one recurrent part (see
        `load_all`), or has something that a layer cannot represent: weights that are not constant,
        or neither float32 nor float64, initial states or lengths that are constant, other
        activations in the other direction. About a file the message begins with its path.
    TypeError
        If `source` is of another type, or the weights of a ModelProto are.
    OSError
        If the file cannot be read.

    Notes
    -----
    A file need not be trusted: nothing in it is executed, data beside it are read from its own
    folder only, and what it asks for is bounded by 64 MiB and 16 times its size, all together.
    Models that fix T and B at large values may exceed that; leave them open. Before its version
    1.22 the package onnx itself crashes on some malformed models.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import fastlstm.onnx
    >>> path = Path(tempfile.mkdtemp()) / "gru.onnx"
    >>> fastlstm.onnx.export(fastlstm.GRU(3, 8, 2, bidirectional=True), path)
    >>> fastlstm.onnx.load(path)
    GRU(3, 8, num_layers=2, bidirectional=True)
    """
    layers = load_all(source)
    if len(layers) > 1:
        raise ValueError(
            f"{_name(source)}: expected one recurrent part, got {len(layers)}: "
            f"{', '.join(map(repr, layers))}; load_all returns them all"
        )
    return layers[0]


def load_all(source: Any) -> list[Any]:
    """Load every recurrent part of an ONNX model, in the order of its graph.

    As `load`, for models with several: an encoder and a decoder, or a stack whose layers differ in
    size, cell or options and so cannot be one layer.

    Parameters
    ----------
    source : path or onnx.ModelProto

    Returns
    -------
    list of LSTM, GRU and RNN
        In the order of the graph.

    Raises
    ------
    ValueError, TypeError, OSError
        As `load`.
    """
    name = _name(source)
    try:
        parts = find_parts(read_graph(source))
        if not parts:
            raise ValueError("source: expected a node LSTM, GRU or RNN in the graph, got none")
        return [make_layer(stack) for stack in find_stacks(parts)]
    except (ValueError, TypeError) as error:
        if name == "source":
            raise
        raise ValueError(f"{name}: {str(error).removeprefix('source: ')[:LONGEST]}") from error


def _name(source: Any) -> str:
    """Return how messages call a source: by its path, if it is one."""
    if isinstance(source, onnx.ModelProto):
        return "source"
    if isinstance(source, str | os.PathLike):
        return os.fspath(source)
    raise TypeError(f"source: expected a path or a ModelProto, got {type(source).__name__}")


def find_stacks(parts: Sequence[Part]) -> list[list[Part]]:
    """Return the parts in groups that can be the layers of one layer."""
    readers = Counter(part.below for part in parts)
    stacks: dict[int, list[Part]] = {}  # by the last part of each
    for k, part in enumerate(parts):
        below = part.below
        if below in stacks and readers[below] == 1 and fits(stacks[below][-1], part):
            stacks[k] = [*stacks.pop(below), part]
        else:
            stacks[k] = [part]
    return list(stacks.values())


def fits(below: Part, part: Part) -> bool:
    """Return whether two parts may differ in nothing but their parameters."""
    same_node = all(
        getattr(below.node, name) == getattr(part.node, name)
        for name in ("kind", "reverse", "options")
    )
    sizes_and_types = [(each.weights.R.shape, each.weights.R.dtype) for each in (below, part)]
    return same_node and sizes_and_types[0] == sizes_and_types[1] and below.lengths == part.lengths


def make_layer(stack: Sequence[Part]) -> Any:
    """Return a layer with the parameters of a stack."""
    node, weights = stack[0].node, stack[0].weights
    options = node.options[0]
    if any(other != options for other in node.options):
        raise ValueError(
            "activations: expected the same in both directions, for which a layer has one set, "
            f"got {' and '.join(str(each) for each in node.options)}"
        )
    bias = any(part.weights.B is not None for part in stack)
    peephole = any(part.weights.P is not None for part in stack)
    D, _, H = weights.R.shape
    params = {}
    for k, part in enumerate(stack):
        given = part.weights
        if bias and given.B is None:
            given = given._replace(B=np.zeros((D, 2 * given.W.shape[1]), given.W.dtype))
        if peephole and given.P is None:
            given = given._replace(P=np.zeros((D, 3 * H), given.W.dtype))
        for d in range(D):
            for argument, array in read_weights(node, given, d).items():
                params[f"{NAMES[argument]}_l{k}{'_reverse' if d else ''}"] = array
    config = {
        "input_size": weights.W.shape[2],
        "hidden_size": H,
        "num_layers": len(stack),
        "bias": bias,
        "batch_first": stack[0].batch_first,
        "bidirectional": D == 2,
        "reverse": node.reverse == (True,),
        "rng": 0,
    }
    if node.kind == "LSTM":
        config["peephole"] = peephole
    return assemble(node.kind.lower(), params, config | options)
