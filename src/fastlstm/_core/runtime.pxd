# What the compiled modules share: the kernels in use, the team of threads, workspace.

cdef extern from "team.h":
    ctypedef void (*team_body)(void *job, int thread, int threads) noexcept nogil


cdef struct Block:
    void *memory
    size_t size


cdef class Buffer:
    """Memory aligned to 64 bytes, handed out piece by piece; to Python it is an array of bytes."""

    cdef Block block
    cdef size_t taken

    cdef void *take(self, size_t size) noexcept nogil


cdef size_t padded(size_t size) noexcept nogil

cdef const void *kernels_of(bint double_precision) noexcept nogil
cdef void *take_block(size_t size) noexcept nogil
cdef void free_block(void *memory) noexcept nogil
cdef int threads_for(double operations) noexcept nogil
cdef void run_team(team_body body, void *job, int threads) noexcept nogil
cdef void barrier(int threads) noexcept nogil
