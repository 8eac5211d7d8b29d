"""Estimators as JSON and arrays, for `fastlstm.files`: data of known classes, nothing executed.

Decisions:
a) What is stored are the settings and the attributes. Of objects only those of `CLASSES` are, by
   their attributes; an array is stored beside the JSON, which has its name.
b) Layers are made again by `assemble`, of the arrays that are there, so that what a file says of
   sizes cannot ask for more memory than the file has.
c) Optimisers are not stored (`partial_fit` of a loaded estimator begins with new moments), nor the
   index of pandas (a loaded forecaster's forecasts are arrays, unless `past` is given) or a
   callback.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastlstm._layers.from_params import assemble
from fastlstm.estimators import (
    _baseline,
    _ensemble,
    _forecaster,
    _panel,
    _smoothing,
    _supervised,
    _windows,
)
from fastlstm.estimators._base import Columns, Recurrent
from fastlstm.estimators._network import Network
from fastlstm.training import AdamW, Linear

CLASSES = {
    cls.__name__: cls
    for cls in (
        _baseline.Autoregression,
        _baseline.Baseline,
        _baseline.Kind,
        _baseline.Member,
        _baseline.Zero,
        _baseline.Mean,
        _ensemble.Ensemble,
        _ensemble.KnownLoss,
        _panel.One,
        _smoothing.Holt,
        _smoothing.Level,
        _smoothing.Seasonal,
        _smoothing.Smoothing,
        _smoothing.Theta,
        _windows.Scale,
        _windows.Series,
        Columns,
    )
}
ESTIMATORS = {
    "LSTMForecaster": _forecaster.LSTMForecaster,
    "LSTMClassifier": _supervised.LSTMClassifier,
    "LSTMRegressor": _supervised.LSTMRegressor,
}
LEFT_OUT = {"callback", "_optimizer", "_rng", "_rngs", "labels"}
PLAIN = (bool, int, float, str, type(None))


def to_store(estimator: Any) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Return what JSON can say of a fitted estimator, and its arrays by name."""
    if not estimator.__sklearn_is_fitted__():
        raise ValueError(f"layer: expected a fitted {type(estimator).__name__}")
    arrays: dict[str, NDArray[Any]] = {}
    state = _encoded(_kept(vars(estimator)), "", arrays)
    return {"estimator": type(estimator).__name__, "state": state}, arrays


def _kept(attributes: Any) -> dict[str, Any]:
    return {name: value for name, value in attributes.items() if name not in LEFT_OUT}


def _encoded(value: Any, name: str, arrays: dict[str, NDArray[Any]]) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, PLAIN):
        return value
    if isinstance(value, np.ndarray):
        if value.dtype in (np.float32, np.float64):
            arrays[name] = np.ascontiguousarray(value)
            return {"array": name}
        return {"list": value.tolist(), "dtype": "O" if value.dtype == object else value.dtype.str}
    if isinstance(value, Network):
        return _encoded_network(value, name, arrays)
    if isinstance(value, type) and value.__name__ in CLASSES:
        return {"class": value.__name__}
    if type(value) in CLASSES.values():
        state = value._asdict() if hasattr(value, "_asdict") else vars(value)
        return {
            "object": type(value).__name__,
            "state": _encoded(_kept(state), name, arrays),
        }
    if isinstance(value, dict):
        items = [
            [_plain(key), _encoded(each, f"{name}.{key}", arrays)] for key, each in value.items()
        ]
        return {"dict": items}
    if isinstance(value, list | tuple):
        if value and isinstance(value[0], tuple) and isinstance(value[0][0], Network):
            value = [member[0] for member in value]  # without its optimiser
        each = [_encoded(one, f"{name}.{k}", arrays) for k, one in enumerate(value)]
        return each if isinstance(value, list) else {"tuple": each}
    raise TypeError(
        f"layer: expected an estimator of plain settings, got {name.lstrip('.')} of type "
        f"{type(value).__name__}, which a file cannot hold"
    )


def _plain(key: Any) -> Any:
    key = key.item() if isinstance(key, np.generic) else key
    if not isinstance(key, PLAIN):
        raise TypeError(f"layer: expected series named by strings or numbers, got {key!r}")
    return key


def _encoded_network(
    network: Network, name: str, arrays: dict[str, NDArray[Any]]
) -> dict[str, Any]:
    for part, module in (("layers", network.layers), ("head", network.head)):
        arrays |= {f"{name}.{part}.{each}": array for each, array in module.params.items()}
    return {
        "network": name,
        "cell": network.layers.cell,
        "config": network.layers._config(),
        "steps": network.steps,
    }


def from_store(about: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> Any:
    """Return the estimator; ValueError or TypeError if this is not what `to_store` returned."""
    name = about.get("estimator")
    if name not in ESTIMATORS:
        raise ValueError(f"estimator: expected one of {', '.join(ESTIMATORS)}, got {name!r}")
    state = _decoded(about.get("state"), arrays)
    if not isinstance(state, dict):
        raise ValueError(f"state: expected a dict, got {type(state).__name__}")
    estimator: Any = ESTIMATORS[name]()
    for attribute in state:
        if not isinstance(attribute, str) or hasattr(type(estimator), attribute):
            raise ValueError(f"state: expected no {attribute!r}")
    estimator.__dict__.update(state)
    _revive(estimator)
    return estimator


def _revive(estimator: Recurrent) -> None:
    """Make what was left out."""
    estimator._check_settings()
    estimator._rng = estimator._new_rng()
    if isinstance(estimator, _forecaster.LSTMForecaster):
        ensemble = estimator._ensemble
        ensemble._rngs = estimator._rng.spawn(len(ensemble.members))
        networks: list[Any] = ensemble.members  # stored without optimisers
        ensemble.members = [(each, _optimizer(estimator, each)) for each in networks]
    else:
        estimator._optimizer = _optimizer(estimator, estimator._network)


def _optimizer(estimator: Recurrent, network: Any) -> AdamW:
    if not isinstance(network, Network):
        raise ValueError(f"network: expected a network, got {type(network).__name__}")
    return AdamW(network.modules, lr=estimator._peak(), weight_decay=estimator.weight_decay)


def _decoded(value: Any, arrays: dict[str, NDArray[Any]]) -> Any:
    if isinstance(value, list):
        return [_decoded(each, arrays) for each in value]
    if not isinstance(value, dict):
        return value
    if "array" in value:
        if value["array"] not in arrays:
            raise ValueError(f"state: expected the tensor {value['array']!r}")
        return arrays[value["array"]]
    if "list" in value:
        dtype = np.dtype(value["dtype"])
        if dtype.kind not in "biufUO":
            raise ValueError(f"dtype: expected numbers or strings, got {dtype}")
        return np.array(value["list"], dtype)
    if "network" in value:
        return _decoded_network(value, arrays)
    if "class" in value:
        return _known_class(value["class"])
    if "object" in value:
        return _decoded_object(value, arrays)
    if "dict" in value:
        return {key: _decoded(each, arrays) for key, each in value["dict"]}
    if "tuple" in value:
        return tuple(_decoded(value["tuple"], arrays))
    raise ValueError(f"state: expected what save writes, got {sorted(value)}")


def _known_class(name: Any) -> Any:
    if name not in CLASSES:
        raise ValueError(f"state: expected one of {', '.join(CLASSES)}, got {name!r}")
    return CLASSES[name]


def _decoded_object(value: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> Any:
    cls = _known_class(value["object"])
    state = _decoded(value.get("state"), arrays)
    if cls is _panel.One:
        state["labels"] = None
    if issubclass(cls, tuple):
        return cls(**state)
    made: Any = object.__new__(cls)
    for name, each in state.items():
        setattr(made, name, each)
    return made


def _decoded_network(value: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> Network:
    params: dict[str, dict[str, NDArray[Any]]] = {"layers": {}, "head": {}}
    for part, own in params.items():
        begin = f"{value['network']}.{part}."
        own |= {n.removeprefix(begin): a for n, a in arrays.items() if n.startswith(begin)}
    network = object.__new__(Network)
    rng = np.random.default_rng()
    network.layers = assemble(value["cell"], params["layers"], value["config"] | {"rng": rng})
    if params["head"].keys() != {"weight", "bias"} or params["head"]["weight"].ndim != 2:
        raise ValueError(f"{value['network']}.head: expected weight and bias")
    outputs, width = params["head"]["weight"].shape
    if width != network.layers.num_directions * network.layers.hidden_size:
        raise ValueError(f"{value['network']}.head.weight: expected as many columns as outputs")
    network.head = Linear(width, outputs, rng=rng)
    for name, array in params["head"].items():
        if array.shape != network.head.params[name].shape or not math.isfinite(array.sum()):
            raise ValueError(
                f"{value['network']}.head.{name}: expected finite numbers of its shape"
            )
        network.head.params[name][...] = array
    network.steps, network._rng = int(value["steps"]), rng
    return network
