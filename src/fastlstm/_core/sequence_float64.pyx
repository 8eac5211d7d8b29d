# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Time loops and BPTT in float64."""

cdef extern from *:
    """
    #define FASTLSTM_DOUBLE
    """

ctypedef double real

include "sequence.pxi"
