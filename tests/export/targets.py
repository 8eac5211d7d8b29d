"""Exported C on every target: compiled, run under an emulator, and how much memory it takes.

    python tests/export/targets.py             # self-test, flash and RAM of each target
    python tests/export/targets.py --strict    # a target that is not installed is an error
    python tests/export/targets.py --install   # first asks apt-get (Debian, Ubuntu; as root)

The network is that of docs/export.md: 1 input, 20 units, a linear map to 1. Flash is code and
constants of the object file; RAM is the state, and the stack of a step as gcc measures it, so that
the libc of the self-test is in neither.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import fastlstm
import fastlstm.export
from fastlstm.training import Linear

HERE = Path(__file__).parent
FLAGS = ["-std=c99", "-O2", "-ffp-contract=off"]
CORTEX_MAIN = ["--specs=rdimon.specs", "-Wl,--section-start=.vectors=0", str(HERE / "cortex_m.c")]
QEMU_M = ["qemu-system-arm", "-nographic", "-semihosting-config", "enable=on,target=native"]
WASI = ["node", "--no-warnings", "--experimental-wasi-unstable-preview1", str(HERE / "wasi.mjs")]
THUMB = ["arm-none-eabi-gcc", "-mthumb", "-mfloat-abi=hard"]
WASM = ["clang", "--target=wasm32-wasi"]
CORTEX_PACKAGES = "gcc-arm-none-eabi libnewlib-arm-none-eabi qemu-system-arm"
WASM_PACKAGES = "clang lld wasi-libc libclang-rt-dev-wasm32 nodejs"


class Target(NamedTuple):
    """A compiler with the flags of a target, what a program is linked with, and what runs it."""

    compiler: list[str]
    linked: list[str]
    emulator: list[str]
    packages: str  # of Debian

    def missing(self) -> str:
        """Return what is not installed, or nothing."""
        for tool in (self.compiler[0], *self.emulator[:1]):
            if not shutil.which(tool):
                return tool
        probe = subprocess.run(
            [*self.compiler, *self.linked, "-x", "c", "-", "-o", "/dev/null"],
            input="#include <stdio.h>\nint main(void) { return 0; }",
            text=True,
            capture_output=True,
            check=False,
        )
        return "" if probe.returncode == 0 else f"libc of {' '.join(self.compiler)}"


TARGETS = {
    "x86-64": Target(["gcc"], [], [], "gcc"),
    "x86-64, clang": Target(["clang"], [], [], "clang"),
    "x86-64, AVX2": Target(["gcc", "-mavx2", "-mfma"], [], [], "gcc"),
    "aarch64": Target(
        ["aarch64-linux-gnu-gcc"],
        ["-static"],
        ["qemu-aarch64"],
        "gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user",
    ),
    "armv7": Target(
        ["arm-linux-gnueabihf-gcc"],
        ["-static"],
        ["qemu-arm"],
        "gcc-arm-linux-gnueabihf libc6-dev-armhf-cross qemu-user",
    ),
    "riscv64": Target(
        ["riscv64-linux-gnu-gcc"],
        ["-static"],
        ["qemu-riscv64"],
        "gcc-riscv64-linux-gnu libc6-dev-riscv64-cross qemu-user",
    ),
    "Cortex-M4F": Target(
        [*THUMB, "-mcpu=cortex-m4", "-mfpu=fpv4-sp-d16"],
        CORTEX_MAIN,
        [*QEMU_M, "-M", "mps2-an386", "-kernel"],
        CORTEX_PACKAGES,
    ),
    "Cortex-M7": Target(
        [*THUMB, "-mcpu=cortex-m7", "-mfpu=fpv5-sp-d16"],
        CORTEX_MAIN,
        [*QEMU_M, "-M", "mps2-an500", "-kernel"],
        CORTEX_PACKAGES,
    ),
    "wasm32": Target(WASM, [], WASI, WASM_PACKAGES),
    "wasm32, simd128": Target([*WASM, "-msimd128"], [], WASI, WASM_PACKAGES),
}


def self_test(target: Target, folder: Path, name: str = "net") -> str:
    """Compile the self-test of an exported file, run it, and return what it prints."""
    program = folder / "program"
    test = [f"-D{name.upper()}_TEST", f"{name}.c", "-o", str(program)]
    command = [*target.compiler, "-O2", "-ffp-contract=off", *target.linked, *test]
    subprocess.run(command, cwd=folder, check=True)
    done = subprocess.run(
        [*target.emulator, program],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=folder,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    if done.returncode:
        raise AssertionError(done.stdout + done.stderr)
    return done.stdout.strip()


class Size(NamedTuple):
    """Bytes of an object file, of its state, and of the stack of a step."""

    code: int
    constants: int
    state: int
    stack: int | None

    def __str__(self) -> str:
        stack = "?" if self.stack is None else str(self.stack)
        return f"{self.code:7} +{self.constants:6}{self.state:7} +{stack:>5}"


def size_of(target: Target, folder: Path, name: str = "net") -> Size:
    """Compile an exported file alone and return what it takes."""
    is_gcc = "gcc" in target.compiler[0]
    usage = ["-fstack-usage"] if is_gcc else []
    command = [*target.compiler, *FLAGS, *usage, "-c", f"{name}.c"]
    subprocess.run(command, cwd=folder, check=True)
    sections = _sections(target, folder / f"{name}.o")
    fields = re.findall(r"float \w+\[(\d+)\];", (folder / f"{name}.h").read_text())
    stack = None
    if is_gcc:
        # functions call one another no deeper than run, step, step of a layer, norm
        lines = (folder / f"{name}.su").read_text().splitlines()
        frames = {line.split("\t")[0].split(":")[-1]: int(line.split("\t")[1]) for line in lines}
        public = frames.pop(f"{name}_run", 0)
        public += frames.pop(f"{name}_step", 0)
        stack = public + max(frames.values(), default=0)
    code = sum(size for section, size in sections.items() if section.startswith((".text", "CODE")))
    constants = sum(n for name, n in sections.items() if name.startswith((".rodata", "DATA")))
    return Size(code, constants, 4 * sum(map(int, fields)), stack)


def _sections(target: Target, path: Path) -> dict[str, int]:
    """Return the bytes of each section that is loaded."""
    prefix = re.match(r"(.*-)?gcc$", target.compiler[0])
    tool = f"{prefix[1] or ''}size" if prefix else "llvm-size"
    if prefix is None and not shutil.which(tool):
        tool = max(shutil.which(f"llvm-size-{n}") or "" for n in range(13, 25))
    printed = subprocess.run([tool, "-A", path], capture_output=True, text=True, check=True).stdout
    rows = (line.split() for line in printed.splitlines()[2:])
    return {row[0]: int(row[1]) for row in rows if len(row) == 3}


NETWORKS = {
    "LSTM": ([fastlstm.LSTM(1, 20, rng=0), Linear(20, 1, rng=1)], None),
    "LSTM, bfloat16": ([fastlstm.LSTM(1, 20, rng=0), Linear(20, 1, rng=1)], "bfloat16"),
    "GRU": ([fastlstm.GRU(1, 20, rng=0), Linear(20, 1, rng=1)], None),
}


def install() -> None:
    """Ask apt-get for each package; the others come where one cannot be had."""
    packages = sorted({each for target in TARGETS.values() for each in target.packages.split()})
    apt = ["apt-get", "-qq", "-y"]
    subprocess.run([*apt, "update"], check=False)
    together = subprocess.run([*apt, "install", *packages], stdout=subprocess.DEVNULL, check=False)
    if together.returncode:
        for package in packages:
            command = [*apt, "install", package]
            subprocess.run(command, stdout=subprocess.DEVNULL, check=False)


def main() -> int:
    """Print a table of all targets."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--strict", action="store_true", help="fail where a target is missing")
    parser.add_argument("--install", action="store_true", help="apt-get install what is needed")
    arguments = parser.parse_args()
    if arguments.install:
        install()
    print(f"flags: {' '.join(FLAGS)}; bytes")
    print(f"{'':17}{'':15}{'code +  data':>16}{'state +stack':>14}  self-test")
    absent = []
    for name, target in TARGETS.items():
        if missing := target.missing():
            print(f"{name:17}skipped: needs {missing} ({target.packages})")
            absent.append(name)
            continue
        for network, (layers, storage) in NETWORKS.items():
            with tempfile.TemporaryDirectory() as text:
                folder = Path(text)
                fastlstm.export.c(folder / "net.c", layers, name="net", storage=storage)
                printed = self_test(target, folder)
                size = size_of(target, folder)
            print(f"{name:17}{network:15}{size}  {printed.split(', ')[-1]}")
            if "8 of 8 " not in printed:
                raise AssertionError(printed)
    return 1 if absent and arguments.strict else 0


if __name__ == "__main__":
    sys.exit(main())
