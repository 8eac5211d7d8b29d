# Forward through time: chunks of the rows of a share, and the memory they need.


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
    bint fused                  # a step multiplies x_t itself; else x @ W_ih.T is made by the chunk
    int line_count
    Line *lines
    size_t scratch_size         # of a task
    ptrdiff_t chunk_rows        # of a line
    ptrdiff_t chunk_steps
    const real *zeros           # (max(Hp, Rp),)
    real *gates                 # training (all rows, Z), else (B, Z), or NULL for LSTM and GRU
    real *extra                 # training (all rows, parts.size), else (B, parts.size)
    real *u                     # (B, Rp): h_{t-1} under dropout
    real *reset_h               # (B, Rp), with resets: h_{t-1} of one step
    real *reset_c               # (B, Hp), and c_{t-1}
    real *h                     # h_0 (B, Rp), then training (all rows, Rp), else (2, B, Rp)
    real *c                     # c_0 (B, Hp), then training (all rows, Hp), else nothing
    real *h_n
    real *c_n                   # or NULL
    const real *zoneout_h       # see Masks
    ptrdiff_t zoneout_h_stride
    const real *zoneout_c
    ptrdiff_t zoneout_c_stride
    const real *dropout


cdef struct Line:                # some rows of a call, step after step: a line of tasks, see team.h
    const Forward *job
    const Line *below           # the same rows of the layer that makes x, or NULL
    Share share
    ptrdiff_t count             # of steps
    ptrdiff_t begin             # those before it are done
    ptrdiff_t end               # of the next task
    real *z                     # (chunk rows, Z): x @ W_ih.T + b, unless fused or training
    real *x_step                # (rows, I): of one step, where they are not evenly apart
    char *scratch               # (pieces that run at once, scratch_size)


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
    const Forward *job, const Share *share, ptrdiff_t s, real *x_step, ptrdiff_t *stride,
) noexcept nogil:
    """The rows of x_t at step s that belong to the share, `stride` apart."""
    cdef const Steps *steps = &job.steps
    cdef ptrdiff_t I = job.size.I, i, j
    if steps.order == NULL:
        stride[0] = job.x.stride_b * share.row_step
        return row_of(&job.x, steps, s, share.first_row)
    for i in range(rows_of_share(share, alive(steps, s))):
        j = share.first_row + i * share.row_step
        memcpy(x_step + i * I, row_of(&job.x, steps, s, j), I * sizeof(real))
    stride[0] = I
    return x_step


cdef inline size_t tile_bytes(const Forward *job) noexcept nogil:
    return job.kernels.tile_rows * 4 * job.kernels.lanes * sizeof(real)


cdef inline void set_scratch(
    forward_step *todo, const Forward *job, char *scratch,
) noexcept nogil:
    """Let a step work in scratch_size bytes that nobody else uses meanwhile."""
    todo.z = <real *>scratch
    todo.rounded = scratch + tile_bytes(job)


cdef void prepare_share(
    forward_step *todo, const Forward *job, const Share *share, char *scratch,
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
    set_scratch(todo, job, scratch)


cdef inline ptrdiff_t rows_of_z(
    const Forward *job, const Share *share, ptrdiff_t s,
) noexcept nogil:
    """How many rows of z step s has: in training z is the tape's, and has all."""
    cdef ptrdiff_t rows = alive(&job.steps, s)
    return rows if job.training else rows_of_share(share, rows)


cdef inline ptrdiff_t stride_of_z(const Forward *job, const Share *share) noexcept nogil:
    return job.size.Z * share.row_step if job.training else job.size.Z


cdef inline real *first_z(const Line *line, ptrdiff_t s) noexcept nogil:
    """z of the chunk that begins at step s."""
    cdef const Forward *job = line.job
    if not job.training:
        return line.z
    return job.gates + (first_row(&job.steps, s) + line.share.first_row) * job.size.Z


cdef void multiply_input(
    const Line *line, const Share *share, ptrdiff_t end, char *scratch,
) noexcept nogil:
    """z = x @ W_ih.T + b of a share of the steps from the line's `begin` to `end`."""
    cdef const Forward *job = line.job
    cdef const Steps *steps = &job.steps
    cdef ptrdiff_t s, i, rows = rows_of_share(share, steps.B)
    cdef forward_step todo
    prepare_share(&todo, job, share, scratch)
    todo.I = job.size.I
    todo.gates = first_z(line, line.begin)
    todo.gates_stride = stride_of_z(job, share)
    if is_flat(&job.x, steps) and steps.B % share.row_step == 0:
        todo.rows = (end - line.begin) * (steps.B // share.row_step)
        todo.x = row_of(&job.x, steps, line.begin, share.first_row)
        todo.x_stride = flat_stride(&job.x, steps) * share.row_step
        job.kernels.input_product[job.kind](&todo)
        return
    if steps.order == NULL and end - line.begin > rows:  # row by row: longer products
        todo.rows = end - line.begin
        todo.x_stride = job.x.stride_t
        todo.gates_stride = rows_of_z(job, share, line.begin) * job.size.Z
        for i in range(rows):
            todo.x = row_of(&job.x, steps, line.begin, share.first_row + i * share.row_step)
            job.kernels.input_product[job.kind](&todo)
            todo.gates += stride_of_z(job, share)
        return
    for s in range(line.begin, end):
        todo.rows = rows_of_share(share, alive(steps, s))
        todo.x = share_of_x(job, share, s, line.x_step, &todo.x_stride)
        job.kernels.input_product[job.kind](&todo)
        todo.gates += rows_of_z(job, share, s) * job.size.Z


cdef void prepare_step(
    forward_step *todo, const Forward *job, const Share *share, ptrdiff_t s, const real *z,
    real *x_step,
) noexcept nogil:
    """Point to what step s reads and writes, with z = x_t @ W_ih.T + b unless fused."""
    cdef const Steps *steps = &job.steps
    cdef ptrdiff_t Z = job.size.Z, Hp = job.size.Hp, Rp = job.size.Rp
    cdef ptrdiff_t first = share.first_row, step = share.row_step, stride
    cdef ptrdiff_t before = first_row(steps, s) if job.training else 0
    todo.rows = rows_of_share(share, alive(steps, s))
    todo.descending = s & 1
    if job.fused:
        todo.x = share_of_x(job, share, s, x_step, &todo.x_stride)
    else:
        todo.init = z
        todo.init_stride = stride_of_z(job, share)
        todo.x = z
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
    if steps.resets != NULL:
        reset_states(todo, job, share, s)
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


cdef void store_outputs(const Forward *job, const Share *share, ptrdiff_t s) noexcept nogil:
    """Copy what step s made to y, and the state of rows that end here to h_n and c_n."""
    cdef const Steps *steps = &job.steps
    cdef ptrdiff_t n = alive(steps, s), stays = alive(steps, s + 1)
    cdef ptrdiff_t H = job.size.H, R = job.size.R, stride, i, j, b
    cdef const real *h = hidden(job, s, &stride)
    cdef const real *c = cell_state(job, s)
    if job.y_direct and stays == n:
        return
    for i in range(rows_of_share(share, n)):
        j = share.first_row + i * share.row_step
        if not job.y_direct:
            memcpy(row_of(&job.y, steps, s, j), h + j * stride, R * sizeof(real))
        if j >= stays:
            b = batch_row(steps, j)
            memcpy(job.h_n + b * R, h + j * stride, R * sizeof(real))
            if job.c_n != NULL:
                memcpy(job.c_n + b * H, c + j * job.size.Hp, H * sizeof(real))


cdef ptrdiff_t chunk_end(const Line *line, ptrdiff_t begin) noexcept nogil:
    """The step behind the chunk that begins at step `begin`: one step, or more of few rows."""
    cdef const Forward *job = line.job
    cdef ptrdiff_t end = begin + 1
    cdef ptrdiff_t rows = rows_of_share(&line.share, alive(&job.steps, begin))
    while end < line.count and end - begin < job.chunk_steps:
        rows += rows_of_share(&line.share, alive(&job.steps, end))
        if rows > job.chunk_rows:
            break
        end += 1
    return end


cdef int line_ready(void *lines, int i) noexcept nogil:
    """`ready` of team.h: whether the layer below has made the next chunk of x."""
    cdef const Line *line = (<Line **>lines)[i]
    if line.begin >= line.count:
        return -1
    return line.below == NULL or team_load(&line.below.begin) >= line.end


cdef void run_chunk(void *lines, int i) noexcept nogil:
    """`run` of team.h: the next chunk of a line."""
    cdef Line *line = (<Line **>lines)[i]
    cdef const Forward *job = line.job
    cdef const Share *share = &line.share
    cdef ptrdiff_t s, end = line.end
    cdef forward_step todo
    cdef const real *z = NULL
    prepare_share(&todo, job, share, line.scratch)
    if not job.fused:
        z = first_z(line, line.begin)
        multiply_input(line, share, end, line.scratch)
    for s in range(line.begin, end):
        prepare_step(&todo, job, share, s, z, line.x_step)
        run_step(&todo, job, share, s)
        store_outputs(job, share, s)
        if not job.fused:
            z += rows_of_z(job, share, s) * job.size.Z
    job.kernels.end_task()
    if end < line.count:
        line.end = chunk_end(line, end)
    team_store(&line.begin, end)


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
    if job.kernels.rounded_bytes(1, 1):  # who multiplies faster waits longer for weights
        job.chunk_rows = max(job.chunk_rows, <ptrdiff_t>LEAST_ROWS)
    job.chunk_steps = PTRDIFF_MAX


cdef void set_masks(Forward *job, Masks masks) noexcept:
    job.zoneout_h = masks.zoneout_h
    job.zoneout_h_stride = masks.zoneout_h_stride
    job.zoneout_c = masks.zoneout_c
    job.zoneout_c_stride = masks.zoneout_c_stride
    job.dropout = masks.dropout
    if job.kind == LSTM:
        job.kind = LSTM_VARIANT


cdef size_t forward_scratch_size(
    const Forward *job, ptrdiff_t rows, ptrdiff_t chunk_rows,
) noexcept nogil:
    """What a task with `rows` rows of a step, and so many of a chunk, works in."""
    cdef const Sizes *n = &job.size
    cdef const kernel_table *k = job.kernels
    return size_padded(
        tile_bytes(job) + k.rounded_bytes(rows if job.fused else chunk_rows, n.I)
        + k.rounded_bytes(rows, max(n.R, n.H)))


cdef void place_forward_workspace(
    Forward *job, int lines, int pieces, Memory *memory,
) noexcept nogil:
    """Memory for all that does not stay, and the lines, of whose tasks so many pieces run at once;
    in training, the tape has the rest.
    """
    cdef const Sizes *n = &job.size
    cdef ptrdiff_t rows, chunk_rows, B = job.steps.B
    cdef ptrdiff_t all_rows = first_row(&job.steps, job.steps.count)
    cdef bint wants_gates = job.kind != LSTM and job.kind != GRU
    cdef Line line
    cdef int i
    job.line_count = lines
    job.lines = <Line *>carve_bytes(memory, lines * sizeof(Line))
    job.zeros = carve_zeros(memory, 1, max(n.Hp, n.Rp))
    job.u = carve(memory, B, n.Rp if job.dropout != NULL else 0)
    # columns beyond R and H are read
    job.reset_h = carve_zeros(memory, B, n.Rp if job.steps.resets != NULL else 0)
    job.reset_c = carve_zeros(memory, B, n.Hp if job.steps.resets != NULL else 0)
    if not job.training:
        job.gates = carve(memory, B, n.Z) if wants_gates else NULL
        job.extra = carve(memory, B, job.parts.size if job.kind != LSTM else 0)
        # columns beyond R and H are read, and stay as they are
        job.h = carve_zeros(memory, 3 * B, n.Rp)
        job.c = carve_zeros(memory, B, n.Hp)
    for i in range(lines):
        line.job = job
        line.below = NULL
        line.share = Share(i, lines, 0, n.P)
        line.begin = 0
        rows = rows_of_share(&line.share, B)
        line.x_step = carve(memory, rows, n.I if job.steps.order != NULL else 0)
        chunk_rows = min(all_rows, max(job.chunk_rows, rows))
        if i == 0:  # which has the most rows
            job.scratch_size = forward_scratch_size(job, rows, chunk_rows)
        line.scratch = carve_bytes(memory, size_times(pieces, job.scratch_size))
        line.z = carve(memory, chunk_rows, 0 if job.fused or job.training else n.Z)
        if job.lines != NULL:
            line.count = steps_of_share(&line.share, &job.steps) if B else 0
            line.end = chunk_end(&line, 0) if line.count else 0
            job.lines[i] = line


cdef Buffer new_forward_workspace(Forward *job, int lines, int pieces):
    cdef Memory memory = Memory(NULL, 0)
    cdef Buffer buffer
    place_forward_workspace(job, lines, pieces, &memory)
    buffer = Buffer(memory.used)
    memory = memory_of(buffer)
    place_forward_workspace(job, lines, pieces, &memory)
    return buffer
