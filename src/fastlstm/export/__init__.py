"""Trained networks as C: one file without dependencies, to be compiled and run without Python."""

import os
import re
from pathlib import Path
from typing import Any

from fastlstm._args.atomic_write import atomic_write
from fastlstm.export._golden import golden
from fastlstm.export._network import take_apart
from fastlstm.export._text import joined, write

__all__ = ["c"]


def c(
    path: str | os.PathLike[str],
    network: Any,
    *,
    name: str,
    single_header: bool = False,
    storage: str | None = None,
    overwrite: bool = False,
) -> None:
    """Write a network as C."""
    if not isinstance(name, str) or not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise ValueError(f"name: expected a lower-case identifier of C, got {name!r}")
    parts = take_apart(network)
    files = write(parts, name, golden(parts), bfloat16=storage == "bfloat16")
    target = Path(os.fspath(path))
    with atomic_write(target, overwrite=overwrite) as file:
        file.write((joined(files, name) if single_header else files.source).encode())
    if not single_header:
        with atomic_write(target.with_name(f"{name}.h"), overwrite=overwrite) as file:
            file.write(files.header.encode())
