"""Build the C and the Cython example: ``python setup.py build_ext --inplace``."""

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError

import fastlstm


class BuildExt(build_ext):
    """OpenMP where the compiler has it; without it, prange is a plain loop."""

    def build_extension(self, ext):
        """Build with OpenMP, or else without."""
        if ext.name != "window_scores":
            super().build_extension(ext)
            return
        ext.extra_compile_args = ext.extra_link_args = ["-fopenmp"]
        try:
            super().build_extension(ext)
        except CompileError:
            print("no OpenMP here: prange will run on one thread")
            ext.extra_compile_args = ext.extra_link_args = []
            super().build_extension(ext)


setup(
    name="fastlstm-embedding-examples",
    ext_modules=[
        Extension(
            "lstm_filter",
            ["lstm_filter.c"],
            include_dirs=[fastlstm.get_include()],
            extra_compile_args=["-std=c11"],
        ),
        *cythonize(
            Extension(
                "window_scores",
                ["window_scores.pyx"],
                include_dirs=[fastlstm.get_include()],
            )
        ),
    ],
    cmdclass={"build_ext": BuildExt},
)
