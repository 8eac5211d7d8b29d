"""Wrong arguments of the array API raise at once, and the message names them."""

import re

import numpy as np
import pytest
from cells import PLAIN

import fastlstm
from fastlstm import capi, reference, training
from fastlstm._args.arrays import check_gru, check_lstm, check_rnn
from fastlstm.exchange._arrays import to_array

T, B, I, H = 5, 3, 7, 4
ZEROS = np.zeros
FORWARD = {name: getattr(reference, f"{name}_forward") for name in PLAIN}
CHECK = {"lstm": check_lstm, "gru": check_gru, "rnn": check_rnn}
ROWS = {"lstm": 16, "gru": 12, "rnn": 4}


def base(cell):
    return PLAIN[cell].arguments(np.random.default_rng(0), T, B, I, H, np.float32)[0]


def wrong_everywhere(cell):
    rows = ROWS[cell]
    bias = len(base(cell)["b"])
    return [
        (
            {"x": ZEROS((5, 7), "f4")},
            ValueError,
            r"x: expected 3 dimensions .*, got shape \(5, 7\)",
        ),
        ({"x": ZEROS((5, 3, 7), int)}, TypeError, "x: expected float32 or float64, got int64"),
        ({"w_ih": ZEROS((4, 2), "f4")}, ValueError, rf"w_ih: expected \({rows}, 7\), got \(4, 2\)"),
        ({"w_ih": ZEROS((rows, 7))}, TypeError, "w_ih: expected float32, .*, got float64"),
        ({"w_hh": ZEROS((0, 4), "f4")}, ValueError, r"w_hh: expected .* H >= 1, got \(0, 4\)"),
        ({"w_hh": ZEROS((rows, 3), "f4")}, ValueError, rf"w_hh: expected \({rows}, 4\), got"),
        ({"w_hh": ZEROS((rows, 4))}, TypeError, "w_hh: expected float32, .*, got float64"),
        ({"b": ZEROS(3, "f4")}, ValueError, rf"b: expected \({bias},\), got \(3,\)"),
        ({"h_0": ZEROS((1, 4), "f4")}, ValueError, r"h_0: expected \(3, 4\), got \(1, 4\)"),
        ({"lengths": [1, 2, 6]}, ValueError, r"lengths: expected values in \[0, 5\], got 1\.\.6"),
        ({"clip": 0}, ValueError, "clip: expected a number above 0, got 0"),
        ({"clip": np.nan}, ValueError, "clip: expected a number above 0, got nan"),
        ({"clip": "1"}, TypeError, "clip: expected a number, got str"),
        ({"clip": True}, TypeError, "clip: expected a number, got bool"),
        (
            {"clip": 1.0, "training": True},
            ValueError,
            "clip: expected None with training=True, got 1",
        ),
        ({"zoneout_h": 1.5}, ValueError, r"zoneout_h: expected a number in \[0, 1\], got 1\.5"),
        (
            {"zoneout_h": ZEROS((5, 3, 1), "f4")},
            ValueError,
            r"zoneout_h: expected \(5, 3, 4\), got",
        ),
        (
            {"zoneout_h": np.full((5, 3, 4), -1, "f4")},
            ValueError,
            r"zoneout_h: expected values in \[0, 1\], got -1\.0\.\.-1\.0",
        ),
        (
            {"zoneout_h": np.full((5, 3, 4), np.nan, "f4")},
            ValueError,
            r"zoneout_h: expected values in \[0, 1\], got nan",
        ),
        ({"zoneout_h": ZEROS((5, 3, 4))}, TypeError, "zoneout_h: expected float32"),
        ({"dropout_h": ZEROS((5, 3, 4), "f4")}, ValueError, r"dropout_h: expected \(3, 4\), got"),
        ({"dropout_h": 0.5}, TypeError, "dropout_h: expected float32"),
    ]


TANH = "tanh"
WRONG_LSTM = [
    ({"c_0": ZEROS((3, 5), "f4")}, ValueError, r"c_0: expected \(3, 4\), got \(3, 5\)"),
    ({"peephole": ZEROS((2, 4), "f4")}, ValueError, r"peephole: expected \(3, 4\), got \(2, 4\)"),
    ({"w_proj": ZEROS((2, 5), "f4")}, ValueError, r"w_proj: expected \(R, 4\) .*, got \(2, 5\)"),
    ({"w_proj": ZEROS((0, 4), "f4")}, ValueError, r"w_proj: expected .* R >= 1, got \(0, 4\)"),
    ({"w_proj": ZEROS((2, 4))}, TypeError, "w_proj: expected float32, .*, got float64"),
    ({"w_proj": ZEROS((2, 4), "f4")}, ValueError, r"w_hh: expected \(16, 2\), got \(16, 4\)"),
    (
        {"layer_norm": ZEROS((8, 4), "f4")},
        ValueError,
        r"layer_norm: expected \(10, 4\), got \(8, 4\)",
    ),
    ({"coupled": True}, ValueError, r"w_hh: expected \(3H, H\) with H >= 1, got \(16, 4\)"),
    ({"cell_clip": -1}, ValueError, "cell_clip: expected a number above 0, got -1"),
    ({"proj_clip": 1.0}, ValueError, "proj_clip: expected None without w_proj, got 1"),
    ({"zoneout_c": -0.1}, ValueError, r"zoneout_c: expected a number in \[0, 1\], got -0\.1"),
    ({"zoneout_c": ZEROS((5, 3, 2), "f4")}, ValueError, r"zoneout_c: expected \(5, 3, 4\), got"),
    ({"activations": "tanh"}, TypeError, "activations: expected a tuple, got str"),
    ({"activations": (TANH, TANH)}, ValueError, r"activations: expected 3 \(gates, .*\), got 2"),
    (
        {"activations": (TANH, "gelu", TANH)},
        ValueError,
        r"activations\[1\]: expected one of sigmoid, .*, got 'gelu'",
    ),
    (
        {"activations": (TANH, TANH, 3)},
        TypeError,
        r"activations\[2\]: expected a name or \(name, alpha\[, beta\]\), got 3",
    ),
    (
        {"activations": (TANH, TANH, ("elu", 1, 2))},
        ValueError,
        r"activations\[2\]: expected elu with at most 1 parameters, got 2",
    ),
    (
        {"activations": (("elu", "1"), TANH, TANH)},
        TypeError,
        r"activations\[0\]: expected numbers after elu, got str",
    ),
    (
        {"activations": (TANH, ("leaky_relu", -0.1), TANH)},
        ValueError,
        r"activations\[1\]: expected leaky_relu with alpha of at least 0, got -0\.1",
    ),
    (
        {"activations": (TANH, ("scaled_tanh", 0, 1), TANH)},
        ValueError,
        r"activations\[1\]: expected scaled_tanh with alpha other than 0, got 0",
    ),
]
WRONG_GRU = [
    ({"reset_after": False}, ValueError, r"b: expected \(12,\), got \(16,\)"),
    ({"activations": (TANH,)}, ValueError, r"activations: expected 2 \(gates, .*\), got 1"),
    ({"activations": (TANH, "")}, ValueError, r"activations\[1\]: expected one of"),
]
WRONG_RNN = [
    ({"nonlinearity": "selu"}, ValueError, "nonlinearity: expected one of .*, got 'selu'"),
    ({"nonlinearity": None}, TypeError, "nonlinearity: expected a name or .*, got None"),
    ({"nonlinearity": ()}, TypeError, r"nonlinearity: expected a name or .*, got \(\)"),
]
WRONG = [(cell, *case) for cell in FORWARD for case in wrong_everywhere(cell)]
WRONG += [("lstm", *case) for case in WRONG_LSTM]
WRONG += [("gru", *case) for case in WRONG_GRU]
WRONG += [("rnn", *case) for case in WRONG_RNN]


@pytest.mark.parametrize(
    ("cell", "wrong", "error", "message"), WRONG, ids=[f"{c[0]}-{'+'.join(c[1])}" for c in WRONG]
)
def test_wrong_arguments_raise_and_are_named(cell, wrong, error, message):
    with pytest.raises(error, match=f"^{message}"):
        FORWARD[cell](**base(cell) | wrong)


@pytest.mark.parametrize("cell", FORWARD)
def test_wrong_output_gradients_and_tapes_raise_and_are_named(cell):
    backward = getattr(reference, f"{cell}_backward")
    tape = FORWARD[cell](**base(cell), training=True).tape
    with pytest.raises(ValueError, match=r"^dy: expected \(5, 3, 4\), got \(3, 4\)$"):
        backward(tape, ZEROS((3, 4), "f4"))
    with pytest.raises(TypeError, match=r"^dh_n: expected float32"):
        backward(tape, dh_n=ZEROS((3, 4)))
    other = "rnn" if cell == "lstm" else "lstm"
    for wrong in (None, FORWARD[other](**base(other), training=True).tape):
        with pytest.raises(TypeError, match=rf"^tape: expected .*{cell.upper()}Tape .* got "):
            backward(wrong)


def test_options_are_normalised():
    arguments = base("lstm")
    a = check_lstm(
        **arguments,
        clip=np.float32(3),
        cell_clip=5,
        zoneout_h=np.float64(0.5),
        zoneout_c=1,
        activations=["hard_sigmoid", ("elu", 2), ["affine", np.float32(0.5)]],
    )
    for value, expected in (
        (a.clip, 3.0),
        (a.cell_clip, 5.0),
        (a.zoneout_h, 0.5),
        (a.zoneout_c, 1),
    ):
        assert type(value) is float
        assert value == expected
    assert a.activations == (("hard_sigmoid", 0.2, 0.5), ("elu", 2.0, 0.0), ("affine", 0.5, 0.0))
    assert a.proj_clip is a.dropout_h is a.layer_norm is None
    defaults = check_lstm(**arguments)
    assert [name for name, _, _ in defaults.activations] == ["sigmoid", "tanh", "tanh"]


@pytest.mark.parametrize("cell", CHECK)
def test_checked_arrays_are_the_ones_given(cell):
    arguments = base(cell)
    checked = CHECK[cell](**arguments)
    assert all(getattr(checked, name) is array for name, array in arguments.items())


@pytest.mark.parametrize("cell", FORWARD)
@pytest.mark.parametrize("module", [reference, fastlstm])
def test_masked_arrays_are_refused_instead_of_read_without_their_mask(module, cell):
    forward = getattr(module, f"{cell}_forward")
    for name, array in (base(cell) | {"lengths": np.array([1, 2, 3])}).items():
        masked = np.ma.masked_array(array, mask=array == array.flat[0])
        with pytest.raises(TypeError, match=f"^{name}: expected an array without a mask"):
            forward(**base(cell) | {name: masked})
    tape = forward(**base(cell), training=True).tape
    with pytest.raises(TypeError, match=r"^dy: expected an array without a mask"):
        getattr(module, f"{cell}_backward")(tape, np.ma.zeros((T, B, H), "f4"))


MASKED = np.ma.masked_array(ZEROS((1, 2, 1), "f4"), mask=[[[0], [1]]])
NET = fastlstm.LSTM(1, 2, rng=0)


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("x", lambda: NET(MASKED)),
        ("x", lambda: NET.forward(MASKED)),
        ("state", lambda: NET(ZEROS((1, 1, 1), "f4"), (np.ma.zeros((1, 1, 2), "f4"), None))),
        ("x_t", lambda: NET.stream(2).step(MASKED[0])),
        ("out", lambda: NET.stream(2).step(MASKED.data[0], np.ma.zeros((2, 2), "f4"))),
        ("w_ih", lambda: capi.Plan("rnn", MASKED[0], ZEROS((2, 2), "f4"))),
        ("x", lambda: training.Linear(1, 1, rng=0).forward(MASKED)),
        ("prediction", lambda: training.mse_loss(MASKED, MASKED.data)),
        ("target", lambda: training.mse_loss(MASKED.data, MASKED)),
        ("classes", lambda: training.cross_entropy_loss(ZEROS((2, 3)), np.ma.array([0, 1]))),
        ("mask", lambda: training.mse_loss(ZEROS(2), ZEROS(2), mask=np.ma.array([True, False]))),
        ("gradients[0]", lambda: training.clip_grad_norm([np.ma.array([1.0])], 1)),
        ("parameters[0]", lambda: training.SGD([np.ma.array([1.0])], 1)),
        ("weight", lambda: to_array("weight", MASKED)),
    ],
)
def test_masked_arrays_are_refused_everywhere(name, call):
    with pytest.raises(TypeError, match=f"^{re.escape(name)}.*: expected an array without a mask"):
        call()
