# What the compiled modules share: the kernels in use, the team of threads, workspace.

cdef extern from "team.h":
    enum: TEAM_MOST_LINES
    ctypedef struct team_lines:
        void *job
        int lines
        int block
        int (*ready)(void *job, int line) noexcept nogil
        void (*run)(void *job, int line) noexcept nogil
    ctypedef struct team_phases:
        void *job
        int (*next)(void *job) noexcept nogil
        void (*run)(void *job, int piece) noexcept nogil

cdef extern from "memory.h":
    size_t NO_SIZE
    size_t size_times(size_t a, size_t b) noexcept nogil
    size_t size_plus(size_t a, size_t b) noexcept nogil
    size_t size_padded(size_t size) noexcept nogil
    size_t MEMORY_GAP
    void memory_open(void *memory, size_t size) noexcept nogil
    void memory_close(void *memory, size_t size) noexcept nogil


cdef struct Block:
    void *memory
    size_t size


cdef class Buffer:
    """Memory aligned to 64 bytes; to Python it is an array of bytes."""

    cdef Block block


cdef const void *kernels_of(bint double_precision) noexcept nogil
cdef const void *kernels_in(str compute_dtype) except NULL
cdef const void *kernels_named(isa, bint double_precision) except NULL
cdef void *blas_of(bint double_precision) noexcept nogil
cdef void set_blas(void *gemm_float, void *gemm_double) noexcept
cdef void *new_block(size_t size) noexcept nogil
cdef void free_block(void *memory) noexcept nogil
cdef int threads_for(double operations) noexcept nogil
cdef void run_lines(const team_lines *work, int threads, long long until) noexcept nogil
cdef void run_phases(const team_phases *work, int threads) noexcept nogil
cdef long long now() noexcept nogil
