"""Linear, losses, optimisers and clipping: against central differences and against PyTorch."""

import copy
import math
import pickle

import numpy as np
import pytest
from helpers import (
    AGAINST_TORCH,
    FINITE_DIFFERENCES,
    LOSSES,
    assert_close,
    assert_same_bits,
    central_differences,
    normal,
)
from hypothesis import given
from hypothesis import strategies as st

from fastlstm.training import (
    SGD,
    Adam,
    AdamW,
    Linear,
    clip_grad_norm,
    cross_entropy_loss,
    mse_loss,
)

OPTIMIZERS = [
    pytest.param(cls, settings, id=f"{cls.__name__}-{'-'.join(settings) or 'defaults'}")
    for cls, settings in [
        (SGD, {"lr": 0.1}),
        (SGD, {"lr": 0.1, "weight_decay": 0.2}),
        (SGD, {"lr": 0.1, "momentum": 0.9}),
        (SGD, {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.2}),
        (SGD, {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.2, "nesterov": True}),
        (Adam, {}),
        (Adam, {"lr": 0.02, "betas": (0.8, 0.95), "eps": 1e-4, "weight_decay": 0.3}),
        (Adam, {"betas": (0.0, 0.0)}),
        (AdamW, {}),
        (AdamW, {"lr": 0.02, "betas": (0.8, 0.95), "eps": 1e-4, "weight_decay": 0.3}),
    ]
]
sizes = st.integers(1, 5)
leading_shapes = st.lists(st.integers(0, 4), max_size=3).map(tuple)


class TestLinear:
    @given(leading_shapes, sizes, sizes, st.booleans())
    def test_shapes_and_product(self, leading, n_in, n_out, bias):
        linear = Linear(n_in, n_out, bias=bias, dtype=np.float64, rng=1)
        x = normal(np.random.default_rng(2), (*leading, n_in))
        expected = np.einsum("...i,oi->...o", x, linear.params["weight"])
        assert_close(linear(x), expected + linear.params.get("bias", 0.0))
        y, tape = linear.forward(x)
        gradients = linear.backward(tape, np.ones_like(y))
        assert gradients.x.shape == x.shape
        assert gradients.flat.shape == linear.flat.shape
        assert {k: g.shape for k, g in gradients.params.items()} == {
            k: p.shape for k, p in linear.params.items()
        }

    @pytest.mark.parametrize("bias", [True, False])
    def test_gradients_match_central_differences(self, rng, bias):
        linear = Linear(3, 2, bias=bias, dtype=np.float64, rng=rng)
        x, dy = normal(rng, (4, 5, 3)), normal(rng, (4, 5, 2))
        _, tape = linear.forward(x)
        gradients = linear.backward(tape, dy)

        def loss():
            return float(np.sum(linear(x) * dy))

        assert_close(gradients.x, central_differences(loss, x), FINITE_DIFFERENCES)
        assert_close(gradients.flat, central_differences(loss, linear.flat), FINITE_DIFFERENCES)

    def test_matches_torch(self, rng, dtype):
        torch = pytest.importorskip("torch")
        linear = Linear(7, 5, dtype=dtype, rng=rng)
        x, dy = normal(rng, (3, 4, 7), dtype), normal(rng, (3, 4, 5), dtype)
        tensors = [torch.tensor(a, requires_grad=True) for a in (x, *linear.params.values())]
        expected = torch.nn.functional.linear(*tensors)
        expected.backward(torch.from_numpy(dy))
        y, tape = linear.forward(x)
        gradients = linear.backward(tape, dy)
        assert_close(y, expected.detach().numpy(), AGAINST_TORCH)
        for g, tensor in zip((gradients.x, *gradients.params.values()), tensors, strict=True):
            assert_close(g, tensor.grad.numpy(), AGAINST_TORCH)

    def test_parameters_are_views_of_one_buffer(self, dtype):
        linear = Linear(3, 2, dtype=dtype, rng=0)
        linear.flat[:] = np.arange(8)
        assert linear.params["weight"].tolist() == [[0, 1, 2], [3, 4, 5]]
        assert linear.params["bias"].tolist() == [6, 7]
        linear.params["bias"][:] = 0
        assert linear(np.ones(3, dtype)).tolist() == [3, 12]

    def test_initial_parameters_are_uniform_and_repeatable(self):
        flat = Linear(25, 400, rng=3).flat
        assert -0.2 <= flat.min() < -0.19
        assert 0.19 < flat.max() <= 0.2
        assert abs(flat.std() - 0.2 / math.sqrt(3)) < 2e-3
        assert_same_bits(flat, Linear(25, 400, rng=np.random.default_rng(3)).flat)

    @pytest.mark.parametrize("clone", [copy.deepcopy, lambda a: pickle.loads(pickle.dumps(a))])
    def test_copies_keep_views_and_share_nothing(self, clone):
        linear = Linear(3, 2, rng=0)
        before = linear.flat.copy()
        other = clone(linear)
        assert_same_bits(other.params, linear.params)
        other.flat[:] = 0
        assert not other.params["weight"].any()
        assert_same_bits(linear.flat, before)

    def test_repr_shows_sizes(self):
        assert repr(Linear(3, 2, bias=False)) == "Linear(3, 2, bias=False, dtype=float32)"

    @pytest.mark.parametrize(
        ("error", "message", "call"),
        [
            (ValueError, "in_features: expected at least 1, got 0", lambda: Linear(0, 1)),
            (TypeError, "out_features: expected an integer, got float", lambda: Linear(1, 2.0)),
            (TypeError, "dtype: expected float32", lambda: Linear(1, 1, dtype=np.int32)),
            (
                ValueError,
                r"x: expected \(..., 3\), got \(2,\)",
                lambda: Linear(3, 1)(np.float32([1, 2])),
            ),
            (TypeError, "x: expected float32, got float64", lambda: Linear(3, 1)(np.ones(3))),
            (
                TypeError,
                "tape: expected what forward returned, got NoneType",
                lambda: Linear(3, 1).backward(None, np.ones(1, np.float32)),
            ),
            (
                ValueError,
                r"dy: expected \(2, 1\), got \(2, 3\)",
                lambda: Linear(3, 1).backward(
                    np.ones((2, 3), np.float32), np.ones((2, 3), np.float32)
                ),
            ),
        ],
    )
    def test_errors(self, error, message, call):
        with pytest.raises(error, match=message):
            call()


class TestMSELoss:
    @pytest.mark.parametrize("masked", [False, True])
    def test_gradient_matches_central_differences(self, rng, masked):
        prediction, target = normal(rng, (3, 4, 2)), normal(rng, (3, 4, 2))
        mask = rng.random((3, 4, 2)) < 0.6 if masked else None
        _, gradient = mse_loss(prediction, target, mask=mask)
        numeric = central_differences(
            lambda: mse_loss(prediction, target, mask=mask)[0], prediction
        )
        assert_close(gradient, numeric, FINITE_DIFFERENCES)

    def test_matches_torch(self, rng, dtype):
        torch = pytest.importorskip("torch")
        prediction, target = normal(rng, (5, 6), dtype), normal(rng, (5, 6), dtype)
        tensor = torch.tensor(prediction, requires_grad=True)
        expected = torch.nn.functional.mse_loss(tensor, torch.from_numpy(target))
        expected.backward()
        loss, gradient = mse_loss(prediction, target)
        assert loss == pytest.approx(expected.item(), rel=LOSSES)
        assert_close(gradient, tensor.grad.numpy(), AGAINST_TORCH)

    def test_masked_values_may_be_anything(self, dtype):
        prediction = np.array([1, np.inf, 3], dtype)
        target = np.array([0, np.nan, 1], dtype)
        loss, gradient = mse_loss(prediction, target, mask=[True, False, True])
        assert loss == 2.5
        assert gradient.tolist() == [1, 0, 2]

    def test_nan_propagates(self):
        loss, gradient = mse_loss(np.array([1.0, 2.0]), np.array([np.nan, 2.0]))
        assert math.isnan(loss)
        assert math.isnan(gradient[0])
        assert gradient[1] == 0

    @pytest.mark.parametrize(
        ("error", "message", "target", "mask"),
        [
            (ValueError, r"target: expected \(2, 1\), .* got \(2,\)", np.ones(2), None),
            (TypeError, "target: expected float64, got float32", np.ones((2, 1), "f4"), None),
            (TypeError, "target: expected float32 or float64, got int", [[1], [2]], None),
            (TypeError, "mask: expected bool, got int", np.ones((2, 1)), [[1], [0]]),
            (ValueError, r"mask: expected \(2, 1\), .* got \(2,\)", np.ones((2, 1)), [True, True]),
            (ValueError, "at least one value that counts", np.ones((2, 1)), [[False], [False]]),
        ],
    )
    def test_errors(self, error, message, target, mask):
        with pytest.raises(error, match=message):
            mse_loss(np.ones((2, 1)), target, mask=mask)


class TestCrossEntropyLoss:
    @pytest.mark.parametrize("masked", [False, True])
    def test_gradient_matches_central_differences(self, rng, masked):
        logits, classes = normal(rng, (3, 4, 5)), rng.integers(0, 5, (3, 4))
        mask = rng.random((3, 4)) < 0.6 if masked else None
        _, gradient = cross_entropy_loss(logits, classes, mask=mask)
        numeric = central_differences(
            lambda: cross_entropy_loss(logits, classes, mask=mask)[0], logits
        )
        assert_close(gradient, numeric, FINITE_DIFFERENCES)

    def test_matches_torch(self, rng, dtype):
        torch = pytest.importorskip("torch")
        logits, classes = normal(rng, (20, 6), dtype, 3), rng.integers(0, 6, 20)
        mask = rng.random(20) < 0.7
        tensor = torch.tensor(logits, requires_grad=True)
        expected = torch.nn.functional.cross_entropy(
            tensor, torch.from_numpy(np.where(mask, classes, -100))
        )
        expected.backward()
        loss, gradient = cross_entropy_loss(logits, classes, mask=mask)
        assert loss == pytest.approx(expected.item(), rel=LOSSES)
        assert_close(gradient, tensor.grad.numpy(), AGAINST_TORCH)

    @given(leading_shapes.filter(all), sizes)
    def test_equal_logits_cost_log_of_the_number_of_classes(self, leading, C):
        loss, gradient = cross_entropy_loss(np.full((*leading, C), 7.0), np.zeros(leading, int))
        assert loss == pytest.approx(math.log(C), abs=1e-15)
        assert gradient.shape == (*leading, C)
        assert np.abs(gradient.sum(axis=-1)).max() < 1e-15

    def test_large_logits_neither_overflow_nor_lose_the_loss(self, dtype):
        loss, gradient = cross_entropy_loss(np.array([[3e4, -3e4]], dtype), [1])
        assert loss == 6e4
        assert gradient.tolist() == [[1, -1]]

    def test_classes_of_masked_rows_may_be_anything(self):
        loss, gradient = cross_entropy_loss(
            np.array([[0.0, 0.0], [np.nan, 1.0]]), [1, -1], mask=[True, False]
        )
        assert loss == pytest.approx(math.log(2))
        assert gradient.tolist() == [[0.5, -0.5], [0, 0]]

    @pytest.mark.parametrize(
        ("error", "message", "classes"),
        [
            (TypeError, "classes: expected integers, got float64", [0.0, 1.0]),
            (ValueError, r"classes: expected \(2,\), got \(3,\)", [0, 1, 1]),
            (ValueError, r"classes: expected values in \[0, 3\), got 0..3", [0, 3]),
            (ValueError, r"classes: expected values in \[0, 3\), got -1..1", [-1, 1]),
        ],
    )
    def test_errors(self, error, message, classes):
        with pytest.raises(error, match=message):
            cross_entropy_loss(np.zeros((2, 3)), classes)

    @pytest.mark.parametrize("shape", [(), (2, 0)])
    def test_needs_at_least_one_class(self, shape):
        with pytest.raises(ValueError, match=r"logits: expected \(\.\.\., C\) with C >= 1"):
            cross_entropy_loss(np.zeros(shape), np.zeros(shape[:-1], int))

    def test_needs_at_least_one_row(self):
        with pytest.raises(ValueError, match="classes: expected at least one value that counts"):
            cross_entropy_loss(np.zeros((0, 2)), np.zeros(0, int))


class TestOptimizers:
    @pytest.mark.parametrize(("cls", "settings"), OPTIMIZERS)
    def test_matches_torch_over_many_steps(self, rng, dtype, cls, settings):
        torch = pytest.importorskip("torch")
        ours = [normal(rng, 37, dtype), normal(rng, 5, dtype)]
        theirs = [torch.tensor(w, requires_grad=True) for w in ours]
        optimizer = cls(ours, **settings)
        expected = getattr(torch.optim, cls.__name__)(theirs, foreach=False, **settings)
        for step in range(25):
            gradients = [normal(rng, w.size, dtype, 10.0 ** rng.integers(-4, 2)) for w in ours]
            for tensor, g in zip(theirs, gradients, strict=True):
                tensor.grad = torch.from_numpy(g)
            if step == 12:  # a schedule changes the rate between steps
                optimizer.lr = expected.param_groups[0]["lr"] = 0.01
            optimizer.step(gradients)
            expected.step()
            for w, tensor in zip(ours, theirs, strict=True):
                assert_close(w, tensor.detach().numpy(), AGAINST_TORCH)

    @pytest.mark.parametrize(("cls", "settings"), OPTIMIZERS)
    @pytest.mark.parametrize("through_pickle", [False, True])
    def test_goes_on_from_its_state(self, rng, dtype, cls, settings, through_pickle):
        gradients = [normal(rng, 9, dtype) for _ in range(6)]
        straight, stopped = np.ones(9, dtype), np.ones(9, dtype)
        optimizer, first = cls([straight], **settings), cls([stopped], **settings)
        for g in gradients:
            optimizer.step([g])
        for g in gradients[:3]:
            first.step([g])
        state = first.state_dict()
        first.step([gradients[3]])  # the state is a copy: this must not change it
        stopped[:] = _replay(cls, settings, gradients[:3], dtype)
        second = cls([stopped], **{**settings, "lr": 123.0})
        second.load_state_dict(pickle.loads(pickle.dumps(state)) if through_pickle else state)
        for g in gradients[3:]:
            second.step([g])
        assert_same_bits(stopped, straight)

    @pytest.mark.parametrize("cls", [SGD, Adam, AdamW])
    def test_updates_modules_in_place(self, rng, cls):
        linear = Linear(3, 2, rng=rng)
        x, target = normal(rng, (50, 3), np.float32), normal(rng, (50, 2), np.float32)
        optimizer = cls([linear], lr=0.01)
        losses = []
        for _ in range(30):
            y, tape = linear.forward(x)
            loss, dy = mse_loss(y, target)
            optimizer.step([linear.backward(tape, dy)])
            losses.append(loss)
        assert losses == sorted(losses, reverse=True)
        assert optimizer.t == 30
        assert "8 parameters after 30 steps" in repr(optimizer)

    def test_gradients_may_be_read_only_and_are_not_changed(self, rng):
        w, g = np.ones(4), normal(rng, 4)
        g.flags.writeable = False
        before = g.copy()
        Adam([w], weight_decay=0.1).step([g])
        assert_same_bits(g, before)
        assert (w != 1).all()

    @pytest.mark.parametrize(
        ("error", "message", "call"),
        [
            (TypeError, "parameters: expected a list, got ndarray", lambda: Adam(np.ones(2))),
            (
                TypeError,
                r"parameters\[0\]: expected an object .* got int64",
                lambda: Adam([np.arange(2)]),
            ),
            (TypeError, r"parameters\[1\]: .* got str", lambda: Adam([np.ones(2), "w"])),
            (
                ValueError,
                r"parameters\[0\]: expected one dimension",
                lambda: Adam([np.ones((2, 2))]),
            ),
            (ValueError, r"parameters\[0\]: .* contiguous", lambda: Adam([np.ones(4)[::2]])),
            (
                ValueError,
                r"parameters\[0\]: expected a writable",
                lambda: Adam([np.broadcast_to(1.0, 1)]),
            ),
            (ValueError, "lr: expected a number >= 0, got -1", lambda: SGD([np.ones(1)], lr=-1)),
            (
                ValueError,
                "lr: expected a number >= 0, got nan",
                lambda: SGD([np.ones(1)], lr=math.nan),
            ),
            (ValueError, "momentum: expected", lambda: SGD([np.ones(1)], 0.1, momentum=-0.5)),
            (
                ValueError,
                "nesterov: expected momentum > 0",
                lambda: SGD([np.ones(1)], 0.1, nesterov=True),
            ),
            (ValueError, "weight_decay: expected", lambda: AdamW([np.ones(1)], weight_decay=-1)),
            (
                ValueError,
                r"betas: expected two numbers in \[0, 1\)",
                lambda: Adam([np.ones(1)], betas=(0.9, 1)),
            ),
            (ValueError, "eps: expected", lambda: Adam([np.ones(1)], eps=-1e-8)),
            (
                ValueError,
                "gradients: expected 1, got 2",
                lambda: Adam([np.ones(1)]).step([np.ones(1)] * 2),
            ),
            (
                ValueError,
                r"gradients\[0\]: expected \(1,\), got \(2,\)",
                lambda: Adam([np.ones(1)]).step([np.ones(2)]),
            ),
            (
                TypeError,
                r"gradients\[0\]: expected float64, got float32",
                lambda: Adam([np.ones(1)]).step([np.ones(1, "f4")]),
            ),
        ],
    )
    def test_errors(self, error, message, call):
        with pytest.raises(error, match=message):
            call()

    def test_a_refused_step_changes_nothing(self):
        w = [np.ones(2), np.ones(3)]
        optimizer = Adam(w)
        with pytest.raises(ValueError, match=r"gradients\[1\]"):
            optimizer.step([np.ones(2), np.ones(4)])
        assert optimizer.t == 0
        assert w[0].tolist() == [1, 1]

    def test_refuses_the_state_of_another(self):
        state = Adam([np.ones(2)]).state_dict()
        with pytest.raises(ValueError, match="state: expected the keys"):
            SGD([np.ones(2)], lr=0.1).load_state_dict(state)
        with pytest.raises(ValueError, match=r"state\['m'\]: expected buffers"):
            Adam([np.ones(3)]).load_state_dict(state)


class TestClipGradNorm:
    @pytest.mark.parametrize("max_norm", [0.0, 0.5, 30.0, 1e3, math.inf])
    def test_matches_torch(self, rng, dtype, max_norm):
        torch = pytest.importorskip("torch")
        gradients = [normal(rng, 301, dtype), normal(rng, 64, dtype), normal(rng, 0, dtype)]
        tensors = [torch.tensor(g) for g in gradients]
        for tensor in tensors:
            tensor.grad = tensor.clone()
        expected = torch.nn.utils.clip_grad_norm_(tensors, max_norm).item()
        assert clip_grad_norm(gradients, max_norm) == pytest.approx(expected, rel=LOSSES)
        for g, tensor in zip(gradients, tensors, strict=True):
            assert_close(g, tensor.grad.numpy(), AGAINST_TORCH)

    @given(st.integers(0, 200))
    def test_norm_of_any_length(self, n):
        gradient = np.arange(n, dtype=np.float32)
        expected = math.sqrt(sum(k * k for k in range(n)))
        assert clip_grad_norm([gradient], math.inf) == pytest.approx(expected, rel=1e-15)
        assert_same_bits(gradient, np.arange(n, dtype=np.float32))

    def test_norm_is_accumulated_in_double(self):
        gradient = np.full(2**20, 1e-30, np.float32)  # whose squares underflow in float32
        assert clip_grad_norm([gradient], 1.0) == pytest.approx(2**10 * 1e-30, rel=LOSSES)

    def test_clips_what_backward_returned(self, rng):
        linear = Linear(3, 2, rng=rng)
        y, tape = linear.forward(np.ones((4, 3), np.float32))
        gradients = linear.backward(tape, 100 * np.ones_like(y))
        assert clip_grad_norm([gradients], 1.0) > 100
        squares = [np.sum(g.astype(np.float64) ** 2) for g in gradients.params.values()]
        assert math.sqrt(sum(squares)) == pytest.approx(1, rel=LOSSES)

    def test_nan_reaches_every_gradient(self):
        gradients = [np.ones(2), np.array([np.nan])]
        assert math.isnan(clip_grad_norm(gradients, 1.0))
        assert np.isnan(gradients[0]).all()

    def test_errors(self):
        with pytest.raises(ValueError, match="max_norm: expected a number >= 0, got -1"):
            clip_grad_norm([np.ones(1)], -1)
        one = np.ones(1, np.float32)
        gradients = Linear(1, 1).backward(one, one)
        with pytest.raises(TypeError, match="gradients: expected a list, got LinearGradients"):
            clip_grad_norm(gradients, 1.0)


def _replay(cls, settings, gradients, dtype):
    """Return parameters that began as ones, after a step with each gradient."""
    w = np.ones(gradients[0].size, dtype)
    optimizer = cls([w], **settings)
    for g in gradients:
        optimizer.step([g])
    return w
