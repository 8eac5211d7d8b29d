# AVX2 and FMA, float64.
# cython: language_level=3, cdivision=True

cdef extern from *:
    """
    #define FASTLSTM_DOUBLE
    #include "simd/avx2.h"
    """
    ctypedef double real

include "_kernels.pxi"
