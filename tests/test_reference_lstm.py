"""The LSTM and its variants in the NumPy reference: PyTorch, ONNX Runtime, identities."""

import numpy as np
import pytest
from cells import CELLS, Cell, each_of
from helpers import AGAINST_TORCH, assert_close, assert_same_bits
from onnx_peer import onnx_blocks, run_onnx

from fastlstm import reference

T, B, I, H = 4, 3, 2, 3
LSTM = CELLS["lstm"]


def torch_lstm(torch, a, options):
    """Return y, h_n and c_n by the equations of the variants, written again in PyTorch."""
    x, h, c = (a[name] for name in ("x", "h_0", "c_0"))
    layer_norm, outputs = torch.nn.functional.layer_norm, []
    H = c.shape[1]
    gx, gh = a["layer_norm"][:4].ravel(), a["layer_norm"][4:8].ravel()
    p_i, p_f, p_o = a["peephole"]
    for t in range(len(x)):
        z = layer_norm(x[t] @ a["w_ih"].T, (4 * H,), gx, a["b"])
        z = z + layer_norm((options["dropout_h"] * h) @ a["w_hh"].T, (4 * H,), gh)
        z_i, z_f, z_g, z_o = z.split(H, 1)
        i, f = torch.sigmoid(z_i + p_i * c), torch.sigmoid(z_f + p_f * c)
        new_c = f * c + i * torch.tanh(z_g)
        new_c = new_c.clamp(-options["cell_clip"], options["cell_clip"])
        o = torch.sigmoid(z_o + p_o * new_c)
        m = o * torch.tanh(layer_norm(new_c, (H,), *a["layer_norm"][8:]))
        new_h = (m @ a["w_proj"].T).clamp(-options["proj_clip"], options["proj_clip"])
        c = torch.lerp(new_c, c, options["zoneout_c"][t])
        h = torch.lerp(new_h, h, options["zoneout_h"][t])
        outputs.append(h)
    return torch.stack(outputs), h, c


def test_all_variants_together_equal_their_equations_in_torch(rng):
    torch = pytest.importorskip("torch")
    everything = CELLS["lstm everything, masks"].variants
    cell = Cell("lstm", tuple(name for name in everything if name != "activations"))
    arguments, options = cell.arguments(rng, T, B, I, H)
    upstream = cell.upstream(rng, T, B, H)
    leaves = {name: torch.tensor(array, requires_grad=True) for name, array in arguments.items()}
    tensors = {k: torch.tensor(v) if isinstance(v, np.ndarray) else v for k, v in options.items()}
    outputs = torch_lstm(torch, leaves, tensors)
    torch.autograd.backward(outputs, [torch.tensor(d) for d in upstream.values()])

    *own, tape = reference.lstm_forward(**arguments, **options, training=True)
    assert_close(tuple(own), tuple(out.detach().numpy() for out in outputs), AGAINST_TORCH)
    gradients = reference.lstm_backward(tape, **upstream)._asdict()
    desired = {name: leaf.grad.numpy() for name, leaf in leaves.items()}
    assert_close(gradients, desired, AGAINST_TORCH)


@each_of(["lstm", "lstm projection"])
@pytest.mark.parametrize("ragged", [False, True], ids=["full", "ragged"])
def test_forward_and_backward_equal_torch(rng, dtype, cell, ragged):
    torch = pytest.importorskip("torch")
    arguments, _ = cell.arguments(rng, T, B, I, H, dtype)
    upstream = cell.upstream(rng, T, B, H, dtype)
    # torch's packed sequences have no empty rows
    lengths = np.array([2, 4, 1]) if ragged else np.full(B, T)
    upstream["dy"][np.arange(T)[:, None] >= lengths] = 0

    R = cell.output_size(H)
    peer = torch.nn.LSTM(I, H, proj_size=R if R < H else 0, dtype=getattr(torch, dtype.name))
    leaves = {name: torch.from_numpy(array.copy()) for name, array in arguments.items()}
    with torch.no_grad():
        peer.weight_ih_l0[:], peer.weight_hh_l0[:] = leaves["w_ih"], leaves["w_hh"]
        peer.bias_ih_l0[:], peer.bias_hh_l0[:] = 0.25 * leaves["b"], 0.75 * leaves["b"]
        if R < H:
            peer.weight_hr_l0[:] = leaves["w_proj"]
    x, h_0, c_0 = (leaves[name].requires_grad_() for name in ("x", "h_0", "c_0"))
    packed = torch.nn.utils.rnn.pack_padded_sequence(
        x, torch.from_numpy(lengths), enforce_sorted=False
    )
    y, (h_n, c_n) = peer(packed if ragged else x, (h_0[None], c_0[None]))
    if ragged:
        y, _ = torch.nn.utils.rnn.pad_packed_sequence(y, total_length=T)
    outputs = (y, h_n[0], c_n[0])
    torch.autograd.backward(outputs, [torch.from_numpy(d) for d in upstream.values()])

    options = {"lengths": lengths if ragged else None}
    own, gradients = cell.both(reference, arguments, options, upstream)
    assert_close(own, tuple(out.detach().numpy() for out in outputs), AGAINST_TORCH)
    desired = {"x": x, "w_ih": peer.weight_ih_l0, "w_hh": peer.weight_hh_l0, "b": peer.bias_ih_l0}
    desired |= {"h_0": h_0, "c_0": c_0}
    if R < H:
        desired["w_proj"] = peer.weight_hr_l0
    actual = {name: getattr(gradients, name) for name in desired}
    desired = {name: tensor.grad.numpy() for name, tensor in desired.items()}
    assert_close(actual, desired, AGAINST_TORCH)


def lstm_by_onnx(arguments, lengths, reverse=False, **attributes):
    """Return y, h_n and c_n of the plain, peephole or coupled cell by ONNX Runtime."""
    weights, p = [arguments[name] for name in ("w_ih", "w_hh", "b")], arguments.get("peephole")
    if attributes.get("input_forget"):
        # ONNX has weights of the forget gate also then, but does not read them
        weights = [np.insert(a, [H] * H, 9, axis=0) for a in weights]
        p = None if p is None else np.insert(p, 1, 9, axis=0)
    w, r, b = (onnx_blocks("LSTM", a) for a in weights)
    return run_onnx(
        "LSTM",
        arguments["x"],
        w,
        r,
        np.concatenate([0.25 * b, 0.75 * b]),
        lengths,
        arguments["h_0"],
        arguments["c_0"],
        None if p is None else p[[0, 2, 1]],
        direction="reverse" if reverse else "forward",
        **attributes,
    )


@pytest.mark.parametrize("reverse", [False, True], ids=["", "reverse"])
@pytest.mark.parametrize(
    ("names", "options", "attributes"),
    [
        ([], {}, {}),
        (["peephole"], {}, {}),
        (["coupled"], {}, {"input_forget": 1}),
        (["coupled", "peephole"], {}, {"input_forget": 1}),
        (
            ["peephole"],
            {"activations": (("hard_sigmoid", 0.3, 0.4), ("leaky_relu", 0.2), "softsign")},
            {
                "activations": ["HardSigmoid", "LeakyRelu", "Softsign"],
                "activation_alpha": [0.3, 0.2],
                "activation_beta": [0.4],
            },
        ),
        (
            [],
            {"activations": ("sigmoid", ("scaled_tanh", 1.7, 0.6), "elu")},
            {
                "activations": ["Sigmoid", "ScaledTanh", "Elu"],
                "activation_alpha": [1.7, 1.0],
                "activation_beta": [0.6],
            },
        ),
    ],
    ids=lambda value: "+".join(map(str, value)) or "plain",
)
def test_variants_equal_onnx_runtime(rng, names, options, attributes, reverse):
    arguments, variant = Cell("lstm", tuple(names)).arguments(rng, T, B, I, H, np.float32)
    lengths = np.array([2, 4, 1])  # ONNX Runtime loses the state of a row without steps
    options = options | variant | {"lengths": lengths, "reverse": reverse}
    own = reference.lstm_forward(**arguments, **options)
    assert_close(own[:3], lstm_by_onnx(arguments, lengths, reverse, **attributes))


@pytest.mark.parametrize("names", [(), ("peephole",)], ids=["plain", "peephole"])
def test_clip_equals_onnx_runtime_as_long_as_the_cell_state_is_inside(rng, names):
    # ONNX says that the input of every activation is clipped, ONNX Runtime leaves out that of the
    # output (microsoft/onnxruntime#27224)
    arguments, _ = Cell("lstm", tuple(names)).arguments(rng, T, B, I, H, np.float32)
    arguments["x"] *= 3
    arguments["c_0"] *= 0.2
    arguments["b"][H : 2 * H] = -9  # with f = sigmoid(-1), c stays below 1
    y, h_n, c_n, _ = reference.lstm_forward(**arguments, clip=1)
    steps = [reference.lstm_forward(**arguments, clip=1, lengths=[t] * B).c_n for t in range(T + 1)]
    assert np.abs(steps).max() < 1
    assert np.abs(y - reference.lstm_forward(**arguments).y).max() > 0.1
    assert_close((y, h_n, c_n), lstm_by_onnx(arguments, None, clip=1.0))


def test_clip_bounds_the_input_of_the_output_activation_but_not_the_state():
    x, w_ih, w_hh, b = np.zeros((1, 1, 1)), np.zeros((4, 1)), np.zeros((4, 1)), np.zeros(4)
    y, _, c_n, _ = reference.lstm_forward(x, w_ih, w_hh, b, c_0=np.full((1, 1), 8.0), clip=0.5)
    assert c_n == 4
    assert y == 0.5 * np.tanh(0.5)


def test_clips_bound_the_states(rng):
    arguments, options = Cell("lstm", ("cell clip", "projection", "proj clip")).arguments(
        rng, T, B, I, H
    )
    y, _, c_n, _ = reference.lstm_forward(**arguments, **options)
    assert np.abs(y).max() == options["proj_clip"]
    assert np.abs(c_n).max() == options["cell_clip"]
    assert np.abs(y).min() < options["proj_clip"]  # and do not touch what lies inside


def test_coupled_equals_the_plain_cell_with_opposite_gates(rng):
    # sigmoid(-z) = 1 - sigmoid(z): the plain cell whose forget weights are minus the input weights
    arguments, options = CELLS["lstm coupled"].arguments(rng, T, B, I, H)
    plain = dict(arguments)
    for name in ("w_ih", "w_hh", "b"):
        i, rest = arguments[name][:H], arguments[name][H:]
        plain[name] = np.concatenate([i, -i, rest])
    assert_close(
        reference.lstm_forward(**arguments, **options)[:3], reference.lstm_forward(**plain)[:3]
    )


def test_zoneout_by_rates_is_zoneout_by_constant_masks(rng, dtype):
    arguments, _ = LSTM.arguments(rng, T, B, I, H, dtype)
    rates = reference.lstm_forward(**arguments, zoneout_h=0.25, zoneout_c=0.5)
    masks = {"zoneout_h": np.full((T, B, H), 0.25, dtype)}
    masks["zoneout_c"] = np.full((T, B, H), 0.5, dtype)
    assert_same_bits(rates[:3], reference.lstm_forward(**arguments, **masks)[:3])
    kept = reference.lstm_forward(**arguments, zoneout_h=1, zoneout_c=1)
    assert_same_bits(kept[1:3], (arguments["h_0"], arguments["c_0"]))
    none = reference.lstm_forward(**arguments, zoneout_h=0, zoneout_c=0)
    assert_same_bits(none[:3], reference.lstm_forward(**arguments)[:3])
