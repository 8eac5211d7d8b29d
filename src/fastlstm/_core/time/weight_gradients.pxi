# Weight gradients: per chunk dW += dz.T @ a while dz is warm, and the sums of groups at the end.


cdef const real *multiplied(
    const Backward *job, const WeightGradient *gradient, ptrdiff_t begin, ptrdiff_t end,
    ptrdiff_t *stride,
) noexcept nogil:
    """a (rows, M) of a weight gradient for the steps begin..end."""
    if gradient.source == FROM_X:
        stride[0] = job.size.I
        if not job.x_flat:
            return job.x_chunk
        stride[0] = flat_stride(&job.x, &job.steps)
        return row_of(&job.x, &job.steps, begin, 0)
    if gradient.source == FROM_H:
        stride[0] = job.size.R
        if not hidden_is_flat(job, begin, end):
            return job.h_chunk
        stride[0] = job.h_stride
        return tape_h(job, begin - 1)
    stride[0] = job.extra_stride
    return job.extra + first_row(&job.steps, begin) * job.extra_stride + job.parts.m


cdef void add_weight_gradients(
    const Backward *job, ptrdiff_t begin, ptrdiff_t end, int thread, int threads,
) noexcept nogil:
    """Add what the steps begin..end contribute, to all parameters."""
    cdef const kernel_table *k = job.kernels
    cdef const Steps *steps = &job.steps
    cdef ptrdiff_t rows = first_row(steps, end) - first_row(steps, begin), s, j
    cdef ptrdiff_t H = job.size.H, N = job.size.N, a_stride, first, panels
    cdef bint is_first_chunk = end == steps.count
    cdef const WeightGradient *gradient
    cdef const real *a
    cdef const real *dz = job.dz
    cdef const real *dz_row = dz
    cdef int i
    if thread == threads - 1:
        k.add_rows(job.db, dz + job.gradients.b, job.D, rows, N)
        if job.kind == GRU:  # the bias within the reset
            k.add_rows(job.db + N, dz + job.gradients.h + 2 * H, job.D, rows, H)
        if job.kind == LSTM_VARIANT:
            for s in range(begin, end):
                for j in range(alive(steps, s)):
                    k.option_gradients(
                        job.dpeephole, job.dnorm, dz_row,
                        job.extra + (first_row(steps, s) + j) * job.extra_stride,
                        tape_c(job, s - 1) + j * job.c_stride, &job.parts, &job.gradients,
                        job.options, H)
                    dz_row += job.D
    for i in range(job.weight_gradient_count):
        gradient = &job.weight_gradients[i]
        a = multiplied(job, gradient, begin, end, &a_stride)
        if k.prefer_blas:
            if thread == 0:
                gemm()(
                    True, False, gradient.N, gradient.M, rows, dz + gradient.first, job.D,
                    a, a_stride, 1, gradient.dw, gradient.M)
            continue
        first = gradient.panels * thread // threads
        panels = gradient.panels * (thread + 1) // threads - first
        first *= 4 * k.lanes
        k.outer_product(
            gradient.g + first, gradient.G, job.zeros if is_first_chunk else gradient.g + first,
            0 if is_first_chunk else gradient.G, a, a_stride, dz + gradient.first + first, job.D,
            gradient.M, panels, rows, scratch_of(job, thread))


cdef int count_groups(const Backward *job) noexcept nogil:
    """How many groups of rows have weight gradients of their own: 1, 2, 4 or 8."""
    cdef const Steps *steps = &job.steps
    cdef size_t weight_bytes = (job.size.I + job.size.R) * job.size.Z * sizeof(real)
    cdef int count = 1
    if steps.order != NULL or weight_bytes > (1 << 20) or job.kernels.prefer_blas:
        return 1
    if steps.B % 2 == 0 and steps.B >= 8:
        count = 2
    while count < MOST_GROUPS and steps.B % (2 * count) == 0 and steps.B >= 128 * count:
        count *= 2
    return count


cdef void append_weight_gradient(
    Backward *job, Source source, ptrdiff_t M, ptrdiff_t first, ptrdiff_t N, real *dw,
) noexcept nogil:
    cdef ptrdiff_t lanes = job.kernels.lanes, panels = (N + 4 * lanes - 1) // (4 * lanes)
    job.weight_gradients[job.weight_gradient_count] = WeightGradient(
        source, M, first, N, panels, panels * 4 * lanes + lanes, NULL, dw)
    job.weight_gradient_count += 1
