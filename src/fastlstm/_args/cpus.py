"""How many CPUs this process may keep busy, and who says so.

Decisions:
a) The smallest of what limits it: the affinity mask, the CPU quota of its control groups, and
   FASTLSTM_NUM_THREADS. With a quota of one CPU on a host of 64, 64 threads use up the share of
   100 ms in two of them and then stand still, all at once: one thread is several times as fast.
b) A quota holds for all groups below, so each group from that of the process up to the root of what
   is mounted counts; those above, in a container, are not to be seen. It is rounded up: a process
   with 1.5 CPUs gains from a second thread.
c) Read once, when fastlstm is imported: it is some dozen small files. What is missing or makes no
   sense limits nothing.
"""

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

VARIABLE = "FASTLSTM_NUM_THREADS"


def default_threads(
    environment: Mapping[str, str] = os.environ, root: Path = Path("/")
) -> tuple[int, str]:
    """Return the number of threads to begin with, and where it comes from.

    Raises
    ------
    ValueError
        If FASTLSTM_NUM_THREADS is set to what is not a positive integer.
    """
    limits = [_allowed()]
    text = environment.get(VARIABLE, "").strip()
    if text:
        if not text.isdecimal() or int(text) < 1:
            raise ValueError(f"{VARIABLE}: expected a positive integer, got {text!r}")
        limits.append((int(text), VARIABLE))
    quota = cgroup_quota(root)
    if quota is not None:
        limits.append((quota, "the CPU quota of the control group"))
    return min(limits, key=lambda limit: limit[0])


def _allowed() -> tuple[int, str]:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0)), "the CPUs that the process may use"
    return os.cpu_count() or 1, "the CPUs of the machine"


def cgroup_quota(root: Path = Path("/")) -> int | None:
    """Return the CPUs that the control groups of this process grant it, rounded up, or None."""
    quotas = [_quota(directory) for directory in _groups(root)]
    return min((quota for quota in quotas if quota is not None), default=None)


def _groups(root: Path) -> Iterator[Path]:
    """Give the directory of each control group, of either version, that may limit this process."""
    paths = {}  # of the groups within their hierarchy, by the version of it
    for line in _read(root / "proc/self/cgroup").splitlines():
        number, controllers, path = [*line.split(":", 2), "", ""][:3]
        if number == "0":
            paths["cgroup2"] = path
        elif "cpu" in controllers.split(","):
            paths["cgroup"] = path
    for line in _read(root / "proc/self/mountinfo").splitlines():
        before, _, after = line.partition(" - ")
        fields, (kind, _, options) = before.split(), [*after.split(), "", "", ""][:3]
        if len(fields) < 5 or kind not in paths:
            continue
        if kind == "cgroup" and "cpu" not in options.split(","):
            continue
        top, mounted_at = map(_unescaped, fields[3:5])
        yield from _up_to_mount(root / mounted_at.lstrip("/"), top, paths[kind])


def _up_to_mount(mount: Path, top: str, path: str) -> Iterator[Path]:
    """Give the directories of a group and of those around it; `mount` shows the group `top`."""
    group, shown = PurePosixPath(path), PurePosixPath(top)
    if not group.is_relative_to(shown):
        return  # a mount of somebody else's groups
    inside = group.relative_to(shown)
    for each in (inside, *inside.parents):
        yield mount / each


def _quota(directory: Path) -> int | None:
    """Return the quota of one group, in CPUs and rounded up."""
    text = _read(directory / "cpu.max")
    if not text:
        text = " ".join(_read(directory / f"cpu.cfs_{name}_us") for name in ("quota", "period"))
    numbers = text.split()
    if len(numbers) != 2 or not all(number.isdecimal() and int(number) for number in numbers):
        return None  # max, or -1: no limit
    quota, period = map(int, numbers)
    return -(-quota // period)


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _unescaped(text: str) -> str:
    r"""Return a path of mountinfo, where a space is \040."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)
