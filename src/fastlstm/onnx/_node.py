"""What a node LSTM, GRU or RNN says, in the terms of the array API, and the other way round.

Decisions:
a) Blocks of weights are named by letters, in our order and in ONNX's, and moved by name. A block
   that only the other side has (the forget gate's, where it is coupled) is left out or 0.
b) ONNX's attributes are float32. A number is read as the shortest decimal that rounds to it, which
   is what was written: 0.3 and not 0.30000001.
c) An alpha or beta is consumed by each activation that has one and by no other, as in ONNX Runtime.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastlstm._args.arrays import check_array, check_real
from fastlstm._args.cells import PLAIN, find_cell, join_biases, split_bias
from fastlstm._args.numbers import (
    ACTIVATIONS,
    ActivationLike,
    check_activation,
    check_bound,
    shortest,
)

# our order of the gates, and ONNX's (which calls g "c")
GATES = {kind.upper(): (cell.gates, cell.onnx) for kind, cell in PLAIN.items()}
DEFAULT_ACTIVATIONS: dict[str, tuple[ActivationLike, ...]] = {
    kind.upper(): cell.activations for kind, cell in PLAIN.items()
}
REVERSED = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}

# ONNX's name of each activation; ONNX Runtime, and so this module, ignores the case in reading
ONNX_NAMES = {name: "".join(map(str.capitalize, name.split("_"))) for name in ACTIVATIONS}
OUR_NAMES = {theirs.lower(): ours for ours, theirs in ONNX_NAMES.items()}

Options = dict[str, Any]


class Node(NamedTuple):
    """What the attributes of a node say.

    `options` holds, for each direction, keyword arguments of lstm_forward, gru_forward or
    rnn_forward; `hidden_size` is None where the node leaves it to the shapes.
    """

    kind: str
    reverse: tuple[bool, ...]
    options: tuple[Options, ...]
    batch_first: bool
    hidden_size: int | None


def read_node(kind: str, attributes: Mapping[str, Any]) -> Node:
    """Return what a node of this kind with these attributes says; None is "not given"."""
    given = {name: value for name, value in attributes.items() if value is not None}
    direction, layout = given.get("direction", "forward"), given.get("layout", 0)
    if direction not in REVERSED:
        raise ValueError(f"direction: expected one of {', '.join(REVERSED)}, got {direction!r}")
    if layout not in (0, 1):
        raise ValueError(f"layout: expected 0 or 1, got {layout}")
    reverse = REVERSED[direction]
    clip = check_bound("clip", decimal(given["clip"]) if "clip" in given else None)

    directions = []
    for activations in _read_activations(kind, given, len(reverse)):
        options: Options = {"clip": clip}
        if kind == "RNN":
            options["nonlinearity"] = activations[0]
        else:
            options["activations"] = activations
        if kind == "LSTM":
            options["coupled"] = bool(given.get("input_forget", 0))
        if kind == "GRU":
            options["reset_after"] = bool(given.get("linear_before_reset", 0))
        directions.append(options)
    return Node(kind, reverse, tuple(directions), bool(layout), given.get("hidden_size"))


def decimal(value: float) -> float:
    """Return the shortest decimal that has the float32 `value`."""
    return float(str(np.float32(value)))


def _read_activations(
    kind: str, given: Mapping[str, Any], directions: int
) -> Iterable[tuple[ActivationLike, ...]]:
    per_direction = len(DEFAULT_ACTIVATIONS[kind])
    names = given.get("activations")
    if not names or (kind == "RNN" and list(names) == ["Tanh", "Tanh"]):
        # the second is the operator RNN's declared default, also for one direction
        return [DEFAULT_ACTIVATIONS[kind]] * directions
    if len(names) != per_direction * directions:
        raise ValueError(
            f"activations: expected {per_direction * directions} names for {kind} in {directions} "
            f"direction(s), got {len(names)}"
        )
    parameters = [iter(given.get(f"activation_{name}") or ()) for name in ("alpha", "beta")]
    read = [_read_activation(name, parameters) for name in names]
    return [tuple(read[d * per_direction : (d + 1) * per_direction]) for d in range(directions)]


def _read_activation(name: str, parameters: list[Iterator[float]]) -> ActivationLike:
    ours = OUR_NAMES.get(name.lower())
    if ours is None:
        raise ValueError(
            f"activations: expected some of {', '.join(ONNX_NAMES.values())}, got {name!r}"
        )
    pairs = zip(parameters, ACTIVATIONS[ours], strict=False)
    numbers = [decimal(next(source, default)) for source, default in pairs]
    return shortest(check_activation("activations", (ours, *numbers)))


def write_attributes(
    kind: str, options: Mapping[str, Any], hidden_size: int, direction: str
) -> dict[str, Any]:
    """Return the attributes of a node from what a layer gives the core as its cell's options."""
    attributes: dict[str, Any] = {"hidden_size": hidden_size, "direction": direction}
    if options["clip"] is not None:
        attributes["clip"] = options["clip"]
    if options.get("coupled"):
        attributes["input_forget"] = 1
    if options.get("reset_after"):
        attributes["linear_before_reset"] = 1
    activations = list(options["activations"]) * len(REVERSED[direction])
    attributes["activations"] = [ONNX_NAMES[name] for name, _, _ in activations]
    alphas = [alpha for name, alpha, _ in activations if len(ACTIVATIONS[name]) > 0]
    betas = [beta for name, _, beta in activations if len(ACTIVATIONS[name]) > 1]
    given = {"activation_alpha": alphas, "activation_beta": betas}
    return attributes | {name: values for name, values in given.items() if values}


class Weights(NamedTuple):
    """A node's weights as ONNX has them, D directions: None where a node has none."""

    W: NDArray[Any]  # (D, G * H, I)
    R: NDArray[Any]  # (D, G * H, H)
    B: NDArray[Any] | None  # (D, 2 * G * H)
    P: NDArray[Any] | None  # (D, 3 * H)


def check_weights(
    node: Node,
    W: ArrayLike,
    R: ArrayLike,
    B: ArrayLike | None = None,
    P: ArrayLike | None = None,
) -> Weights:
    """Return a node's weights if they fit together."""
    W, R, D = check_real("W", W), check_real("R", R), len(node.reverse)
    G = len(GATES[node.kind][0])
    H = R.shape[-1] if R.ndim else 0
    if node.hidden_size not in (None, H):
        raise ValueError(f"hidden_size: expected {H}, the width of R, got {node.hidden_size}")
    if R.shape != (D, G * H, H) or not H:
        raise ValueError(f"R: expected ({D}, {G} * H, H) with H >= 1, got {R.shape}")
    if W.ndim != 3 or W.shape[:2] != (D, G * H):
        raise ValueError(f"W: expected ({D}, {G * H}, I), got {W.shape}")
    check_array("R", R, R.shape, W.dtype)
    return Weights(
        W,
        R,
        None if B is None else check_array("B", B, (D, 2 * G * H), W.dtype),
        None if P is None else check_array("P", P, (D, 3 * H), W.dtype),
    )


def read_weights(node: Node, weights: Weights, d: int) -> dict[str, NDArray[Any]]:
    """Return the arrays that direction `d` has, as arguments of the array API."""
    options, onnx = node.options[d], GATES[node.kind][1]
    ours = our_gates(node.kind, options)
    arrays = {
        "w_ih": move_blocks(weights.W[d], onnx, ours),
        "w_hh": move_blocks(weights.R[d], onnx, ours),
    }
    if weights.B is not None:
        biases = (move_blocks(part, onnx, ours) for part in np.split(weights.B[d], 2))
        arrays["b"] = join_biases(find_cell(node.kind.lower(), options), *biases)
    if weights.P is not None:
        peephole = move_blocks(weights.P[d], "iof", ours.replace("g", ""))
        arrays["peephole"] = peephole.reshape(-1, weights.R.shape[2])
    return arrays


def write_weights(
    kind: str,
    options: Mapping[str, Any],
    w_ih: NDArray[Any],
    w_hh: NDArray[Any],
    b: NDArray[Any] | None = None,
    peephole: NDArray[Any] | None = None,
) -> list[NDArray[Any] | None]:
    """Return W, R, B and P of one direction from arguments of the array API."""
    ours, onnx = our_gates(kind, options), GATES[kind][1]
    B = P = None
    if b is not None:
        biases = split_bias(find_cell(kind.lower(), options), b)
        B = np.concatenate([move_blocks(part, ours, onnx) for part in biases])
    if peephole is not None:
        P = move_blocks(peephole.reshape(-1), ours.replace("g", ""), "iof")
    return [move_blocks(w_ih, ours, onnx), move_blocks(w_hh, ours, onnx), B, P]


def our_gates(kind: str, options: Mapping[str, Any]) -> str:
    """Return the gates in our order; a coupled forget gate has no weights."""
    return find_cell(kind.lower(), options).gates


def move_blocks(a: NDArray[Any], before: str, after: str) -> NDArray[Any]:
    """Return `a`, whose rows are one block for each letter of `before`, in the order of `after`.

    Examples
    --------
    >>> import numpy as np
    >>> move_blocks(np.array([1, 2, 3]), "iof", "ifo")
    array([1, 3, 2])
    >>> move_blocks(np.array([1, 2]), "io", "iof")
    array([1, 2, 0])
    """
    blocks = dict(zip(before, np.split(a, len(before)), strict=True))
    zeros = np.zeros_like(blocks[before[0]])
    return np.concatenate([blocks.get(letter, zeros) for letter in after])
