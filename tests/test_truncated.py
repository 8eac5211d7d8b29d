"""Windows against those run by hand, and the flow of gradients against central differences."""

import numpy as np
import pytest
from cells import LAYERS, each_layer
from helpers import (
    FINITE_DIFFERENCES,
    assert_close,
    assert_same_bits,
    central_differences,
    normal,
)

from fastlstm import LSTM
from fastlstm.training import SGD, Embedding, gradient_flow, truncated_bptt

T, B, I, H = 12, 3, 4, 5
STACKS = [("lstm", {}), ("lstm everything", {"num_layers": 2}), ("gru", {}), ("rnn", {})]
stacks = pytest.mark.parametrize(
    ("cell", "options"),
    [(LAYERS[name], options) for name, options in STACKS],
    ids=[name for name, _ in STACKS],
)
batch_first = pytest.mark.parametrize("batch_first", [False, True], ids=["(T, B)", "(B, T)"])


def make(cell, **options):
    cell = LAYERS[cell] if isinstance(cell, str) else cell
    return cell.layer(I, H, **options, dtype=np.float64, rng=0)


def in_time(layer, array):
    """Return a view with time first."""
    return array.transpose(1, 0, 2) if layer.batch_first else array


def random_input(rng, layer):
    return normal(rng, (B, T, I) if layer.batch_first else (T, B, I))


class TestTruncatedBPTT:
    @stacks
    @batch_first
    def test_one_window_is_plain_bptt(self, rng, cell, options, batch_first):
        layer = make(cell, batch_first=batch_first, **options)
        x, state = random_input(rng, layer), cell.state_of(rng, layer, B)
        (window,) = truncated_bptt(layer, x, T, state=state)
        y, final, tape = layer.forward(x, state)
        dy, dstate = normal(rng, y.shape), cell.state_of(rng, layer, B)
        assert (window.start, window.stop) == (0, T)
        assert_same_bits((window.y, window.state), (y, final))
        assert_same_bits(window.backward(dy, dstate), layer.backward(tape, dy, dstate))

    @stacks
    @batch_first
    @pytest.mark.parametrize(("k1", "k2"), [(4, 4), (3, 6), (2, 8), (5, 10), (1, 3), (7, 700)])
    def test_equals_windows_run_by_hand(self, rng, cell, options, batch_first, k1, k2):
        layer = make(cell, batch_first=batch_first, **options)
        x = random_input(rng, layer)
        y, final = layer(x)
        windows = list(truncated_bptt(layer, x, k1, k2))
        assert [window.stop for window in windows] == [*range(k1, T, k1), T]
        assert_close(windows[-1].state, final)
        for window in windows:
            start, stop = window.start, window.stop
            assert_close(in_time(layer, window.y), in_time(layer, y)[start:stop])
            begin = max(0, start + k1 - k2)
            before = in_time(layer, x)[:begin]
            piece = in_time(layer, x)[begin:stop]
            _, state = layer(in_time(layer, before)) if begin else (None, None)
            by_hand_y, _, tape = layer.forward(in_time(layer, piece), state)
            dy = np.zeros_like(by_hand_y)
            newest = in_time(layer, dy)[start - begin :]
            newest[...] = normal(rng, newest.shape)
            expected = layer.backward(tape, dy)
            gradients = window.backward(in_time(layer, newest))
            assert_close(gradients, expected)

    @stacks
    def test_ragged_rows_as_of_one_call(self, rng, cell, options):
        layer = make(cell, **options)
        x, lengths = random_input(rng, layer), np.array([T, 5, 0])
        windows = list(truncated_bptt(layer, x, 4, 4 * T, lengths=lengths))
        y, final, tape = layer.forward(x, lengths=lengths)
        dstate = cell.state_of(rng, layer, B)
        assert_close(np.concatenate([window.y for window in windows]), y)
        assert_close(windows[-1].state, final)
        gradients = windows[-1].backward(dstate=dstate)
        assert_close(gradients, layer.backward(tape, dstate=dstate))

    def test_state_carries_on_from_an_earlier_series(self, rng):
        layer = make("lstm")
        x = random_input(rng, layer)
        *_, window = truncated_bptt(layer, x[:6], 2)
        y = [window.y for window in truncated_bptt(layer, x[6:], 2, state=window.state)]
        assert_close(np.concatenate(y), layer(x)[0][6:])

    def test_an_older_segment_keeps_the_parameters_it_ran_with(self, rng):
        layer = make("lstm")
        x = random_input(rng, layer)
        windows = truncated_bptt(layer, x, 6, 12)
        first = next(windows)
        layer.flat *= 0.5
        second = next(windows)
        dy = normal(rng, second.y.shape)
        gradients = second.backward(dy)

        _, _, tape = layer.forward(x[6:], first.state)
        newest = layer.backward(tape, dy)
        layer.flat *= 2
        _, _, tape = layer.forward(x[:6])
        oldest = layer.backward(tape, dstate=newest.state)
        assert_close(gradients.flat, newest.flat + oldest.flat)
        assert_close(gradients.x, np.concatenate([oldest.x, newest.x]))

    def test_gradients_are_views_of_one_buffer(self, rng):
        layer = make("gru")
        *_, window = truncated_bptt(layer, random_input(rng, layer), 4, 8)
        gradients = window.backward(normal(rng, window.y.shape))
        joined = np.concatenate([gradients.params[name].ravel() for name in layer.params])
        assert_same_bits(joined, gradients.flat)
        assert all(np.shares_memory(g, gradients.flat) for g in gradients.params.values())

    def test_no_steps_no_windows(self):
        assert list(truncated_bptt(make("lstm"), np.zeros((0, B, I)), 3)) == []

    @pytest.mark.parametrize(
        ("arguments", "error", "message"),
        [
            ({"k1": 0}, ValueError, "k1: expected at least 1, got 0"),
            ({"k1": 2.5}, TypeError, "k1: expected an integer, got float"),
            ({"k1": 4, "k2": 2}, ValueError, "k2: expected a multiple of k1=4, got 2"),
            ({"k1": 4, "k2": 6}, ValueError, "k2: expected a multiple of k1=4, got 6"),
            ({"k1": 4, "x": np.zeros((T, B, I + 1))}, ValueError, "x: expected"),
            ({"k1": 4, "x": np.zeros((T, B, I), np.float32)}, TypeError, "x: expected float64"),
            ({"k1": 4, "state": np.zeros((1, B, H))}, TypeError, "state: expected a pair"),
            ({"k1": 4, "lengths": [T + 1] * B}, ValueError, "lengths: expected values in"),
            ({"k1": 4, "layer": object()}, TypeError, "layer: expected LSTM, GRU or RNN"),
            (
                {"k1": 4, "layer": LSTM(I, H, bidirectional=True)},
                ValueError,
                "truncated_bptt: expected one direction",
            ),
        ],
    )
    def test_errors_come_with_the_call(self, arguments, error, message):
        with pytest.raises(error, match=message):
            truncated_bptt(**{"layer": make("lstm"), "x": np.zeros((T, B, I)), **arguments})

    def test_backward_checks_its_arguments(self, rng):
        layer = make("lstm")
        window = next(truncated_bptt(layer, random_input(rng, layer), 4))
        with pytest.raises(ValueError, match=r"dy: expected \(4, 3, 5\), got \(12, 3, 5\)"):
            window.backward(np.zeros((T, B, H)))

    @batch_first
    @pytest.mark.parametrize(("k1", "k2"), [(4, 4), (3, 6), (5, 10)])
    def test_a_function_gives_the_same_as_an_array(self, rng, batch_first, k1, k2):
        layer = make("lstm", batch_first=batch_first)
        x, lengths = random_input(rng, layer), np.array([T, 7, 0])

        def take(start, stop):
            return x[:, start:stop] if batch_first else x[start:stop]

        ours = truncated_bptt(layer, take, k1, k2, lengths=lengths, steps=T)
        for a, b in zip(ours, truncated_bptt(layer, x, k1, k2, lengths=lengths), strict=True):
            assert (a.start, a.stop) == (b.start, b.stop)
            assert_same_bits((a.y, a.state), (b.y, b.state))
            dy = normal(rng, a.y.shape)
            assert_same_bits(a.backward(dy), b.backward(dy))

    def test_a_trained_input_is_made_anew_for_each_window(self, rng):
        layer, embedding = make("lstm"), Embedding(6, I, dtype=np.float64, rng=0)
        ids, seen = rng.integers(0, 6, (T, B)), []

        def take(start, stop):
            seen.append((start, stop, embedding.flat.sum()))
            return embedding(ids[start:stop])

        for window in truncated_bptt(layer, take, 4, 8, steps=T):
            gradients = window.backward(np.ones_like(window.y))
            steps = ids[window.stop - len(gradients.x) : window.stop]
            SGD([embedding], lr=0.1).step([embedding.backward(steps, gradients.x)])
        assert [(start, stop) for start, stop, _ in seen] == [(0, 4), (4, 8), (8, 12)]
        assert len({total for *_, total in seen}) == 3

    def test_a_function_is_checked(self):
        layer = make("lstm")
        with pytest.raises(TypeError, match="steps: expected an integer where x is a function"):
            truncated_bptt(layer, lambda start, stop: None, 4)
        with pytest.raises(TypeError, match="steps: expected None where x is an array, got 5"):
            truncated_bptt(layer, np.zeros((T, B, I)), 4, steps=5)
        with pytest.raises(ValueError, match=r"x: expected 4 steps from x\(0, 4\), got \(3,"):
            next(truncated_bptt(layer, lambda start, stop: np.zeros((3, B, I)), 4, steps=T))


class TestGradientFlow:
    @each_layer
    @batch_first
    def test_norms_match_central_differences(self, rng, cell, batch_first):
        layer = make(cell, batch_first=batch_first)
        x, state = random_input(rng, layer), cell.state_of(rng, layer, B)
        dh = normal(rng, (B, layer.output_size))
        flow = gradient_flow(layer, x, state, dh=dh)
        assert list(flow) == (["h", "c"] if layer.cell == "lstm" else ["h"])
        steps = in_time(layer, x)
        for t in (0, 5, T - 1):
            rest = in_time(layer, steps[t:])
            _, now = layer(in_time(layer, steps[:t]), state)
            parts = dict(zip(flow, now if isinstance(now, tuple) else (now,), strict=True))

            def loss(now=now, rest=rest):
                _, final = layer(rest, now)
                return float(np.sum((final[0] if layer.cell == "lstm" else final)[0] * dh))

            for part, norms in flow.items():
                # a small step, because the normalisation of a small z is strongly curved
                expected = central_differences(loss, parts[part], 1e-6)
                assert_close(norms[t], np.linalg.norm(expected[0], axis=1), FINITE_DIFFERENCES)
        assert_close(flow["h"][T], np.linalg.norm(dh, axis=1))
        if layer.cell == "lstm":
            assert not flow["c"][T].any()

    def test_the_last_h_summed_unless_told(self, rng):
        layer = make("gru")
        flow = gradient_flow(layer, random_input(rng, layer))
        assert_close(flow["h"][T], np.full(B, np.sqrt(H)))
        assert flow["h"].shape == (T + 1, B)

    def test_an_open_forget_gate_carries_the_gradient(self, rng):
        flows = [
            gradient_flow(LSTM(2, 8, forget_bias=bias, dtype=np.float64, rng=0), x)["c"][0].max()
            for x in [normal(rng, (200, 4, 2))]
            for bias in (0, 1, 5)
        ]
        assert flows[0] < 1e-3 * flows[1]
        assert flows[1] < 1e-3 * flows[2]

    @pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
    @pytest.mark.parametrize("top", [False, True])
    def test_each_layer_of_a_stack_has_the_slope(self, rng, cell, top):
        layer = make(cell, num_layers=2)
        x, dh, t = normal(rng, (T, B, I)), normal(rng, (B, H)), T // 2
        _, state = layer(x[:t])
        parts = state if isinstance(state, tuple) else (state,)
        flow = gradient_flow(layer, x, dh=dh)
        names = [f"{part}_l{k}" for part in ("h", "c")[: len(parts)] for k in range(2)]
        assert list(flow) == names
        for part, array in zip("hc", parts, strict=False):
            slopes = central_differences(
                lambda: float((layer(x[t:], state)[0][-1] * dh).sum()), array
            )
            norms = np.linalg.norm(slopes[int(top)], axis=-1)
            assert_close(flow[f"{part}_l{int(top)}"][t], norms, FINITE_DIFFERENCES)

    def test_at_the_end_only_the_last_layer_has_a_gradient(self, rng):
        flow = gradient_flow(make("lstm", num_layers=3), normal(rng, (T, B, I)))
        assert_close(flow["h_l2"][T], np.full(B, np.sqrt(H)))
        assert not any(flow[name][T].any() for name in flow if name != "h_l2")

    def test_wants_one_direction(self):
        with pytest.raises(ValueError, match="gradient_flow: expected one direction"):
            gradient_flow(LSTM(I, H, bidirectional=True), np.zeros((T, B, I), np.float32))

    def test_checks_its_arguments(self):
        with pytest.raises(ValueError, match=r"dh: expected \(3, 5\), got \(5, 3\)"):
            gradient_flow(make("rnn"), np.zeros((T, B, I)), dh=np.zeros((H, B)))
        with pytest.raises(TypeError, match="layer: expected LSTM, GRU or RNN, got NoneType"):
            gradient_flow(None, np.zeros((T, B, I)))
