"""From a model to layers: see which recurrent nodes are a stack, make a layer of each stack."""

from collections.abc import Sequence
from typing import Any

from fastlstm.layers import CELLS
from fastlstm.onnx._graph import Graph, read_model
from fastlstm.onnx._node import read_weights
from fastlstm.onnx._parts import Part, find_parts


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
        initial states or lengths that are constant, other activations in the other direction.
    TypeError
        If the weights are neither float32 nor float64.
    OSError
        If the file cannot be read.

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
            f"source: expected one recurrent part, got {len(layers)}: "
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

    Raises
    ------
    ValueError, TypeError, OSError
        As `load`.
    """
    parts = find_parts(Graph(read_model(source)))
    if not parts:
        raise ValueError("source: expected a node LSTM, GRU or RNN in the graph, got none")
    return [make_layer(stack) for stack in find_stacks(parts)]


def find_stacks(parts: Sequence[Part]) -> list[list[Part]]:
    """Return the parts in groups that can be the layers of one layer."""
    readers = [sum(part.below == k for part in parts) for k in range(len(parts))]
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
    if node.kind == "LSTM":
        options = options | {"peephole": any(part.weights.P is not None for part in stack)}
    layer: Any = CELLS[node.kind.lower()](
        weights.W.shape[2],
        weights.R.shape[2],
        len(stack),
        bias=any(part.weights.B is not None for part in stack),
        batch_first=stack[0].batch_first,
        bidirectional=len(node.reverse) == 2,
        reverse=node.reverse == (True,),
        dtype=weights.W.dtype,
        rng=0,
        **options,
    )
    for k, part in enumerate(stack):
        for d, names in enumerate(layer._names[k]):
            arrays = read_weights(part.node, part.weights, d)
            for argument, name in names.items():
                layer.params[name][...] = arrays.get(argument, 0)
    return layer
