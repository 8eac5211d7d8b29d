# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Time loops and BPTT in float32."""

ctypedef float real

include "sequence.pxi"
