# Backward through time.
#
# The rows of a batch are independent but for the weight gradients. Where these are small, every
# n-th row forms a group with its own sums, and groups share nothing: a thread that summed over
# all rows would wait for what others have just written. How many groups there are depends on the
# shape alone, so that gradients do not depend on the number of threads. Nor do chunks.


cdef enum:
    MOST_GROUPS = 8
    MOST_WEIGHT_GRADIENTS = 3
    LEAST_ROWS = 128              # in a chunk: each reads and writes the weight gradients
    RING = 2                      # chunks of a group that threads work on at once


cdef enum Source:                # of what was multiplied with weights
    FROM_X
    FROM_H
    FROM_EXTRA


cdef struct WeightGradient:               # of the weight gradients: dW (N, M) += dz.T @ a
    Source source               # a (rows, M)
    ptrdiff_t M
    ptrdiff_t first             # dz: columns first <= j < first + N of a row of gradients
    ptrdiff_t N
    ptrdiff_t panels            # that hold N columns
    ptrdiff_t G                 # stride of g: no power of 2, which caches dislike
    real *g                     # (M, G): the transposed gradient so far
    real *dw                    # (N, M): where it is added, or where BLAS adds


cdef struct Gradients:           # where they are added, or NULL
    real *w_ih                  # (N, I)
    real *w_hh                  # (N, R)
    real *b                     # (N,), GRU (4 * H,)
    real *peephole              # (3, H), coupled (2, H)
    real *w_proj                # (R, H)
    real *layer_norm            # (2 * gates + 2, H)


cdef struct Chunk:               # of steps, on their way from dz to the gradients
    real *x                     # (chunk rows, I), unless it is read where it is
    real *dx                    # (chunk rows, Ip)
    real *dy                    # (chunk rows, R); NULL: it is read where it is
    real *h                     # (chunk rows, R)
    real *dz                    # (chunk rows, D)


cdef struct Backward:            # of a group of rows, or of all
    const kernel_table *kernels
    int kind
    Steps steps
    Sizes size
    extra_parts parts
    gradient_parts gradients
    const cell_options *options
    ptrdiff_t D                 # stride of dz, its size and some: no power of 2 either
    ptrdiff_t gates_stride      # distances of the group's rows in the tape
    ptrdiff_t extra_stride
    ptrdiff_t h_stride
    ptrdiff_t c_stride
    ptrdiff_t zoneout_h_stride
    ptrdiff_t zoneout_c_stride
    ptrdiff_t dropout_stride
    const real *w_ih_columns
    const real *w_hh_columns
    SequenceView x, dy, dx
    bint x_flat, dx_direct, gather_dy
    ptrdiff_t chunk_rows
    int ring                    # so many of the chunks are used: a second one costs cache
    const real *gates
    const real *extra
    const real *h
    const real *c
    const real *zoneout_h       # see Masks
    const real *zoneout_c
    const real *dropout
    Chunk[RING] chunks
    real *dh                    # (B, Rp): dL/dh_t from the future
    real *dc                    # (B, Hp)
    real *kept                  # (B, Rp): what zoneout hands to h_{t-1}
    real *through               # (B, Rp): what comes through W_hh, under dropout
    real *scratch               # (B, Hp)
    char *rounded               # (tasks that run at once, rounded_size)
    size_t rounded_size
    const real *zeros           # as long as the widest row
    WeightGradient weight_gradients[MOST_WEIGHT_GRADIENTS]
    int weight_gradient_count
    real *db                    # of the group, as the two below
    ptrdiff_t db_size
    real *dpeephole
    ptrdiff_t dpeephole_size
    real *dnorm
    ptrdiff_t dnorm_size


cdef inline const real *tape_h(const Backward *job, ptrdiff_t s) noexcept nogil:
    """h of step s, -1 being the initial state."""
    if s < 0:
        return job.h
    return job.h + (job.steps.B + first_row(&job.steps, s)) * job.h_stride


cdef inline const real *tape_c(const Backward *job, ptrdiff_t s) noexcept nogil:
    if s < 0:
        return job.c
    return offset(job.c, (job.steps.B + first_row(&job.steps, s)) * job.c_stride)


cdef void point_backward_step(
    backward_step *todo, const Backward *job, const Share *share, const Chunk *chunk, ptrdiff_t s,
    ptrdiff_t at, void *rounded,
) noexcept nogil:
    """Point to what step s, whose first row is row `at` of the chunk, reads and writes."""
    cdef ptrdiff_t R = job.size.R, Rp = job.size.Rp, Hp = job.size.Hp
    cdef ptrdiff_t first = share.first_row, step = share.row_step
    cdef ptrdiff_t before = first_row(&job.steps, s) + first, dy_stride = job.dy.stride_b
    cdef const real *dy = job.dy.data + s * job.dy.stride_t
    if chunk.dy != NULL:
        dy = chunk.dy + at * R
        dy_stride = R
    memset(todo, 0, sizeof(backward_step))
    todo.rows = rows_of_share(share, alive(&job.steps, s))
    todo.H = job.size.H
    todo.R = R
    todo.first = share.first_panel
    todo.last = share.last_panel
    todo.dz = chunk.dz + (at + first) * job.D
    todo.dz_stride = step * job.D
    todo.gradients = job.gradients
    todo.dc = job.dc + first * Hp
    todo.dc_stride = step * Hp
    todo.dh = job.dh + first * Rp
    todo.dh_stride = step * Rp
    todo.dy = dy + first * dy_stride
    todo.dy_stride = step * dy_stride
    todo.gates = job.gates + before * job.gates_stride
    todo.gates_stride = step * job.gates_stride
    todo.c = offset(tape_c(job, s), first * job.c_stride)
    todo.c_prev = offset(tape_c(job, s - 1), first * job.c_stride)
    todo.c_stride = step * job.c_stride
    todo.h_prev = tape_h(job, s - 1) + first * job.h_stride
    todo.h_prev_stride = step * job.h_stride
    todo.u = todo.h_prev
    todo.u_stride = todo.h_prev_stride
    todo.extra = job.extra + before * job.extra_stride
    todo.extra_stride = step * job.extra_stride
    todo.parts = job.parts
    todo.options = job.options
    todo.scratch = job.scratch + first * Hp
    todo.scratch_stride = step * Hp
    todo.zeros = job.zeros
    todo.rounded = rounded
    todo.zoneout_c = offset(job.zoneout_c, before * job.zoneout_c_stride)
    todo.zoneout_c_stride = step * job.zoneout_c_stride
    if job.dropout != NULL:
        todo.u = chunk.h + (at + first) * R
        todo.u_stride = step * R
        todo.dropout = job.dropout + first * job.dropout_stride
        todo.dropout_stride = step * job.dropout_stride


cdef void split_zoneout(
    const Backward *job, const Share *share, ptrdiff_t s, backward_step *todo,
) noexcept nogil:
    """Keep what zoneout hands to h_{t-1}, and leave in dh what reaches the cell."""
    cdef ptrdiff_t r = share.first_row, step = share.row_step, Rp = job.size.Rp, i
    cdef ptrdiff_t before = first_row(&job.steps, s) + r
    for i in range(todo.rows):
        job.kernels.zoneout_backward(
            todo.dh + i * todo.dh_stride, job.kept + (r + i * step) * Rp,
            todo.dy + i * todo.dy_stride,
            job.zoneout_h + (before + i * step) * job.zoneout_h_stride, job.size.R)
    todo.dy = job.zeros
    todo.dy_stride = 0


cdef void multiply_hidden(
    const Backward *job, const Share *share, const backward_step *todo, ptrdiff_t first,
    ptrdiff_t last,
) noexcept nogil:
    """dh for the step before: dz @ W_hh and what did not pass through it, of some vectors."""
    cdef const kernel_table *k = job.kernels
    cdef ptrdiff_t R = job.size.R, Rp = job.size.Rp, r = share.first_row, step = share.row_step, i
    cdef real *through = todo.dh
    cdef const real *init = job.zeros
    cdef ptrdiff_t init_stride = 0
    if job.dropout != NULL:
        through = job.through + r * Rp
    elif job.kind != LSTM:  # which leaves in dh what did not pass through W_hh
        init = todo.dh
        init_stride = step * Rp
    k.product(
        through + first * k.lanes, step * Rp, init + first * k.lanes, init_stride,
        todo.dz + job.gradients.h, step * job.D,
        job.w_hh_columns + first * k.lanes * k.weight_rows(job.size.N_h), todo.rows, last - first,
        job.size.N_h, 0, todo.rounded)
    if job.dropout != NULL:
        for i in range(todo.rows):
            k.accumulate(
                todo.dh + i * step * Rp, through + i * step * Rp,
                todo.dropout + i * todo.dropout_stride, R)
    if job.zoneout_h != NULL:
        for i in range(todo.rows):
            k.accumulate(todo.dh + i * step * Rp, job.kept + (r + i * step) * Rp, NULL, R)


cdef void run_backward_steps(
    const Backward *job, const Share *share, const Chunk *chunk, ptrdiff_t begin, ptrdiff_t end,
    void *rounded,
) noexcept nogil:
    """dz of a share of the steps begin..end."""
    cdef backward_step todo
    cdef ptrdiff_t s, at, before = first_row(&job.steps, begin)
    for s in range(end - 1, begin - 1, -1):
        at = first_row(&job.steps, s) - before
        point_backward_step(&todo, job, share, chunk, s, at, rounded)
        if has_resets(&job.steps, s, s + 1):
            reset_backward_cells(job, share, chunk, s, at, rounded)
        else:
            if job.zoneout_h != NULL:
                split_zoneout(job, share, s, &todo)
            job.kernels.backward_cells[job.kind](&todo)
        multiply_hidden(job, share, &todo, 0, job.size.Rp // job.kernels.lanes)
        stop_gradients(job, share, s)


cdef bint hidden_is_flat(const Backward *job, ptrdiff_t begin, ptrdiff_t end) noexcept nogil:
    """Whether what W_hh multiplied in the steps begin..end is in the tape row after row: not if
    rows end there or are reset, or under dropout.
    """
    cdef ptrdiff_t before = alive(&job.steps, begin - 1) if begin else job.steps.B
    return (before == alive(&job.steps, end - 1) and job.dropout == NULL
            and not has_resets(&job.steps, begin, end))


cdef void collect(
    const Backward *job, const Share *share, const Chunk *chunk, ptrdiff_t begin, ptrdiff_t end,
) noexcept nogil:
    """Copy what a chunk cannot read where it is: a share's rows of x, dy and h_{t-1}."""
    cdef const Steps *steps = &job.steps
    cdef ptrdiff_t I = job.size.I, R = job.size.R, s, i, j, r
    cdef bint copies_h = not hidden_is_flat(job, begin, end)
    if job.x_flat and chunk.dy == NULL and not copies_h:
        return
    for s in range(begin, end):
        for i in range(rows_of_share(share, alive(steps, s))):
            j = share.first_row + i * share.row_step
            r = first_row(steps, s) - first_row(steps, begin) + j
            if not job.x_flat:
                memcpy(chunk.x + r * I, row_of(&job.x, steps, s, j), I * sizeof(real))
            if chunk.dy != NULL:
                memcpy(chunk.dy + r * R, row_of(&job.dy, steps, s, j), R * sizeof(real))
            if copies_h:
                copy_or_zero(
                    chunk.h + r * R, tape_h(job, s - 1) + j * job.h_stride, R,
                    is_reset(steps, s, j))
                if job.dropout != NULL:
                    job.kernels.multiply(
                        chunk.h + r * R, chunk.h + r * R, job.dropout + j * job.dropout_stride, R)


cdef void input_gradient(
    const Backward *job, const Chunk *chunk, ptrdiff_t begin, ptrdiff_t lo, ptrdiff_t hi,
    void *rounded,
) noexcept nogil:
    """dx = dz @ W_ih for the rows lo..hi of the chunk that begins at step `begin`."""
    cdef const Steps *steps = &job.steps
    cdef real *dx = chunk.dx
    cdef ptrdiff_t Ip = job.size.Ip, stride = Ip
    if job.dx_direct:
        dx = row_of(&job.dx, steps, begin, 0)
        stride = flat_stride(&job.dx, steps)
    job.kernels.product(
        dx + lo * stride, stride, job.zeros, 0, chunk.dz + lo * job.D, job.D, job.w_ih_columns,
        hi - lo, Ip // job.kernels.lanes, job.size.N, 0, rounded)
    if not job.dx_direct:
        copy_rows(chunk.dx, Ip, &job.dx, steps, begin, lo, hi, True)


cdef SequenceView view_of_group(SequenceView rows, int group, int count) noexcept nogil:
    if count > 1:  # never where rows are packed
        rows.data = offset(rows.data, group * rows.stride_b)
        rows.stride_b *= count
    return rows


cdef void begin_backward(
    Backward *job, const PackedWeights *weights, int kind, const Steps *steps,
    const SequenceView *x, const SequenceView *dy, const SequenceView *dx, const Gradients *to,
) noexcept nogil:
    """Set what all rows have in common; dy's data is NULL where there is none."""
    cdef const Sizes *n = &weights.size
    cdef ptrdiff_t lanes = weights.kernels.lanes
    memset(job, 0, sizeof(Backward))
    job.kernels = weights.backward_kernels
    job.kind = kind
    job.steps = steps[0]
    job.size = n[0]
    job.parts = weights.parts
    job.options = &weights.options
    job.gradients = weights.gradients
    if kind == LSTM_VARIANT and weights.kind == LSTM:  # because of masks
        job.gradients.size += n.H
    job.D = (job.gradients.size + lanes - 1) // lanes * lanes + lanes
    job.gates_stride = n.Z
    job.extra_stride = job.parts.size
    job.h_stride = n.Rp
    job.c_stride = n.Hp
    job.w_ih_columns = weights.w_ih_columns
    job.w_hh_columns = weights.w_hh_columns
    job.x = x[0]
    job.dx = dx[0]
    job.dy = dy[0]
    job.gather_dy = dy.data != NULL and steps.order != NULL
    job.x_flat = is_flat(&job.x, steps) and flat_stride(&job.x, steps) >= max(n.I, 1)
    job.dx_direct = is_flat(&job.dx, steps) and n.I == n.Ip
    job.chunk_rows = max(<ptrdiff_t>LEAST_ROWS, rows_per_chunk(job.D))
    job.db_size = n.N + (n.H if kind == GRU else 0)
    if to.peephole != NULL:
        job.dpeephole_size = (2 if weights.options.coupled else 3) * n.H
    if to.layer_norm != NULL:
        job.dnorm_size = 2 * n.N + 2 * n.H
    append_weight_gradient(job, FROM_X, n.I, 0, n.N, to.w_ih)
    append_weight_gradient(job, FROM_H, n.R, job.gradients.h, n.N_h, to.w_hh)
    if kind == GRU_RESET_BEFORE:
        append_weight_gradient(job, FROM_EXTRA, n.H, n.N_h, n.H, to.w_hh + n.N_h * n.R)
    if to.w_proj != NULL:
        append_weight_gradient(job, FROM_EXTRA, n.H, job.gradients.proj, n.R, to.w_proj)


cdef void restrict_to_group(Backward *jobs, int g, int count) noexcept nogil:
    """jobs[g] := every count-th row of jobs[0] from row g on; jobs[0] itself comes last."""
    cdef Backward *job = &jobs[g]
    job[0] = jobs[0]
    job.steps.B = job.steps.B // count
    if job.steps.resets != NULL:
        job.steps.resets += g
        job.steps.resets_stride = count
    job.x = view_of_group(job.x, g, count)
    job.dx = view_of_group(job.dx, g, count)
    job.dy = view_of_group(job.dy, g, count)
    job.gates = offset(job.gates, g * job.gates_stride)
    job.extra = offset(job.extra, g * job.extra_stride)
    job.h = offset(job.h, g * job.h_stride)
    job.c = offset(job.c, g * job.c_stride)
    job.zoneout_h = offset(job.zoneout_h, g * job.zoneout_h_stride)
    job.zoneout_c = offset(job.zoneout_c, g * job.zoneout_c_stride)
    job.dropout = offset(job.dropout, g * job.dropout_stride)
    job.gates_stride *= count
    job.extra_stride *= count
    job.h_stride *= count
    job.c_stride *= count
    job.zoneout_h_stride *= count
    job.zoneout_c_stride *= count
    job.dropout_stride *= count


cdef void place_backward_workspace(Backward *job, int tasks, Memory *memory) noexcept nogil:
    """Memory for all that does not stay, where so many tasks of a group run at once."""
    cdef const Sizes *n = &job.size
    cdef ptrdiff_t lanes = job.kernels.lanes, widest = max(n.Hp, n.Rp, n.Ip), B = job.steps.B
    cdef ptrdiff_t rows = first_row(&job.steps, job.steps.count)
    cdef WeightGradient *gradient
    cdef Chunk *chunk
    cdef int i
    rows = min(rows, max(job.chunk_rows, B))
    for i in range(job.weight_gradient_count):
        gradient = &job.weight_gradients[i]
        gradient.g = carve(memory, gradient.M, gradient.G)
        widest = max(widest, gradient.G)
    job.rounded_size = max(
        job.kernels.rounded_bytes(rows, n.N), job.kernels.rounded_bytes(B, max(n.R, n.H)))
    for i in range(job.weight_gradient_count):
        job.rounded_size = max(job.rounded_size, job.kernels.outer_product_bytes(
            job.weight_gradients[i].M, rows))
    job.rounded = carve_bytes(memory, size_times(tasks, job.rounded_size))
    for i in range(job.ring):
        chunk = &job.chunks[i]
        chunk.x = carve(memory, rows, n.I)
        chunk.dx = carve(memory, rows, n.Ip)
        chunk.h = carve(memory, rows, n.R)
        chunk.dy = carve(memory, rows, n.R) if job.gather_dy else NULL
        # dz has columns that are only ever padding: what is left in memory could be slow denormals;
        # and outer_product reads a panel beyond the last row
        chunk.dz = carve_zeros(memory, rows + (4 * lanes + job.D - 1) // job.D, job.D)
    job.dh = carve(memory, B, n.Rp)
    job.dc = carve(memory, B, n.Hp)
    job.zeros = carve_zeros(memory, 1, widest)
    job.db = carve_zeros(memory, 1, job.db_size)
    job.dpeephole = carve_zeros(memory, 3, n.H if job.options.peephole != NULL else 0)
    job.dnorm = carve_zeros(memory, 2, n.N + n.H if job.options.norm != NULL else 0)
    job.kept = carve_zeros(memory, B, n.Rp if job.zoneout_h != NULL else 0)
    job.through = carve_zeros(memory, B, n.Rp if job.dropout != NULL else 0)
    job.scratch = carve_zeros(memory, B, n.Hp if takes_whole_rows(job.kind) else 0)
    if job.dy.data == NULL:
        job.dy.data = <real *>job.zeros
