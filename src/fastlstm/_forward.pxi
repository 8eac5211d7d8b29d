# Forward through time.


cdef struct Forward:
    const kernel_table *kernels
    Steps steps
    ptrdiff_t I, H, P, Hp, Z
    const real *w_ih
    const real *w_hh
    const real *b
    Rows x, y
    bint training
    bint y_direct               # steps write h_t into y and read h_{t-1} from there
    bint split_units            # threads take hidden units, not rows
    ptrdiff_t chunk_rows
    real *x_step                # (threads, B, I): rows of one step, where they are not evenly apart
    real *gates                 # training (all rows, Z), else (chunk rows, Z)
    real *h                     # h_0 (B, Hp), then training (all rows, Hp), else (2, B, Hp)
    real *c                     # c_0 (B, Hp), then training (all rows, Hp), else nothing
    real *h_n
    real *c_n


cdef inline real *hidden(const Forward *job, ptrdiff_t s, ptrdiff_t *stride) noexcept nogil:
    """h of step s; s = -1 is h_0."""
    stride[0] = job.Hp
    if s < 0:
        return job.h
    if job.y_direct:
        stride[0] = job.y.stride_b
        return job.y.data + s * job.y.stride_t
    if job.training:
        return job.h + (job.steps.B + first_row(&job.steps, s)) * job.Hp
    return job.h + (1 + (s & 1)) * job.steps.B * job.Hp


cdef inline real *cell_state(const Forward *job, ptrdiff_t s) noexcept nogil:
    """c of step s; s = -1 is c_0."""
    if s < 0 or not job.training:
        return job.c
    return job.c + (job.steps.B + first_row(&job.steps, s)) * job.Hp


cdef void project(
    const Forward *job, const Share *share, ptrdiff_t begin, ptrdiff_t end, real *z,
    real *x_step,
) noexcept nogil:
    """z = x @ W_ih.T + b of a share of the steps begin..end."""
    cdef const kernel_table *k = job.kernels
    cdef const Steps *steps = &job.steps
    cdef ptrdiff_t offset = share.first_panel * 4 * k.lanes
    cdef ptrdiff_t vectors = 4 * (share.last_panel - share.first_panel)
    cdef const real *w = job.w_ih + offset * job.I
    cdef ptrdiff_t z_stride = share.row_step * job.Z
    cdef ptrdiff_t s, i, j, own, x_stride
    cdef const real *x
    z += share.first_row * job.Z + offset
    if is_flat(&job.x, steps) and steps.B % share.row_step == 0:
        k.product(
            z, z_stride, job.b + offset, 0, row(&job.x, steps, begin, share.first_row),
            flat_stride(&job.x, steps) * share.row_step, w,
            (end - begin) * (steps.B // share.row_step), vectors, job.I)
        return
    for s in range(begin, end):
        own = rows_of_share(share, alive(steps, s))
        if steps.order == NULL:
            x = row(&job.x, steps, s, share.first_row)
            x_stride = job.x.stride_b * share.row_step
        else:
            for i in range(own):
                j = share.first_row + i * share.row_step
                memcpy(x_step + i * job.I, row(&job.x, steps, s, j), job.I * sizeof(real))
            x = x_step
            x_stride = job.I
        k.product(z, z_stride, job.b + offset, 0, x, x_stride, w, own, vectors, job.I)
        z += alive(steps, s) * job.Z


cdef void forward_step(
    const Forward *job, const Share *share, ptrdiff_t s, real *z,
) noexcept nogil:
    cdef ptrdiff_t stride, stride_prev, first = share.first_row, step = share.row_step
    cdef real *h = hidden(job, s, &stride)
    cdef const real *h_prev = hidden(job, s - 1, &stride_prev)
    job.kernels.lstm_forward_step(
        h + first * stride, step * stride,
        cell_state(job, s) + first * job.Hp, cell_state(job, s - 1) + first * job.Hp,
        step * job.Hp, z + first * job.Z, step * job.Z,
        h_prev + first * stride_prev, step * stride_prev, job.w_hh,
        rows_of_share(share, alive(&job.steps, s)), job.H,
        share.first_panel, share.last_panel, s & 1)


cdef void hand_out(const Forward *job, ptrdiff_t s, int thread, int threads) noexcept nogil:
    """Copy what step s made to y, and the state of rows that end here to h_n and c_n."""
    cdef const Steps *steps = &job.steps
    cdef ptrdiff_t n = alive(steps, s), stays = alive(steps, s + 1)
    cdef ptrdiff_t stride, i, j, b
    cdef const real *h = hidden(job, s, &stride)
    cdef const real *c = cell_state(job, s)
    if job.y_direct and stays == n:
        return
    for i in range((n - thread + threads - 1) // threads):
        j = thread + i * threads
        if not job.y_direct:
            memcpy(row(&job.y, steps, s, j), h + j * stride, job.H * sizeof(real))
        if j >= stays:
            b = batch_row(steps, j)
            memcpy(job.h_n + b * job.H, h + j * stride, job.H * sizeof(real))
            memcpy(job.c_n + b * job.H, c + j * job.Hp, job.H * sizeof(real))


cdef void forward_thread(void *argument, int thread, int threads) noexcept nogil:
    cdef const Forward *job = <const Forward *>argument
    cdef const Steps *steps = &job.steps
    cdef Share share = share_of(job.P, job.split_units, thread, threads)
    cdef ptrdiff_t s, before, begin = 0, end
    cdef real *z
    while begin < steps.count:
        end = chunk_end(steps, begin, job.chunk_rows)
        before = first_row(steps, begin)
        z = job.gates + (before * job.Z if job.training else 0)
        project(job, &share, begin, end, z, job.x_step + thread * steps.B * job.I)
        for s in range(begin, end):
            forward_step(job, &share, s, z + (first_row(steps, s) - before) * job.Z)
            if job.split_units:
                barrier(threads)
            hand_out(job, s, thread, threads)
        if not job.training and (steps.order != NULL or steps.B % share.row_step):
            # the next chunk's rows take the place of other threads' rows of this one
            barrier(threads)
        begin = end


cdef class LSTMTape:
    """What lstm_backward needs of a forward call: gates, cell and hidden states, and x itself."""

    cdef LSTMWeights weights
    cdef Schedule schedule
    cdef Buffer buffer
    cdef readonly object x
    cdef readonly Py_ssize_t nbytes
    cdef real *gates
    cdef real *h
    cdef real *c


cdef ptrdiff_t rows_per_chunk(ptrdiff_t Z) noexcept:
    return max(<ptrdiff_t>1, <ptrdiff_t>(CHUNK_BYTES // (Z * sizeof(real))))


def lstm_forward(
    LSTMWeights weights, const real[:, :, :] x, const real[:, :] h_0, const real[:, :] c_0,
    const ptrdiff_t[::1] lengths, bint reverse, bint training,
    real[:, :, :] y, real[:, ::1] h_n, real[:, ::1] c_n,
):
    """Fill y, h_n and c_n; the tape, or None. y must be zero where it is ragged."""
    cdef ptrdiff_t B = x.shape[1], rows, most_rows
    cdef Schedule schedule = Schedule(x.shape[0], B, lengths, reverse)
    cdef const Steps *steps = &schedule.steps
    cdef Forward job
    cdef Buffer buffer, kept
    cdef LSTMTape tape = None
    cdef int threads
    cdef ptrdiff_t j, b
    if training:
        tape = LSTMTape()
        tape.weights = weights
        tape.schedule = schedule
        tape.x = x.base
    if B == 0:
        return tape
    job.kernels = weights.kernels
    job.steps = schedule.steps
    job.I = weights.I
    job.H = weights.H
    job.P = weights.P
    job.Hp = weights.Hp
    job.Z = 4 * job.Hp
    job.w_ih = weights.w_ih
    job.w_hh = weights.w_hh
    job.b = weights.b
    job.x = rows_of(x)
    job.y = rows_of(y)
    job.training = training
    job.y_direct = not training and steps.order == NULL
    job.chunk_rows = rows_per_chunk(job.Z)
    job.h_n = &h_n[0, 0]
    job.c_n = &c_n[0, 0]
    rows = first_row(steps, steps.count)
    most_rows = min(rows, max(job.chunk_rows, B))

    threads = threads_for(<double>rows * job.Z * (job.I + job.H))
    job.split_units = prefer_units(B, threads, job.Z, job.H)
    if job.split_units:
        threads = threads_for_step(B, job.Z, job.H, threads)

    buffer = Buffer(
        padded(threads * B * job.I * sizeof(real))
        + (0 if training else padded(most_rows * job.Z * sizeof(real))
           + padded(3 * B * job.Hp * sizeof(real)) + padded(B * job.Hp * sizeof(real))))
    job.x_step = <real *>buffer.take(threads * B * job.I * sizeof(real))
    if training:
        tape.nbytes = (rows * job.Z + 2 * (B + rows) * job.Hp) * sizeof(real)
        tape.buffer = kept = Buffer(
            padded(rows * job.Z * sizeof(real)) + 2 * padded((B + rows) * job.Hp * sizeof(real)))
        tape.gates = job.gates = <real *>kept.take(rows * job.Z * sizeof(real))
        tape.h = job.h = <real *>kept.take((B + rows) * job.Hp * sizeof(real))
        tape.c = job.c = <real *>kept.take((B + rows) * job.Hp * sizeof(real))
    else:
        job.gates = <real *>buffer.take(most_rows * job.Z * sizeof(real))
        job.h = <real *>buffer.take(3 * B * job.Hp * sizeof(real))
        job.c = <real *>buffer.take(B * job.Hp * sizeof(real))

    load_state(job.h, job.Hp, h_0, steps)
    load_state(job.c, job.Hp, c_0, steps)
    for j in range(alive(steps, 0), B):
        b = batch_row(steps, j)
        memcpy(job.h_n + b * job.H, job.h + j * job.Hp, job.H * sizeof(real))
        memcpy(job.c_n + b * job.H, job.c + j * job.Hp, job.H * sizeof(real))
    with nogil:
        run_team(forward_thread, &job, threads)
    return tape
