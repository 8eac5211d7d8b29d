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


cdef struct SequenceView:                # a (T, B, F) array as the steps see it
    real *data                  # NULL: there is none
    ptrdiff_t stride_t
    ptrdiff_t stride_b
    ptrdiff_t F
    bint concatenated           # (1, all rows, F): step after step, in the order of the steps


cdef struct StateView:           # a (B, F) array
    real *data                  # NULL: there is none
    ptrdiff_t stride_b
    ptrdiff_t stride_f
    ptrdiff_t F


cdef int check_layout(str name, object a, int dimensions, bint written) except -1:
    """Raise unless `a` is an array of our type and so many dimensions, of whole elements."""
    cdef size_t address
    cdef int i
    if not cnp.PyArray_Check(a):
        raise TypeError(f"{name}: expected an array, got {type(a).__name__}")
    if cnp.PyArray_TYPE(a) != TYPE_NUMBER or not cnp.PyArray_ISNOTSWAPPED(a):
        raise ValueError(f"{name}: expected {DTYPE}, got {a.dtype}")
    if cnp.PyArray_NDIM(a) != dimensions:
        raise ValueError(f"{name}: expected {dimensions} dimensions, got shape {a.shape}")
    address = <size_t>cnp.PyArray_DATA(a)
    for i in range(dimensions):
        if cnp.PyArray_DIM(a, i) > 1:  # else it means nothing
            address |= <size_t>cnp.PyArray_STRIDE(a, i)
    if address % sizeof(real):
        raise ValueError(f"{name}: expected an aligned array")
    if written and not cnp.PyArray_ISWRITEABLE(a):
        raise ValueError(f"{name}: expected a writable array")
    return 0


cdef int check_contiguous(str name, object a) except -1:
    if a is not None and not cnp.PyArray_IS_C_CONTIGUOUS(a):
        raise ValueError(f"{name}: expected a contiguous array")
    return 0


cdef inline ptrdiff_t stride_of(object a, int dimension) noexcept:
    return cnp.PyArray_STRIDE(a, dimension) // <ptrdiff_t>sizeof(real)


cdef object readable(object a):
    """`a`, or a copy where the three dimensions of an array cannot be read in place."""
    cdef size_t odd
    if a is None or not cnp.PyArray_Check(a) or cnp.PyArray_NDIM(a) != 3:
        return a
    if cnp.PyArray_IS_C_CONTIGUOUS(a) and cnp.PyArray_ISALIGNED(a):
        return a
    odd = <size_t>cnp.PyArray_STRIDE(a, 0) | <size_t>cnp.PyArray_STRIDE(a, 1)
    if (cnp.PyArray_ISALIGNED(a) and odd % sizeof(real) == 0
            and (stride_of(a, 2) == 1 or cnp.PyArray_DIM(a, 2) == 1)):
        return a
    return np.require(a, requirements=["C", "A"])


cdef SequenceView sequence_view(
    str name, object a, ptrdiff_t T, ptrdiff_t B, ptrdiff_t F, bint written=False,
) except *:
    """View `a`, which must be (T, B, F) with a contiguous last dimension."""
    cdef const cnp.npy_intp *shape
    if a is None:
        return SequenceView(NULL, 0, 0, F, False)
    check_layout(name, a, 3, written)
    shape = cnp.PyArray_DIMS(a)
    if shape[0] != T or shape[1] != B or shape[2] != F:
        raise ValueError(f"{name}: expected {(T, B, F)}, got {a.shape}")
    if F > 1 and T * B > 0 and stride_of(a, 2) != 1:
        raise ValueError(f"{name}: expected a contiguous last dimension")
    return SequenceView(
        <real *>cnp.PyArray_DATA(a), stride_of(a, 0), stride_of(a, 1), F, False)


cdef StateView state_view(
    str name, object a, ptrdiff_t B, ptrdiff_t F, bint wanted=True, bint written=False,
) except *:
    """View `a`, which must be (B, F), if it is wanted at all."""
    cdef const cnp.npy_intp *shape
    if a is None:
        return StateView(NULL, 0, 0, F)
    if not wanted:
        raise ValueError(f"{name}: expected None, the cell has none")
    check_layout(name, a, 2, written)
    shape = cnp.PyArray_DIMS(a)
    if shape[0] != B or shape[1] != F:
        raise ValueError(f"{name}: expected {(B, F)}, got {a.shape}")
    return StateView(<real *>cnp.PyArray_DATA(a), stride_of(a, 0), stride_of(a, 1), F)
