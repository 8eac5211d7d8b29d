"""Sanitizers and faults: ``python tests/sanitize/run.py [WHAT ...] [--whole]``, see README.md.

Each tool first has to report a planted bug (`BUGS` in builds.py); only then does its silence say
anything. Without --whole a sample runs that fits a CI job.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from builds import BUGS, built, run

HERE = Path(__file__).parent
CORE = ["test_cells", "test_functional", "test_layers", "test_recurrent", "test_memory_safety"]
CORE += ["test_fixed", "test_truncated", "test_activations"]
SIGNS = {  # words of a tool's reports
    "address": ("AddressSanitizer", "runtime error"),
    "thread": ("data race",),
}


def fail(text: str) -> None:
    """End with a word on what is wrong."""
    sys.exit(f"FAILED: {text}")


def expect_clean(result: subprocess.CompletedProcess, what: str) -> str:
    """Return what a run printed last; fail if it reported anything."""
    if result.returncode:
        fail(f"{what}\n{result.stdout[-3000:]}\n{result.stderr[:6000]}")
    return (result.stdout.strip().splitlines() or [""])[-1]


def sanitizer(kind: str, whole: bool) -> None:
    """See each planted bug, then nothing in the tests or calls."""
    all_of_it = whole or kind == "address"  # masked stores of AVX-512 are not instrumented
    workload = ["tests/sanitize/workload.py", *([] if all_of_it else ["--sample"])]
    for bug in BUGS[kind]:
        with built(kind, bug) as tree:
            result = run(kind, tree, *workload)
        if result.returncode == 0 or not any(sign in result.stderr for sign in SIGNS[kind]):
            fail(f"{kind}: not reported: {bug.what}\n{result.stderr[-2000:]}")
        print(f"canary reported: {bug.what}", flush=True)
    with built(kind) as tree:
        print(expect_clean(run(kind, tree, *workload), kind), flush=True)
        if kind == "address" and whole:
            tests = [f"tests/{name}.py" for name in CORE]
            result = run(kind, tree, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests)
            print(expect_clean(result, kind), flush=True)


def preload(folder: str) -> str:
    """Compile preload.c."""
    path = f"{folder}/preload.so"
    compiler = os.environ.get("CC", "gcc").split()
    flags = ["-O2", "-Wall", "-Werror", "-shared", "-fPIC"]
    subprocess.run([*compiler, *flags, str(HERE / "preload.c"), "-o", path, "-ldl"], check=True)
    return path


def filled(whole: bool) -> None:
    """Compare the bits of results in memory full of NaN, denormals and huge numbers."""
    workload = ["tests/sanitize/workload.py", *([] if whole else ["--sample"])]
    with tempfile.TemporaryDirectory() as folder:
        library = preload(folder)

        def digests(tree: Path) -> list[str]:
            environment = {"LD_PRELOAD": library, "PYTHONMALLOC": "malloc"}
            results = [run("plain", tree, *workload, FILL=str(k), **environment) for k in range(4)]
            return [result.stdout if result.returncode == 0 else "failed" for result in results]

        for bug in BUGS["plain"]:
            with built("plain", bug) as tree:
                if len(set(digests(tree))) == 1:
                    fail(f"filled: not noticed: {bug.what}")
            print(f"canary noticed: {bug.what}", flush=True)
        with built("plain") as tree:
            found = set(digests(tree))
        if len(found) != 1 or "failed" in found:
            fail(f"filled: results depend on what memory held: {found}")
        print(f"NaN, denormals, huge numbers: the same bits, {found.pop().strip()}", flush=True)


def failures(whole: bool) -> None:
    """Let every allocation fail in turn; threads cannot be started."""
    with tempfile.TemporaryDirectory() as folder, built("plain") as tree:
        environment = {"LD_PRELOAD": preload(folder), "PYTHONMALLOC": "malloc"}
        result = run("plain", tree, "tests/sanitize/failures.py", **environment)
        expect_clean(result, "failures")
        print(result.stdout.strip(), flush=True)


def soak(whole: bool) -> None:
    """Make many calls of mixed shapes from 8 threads."""
    calls = "1000000" if whole else "40000"
    with built("plain") as tree:
        result = run("plain", tree, "tests/sanitize/soak.py", calls)
        print(expect_clean(result, "soak"), flush=True)


def fuzz(whole: bool) -> None:
    """Fuzz the loaders."""
    seconds = "3600" if whole else "120"
    environment = os.environ | {"PYTHONPATH": str(HERE.parents[1] / "src")}
    subprocess.run([sys.executable, str(HERE / "fuzz.py"), seconds], env=environment, check=True)


ALL = {
    "address": lambda whole: sanitizer("address", whole),
    "thread": lambda whole: sanitizer("thread", whole),
    "filled": filled,
    "failures": failures,
    "soak": soak,
    "fuzz": fuzz,
}


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="*", metavar="WHAT", help=f"of {', '.join(ALL)}")
    parser.add_argument("--whole", action="store_true", help="not only a sample")
    arguments = parser.parse_args()
    for what in arguments.what or ALL:
        begun = time.monotonic()
        print(f"== {what}", flush=True)
        ALL[what](arguments.whole)
        print(f"   {time.monotonic() - begun:.0f} s", flush=True)


if __name__ == "__main__":
    main()
