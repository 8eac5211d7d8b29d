"""The cells and their variants that tests run: one table, a row each.

A row makes the arguments of the array functions (``fastlstm`` and ``fastlstm.reference`` alike), of
a plan of the C API and of a layer, so that whatever is promised of every cell is tested on the same
ones. A new cell or variant is a row here, and a line where its arrays or options are made.
"""

from typing import NamedTuple

import numpy as np
import pytest
from helpers import normal

import fastlstm

GATES = {"lstm": 4, "gru": 3, "rnn": 1}
STATES = {"lstm": ("h_0", "c_0"), "gru": ("h_0",), "rnn": ("h_0",)}
MASKED = ("masks", "dropout")  # what belongs to a call: neither a layer nor a plan has it
EVERY_LSTM = ("peephole", "projection", "layer norm", "cell clip", "proj clip", "activations")
PARAMETERS = {"projection": "w_proj", "layer norm": "layer_norm"}  # variants: names in functions
ACTIVATIONS = {
    "lstm": ("hard_sigmoid", "softsign", ("scaled_tanh", 1.7, 0.6)),
    "gru": (("hard_sigmoid", 0.3), "softsign"),
}


class Cell(NamedTuple):
    """One of the three functions, and what makes it differ from the plain cell."""

    kind: str
    variants: tuple[str, ...] = ()

    @property
    def gates(self):
        return 3 if "coupled" in self.variants else GATES[self.kind]

    @property
    def states(self):
        """Names of the initial states, in the order of the final ones."""
        return STATES[self.kind]

    @property
    def final_gradients(self):
        """Names of the gradients of the final states."""
        return tuple(f"d{name[0]}_n" for name in self.states)

    def output_size(self, H):
        return 1 + H // 2 if "projection" in self.variants else H

    def arguments(self, rng, T, B, I, H, dtype=np.float64, *, bias=True, state=True):
        """Return the arrays that have gradients, the weights on the scale of trained ones, and the
        options of a call.
        """
        G, R = self.gates, self.output_size(H)
        arrays = {
            "x": normal(rng, (T, B, I), dtype),
            "w_ih": normal(rng, (G * H, I), dtype, 1.5 / np.sqrt(max(I, 1))),
            "w_hh": normal(rng, (G * H, R), dtype, 1.5 / np.sqrt(R)),
        }
        if bias:
            within_reset = self.kind == "gru" and "reset before" not in self.variants
            arrays["b"] = normal(rng, (G + within_reset) * H, dtype)
        if state:
            widths = {"h_0": R, "c_0": H}
            arrays |= {name: normal(rng, (B, widths[name]), dtype) for name in self.states}
        shapes = {"peephole": (G - 1, H), "projection": (R, H), "layer norm": (2 * G + 2, H)}
        for variant, shape in shapes.items():
            if variant in self.variants:
                scale = 1 / np.sqrt(H) if variant == "projection" else 1.0
                arrays[PARAMETERS.get(variant, variant)] = normal(rng, shape, dtype, scale)
        return arrays, self.options() | self.masks(rng, T, B, H, dtype)

    def options(self):
        """Return the options of the functions that a plan of the C API has too."""
        options = {
            "coupled": {"coupled": True},
            "cell clip": {"cell_clip": 0.8},
            "proj clip": {"proj_clip": 0.3},
            "zoneout": {"zoneout_h": 0.1} | ({"zoneout_c": 0.3} if self.kind == "lstm" else {}),
            "activations": {"activations": ACTIVATIONS.get(self.kind)},
            "reset before": {"reset_after": False},
            "relu": {"nonlinearity": "relu"},
        }
        return {k: v for name in self.variants for k, v in options.get(name, {}).items()}

    def masks(self, rng, T, B, H, dtype):
        """Return what is drawn for a call."""
        R, masks = self.output_size(H), {}
        if "masks" in self.variants:
            masks["zoneout_h"] = rng.integers(0, 2, (T, B, R)).astype(dtype)
            if self.kind == "lstm":
                masks["zoneout_c"] = rng.integers(0, 2, (T, B, H)).astype(dtype)
        if "dropout" in self.variants:
            masks["dropout_h"] = 2 * rng.integers(0, 2, (B, R)).astype(dtype)
        return masks

    def layer_class(self, module=fastlstm):
        return getattr(module, self.kind.upper())

    def layer_options(self, H):
        """Return what a layer's constructor takes besides sizes."""
        options = self.options()
        if "projection" in self.variants:
            options["proj_size"] = self.output_size(H)
        return options | {
            PARAMETERS.get(name, name): True
            for name in self.variants
            if name in ("peephole", "layer norm")
        }

    def layer(self, I, H, **more):
        return self.layer_class()(I, H, **self.layer_options(H), **more)

    def state_of(self, rng, layer, B):
        """Return a random state of a layer as its call takes it: h, or h and c."""
        H, D = layer.hidden_size, 2 if layer.bidirectional else 1
        widths = (self.output_size(H), H)[: len(self.states)]
        parts = tuple(normal(rng, (layer.num_layers * D, B, w), layer.dtype) for w in widths)
        return parts if len(parts) == 2 else parts[0]

    def forward(self, module, arguments, options):
        """Return y and the last states; by which module of array functions."""
        return getattr(module, f"{self.kind}_forward")(**arguments, **options)[:-1]

    def both(self, module, arguments, options, upstream):
        """Return y and the last states, and the gradients for those of the outputs."""
        run = getattr(module, f"{self.kind}_forward")
        *outputs, tape = run(**arguments, **options, training=True)
        backward = getattr(module, f"{self.kind}_backward")
        return tuple(outputs), backward(tape, **upstream)

    def upstream(self, rng, T, B, H, dtype=np.float64):
        """Return random dy, dh_n and perhaps dc_n."""
        R = self.output_size(H)
        shapes = {"dy": (T, B, R), "dh_n": (B, R), "dc_n": (B, H)}
        return {name: normal(rng, shapes[name], dtype) for name in ("dy", *self.final_gradients)}


CELLS = {
    "lstm": Cell("lstm"),
    "lstm peephole": Cell("lstm", ("peephole",)),
    "lstm projection": Cell("lstm", ("projection",)),
    "lstm layer norm": Cell("lstm", ("layer norm",)),
    "lstm coupled": Cell("lstm", ("coupled",)),
    "lstm cell clip": Cell("lstm", ("cell clip",)),
    "lstm proj clip": Cell("lstm", ("projection", "proj clip")),
    "lstm activations": Cell("lstm", ("activations",)),
    "lstm zoneout": Cell("lstm", ("zoneout",)),
    "lstm masks": Cell("lstm", ("masks",)),
    "lstm dropout": Cell("lstm", ("dropout",)),
    "lstm everything": Cell("lstm", EVERY_LSTM),
    "lstm everything, masks": Cell("lstm", (*EVERY_LSTM, *MASKED)),
    "lstm everything, coupled": Cell("lstm", (*EVERY_LSTM, "coupled", "zoneout")),
    "lstm everything, coupled, masks": Cell("lstm", (*EVERY_LSTM, "coupled", *MASKED)),
    "gru": Cell("gru"),
    "gru zoneout": Cell("gru", ("zoneout",)),
    "gru activations, masks": Cell("gru", ("activations", *MASKED)),
    "gru reset before": Cell("gru", ("reset before",)),
    "gru reset before, activations, masks": Cell("gru", ("reset before", "activations", *MASKED)),
    "rnn": Cell("rnn"),
    "rnn relu": Cell("rnn", ("relu",)),
    "rnn zoneout": Cell("rnn", ("zoneout",)),
    "rnn relu, masks": Cell("rnn", ("relu", *MASKED)),
}
PLAIN = {kind: CELLS[kind] for kind in GATES}
LAYERS = {name: cell for name, cell in CELLS.items() if not {*MASKED} & {*cell.variants}}
IN_PYTORCH = ("lstm", "lstm projection", "gru", "rnn", "rnn relu")


def lstm_arguments(rng, T, B, I, H, dtype=np.float64):
    """Return the arguments of the plain LSTM."""
    return CELLS["lstm"].arguments(rng, T, B, I, H, dtype)[0]


def part_of(group, rows=slice(None), steps=slice(None)):
    """Return arguments or options for some rows of the batch, and some steps."""
    parts = {}
    for name, value in group.items():
        if isinstance(value, np.ndarray):
            if name in ("x", "zoneout_h", "zoneout_c"):
                value = value[steps][:, rows]
            elif name in ("h_0", "c_0", "dropout_h"):
                value = value[rows]
        parts[name] = value
    return parts


def each_of(table):
    """Parametrize a test with the cells of a table, or of CELLS by their names."""
    table = table if isinstance(table, dict) else {name: CELLS[name] for name in table}
    return pytest.mark.parametrize("cell", list(table.values()), ids=list(table))


each_cell = each_of(CELLS)
each_kind = each_of(PLAIN)  # where variants make no difference
each_layer = each_of(LAYERS)
