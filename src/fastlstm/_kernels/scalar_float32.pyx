# Scalar, float32.
# cython: language_level=3, cdivision=True

cdef extern from *:
    """
    #include "simd/scalar.h"
    """
    ctypedef float real

include "_kernels.pxi"
