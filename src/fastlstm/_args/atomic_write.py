"""Files that are written whole: whoever looks finds the old content or the new, never a part.

Decisions:
a) The content goes into a new file of the same directory, under a name that nobody else has, is
   flushed to the disk, and then takes the name; so the directory has to be writable, and for a
   moment there is room for both. An exception, Ctrl-C included, leaves what was there before.
b) A symbolic link is followed, as by `open`: it stays, and the file that it leads to is replaced,
   or made, where it led to none. To `overwrite` a link counts as a file, wherever it leads.
c) A file that is replaced hands on its permissions; a new one has those that `open` gives. Owner
   and other attributes are those of the writer. Other hard links keep the old content.
d) What is no regular file (a directory, a FIFO, a device, /dev/stdout in a pipe) is refused: it
   would be replaced by a file, and nothing written to it could be whole.
"""

import contextlib
import os
import secrets
import stat
from collections.abc import Iterator
from typing import BinaryIO

PathLike = str | os.PathLike[str]


@contextlib.contextmanager
def atomic_write(path: PathLike, *, overwrite: bool = False) -> Iterator[BinaryIO]:
    """Open a file for writing that appears under its name when the block ends without exception.

    Raises
    ------
    FileExistsError
        If there is a file and `overwrite` is False, also one that somebody made meanwhile.
    OSError
        If it cannot be written, or `path` leads to what is no regular file.
    """
    target, mode = _destination(path, overwrite)
    with _beside(target, mode) as (file, partial):
        yield file
        file.flush()
        os.fsync(file.fileno())
        file.close()  # where there are no POSIX systems, an open file cannot be renamed
        if overwrite:
            os.replace(partial, target)
        else:
            _rename_to_new(partial, target)
    with contextlib.suppress(OSError):  # the name, too; not every system can
        directory = os.open(os.path.dirname(target), os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def check_writable(path: PathLike, size: int, *, overwrite: bool = False) -> None:
    """Raise the OSError that `atomic_write` of `size` bytes would raise; nothing is left behind."""
    with _beside(*_destination(path, overwrite)) as (file, _):
        file.write(bytes(size))
        file.flush()
        os.fsync(file.fileno())


def _destination(path: PathLike, overwrite: bool) -> tuple[str, int | None]:
    """Return the file that `path` leads to, and its permissions if it is there."""
    if not overwrite and os.path.lexists(path):
        raise _there_is_one(path)
    target = os.path.realpath(path)
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return target, None
    if not stat.S_ISREG(mode):
        raise OSError(f"{os.fspath(path)}: expected a regular file, got {_kind(mode)}")
    return target, stat.S_IMODE(mode)


def _kind(mode: int) -> str:
    kinds = {stat.S_IFDIR: "a directory", stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket"}
    return kinds.get(stat.S_IFMT(mode), "a device")


def _there_is_one(path: PathLike) -> FileExistsError:
    return FileExistsError(f"{os.fspath(path)}: there is a file; overwrite=True replaces it")


@contextlib.contextmanager
def _beside(target: str, mode: int | None) -> Iterator[tuple[BinaryIO, str]]:
    """Open a new file in the directory of `target`; give its name too, which ends with the block.

    Its permissions are `mode` from the beginning: its content may be nobody else's business.
    """
    partial = os.path.join(os.path.dirname(target), f".{secrets.token_hex(8)}.tmp")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    try:
        descriptor = os.open(partial, flags, 0o666 if mode is None else 0o600)
    except OSError as error:
        error.filename = target  # the name that the caller knows
        raise
    try:
        with open(descriptor, "wb") as file:
            if mode is not None:
                os.chmod(partial, mode)
            yield file, partial
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(partial)


def _rename_to_new(partial: str, target: str) -> None:
    """Give a file its name unless somebody has it: a link fails then, a rename does not."""
    try:
        os.link(partial, target)
    except FileExistsError:
        raise _there_is_one(target) from None
    except OSError:  # a file system without hard links
        if os.path.lexists(target):
            raise _there_is_one(target) from None
        os.replace(partial, target)
