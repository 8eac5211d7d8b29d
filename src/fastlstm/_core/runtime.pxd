# What the compiled modules share: the kernels in use, the team of threads, workspace.

cdef extern from "team.h":
    ctypedef void (*team_body)(void *job, int thread, int threads) noexcept nogil

cdef extern from "memory.h":
    size_t NO_SIZE
    size_t size_times(size_t a, size_t b) noexcept nogil
    size_t size_plus(size_t a, size_t b) noexcept nogil
    size_t size_padded(size_t size) noexcept nogil


cdef struct Block:
    void *memory
    size_t size


cdef class Buffer:
    """Memory aligned to 64 bytes; to Python it is an array of bytes."""

    cdef Block block


cdef const void *kernels_of(bint double_precision) noexcept nogil
cdef const void *kernels_in(str compute_dtype) except NULL
cdef void *blas_of(bint double_precision) noexcept nogil
cdef void set_blas(void *gemm_float, void *gemm_double) noexcept
cdef void *new_block(size_t size) noexcept nogil
cdef void free_block(void *memory) noexcept nogil
cdef int threads_for(double operations) noexcept nogil
cdef void run_team(team_body body, void *job, int threads) noexcept nogil
cdef void barrier(int threads) noexcept nogil
