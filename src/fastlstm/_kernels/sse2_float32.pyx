# Baseline x86-64, float32.
# cython: language_level=3, cdivision=True

cdef extern from *:
    """
    #include "simd/sse2.h"
    """
    ctypedef float real

include "_kernels.pxi"
