"""A forward and a backward call through ctypes, compared with Python's."""

from ctypes import byref, sizeof

import numpy as np

import fastlstm
from fastlstm import capi

T, B, I, H = 50, 4, 3, 16
rng = np.random.default_rng(0)
shapes = {"x": (T, B, I), "w_ih": (4 * H, I), "w_hh": (4 * H, H), "b": (4 * H,), "dy": (T, B, H)}
x, w_ih, w_hh, b, dy = (rng.standard_normal(shape) / 4 for shape in shapes.values())

plan = capi.Plan("lstm", w_ih, w_hh, b, training=True)
api = plan.functions  # of float64, as the arrays are
state, tape, workspace = plan.state(B), plan.tape(T, B), plan.workspace(T, B)
y, dx = np.empty((T, B, H)), np.empty((T, B, I))
dw_ih, dw_hh, db = np.zeros_like(w_ih), np.zeros_like(w_hh), np.zeros_like(b)


def check(status):
    """Raise what a status says."""
    if status:
        raise RuntimeError(api.message(status).decode())


check(
    api.forward_tape(
        state.ctypes.data,
        T,
        x.ctypes.data,
        y.ctypes.data,
        tape.ctypes.data,
        workspace.ctypes.data,
    )
)
gradients = capi.Gradients(
    size=sizeof(capi.Gradients),
    dy=dy.ctypes.data,
    dx=dx.ctypes.data,
    dw_ih=dw_ih.ctypes.data,
    dw_hh=dw_hh.ctypes.data,
    db=db.ctypes.data,
)
check(
    api.backward(tape.ctypes.data, x.ctypes.data, byref(gradients), workspace.ctypes.data),
)

output = fastlstm.lstm_forward(x, w_ih, w_hh, b, training=True)
expected = fastlstm.lstm_backward(output.tape, dy)
assert np.array_equal(y, output.y)
for ours, theirs in zip(
    (dx, dw_ih, dw_hh, db), (expected.x, expected.w_ih, expected.w_hh, expected.b), strict=True
):
    assert np.array_equal(ours, theirs)
print("ctypes: outputs and gradients, the bits of Python")
