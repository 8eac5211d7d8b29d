"""Where Keras' recurrent layers loop over time, and which of these calls are for the core.

Decisions:
a) The hook is `inner_loop`, the method that Keras itself has for fast loops. Arguments, states,
   dropout masks and Bidirectional around it stay Keras' business.
b) Which call is for the core is asked of the cell and of the tensors, at each call: a layer may be
   changed. A subclass of a cell may compute what it likes, and is left to Keras.
"""

import functools
from collections import Counter
from typing import Any

import keras
from keras import ops

from fastlstm._args.cells import GRU, LSTM, RNN, Cell
from fastlstm.keras import _torch

LAYERS: dict[Any, tuple[type, Cell]] = {
    keras.layers.LSTM: (keras.layers.LSTMCell, LSTM),
    keras.layers.GRU: (keras.layers.GRUCell, GRU),
    keras.layers.SimpleRNN: (keras.layers.SimpleRNNCell, RNN),
}
SIGMOID = (keras.activations.sigmoid, ops.sigmoid)
NONLINEARITY: dict[Any, str] = {keras.activations.tanh: "tanh", ops.tanh: "tanh"}
NONLINEARITY |= {keras.activations.relu: "relu", ops.relu: "relu"}

calls: Counter[str] = Counter()
"""How many calls ran here, by the name of the layer's class, and, as ``"Keras: reason"``, how many
did not. Calls on symbolic tensors, by which Keras learns shapes, do not count."""

_own: dict[Any, Any] = {}  # Keras' methods while ours are in their place; None where inherited


def enable() -> None:
    """Let Keras' recurrent layers run here; importing this package does."""
    for layer in LAYERS:
        if layer not in _own:
            _own[layer] = vars(layer).get("inner_loop")
            layer.inner_loop = _hooked(layer, layer.inner_loop)


def disable() -> None:
    """Let Keras' recurrent layers run as they would without this package."""
    for layer, method in _own.items():
        if method is None:
            del layer.inner_loop
        else:
            layer.inner_loop = method
    _own.clear()


def _hooked(layer_class: Any, theirs: Any) -> Any:
    cell_class, cell = LAYERS[layer_class]

    @functools.wraps(theirs)
    def inner_loop(
        self: Any, sequences: Any, initial_state: Any, mask: Any, training: bool = False
    ) -> Any:
        states = initial_state if isinstance(initial_state, (list, tuple)) else [initial_state]
        if isinstance(mask, (list, tuple)):
            mask = mask[0]
        foreign, arrays = _foreign(self, cell_class, mask, training), []
        if foreign is None:
            if self.stateful:  # Keras writes into them
                states = list(map(ops.copy, states))
            arrays = [*states, *_weights(self.cell)]
            foreign = _torch.foreign(sequences, arrays)
        if foreign is not None:
            if foreign != _torch.SYMBOLIC:
                calls[f"Keras: {foreign}"] += 1
            return theirs(self, sequences, initial_state, mask, training)
        if mask is not None:
            mask = ops.reshape(ops.cast(mask, "bool"), ops.shape(sequences)[:2])
        if training and self.cell.dropout:
            sequences = sequences * self.cell.get_dropout_mask(sequences[:, 0, :])[:, None]
        if self.go_backwards:
            sequences = ops.flip(sequences, 1)
            mask = None if mask is None else ops.flip(mask, 1)
        calls[layer_class.__name__] += 1
        y, states = _torch.run(cell, NONLINEARITY[self.cell.activation], sequences, mask, arrays)
        if mask is not None and self.zero_output_for_mask:
            y = ops.where(mask[..., None], y, 0)
        last = y[:, -1]
        return last, y if self.return_sequences else last[:, None], list(states)

    return inner_loop


def _foreign(layer: Any, cell_class: Any, mask: Any, training: bool) -> str | None:
    """Return what there is about a layer that only Keras can do."""
    cell: Any = layer.cell
    if type(cell) is not cell_class:
        return "a cell of another class"
    gates = getattr(cell, "recurrent_activation", None)
    nonlinearity = NONLINEARITY.get(cell.activation)
    if nonlinearity is None or (gates is not None and nonlinearity != "tanh"):
        return "activations"
    if gates not in (None, *SIGMOID):
        return "activations"
    if not getattr(cell, "reset_after", True):
        return "reset_after=False"
    if training and cell.recurrent_dropout:
        return "recurrent dropout"
    if getattr(layer, "use_cudnn", None) is True:
        return "use_cudnn=True"
    if layer.unroll and mask is not None:
        return "unroll with a mask"
    return None


def _weights(cell: Any) -> list[Any]:
    """Return kernel, recurrent kernel and bias, perhaps None, as arrays of the backend."""
    given = cell.kernel, cell.recurrent_kernel, cell.bias
    return [None if w is None else ops.convert_to_tensor(w) for w in given]
