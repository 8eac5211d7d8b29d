# THE TIME LOOPS AND BPTT of one element type: this file includes its parts in order.
#
# Decisions:
# a) A sequence is a series of steps; at step s the first alive(s) rows take part. Ragged rows are
#    sorted by falling length, so that they are always the first ones and cost follows sum(lengths).
# b) Time is cut into chunks that fit into the cache. Per chunk the input product is one large
#    product; backward, dz of a chunk is spent on dx, dW_ih and dW_hh while it is warm.
# c) Threads claim tasks, see csrc/team.h. A task is a chunk of steps of a layer and direction, of
#    every n-th row; so layers of a stack, directions and rows run at once, and nobody waits at each
#    step. Only a single layer of few rows has threads share the hidden units of each step.
# d) A row's bits depend on nothing but the row, see csrc/tile.h.
# e) Arguments have been checked, with messages for people, in Python. Here shapes and layouts are
#    compared once more before a pointer is taken (time/shapes.pxi), so that no call of the core,
#    whoever makes it, reads or writes beyond an array.
# f) Parts are included, not imported: `real` is a type of the whole module, float in one build of
#    this text and double in the other. Fused types cannot do that: structs cannot have a field of
#    such a type.

cimport numpy as cnp
from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.exc cimport PyErr_CheckSignals
from libc.math cimport INFINITY
from libc.stdint cimport INT64_MAX, PTRDIFF_MAX
from libc.string cimport memcpy, memset

from fastlstm._core.runtime cimport (
    MEMORY_GAP, NO_SIZE, TEAM_MOST_LINES, Buffer, blas_of, free_block, kernels_in, kernels_named,
    kernels_of, memory_close, memory_open, new_block, now, run_lines, run_phases, size_padded,
    size_plus, size_times, team_lines, team_phases, threads_for)

import numpy as np


cdef extern from *:
    """
    #undef I  /* of <complex.h>, which NumPy includes: ours is the input size */
    """


include "../_kernels/_table.pxi"

cnp.import_array()

cdef int TYPE_NUMBER = cnp.NPY_FLOAT64 if sizeof(real) == sizeof(double) else cnp.NPY_FLOAT32
cdef object DTYPE = np.dtype(np.float64 if sizeof(real) == sizeof(double) else np.float32)

cdef enum:
    CHUNK_BYTES = 256 << 10  # of gates; a part of any L2
    UNINTERRUPTED = 20_000_000  # ns between looks for Ctrl-C

cdef size_t MOST_ROWS = 1 << 40  # steps times rows: their number times a small one is in range


cdef extern from "team.h":
    ptrdiff_t team_load(const ptrdiff_t *value) noexcept nogil
    void team_store(ptrdiff_t *value, ptrdiff_t to) noexcept nogil


cdef const kernel_table *kernels() noexcept nogil:
    return <const kernel_table *>kernels_of(sizeof(real) == sizeof(double))


ctypedef void (*gemm_function)(
    bint transpose_a, bint transpose_b, int m, int n, int k,
    const real *a, int lda, const real *b, int ldb, real beta, real *c, int ldc) noexcept nogil


cdef gemm_function gemm() noexcept nogil:
    """Where `prefer_blas`: C := op(A) @ op(B) + beta * C, see blas.pyx."""
    return <gemm_function>blas_of(sizeof(real) == sizeof(double))


include "time/memory.pxi"
include "time/shapes.pxi"
include "time/steps.pxi"
include "time/weights.pxi"
include "time/masks.pxi"
include "time/forward.pxi"
include "time/tape.pxi"
include "time/backward.pxi"
include "time/resets.pxi"
include "time/weight_gradients.pxi"
include "time/backward_lines.pxi"
include "time/gang.pxi"
include "time/forward_call.pxi"
include "time/backward_call.pxi"
include "time/stack.pxi"
include "step/state.pxi"
include "step/stream.pxi"
include "step/plan.pxi"
include "step/api.pxi"
include "time/trace.pxi"
include "time/probe.pxi"
