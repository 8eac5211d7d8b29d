# Forward through time: the steps of a share, and the memory they need.


cdef struct Forward:
    const kernel_table *kernels
    int kind
    Steps steps
    Sizes size
    const real *w_ih
    const real *w_hh
    const real *b
    const cell_options *options
    extra_parts parts
    SequenceView x, y
    bint training
    bint y_direct               # steps write h_t into y and read h_{t-1} from there
    bint split_units            # threads take hidden units, not rows
    bint fused                  # a step multiplies x_t itself; else x @ W_ih.T is made by the chunk
    ptrdiff_t chunk_rows
    ptrdiff_t begin             # the steps begin..end are run now
    ptrdiff_t end
    const real *zeros           # (max(Hp, Rp),)
    real *x_step                # (threads, B, I): rows of one step, where they are not evenly apart
    real *scratch               # (threads, tile_rows, PANEL)
    char *rounded               # (threads, rounded_size)
    size_t rounded_size
    real *chunk                 # (chunk rows, Z): x @ W_ih.T + b, unless fused or training
    real *gates                 # training (all rows, Z), else (B, Z), or NULL for LSTM and GRU
    real *extra                 # training (all rows, parts.size), else (B, parts.size)
    real *u                     # (B, Rp): h_{t-1} under dropout
    real *h                     # h_0 (B, Rp), then training (all rows, Rp), else (2, B, Rp)
    real *c                     # c_0 (B, Hp), then training (all rows, Hp), else nothing
    real *h_n
    real *c_n                   # or NULL
    const real *zoneout_h       # see Masks
    ptrdiff_t zoneout_h_stride
    const real *zoneout_c
    ptrdiff_t zoneout_c_stride
    const real *dropout


cdef inline real *hidden(const Forward *job, ptrdiff_t s, ptrdiff_t *stride) noexcept nogil:
    """h of step s; s = -1 is h_0."""
    stride[0] = job.size.Rp
    if s < 0:
        return job.h
    if job.y_direct:
        stride[0] = job.y.stride_b
        return job.y.data + s * job.y.stride_t
    if job.training:
        return job.h + (job.steps.B + first_row(&job.steps, s)) * job.size.Rp
    return job.h + (1 + (s & 1)) * job.steps.B * job.size.Rp


cdef inline real *cell_state(const Forward *job, ptrdiff_t s) noexcept nogil:
    """c of step s; s = -1 is c_0."""
    if s < 0 or not job.training:
        return job.c
    return offset(job.c, (job.steps.B + first_row(&job.steps, s)) * job.size.Hp)


cdef const real *share_of_x(
    const Forward *job, const Share *share, ptrdiff_t s, int thread, ptrdiff_t *stride,
) noexcept nogil:
    """The rows of x_t at step s that belong to the share, `stride` apart."""
    cdef const Steps *steps = &job.steps
    cdef ptrdiff_t I = job.size.I, i, j
    cdef real *x_step
    if steps.order == NULL:
        stride[0] = job.x.stride_b * share.row_step
        return row_of(&job.x, steps, s, share.first_row)
    x_step = job.x_step + thread * steps.B * I
    for i in range(rows_of_share(share, alive(steps, s))):
        j = share.first_row + i * share.row_step
        memcpy(x_step + i * I, row_of(&job.x, steps, s, j), I * sizeof(real))
    stride[0] = I
    return x_step


cdef void prepare_share(
    forward_step *todo, const Forward *job, const Share *share, int thread,
) noexcept nogil:
    """Set what all steps of a share have in common, for prepare_step to do the rest."""
    cdef const Sizes *n = &job.size
    cdef ptrdiff_t step = share.row_step
    memset(todo, 0, sizeof(forward_step))
    todo.I = n.I if job.fused else 0
    todo.H = n.H
    todo.R = n.R
    todo.first = share.first_panel
    todo.last = share.last_panel
    todo.init = job.b
    todo.w_ih = job.w_ih
    todo.w_hh = job.w_hh
    todo.c_stride = step * n.Hp
    todo.gates_stride = step * n.Z
    todo.extra_stride = step * job.parts.size
    todo.zoneout_c_stride = step * job.zoneout_c_stride
    todo.options = job.options
    todo.parts = job.parts
    todo.zeros = job.zeros
    todo.z = job.scratch + thread * job.kernels.tile_rows * 4 * job.kernels.lanes
    todo.rounded = job.rounded + thread * job.rounded_size


cdef void multiply_input(
    const Forward *job, const Share *share, ptrdiff_t begin, ptrdiff_t end, real *z, int thread,
) noexcept nogil:
    """z = x @ W_ih.T + b of a share of the steps begin..end."""
    cdef const Steps *steps = &job.steps
    cdef ptrdiff_t s
    cdef forward_step todo
    prepare_share(&todo, job, share, thread)
    todo.I = job.size.I
    todo.gates = z + share.first_row * job.size.Z
    if is_flat(&job.x, steps) and steps.B % share.row_step == 0:
        todo.rows = (end - begin) * (steps.B // share.row_step)
        todo.x = row_of(&job.x, steps, begin, share.first_row)
        todo.x_stride = flat_stride(&job.x, steps) * share.row_step
        job.kernels.input_product[job.kind](&todo)
        return
    for s in range(begin, end):
        todo.rows = rows_of_share(share, alive(steps, s))
        todo.x = share_of_x(job, share, s, thread, &todo.x_stride)
        job.kernels.input_product[job.kind](&todo)
        todo.gates += alive(steps, s) * job.size.Z


cdef void prepare_step(
    forward_step *todo, const Forward *job, const Share *share, ptrdiff_t s, const real *z,
    int thread,
) noexcept nogil:
    """Point to what step s reads and writes, with z = x_t @ W_ih.T + b unless fused."""
    cdef const Steps *steps = &job.steps
    cdef ptrdiff_t Z = job.size.Z, Hp = job.size.Hp, Rp = job.size.Rp
    cdef ptrdiff_t first = share.first_row, step = share.row_step, stride
    cdef ptrdiff_t before = first_row(steps, s) if job.training else 0
    todo.rows = rows_of_share(share, alive(steps, s))
    todo.descending = s & 1
    if job.fused:
        todo.x = share_of_x(job, share, s, thread, &todo.x_stride)
    else:
        todo.init = z + first * Z
        todo.init_stride = step * Z
        todo.x = todo.init
    todo.h_prev = hidden(job, s - 1, &stride) + first * stride
    todo.h_prev_stride = step * stride
    todo.h = hidden(job, s, &stride) + first * stride
    todo.h_stride = step * stride
    todo.u = todo.h_prev
    todo.u_stride = todo.h_prev_stride
    if job.dropout != NULL:
        todo.u = job.u + first * Rp
        todo.u_stride = step * Rp
    todo.c = offset(cell_state(job, s), first * Hp)
    todo.c_prev = offset(cell_state(job, s - 1), first * Hp)
    if job.gates != NULL:
        todo.gates = job.gates + (before + first) * Z
    if job.kind != LSTM and job.kind != GRU:
        todo.extra = job.extra + (before + first) * job.parts.size
    if job.zoneout_c != NULL:
        todo.zoneout_c = job.zoneout_c + (first_row(steps, s) + first) * job.zoneout_c_stride


cdef void run_step(
    const forward_step *todo, const Forward *job, const Share *share, ptrdiff_t s,
) noexcept nogil:
    """Step s, that `todo` was aimed at."""
    cdef const kernel_table *k = job.kernels
    cdef ptrdiff_t first = share.first_row, step = share.row_step, i, j
    if job.dropout != NULL:
        for i in range(todo.rows):
            k.multiply(<real *>todo.u + i * todo.u_stride, todo.h_prev + i * todo.h_prev_stride,
                       job.dropout + (first + i * step) * job.size.Rp, job.size.R)
    k.forward_step[job.kind](todo)
    if job.zoneout_h != NULL:
        for i in range(todo.rows):
            j = first_row(&job.steps, s) + first + i * step
            k.zoneout(todo.h + i * todo.h_stride, todo.h_prev + i * todo.h_prev_stride,
                      job.zoneout_h + j * job.zoneout_h_stride, job.size.R)


cdef void store_outputs(const Forward *job, ptrdiff_t s, int thread, int threads) noexcept nogil:
    """Copy what step s made to y, and the state of rows that end here to h_n and c_n."""
    cdef const Steps *steps = &job.steps
    cdef ptrdiff_t n = alive(steps, s), stays = alive(steps, s + 1)
    cdef ptrdiff_t H = job.size.H, R = job.size.R, stride, i, j, b
    cdef const real *h = hidden(job, s, &stride)
    cdef const real *c = cell_state(job, s)
    if job.y_direct and stays == n:
        return
    for i in range((n - thread + threads - 1) // threads):
        j = thread + i * threads
        if not job.y_direct:
            memcpy(row_of(&job.y, steps, s, j), h + j * stride, R * sizeof(real))
        if j >= stays:
            b = batch_row(steps, j)
            memcpy(job.h_n + b * R, h + j * stride, R * sizeof(real))
            if job.c_n != NULL:
                memcpy(job.c_n + b * H, c + j * job.size.Hp, H * sizeof(real))


cdef void forward_thread(void *argument, int thread, int threads) noexcept nogil:
    cdef const Forward *job = <const Forward *>argument
    cdef const Steps *steps = &job.steps
    cdef Share share = share_of(job.size.P, job.split_units, thread, threads)
    cdef forward_step todo
    cdef ptrdiff_t Z = job.size.Z, s, before, begin = job.begin, end
    cdef real *z = NULL
    prepare_share(&todo, job, &share, thread)
    while begin < job.end:
        end = min(chunk_end(steps, begin, job.chunk_rows), job.end)
        before = first_row(steps, begin)
        if not job.fused:
            z = job.gates + before * Z if job.training else job.chunk
            multiply_input(job, &share, begin, end, z, thread)
        for s in range(begin, end):
            prepare_step(
                &todo, job, &share, s, z + (first_row(steps, s) - before) * Z, thread)
            run_step(&todo, job, &share, s)
            if job.split_units:
                barrier(threads)
            store_outputs(job, s, thread, threads)
        if not (job.training or job.fused) and (
                steps.order != NULL or steps.B % share.row_step):
            # the next chunk's rows take the place of other threads' rows of this one
            barrier(threads)
        begin = end


cdef ptrdiff_t rows_per_chunk(ptrdiff_t Z) noexcept nogil:
    return max(<ptrdiff_t>1, <ptrdiff_t>(CHUNK_BYTES // (Z * sizeof(real))))


cdef bint prefer_fused(ptrdiff_t rows, const Sizes *n, const kernel_table *k) noexcept nogil:
    """Whether a step should multiply x_t itself: there is next to nothing to multiply, or enough
    rows to make up for reading W_ih at each step, and a cache for both weights.
    """
    cdef size_t weight_bytes = (k.weight_rows(n.I) + k.weight_rows(n.R)) * n.Z * sizeof(real)
    return n.I <= 4 or (rows >= 6 and weight_bytes <= (1 << 20))


cdef void begin_forward(
    Forward *job, const PackedWeights *weights, const Steps *steps, bint training,
) noexcept nogil:
    """Set what follows from weights and steps alone."""
    memset(job, 0, sizeof(Forward))
    job.kernels = weights.kernels
    job.kind = weights.kind
    job.steps = steps[0]
    job.size = weights.size
    job.w_ih = weights.w_ih
    job.w_hh = weights.w_hh
    job.b = weights.b
    job.options = &weights.options
    job.parts = weights.parts
    job.training = training
    job.chunk_rows = rows_per_chunk(job.size.Z)


cdef void set_masks(Forward *job, Masks masks) noexcept:
    job.zoneout_h = masks.zoneout_h
    job.zoneout_h_stride = masks.zoneout_h_stride
    job.zoneout_c = masks.zoneout_c
    job.zoneout_c_stride = masks.zoneout_c_stride
    job.dropout = masks.dropout
    if job.kind == LSTM:
        job.kind = LSTM_VARIANT


cdef void place_forward_workspace(Forward *job, int threads, Memory *memory) noexcept nogil:
    """Memory for all that does not stay: in training, the tape has the rest."""
    cdef const Sizes *n = &job.size
    cdef ptrdiff_t rows = first_row(&job.steps, job.steps.count), B = job.steps.B
    cdef bint wants_gates = job.kind != LSTM and job.kind != GRU
    rows = min(rows, max(job.chunk_rows, B))
    job.zeros = carve_zeros(memory, 1, max(n.Hp, n.Rp))
    job.x_step = carve(memory, threads * B, n.I if job.steps.order != NULL else 0)
    job.scratch = carve(memory, threads * job.kernels.tile_rows, 4 * job.kernels.lanes)
    job.rounded_size = (job.kernels.rounded_bytes(B if job.fused else rows, n.I)
                        + job.kernels.rounded_bytes(B, max(n.R, n.H)))
    job.rounded = carve_bytes(memory, size_times(threads, job.rounded_size))
    job.u = carve(memory, B, n.Rp if job.dropout != NULL else 0)
    if not job.training:
        job.chunk = carve(memory, rows, n.Z if not job.fused else 0)
        job.gates = carve(memory, B, n.Z) if wants_gates else NULL
        job.extra = carve(memory, B, job.parts.size if job.kind != LSTM else 0)
        # columns beyond R and H are read, and stay as they are
        job.h = carve_zeros(memory, 3 * B, n.Rp)
        job.c = carve_zeros(memory, B, n.Hp)


cdef Buffer new_forward_workspace(Forward *job, int threads):
    cdef Memory memory = Memory(NULL, 0)
    cdef Buffer buffer
    place_forward_workspace(job, threads, &memory)
    buffer = Buffer(memory.used)
    memory = memory_of(buffer)
    place_forward_workspace(job, threads, &memory)
    return buffer
