# AVX2 and FMA, float32.
# cython: language_level=3, cdivision=True

cdef extern from *:
    """
    #include "simd/avx2.h"
    """
    ctypedef float real

include "_kernels.pxi"
