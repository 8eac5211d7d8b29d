"""Does a test notice when a line of the core is wrong? ``python tests/mutants.py [NUMBER ...]``.

Each mutant is one small mistake. It is made in a copy of this tree, which is built in place and
tested until the first failure; what failed is printed. The exit status is 1 if a mutant survives,
or if the text that it changes is not to be found: then write the missing test, or the new text.
It takes about a minute each; most of that is compiling. Only pytest runs nothing of this.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
NOT_NEEDED = (".git", "build", "dist", ".*_cache", "__pycache__", "*.egg-info")
LONGEST = 600  # seconds: a barrier that nobody leaves is noticed too


class Mutant(NamedTuple):
    """A mistake: in a file of this folder, the text that stands there once becomes another."""

    mistake: str
    folder: str
    text: str
    instead: str


KERNELS, CORE, CSRC = "src/fastlstm/_kernels", "src/fastlstm/_core", "csrc"
MUTANTS = [
    Mutant(
        "a sign: 1 + g^2 as the slope of tanh",
        KERNELS,
        "put(dz + 2 * H, dc_t * i * (one - g * g), n)",
        "put(dz + 2 * H, dc_t * i * (one + g * g), n)",
    ),
    Mutant(
        "a missing term of an fma: c_t without f * c_{t-1}",
        KERNELS,
        "store(c, fma(f, load(c_prev), i * g))",
        "store(c, i * g)",
    ),
    Mutant(
        "an index: the reset gate's row of dz_h holds the gradient of q outside of the reset",
        KERNELS,
        "put(dz_h + 2 * H, dg * r, n)",
        "put(dz_h + 2 * H, dg, n)",
    ),
    Mutant(
        "a vector's tail: one element less is read",
        KERNELS,
        "return load(p) if n >= LANES else load_n(p, n)",
        "return load(p) if n >= LANES else load_n(p, n - 1)",
    ),
    Mutant(
        "a vector's tail: one element more is written",
        KERNELS,
        "    if n >= LANES:\n        store(p, v)",
        "    if n >= LANES - 1:\n        store(p, v)",
    ),
    Mutant(
        "a panel's tail: the last unit has no weights",
        KERNELS,
        "if unit < H and order[block] >= 0:",
        "if unit < H - 1 and order[block] >= 0:",
    ),
    Mutant(
        "a narrow last panel of columns as wide as the others",
        KERNELS,
        "return min(<ptrdiff_t>PANEL, blocks(N - p * PANEL, LANES) * LANES)",
        "return PANEL",
    ),
    Mutant(
        "a lost zoneout of c",
        KERNELS,
        "store(s.c + row * s.c_stride + unit, fma(keep, old - c, c))",
        "store(s.c + row * s.c_stride + unit, c)",
    ),
    Mutant(
        "a peephole that looks at the state before",
        KERNELS,
        "o = fma(load(peephole + 2 * Hp + unit), c, o)",
        "o = fma(load(peephole + 2 * Hp + unit), old, o)",
    ),
    Mutant(
        "a mean over four gates where there are three",
        KERNELS,
        "count = (vectors - first) * H",
        "count = vectors * H",
    ),
    Mutant(
        "a row's own x: every row of a single-row tile reads that of the first",
        KERNELS,
        "x + r * x_stride, x_stride, w_ih + p * X,\n",
        "x, x_stride, w_ih + p * X,\n",
    ),
    Mutant(
        "the blocks of a panel: h adds to n, r, z where it should add to r, z, q",
        CSRC,
        "DEFINE_GATES(gates_gru, 0, 3, 1, 3)",
        "DEFINE_GATES(gates_gru, 0, 3, 0, 3)",
    ),
    Mutant(
        "an order of summing that depends on how many rows a tile has",
        CSRC,
        "acc[r][p][first + v] = dot(acc[r][p][first + v], x, row[v]);",
        "acc[r][p][first + v] = rows > 1 ? dot(acc[r][p][first + v], x, row[v])\n"
        "                        : acc[r][p][first + v] + dot((sums){0}, x, row[v]);",
    ),
    Mutant(
        "bfloat16 rounded to nearest, but half a step always up",
        CSRC,
        "const vec_bits nearest = bits + 0x7fff + ((bits >> 16) & 1);",
        "const vec_bits nearest = bits + 0x8000;",
    ),
    Mutant(
        "int8: sums of what was added to unsigned rows stay in",
        CSRC,
        "first -= ADDED * q;",
        "first -= 0 * q;",
    ),
    Mutant(
        "int8: h has a scale of its own where it should have 1/127",
        KERNELS,
        "s.rows, R, s.options.bounded)",
        "s.rows, R, 0)",
    ),
    Mutant(
        "lines that round their rows in one place, at once",
        CORE,
        "prepare_share(&todo, job, share, line.scratch)",
        "prepare_share(&todo, job, share, job.lines.scratch)",
    ),
    Mutant(
        "a bound too low: sigmoid(30) for all that is larger",
        CSRC,
        "x = vec_most(vec_least(x, vec_splat(40)), vec_splat(EXP_IS_ZERO));",
        "x = vec_most(vec_least(x, vec_splat(30)), vec_splat(EXP_IS_ZERO));",
    ),
    Mutant(
        "a fingerprint that is a sum, which does not see a swap",
        CSRC,
        "hash[v] = hash[v] * multiplier + word;",
        "hash[v] = hash[v] + word;",
    ),
    Mutant(
        "a phase that ends before its last pieces are done",
        CSRC,
        "atomic_fetch_add(&p->pieces_done, done) + done == (int)(now & 0xffff)",
        "atomic_fetch_add(&p->pieces_done, done) + done + 1 >= (int)(now & 0xffff)",
    ),
    Mutant(
        "ragged rows in reverse aligned at the end of the longest",
        CORE,
        "return steps.lengths[j] - 1 - s",
        "return steps.count - 1 - s",
    ),
    Mutant(
        "ragged rows: the state of another row",
        CORE,
        "batch_row(steps, j) * state.stride_b\n        for unit in range(state.F):\n            o",
        "j * state.stride_b\n        for unit in range(state.F):\n            o",
    ),
    Mutant(
        "ragged rows: the stride of the batch where rows are gathered",
        CORE,
        "        j = r - (first_row(steps, s) - before)\n        if scatter:",
        "        j = r % steps.B\n        if scatter:",
    ),
    Mutant(
        "an episode that hands dh on to the one before",
        CORE,
        "memset(job.dh + j * job.size.Rp, 0, job.size.Rp * sizeof(real))",
        "pass",
    ),
    Mutant(
        "an episode whose first step had, for dW_hh, the h of the one before",
        CORE,
        "job.h_stride, R,\n                    is_reset(steps, s, j))",
        "job.h_stride, R,\n                    False)",
    ),
    Mutant(
        "a gate order: i and f of the LSTM as they are given",
        CORE,
        "LSTM_ORDER = [1, 0, 2, 3]",
        "LSTM_ORDER = [0, 1, 2, 3]",
    ),
    Mutant(
        "a bias sum: that within the reset takes the rows of z",
        CORE,
        "dz + job.gradients.h + 2 * H, job.D, rows, H)",
        "dz + job.gradients.h + H, job.D, rows, H)",
    ),
    Mutant(
        "a chunk's boundary: the weight gradients of the chunks before are lost",
        CORE,
        "is_first_chunk = end == steps.count",
        "is_first_chunk = True",
    ),
    Mutant(
        "a chunk's boundary: one step too many in a chunk of x @ W_ih",
        CORE,
        "        if rows > job.chunk_rows:\n            break\n",
        "        if rows > job.chunk_rows + 1:\n            break\n",
    ),
    Mutant(
        "a group's rows: every group reads the gates of the first",
        CORE,
        "job.gates = offset(job.gates, g * job.gates_stride)",
        "job.gates = offset(job.gates, 0)",
    ),
    Mutant(
        "a layer that does not wait for the one below",
        CORE,
        "return line.below == NULL or team_load(&line.below.begin) >= line.end",
        "return 1",
    ),
]


def place_of(mutant, tree):
    """Return the file that has the text of a mutant, once; raise LookupError otherwise."""
    ends = (".c", ".h") if mutant.folder == CSRC else (".pyx", ".pxi")
    files = [path for path in (tree / mutant.folder).rglob("*") if path.suffix in ends]
    counts = {path: path.read_text().count(mutant.text) for path in files}
    found = [path for path, count in counts.items() if count]
    if len(found) != 1 or counts[found[0]] != 1:
        where = ", ".join(f"{path.name}: {counts[path]}" for path in found) or "nowhere"
        raise LookupError(f"the text is to be found once in {mutant.folder}, not {where}")
    return found[0]


def run(command, tree):
    """Run Python in a tree, with the fastlstm of that tree; return the finished process."""
    environment = os.environ | {"PYTHONPATH": str(tree / "src")}
    return subprocess.run(
        [sys.executable, *command],
        cwd=tree,
        env=environment,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=LONGEST,
    )


def first_failure(tree, options):
    """Build a tree and test it; return what failed first, or None."""
    built = run(["setup.py", "build_ext", "--inplace"], tree)
    if built.returncode:
        raise RuntimeError(f"does not compile:\n{built.stderr[-2000:]}")
    where = run(["-c", "import fastlstm; print(fastlstm.__file__)"], tree).stdout
    if not where.startswith(str(tree)):
        raise RuntimeError(f"tests would import {where}, not the mutant")
    command = ["-m", "pytest", "-x", "-q", "--tb=no", "-p", "no:cacheprovider", *options]
    try:
        tested = run(command, tree)
    except subprocess.TimeoutExpired:
        return f"nothing for {LONGEST} seconds"
    if tested.returncode == 0:
        return None
    failed = re.search(r"^(?:FAILED|ERROR) (\S.*?)(?: - |$)", tested.stdout, re.MULTILINE)
    if failed:
        return failed[1]
    crashed = re.search(r"(tests/\S+?)\", line \d+ in (test_\w+)", tested.stderr)
    if tested.returncode < 0 and crashed:
        return f"{crashed[1]}::{crashed[2]}, by a crash"
    raise RuntimeError(f"pytest ended with {tested.returncode}:\n{tested.stdout[-2000:]}")


def main():
    """Print what caught each mutant; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("numbers", nargs="*", type=int, help="which mutants (default: all)")
    parser.add_argument("--check", action="store_true", help="only look for their texts")
    parser.add_argument("--tests", nargs="+", default=[], metavar="FILE", help="instead of all")
    arguments = parser.parse_args()
    numbers = arguments.numbers or range(1, len(MUTANTS) + 1)
    bad = 0
    for number in numbers:
        mutant = MUTANTS[number - 1]
        try:
            place = place_of(mutant, ROOT).relative_to(ROOT)
            print(f"{number:3} {place}: {mutant.mistake}", flush=True)
            if arguments.check:
                continue
            with tempfile.TemporaryDirectory() as folder:
                tree = Path(folder).resolve() / "fastlstm"
                ignore = shutil.ignore_patterns(*NOT_NEEDED)
                shutil.copytree(ROOT, tree, ignore=ignore, symlinks=True)
                text = (tree / place).read_text()
                (tree / place).write_text(text.replace(mutant.text, mutant.instead))
                caught = first_failure(tree, arguments.tests)
            bad += caught is None
            print(f"    {'SURVIVES' if caught is None else f'caught by {caught}'}", flush=True)
        except LookupError as error:
            bad += 1
            print(f"{number:3} {mutant.mistake}: {error}", flush=True)
    print(f"{len(numbers)} mutants, {bad} of them survive or are not to be found")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
