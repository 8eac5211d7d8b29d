# AMX, bfloat16.
# cython: language_level=3, cdivision=True

cdef extern from *:
    """
    #define FASTLSTM_BFLOAT16
    #include "simd/avx512.h"
    """
    ctypedef float real

include "_kernels.pxi"
