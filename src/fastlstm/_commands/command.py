"""What the sub-commands of ``fastlstm`` share: how they fail, and how they write files."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from fastlstm._args.atomic_write import atomic_write, check_writable

ROOM = 1 << 18  # bytes; a picture takes about as much, a table of results less


class CommandError(Exception):
    """Ends the command with one line on stderr and exit code 1."""


@contextmanager
def write_output(path: Path, force: bool) -> Iterator[BinaryIO]:
    """Open a file for results, which appears when it is complete; CommandError if it cannot be."""
    with _named(path), atomic_write(path, overwrite=force) as file:
        yield file


def check_output(path: Path, force: bool) -> None:
    """Raise CommandError, before the work, if its results could not be written after it."""
    if not path.parent.is_dir():
        raise CommandError(f"{path.parent} is not a directory")
    if os.path.lexists(path) and not force:
        raise CommandError(f"{path} exists; --force replaces it")
    with _named(path):
        check_writable(path, ROOM, overwrite=force)


@contextmanager
def _named(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        message = f"cannot write {path}: {error.strerror}" if error.strerror else str(error)
        raise CommandError(message) from error
