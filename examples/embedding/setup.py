"""Build the C and the Cython example: ``python setup.py build_ext --inplace``."""

import sys

from Cython.Build import cythonize
from setuptools import Extension, setup

import fastlstm

OPENMP = [] if sys.platform == "darwin" else ["-fopenmp"]

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
                extra_compile_args=OPENMP,
                extra_link_args=OPENMP,
            )
        ),
    ],
)
