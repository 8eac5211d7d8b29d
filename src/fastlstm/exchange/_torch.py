"""PyTorch: its names are those of `params` here, its gates in the same order, its biases two."""

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from fastlstm._args.cells import find_cell, join_biases, split_bias
from fastlstm._layers.from_params import assemble
from fastlstm._layers.recurrent import Recurrent
from fastlstm.exchange._arrays import (
    HARMLESS,
    cell_of,
    check_expressible,
    to_array,
)
from fastlstm.layers import GRU, LSTM, RNN

MODES = ("LSTM", "GRU", "RNN_TANH", "RNN_RELU")


def from_torch(source: Any, *, prefix: str = "", **options: Any) -> LSTM | GRU | RNN:
    """Return a layer with the weights of a recurrent module of PyTorch.

    Parameters
    ----------
    source : torch.nn.LSTM, GRU or RNN, or a mapping
        The module, or its ``state_dict()``, of tensors or arrays. Its two biases ``bias_ih_l0`` and
        ``bias_hh_l0`` may also be one, ``bias_l0``, as in ``params`` of a layer here.
    prefix : str
        Where the module is within `source`, if that is a whole model or its ``state_dict()``:
        ``"encoder.lstm"`` for ``model.encoder.lstm``. All else in `source` is left out.
    **options
        Arguments of the layer. A module tells ``batch_first``, ``dropout`` and ``nonlinearity``. A
        ``state_dict`` does not, and an RNN with relu then looks like one with tanh.

    Returns
    -------
    LSTM, GRU or RNN
        With copies of the weights, in their dtype.

    Raises
    ------
    ValueError, TypeError
        If `source` is not of this kind; the message names the array.

    Examples
    --------
    >>> import fastlstm
    >>> from fastlstm.exchange import from_torch, to_torch
    >>> state_dict = to_torch(fastlstm.GRU(3, 8, 2, rng=0))
    >>> from_torch(state_dict, batch_first=True)
    GRU(3, 8, num_layers=2, batch_first=True)
    >>> whole = {"encoder.gru." + name: array for name, array in state_dict.items()}
    >>> from_torch(whole, prefix="encoder.gru")
    GRU(3, 8, num_layers=2)
    """
    if not isinstance(prefix, str):
        raise TypeError(f"prefix: expected a str, got {type(prefix).__name__}")
    prefix = prefix.removesuffix(".")
    if hasattr(source, "state_dict"):
        try:
            source = source.get_submodule(prefix) if prefix else source
        except AttributeError as error:
            raise ValueError(f"prefix: expected the name of a module: {error}") from error
        options = _module_options(source) | options
        source, prefix = source.state_dict(), ""
    if not isinstance(source, Mapping):
        raise TypeError(f"source: expected a module or a mapping, got {type(source).__name__}")
    if prefix:
        source = _below(prefix, source)
    if FIRST not in source and (others := _prefixes(source)):
        raise ValueError(f"{FIRST}: expected an array of this name, or as prefix one of {others}")
    params = {name: to_array(name, value) for name, value in source.items()}
    I = _columns(params, "weight_ih_l0")
    R = _columns(params, "weight_hh_l0")
    H = _columns(params, "weight_hr_l0") if "weight_hr_l0" in params else R
    cell = cell_of("weight_hh_l0", len(params["weight_hh_l0"]), H)
    for name in source:
        other, one = name.replace("bias_ih_", "bias_hh_"), name.replace("bias_ih_", "bias_")
        if other != name and other in params:
            b_ih, b_hh = params.pop(name), params.pop(other)
            if b_ih.ndim != 1 or b_ih.shape != b_hh.shape:
                got = f"{b_ih.shape} and {b_hh.shape}"
                raise ValueError(f"{name}: expected two biases alike, got {got}")
            params[one] = join_biases(cell, b_ih, b_hh)
    config = {
        "input_size": I,
        "hidden_size": H,
        "num_layers": sum(name.removeprefix("weight_ih_l").isdigit() for name in params),
        "bias": any(name.startswith("bias_") for name in params),
        "bidirectional": "weight_ih_l0_reverse" in params,
    }
    if "weight_hr_l0" in params:
        config["proj_size"] = R
    return assemble(cell.kind, params, config | options)


FIRST = "weight_ih_l0"


def _below(prefix: str, source: Mapping[str, Any]) -> dict[str, Any]:
    """Return what has names that begin with `prefix` and a dot, under the rest of them."""
    start = f"{prefix}."
    found = {name.removeprefix(start): source[name] for name in source if name.startswith(start)}
    if FIRST not in found:
        raise ValueError(f"prefix: expected one of {_prefixes(source) or 'none'}, got {prefix!r}")
    return found


def _prefixes(source: Mapping[str, Any]) -> str:
    """Return the prefixes under which there are recurrent modules."""
    return ", ".join(n.removesuffix(f".{FIRST}") for n in source if n.endswith(f".{FIRST}"))


def _module_options(module: Any) -> dict[str, Any]:
    if getattr(module, "mode", None) not in MODES:
        raise TypeError(
            f"source: expected LSTM, GRU or RNN of torch.nn, got {type(module).__name__}"
        )
    options = {"batch_first": module.batch_first, "dropout": module.dropout}
    if module.mode.startswith("RNN"):
        options["nonlinearity"] = module.nonlinearity
    return options


def _columns(params: Mapping[str, NDArray[Any]], name: str) -> int:
    if name not in params:
        raise ValueError(f"{name}: expected an array of this name, got {', '.join(params)}")
    if params[name].ndim != 2:
        raise ValueError(f"{name}: expected 2 dimensions, got shape {params[name].shape}")
    return int(params[name].shape[1])


def to_torch(layer: Recurrent) -> dict[str, NDArray[Any]]:
    """Return the weights of a layer as PyTorch has them.

    Parameters
    ----------
    layer : LSTM, GRU or RNN

    Returns
    -------
    dict of arrays
        Copies, under the names of a ``state_dict``. PyTorch wants tensors: ``load_state_dict`` of a
        module with the same sizes takes ``{name: torch.from_numpy(array) for name, array in
        to_torch(layer).items()}``.

    Raises
    ------
    ValueError
        If the layer has what PyTorch's do not have: peepholes, clips, zoneout and the like.

    Examples
    --------
    >>> import fastlstm
    >>> from fastlstm.exchange import to_torch
    >>> {name: array.shape for name, array in to_torch(fastlstm.RNN(3, 8)).items()}
    {'weight_ih_l0': (8, 3), 'weight_hh_l0': (8, 8), 'bias_ih_l0': (8,), 'bias_hh_l0': (8,)}
    """
    names = HARMLESS | {"proj_size"}
    is_layer = isinstance(layer, Recurrent)  # what is none is refused below
    if is_layer and layer._config().get("nonlinearity") == "relu":
        names = names | {"nonlinearity"}
    check_expressible(layer, "PyTorch", names)
    state = {}
    cell = find_cell(layer.cell, layer._config())
    for name, array in layer.params.items():
        if name.startswith("bias_"):
            b_ih, b_hh = split_bias(cell, array)
            state[name.replace("bias_", "bias_ih_")] = b_ih
            state[name.replace("bias_", "bias_hh_")] = b_hh
        else:
            state[name] = array.copy()
    return state
