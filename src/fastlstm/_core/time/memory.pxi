# Memory that is carved out of one block, part by part. The same code that lays out a workspace also
# measures it: where there is no block, parts are only counted. Sizes are checked products and sums
# (csrc/memory.h): what does not fit ends as NO_SIZE, which no block has. In a build with the
# address sanitizer a gap follows each part, and to touch it is an error.


cdef struct Memory:
    char *start                 # at 64 bytes; NULL: measure
    size_t used                 # bytes


cdef inline char *carve_bytes(Memory *memory, size_t size) noexcept nogil:
    """The next `size` bytes, or NULL where memory is only measured."""
    cdef char *part = memory.start
    cdef size_t whole = size_plus(size_padded(size), MEMORY_GAP)
    if part != NULL:
        part += memory.used
        memory_open(part, size)
        memory_close(part + size, whole - size)
    memory.used = size_plus(memory.used, whole)
    return part


cdef inline real *carve(Memory *memory, ptrdiff_t rows, ptrdiff_t width) noexcept nogil:
    """The next (rows, width) reals, or NULL where memory is only measured."""
    return <real *>carve_bytes(
        memory, size_times(size_times(<size_t>rows, <size_t>width), sizeof(real)))


cdef inline real *carve_zeros(Memory *memory, ptrdiff_t rows, ptrdiff_t width) noexcept nogil:
    cdef real *part = carve(memory, rows, width)
    if part != NULL:
        memset(part, 0, rows * width * sizeof(real))
    return part


cdef inline Memory memory_of(Buffer buffer) noexcept:
    """All of a buffer."""
    return Memory(<char *>buffer.block.memory, 0)


cdef inline real *offset(const real *array, ptrdiff_t distance) noexcept nogil:
    """array + distance; NULL stays NULL."""
    return NULL if array == NULL else <real *>array + distance
