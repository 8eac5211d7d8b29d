"""The layers in plain NumPy: the specification in code, and the baseline of the benchmarks.

Each line of the models stands here under the same letters (docs/design.md), a file for each
cell: `_lstm`, `_gru`, `_rnn`. The functions take and return what those of the same name in
`fastlstm` do. In `plain` are the cells without options, a few lines each, to learn from.

Decisions:
a) A loop over time and over nothing else; the input's product and the gradients of the weights
   and of x are single matrix products over all steps of all rows.
b) Ragged rows need no second algorithm: at time t only the rows with ``t < lengths[b]`` take part,
   and the others keep their state. In reverse, t runs from T - 1 down to 0 and the same rule makes
   each row start at its own end.
c) One step of a cell is one function forward and one backward. Between them stands a named tuple
   of what the backward equations read, under their names; the tape is a list of these.
d) What all cells share, zoneout and the mask of variational dropout, is around the cell, in the
   loops: the cell gets ``h' = dropout_h * h_{t-1}`` and gives ``h~``.
e) Every array has the dtype of x.
"""

from fastlstm.reference._activations import sigmoid
from fastlstm.reference._gru import gru_backward, gru_forward
from fastlstm.reference._lstm import lstm_backward, lstm_forward
from fastlstm.reference._rnn import rnn_backward, rnn_forward

__all__ = [
    "gru_backward",
    "gru_forward",
    "lstm_backward",
    "lstm_forward",
    "rnn_backward",
    "rnn_forward",
    "sigmoid",
]
