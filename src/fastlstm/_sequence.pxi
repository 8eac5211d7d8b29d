# THE TIME LOOPS AND BPTT of one element type.
#
# Decisions:
# a) A sequence is a series of steps; at step s the first alive(s) rows take part. Ragged rows are
#    sorted by falling length, so that they are always the first ones and cost follows sum(lengths).
# b) Time is cut into chunks that fit into the cache. Per chunk the input product is one large
#    product; backward, dz of a chunk is spent on dx, dW_ih and dW_hh while it is warm.
# c) Threads run the same function on their share: every n-th row, through all steps without
#    waiting; or, where there are few rows, some hidden units of all rows, with a barrier per step.
#    Only the weight gradients, which sum over all rows, need a barrier per chunk.
# d) A row's bits depend on nothing but the row, see csrc/tile.h.
# e) Arguments have been checked: shapes fit, the last dimension of x, y, dy, dx is contiguous.

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stddef cimport ptrdiff_t
from libc.string cimport memcpy, memset

from fastlstm._blas cimport gemm
from fastlstm._runtime cimport Buffer, barrier, kernels_of, padded, run_team, threads_for

cdef extern from "kernels.h":
    ctypedef unsigned long long real_bits
    ctypedef struct kernel_table:
        int lanes
        void (*pack_gates)(
            real *panels, const real *w, ptrdiff_t row_stride, ptrdiff_t column_stride,
            ptrdiff_t H, ptrdiff_t K) noexcept nogil
        void (*pack_columns)(
            real *panels, const real *w, ptrdiff_t row_stride, ptrdiff_t column_stride,
            ptrdiff_t K, ptrdiff_t N) noexcept nogil
        void (*product)(
            real *z, ptrdiff_t z_stride, const real *init, ptrdiff_t init_stride,
            const real *a, ptrdiff_t a_stride, const real *w,
            ptrdiff_t rows, ptrdiff_t vectors, ptrdiff_t K) noexcept nogil
        void (*outer_product)(
            real *z, ptrdiff_t z_stride, const real *init, ptrdiff_t init_stride,
            const real *a, ptrdiff_t a_stride, const real *d, ptrdiff_t d_stride,
            ptrdiff_t M, ptrdiff_t panels, ptrdiff_t rows) noexcept nogil
        void (*add_transposed)(
            real *w, const real *z, ptrdiff_t z_stride,
            ptrdiff_t M, ptrdiff_t first, ptrdiff_t last) noexcept nogil
        int prefer_blas
        void (*lstm_forward_step)(
            real *h, ptrdiff_t h_stride, real *c, const real *c_prev, ptrdiff_t c_stride,
            real *z, ptrdiff_t z_stride, const real *h_prev, ptrdiff_t h_prev_stride,
            const real *w_hh,
            ptrdiff_t rows, ptrdiff_t H, ptrdiff_t first, ptrdiff_t last,
            bint descending) noexcept nogil
        void (*lstm_backward_cells)(
            real *dz, ptrdiff_t dz_stride, real *dc, ptrdiff_t dc_stride,
            const real *dh, ptrdiff_t dh_stride, const real *dy, ptrdiff_t dy_stride,
            const real *gates, ptrdiff_t gates_stride,
            const real *c, const real *c_prev, ptrdiff_t c_stride,
            ptrdiff_t rows, ptrdiff_t H, ptrdiff_t first, ptrdiff_t last) noexcept nogil
        void (*add_rows)(
            real *sums, const real *a, ptrdiff_t a_stride, ptrdiff_t rows, ptrdiff_t N,
        ) noexcept nogil
        void (*fingerprint)(real_bits *out, const real *x, ptrdiff_t n) noexcept nogil
        int fingerprint_reals
        void (*fma_peak)(real *out, ptrdiff_t repeats) noexcept nogil
        int fma_peak_operations
        void (*read_all)(real *out, const real *x, ptrdiff_t n) noexcept nogil
        void (*sigmoid)(real *y, const real *x, ptrdiff_t n) noexcept nogil
        void (*tanh)(real *y, const real *x, ptrdiff_t n) noexcept nogil

cdef enum:
    CHUNK_BYTES = 256 << 10  # of gates; a part of any L2
    MOST_LANES = 16
    STEP_WEIGHT = 5          # a barrier per step costs a fifth of waking a thread


cdef const kernel_table *kernels() noexcept:
    return <const kernel_table *>kernels_of(sizeof(real) == sizeof(double))


def fingerprint(const real[::1] params):
    """Bytes that are equal for equal parameters, and otherwise different (see fingerprint.h)."""
    cdef real_bits out[8 * MOST_LANES]
    kernels().fingerprint(out, &params[0], params.shape[0])
    return PyBytes_FromStringAndSize(<char *>out, kernels().fingerprint_reals * sizeof(real_bits))


# ---------------------------------------------------------------------------------------------
# Steps and rows


cdef struct Steps:
    ptrdiff_t count             # of steps: the longest row
    ptrdiff_t B
    bint reverse                # ragged rows only; others come with a negative stride
    const ptrdiff_t *order      # (B,) rows by falling length; NULL: not ragged
    const ptrdiff_t *lengths    # (B,) in that order
    const ptrdiff_t *first      # (count + 1,) rows before step s


cdef inline ptrdiff_t first_row(const Steps *steps, ptrdiff_t s) noexcept nogil:
    return s * steps.B if steps.order == NULL else steps.first[s]


cdef inline ptrdiff_t alive(const Steps *steps, ptrdiff_t s) noexcept nogil:
    if s >= steps.count:
        return 0
    return first_row(steps, s + 1) - first_row(steps, s)


cdef inline ptrdiff_t batch_row(const Steps *steps, ptrdiff_t j) noexcept nogil:
    return j if steps.order == NULL else steps.order[j]


cdef ptrdiff_t chunk_end(const Steps *steps, ptrdiff_t s, ptrdiff_t most_rows) noexcept nogil:
    """The step behind the chunk that begins at step s: one step, or more of most_rows together."""
    cdef ptrdiff_t end = s + 1
    while end < steps.count and first_row(steps, end + 1) - first_row(steps, s) <= most_rows:
        end += 1
    return end


cdef ptrdiff_t chunk_begin(const Steps *steps, ptrdiff_t end, ptrdiff_t most_rows) noexcept nogil:
    cdef ptrdiff_t s = end - 1
    while s > 0 and first_row(steps, end) - first_row(steps, s - 1) <= most_rows:
        s -= 1
    return s


cdef class Schedule:
    """The steps of T time steps and B rows, from their lengths where they differ."""

    cdef Steps steps
    cdef Buffer buffer

    def __cinit__(self, ptrdiff_t T, ptrdiff_t B, const ptrdiff_t[::1] lengths, bint reverse):
        cdef ptrdiff_t *order
        cdef ptrdiff_t *sorted_lengths
        cdef ptrdiff_t *first
        cdef ptrdiff_t b, s, longest = 0, place = 0
        self.steps = Steps(T, B, reverse, NULL, NULL, NULL)
        if lengths is None:
            return
        self.buffer = Buffer(
            2 * padded(B * sizeof(ptrdiff_t)) + padded((T + 2) * sizeof(ptrdiff_t)))
        order = <ptrdiff_t *>self.buffer.take(B * sizeof(ptrdiff_t))
        sorted_lengths = <ptrdiff_t *>self.buffer.take(B * sizeof(ptrdiff_t))
        first = <ptrdiff_t *>self.buffer.take((T + 2) * sizeof(ptrdiff_t))
        # counting sort, stable: first[n] becomes the number of rows longer than n, ...
        memset(first, 0, (T + 2) * sizeof(ptrdiff_t))
        for b in range(B):
            first[lengths[b]] += 1
            longest = max(longest, lengths[b])
        for s in range(longest, -1, -1):
            place += first[s]
            first[s] = place - first[s]
        for b in range(B):
            order[first[lengths[b]]] = b
            sorted_lengths[first[lengths[b]]] = lengths[b]
            first[lengths[b]] += 1
        # ... then the number of rows before step s
        place = B
        first[0] = 0
        for s in range(longest):
            while place and sorted_lengths[place - 1] <= s:
                place -= 1
            first[s + 1] = first[s] + place
        self.steps.count = longest
        self.steps.order = order
        self.steps.lengths = sorted_lengths
        self.steps.first = first


cdef struct Share:               # what a thread does of each step
    ptrdiff_t first_row         # this row and every `row_step`-th after it
    ptrdiff_t row_step
    ptrdiff_t first_panel       # hidden units of panels first_panel <= p < last_panel
    ptrdiff_t last_panel


cdef Share share_of(ptrdiff_t P, bint split_units, int thread, int threads) noexcept nogil:
    if split_units:
        return Share(0, 1, P * thread // threads, P * (thread + 1) // threads)
    return Share(thread, threads, 0, P)


cdef inline ptrdiff_t rows_of_share(const Share *share, ptrdiff_t n) noexcept nogil:
    """How many of n rows belong to the share."""
    return (n - share.first_row + share.row_step - 1) // share.row_step


cdef struct Rows:                # a (T, B, F) array as the steps see it
    real *data
    ptrdiff_t stride_t
    ptrdiff_t stride_b
    ptrdiff_t F


cdef Rows rows_of(const real[:, :, :] a) noexcept:
    cdef Rows rows
    rows.data = <real *>&a[0, 0, 0]
    rows.stride_t = a.strides[0] // <ptrdiff_t>sizeof(real)
    rows.stride_b = a.strides[1] // <ptrdiff_t>sizeof(real)
    rows.F = a.shape[2]
    return rows


cdef inline bint is_flat(const Rows *a, const Steps *steps) noexcept nogil:
    """Whether the rows of all steps follow each other at one distance, see flat_stride."""
    return steps.order == NULL and (steps.B == 1 or a.stride_t == steps.B * a.stride_b)


cdef inline ptrdiff_t flat_stride(const Rows *a, const Steps *steps) noexcept nogil:
    return a.stride_t if steps.B == 1 else a.stride_b


cdef inline real *row(const Rows *a, const Steps *steps, ptrdiff_t s, ptrdiff_t j) noexcept nogil:
    """Row j of step s."""
    cdef ptrdiff_t t = s
    if steps.order != NULL:
        if steps.reverse:
            t = steps.lengths[j] - 1 - s
        j = steps.order[j]
    return a.data + t * a.stride_t + j * a.stride_b


cdef void copy_rows(
    real *packed, ptrdiff_t stride, const Rows *a, const Steps *steps, ptrdiff_t s,
    ptrdiff_t begin, ptrdiff_t end, bint scatter,
) noexcept nogil:
    """Rows begin..end, counted from step s on, from their places to packed rows, or back."""
    cdef ptrdiff_t r, j, before = first_row(steps, s)
    for r in range(begin, end):
        while first_row(steps, s + 1) - before <= r:
            s += 1
        j = r - (first_row(steps, s) - before)
        if scatter:
            memcpy(row(a, steps, s, j), packed + r * stride, a.F * sizeof(real))
        else:
            memcpy(packed + r * stride, row(a, steps, s, j), a.F * sizeof(real))


cdef void load_state(
    real *out, ptrdiff_t stride, const real[:, :] state, const Steps *steps,
) noexcept:
    """out (B, stride), in the order of the steps, padded with 0, from state (B, H) or None."""
    cdef ptrdiff_t j, unit, b
    memset(out, 0, steps.B * stride * sizeof(real))
    if state is not None:
        for j in range(steps.B):
            b = batch_row(steps, j)
            for unit in range(state.shape[1]):
                out[j * stride + unit] = state[b, unit]


# ---------------------------------------------------------------------------------------------
# Weights


cdef class LSTMWeights:
    """Packed weights of one layer and direction. They keep no reference to the arrays given."""

    cdef const kernel_table *kernels
    cdef readonly ptrdiff_t I
    cdef readonly ptrdiff_t H
    cdef ptrdiff_t P, Hp, Ip    # see kernels.h
    cdef Buffer forward
    cdef Buffer backward
    cdef real *w_ih             # pack_gates
    cdef real *w_hh             # pack_gates
    cdef real *b                # (P, 4, LANES)
    cdef real *w_ih_columns     # pack_columns
    cdef real *w_hh_columns     # pack_columns

    def __cinit__(self, const real[:, :] w_ih, const real[:, :] w_hh, const real[:] b):
        cdef ptrdiff_t I = w_ih.shape[1], H = w_hh.shape[1], Z
        self.kernels = kernels()
        self.I = I
        self.H = H
        self.P = (H + self.kernels.lanes - 1) // self.kernels.lanes
        self.Hp = self.P * self.kernels.lanes
        self.Ip = (I + self.kernels.lanes - 1) // self.kernels.lanes * self.kernels.lanes
        Z = 4 * self.Hp
        self.forward = Buffer(
            padded(Z * I * sizeof(real)) + padded(Z * H * sizeof(real)) + padded(Z * sizeof(real)))
        self.w_ih = <real *>self.forward.take(Z * I * sizeof(real))
        self.w_hh = <real *>self.forward.take(Z * H * sizeof(real))
        self.b = <real *>self.forward.take(Z * sizeof(real))
        if I:
            self.kernels.pack_gates(
                self.w_ih, &w_ih[0, 0], w_ih.strides[0] // <ptrdiff_t>sizeof(real),
                w_ih.strides[1] // <ptrdiff_t>sizeof(real), H, I)
        self.kernels.pack_gates(
            self.w_hh, &w_hh[0, 0], w_hh.strides[0] // <ptrdiff_t>sizeof(real),
            w_hh.strides[1] // <ptrdiff_t>sizeof(real), H, H)
        if b is None:
            memset(self.b, 0, Z * sizeof(real))
        else:
            self.kernels.pack_gates(
                self.b, &b[0], b.strides[0] // <ptrdiff_t>sizeof(real), 0, H, 1)

    def prepare_backward(self, const real[:, :] w_ih, const real[:, :] w_hh):
        """Pack the same weights for lstm_backward too."""
        cdef ptrdiff_t K = 4 * self.H, itemsize = sizeof(real)
        if self.backward is not None:
            return
        cdef Buffer buffer = Buffer(
            padded(K * self.Ip * sizeof(real)) + padded(K * self.Hp * sizeof(real)))
        self.w_ih_columns = <real *>buffer.take(K * self.Ip * sizeof(real))
        self.w_hh_columns = <real *>buffer.take(K * self.Hp * sizeof(real))
        self.kernels.pack_columns(
            self.w_ih_columns, &w_ih[0, 0],
            w_ih.strides[0] // itemsize, w_ih.strides[1] // itemsize, K, self.I)
        self.kernels.pack_columns(
            self.w_hh_columns, &w_hh[0, 0],
            w_hh.strides[0] // itemsize, w_hh.strides[1] // itemsize, K, self.H)
        self.backward = buffer


# ---------------------------------------------------------------------------------------------
# Forward


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


cdef bint prefer_units(ptrdiff_t B, int threads, size_t weight_bytes) noexcept:
    """Whether threads share hidden units, not rows: too few rows, or weights that want two L2."""
    return B < threads or (weight_bytes > (1 << 20) and B < 6 * threads)


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
    job.split_units = prefer_units(B, threads, job.Z * job.H * sizeof(real))
    if job.split_units:
        threads = min(threads, threads_for(STEP_WEIGHT * <double>B * job.Z * job.H))

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


# ---------------------------------------------------------------------------------------------
# Backward


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
