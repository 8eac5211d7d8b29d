# Baseline x86-64, float64.
# cython: language_level=3, cdivision=True

cdef extern from *:
    """
    #define FASTLSTM_DOUBLE
    #include "simd/sse2.h"
    """
    ctypedef double real

include "_kernels.pxi"
