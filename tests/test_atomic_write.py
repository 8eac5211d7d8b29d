"""Files are whole or not there: threads, failures in the middle, links, permissions, no files."""

import errno
import os
import stat
import sys
import threading

import pytest
from helpers import largest_file

from fastlstm._args.atomic_write import atomic_write, check_writable

posix = pytest.mark.skipif(os.name != "posix", reason="of POSIX systems")


def write(path, content, **options):
    with atomic_write(path, **options) as file:
        file.write(content)


def names(directory):
    return sorted(os.listdir(directory))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "file"


@pytest.fixture
def old(path):
    path.write_bytes(b"old")
    return path


# --- whole or not at all ----------------------------------------------------------------------


def test_the_name_appears_with_the_whole_content(path):
    with atomic_write(str(path)) as file:
        file.write(b"ne")
        file.flush()
        assert not path.exists()
        file.write(b"w")
    assert path.read_bytes() == b"new"
    assert names(path.parent) == ["file"]


def test_a_file_is_replaced_only_if_asked(old):
    with pytest.raises(FileExistsError, match=r"file: there is a file; overwrite=True"):
        write(old, b"new")
    assert old.read_bytes() == b"old"
    write(old, b"new", overwrite=True)
    assert old.read_bytes() == b"new"
    assert names(old.parent) == ["file"]


@pytest.mark.parametrize("links", [True, False], ids=["links", "no links"])
def test_a_file_that_somebody_made_meanwhile_stays(path, monkeypatch, links):
    """Also on a file system that has no hard links."""
    if not links:
        monkeypatch.setattr(os, "link", no_links)

    def write_too_late():
        with atomic_write(path) as file:
            file.write(b"new")
            path.write_bytes(b"theirs")

    with pytest.raises(FileExistsError, match="there is a file"):
        write_too_late()
    assert path.read_bytes() == b"theirs"
    path.unlink()
    write(path, b"new")
    assert path.read_bytes() == b"new"
    assert names(path.parent) == ["file"]


def no_links(*_):
    raise OSError(errno.EPERM, "Operation not permitted")


def test_writers_at_once_leave_whole_files_to_every_reader(path):
    size = 100_000
    write(path, bytes(size))
    torn, failed, done = [], [], threading.Event()

    def read():
        while not done.is_set():
            content = path.read_bytes()
            if len(content) != size or content.count(content[0]) != size:
                torn.append(content)

    def save(number):
        try:
            for _ in range(100):
                write(path, bytes([number]) * size, overwrite=True)
        except OSError as error:
            failed.append(error)

    reader = threading.Thread(target=read)
    writers = [threading.Thread(target=save, args=[1 + i]) for i in range(4)]
    for thread in (reader, *writers):
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    reader.join()
    assert not torn
    assert not failed
    assert names(path.parent) == ["file"]


def test_of_writers_at_once_one_makes_the_file(path):
    barrier, made = threading.Barrier(8), []

    def save(number):
        barrier.wait()
        try:
            write(path, bytes([number]))
            made.append(number)
        except FileExistsError:
            pass

    writers = [threading.Thread(target=save, args=[i]) for i in range(8)]
    for thread in writers:
        thread.start()
    for thread in writers:
        thread.join()
    assert len(made) == 1
    assert path.read_bytes() == bytes(made)


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, OSError])
def test_an_exception_in_the_middle_leaves_the_old_file(old, error):
    def write_half():
        with atomic_write(old, overwrite=True) as file:
            file.write(b"half")
            raise error

    with pytest.raises(error):
        write_half()
    assert old.read_bytes() == b"old"
    assert names(old.parent) == ["file"]


@pytest.mark.parametrize("failing", ["fsync", "replace", "chmod"])
def test_a_system_that_fails_leaves_the_old_file(old, monkeypatch, failing):
    def fail(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, failing, fail)
    with pytest.raises(OSError, match="Input/output error"):
        write(old, b"new", overwrite=True)
    assert old.read_bytes() == b"old"
    assert names(old.parent) == ["file"]


@posix
def test_a_full_disk_leaves_the_old_file(old):
    with largest_file(1000), pytest.raises(OSError, match="File too large"):
        write(old, bytes(10_000), overwrite=True)
    assert old.read_bytes() == b"old"
    assert names(old.parent) == ["file"]


# --- where it can be written ------------------------------------------------------------------


def read_only(tmp_path):
    tmp_path.chmod(0o555)
    if os.access(tmp_path, os.W_OK):
        pytest.skip("root may write everywhere")
    return tmp_path / "file"


def below_a_file(tmp_path):
    (tmp_path / "other").touch()
    return tmp_path / "other" / "file"


def nowhere(tmp_path):
    return tmp_path / "no" / "file"


def in_proc(_):
    if not sys.platform.startswith("linux"):
        pytest.skip("of Linux")
    return "/proc/file"


@posix
@pytest.mark.parametrize("function", [write, check_writable])
@pytest.mark.parametrize("place", [read_only, below_a_file, nowhere, in_proc])
def test_a_directory_that_takes_no_file_is_named(tmp_path, place, function):
    path = place(tmp_path)
    with pytest.raises(OSError, match=r"file'$") as caught:
        function(path, b"new" if function is write else 3)
    assert caught.value.filename == str(path)


@posix
def test_a_check_finds_a_full_disk_and_leaves_nothing(old):
    check_writable(old, 10_000, overwrite=True)
    with largest_file(1000), pytest.raises(OSError, match="File too large"):
        check_writable(old, 10_000, overwrite=True)
    with pytest.raises(FileExistsError):
        check_writable(old, 3)
    check_writable(old.with_name("new"), 3)
    assert old.read_bytes() == b"old"
    assert names(old.parent) == ["file"]


# --- permissions, links, what is no file --------------------------------------------------------


@posix
def test_permissions_of_a_file_remain(old):
    for mode in (0o600, 0o640, 0o444, 0o755):
        old.chmod(mode)
        with atomic_write(old, overwrite=True) as file:
            file.write(b"new")
            (partial,) = set(names(old.parent)) - {"file"}
            assert stat.S_IMODE((old.parent / partial).stat().st_mode) == mode
        assert stat.S_IMODE(old.stat().st_mode) == mode


@posix
@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_permissions_of_a_new_file_are_those_that_open_gives(path, mask):
    before = os.umask(mask)
    try:
        write(path, b"new")
        path.with_name("other").touch()
    finally:
        os.umask(before)
    assert path.stat().st_mode == path.with_name("other").stat().st_mode


@posix
def test_a_symbolic_link_stays_and_its_target_is_replaced(tmp_path, old):
    (tmp_path / "folder").mkdir()
    link = tmp_path / "folder" / "link"
    link.symlink_to("../file")
    with pytest.raises(FileExistsError, match="link: there is a file"):
        write(link, b"new")
    write(link, b"new", overwrite=True)
    assert os.readlink(link) == "../file"
    assert old.read_bytes() == b"new"
    assert names(tmp_path / "folder") == ["link"]


@posix
def test_a_link_that_leads_nowhere_counts_as_a_file(tmp_path, path):
    link = tmp_path / "link"
    link.symlink_to("file")
    with pytest.raises(FileExistsError, match="link: there is a file"):
        write(link, b"new")
    assert names(tmp_path) == ["link"]
    write(link, b"new", overwrite=True)
    assert os.readlink(link) == "file"
    assert path.read_bytes() == b"new"


@posix
def test_links_in_a_circle_are_refused(tmp_path):
    link = tmp_path / "link"
    link.symlink_to("link")
    with pytest.raises(OSError, match="link"):
        write(link, b"new", overwrite=True)
    assert names(tmp_path) == ["link"]


@posix
def test_other_hard_links_keep_the_old_content(tmp_path, old):
    os.link(old, tmp_path / "other")
    write(old, b"new", overwrite=True)
    assert old.read_bytes() == b"new"
    assert (tmp_path / "other").read_bytes() == b"old"


@posix
def test_what_is_no_regular_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    kinds = {"fifo": "a FIFO", "folder": "a directory", os.devnull: "a device"}
    for name, kind in kinds.items():
        with pytest.raises(OSError, match=f"{name}: expected a regular file, got {kind}"):
            write(tmp_path / name, b"new", overwrite=True)
    assert names(tmp_path) == ["fifo", "folder"]
    assert stat.S_ISFIFO((tmp_path / "fifo").stat().st_mode)
    assert stat.S_ISCHR(os.stat(os.devnull).st_mode)
