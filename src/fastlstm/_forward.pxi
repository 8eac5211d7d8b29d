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
    bint fused                  # a step multiplies x_t itself; else x @ W_ih.T is made by the chunk
    ptrdiff_t chunk_rows
    real *x_step                # (threads, B, I): rows of one step, where they are not evenly apart
    real *scratch               # (threads, tile_rows, PANEL)
    real *chunk                 # (chunk rows, Z): x @ W_ih.T + b, unless fused or training
    real *gates                 # training (all rows, Z), else NULL
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


cdef const real *share_of_x(
    const Forward *job, const Share *share, ptrdiff_t s, int thread, ptrdiff_t *stride,
) noexcept nogil:
    """The rows of x_t at step s that belong to the share, `stride` apart."""
    cdef const Steps *steps = &job.steps
    cdef real *x_step = job.x_step + thread * steps.B * job.I
    cdef ptrdiff_t i, j
    if steps.order == NULL:
        stride[0] = job.x.stride_b * share.row_step
        return row(&job.x, steps, s, share.first_row)
    for i in range(rows_of_share(share, alive(steps, s))):
        j = share.first_row + i * share.row_step
        memcpy(x_step + i * job.I, row(&job.x, steps, s, j), job.I * sizeof(real))
    stride[0] = job.I
    return x_step


cdef void project(
    const Forward *job, const Share *share, ptrdiff_t begin, ptrdiff_t end, real *z, int thread,
) noexcept nogil:
    """z = x @ W_ih.T + b of a share of the steps begin..end."""
    cdef const kernel_table *k = job.kernels
    cdef const Steps *steps = &job.steps
    cdef ptrdiff_t offset = share.first_panel * 4 * k.lanes
    cdef ptrdiff_t vectors = 4 * (share.last_panel - share.first_panel)
    cdef const real *w = job.w_ih + offset * job.I
    cdef ptrdiff_t z_stride = share.row_step * job.Z
    cdef ptrdiff_t s, x_stride
    cdef const real *x
    z += share.first_row * job.Z + offset
    if is_flat(&job.x, steps) and steps.B % share.row_step == 0:
        k.product(
            z, z_stride, job.b + offset, 0, row(&job.x, steps, begin, share.first_row),
            flat_stride(&job.x, steps) * share.row_step, w,
            (end - begin) * (steps.B // share.row_step), vectors, job.I)
        return
    for s in range(begin, end):
        x = share_of_x(job, share, s, thread, &x_stride)
        k.product(
            z, z_stride, job.b + offset, 0, x, x_stride, w,
            rows_of_share(share, alive(steps, s)), vectors, job.I)
        z += alive(steps, s) * job.Z


cdef void forward_step_of_share(
    const Forward *job, const Share *share, ptrdiff_t s, const real *z, int thread,
) noexcept nogil:
    """Step s, with z = x_t @ W_ih.T + b unless fused."""
    cdef const Steps *steps = &job.steps
    cdef ptrdiff_t first = share.first_row, step = share.row_step, stride
    cdef forward_step todo
    todo.rows = rows_of_share(share, alive(steps, s))
    todo.H = job.H
    todo.first = share.first_panel
    todo.last = share.last_panel
    todo.descending = s & 1
    if job.fused:
        todo.I = job.I
        todo.init = job.b
        todo.init_stride = 0
        todo.x = share_of_x(job, share, s, thread, &todo.x_stride)
    else:
        todo.I = 0
        todo.init = z + first * job.Z
        todo.init_stride = step * job.Z
        todo.x = todo.init
        todo.x_stride = 0
    todo.w_ih = job.w_ih
    todo.h_prev = hidden(job, s - 1, &stride) + first * stride
    todo.h_prev_stride = step * stride
    todo.w_hh = job.w_hh
    todo.h = hidden(job, s, &stride) + first * stride
    todo.h_stride = step * stride
    todo.c = cell_state(job, s) + first * job.Hp
    todo.c_prev = cell_state(job, s - 1) + first * job.Hp
    todo.c_stride = step * job.Hp
    todo.gates = NULL
    if job.training:
        todo.gates = job.gates + (first_row(steps, s) + first) * job.Z
    todo.gates_stride = step * job.Z
    todo.z = job.scratch + thread * job.kernels.tile_rows * 4 * job.kernels.lanes
    job.kernels.lstm_forward_step(&todo)


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
    cdef real *z = NULL
    while begin < steps.count:
        end = chunk_end(steps, begin, job.chunk_rows)
        before = first_row(steps, begin)
        if not job.fused:
            z = job.gates + before * job.Z if job.training else job.chunk
            project(job, &share, begin, end, z, thread)
        for s in range(begin, end):
            forward_step_of_share(
                job, &share, s, z + (first_row(steps, s) - before) * job.Z, thread)
            if job.split_units:
                barrier(threads)
            hand_out(job, s, thread, threads)
        if not (job.training or job.fused) and (
                steps.order != NULL or steps.B % share.row_step):
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


cdef bint prefer_fused(ptrdiff_t rows, ptrdiff_t I, ptrdiff_t H, ptrdiff_t Z) noexcept:
    """Whether a step should multiply x_t itself: there is next to nothing to multiply, or enough
    rows to make up for reading W_ih at each step, and a cache for both weights.
    """
    return I <= 4 or (rows >= 6 and (I + H) * Z * sizeof(real) <= (1 << 20))


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
    cdef size_t x_step, scratch, chunk, state
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

    job.fused = prefer_fused(B if job.split_units else B // threads, job.I, job.H, job.Z)

    x_step = padded(threads * B * job.I * sizeof(real))
    scratch = padded(threads * job.kernels.tile_rows * 4 * job.kernels.lanes * sizeof(real))
    chunk = 0 if training or job.fused else padded(most_rows * job.Z * sizeof(real))
    state = 0 if training else padded(B * job.Hp * sizeof(real))
    buffer = Buffer(x_step + scratch + chunk + 4 * state)
    job.x_step = <real *>buffer.take(x_step)
    job.scratch = <real *>buffer.take(scratch)
    job.chunk = <real *>buffer.take(chunk)
    if training:
        tape.nbytes = (rows * job.Z + 2 * (B + rows) * job.Hp) * sizeof(real)
        tape.buffer = kept = Buffer(
            padded(rows * job.Z * sizeof(real)) + 2 * padded((B + rows) * job.Hp * sizeof(real)))
        tape.gates = job.gates = <real *>kept.take(rows * job.Z * sizeof(real))
        tape.h = job.h = <real *>kept.take((B + rows) * job.Hp * sizeof(real))
        tape.c = job.c = <real *>kept.take((B + rows) * job.Hp * sizeof(real))
    else:
        job.gates = NULL
        job.h = <real *>buffer.take(3 * state)
        job.c = <real *>buffer.take(state)

    load_state(job.h, job.Hp, h_0, steps)
    load_state(job.c, job.Hp, c_0, steps)
    for j in range(alive(steps, 0), B):
        b = batch_row(steps, j)
        memcpy(job.h_n + b * job.H, job.h + j * job.Hp, job.H * sizeof(real))
        memcpy(job.c_n + b * job.H, job.c + j * job.Hp, job.H * sizeof(real))
    with nogil:
        run_team(forward_thread, &job, threads)
    return tape
