# AVX-512, float32.
# cython: language_level=3, cdivision=True

cdef extern from *:
    """
    #include "simd/avx512.h"
    """
    ctypedef float real

include "_kernels.pxi"
