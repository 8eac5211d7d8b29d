# NEON of aarch64, float32.
# cython: language_level=3, cdivision=True

cdef extern from *:
    """
    #include "simd/neon.h"
    """
    ctypedef float real

include "_kernels.pxi"
