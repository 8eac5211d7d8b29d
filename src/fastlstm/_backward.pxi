# Backward through time.
#
# The rows of a batch are independent but for the weight gradients. Where these are small, every
# n-th row forms a group with its own sums, and groups share nothing: a thread that summed over
# all rows would wait for what others have just written. How many groups there are depends on the
# shape alone, so that gradients do not depend on the number of threads.


cdef enum:
    MOST_GROUPS = 8
    LEAST_ROWS = 128              # in a chunk: each reads and writes the weight gradients


cdef struct Backward:            # of a group of rows, or of all
    const kernel_table *kernels
    Steps steps
    ptrdiff_t I, H, P, Hp, Ip, Z
    ptrdiff_t D                 # stride of dz, 4H and some: no power of 2, which caches dislike
    ptrdiff_t panels            # that hold 4H columns
    ptrdiff_t G                 # stride of g_ih and g_hh, likewise
    ptrdiff_t gates_stride      # distance of the group's rows in the tape
    ptrdiff_t state_stride
    const real *w_ih_columns
    const real *w_hh_columns
    Rows x, dy, dx
    bint x_flat, dx_direct
    bint split_units
    ptrdiff_t chunk_rows
    const real *gates
    const real *h
    const real *c
    real *x_chunk               # (chunk rows, I)
    real *dx_chunk              # (chunk rows, Ip)
    real *dy_chunk              # (chunk rows, H); NULL: dy is read where it is
    real *h_chunk               # (chunk rows, H)
    real *dz                    # (chunk rows, D): 4 gates of H
    real *dh                    # (B, Hp): dL/dh_t from the future
    real *dc                    # (B, Hp)
    const real *zeros           # (max(Hp, Ip, G),)
    real *g_ih                  # (I, G): the transposed gradient so far
    real *g_hh                  # (H, G)
    real *db                    # (4H,) of the group
    real *dw_ih                 # where BLAS adds
    real *dw_hh


cdef struct Groups:
    Backward *jobs
    int count
    real *dw_ih
    real *dw_hh
    real *db                    # or NULL


cdef inline const real *tape_row(
    const Backward *job, const real *states, ptrdiff_t s,
) noexcept nogil:
    """c or h of step s, -1 being the initial state."""
    if s < 0:
        return states
    return states + (job.steps.B + first_row(&job.steps, s)) * job.state_stride


cdef void backward_step(
    const Backward *job, const Share *share, ptrdiff_t s, real *dz,
    const real *dy, ptrdiff_t dy_stride, int thread, int threads,
) noexcept nogil:
    cdef const kernel_table *k = job.kernels
    cdef const Steps *steps = &job.steps
    cdef ptrdiff_t Hp = job.Hp, D = job.D, Zs = job.gates_stride, Hs = job.state_stride
    cdef ptrdiff_t r = share.first_row, step = share.row_step
    cdef ptrdiff_t own = rows_of_share(share, alive(steps, s)), first = 0, last = job.P, panels
    k.lstm_backward_cells(
        dz + r * D, step * D, job.dc + r * Hp, step * Hp, job.dh + r * Hp, step * Hp,
        dy + r * dy_stride, step * dy_stride,
        job.gates + (first_row(steps, s) + r) * Zs, step * Zs,
        tape_row(job, job.c, s) + r * Hs, tape_row(job, job.c, s - 1) + r * Hs, step * Hs,
        own, job.H, share.first_panel, share.last_panel)
    if job.split_units:
        barrier(threads)
        panels = (job.P + 3) // 4  # of 4 vectors of columns, the last one maybe narrower
        first = panels * thread // threads * 4
        last = min(job.P, panels * (thread + 1) // threads * 4)
    k.product(
        job.dh + r * Hp + first * k.lanes, step * Hp, job.zeros, 0, dz + r * D, step * D,
        job.w_hh_columns + first * k.lanes * 4 * job.H, own, last - first, 4 * job.H)
    if job.split_units:
        barrier(threads)


cdef bint hidden_is_flat(const Backward *job, ptrdiff_t begin, ptrdiff_t end) noexcept nogil:
    """Whether h_{t-1} of the steps begin..end lies in the tape row after row: none ends there."""
    cdef ptrdiff_t before = alive(&job.steps, begin - 1) if begin else job.steps.B
    return before == alive(&job.steps, end - 1)


cdef void collect(
    const Backward *job, ptrdiff_t begin, ptrdiff_t end, ptrdiff_t lo, ptrdiff_t hi,
) noexcept nogil:
    """Copy what a chunk cannot read where it is: rows lo..hi of x, dy and h_{t-1}."""
    cdef const Steps *steps = &job.steps
    cdef ptrdiff_t s = begin, r, j, before = first_row(steps, begin)
    if not job.x_flat:
        copy_rows(job.x_chunk, job.I, &job.x, steps, begin, lo, hi, False)
    if job.dy_chunk != NULL:
        copy_rows(job.dy_chunk, job.H, &job.dy, steps, begin, lo, hi, False)
    if not hidden_is_flat(job, begin, end):
        for r in range(lo, hi):
            while first_row(steps, s + 1) - before <= r:
                s += 1
            j = r - (first_row(steps, s) - before)
            memcpy(job.h_chunk + r * job.H,
                   tape_row(job, job.h, s - 1) + j * job.state_stride, job.H * sizeof(real))


cdef void input_gradient(
    const Backward *job, ptrdiff_t begin, ptrdiff_t lo, ptrdiff_t hi,
) noexcept nogil:
    """dx = dz @ W_ih for the rows lo..hi of the chunk that begins at step `begin`."""
    cdef const Steps *steps = &job.steps
    cdef real *dx = job.dx_chunk
    cdef ptrdiff_t stride = job.Ip
    if job.dx_direct:
        dx = row(&job.dx, steps, begin, 0)
        stride = flat_stride(&job.dx, steps)
    job.kernels.product(
        dx + lo * stride, stride, job.zeros, 0, job.dz + lo * job.D, job.D, job.w_ih_columns,
        hi - lo, job.Ip // job.kernels.lanes, 4 * job.H)
    if not job.dx_direct:
        copy_rows(job.dx_chunk, job.Ip, &job.dx, steps, begin, lo, hi, True)


cdef void weight_gradients(
    const Backward *job, ptrdiff_t begin, ptrdiff_t end, int thread, int threads,
) noexcept nogil:
    """dW_ih += dz.T @ x, dW_hh += dz.T @ h_{t-1}, db += sum of dz, for the steps begin..end."""
    cdef const kernel_table *k = job.kernels
    cdef const Steps *steps = &job.steps
    cdef ptrdiff_t rows = first_row(steps, end) - first_row(steps, begin)
    cdef ptrdiff_t H = job.H, I = job.I, x_stride = I, h_stride = H, first, panels, init_stride
    cdef const real *x = job.x_chunk
    cdef const real *h = job.h_chunk
    cdef bint is_first_chunk = end == steps.count
    if job.x_flat:
        x = row(&job.x, steps, begin, 0)
        x_stride = flat_stride(&job.x, steps)
    if hidden_is_flat(job, begin, end):
        h = tape_row(job, job.h, begin - 1)
        h_stride = job.state_stride
    if thread == threads - 1:
        k.add_rows(job.db, job.dz, job.D, rows, 4 * H)
    if k.prefer_blas:
        if thread == 0:
            gemm[real](True, False, 4 * H, I, rows, job.dz, job.D, x, x_stride, 1, job.dw_ih, I)
            gemm[real](True, False, 4 * H, H, rows, job.dz, job.D, h, h_stride, 1, job.dw_hh, H)
        return
    first = job.panels * thread // threads
    panels = job.panels * (thread + 1) // threads - first
    first *= 4 * k.lanes
    init_stride = 0 if is_first_chunk else job.G
    k.outer_product(
        job.g_ih + first, job.G, job.zeros if is_first_chunk else job.g_ih + first, init_stride,
        x, x_stride, job.dz + first, job.D, I, panels, rows)
    k.outer_product(
        job.g_hh + first, job.G, job.zeros if is_first_chunk else job.g_hh + first, init_stride,
        h, h_stride, job.dz + first, job.D, H, panels, rows)


cdef void backward_rows(const Backward *job, int thread, int threads) noexcept nogil:
    """All steps of a group."""
    cdef const Steps *steps = &job.steps
    cdef Share share = share_of(job.P, job.split_units, thread, threads)
    cdef ptrdiff_t s, begin, at, rows, lo, hi, end = steps.count, dy_stride = job.H
    cdef const real *dy
    while end > 0:
        begin = chunk_begin(steps, end, job.chunk_rows)
        rows = first_row(steps, end) - first_row(steps, begin)
        lo = rows * thread // threads
        hi = rows * (thread + 1) // threads
        collect(job, begin, end, lo, hi)
        barrier(threads)
        for s in range(end - 1, begin - 1, -1):
            at = first_row(steps, s) - first_row(steps, begin)
            if job.dy_chunk != NULL:
                dy = job.dy_chunk + at * job.H
            else:
                dy = job.dy.data + s * job.dy.stride_t
                dy_stride = job.dy.stride_b
            backward_step(
                job, &share, s, job.dz + at * job.D, dy, dy_stride, thread, threads)
        barrier(threads)
        input_gradient(job, begin, lo, hi)
        weight_gradients(job, begin, end, thread, threads)
        barrier(threads)
        end = begin


cdef void backward_thread(void *argument, int thread, int threads) noexcept nogil:
    cdef const Groups *groups = <const Groups *>argument
    cdef const Backward *job = groups.jobs
    cdef ptrdiff_t first, last, i, j
    if groups.count == 1:
        backward_rows(job, thread, threads)
    else:
        i = thread
        while i < groups.count:
            backward_rows(&groups.jobs[i], 0, 1)
            i += threads
    barrier(threads)
    first = job.panels * thread // threads * 4 * job.kernels.lanes
    last = min(job.panels * (thread + 1) // threads * 4 * job.kernels.lanes, 4 * job.H)
    for i in range(groups.count):
        job = &groups.jobs[i]
        if not job.kernels.prefer_blas and job.steps.count:
            job.kernels.add_transposed(groups.dw_ih, job.g_ih, job.G, job.I, first, last)
            job.kernels.add_transposed(groups.dw_hh, job.g_hh, job.G, job.H, first, last)
        if groups.db != NULL:
            for j in range(first, last):
                groups.db[j] += job.db[j]


cdef int count_groups(const Steps *steps, size_t weight_bytes) noexcept nogil:
    """How many groups of rows have weight gradients of their own: 1, 2, 4 or 8."""
    cdef int count = 1
    if steps.order != NULL or weight_bytes > (1 << 20):
        return 1
    if steps.B % 2 == 0 and steps.B >= 8:
        count = 2
    while count < MOST_GROUPS and steps.B % (2 * count) == 0 and steps.B >= 128 * count:
        count *= 2
    return count


cdef Rows rows_of_group(Rows rows, int group, int count) noexcept:
    return Rows(rows.data + group * rows.stride_b, rows.stride_t, count * rows.stride_b, rows.F)


cdef void store_state(
    real[:, :] state, const real *values, ptrdiff_t stride, const Steps *steps,
) noexcept:
    cdef ptrdiff_t j, H
    if state is not None:
        H = state.shape[1]
        for j in range(steps.B):
            memcpy(&state[batch_row(steps, j), 0], values + j * stride, H * sizeof(real))


cdef Buffer take_workspace(Backward *job, bint gather_dy):
    cdef ptrdiff_t lanes = job.kernels.lanes, widest = max(job.G, job.Ip)
    cdef ptrdiff_t rows = first_row(&job.steps, job.steps.count), B = job.steps.B
    cdef ptrdiff_t sizes[11]
    cdef real *pieces[11]
    cdef size_t total = 0
    cdef int i
    rows = min(rows, max(job.chunk_rows, B))
    sizes[:] = [
        rows * job.I, rows * job.Ip, rows * job.H, rows * job.H,
        rows * job.D + 4 * lanes,  # outer_product reads a panel beyond the last row
        B * job.Hp, B * job.Hp, widest, job.I * job.G, job.H * job.G, 4 * job.H]
    for i in range(11):
        total += padded(sizes[i] * sizeof(real))
    cdef Buffer buffer = Buffer(total)
    for i in range(11):
        pieces[i] = <real *>buffer.take(sizes[i] * sizeof(real))
    job.x_chunk = pieces[0]
    job.dx_chunk = pieces[1]
    job.h_chunk = pieces[2]
    job.dy_chunk = pieces[3] if gather_dy else NULL
    job.dz = pieces[4]
    job.dh = pieces[5]
    job.dc = pieces[6]
    job.zeros = pieces[7]
    job.g_ih = pieces[8]
    job.g_hh = pieces[9]
    job.db = pieces[10]
    # dz has columns that are only ever padding: what is left in memory could be slow denormals
    memset(job.dz, 0, sizes[4] * sizeof(real))
    memset(<void *>job.zeros, 0, widest * sizeof(real))
    memset(job.db, 0, 4 * job.H * sizeof(real))
    return buffer


def lstm_backward(
    LSTMTape tape, const real[:, :, :] dy, const real[:, :] dh_n, const real[:, :] dc_n,
    real[:, :, :] dx, real[:, ::1] dw_ih, real[:, ::1] dw_hh, real[::1] db,
    real[:, ::1] dh_0, real[:, ::1] dc_0,
):
    """Fill dx, dh_0 and dc_0, add to dw_ih, dw_hh and db; db, dh_0, dc_0 may be None.

    dx must be zero where it is ragged.
    """
    cdef LSTMWeights weights = tape.weights
    cdef const real[:, :, :] x = tape.x
    cdef Steps steps
    cdef Backward jobs[MOST_GROUPS]
    cdef Backward *job = jobs
    cdef Groups groups
    cdef ptrdiff_t B = x.shape[1], lanes = weights.kernels.lanes
    cdef int threads, g, count
    cdef list buffers = []
    if B == 0:
        return
    steps = tape.schedule.steps
    job.kernels = weights.kernels
    job.I = weights.I
    job.H = weights.H
    job.P = weights.P
    job.Hp = weights.Hp
    job.Ip = weights.Ip
    job.Z = 4 * job.Hp
    job.D = job.Z + lanes
    job.panels = (4 * job.H + 4 * lanes - 1) // (4 * lanes)
    job.G = job.panels * 4 * lanes + lanes
    job.w_ih_columns = weights.w_ih_columns
    job.w_hh_columns = weights.w_hh_columns
    job.x = rows_of(x)
    job.dx = rows_of(dx)
    job.dy = Rows(NULL, 0, 0, job.H)
    if dy is not None:
        job.dy = rows_of(dy)
    job.x_flat = is_flat(&job.x, &steps) and flat_stride(&job.x, &steps) >= max(job.I, 1)
    job.dx_direct = is_flat(&job.dx, &steps) and job.I == job.Ip
    job.chunk_rows = max(<ptrdiff_t>LEAST_ROWS, rows_per_chunk(job.Z))
    threads = threads_for(<double>first_row(&steps, steps.count) * job.Z * (job.I + job.H) * 2)
    count = count_groups(&steps, (job.I + job.H) * job.Z * sizeof(real))
    if job.kernels.prefer_blas:
        count = 1
    job.split_units = count == 1 and prefer_units(B, threads, job.Z, job.H)
    if job.split_units:
        threads = threads_for_step(B, job.Z, job.H, threads)

    for g in range(count):
        job = &jobs[g]
        job[0] = jobs[0]
        job.steps = steps
        job.steps.B = B // count
        job.gates_stride = count * job.Z
        job.state_stride = count * job.Hp
        job.gates = tape.gates + g * job.Z
        job.h = tape.h + g * job.Hp
        job.c = tape.c + g * job.Hp
        buffers.append(take_workspace(job, dy is not None and steps.order != NULL))
        load_state(job.dh, job.Hp, None if dh_n is None else dh_n[g::count], &job.steps)
        load_state(job.dc, job.Hp, None if dc_n is None else dc_n[g::count], &job.steps)
    for g in range(count - 1, -1, -1):  # the first one, of which the others are views, last
        job = &jobs[g]
        job.x = rows_of_group(jobs[0].x, g, count)
        job.dx = rows_of_group(jobs[0].dx, g, count)
        job.dy = rows_of_group(jobs[0].dy, g, count)
        if dy is None:
            job.dy.data = <real *>job.zeros

    groups.jobs = jobs
    groups.count = count
    groups.dw_ih = jobs[0].dw_ih = &dw_ih[0, 0]
    groups.dw_hh = jobs[0].dw_hh = &dw_hh[0, 0]
    groups.db = &db[0] if db is not None else NULL
    with nogil:
        run_team(backward_thread, &groups, threads)
    for g in range(count):
        job = &jobs[g]
        store_state(
            None if dh_0 is None else dh_0[g::count], job.dh, job.Hp, &job.steps)
        store_state(
            None if dc_0 is None else dc_0[g::count], job.dc, job.Hp, &job.steps)
