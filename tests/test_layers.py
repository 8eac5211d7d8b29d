"""`fastlstm.LSTM`: against `torch.nn.LSTM`, and its own promises about parameters and streams."""

import copy
import pickle

import numpy as np
import pytest
from helpers import (
    AGAINST_TORCH,
    FINITE_DIFFERENCES,
    assert_close,
    assert_same_bits,
    normal,
    slope,
    some_lengths,
)

import fastlstm

I, H = 5, 18


def inputs(rng, lstm, T=6, B=4, dtype=np.float32):
    """Return x, a state, dy and dstate that fit the layer."""
    D = 2 if lstm.bidirectional else 1
    lead = (B, T) if lstm.batch_first else (T, B)
    state_shape = (lstm.num_layers * D, B, lstm.hidden_size)
    x, dy = normal(rng, (*lead, I), dtype), normal(rng, (*lead, D * lstm.hidden_size), dtype)
    state, dstate = (tuple(normal(rng, (2, *state_shape), dtype)) for _ in range(2))
    return x, state, dy, dstate


def copy_with(lstm, flat):
    """Return an equal model with other parameters."""
    twin = copy.deepcopy(lstm)
    twin.flat[:] = flat
    return twin


# --- values ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_layers", [1, 3])
@pytest.mark.parametrize("bidirectional", [False, True], ids=["", "bidirectional"])
@pytest.mark.parametrize("batch_first", [False, True], ids=["", "batch_first"])
@pytest.mark.parametrize("bias", [True, False], ids=["", "no bias"])
@pytest.mark.parametrize("ragged", [False, True], ids=["full", "ragged"])
def test_outputs_and_gradients_equal_torch(
    dtype, rng, num_layers, bidirectional, batch_first, bias, ragged
):
    torch = pytest.importorskip("torch")
    options = {
        "num_layers": num_layers,
        "bidirectional": bidirectional,
        "batch_first": batch_first,
        "bias": bias,
    }
    lstm = fastlstm.LSTM(I, H, **options, dtype=dtype, rng=rng)
    lstm.flat[:] = normal(rng, lstm.flat.shape, dtype, 0.3)
    x, state, dy, dstate = inputs(rng, lstm, dtype=dtype)
    lengths = np.array([6, 1, 4, 2]) if ragged else None  # torch's packed rows are not empty
    if ragged:
        past = np.arange(6)[:, None] >= lengths
        dy[past.T if batch_first else past] = 0

    peer = torch.nn.LSTM(I, H, **options, dtype=getattr(torch, dtype.name))
    peer_params = {name: getattr(peer, name.replace("bias", "bias_ih")) for name in lstm.params}
    with torch.no_grad():
        for name, parameter in peer.named_parameters():
            own = lstm.params.get(name.replace("bias_ih", "bias"))
            parameter[:] = 0 if own is None else torch.from_numpy(own)  # bias_hh: 0
    leaves = [torch.from_numpy(a.copy()).requires_grad_() for a in (x, *state)]
    peer_x = leaves[0]
    if ragged:
        peer_x = torch.nn.utils.rnn.pack_padded_sequence(
            peer_x, torch.from_numpy(lengths), batch_first=batch_first, enforce_sorted=False
        )
    peer_y, peer_state = peer(peer_x, tuple(leaves[1:]))
    if ragged:
        peer_y, _ = torch.nn.utils.rnn.pad_packed_sequence(
            peer_y, batch_first=batch_first, total_length=6
        )
    outputs = (peer_y, *peer_state)
    torch.autograd.backward(outputs, [torch.from_numpy(d) for d in (dy, *dstate)])

    desired = tuple(out.detach().numpy() for out in outputs)
    assert_close(lstm(x, state, lengths=lengths), desired, AGAINST_TORCH)
    y, end, tape = lstm.forward(x, state, lengths=lengths)
    assert_close((y, end), desired, AGAINST_TORCH)
    grads = lstm.backward(tape, dy, dstate)
    of_leaves = tuple(leaf.grad.numpy() for leaf in leaves)
    assert_close((grads.x, grads.state), of_leaves, AGAINST_TORCH)
    params = {name: p.grad.numpy() for name, p in peer_params.items()}
    assert_close(grads.params, params, AGAINST_TORCH)


@pytest.mark.parametrize("given", ["dy", "dstate"])
def test_a_gradient_that_is_not_given_is_zero(rng, given):
    lstm = fastlstm.LSTM(I, H, 2, bidirectional=True, rng=rng)
    x, state, dy, dstate = inputs(rng, lstm)
    *_, tape = lstm.forward(x, state)
    upstream = {"dy": dy, "dstate": dstate}
    zeros = {"dy": np.zeros_like(dy), "dstate": tuple(np.zeros_like(d) for d in dstate)}
    alone = lstm.backward(tape, **{given: upstream[given]})
    assert_close(alone.flat, lstm.backward(tape, **zeros | {given: upstream[given]}).flat)


def test_the_default_state_is_zero(dtype, rng):
    lstm = fastlstm.LSTM(I, H, 2, dtype=dtype, rng=rng)
    x, state, dy, _ = inputs(rng, lstm, dtype=dtype)
    zeros = tuple(np.zeros_like(s) for s in state)
    assert_same_bits(lstm(x), lstm(x, zeros))
    grads = [lstm.backward(lstm.forward(x, given)[2], dy) for given in (None, zeros)]
    assert_same_bits(grads[0], grads[1])


@pytest.mark.parametrize("bidirectional", [False, True], ids=["", "bidirectional"])
def test_a_ragged_row_has_the_bits_of_the_row_alone(dtype, rng, bidirectional):
    T, B = 7, 6
    lstm = fastlstm.LSTM(I, H, 2, bidirectional=bidirectional, dtype=dtype, rng=rng)
    x, state, *_ = inputs(rng, lstm, T, B, dtype)
    lengths = some_lengths(rng, T, B)
    y, end = lstm(x, state, lengths=lengths)
    for row, length in enumerate(lengths):
        rows = slice(row, row + 1)
        alone = lstm(x[:length, rows], tuple(s[:, rows] for s in state))
        assert_same_bits((y[:length, rows], tuple(s[:, rows] for s in end)), alone)
        assert not y[length:, row].any()


@pytest.mark.parametrize(("T", "B"), [(0, 3), (4, 0), (0, 0)])
@pytest.mark.parametrize("bidirectional", [False, True], ids=["", "bidirectional"])
def test_empty_input_gives_empty_output_and_the_initial_state(dtype, rng, T, B, bidirectional):
    lstm = fastlstm.LSTM(I, H, 2, bidirectional=bidirectional, dtype=dtype, rng=rng)
    x, state, dy, dstate = inputs(rng, lstm, T, B, dtype)
    y, end, tape = lstm.forward(x, state)
    assert y.shape == dy.shape
    assert_same_bits(end, state)
    grads = lstm.backward(tape, dy, dstate)
    assert_same_bits((grads.x, grads.state), (np.zeros_like(x), dstate))
    assert not grads.flat.any()


# --- parameters -----------------------------------------------------------------------------------


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
def test_params_are_writable_views_of_one_flat_buffer_under_torchs_names(bias):
    lstm = fastlstm.LSTM(I, H, 2, bidirectional=True, bias=bias)
    assert {name: p.shape for name, p in lstm.params.items()} == {
        f"{kind}_l{layer}{suffix}": shape
        for layer, width in enumerate((I, 2 * H))
        for suffix in ("", "_reverse")
        for kind, shape in {
            "weight_ih": (4 * H, width),
            "weight_hh": (4 * H, H),
            **({"bias": (4 * H,)} if bias else {}),
        }.items()
    }
    for k, parameter in enumerate(lstm.params.values()):
        assert np.shares_memory(parameter, lstm.flat)
        parameter[...] = k
    sizes = [p.size for p in lstm.params.values()]
    np.testing.assert_array_equal(lstm.flat, np.repeat(np.arange(len(sizes)), sizes))


def test_an_in_place_change_is_seen_by_the_next_call(dtype, rng):
    lstm = fastlstm.LSTM(I, H, 2, dtype=dtype, rng=rng)
    x, state, dy, _ = inputs(rng, lstm, dtype=dtype)
    before = lstm(x, state)
    lstm.forward(x, state)
    lstm.params["weight_hh_l1"][3, 4] += 1
    fresh = copy_with(fastlstm.LSTM(I, H, 2, dtype=dtype), lstm.flat)
    after = lstm(x, state)
    assert not np.array_equal(after[0], before[0])
    assert_same_bits(after, fresh(x, state))
    grads = [model.backward(model.forward(x, state)[2], dy) for model in (lstm, fresh)]
    assert_same_bits(grads[0].flat, grads[1].flat)


@pytest.mark.parametrize("change", ["swap", "opposite", "sign of zero", "roll", "nan", "one bit"])
def test_no_change_of_the_parameters_goes_unseen(isa, dtype, rng, change):
    lstm = fastlstm.LSTM(40, 33, dtype=dtype, rng=rng)
    x = normal(rng, (2, 3, 40), dtype)
    for _ in range(50):
        lstm(x)
        flat = lstm.flat
        if change == "swap":  # a sum of the parameters would not notice
            j, k = rng.choice(flat.size, 2, replace=False)
            flat[[j, k]] = flat[[k, j]]
        elif change == "opposite":
            k = 64 * rng.integers(1, flat.size // 64)
            flat[[0, k]] += np.array([0.25, -0.25], dtype)
        elif change == "sign of zero":
            flat[:] = np.copysign(0, rng.choice([-1, 1], flat.size))
        elif change == "roll":
            flat[:] = np.roll(flat, 64 * rng.integers(1, 9))
        elif change == "nan":
            flat[rng.integers(flat.size)] *= rng.choice([np.nan, -1])
        else:
            bits = flat.view(f"u{flat.itemsize}")
            bits[rng.integers(flat.size)] ^= bits.dtype.type(1 << int(rng.integers(22)))
        fresh = fastlstm.LSTM(40, 33, dtype=dtype)
        fresh.flat[:] = flat
        assert_same_bits(lstm(x), fresh(x))


def test_parameters_may_change_between_forward_and_backward(dtype, rng):
    lstm = fastlstm.LSTM(I, H, 2, bidirectional=True, dtype=dtype, rng=rng)
    x, state, dy, dstate = inputs(rng, lstm, dtype=dtype)
    *_, tape = lstm.forward(x, state)
    desired = lstm.backward(tape, dy, dstate)
    lstm.flat[:] = np.nan
    assert_same_bits(lstm.backward(tape, dy, dstate), desired)


@pytest.mark.parametrize("bidirectional", [False, True], ids=["", "bidirectional"])
def test_gradients_come_as_views_of_one_flat_buffer_like_params(dtype, rng, bidirectional):
    lstm = fastlstm.LSTM(I, H, 2, bidirectional=bidirectional, dtype=dtype, rng=rng)
    x, state, dy, dstate = inputs(rng, lstm, dtype=dtype)
    *_, tape = lstm.forward(x, state)
    grads = lstm.backward(tape, dy, dstate)
    assert list(grads.params) == list(lstm.params)
    for name, gradient in grads.params.items():
        assert gradient.shape == lstm.params[name].shape
        assert np.shares_memory(gradient, grads.flat)
    joined = np.concatenate([g.ravel() for g in grads.params.values()])
    assert_same_bits(grads.flat, joined)
    again = lstm.backward(tape, dy, dstate)
    assert_same_bits(again.flat, joined)
    assert not np.shares_memory(again.flat, grads.flat)


def test_initial_parameters_are_uniform_and_reproducible(dtype):
    lstm = fastlstm.LSTM(32, 64, 2, dtype=dtype, rng=7)
    bound = 1 / np.sqrt(64)
    assert lstm.flat.dtype == dtype
    assert np.abs(lstm.flat).max() <= bound
    for parameter in lstm.params.values():  # std of a uniform distribution; the mean is 0
        assert parameter.std() == pytest.approx(bound / np.sqrt(3), rel=0.15)
        assert abs(parameter.mean()) < 0.15 * bound
    same = [fastlstm.LSTM(32, 64, 2, dtype=dtype, rng=r) for r in (7, np.random.default_rng(7))]
    assert_same_bits((same[0].flat, same[1].flat), (lstm.flat, lstm.flat))
    assert not np.array_equal(fastlstm.LSTM(32, 64, 2, dtype=dtype, rng=8).flat, lstm.flat)


def test_forget_bias_sets_the_forget_quarter_of_each_bias():
    sizes = {"input_size": I, "hidden_size": H, "num_layers": 2, "bidirectional": True}
    plain = fastlstm.LSTM(**sizes, rng=0)
    lstm = fastlstm.LSTM(**sizes, rng=0, forget_bias=1.5)
    for name, parameter in lstm.params.items():
        expected = plain.params[name].copy()
        if name.startswith("bias"):
            expected[H : 2 * H] = 1.5
        assert_same_bits(parameter, expected)


@pytest.mark.parametrize(
    "duplicate",
    [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))],
    ids=["deepcopy", "pickle"],
)
def test_copies_are_equal_and_independent(rng, dtype, duplicate):
    lstm = fastlstm.LSTM(I, H, 2, bidirectional=True, dropout=0.5, dtype=dtype, rng=rng)
    x, state, *_ = inputs(rng, lstm, dtype=dtype)
    twin = duplicate(lstm)
    assert repr(twin) == repr(lstm)
    assert list(twin.params) == list(lstm.params)
    assert all(np.shares_memory(p, twin.flat) for p in twin.params.values())
    assert not np.shares_memory(twin.flat, lstm.flat)
    desired = lstm(x, state)
    assert_same_bits(twin(x, state), desired)
    assert_same_bits(twin.forward(x, state)[0], lstm.forward(x, state)[0])  # the same dropout
    twin.params["bias_l0"][:] += 1
    assert_same_bits(lstm(x, state), desired)
    assert not np.array_equal(twin(x, state)[0], desired[0])


def test_repr_tells_the_sizes_and_what_is_not_default():
    text = repr(fastlstm.LSTM(3, 7))
    assert text.startswith("LSTM(3, 7")
    assert "bidirectional" not in text
    text = repr(fastlstm.LSTM(3, 7, 2, bidirectional=True, dropout=0.25, dtype=np.float64))
    for part in ("LSTM(3, 7", "num_layers=2", "bidirectional=True", "dropout=0.25", "float64"):
        assert part in text


# --- dropout --------------------------------------------------------------------------------------


def test_dropout_acts_between_layers_and_only_in_forward(rng):
    dropping = fastlstm.LSTM(I, H, 2, dropout=0.5, rng=3)
    plain = copy_with(fastlstm.LSTM(I, H, 2), dropping.flat)
    x, state, *_ = inputs(rng, dropping)
    assert_same_bits(dropping(x, state), plain(x, state))
    _, (h_n, _), _ = dropping.forward(x, state)
    _, (h_plain, _) = plain(x, state)
    assert_same_bits(h_n[0], h_plain[0])  # below the first layer nothing is dropped
    assert not np.array_equal(h_n[1], h_plain[1])
    single = fastlstm.LSTM(I, H, 1, dropout=0.5, rng=3)
    x, state, *_ = inputs(rng, single)
    assert_same_bits(single.forward(x, state)[:2], single(x, state))


def test_dropout_zeroes_its_share_and_scales_the_rest():
    # the second layer shows its input: i and o open, g = tanh(small * x), nothing recurrent
    lstm = fastlstm.LSTM(1, 256, 2, dropout=0.25, dtype=np.float64, rng=1)
    lstm.flat[:] = 0
    lstm.params["bias_l0"][:] = np.repeat([30, -30, 30, 30], 256)
    lstm.params["bias_l1"][:] = np.repeat([30, -30, 0, 30], 256)
    lstm.params["weight_ih_l1"][512:768] = 1e-3 * np.eye(256)
    y, *_ = lstm.forward(np.zeros((20, 2, 1)))
    first_layer = np.tanh(1.0)
    seen = np.arctanh(np.arctanh(y)) / (1e-3 * first_layer)
    kept = seen > 0.5
    np.testing.assert_allclose(seen, np.where(kept, 1 / 0.75, 0), atol=1e-5)
    assert kept.mean() == pytest.approx(0.75, abs=0.02)
    assert not np.array_equal(kept[0], kept[1])  # a new mask at every step


def test_dropout_is_reproducible_from_the_seed(rng):
    models = [fastlstm.LSTM(I, H, 3, dropout=0.5, rng=11) for _ in range(2)]
    x, state, *_ = inputs(rng, models[0])
    first, second = ([model.forward(x, state)[0] for _ in range(2)] for model in models)
    assert_same_bits(tuple(first), tuple(second))
    assert not np.array_equal(first[0], first[1])


@pytest.mark.parametrize("options", [{}, {"bidirectional": True}], ids=["", "bidirectional"])
@pytest.mark.parametrize("lengths", [None, [3, 0, 2]], ids=["full", "ragged"])
def test_gradients_with_dropout_equal_central_differences(rng, options, lengths):
    def model(flat=None):
        lstm = fastlstm.LSTM(I, 3, 2, dropout=0.4, dtype=np.float64, rng=5, **options)  # one mask
        if flat is not None:
            lstm.flat[:] = flat
        return lstm

    lstm = model()
    flat = lstm.flat.copy()
    x, state, dy, dstate = inputs(rng, lstm, 3, 3, np.float64)

    def loss():
        y, end, _ = model(flat).forward(x, state, lengths=lengths)
        return sum(np.vdot(d, out) for d, out in zip((dy, *dstate), (y, *end), strict=True))

    *_, tape = lstm.forward(x, state, lengths=lengths)
    grads = lstm.backward(tape, dy, dstate)
    for actual, array in [(grads.flat, flat), (grads.x, x), *zip(grads.state, state, strict=True)]:
        direction = normal(rng, array.shape)
        expected = slope(loss, [array], [direction])
        assert_close(np.vdot(actual, direction), expected, FINITE_DIFFERENCES)


# --- streams --------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_layers", [1, 3])
@pytest.mark.parametrize("B", [1, 2, 9])
@pytest.mark.parametrize("bias", [True, False], ids=["", "no bias"])
def test_a_stream_has_the_bits_of_the_whole_sequence(isa, dtype, rng, num_layers, B, bias):
    lstm = fastlstm.LSTM(I, H, num_layers, bias=bias, dtype=dtype, rng=rng)
    x, state, *_ = inputs(rng, lstm, 6, B, dtype)
    y, end = lstm(x)
    stream = lstm.stream(batch_size=B)
    for _ in range(2):
        assert_same_bits(np.stack([stream.step(x_t).copy() for x_t in x]), y)
        assert_same_bits(tuple(stream.state), end)
        stream.reset()
        assert not np.any(stream.state)

    y, end = lstm(x, state)
    stream.state = state
    assert_same_bits(tuple(stream.state), state)
    out = np.full(y.shape, np.nan, dtype)
    for x_t, out_t in zip(x, out, strict=True):
        assert stream.step(x_t, out=out_t) is out_t
    assert_same_bits((out, tuple(stream.state)), (y, end))


def test_streams_of_one_model_are_independent(rng):
    lstm = fastlstm.LSTM(I, H, 2, rng=rng)
    x = normal(rng, (2, 5, 1, I), np.float32)
    streams = [lstm.stream() for _ in x]
    steps = [[stream.step(x[k, t]).copy() for k, stream in enumerate(streams)] for t in range(5)]
    for k in range(2):
        assert_same_bits(np.stack([step[k] for step in steps]), lstm(x[k])[0])


def test_a_stream_reads_any_layout(dtype, rng):
    lstm = fastlstm.LSTM(I, H, 2, dtype=dtype, rng=rng)
    x, *_ = inputs(rng, lstm, 4, 3, dtype)
    desired = lstm(x)[0]
    for view in (np.asfortranarray(x), x.byteswap().view(x.dtype.newbyteorder()), x[::-1][::-1]):
        stream = lstm.stream(3)
        assert_same_bits(np.stack([stream.step(x_t).copy() for x_t in view]), desired)


# --- errors ---------------------------------------------------------------------------------------

ZERO_STATE = np.zeros((2, 4, H), np.float32)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"input_size": -1}, ValueError, "input_size"),
        ({"hidden_size": 0}, ValueError, "hidden_size"),
        ({"hidden_size": 2.5}, TypeError, "hidden_size"),
        ({"num_layers": 0}, ValueError, "num_layers"),
        ({"bidirectional": True, "reverse": True}, ValueError, "reverse"),
        ({"dropout": 1.5}, ValueError, "dropout"),
        ({"dropout": -0.1}, ValueError, "dropout"),
        ({"dtype": np.int32}, TypeError, "dtype"),
        ({"dtype": np.float16}, TypeError, "dtype"),
        ({"proj_size": -1}, ValueError, "proj_size"),
        ({"proj_clip": 1.0}, ValueError, "proj_clip"),
        ({"cell_clip": 0}, ValueError, "cell_clip"),
        ({"zoneout_c": 1.5}, ValueError, "zoneout_c"),
        ({"zoneout_h": "0.1"}, TypeError, "zoneout_h"),
        ({"activations": ("tanh", "tanh")}, ValueError, "activations"),
        ({"coupled": True, "forget_bias": 1.0}, ValueError, "forget_bias"),
    ],
)
def test_a_wrong_constructor_argument_raises_and_is_named(options, error, message):
    with pytest.raises(error, match=f"^{message}"):
        fastlstm.LSTM(**{"input_size": I, "hidden_size": H} | options)


@pytest.mark.parametrize(
    ("replace", "error", "message"),
    [
        ({"x": np.zeros((6, 4, I + 1), "f4")}, ValueError, r"x: expected .*5.*, got \(6, 4, 6\)"),
        ({"x": np.zeros((6, I), "f4")}, ValueError, r"x: expected .*, got .*\(6, 5\)"),
        ({"x": np.zeros((6, 4, I))}, TypeError, "x: expected float32.*, got float64"),
        ({"x": np.zeros((6, 4, I), int)}, TypeError, "x: expected float32.*, got int64"),
        ({"state": np.zeros((2, 2, 4, H), "f4")}, TypeError, "state: expected a pair"),
        ({"state": (ZERO_STATE,) * 3}, TypeError, "state: expected a pair"),
        (
            {"state": (ZERO_STATE, ZERO_STATE[:1])},
            ValueError,
            r"state.1.: .*\(2, 4, 18\), got \(1, 4",
        ),
        (
            {"state": (ZERO_STATE.astype("f8"),) * 2},
            TypeError,
            "state.0.: .*float32.*, got float64",
        ),
        ({"lengths": [1, 2, 3]}, ValueError, r"lengths: expected \(4,\), got \(3,\)"),
        ({"lengths": [1, 2, 3, 7]}, ValueError, r"lengths: expected .*\[0, 6\]"),
        ({"lengths": [1.0, 2.0, 3.0, 4.0]}, TypeError, "lengths: expected integers"),
    ],
)
@pytest.mark.parametrize("method", ["__call__", "forward"])
def test_a_wrong_argument_of_a_call_raises_and_is_named(method, replace, error, message):
    arguments = {"x": np.zeros((6, 4, I), "f4"), "state": None, "lengths": None} | replace
    with pytest.raises(error, match=f"^{message}"):
        getattr(fastlstm.LSTM(I, H, 2), method)(**arguments)


def test_wrong_gradients_and_tapes_raise_and_are_named(rng):
    lstm = fastlstm.LSTM(I, H, 2)
    x, state, dy, (dh_n, _) = inputs(rng, lstm)
    *_, tape = lstm.forward(x, state)
    with pytest.raises(ValueError, match=r"^dy: expected \(6, 4, 18\), got \(5, 4, 18\)"):
        lstm.backward(tape, dy[1:])
    with pytest.raises(TypeError, match=r"^dy: expected float32"):
        lstm.backward(tape, dy.astype(np.float64))
    with pytest.raises(ValueError, match=r"^dstate"):
        lstm.backward(tape, None, (dh_n, dh_n[:1]))
    with pytest.raises(TypeError, match=r"^tape: "):
        lstm.backward(None, dy)


def test_what_a_stream_cannot_do_raises(rng):
    with pytest.raises(ValueError, match="bidirectional"):
        fastlstm.LSTM(I, H, bidirectional=True).stream()
    with pytest.raises(ValueError, match="reverse"):
        fastlstm.LSTM(I, H, reverse=True).stream()
    lstm = fastlstm.LSTM(I, H)
    with pytest.raises(ValueError, match=r"^batch_size"):
        lstm.stream(-1)
    stream = lstm.stream(2)
    x_t = normal(rng, (2, I), np.float32)
    for wrong, error in [(x_t[:1], ValueError), (x_t.astype(np.float64), TypeError)]:
        with pytest.raises(error, match=r"^x"):
            stream.step(wrong)
    read_only = np.zeros((2, H), np.float32)
    read_only.flags.writeable = False
    for out in (np.zeros((1, H), np.float32), read_only):
        with pytest.raises(ValueError, match=r"^out"):
            stream.step(x_t, out=out)
    with pytest.raises(TypeError, match=r"^out"):
        stream.step(x_t, out=np.zeros((2, H)))
    assert not np.any(stream.state)  # a refused step leaves the state alone
