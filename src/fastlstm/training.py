"""What it takes to train an LSTM without a framework: a linear layer, losses, optimisers.

Truncated backpropagation and the flow of gradients are in `_truncated`, and offered here as well.

Decisions:
a) A module has its parameters in one flat buffer, `flat`, of which `params` are views; the object
   its `backward` returns has the gradients in the same layout, also called `flat`. That is all
   that an optimiser and `clip_grad_norm` ask for, so any object with such a buffer, or the buffer
   itself, will do.
b) A loss returns its value and its gradient together: there is no graph to ask for it later.
c) Formulas and defaults are PyTorch's, so that a recipe carries over with its settings.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from fastlstm import _training
from fastlstm._arguments import REAL_DTYPES, check_real
from fastlstm._options import check_size
from fastlstm._truncated import Window, gradient_flow, truncated_bptt

__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "HasFlat",
    "Linear",
    "LinearGradients",
    "Window",
    "clip_grad_norm",
    "cross_entropy_loss",
    "gradient_flow",
    "mse_loss",
    "truncated_bptt",
]


class HasFlat(Protocol):
    """Parameters, or gradients, in one flat buffer."""

    @property
    def flat(self) -> NDArray:
        """One-dimensional, contiguous, float32 or float64."""
        ...


class LinearGradients(NamedTuple):
    """Result of `Linear.backward`: the gradient of x and of each parameter (views of `flat`)."""

    x: NDArray
    params: dict[str, NDArray]
    flat: NDArray


class Linear:
    """An affine map of the last axis, ``y = x @ weight.T + bias``.

    Parameters
    ----------
    in_features, out_features : int
        Sizes of the last axis of x and of y, at least 1.
    bias : bool
        Whether there is a bias.
    dtype : dtype
        float32 or float64, of the parameters and of every array given and returned.
    rng : numpy.random.Generator, int or None
        Draws the initial parameters: uniform within ``1 / sqrt(in_features)``, as PyTorch does.

    Attributes
    ----------
    params : dict
        ``weight`` (out_features, in_features) and ``bias`` (out_features,), writable views of
        `flat`.
    flat : ndarray
        All parameters in one dimension.

    Raises
    ------
    ValueError
        If a size is less than 1.
    TypeError
        If a size is not an integer or `dtype` is not float32 or float64.

    Examples
    --------
    >>> import numpy as np
    >>> from fastlstm.training import Linear
    >>> linear = Linear(3, 2, rng=0)
    >>> linear(np.ones((5, 4, 3), dtype=np.float32)).shape
    (5, 4, 2)
    """

    params: dict[str, NDArray]
    flat: NDArray

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        bias: bool = True,
        dtype: DTypeLike = np.float32,
        rng: np.random.Generator | int | None = None,
    ) -> None:
        self.in_features = check_size("in_features", in_features)
        self.out_features = check_size("out_features", out_features)
        self.bias = bool(bias)
        self.dtype = np.dtype(dtype)
        if self.dtype not in REAL_DTYPES:
            raise TypeError(f"dtype: expected float32 or float64, got {self.dtype}")
        bound = 1 / math.sqrt(self.in_features)
        size = self.out_features * (self.in_features + self.bias)
        self.flat = np.random.default_rng(rng).uniform(-bound, bound, size).astype(self.dtype)
        self.params = self._views(self.flat)

    def _views(self, flat: NDArray) -> dict[str, NDArray]:
        """Name the parts of a flat buffer."""
        shape = (self.out_features, self.in_features)
        views = {"weight": flat[: math.prod(shape)].reshape(shape)}
        if self.bias:
            views["bias"] = flat[math.prod(shape) :]
        return views

    def __repr__(self) -> str:
        return (
            f"Linear({self.in_features}, {self.out_features}, "
            f"bias={self.bias}, dtype={self.dtype.name})"
        )

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "params"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self.params = self._views(self.flat)

    def __call__(self, x: ArrayLike) -> NDArray:
        """Return y (..., out_features) of x (..., in_features).

        Raises
        ------
        ValueError
            If the last axis of x is not in_features long.
        TypeError
            If x has another dtype than the layer.
        """
        y, _ = self.forward(x)
        return y

    def forward(self, x: ArrayLike) -> tuple[NDArray, object]:
        """Return y, as a call does, and the tape for `backward`: x itself, not a copy."""
        x = _check_dtype("x", x, self.dtype)
        if x.ndim == 0 or x.shape[-1] != self.in_features:
            raise ValueError(f"x: expected (..., {self.in_features}), got {x.shape}")
        y = x @ self.params["weight"].T
        if self.bias:
            y += self.params["bias"]
        return y, x

    def backward(self, tape: object, dy: ArrayLike) -> LinearGradients:
        """Return the gradients, given that of y.

        Parameters
        ----------
        tape : object
            From `forward`. The gradient of x uses the parameters as they are now, so update them
            after this call.
        dy : array_like, (..., out_features)
            Gradient of the loss with respect to y.

        Returns
        -------
        LinearGradients
            ``x`` (..., in_features), ``params`` with the keys of the layer's, and ``flat``.

        Raises
        ------
        ValueError
            If dy has not the shape of y.
        TypeError
            If dy has another dtype than the layer, or the tape is not a tape of this layer.
        """
        if not isinstance(tape, np.ndarray):
            raise TypeError(f"tape: expected what forward returned, got {type(tape).__name__}")
        dy = _check_dtype("dy", dy, self.dtype)
        shape = (*tape.shape[:-1], self.out_features)
        if dy.shape != shape:
            raise ValueError(f"dy: expected {shape}, got {dy.shape}")
        flat = np.empty_like(self.flat)
        gradients = self._views(flat)
        rows = dy.reshape(-1, self.out_features)
        np.matmul(rows.T, tape.reshape(-1, self.in_features), out=gradients["weight"])
        if self.bias:
            np.sum(rows, axis=0, out=gradients["bias"])
        return LinearGradients(dy @ self.params["weight"], gradients, flat)


def mse_loss(
    prediction: ArrayLike, target: ArrayLike, *, mask: ArrayLike | None = None
) -> tuple[float, NDArray]:
    """Return the mean squared error and its gradient with respect to the prediction.

    Parameters
    ----------
    prediction, target : array_like
        float32 or float64, both of one dtype and one shape. Nothing is broadcast.
    mask : array_like of bool, optional
        Of the same shape, True where a value counts. What does not count may be anything, NaN
        included, and has a gradient of 0: gaps in a series (``~np.isnan(target)``), or steps past
        the end of a row of a ragged batch.

    Returns
    -------
    loss : float
        The mean over the values that count.
    gradient : ndarray
        Of the prediction's shape and dtype.

    Raises
    ------
    ValueError
        If the shapes differ or no value counts.
    TypeError
        If the dtypes differ or are not real, or the mask is not boolean.

    Examples
    --------
    >>> import numpy as np
    >>> from fastlstm.training import mse_loss
    >>> mse_loss(np.array([1.0, 2.0]), np.array([1.0, 4.0]))
    (2.0, array([ 0., -2.]))
    >>> target = np.array([np.nan, 4.0])
    >>> mse_loss(np.array([1.0, 2.0]), target, mask=~np.isnan(target))
    (4.0, array([ 0., -4.]))
    """
    prediction = check_real("prediction", prediction)
    target = _check_dtype("target", target, prediction.dtype)
    if target.shape != prediction.shape:
        raise ValueError(
            f"target: expected {prediction.shape}, the shape of prediction, got {target.shape}"
        )
    counts, n = _check_mask(mask, prediction.shape, "prediction")
    gradient = np.zeros_like(prediction)
    np.subtract(prediction, target, out=gradient, where=True if counts is None else counts)
    loss = float(np.square(gradient).sum(dtype=np.float64)) / n
    gradient *= 2 / n
    return loss, gradient


def cross_entropy_loss(
    logits: ArrayLike, classes: ArrayLike, *, mask: ArrayLike | None = None
) -> tuple[float, NDArray]:
    """Return the mean of -log softmax(logits)[class] and its gradient with respect to the logits.

    Parameters
    ----------
    logits : array_like, (..., C)
        float32 or float64, of any magnitude. The classes are along the last axis.
    classes : array_like of int, (...,)
        The right class of each row, in [0, C).
    mask : array_like of bool, (...,), optional
        True where a row counts. The class of a row that does not may be any integer, and its
        gradient is 0.

    Returns
    -------
    loss : float
        The mean over the rows that count, in nats.
    gradient : ndarray, (..., C)
        Of the dtype of the logits.

    Raises
    ------
    ValueError
        If the shapes do not fit, a class that counts is not in [0, C), or no row counts.
    TypeError
        If a dtype is none of those above.

    Examples
    --------
    >>> import numpy as np
    >>> from fastlstm.training import cross_entropy_loss
    >>> loss, gradient = cross_entropy_loss(np.zeros((1, 4)), [2])
    >>> round(loss, 4), gradient
    (1.3863, array([[ 0.25,  0.25, -0.75,  0.25]]))
    """
    logits = check_real("logits", logits)
    if logits.ndim == 0 or logits.shape[-1] == 0:
        raise ValueError(f"logits: expected (..., C) with C >= 1, got {logits.shape}")
    C = logits.shape[-1]
    classes = np.asarray(classes)
    if classes.dtype.kind not in "iu" and classes.size:
        raise TypeError(f"classes: expected integers, got {classes.dtype}")
    if classes.shape != logits.shape[:-1]:
        raise ValueError(f"classes: expected {logits.shape[:-1]}, got {classes.shape}")
    counts, n = _check_mask(mask, classes.shape, "classes")
    selected = ... if counts is None else counts
    rows = logits[selected].reshape(n, C)
    right = classes[selected].reshape(n)
    if right.min() < 0 or right.max() >= C:
        raise ValueError(f"classes: expected values in [0, {C}), got {right.min()}..{right.max()}")

    each = np.arange(n)
    shifted = rows - rows.max(axis=1, keepdims=True)  # the largest is 0: exp cannot overflow
    softmax = np.exp(shifted)
    sums = softmax.sum(axis=1, keepdims=True)
    losses = np.log(sums[:, 0]) - shifted[each, right]
    softmax /= sums
    softmax[each, right] -= 1
    softmax /= n
    gradient = np.zeros_like(logits)
    gradient[selected] = softmax.reshape(gradient[selected].shape)
    return float(losses.sum(dtype=np.float64)) / n, gradient


def clip_grad_norm(gradients: Sequence[HasFlat | NDArray], max_norm: float) -> float:
    """Scale gradients in place so that their joint Euclidean norm is at most `max_norm`.

    Parameters
    ----------
    gradients : sequence
        What each module's `backward` returned, or flat arrays.
    max_norm : float
        At least 0. ``math.inf`` only measures.

    Returns
    -------
    float
        The norm before clipping, accumulated in double precision.

    Raises
    ------
    ValueError
        If `max_norm` is negative or NaN, or a buffer is not one-dimensional and contiguous.
    TypeError
        If a gradient is not a real array and has no `flat`.

    Notes
    -----
    As `torch.nn.utils.clip_grad_norm_`: the factor is ``max_norm / (norm + 1e-6)``, if below 1.

    Examples
    --------
    >>> import numpy as np
    >>> from fastlstm.training import clip_grad_norm
    >>> gradient = np.array([3.0, 4.0])
    >>> clip_grad_norm([gradient], max_norm=1.0)
    5.0
    >>> gradient.round(3)
    array([0.6, 0.8])
    """
    flats = _flats("gradients", gradients)
    _check_at_least_0("max_norm", max_norm)
    norm = math.sqrt(sum(_training.sum_of_squares(flat) for flat in flats))
    factor = max_norm / (norm + 1e-6)
    if not factor >= 1:  # a NaN reaches the gradients too
        for flat in flats:
            flat *= factor
    return norm


class _Optimizer:
    """What the optimisers share: the buffers, the checks and the state.

    A subclass names its settings in `_settings` and its moments in `_moments` (a list of buffers
    like the parameters under each of these attributes), and updates one buffer in `_update`.
    """

    _settings: tuple[str, ...]
    _moments: tuple[str, ...]

    def __init__(
        self, parameters: Sequence[HasFlat | NDArray], lr: float, weight_decay: float
    ) -> None:
        self._flats = _flats("parameters", parameters)
        for flat in self._flats:
            if not flat.flags.writeable:
                raise ValueError("parameters: expected writable buffers, got a read-only one")
        self.lr = _check_at_least_0("lr", lr)
        self.weight_decay = _check_at_least_0("weight_decay", weight_decay)
        self.t = 0

    def step(self, gradients: Sequence[HasFlat | NDArray]) -> None:
        """Update the parameters in place.

        Parameters
        ----------
        gradients : sequence
            One for each item of `parameters`, in that order: what the module's `backward`
            returned, or a flat array. They are only read.

        Raises
        ------
        ValueError
            If their number or a buffer's length is not that of the parameters.
        TypeError
            If a dtype is not that of the parameters.
        """
        flats = _flats("gradients", gradients)
        if len(flats) != len(self._flats):
            raise ValueError(f"gradients: expected {len(self._flats)}, got {len(flats)}")
        for k, (w, g) in enumerate(zip(self._flats, flats, strict=True)):
            if g.dtype != w.dtype:
                raise TypeError(f"gradients[{k}]: expected {w.dtype}, got {g.dtype}")
            if g.shape != w.shape:
                raise ValueError(f"gradients[{k}]: expected {w.shape}, got {g.shape}")
        self.t += 1
        for k, g in enumerate(flats):
            self._update(k, self._flats[k], g)

    def _update(self, k: int, w: NDArray, g: NDArray) -> None:
        raise NotImplementedError

    def _zeros(self) -> list[NDArray]:
        return [np.zeros_like(flat) for flat in self._flats]

    def state_dict(self) -> dict[str, Any]:
        """Return a copy of the settings, the number of steps ``t`` and the moments."""
        state = {name: getattr(self, name) for name in (*self._settings, "t")}
        return state | {name: [m.copy() for m in getattr(self, name)] for name in self._moments}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned.

        Raises
        ------
        ValueError
            If it is another optimiser's, or of parameters of other lengths or dtypes.
        """
        expected = {*self._settings, "t", *self._moments}
        if set(state) != expected:
            raise ValueError(f"state: expected the keys {sorted(expected)}, got {sorted(state)}")
        for name in self._moments:
            like = [(m.shape, m.dtype) for m in getattr(self, name)]
            got = [(np.shape(m), np.asarray(m).dtype) for m in state[name]]
            if got != like:
                raise ValueError(f"state[{name!r}]: expected buffers {like}, got {got}")
        for name in (*self._settings, "t"):
            setattr(self, name, state[name])
        for name in self._moments:
            for own, saved in zip(getattr(self, name), state[name], strict=True):
                own[...] = saved

    def __repr__(self) -> str:
        settings = ", ".join(f"{name}={getattr(self, name)}" for name in self._settings)
        size = sum(flat.size for flat in self._flats)
        return f"{type(self).__name__}({settings}) of {size} parameters after {self.t} steps"


class SGD(_Optimizer):
    """Stochastic gradient descent, with momentum if wanted; `torch.optim.SGD`'s formula.

    Parameters
    ----------
    parameters : sequence
        Modules (anything with a `flat` buffer of parameters), or such buffers themselves:
        one-dimensional, contiguous, float32 or float64. Updated in place by `step`.
    lr : float
        Learning rate; the attribute `lr` may be changed between steps.
    momentum : float
        0 for none.
    weight_decay : float
        Added to the gradient, times the parameter.
    nesterov : bool
        Nesterov's momentum.

    Raises
    ------
    ValueError
        If a setting is negative, `nesterov` is asked for without momentum, or a buffer is not
        one-dimensional, contiguous and writable.
    TypeError
        If a buffer is not float32 or float64.

    Examples
    --------
    >>> import numpy as np
    >>> from fastlstm.training import SGD
    >>> w = np.array([1.0, -1.0])
    >>> optimizer = SGD([w], lr=0.1)
    >>> optimizer.step([2 * w])
    >>> w
    array([ 0.8, -0.8])
    """

    _settings = ("lr", "momentum", "weight_decay", "nesterov")
    _moments = ("velocity",)

    def __init__(
        self,
        parameters: Sequence[HasFlat | NDArray],
        lr: float,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ) -> None:
        super().__init__(parameters, lr, weight_decay)
        self.momentum = _check_at_least_0("momentum", momentum)
        self.nesterov = bool(nesterov)
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov: expected momentum > 0 with it, got momentum=0")
        self.velocity = self._zeros() if self.momentum else []

    def _update(self, k: int, w: NDArray, g: NDArray) -> None:
        if self.velocity:
            _training.momentum_step(
                w, g, self.velocity[k], self.lr, self.weight_decay, self.momentum, self.nesterov
            )
        else:
            _training.sgd_step(w, g, self.lr, self.weight_decay)


class Adam(_Optimizer):
    """Adam (Kingma and Ba, arXiv:1412.6980); `torch.optim.Adam`'s formula and defaults.

    Parameters
    ----------
    parameters : sequence
        Modules (anything with a `flat` buffer of parameters), or such buffers themselves:
        one-dimensional, contiguous, float32 or float64. Updated in place by `step`.
    lr : float
        Learning rate; the attribute `lr` may be changed between steps.
    betas : tuple of two floats in [0, 1)
        Decay of the running means of the gradient and of its square.
    eps : float
        Added to the denominator.
    weight_decay : float
        Added to the gradient, times the parameter. (`AdamW` shrinks the parameters instead.)

    Raises
    ------
    ValueError
        If a setting is out of range, or a buffer is not one-dimensional, contiguous and writable.
    TypeError
        If a buffer is not float32 or float64.

    Examples
    --------
    >>> import numpy as np
    >>> from fastlstm.training import Adam, Linear, mse_loss
    >>> rng = np.random.default_rng(0)
    >>> x = rng.standard_normal((64, 2), dtype=np.float32)
    >>> linear = Linear(2, 1, rng=rng)
    >>> optimizer = Adam([linear], lr=0.1)
    >>> for _ in range(200):
    ...     y, tape = linear.forward(x)
    ...     loss, dy = mse_loss(y, 3 * x[:, :1] - 2 * x[:, 1:] + 1)
    ...     optimizer.step([linear.backward(tape, dy)])
    >>> linear.params["weight"].round(2), linear.params["bias"].round(2)
    (array([[ 3., -2.]], dtype=float32), array([1.], dtype=float32))
    """

    _settings: tuple[str, ...] = ("lr", "betas", "eps", "weight_decay")
    _moments = ("m", "v")

    def __init__(
        self,
        parameters: Sequence[HasFlat | NDArray],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(parameters, lr, weight_decay)
        if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"betas: expected two numbers in [0, 1), got {betas}")
        self.betas = (float(betas[0]), float(betas[1]))
        self.eps = _check_at_least_0("eps", eps)
        self.m = self._zeros()
        self.v = self._zeros()

    def _decay(self) -> tuple[float, float]:
        """Return the weight decay as what is added to the gradient and what w is scaled by."""
        return self.weight_decay, 1.0

    def _update(self, k: int, w: NDArray, g: NDArray) -> None:
        _training.adam_step(
            w, g, self.m[k], self.v[k], self.t, self.lr, *self.betas, self.eps, *self._decay()
        )


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov and Hutter, arXiv:1711.05101).

    As `Adam` but for `weight_decay`: each step first scales the parameters by
    ``1 - lr * weight_decay``, as `torch.optim.AdamW` does.
    """

    def __init__(
        self,
        parameters: Sequence[HasFlat | NDArray],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__(parameters, lr, betas, eps, weight_decay)

    def _decay(self) -> tuple[float, float]:
        return 0.0, 1.0 - self.lr * self.weight_decay


def _check_at_least_0(name: str, value: float) -> float:
    if not value >= 0:
        raise ValueError(f"{name}: expected a number >= 0, got {value}")
    return float(value)


def _check_dtype(name: str, value: ArrayLike, dtype: np.dtype) -> NDArray:
    array = check_real(name, value)
    if array.dtype != dtype:
        raise TypeError(f"{name}: expected {dtype}, got {array.dtype}")
    return array


def _check_mask(
    mask: ArrayLike | None, shape: tuple[int, ...], like: str
) -> tuple[NDArray[np.bool_] | None, int]:
    """Return the mask and how many values count."""
    if mask is None:
        counts, n = None, math.prod(shape)
    else:
        counts = np.asarray(mask)
        if counts.dtype != np.bool_:
            raise TypeError(f"mask: expected bool, got {counts.dtype}")
        if counts.shape != shape:
            raise ValueError(f"mask: expected {shape}, the shape of {like}, got {counts.shape}")
        n = int(np.count_nonzero(counts))
    if n == 0:
        raise ValueError(f"{like}: expected at least one value that counts, got none")
    return counts, n


def _flats(name: str, items: Sequence[HasFlat | NDArray]) -> list[NDArray]:
    """Return the flat buffer of each item."""
    if not isinstance(items, list | tuple) or hasattr(items, "flat"):  # one named tuple alone
        raise TypeError(f"{name}: expected a list, got {type(items).__name__}")
    flats = []
    for k, item in enumerate(items):
        flat = item if isinstance(item, np.ndarray) else getattr(item, "flat", None)
        if not isinstance(flat, np.ndarray) or flat.dtype not in REAL_DTYPES:
            got = flat.dtype if isinstance(flat, np.ndarray) else type(item).__name__
            raise TypeError(
                f"{name}[{k}]: expected an object with a flat buffer of float32 or float64, "
                f"or the buffer itself, got {got}"
            )
        if flat.ndim != 1 or not (flat.flags.c_contiguous and flat.flags.aligned):
            raise ValueError(
                f"{name}[{k}]: expected one dimension, contiguous and aligned, "
                f"got shape {flat.shape} with strides {flat.strides}"
            )
        flats.append(flat)
    return flats
