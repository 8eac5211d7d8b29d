# Weight gradients: per chunk dW += dz.T @ a while dz is warm, and the sums of groups at the end.


cdef const real *multiplied(
    const Backward *job, const WeightGradient *gradient, const Chunk *chunk, ptrdiff_t begin,
    ptrdiff_t end, ptrdiff_t *stride,
) noexcept nogil:
    """a (rows, M) of a weight gradient for the steps begin..end."""
    if gradient.source == FROM_X:
        stride[0] = job.size.I
        if not job.x_flat:
            return chunk.x
        stride[0] = flat_stride(&job.x, &job.steps)
        return row_of(&job.x, &job.steps, begin, 0)
    if gradient.source == FROM_H:
        stride[0] = job.size.R
        if not hidden_is_flat(job, begin, end):
            return chunk.h
        stride[0] = job.h_stride
        return tape_h(job, begin - 1)
    stride[0] = job.extra_stride
    return job.extra + first_row(&job.steps, begin) * job.extra_stride + job.parts.m


cdef void add_bias_gradients(
    const Backward *job, const Chunk *chunk, ptrdiff_t begin, ptrdiff_t end,
) noexcept nogil:
    """Add what the steps begin..end contribute to the gradients of biases and options."""
    cdef const Steps *steps = &job.steps
    cdef ptrdiff_t rows = first_row(steps, end) - first_row(steps, begin), s, j
    cdef ptrdiff_t H = job.size.H, N = job.size.N
    cdef const real *dz = chunk.dz
    job.kernels.add_rows(job.db, dz + job.gradients.b, job.D, rows, N)
    if job.kind == GRU:  # the bias within the reset
        job.kernels.add_rows(job.db + N, dz + job.gradients.h + 2 * H, job.D, rows, H)
    if job.kind == LSTM_VARIANT:
        for s in range(begin, end):
            for j in range(alive(steps, s)):
                job.kernels.option_gradients(
                    job.dpeephole, job.dnorm, dz,
                    job.extra + (first_row(steps, s) + j) * job.extra_stride,
                    job.zeros if is_reset(steps, s, j)
                    else tape_c(job, s - 1) + j * job.c_stride,
                    &job.parts, &job.gradients, job.options, H)
                dz += job.D


cdef void add_weight_gradient(
    const Backward *job, const WeightGradient *gradient, const Chunk *chunk, ptrdiff_t begin,
    ptrdiff_t end, ptrdiff_t first, ptrdiff_t last, void *rounded,
) noexcept nogil:
    """Add what the steps begin..end contribute, to the panels first..last of dW."""
    cdef const kernel_table *k = job.kernels
    cdef const Steps *steps = &job.steps
    cdef ptrdiff_t rows = first_row(steps, end) - first_row(steps, begin), a_stride
    cdef const real *a = multiplied(job, gradient, chunk, begin, end, &a_stride)
    cdef const real *dz = chunk.dz + gradient.first
    cdef real *g = offset(gradient.g, first * 4 * k.lanes)
    cdef bint is_first_chunk = end == steps.count
    if k.prefer_blas:
        if first == 0:
            gemm()(
                True, False, gradient.N, gradient.M, rows, dz, job.D, a, a_stride, 1,
                gradient.dw, gradient.M)
        return
    k.outer_product(
        g, gradient.G, job.zeros if is_first_chunk else g, 0 if is_first_chunk else gradient.G,
        a, a_stride, dz + first * 4 * k.lanes, job.D, gradient.M, last - first, rows,
        rounded)


cdef inline void add(real *sums, const real *part, ptrdiff_t n) noexcept nogil:
    cdef ptrdiff_t j
    if sums != NULL:
        for j in range(n):
            sums[j] += part[j]


cdef void sum_groups(
    const Backward *jobs, int count, const Gradients *to, int i, int part, int parts,
) noexcept nogil:
    """Add the sums of all groups, in their order, to a part of a weight gradient; with the first,
    to those of biases and options.
    """
    cdef const Backward *job
    cdef const WeightGradient *gradient
    cdef ptrdiff_t width = 4 * jobs.kernels.lanes
    cdef int g
    for g in range(count):
        job = &jobs[g]
        gradient = &job.weight_gradients[i]
        if job.steps.count and not job.kernels.prefer_blas:
            job.kernels.add_transposed(
                gradient.dw, gradient.g, gradient.G, gradient.M,
                gradient.panels * part // parts * width,
                min(gradient.panels * (part + 1) // parts * width, gradient.N))
        if i == 0 and part == 0:
            add(to.b, job.db, job.db_size)
            add(to.peephole, job.dpeephole, job.dpeephole_size)
            add(to.layer_norm, job.dnorm, job.dnorm_size)


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
