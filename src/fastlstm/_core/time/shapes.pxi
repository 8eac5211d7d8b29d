# What an array must be before a pointer to it is taken. None passes: it is what was not given.


cdef int check_matrix(
    str name, const real[:, :] a, ptrdiff_t rows, ptrdiff_t columns, bint wanted=True,
) except -1:
    """Raise ValueError unless `a` is (rows, columns), of whole elements, and wanted at all."""
    if a is None:
        return 0
    if not wanted:
        raise ValueError(f"{name}: expected None, the cell has none")
    if a.shape[0] != rows or a.shape[1] != columns:
        raise ValueError(f"{name}: expected {(rows, columns)}, got {(a.shape[0], a.shape[1])}")
    if (<size_t>&a[0, 0] | <size_t>a.strides[0] | <size_t>a.strides[1]) % sizeof(real):
        raise ValueError(f"{name}: expected an aligned array")
    return 0


cdef int check_sequence(
    str name, const real[:, :, :] a, ptrdiff_t T, ptrdiff_t B, ptrdiff_t F,
) except -1:
    """As `check_matrix` for (T, B, F), whose last dimension is contiguous."""
    if a is None:
        return 0
    if a.shape[0] != T or a.shape[1] != B or a.shape[2] != F:
        raise ValueError(
            f"{name}: expected {(T, B, F)}, got {(a.shape[0], a.shape[1], a.shape[2])}")
    if (<size_t>&a[0, 0, 0] | <size_t>a.strides[0] | <size_t>a.strides[1]) % sizeof(real):
        raise ValueError(f"{name}: expected an aligned array")
    if F > 1 and a.strides[2] != sizeof(real):
        raise ValueError(f"{name}: expected a contiguous last dimension")
    return 0
