r"""
Embedding: C, Cython, Numba
===========================

The same kernels can be called without the interpreter, from C by ``fastlstm.h``, from Cython by
``cimport fastlstm``, and from Numba and ctypes by addresses (`fastlstm.capi`). In all of them: make
a *plan* of a layer's weights once, in which they are packed; give memory for a *state*; then step.
Neither takes a lock or allocates.

A filter in C over a series of any length:

.. literalinclude:: ../../examples/embedding/lstm_filter.c
   :language: c

The same in Numba, inside a compiled loop:

.. literalinclude:: ../../examples/embedding/run_numba.py

A windowed score in Cython:

.. literalinclude:: ../../examples/embedding/window_scores.pyx
   :language: cython

These files stand in ``examples/embedding``, and the tests compile and run them. The header is
"""

from pathlib import Path

import fastlstm

print(*Path(fastlstm.get_include(), "fastlstm.h").read_text().splitlines()[:45], sep="\n")
