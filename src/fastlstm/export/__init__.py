"""Trained networks as C: one file without dependencies, compiled and run without Python.

`c` writes it, or ``fastlstm export model.safetensors model.c``; docs/export.md is a tutorial.

Decisions:
a) The file is C99 and C++17, its sizes are constants, its vectors those of gcc and clang; where
   there are none it is plain C. Nothing in it is decided at run time.
b) It has the arithmetic of the scalar kernels, a product and a sum for each weight, so that its
   bits depend on no compiler or machine. Who prefers speed lets the compiler contract.
"""

import os
import re
from pathlib import Path
from typing import Any

import numpy as np

from fastlstm._args.atomic_write import atomic_write
from fastlstm.export._golden import golden
from fastlstm.export._network import take_apart
from fastlstm.export._text import joined, write

__all__ = ["c"]

STORAGES = (None, "bfloat16")


def c(
    path: str | os.PathLike[str],
    network: Any,
    *,
    name: str | None = None,
    storage: str | None = None,
    single_header: bool = False,
    overwrite: bool = False,
) -> None:
    """Write a trained network as C: a source, and its header beside it.

    Parameters
    ----------
    path : path-like
        Of the source, ``model.c``, or of the single header, ``model.h``. What it ends in does not
        matter to us: ``model.cpp`` is fine too.
    network : layer or sequence of layers
        `LSTM`, `GRU` and `RNN` with all their options, and `Linear`, each reading what the one
        before puts out; at least one is recurrent. Dropout and zoneout are as in a call: none, and
        their expectation.
    name : str, optional
        What the names of functions and types begin with, in lower case; by default, that of the
        file.
    storage : None or "bfloat16"
        How weight matrices are stored: bfloat16, rounded to nearest even, halves them. Only of
        float32.
    single_header : bool
        Write one header; the functions are where ``NAME_IMPLEMENTATION`` is defined before it is
        included, in one source of a program.
    overwrite : bool
        Whether to replace files that are there.

    Raises
    ------
    ValueError, TypeError
        If the network cannot be written as C, which the message says why, or an argument is not
        what it should be.
    FileExistsError
        If there is a file and `overwrite` is False.
    OSError
        If a file cannot be written.

    Notes
    -----
    Layers that read from a sequence's end (bidirectional, reverse) cannot go step by step: of these
    networks there is ``NAME_run`` alone.

    Compiled with ``-ffp-contract=off`` the results of recurrent layers have the bits of Python with
    ``FASTLSTM_ISA=scalar``, on every target with IEEE arithmetic; for elu, softplus and scaled_tanh
    see docs/export.md. Linear maps are summed in the order of their inputs, where Python leaves the
    order to a BLAS.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> import fastlstm, fastlstm.export
    >>> from fastlstm.training import Linear
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "denoise.c")
    ...     fastlstm.export.c(path, [fastlstm.GRU(1, 8, rng=0), Linear(8, 1, rng=0)])
    ...     "void denoise_step(denoise_state *state" in path.with_suffix(".h").read_text()
    True
    """
    target = Path(os.fspath(path))
    name = _check_name(target, name)
    if storage not in STORAGES:
        raise ValueError(f"storage: expected None or 'bfloat16', got {storage!r}")
    parts = take_apart(network)
    bfloat16 = storage is not None
    if bfloat16 and parts.dtype != np.float32:
        raise ValueError(f"storage: expected None for {parts.dtype} layers, got {storage!r}")
    header = target if single_header else target.with_suffix(".h")
    files = write(parts, name, header.name, golden(parts, bfloat16), bfloat16=bfloat16)
    texts = {target: files.source, header: files.header}
    if single_header:
        texts = {target: joined(files, name)}
    elif header == target:
        raise ValueError(f"path: expected that of a source, got {target}, or single_header=True")
    for file in texts:
        if os.path.lexists(file) and not overwrite:
            raise FileExistsError(f"{file} exists; overwrite=True replaces it")
    for file, text in texts.items():
        with atomic_write(file, overwrite=overwrite) as opened:
            opened.write(text.encode())


def _check_name(path: Path, name: str | None) -> str:
    given: object = path.stem.lower() if name is None else name
    if not isinstance(given, str) or not re.fullmatch(r"[a-z][a-z0-9_]*", given):
        raise ValueError(f"name: expected a lower-case identifier of C, got {given!r}")
    if re.fullmatch(r"(lstm|gru|rnn|linear)_\d\w*", given):
        raise ValueError(f"name: expected another one than those of layers, got {given!r}")
    return given
