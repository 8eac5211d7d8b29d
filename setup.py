"""Build of the compiled modules; everything else is in pyproject.toml."""

import os
import platform
import sys
from glob import glob

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

# No contraction: fma stands where it is meant, so that bits do not depend on the compiler's choice.
FLAGS = ["-O3", "-std=c11", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math"]
FLAGS += ["-fvisibility=hidden"]
SOURCES = [
    path
    for pattern in ("csrc/**/*.h", f"{PACKAGE}/include/*.h", f"{PACKAGE}/**/*.px[id]")
    for path in glob(pattern, recursive=True)
]


def extension(name, *sources, flags=()):
    """Return the compiled module fastlstm.<name>."""
    return Extension(
        f"fastlstm.{name}",
        [f"{PACKAGE}/{name.replace('.', '/')}.pyx", *sources],
        include_dirs=["csrc", f"{PACKAGE}/include"],
        define_macros=[("CYTHON_CCOMPLEX", "0")],  # <complex.h> would define I, our input size
        depends=SOURCES,
        extra_compile_args=list(flags),
    )


EXTENSIONS = [
    extension("_runtime", "csrc/cpu.c", "csrc/memory.c", "csrc/team.c"),
    extension("_training"),
]
for dtype in ("float32", "float64"):
    EXTENSIONS.append(extension(f"_sequence_{dtype}"))
    for isa, isa_flags in ISA_FLAGS.items():
        EXTENSIONS.append(extension(f"_kernels.{isa}_{dtype}", flags=isa_flags))


class BuildExt(build_ext):
    """Flags by compiler, and a clear word where there is none."""

    def build_extensions(self):
        """Set the flags that the compiler at hand understands, then build."""
        if self.compiler.compiler_type == "unix":
            for ext in self.extensions:
                ext.extra_compile_args = FLAGS + ext.extra_compile_args
                if sys.platform.startswith("linux"):
                    ext.extra_link_args = ["-pthread", "-Wl,-s"]
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
    ext_modules=cythonize(EXTENSIONS, include_path=[f"{PACKAGE}/_kernels", PACKAGE]),
    cmdclass={"build_ext": BuildExt},
)
