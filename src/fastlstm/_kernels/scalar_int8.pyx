# Scalar, int8.
# cython: language_level=3, cdivision=True

cdef extern from *:
    """
    #define FASTLSTM_INT8
    #include "simd/scalar.h"
    """
    ctypedef float real

include "_kernels.pxi"
