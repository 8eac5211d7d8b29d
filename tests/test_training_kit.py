"""Embedding, dropout and learning rates: against PyTorch, differences and what is written out."""

import copy
import math
import pickle

import numpy as np
import pytest
from helpers import (
    AGAINST_TORCH,
    FINITE_DIFFERENCES,
    assert_close,
    assert_same_bits,
    central_differences,
    normal,
)
from hypothesis import given
from hypothesis import strategies as st

from fastlstm.training import SGD, Adam, AdamW, CosineDecay, Dropout, Embedding, ExponentialDecay


class TestEmbedding:
    @given(
        st.lists(st.integers(0, 4), max_size=3).map(tuple), st.integers(1, 5), st.integers(0, 99)
    )
    def test_values_and_sums_of_gradients(self, shape, N, seed):
        rng = np.random.default_rng(seed)
        for dtype in (np.float32, np.float64):
            embedding = Embedding(N, 3, dtype=dtype, rng=rng)
            indices = rng.integers(0, N, shape)
            y, tape = embedding.forward(indices)
            assert_same_bits(y, embedding(indices))
            assert y.shape == (*shape, 3)
            dy = rng.standard_normal(y.shape).astype(dtype)
            gradients, wanted = embedding.backward(tape, dy), np.zeros((N, 3), dtype)
            for index in np.ndindex(shape):
                assert_same_bits(y[index], embedding.params["weight"][indices[index]])
                wanted[indices[index]] += dy[index]
            assert_close(gradients.params["weight"], wanted)
            assert np.shares_memory(gradients.params["weight"], gradients.flat)

    def test_gradient_is_the_slope(self, rng):
        embedding = Embedding(4, 3, dtype=np.float64, rng=rng)
        indices, dy = rng.integers(0, 4, (6, 2)), normal(rng, (6, 2, 3))
        slopes = central_differences(
            lambda: float((embedding(indices) ** 2 * dy).sum()) / 2, embedding.flat
        )
        assert_close(
            embedding.backward(indices, embedding(indices) * dy).flat, slopes, FINITE_DIFFERENCES
        )

    def test_against_pytorch(self, dtype, rng):
        torch = pytest.importorskip("torch")
        ours = Embedding(7, 4, dtype=dtype, rng=0)
        theirs = torch.nn.Embedding(7, 4, _weight=torch.tensor(ours.params["weight"]))
        indices, dy = rng.integers(0, 7, (5, 3)), normal(rng, (5, 3, 4)).astype(dtype)
        y = theirs(torch.from_numpy(indices))
        y.backward(torch.from_numpy(dy))
        assert_same_bits(ours(indices), y.detach().numpy())
        grads = ours.backward(indices, dy).params["weight"]
        assert_close(grads, theirs.weight.grad.numpy(), AGAINST_TORCH)

    def test_the_tape_is_a_copy(self):
        embedding, indices = Embedding(3, 2, rng=0), np.array([0, 1])
        _, tape = embedding.forward(indices)
        indices[:] = 2
        assert tape.tolist() == [0, 1]

    def test_copies_and_pickles(self):
        embedding = Embedding(3, 2, dtype=np.float64, rng=0)
        for other in (copy.deepcopy(embedding), pickle.loads(pickle.dumps(embedding))):
            assert_same_bits(other.flat, embedding.flat)
            other.params["weight"][...] = 0
            assert not other.flat.any()
        assert embedding.flat.all()
        assert repr(embedding) == "Embedding(3, 2, dtype=float64)"

    def test_starts_standard_normal(self):
        flat = Embedding(1000, 50, rng=0).flat
        assert abs(flat.mean()) < 0.02
        assert abs(flat.std() - 1) < 0.02

    @pytest.mark.parametrize(
        ("indices", "error", "message"),
        [
            ([3], ValueError, r"indices: expected values in \[0, 3\), got 3..3"),
            ([-1, 0], ValueError, r"indices: expected values in \[0, 3\), got -1..0"),
            ([0.0], TypeError, "indices: expected integers, got float64"),
            ([True], TypeError, "indices: expected integers, got bool"),
        ],
    )
    def test_indices_are_checked(self, indices, error, message):
        with pytest.raises(error, match=message):
            Embedding(3, 2)(indices)

    def test_other_arguments_are_checked(self):
        embedding = Embedding(3, 2)
        with pytest.raises(ValueError, match="num_embeddings: expected at least 1, got 0"):
            Embedding(0, 2)
        with pytest.raises(ValueError, match=r"dy: expected \(1, 2\), got \(2,\)"):
            embedding.backward([0], np.zeros(2, np.float32))
        with pytest.raises(TypeError, match="dy: expected float32"):
            embedding.backward([0], np.zeros((1, 2)))
        with pytest.raises(AttributeError, match="embedding_dim: cannot be set"):
            embedding.embedding_dim = 5


class TestDropout:
    @pytest.mark.parametrize("p", [0.0, 0.2, 0.5, 1.0])
    def test_drops_with_its_probability_and_keeps_the_mean(self, dtype, p):
        x = np.full((200, 300), 2, dtype)
        y, tape = Dropout(p, rng=0).forward(x)
        assert y.dtype == dtype
        assert abs((y == 0).mean() - p) < 0.01
        kept = y[y != 0]
        assert_close(kept, np.full_like(kept, 2 / (1 - p) if p < 1 else 0))
        assert_same_bits(x * tape, y)

    def test_gradient_is_the_slope(self, rng):
        dropout, x, weights = Dropout(0.3, rng=0), normal(rng, (4, 5)), normal(rng, (4, 5))
        _, tape = dropout.forward(x)

        def loss():
            return float((Dropout(0.3, rng=0).forward(x)[0] * weights).sum())

        slopes = central_differences(loss, x)
        assert_close(dropout.backward(tape, weights).x, slopes, FINITE_DIFFERENCES)

    def test_a_call_drops_nothing(self, dtype, rng):
        x = normal(rng, (4, 5)).astype(dtype)
        assert_same_bits(Dropout(0.5)(x), x)

    def test_arguments_are_checked(self):
        for p in (-0.1, 1.1, math.nan):
            with pytest.raises(ValueError, match="p: expected a probability"):
                Dropout(p)
        dropout = Dropout(0.5)
        with pytest.raises(TypeError, match="p: expected a number, got str"):
            dropout.p = "half"
        _, tape = dropout.forward(np.zeros(3))
        with pytest.raises(ValueError, match=r"dy: expected \(3,\), got \(2,\)"):
            dropout.backward(tape, np.zeros(2))
        with pytest.raises(TypeError, match="dy: expected float64"):
            dropout.backward(tape, np.zeros(3, np.float32))


class TestSchedules:
    @pytest.mark.parametrize(
        ("ours", "name", "options"),
        [
            (CosineDecay(0.3, 20, least=0.1), "CosineAnnealingLR", {"T_max": 20, "eta_min": 0.1}),
            (ExponentialDecay(0.3, 0.9), "ExponentialLR", {"gamma": 0.9}),
            (ExponentialDecay(0.3, 0.5, every=4), "StepLR", {"gamma": 0.5, "step_size": 4}),
        ],
        ids=lambda value: value if isinstance(value, str) else "",
    )
    def test_against_pytorch(self, ours, name, options):
        torch = pytest.importorskip("torch")
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.3)
        theirs = getattr(torch.optim.lr_scheduler, name)(optimizer, **options)
        for t in range(20):
            assert ours(t) == pytest.approx(theirs.get_last_lr()[0], rel=1e-9)
            optimizer.step()
            theirs.step()

    def test_warmup_rises_in_a_straight_line_and_the_end_stays(self):
        schedule = CosineDecay(1.0, steps=10, warmup=4, least=0.25)
        assert [schedule(t) for t in range(5)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
        assert schedule(7) == pytest.approx(0.625)
        assert schedule(10) == schedule(1000) == pytest.approx(0.25)

    @pytest.mark.parametrize("make", [SGD, Adam, AdamW])
    def test_an_optimizer_takes_the_rate_of_each_step(self, dtype, make):
        def train(lr_of_step):
            w = np.linspace(1, 2, 5).astype(dtype)
            optimizer = make([w], lr=schedule, weight_decay=0.1)
            for t in range(6):
                optimizer.lr = lr_of_step(t)
                optimizer.step([w * w])
            return w

        schedule = CosineDecay(0.1, 6, warmup=2)
        assert_same_bits(train(lambda t: schedule), train(schedule))

    def test_state_and_pickles_keep_the_schedule(self):
        w = np.ones(3)
        optimizer = SGD([w], lr=ExponentialDecay(0.1, 0.5))
        optimizer.step([w])
        other = pickle.loads(pickle.dumps(optimizer))
        assert other.lr == optimizer.lr == ExponentialDecay(0.1, 0.5)
        third = SGD([w], lr=1.0)
        third.load_state_dict(optimizer.state_dict())
        assert (third.lr(third.t), third.t) == (0.05, 1)

    def test_arguments_are_checked(self):
        with pytest.raises(ValueError, match="warmup: expected less than steps=5, got 5"):
            CosineDecay(0.1, 5, warmup=5)
        with pytest.raises(ValueError, match="least: expected a number >= 0, got -1"):
            CosineDecay(0.1, 5, least=-1)
        with pytest.raises(ValueError, match="every: expected at least 1, got 0"):
            ExponentialDecay(0.1, 0.5, every=0)
        w = np.ones(3)
        with pytest.raises(ValueError, match="lr: expected a number >= 0, got -1"):
            SGD([w], lr=lambda t: -1).step([w])
        assert w.tolist() == [1, 1, 1]
