# Memory that is handed out piece by piece. The same code that lays out a workspace also measures
# it: where nothing is to hand out, pieces are only counted.


cdef struct Memory:
    char *start                 # at 64 bytes; NULL: measure
    size_t taken                # bytes


cdef inline real *take(Memory *memory, size_t count) noexcept nogil:
    """The next `count` reals, or NULL where memory is only measured."""
    cdef char *piece = memory.start
    if piece != NULL:
        piece += memory.taken
    memory.taken += padded(count * sizeof(real))
    return <real *>piece


cdef inline real *take_zeros(Memory *memory, size_t count) noexcept nogil:
    cdef real *piece = take(memory, count)
    if piece != NULL:
        memset(piece, 0, count * sizeof(real))
    return piece


cdef Memory memory_of(Buffer buffer, size_t size) noexcept:
    """All `size` bytes of a buffer."""
    return Memory(<char *>buffer.take(size), 0)
