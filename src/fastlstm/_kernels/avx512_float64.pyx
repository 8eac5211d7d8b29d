# AVX-512, float64.
# cython: language_level=3, cdivision=True

cdef extern from *:
    """
    #define FASTLSTM_DOUBLE
    #include "simd/avx512.h"
    """
    ctypedef double real

include "_kernels.pxi"
