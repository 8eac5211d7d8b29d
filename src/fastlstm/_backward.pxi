# Backward through time.


cdef struct Backward:
    const kernel_table *kernels
    Steps steps
    ptrdiff_t I, H, P, Hp, Ip, Z
    ptrdiff_t D                 # stride of dz, 4H and some: no power of 2, which caches dislike
    ptrdiff_t panels            # that hold 4H columns
    ptrdiff_t G                 # stride of g_ih and g_hh, likewise
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
    real *dw_ih
    real *dw_hh
    real *db


cdef inline const real *tape_row(
    const real *states, const Steps *steps, ptrdiff_t s, ptrdiff_t Hp,
) noexcept nogil:
    """c or h of step s, -1 being the initial state."""
    return states + (steps.B + first_row(steps, s)) * Hp if s >= 0 else states


cdef void backward_step(
    const Backward *job, const Share *share, ptrdiff_t s, real *dz,
    const real *dy, ptrdiff_t dy_stride, int thread, int threads,
) noexcept nogil:
    cdef const kernel_table *k = job.kernels
    cdef const Steps *steps = &job.steps
    cdef ptrdiff_t Hp = job.Hp, Z = job.Z, D = job.D
    cdef ptrdiff_t r = share.first_row, step = share.row_step
    cdef ptrdiff_t own = rows_of_share(share, alive(steps, s)), first = 0, last = job.P, panels
    cdef const real *gates = job.gates + first_row(steps, s) * Z
    cdef const real *c = tape_row(job.c, steps, s, Hp)
    cdef const real *c_prev = tape_row(job.c, steps, s - 1, Hp)
    k.lstm_backward_cells(
        dz + r * D, step * D, job.dc + r * Hp, step * Hp, job.dh + r * Hp, step * Hp,
        dy + r * dy_stride, step * dy_stride, gates + r * Z, step * Z,
        c + r * Hp, c_prev + r * Hp, step * Hp, own, job.H, share.first_panel, share.last_panel)
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
            memcpy(job.h_chunk + r * job.H, tape_row(job.h, steps, s - 1, job.Hp) + j * job.Hp,
                   job.H * sizeof(real))


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
        h = tape_row(job.h, steps, begin - 1, job.Hp)
        h_stride = job.Hp
    if job.db != NULL and thread == threads - 1:
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
    if begin == 0:
        panels = min(first + panels * 4 * k.lanes, 4 * H)
        k.add_transposed(job.dw_ih, job.g_ih, job.G, I, first, panels)
        k.add_transposed(job.dw_hh, job.g_hh, job.G, H, first, panels)


cdef void backward_thread(void *argument, int thread, int threads) noexcept nogil:
    cdef const Backward *job = <const Backward *>argument
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


cdef void store_state(
    real[:, :] state, const real *values, ptrdiff_t stride, const Steps *steps,
) noexcept:
    cdef ptrdiff_t j, H
    if state is not None:
        H = state.shape[1]
        for j in range(steps.B):
            memcpy(&state[batch_row(steps, j), 0], values + j * stride, H * sizeof(real))


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
    cdef const Steps *steps
    cdef Backward job
    cdef Buffer buffer
    cdef ptrdiff_t B = x.shape[1], rows, most_rows, widest
    cdef bint gather_dy
    cdef int threads
    if B == 0:
        return
    steps = &tape.schedule.steps
    job.kernels = weights.kernels
    job.steps = steps[0]
    job.I = weights.I
    job.H = weights.H
    job.P = weights.P
    job.Hp = weights.Hp
    job.Ip = weights.Ip
    job.Z = 4 * job.Hp
    job.D = job.Z + weights.kernels.lanes
    job.panels = (4 * job.H + 4 * weights.kernels.lanes - 1) // (4 * weights.kernels.lanes)
    job.G = job.panels * 4 * weights.kernels.lanes + weights.kernels.lanes
    job.w_ih_columns = weights.w_ih_columns
    job.w_hh_columns = weights.w_hh_columns
    job.gates = tape.gates
    job.h = tape.h
    job.c = tape.c
    job.x = rows_of(x)
    job.dx = rows_of(dx)
    job.x_flat = is_flat(&job.x, steps) and flat_stride(&job.x, steps) >= max(job.I, 1)
    job.dx_direct = is_flat(&job.dx, steps) and job.I == job.Ip
    gather_dy = dy is not None and steps.order != NULL
    job.chunk_rows = rows_per_chunk(job.Z)
    rows = first_row(steps, steps.count)
    most_rows = min(rows, max(job.chunk_rows, B))
    widest = max(job.G, job.Ip)
    # outer_product reads a panel beyond the last row of dz
    buffer = Buffer(
        padded(most_rows * job.I * sizeof(real)) + padded(most_rows * job.Ip * sizeof(real))
        + 2 * padded(most_rows * job.H * sizeof(real))
        + padded((most_rows * job.D + 4 * weights.kernels.lanes) * sizeof(real))
        + 2 * padded(B * job.Hp * sizeof(real)) + padded(widest * sizeof(real))
        + padded(job.I * job.G * sizeof(real)) + padded(job.H * job.G * sizeof(real)))
    job.x_chunk = <real *>buffer.take(most_rows * job.I * sizeof(real))
    job.dx_chunk = <real *>buffer.take(most_rows * job.Ip * sizeof(real))
    job.h_chunk = <real *>buffer.take(most_rows * job.H * sizeof(real))
    job.dy_chunk = <real *>buffer.take(most_rows * job.H * sizeof(real))
    job.dz = <real *>buffer.take((most_rows * job.D + 4 * weights.kernels.lanes) * sizeof(real))
    job.dh = <real *>buffer.take(B * job.Hp * sizeof(real))
    job.dc = <real *>buffer.take(B * job.Hp * sizeof(real))
    job.zeros = <real *>buffer.take(widest * sizeof(real))
    job.g_ih = <real *>buffer.take(job.I * job.G * sizeof(real))
    job.g_hh = <real *>buffer.take(job.H * job.G * sizeof(real))
    memset(<void *>job.zeros, 0, widest * sizeof(real))
    if not gather_dy:
        job.dy_chunk = NULL
    if dy is None:
        job.dy = Rows(<real *>job.zeros, 0, 0, job.H)
    else:
        job.dy = rows_of(dy)
    job.dw_ih = &dw_ih[0, 0]
    job.dw_hh = &dw_hh[0, 0]
    job.db = &db[0] if db is not None else NULL
    load_state(job.dh, job.Hp, dh_n, steps)
    load_state(job.dc, job.Hp, dc_n, steps)
    threads = threads_for(<double>rows * job.Z * (job.I + job.H) * 2)
    job.split_units = prefer_units(B, threads, job.Z * job.H * sizeof(real))
    if job.split_units:
        threads = min(threads, threads_for(STEP_WEIGHT * <double>B * job.Z * job.H))
    with nogil:
        run_team(backward_thread, &job, threads)
    store_state(dh_0, job.dh, job.Hp, steps)
    store_state(dc_0, job.dc, job.Hp, steps)
