"""Build of the compiled modules; everything else is in pyproject.toml."""

import os
import platform
import re
import sys
from functools import cache
from pathlib import Path

import numpy
from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

PACKAGE = "src/fastlstm"
MACHINE = platform.machine().lower()

# The flags of each instruction set; the best one that the CPU has is chosen at run time.
if MACHINE in ("x86_64", "amd64"):
    ISA_FLAGS = {
        "scalar": [],
        "sse2": ["-msse2"],
        "avx2": ["-mavx2", "-mfma"],
        "avx512": ["-mavx512f", "-mavx512dq", "-mavx512bw", "-mavx512vl", "-mfma"],
    }
elif MACHINE in ("aarch64", "arm64"):
    ISA_FLAGS = {"scalar": [], "neon": []}
else:
    ISA_FLAGS = {"scalar": []}
# Instructions beyond a set that numbers of fewer bits are multiplied with.
AVX512 = ISA_FLAGS.get("avx512", [])
FURTHER_FLAGS = {
    "bfloat16": {
        "avx512bf16": [*AVX512, "-mavx512bf16"],
        "amx": [*AVX512, "-mavx512bf16", "-mamx-tile", "-mamx-bf16"],
    },
    "int8": {
        "avxvnni": [*ISA_FLAGS.get("avx2", []), "-mavxvnni"],
        "avx512vnni": [*AVX512, "-mavx512vnni"],
    },
}

# No contraction: fma stands where it is meant, so that bits do not depend on the compiler's choice.
FLAGS = ["-O3", "-std=c11", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math"]
FLAGS += ["-fvisibility=hidden"]
INCLUDE_DIRS = ["csrc", f"{PACKAGE}/include", numpy.get_include()]
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


@cache
def included(path):
    """Return the files of ours that this one includes, in Cython or in C, and what they include."""
    names = re.findall(r'^ *(?:include|#include|cdef extern from) "(.+?)"', path.read_text(), re.M)
    folders = [path.parent, *map(Path, INCLUDE_DIRS)]
    found = [next((f / n for f in folders if (f / n).exists()), None) for n in names]
    files = [file for file in found if file]
    return {*files, *(further for file in files for further in included(file))}


def extension(name, *sources, flags=()):
    """Return the compiled module fastlstm.<name>; what it includes it depends on."""
    sources = [f"{PACKAGE}/{name.replace('.', '/')}.pyx", *sources]
    return Extension(
        f"fastlstm.{name}",
        sources,
        include_dirs=INCLUDE_DIRS,
        define_macros=[
            ("CYTHON_CCOMPLEX", "0"),  # <complex.h> would define I, our input size
            ("NPY_NO_DEPRECATED_API", "NPY_2_0_API_VERSION"),
        ],
        depends=sorted({str(file) for source in sources for file in included(Path(source))}),
        extra_compile_args=list(flags),
    )


EXTENSIONS = [
    extension("_core.runtime", "csrc/cpu.c", "csrc/memory.c", "csrc/team.c"),
    extension("_core.optimizers"),
    extension("_core.blas"),
]
for dtype in ("float32", "float64"):
    EXTENSIONS.append(extension(f"_core.sequence_{dtype}"))
    for isa, isa_flags in ISA_FLAGS.items():
        EXTENSIONS.append(extension(f"_kernels.{isa}_{dtype}", flags=isa_flags))
for compute_dtype, further in FURTHER_FLAGS.items():
    for isa, isa_flags in (ISA_FLAGS | (further if AVX512 else {})).items():
        EXTENSIONS.append(extension(f"_kernels.{isa}_{compute_dtype}", flags=isa_flags))


class BuildExt(build_ext):
    """Flags by compiler, all cores at once, and a clear word where there is no compiler."""

    def finalize_options(self):
        """Use every core unless told otherwise."""
        super().finalize_options()
        self.symbols = self.inplace or self.editable_mode  # not in a wheel; `run` forgets `inplace`
        self.parallel = self.parallel or CORES

    def build_extensions(self):
        """Set the flags that the compiler at hand understands, then build."""
        if self.compiler.compiler_type == "unix":
            for ext in self.extensions:
                ext.extra_compile_args = FLAGS + ext.extra_compile_args
                if sys.platform.startswith("linux"):
                    ext.extra_link_args = ["-pthread"]
                    if not self.symbols:
                        ext.extra_link_args.append("-Wl,-s")
            self.find_compiler()
        else:  # vector code is written for gcc and clang
            self.extensions = [
                ext
                for ext in self.extensions
                if not ext.name.startswith("fastlstm._kernels.") or "scalar" in ext.name
            ]
            for ext in self.extensions:
                ext.extra_compile_args = ["/O2", "/std:c11"]
        super().build_extensions()

    def find_compiler(self):
        """Raise SystemExit with advice where the C compiler cannot be run."""
        command = self.compiler.compiler_so[0]
        if not any(
            os.access(os.path.join(folder, command), os.X_OK)
            for folder in os.environ.get("PATH", os.defpath).split(os.pathsep)
        ):
            raise SystemExit(
                f"fastlstm is compiled from C and needs a C compiler, but {command!r} is not to be "
                "found. Install one (Debian: apt install gcc; Fedora: dnf install gcc; macOS: "
                "xcode-select --install) or name one with the environment variable CC."
            )


setup(
    ext_modules=cythonize(EXTENSIONS, include_path=["src", f"{PACKAGE}/_kernels"]),
    cmdclass={"build_ext": BuildExt},
)
