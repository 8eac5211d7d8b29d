"""What the sub-commands of ``fastlstm`` share: how they fail, and how they write files."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


class CommandError(Exception):
    """Ends the command with one line on stderr and exit code 1."""


@contextmanager
def write_whole(path: Path) -> Iterator[BinaryIO]:
    """Open a file for writing that appears under its name only when it is complete.

    Until then it has a temporary name in the same directory; an exception, Ctrl-C included,
    removes it and leaves what was there before.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("xb") as file:
            yield file
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
