"""Run under LD_PRELOAD of watch.c, compiled; see test_embedding.py."""

import ctypes
import sys

import numpy as np

from fastlstm import capi

P = ctypes.c_void_p
T, B, I, H, R = 40, 2, 5, 24, 7


def plans(dtype):
    """Yield a plan of each kind of cell."""
    rng = np.random.default_rng(0)
    for cell, gates in (("lstm", 4), ("gru", 3), ("rnn", 1)):
        w_ih = rng.standard_normal((gates * H, I)).astype(dtype)
        w_hh = rng.standard_normal((gates * H, H)).astype(dtype) / 4
        yield capi.Plan(cell, w_ih, w_hh)
        if cell == "gru":
            yield capi.Plan(cell, w_ih, w_hh, reset_after=False)
        if cell == "lstm":
            shapes = {"peephole": (3, H), "w_proj": (R, H), "layer_norm": (10, H)}
            arrays = {k: rng.standard_normal(shape).astype(dtype) for k, shape in shapes.items()}
            yield capi.Plan(cell, w_ih, w_hh[:, :R], **arrays, zoneout_h=0.1, cell_clip=1.0)


def main(library):
    """Print for each plan how often a control and then the C API did what it may not."""
    watch = ctypes.CDLL(library)
    watch.watch_run.restype = watch.watch_create.restype = ctypes.c_long
    for dtype, plan in ((d, plan) for d in ("float32", "float64") for plan in plans(d)):
        state, workspace = plan.state(B), plan.workspace(T, B)
        x, y = np.ones((T, B, I), dtype), np.empty((T, B, plan.output_size), dtype)
        api = ctypes.byref(plan.functions)
        arguments = [P(state.ctypes.data), ctypes.c_ssize_t(T), P(x.ctypes.data)]
        arguments += [P(y.ctypes.data), P(workspace.ctypes.data)]
        layer = capi.Layer(ctypes.sizeof(capi.Layer), capi.RNN, input_size=1, hidden_size=1)
        layer.w_ih = layer.w_hh = x.ctypes.data
        print(
            watch.watch_create(api, ctypes.byref(layer)),
            watch.watch_run(api, *arguments),
            watch.watch_system_calls(api, *arguments, 1),
            watch.watch_system_calls(api, *arguments, 0),
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
