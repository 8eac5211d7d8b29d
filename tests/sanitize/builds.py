"""Trees of fastlstm built for a sanitizer, and the planted bugs that prove that it looks.

Decisions:
a) A build is a copy of this tree; nothing of it is changed or left behind.
   ``FASTLSTM_SANITIZE_DIR`` keeps the copies in a folder, for the next time.
b) In a copy every block of memory is new: what calls keep for the next ones (`_core/runtime.pyx`)
   would hide what is used after its end, or before it was written.
c) A planted bug is text of a file that becomes other text, as in `tests/mutants.py`.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
NOT_NEEDED = (".git", "build", "dist", ".*_cache", "__pycache__", "*.egg-info", "*.so")
NOTHING_KEPT = ("src/fastlstm/_core/runtime.pyx", "if self.block.size > SPARE_BYTES:", "if True:")


class Kind(NamedTuple):
    """How a tool is built and run."""

    flags: tuple[str, ...]
    libraries: tuple[str, ...] = ()
    environment: Mapping[str, str] = MappingProxyType({})
    before: tuple[str, ...] = ()


KINDS = {
    "address": Kind(
        ("-O1", "-g", "-fno-omit-frame-pointer", "-fsanitize=address,undefined"),
        ("libasan.so", "libubsan.so"),
        {
            # Python leaves much behind at its end; a size that nobody has is a MemoryError
            "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1:halt_on_error=1",
            "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1",
            "PYTHONMALLOC": "malloc",
        },
    ),
    "thread": Kind(
        ("-O1", "-g", "-fsanitize=thread"),
        ("libtsan.so",),
        {"TSAN_OPTIONS": "halt_on_error=1:report_signal_unsafe=0:exitcode=66"},
        ("setarch", "-R"),  # it needs addresses where it expects them
    ),
    "plain": Kind(("-O1", "-g")),  # for the allocator that fills and fails
}


class Bug(NamedTuple):
    """A planted bug: in this file the text, a regular expression, becomes other text."""

    what: str
    path: str
    text: str
    instead: str


UNORDERED = """
#include <pthread.h>
#define memory_order_acquire memory_order_relaxed
#undef atomic_load
#define atomic_load(p) atomic_load_explicit(p, memory_order_relaxed)
#undef atomic_store
#define atomic_store(p, v) atomic_store_explicit(p, v, memory_order_relaxed)
#undef atomic_fetch_add
#define atomic_fetch_add(p, v) atomic_fetch_add_explicit(p, v, memory_order_relaxed)
#undef atomic_fetch_sub
#define atomic_fetch_sub(p, v) atomic_fetch_sub_explicit(p, v, memory_order_relaxed)
#undef atomic_compare_exchange_strong
#define atomic_compare_exchange_strong(p, e, v) \\
    atomic_compare_exchange_strong_explicit(p, e, v, memory_order_relaxed, memory_order_relaxed)
#undef atomic_compare_exchange_weak
#define atomic_compare_exchange_weak(p, e, v) \\
    atomic_compare_exchange_weak_explicit(p, e, v, memory_order_relaxed, memory_order_relaxed)
"""

BUGS = {
    "address": [
        Bug(
            "a vector's tail: one element more is written",
            "src/fastlstm/_kernels/_kernels.pxi",
            r"store_n\(p, v, n\)",
            "store_n(p, v, n + 1)",
        ),
        Bug(
            "an overflow within one piece of memory: dh is an element short",
            "src/fastlstm/_core/time/backward.pxi",
            r"job\.dh = carve\(memory, B, n\.Rp\)",
            "job.dh = carve(memory, B, n.Rp - 1)",
        ),
        Bug(
            "undefined: a shift by more bits than there are",
            "csrc/team.c",
            r"most_threads = threads < 1 \?",
            "most_threads = threads << (threads + 31) < 1 ?",
        ),
    ],
    "thread": [
        Bug(
            "races of the team: its atomics order nothing",
            "csrc/team.c",
            r"#include <pthread.h>\n",
            UNORDERED,
        ),
    ],
    "plain": [
        Bug(
            "uninitialised lanes: c before the first step",
            "src/fastlstm/_core/time/forward.pxi",
            r"job\.c = carve_zeros\(memory, B, n\.Hp\)",
            "job.c = carve(memory, B, n.Hp)",
        ),
    ],
}


def plant(tree: Path, path: str, text: str, instead: str) -> None:
    """Change a file of a tree; raise LookupError where the text is not to be found."""
    file = tree / path
    changed, count = re.subn(text, instead, file.read_text())
    if not count:
        raise LookupError(f"{path}: has no {text!r} any more; write the new text into builds.py")
    file.write_text(changed)


def fingerprint() -> str:
    """Return what changes with the sources."""
    digest = hashlib.sha256()
    for path in sorted([ROOT / "setup.py", *ROOT.glob("csrc/**/*"), *ROOT.glob("src/**/*")]):
        ours = path.suffix in (".h", ".py", ".pyx", ".pxi", ".pxd")
        if ours or (path.suffix == ".c" and "csrc" in path.parts):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:8]


def build(tree: Path, flags: tuple[str, ...]) -> None:
    """Build a tree in place."""
    sanitizers = [flag for flag in flags if flag.startswith("-fsanitize")]
    result = subprocess.run(
        [sys.executable, "setup.py", "-q", "build_ext", "--inplace"],
        cwd=tree,
        env=os.environ | {"LDFLAGS": " ".join(sanitizers)},
        capture_output=True,
        text=True,
    )
    if result.returncode:
        raise RuntimeError(f"{tree} does not compile:\n{result.stderr[-3000:]}")


@contextmanager
def built(kind: str, bug: Bug | None = None):
    """Yield a tree that is built for a tool; with a bug if one is given."""
    keep = os.environ.get("FASTLSTM_SANITIZE_DIR")
    folder = Path(keep or tempfile.mkdtemp(prefix="fastlstm-")).resolve()
    try:
        tree = folder / f"{kind}-{fingerprint()}"
        if not tree.exists():
            half = tree.with_suffix(".half")
            shutil.rmtree(half, ignore_errors=True)
            shutil.copytree(ROOT, half, ignore=shutil.ignore_patterns(*NOT_NEEDED), symlinks=True)
            plant(half, "setup.py", r'FLAGS = \["-O3",', f"FLAGS = [*{KINDS[kind].flags!r},")
            plant(half, NOTHING_KEPT[0], re.escape(NOTHING_KEPT[1]), NOTHING_KEPT[2])
            build(half, KINDS[kind].flags)
            half.rename(tree)
        for tests in ("tests", "examples"):  # as they are now
            shutil.copytree(ROOT / tests, tree / tests, dirs_exist_ok=True)
        if bug:
            wrong = folder / f"{kind}-bug"
            shutil.rmtree(wrong, ignore_errors=True)
            shutil.copytree(tree, wrong, symlinks=True)
            plant(wrong, *bug[1:])
            build(wrong, KINDS[kind].flags)
            tree = wrong
        yield tree
    finally:
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)


def library(name: str) -> str:
    """Return where the compiler has one of its libraries."""
    compiler = os.environ.get("CC", "gcc").split()[-1]
    found = subprocess.run(
        [compiler, f"-print-file-name={name}"], capture_output=True, text=True, check=True
    )
    return os.path.realpath(found.stdout.strip())


def run(kind: str, tree: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
    """Run Python under a tool, on the fastlstm of a tree."""
    tool = KINDS[kind]
    variables = os.environ | tool.environment | {"PYTHONPATH": f"{tree}/src:{tree}/tests"}
    variables |= {"OPENBLAS_NUM_THREADS": "1", "PYTHONHASHSEED": "0", **environment}
    preloaded = [library(name) for name in tool.libraries]
    preloaded += environment.get("LD_PRELOAD", "").split()
    if preloaded:
        variables["LD_PRELOAD"] = " ".join(preloaded)
    return subprocess.run(
        [*tool.before, sys.executable, *arguments],
        cwd=tree,
        env=variables,
        capture_output=True,
        text=True,
        errors="replace",
    )
