"""Optimisers, and the clipping of gradients, over flat buffers.

The arithmetic is compiled, in ``_core/optimizers.pyx``.
"""

from __future__ import annotations  # so that help() shows names

import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fastlstm._args.arrays import REAL_DTYPES, refuse_mask
from fastlstm._args.numbers import check_not_negative
from fastlstm._core import optimizers

Rate = float | Callable[[int], float]


class HasFlat(Protocol):
    """Parameters, or gradients, in one flat buffer."""

    @property
    def flat(self) -> NDArray[Any]:
        """One-dimensional, contiguous, float32 or float64."""
        ...


def clip_grad_norm(gradients: Sequence[HasFlat | NDArray[Any]], max_norm: float) -> float:
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
    check_not_negative("max_norm", max_norm)
    norm = math.sqrt(sum(optimizers.sum_of_squares(flat) for flat in flats))
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
        self, parameters: Sequence[HasFlat | NDArray[Any]], lr: Rate, weight_decay: float
    ) -> None:
        self._parameters = parameters
        self._flats = _flats("parameters", parameters)
        self._check_writable()
        self.lr: Any = lr if callable(lr) else check_not_negative("lr", lr)
        self.weight_decay: float = check_not_negative("weight_decay", weight_decay)
        self.t: int = 0

    def _check_writable(self) -> None:
        for k, flat in enumerate(self._flats):
            if not flat.flags.writeable:
                raise ValueError(
                    f"parameters[{k}]: expected a writable buffer, got a read-only one; what "
                    'joblib.load(..., mmap_mode="r") or joblib\'s workers give is writable after '
                    "copy.deepcopy, of modules and optimizer together"
                )

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_flats"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        # joblib keeps apart two references to one array, but not two to one module
        vars(self).update(state)
        self._flats = _flats("parameters", self._parameters)

    def step(self, gradients: Sequence[HasFlat | NDArray[Any]]) -> None:
        """Update the parameters in place.

        Parameters
        ----------
        gradients : sequence
            One for each item of `parameters`, in that order: what the module's `backward`
            returned, or a flat array. They are only read.

        Raises
        ------
        ValueError
            If their number or a buffer's length is not that of the parameters, or these have become
            read-only.
        TypeError
            If a dtype is not that of the parameters.
        """
        self._check_writable()
        flats = _flats("gradients", gradients)
        if len(flats) != len(self._flats):
            raise ValueError(f"gradients: expected {len(self._flats)}, got {len(flats)}")
        for k, (w, g) in enumerate(zip(self._flats, flats, strict=True)):
            if g.dtype != w.dtype:
                raise TypeError(f"gradients[{k}]: expected {w.dtype}, got {g.dtype}")
            if g.shape != w.shape:
                raise ValueError(f"gradients[{k}]: expected {w.shape}, got {g.shape}")
            for name in self._moments:  # public, and the arithmetic trusts it
                moments = getattr(self, name)
                if moments and moments[k].shape != w.shape:
                    raise ValueError(f"{name}[{k}]: expected {w.shape}, got {moments[k].shape}")
        lr = check_not_negative("lr", self.lr(self.t)) if callable(self.lr) else self.lr
        self.t += 1
        for k, g in enumerate(flats):
            self._update(k, self._flats[k], g, lr)

    def _update(self, k: int, w: NDArray[Any], g: NDArray[Any], lr: float) -> None:
        raise NotImplementedError

    def _zeros(self) -> list[NDArray[Any]]:
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
    lr : float or function
        Learning rate; the attribute `lr` may be changed between steps. A function, such as
        `CosineDecay`, gets the number of steps done and returns the rate of the next one.
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
        parameters: Sequence[HasFlat | NDArray[Any]],
        lr: Rate,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ) -> None:
        super().__init__(parameters, lr, weight_decay)
        self.momentum: float = check_not_negative("momentum", momentum)
        self.nesterov: bool = bool(nesterov)
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov: expected momentum > 0 with it, got momentum=0")
        self.velocity: list[NDArray[Any]] = self._zeros() if self.momentum else []

    def _update(self, k: int, w: NDArray[Any], g: NDArray[Any], lr: float) -> None:
        if self.velocity:
            optimizers.momentum_step(
                w, g, self.velocity[k], lr, self.weight_decay, self.momentum, self.nesterov
            )
        else:
            optimizers.sgd_step(w, g, lr, self.weight_decay)


class Adam(_Optimizer):
    """Adam (Kingma and Ba, arXiv:1412.6980); `torch.optim.Adam`'s formula and defaults.

    Parameters
    ----------
    parameters : sequence
        Modules (anything with a `flat` buffer of parameters), or such buffers themselves:
        one-dimensional, contiguous, float32 or float64. Updated in place by `step`.
    lr : float or function
        Learning rate; the attribute `lr` may be changed between steps. A function, such as
        `CosineDecay`, gets the number of steps done and returns the rate of the next one.
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
        parameters: Sequence[HasFlat | NDArray[Any]],
        lr: Rate = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(parameters, lr, weight_decay)
        given: tuple[float, ...] = betas
        if len(given) != 2 or not all(0 <= beta < 1 for beta in given):
            raise ValueError(f"betas: expected two numbers in [0, 1), got {betas}")
        self.betas: tuple[float, float] = (float(betas[0]), float(betas[1]))
        self.eps: float = check_not_negative("eps", eps)
        self.m: list[NDArray[Any]] = self._zeros()
        self.v: list[NDArray[Any]] = self._zeros()

    def _decay(self, lr: float) -> tuple[float, float]:
        """Return the weight decay as what is added to the gradient and what w is scaled by."""
        return self.weight_decay, 1.0

    def _update(self, k: int, w: NDArray[Any], g: NDArray[Any], lr: float) -> None:
        optimizers.adam_step(
            w, g, self.m[k], self.v[k], self.t, lr, *self.betas, self.eps, *self._decay(lr)
        )


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov and Hutter, arXiv:1711.05101).

    Parameters
    ----------
    parameters, lr, betas, eps
        As of `Adam`.
    weight_decay : float
        Each step first scales the parameters by ``1 - lr * weight_decay``, as `torch.optim.AdamW`
        does.
    """

    def __init__(
        self,
        parameters: Sequence[HasFlat | NDArray[Any]],
        lr: Rate = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__(parameters, lr, betas, eps, weight_decay)

    def _decay(self, lr: float) -> tuple[float, float]:
        return 0.0, 1.0 - lr * self.weight_decay


def _flats(name: str, items: Sequence[HasFlat | NDArray[Any]]) -> list[NDArray[Any]]:
    """Return the flat buffer of each item."""
    if not isinstance(items, list | tuple) or hasattr(items, "flat"):  # one named tuple alone
        raise TypeError(f"{name}: expected a list, got {type(items).__name__}")
    flats = []
    for k, item in enumerate(items):
        flat = item if isinstance(item, np.ndarray) else getattr(item, "flat", None)
        refuse_mask(f"{name}[{k}]", flat)
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
