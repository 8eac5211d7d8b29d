# SSE2, int8.
# cython: language_level=3, cdivision=True

cdef extern from *:
    """
    #define FASTLSTM_INT8
    #include "simd/sse2.h"
    """
    ctypedef float real

include "_kernels.pxi"
