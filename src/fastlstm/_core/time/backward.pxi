# Backward through time.
#
# The rows of a batch are independent but for the weight gradients. Where these are small, every
# n-th row forms a group with its own sums, and groups share nothing: a thread that summed over
# all rows would wait for what others have just written. How many groups there are depends on the
# shape alone, so that gradients do not depend on the number of threads.


cdef enum:
    MOST_GROUPS = 8
    MOST_PIECES = 3
    LEAST_ROWS = 128              # in a chunk: each reads and writes the weight gradients


cdef enum Source:                # of what was multiplied with weights
    FROM_X
    FROM_H
    FROM_EXTRA


cdef struct Piece:               # of the weight gradients: dW (N, M) += dz.T @ a
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
    Rows x, dy, dx
    bint x_flat, dx_direct, gather_dy
    bint split_units
    ptrdiff_t chunk_rows
    ptrdiff_t chunks            # to go through in one run
    ptrdiff_t end               # the steps before this one are still to do
    const real *gates
    const real *extra
    const real *h
    const real *c
    const real *zoneout_h       # see Masks
    const real *zoneout_c
    const real *dropout
    real *x_chunk               # (chunk rows, I)
    real *dx_chunk              # (chunk rows, Ip)
    real *dy_chunk              # (chunk rows, R); NULL: dy is read where it is
    real *h_chunk               # (chunk rows, R)
    real *dz                    # (chunk rows, D)
    real *dh                    # (B, Rp): dL/dh_t from the future
    real *dc                    # (B, Hp)
    real *kept                  # (B, Rp): what zoneout hands to h_{t-1}
    real *through               # (B, Rp): what comes through W_hh, under dropout
    real *scratch               # (B, Hp)
    const real *zeros           # as long as the widest row
    Piece pieces[MOST_PIECES]
    int piece_count
    real *db                    # of the group, as the two below
    ptrdiff_t db_size
    real *dpeephole
    ptrdiff_t dpeephole_size
    real *dnorm
    ptrdiff_t dnorm_size


cdef struct Groups:
    Backward *jobs
    int count
    Gradients to


cdef inline const real *tape_h(const Backward *job, ptrdiff_t s) noexcept nogil:
    """h of step s, -1 being the initial state."""
    if s < 0:
        return job.h
    return job.h + (job.steps.B + first_row(&job.steps, s)) * job.h_stride


cdef inline const real *tape_c(const Backward *job, ptrdiff_t s) noexcept nogil:
    if s < 0:
        return job.c
    return job.c + (job.steps.B + first_row(&job.steps, s)) * job.c_stride


cdef void backward_step_of_share(
    const Backward *job, const Share *share, ptrdiff_t s, ptrdiff_t at,
    const real *dy, ptrdiff_t dy_stride, int thread, int threads,
) noexcept nogil:
    """Step s, whose first row is row `at` of the chunk."""
    cdef const kernel_table *k = job.kernels
    cdef const Steps *steps = &job.steps
    cdef ptrdiff_t R = job.size.R, Rp = job.size.Rp, Hp = job.size.Hp, D = job.D
    cdef ptrdiff_t r = share.first_row, step = share.row_step, before = first_row(steps, s) + r
    cdef ptrdiff_t own = rows_of_share(share, alive(steps, s)), first = 0, last, panels, i
    cdef real *dh = job.dh + r * Rp
    cdef real *dz = job.dz + (at + r) * D
    cdef real *through = dh
    cdef const real *init = job.zeros if job.kind == LSTM else dh
    cdef ptrdiff_t init_stride = 0 if job.kind == LSTM else step * Rp
    cdef backward_step todo
    memset(&todo, 0, sizeof(todo))
    todo.rows = own
    todo.H = job.size.H
    todo.R = R
    todo.first = share.first_panel
    todo.last = share.last_panel
    todo.dz = dz
    todo.dz_stride = step * D
    todo.gradients = job.gradients
    todo.dc = job.dc + r * Hp
    todo.dc_stride = step * Hp
    todo.dh = dh
    todo.dh_stride = step * Rp
    todo.dy = dy + r * dy_stride
    todo.dy_stride = step * dy_stride
    todo.gates = job.gates + before * job.gates_stride
    todo.gates_stride = step * job.gates_stride
    todo.c = tape_c(job, s) + r * job.c_stride
    todo.c_prev = tape_c(job, s - 1) + r * job.c_stride
    todo.c_stride = step * job.c_stride
    todo.h_prev = tape_h(job, s - 1) + r * job.h_stride
    todo.h_prev_stride = step * job.h_stride
    todo.u = todo.h_prev
    todo.u_stride = todo.h_prev_stride
    todo.extra = job.extra + before * job.extra_stride
    todo.extra_stride = step * job.extra_stride
    todo.parts = job.parts
    todo.options = job.options
    todo.scratch = job.scratch + r * Hp
    todo.scratch_stride = step * Hp
    todo.zeros = job.zeros
    if job.zoneout_c != NULL:
        todo.zoneout_c = job.zoneout_c + before * job.zoneout_c_stride
        todo.zoneout_c_stride = step * job.zoneout_c_stride
    if job.zoneout_h != NULL:
        for i in range(own):
            k.zoneout_backward(
                dh + i * step * Rp, job.kept + (r + i * step) * Rp, todo.dy + i * todo.dy_stride,
                job.zoneout_h + (before + i * step) * job.zoneout_h_stride, R)
        todo.dy = job.zeros
        todo.dy_stride = 0
    if job.dropout != NULL:
        todo.u = job.h_chunk + (at + r) * R
        todo.u_stride = step * R
        todo.dropout = job.dropout + r * job.dropout_stride
        todo.dropout_stride = step * job.dropout_stride
        through = job.through + r * Rp
        init = job.zeros
        init_stride = 0
    k.backward_cells[job.kind](&todo)
    last = Rp // k.lanes
    if job.split_units:
        barrier(threads)
        panels = (last + 3) // 4  # of 4 vectors of columns, the last one maybe narrower
        first = panels * thread // threads * 4
        last = min(last, panels * (thread + 1) // threads * 4)
    k.product(
        through + first * k.lanes, step * Rp, init + first * k.lanes, init_stride,
        dz + job.gradients.h, step * D, job.w_hh_columns + first * k.lanes * job.size.N_h,
        own, last - first, job.size.N_h)
    if job.dropout != NULL:
        for i in range(own):
            k.accumulate(
                dh + i * step * Rp, through + i * step * Rp,
                todo.dropout + i * todo.dropout_stride, R)
    if job.zoneout_h != NULL:
        for i in range(own):
            k.accumulate(dh + i * step * Rp, job.kept + (r + i * step) * Rp, NULL, R)
    if job.split_units:
        barrier(threads)


cdef bint hidden_is_flat(const Backward *job, ptrdiff_t begin, ptrdiff_t end) noexcept nogil:
    """Whether what W_hh multiplied in the steps begin..end is in the tape row after row: not if
    rows end there, or under dropout.
    """
    cdef ptrdiff_t before = alive(&job.steps, begin - 1) if begin else job.steps.B
    return before == alive(&job.steps, end - 1) and job.dropout == NULL


cdef void collect(
    const Backward *job, ptrdiff_t begin, ptrdiff_t end, ptrdiff_t lo, ptrdiff_t hi,
) noexcept nogil:
    """Copy what a chunk cannot read where it is: rows lo..hi of x, dy and h_{t-1}."""
    cdef const Steps *steps = &job.steps
    cdef ptrdiff_t R = job.size.R, s = begin, r, j, before = first_row(steps, begin)
    if not job.x_flat:
        copy_rows(job.x_chunk, job.size.I, &job.x, steps, begin, lo, hi, False)
    if job.dy_chunk != NULL:
        copy_rows(job.dy_chunk, R, &job.dy, steps, begin, lo, hi, False)
    if not hidden_is_flat(job, begin, end):
        for r in range(lo, hi):
            while first_row(steps, s + 1) - before <= r:
                s += 1
            j = r - (first_row(steps, s) - before)
            memcpy(job.h_chunk + r * R, tape_h(job, s - 1) + j * job.h_stride, R * sizeof(real))
            if job.dropout != NULL:
                job.kernels.multiply(
                    job.h_chunk + r * R, job.h_chunk + r * R,
                    job.dropout + j * job.dropout_stride, R)


cdef void input_gradient(
    const Backward *job, ptrdiff_t begin, ptrdiff_t lo, ptrdiff_t hi,
) noexcept nogil:
    """dx = dz @ W_ih for the rows lo..hi of the chunk that begins at step `begin`."""
    cdef const Steps *steps = &job.steps
    cdef real *dx = job.dx_chunk
    cdef ptrdiff_t Ip = job.size.Ip, stride = Ip
    if job.dx_direct:
        dx = row(&job.dx, steps, begin, 0)
        stride = flat_stride(&job.dx, steps)
    job.kernels.product(
        dx + lo * stride, stride, job.zeros, 0, job.dz + lo * job.D, job.D, job.w_ih_columns,
        hi - lo, Ip // job.kernels.lanes, job.size.N)
    if not job.dx_direct:
        copy_rows(job.dx_chunk, Ip, &job.dx, steps, begin, lo, hi, True)


cdef const real *multiplied(
    const Backward *job, const Piece *piece, ptrdiff_t begin, ptrdiff_t end, ptrdiff_t *stride,
) noexcept nogil:
    """a (rows, M) of a piece for the steps begin..end."""
    if piece.source == FROM_X:
        stride[0] = job.size.I
        if not job.x_flat:
            return job.x_chunk
        stride[0] = flat_stride(&job.x, &job.steps)
        return row(&job.x, &job.steps, begin, 0)
    if piece.source == FROM_H:
        stride[0] = job.size.R
        if not hidden_is_flat(job, begin, end):
            return job.h_chunk
        stride[0] = job.h_stride
        return tape_h(job, begin - 1)
    stride[0] = job.extra_stride
    return job.extra + first_row(&job.steps, begin) * job.extra_stride + job.parts.m


cdef void weight_gradients(
    const Backward *job, ptrdiff_t begin, ptrdiff_t end, int thread, int threads,
) noexcept nogil:
    """Add what the steps begin..end contribute, to all parameters."""
    cdef const kernel_table *k = job.kernels
    cdef const Steps *steps = &job.steps
    cdef ptrdiff_t rows = first_row(steps, end) - first_row(steps, begin), s, j
    cdef ptrdiff_t H = job.size.H, N = job.size.N, a_stride, first, panels
    cdef bint is_first_chunk = end == steps.count
    cdef const Piece *piece
    cdef const real *a
    cdef const real *dz = job.dz
    cdef int i
    if thread == threads - 1:
        k.add_rows(job.db, dz + job.gradients.b, job.D, rows, N)
        if job.kind == GRU:  # the bias within the reset
            k.add_rows(job.db + N, dz + job.gradients.h + 2 * H, job.D, rows, H)
        if job.kind == LSTM_VARIANT:
            for s in range(begin, end):
                for j in range(alive(steps, s)):
                    k.option_gradients(
                        job.dpeephole, job.dnorm, dz,
                        job.extra + (first_row(steps, s) + j) * job.extra_stride,
                        tape_c(job, s - 1) + j * job.c_stride, &job.parts, &job.gradients,
                        job.options, H)
                    dz += job.D
    for i in range(job.piece_count):
        piece = &job.pieces[i]
        a = multiplied(job, piece, begin, end, &a_stride)
        if k.prefer_blas:
            if thread == 0:
                gemm[real](True, False, piece.N, piece.M, rows, job.dz + piece.first, job.D,
                           a, a_stride, 1, piece.dw, piece.M)
            continue
        first = piece.panels * thread // threads
        panels = piece.panels * (thread + 1) // threads - first
        first *= 4 * k.lanes
        k.outer_product(
            piece.g + first, piece.G, job.zeros if is_first_chunk else piece.g + first,
            0 if is_first_chunk else piece.G, a, a_stride, job.dz + piece.first + first, job.D,
            piece.M, panels, rows)


cdef void backward_rows(Backward *job, int thread, int threads) noexcept nogil:
    """The next chunks of a group."""
    cdef const Steps *steps = &job.steps
    cdef Share share = share_of(job.size.P, job.split_units, thread, threads)
    cdef ptrdiff_t s, begin, at, rows, lo, hi, end = job.end, dy_stride = job.size.R, chunk
    cdef const real *dy
    for chunk in range(job.chunks):
        if end == 0:
            break
        begin = chunk_begin(steps, end, job.chunk_rows)
        rows = first_row(steps, end) - first_row(steps, begin)
        lo = rows * thread // threads
        hi = rows * (thread + 1) // threads
        collect(job, begin, end, lo, hi)
        barrier(threads)
        for s in range(end - 1, begin - 1, -1):
            at = first_row(steps, s) - first_row(steps, begin)
            if job.dy_chunk != NULL:
                dy = job.dy_chunk + at * job.size.R
            else:
                dy = job.dy.data + s * job.dy.stride_t
                dy_stride = job.dy.stride_b
            backward_step_of_share(job, &share, s, at, dy, dy_stride, thread, threads)
        barrier(threads)
        if job.dx.data != NULL:
            input_gradient(job, begin, lo, hi)
        weight_gradients(job, begin, end, thread, threads)
        barrier(threads)
        end = begin
    if thread == 0:
        job.end = end


cdef inline void add(real *sums, const real *part, ptrdiff_t n) noexcept nogil:
    cdef ptrdiff_t j
    if sums != NULL:
        for j in range(n):
            sums[j] += part[j]


cdef void backward_thread(void *argument, int thread, int threads) noexcept nogil:
    cdef Groups *groups = <Groups *>argument
    cdef Backward *job = groups.jobs
    cdef const Piece *piece
    cdef ptrdiff_t first, last, width
    cdef int i, j
    if groups.count == 1:
        backward_rows(job, thread, threads)
    else:
        i = thread
        while i < groups.count:
            backward_rows(&groups.jobs[i], 0, 1)
            i += threads
    barrier(threads)
    if groups.jobs[0].end > 0:
        return
    for i in range(groups.count):
        job = &groups.jobs[i]
        for j in range(job.piece_count):
            piece = &job.pieces[j]
            width = 4 * job.kernels.lanes
            first = piece.panels * thread // threads * width
            last = min(piece.panels * (thread + 1) // threads * width, piece.N)
            if not job.kernels.prefer_blas and job.steps.count:
                job.kernels.add_transposed(piece.dw, piece.g, piece.G, piece.M, first, last)
        if thread == 0:
            add(groups.to.b, job.db, job.db_size)
            add(groups.to.peephole, job.dpeephole, job.dpeephole_size)
            add(groups.to.layer_norm, job.dnorm, job.dnorm_size)


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


cdef Rows rows_of_group(Rows rows, int group, int count) noexcept nogil:
    if count > 1:  # never where rows are packed
        rows.data += group * rows.stride_b
        rows.stride_b *= count
    return rows


cdef void store_state(
    real[:, :] state, const real *values, ptrdiff_t stride, const Steps *steps,
) noexcept:
    cdef ptrdiff_t j, H
    if state is not None:
        H = state.shape[1]
        for j in range(steps.B):
            memcpy(&state[batch_row(steps, j), 0], values + j * stride, H * sizeof(real))


cdef void add_piece(
    Backward *job, Source source, ptrdiff_t M, ptrdiff_t first, ptrdiff_t N, real *dw,
) noexcept nogil:
    cdef ptrdiff_t lanes = job.kernels.lanes, panels = (N + 4 * lanes - 1) // (4 * lanes)
    job.pieces[job.piece_count] = Piece(
        source, M, first, N, panels, panels * 4 * lanes + lanes, NULL, dw)
    job.piece_count += 1


cdef void begin_backward(
    Backward *job, const Packed *weights, int kind, const Steps *steps, const Rows *x,
    const Rows *dy, const Rows *dx, const Gradients *to,
) noexcept nogil:
    """Set what all rows have in common; dy's data is NULL where there is none."""
    cdef const Sizes *n = &weights.size
    cdef ptrdiff_t lanes = weights.kernels.lanes
    memset(job, 0, sizeof(Backward))
    job.kernels = weights.kernels
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
    job.chunks = PTRDIFF_MAX
    job.end = steps.count
    job.db_size = n.N + (n.H if kind == GRU else 0)
    if to.peephole != NULL:
        job.dpeephole_size = (2 if weights.options.coupled else 3) * n.H
    if to.layer_norm != NULL:
        job.dnorm_size = 2 * n.N + 2 * n.H
    add_piece(job, FROM_X, n.I, 0, n.N, to.w_ih)
    add_piece(job, FROM_H, n.R, job.gradients.h, n.N_h, to.w_hh)
    if kind == GRU_RESET_BEFORE:
        add_piece(job, FROM_EXTRA, n.H, n.N_h, n.H, to.w_hh + n.N_h * n.R)
    if to.w_proj != NULL:
        add_piece(job, FROM_EXTRA, n.H, job.gradients.proj, n.R, to.w_proj)


cdef void take_group(Backward *jobs, int g, int count) noexcept nogil:
    """jobs[g] := every count-th row of jobs[0] from row g on; jobs[0] itself comes last."""
    cdef Backward *job = &jobs[g]
    job[0] = jobs[0]
    job.steps.B = job.steps.B // count
    job.x = rows_of_group(job.x, g, count)
    job.dx = rows_of_group(job.dx, g, count)
    job.dy = rows_of_group(job.dy, g, count)
    job.gates += g * job.gates_stride
    job.extra += g * job.extra_stride
    job.h += g * job.h_stride
    job.c += g * job.c_stride
    job.zoneout_h += g * job.zoneout_h_stride
    job.zoneout_c += g * job.zoneout_c_stride
    job.dropout += g * job.dropout_stride
    job.gates_stride *= count
    job.extra_stride *= count
    job.h_stride *= count
    job.c_stride *= count
    job.zoneout_h_stride *= count
    job.zoneout_c_stride *= count
    job.dropout_stride *= count


cdef void place_backward_workspace(Backward *job, Memory *memory) noexcept nogil:
    cdef const Sizes *n = &job.size
    cdef ptrdiff_t lanes = job.kernels.lanes, widest = max(n.Hp, n.Rp, n.Ip), B = job.steps.B
    cdef ptrdiff_t rows = first_row(&job.steps, job.steps.count)
    cdef Piece *piece
    cdef int i
    rows = min(rows, max(job.chunk_rows, B))
    for i in range(job.piece_count):
        piece = &job.pieces[i]
        piece.g = take(memory, piece.M * piece.G)
        widest = max(widest, piece.G)
    job.x_chunk = take(memory, rows * n.I)
    job.dx_chunk = take(memory, rows * n.Ip)
    job.h_chunk = take(memory, rows * n.R)
    job.dy_chunk = take(memory, rows * n.R) if job.gather_dy else NULL
    # dz has columns that are only ever padding: what is left in memory could be slow denormals;
    # and outer_product reads a panel beyond the last row
    job.dz = take_zeros(memory, rows * job.D + 4 * lanes)
    job.dh = take(memory, B * n.Rp)
    job.dc = take(memory, B * n.Hp)
    job.zeros = take_zeros(memory, widest)
    job.db = take_zeros(memory, job.db_size)
    job.dpeephole = take_zeros(memory, 3 * n.H if job.options.peephole != NULL else 0)
    job.dnorm = take_zeros(memory, 2 * n.N + 2 * n.H if job.options.norm != NULL else 0)
    job.kept = take_zeros(memory, B * n.Rp if job.zoneout_h != NULL else 0)
    job.through = take_zeros(memory, B * n.Rp if job.dropout != NULL else 0)
    job.scratch = take_zeros(memory, B * n.Hp if takes_whole_rows(job.kind) else 0)
    if job.dy.data == NULL:
        job.dy.data = <real *>job.zeros


cdef real *data_of(real[:, ::1] gradient) noexcept:
    if gradient is None:
        return NULL
    return &gradient[0, 0]


def backward(
    Tape tape, const real[:, :, :] dy, const real[:, :] dh_n, const real[:, :] dc_n,
    real[:, :, :] dx, real[:, ::1] dw_ih, real[:, ::1] dw_hh, real[::1] db,
    real[:, ::1] dh_0, real[:, ::1] dc_0, real[:, ::1] dpeephole=None, real[:, ::1] dw_proj=None,
    real[:, ::1] dlayer_norm=None,
):
    """Fill dx, dh_0 and dc_0, add to the rest; what was not given to `forward` is None.

    dx must be zero where it is ragged; None, if nobody wants it, saves a product.
    """
    cdef const Packed *weights = &tape.weights.packed
    cdef const Sizes *n = &weights.size
    cdef const real[:, :, :] x = tape.x
    cdef Masks masks = tape.masks
    cdef const Steps *steps = &tape.schedule.steps
    cdef Rows rows_x, rows_dy, rows_dx
    cdef Backward jobs[MOST_GROUPS]
    cdef Backward *job = jobs
    cdef Groups groups
    cdef Memory memory = Memory(NULL, 0)
    cdef Buffer buffer
    cdef ptrdiff_t B = tape.schedule.steps.B
    cdef int threads, g, count
    if B == 0:
        return
    groups.jobs = jobs
    groups.to = Gradients(
        data_of(dw_ih), data_of(dw_hh), NULL, data_of(dpeephole), data_of(dw_proj),
        data_of(dlayer_norm))
    if db is not None:
        groups.to.b = &db[0]
    rows_x = rows_of(x, tape.packed)
    rows_dx = Rows(NULL, 0, 0, n.I, False) if dx is None else rows_of(dx, tape.packed)
    rows_dy = Rows(NULL, 0, 0, n.R, False) if dy is None else rows_of(dy, tape.packed)
    begin_backward(job, weights, tape.kind, steps, &rows_x, &rows_dy, &rows_dx, &groups.to)
    job.gates = tape.gates
    job.extra = tape.extra
    job.h = tape.h
    job.c = tape.c
    if masks is not None:
        job.zoneout_h = masks.zoneout_h
        job.zoneout_h_stride = masks.zoneout_h_stride
        job.zoneout_c = masks.zoneout_c
        job.zoneout_c_stride = masks.zoneout_c_stride
        job.dropout = masks.dropout
        job.dropout_stride = n.Rp if masks.dropout != NULL else 0
    job.chunks = max(<ptrdiff_t>1, <ptrdiff_t>(
        UNINTERRUPTED / (2.0 * max(job.chunk_rows, B) * n.Z * (n.I + n.R))))
    threads = threads_for(<double>first_row(steps, steps.count) * n.Z * (n.I + n.R) * 2)
    count = count_groups(job)
    job.split_units = (
        count == 1 and masks is None and not takes_whole_rows(job.kind)
        and prefer_units(B, threads, n.Z, n.R))
    if job.split_units:
        threads = threads_for_step(B, n.Z, n.R, threads)
    groups.count = count
    for g in range(count - 1, -1, -1):
        take_group(jobs, g, count)
    for g in range(count):
        place_backward_workspace(&jobs[g], &memory)
    buffer = Buffer(memory.taken)
    memory = memory_of(buffer, memory.taken)
    for g in range(count):
        job = &jobs[g]
        place_backward_workspace(job, &memory)
        load_state(job.dh, n.Rp, None if dh_n is None else dh_n[g::count], &job.steps)
        load_state(job.dc, n.Hp, None if dc_n is None else dc_n[g::count], &job.steps)
    while True:
        with nogil:
            run_team(backward_thread, &groups, threads)
        PyErr_CheckSignals()
        if jobs[0].end == 0:
            break
    for g in range(count):
        job = &jobs[g]
        store_state(
            None if dh_0 is None else dh_0[g::count], job.dh, n.Rp, &job.steps)
        store_state(
            None if dc_0 is None else dc_0[g::count], job.dc, n.Hp, &job.steps)
