# The two calls: what Python hands over is checked, the work is divided, the loops are run. Between
# spans of some 20 ms signals are looked for, so that Ctrl-C works.


cdef int check_states(
    const PackedWeights *of, ptrdiff_t B, str h_name, const real[:, :] h,
    str c_name, const real[:, :] c,
) except -1:
    """Raise ValueError unless h is (B, R) and c (B, H), of a cell that has one."""
    check_matrix(h_name, h, B, of.size.R)
    check_matrix(c_name, c, B, of.size.H, has_c(of.kind))
    return 0


cdef int threads_of(
    double operations, ptrdiff_t B, const Sizes *n, bint only_rows, bint *split_units,
) noexcept:
    """How many threads so many multiply-adds get, and whether they share hidden units, not rows."""
    cdef int threads = threads_for(operations)
    split_units[0] = not only_rows and prefer_units(B, threads, n.Z, n.R)
    return threads_for_step(B, n.Z, n.R, threads) if split_units[0] else threads


cdef int divide_forward(Forward *job, bint has_masks) noexcept:
    """Decide how many threads run the job, what they share, and who multiplies x."""
    cdef const Sizes *n = &job.size
    cdef ptrdiff_t B = job.steps.B, rows = first_row(&job.steps, job.steps.count)
    cdef int threads = threads_of(
        <double>rows * n.Z * (n.I + n.R), B, n, has_masks or takes_whole_rows(job.kind),
        &job.split_units)
    threads = <int>min(<ptrdiff_t>threads, n.P if job.split_units else B)
    job.fused = job.options.norm != NULL or prefer_fused(
        B if job.split_units else B // threads, n, job.kernels)
    return threads


cdef ptrdiff_t steps_between_signals(ptrdiff_t B, double operations) noexcept:
    """How many steps of B rows, each of so many multiply-adds, take some 20 ms."""
    return max(<ptrdiff_t>1, <ptrdiff_t>(
        UNINTERRUPTED / (B * (operations + ROW_OVERHEAD) + STEP_OVERHEAD)))


cdef void start_states(Forward *job, const real[:, :] h_0, const real[:, :] c_0) noexcept:
    """Load the initial state, which is the final one of rows of no steps."""
    cdef const Steps *steps = &job.steps
    cdef const Sizes *n = &job.size
    cdef ptrdiff_t j, b
    load_state(job.h, n.Rp, h_0, steps)
    if job.c_n != NULL:
        load_state(job.c, n.Hp, c_0, steps)
    for j in range(alive(steps, 0), steps.B):
        b = batch_row(steps, j)
        memcpy(job.h_n + b * n.R, job.h + j * n.Rp, n.R * sizeof(real))
        if job.c_n != NULL:
            memcpy(job.c_n + b * n.H, job.c + j * n.Hp, n.H * sizeof(real))


def forward(
    Weights weights not None, const real[:, :, :] x not None, real[:, :, :] y not None, *,
    initial, final, masks=None, const ptrdiff_t[::1] lengths=None, bint reverse=False,
    bint training=False, bint concatenated=False,
):
    """Fill y and `final`, the pair h_n, c_n (None without a cell state); the tape, or None.

    y must be zero where it is ragged. `initial` is the pair h_0, c_0; `masks` are zoneout_h,
    zoneout_c and dropout_h, zoneouts being numbers or arrays (T, B, R) and (T, B, H). Where
    `concatenated`, x and y are (1, sum of lengths, I or R), step after step, lengths fall, and
    there are no masks.
    """
    cdef Schedule schedule = schedule_of(weights, x, lengths, reverse, concatenated)
    cdef const Steps *steps = &schedule.steps
    cdef const Sizes *n = &weights.packed.size
    cdef const real[:, :] h_0, c_0
    cdef real[:, ::1] h_n, c_n
    cdef bint with_c = has_c(weights.packed.kind)
    cdef Forward job
    cdef Buffer buffer
    cdef Masks own_masks = None
    cdef Tape tape = None
    cdef int threads
    cdef ptrdiff_t B = steps.B, span
    h_0, c_0 = initial
    h_n, c_n = final
    schedule.check("y", y, n.R)
    check_states(&weights.packed, B, "h_0", h_0, "c_0", c_0)
    check_states(&weights.packed, B, "h_n", h_n, "c_n", c_n)
    if h_n is None or (c_n is None) == with_c:
        raise ValueError("final: expected h_n, and c_n of cells that have one")
    begin_forward(&job, &weights.packed, steps, training)
    if masks is not None:
        if concatenated:
            raise ValueError("masks: expected None with concatenated=True")
        own_masks = Masks(schedule, weights, *masks)
        set_masks(&job, own_masks)
    if training:
        tape = new_tape(&job, weights, schedule, own_masks, x.base)
    if B == 0:
        return tape
    job.x = view_of(x, concatenated)
    job.y = view_of(y, concatenated)
    job.y_direct = not training and steps.order == NULL
    job.h_n = &h_n[0, 0]
    job.c_n = &c_n[0, 0] if with_c else NULL
    threads = divide_forward(&job, own_masks is not None)
    buffer = new_forward_workspace(&job, threads)
    start_states(&job, h_0, c_0)
    span = steps_between_signals(B, <double>n.Z * (n.I + n.R))
    while job.end < steps.count:
        job.begin = job.end
        job.end = min(steps.count, job.begin + span)
        with nogil:
            run_team(forward_thread, &job, threads)
        PyErr_CheckSignals()
    return tape


cdef int check_gradients(
    const PackedWeights *of, const real[:, :] w_ih, const real[:, :] w_hh, const real[::1] b,
    const real[:, :] peephole, const real[:, :] w_proj, const real[:, :] layer_norm,
) except -1:
    """Raise ValueError unless there is one of the right shape for each parameter, b perhaps."""
    cdef const Sizes *n = &of.size
    cdef const cell_options *has = &of.options
    cdef ptrdiff_t gates = n.N // n.H
    if w_ih is None or w_hh is None or (w_proj is None) != (has.w_proj == NULL):
        raise ValueError("gradients: expected those of w_ih, w_hh, and w_proj if there is one")
    check_matrix("w_ih", w_ih, n.N, n.I)
    check_matrix("w_hh", w_hh, n.N, n.R)
    check_matrix("w_proj", w_proj, n.R, n.H)
    check_matrix("peephole", peephole, gates - 1, n.H, has.peephole != NULL)
    check_matrix("layer_norm", layer_norm, 2 * gates + 2, n.H, has.norm != NULL)
    if b is not None and b.shape[0] != bias_size(of):
        raise ValueError(f"b: expected {(bias_size(of),)}, got {(b.shape[0],)}")
    return 0


cdef real *data_of(real[:, ::1] gradient) noexcept:
    if gradient is None:
        return NULL
    return &gradient[0, 0]


cdef SequenceView view_or_none(const real[:, :, :] a, ptrdiff_t F, bint concatenated) noexcept:
    if a is None:
        return SequenceView(NULL, 0, 0, F, False)
    return view_of(a, concatenated)


cdef void set_tape(Backward *job, Tape tape) noexcept:
    cdef Masks masks = tape.masks
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
        job.dropout_stride = job.size.Rp if masks.dropout != NULL else 0


cdef int divide_backward(Backward *job, bint has_masks, int groups) noexcept:
    """Decide how many threads run the job and what they share, and when to look for signals."""
    cdef const Sizes *n = &job.size
    cdef ptrdiff_t B = job.steps.B
    cdef double operations = <double>n.Z * (n.I + n.R) * 2
    cdef bint only_rows = groups > 1 or has_masks or takes_whole_rows(job.kind)
    cdef int threads = threads_of(
        first_row(&job.steps, job.steps.count) * operations, B, n, only_rows, &job.split_units)
    job.chunks = max(<ptrdiff_t>1,
                     steps_between_signals(B, operations) * B // max(job.chunk_rows, B))
    return threads


cdef Buffer new_backward_workspace(Groups *groups, int threads):
    cdef Memory memory = Memory(NULL, 0)
    cdef Buffer buffer
    cdef int g
    for g in range(groups.count):
        place_backward_workspace(&groups.jobs[g], 1 if groups.count > 1 else threads, &memory)
    buffer = Buffer(memory.used)
    memory = memory_of(buffer)
    for g in range(groups.count):
        place_backward_workspace(&groups.jobs[g], 1 if groups.count > 1 else threads, &memory)
    return buffer


def backward(
    Tape tape not None, *, const real[:, :, :] dy, dfinal, real[:, :, :] dx, dinitial,
    real[:, ::1] w_ih not None, real[:, ::1] w_hh not None, real[::1] b=None,
    real[:, ::1] peephole=None, real[:, ::1] w_proj=None, real[:, ::1] layer_norm=None,
):
    """Fill dx and `dinitial`, the pair dh_0, dc_0; add to the gradients of the parameters.

    `dfinal` is the pair dh_n, dc_n. What was not given to `forward`, or is not wanted, is None.
    dx must be zero where it is ragged; None, if nobody wants it, saves a product.
    """
    cdef const PackedWeights *weights = &tape.weights.packed
    cdef const Sizes *n = &weights.size
    cdef const Steps *steps = &tape.schedule.steps
    cdef bint concatenated = tape.schedule.concatenated
    cdef const real[:, :, :] x = tape.x
    cdef const real[:, :] dh_n, dc_n
    cdef real[:, ::1] dh_0, dc_0
    cdef SequenceView x_view, dy_view, dx_view
    cdef Backward jobs[MOST_GROUPS]
    cdef Backward *job = jobs
    cdef Groups groups
    cdef Buffer buffer
    cdef int threads, g, count
    dh_n, dc_n = dfinal
    dh_0, dc_0 = dinitial
    tape.schedule.check("x", x, n.I)
    tape.schedule.check("dy", dy, n.R)
    tape.schedule.check("dx", dx, n.I)
    check_states(weights, steps.B, "dh_n", dh_n, "dc_n", dc_n)
    check_states(weights, steps.B, "dh_0", dh_0, "dc_0", dc_0)
    check_gradients(weights, w_ih, w_hh, b, peephole, w_proj, layer_norm)
    if tape.weights.backward_buffer is None:
        raise ValueError("tape: expected weights that are packed for the backward step")
    if steps.B == 0:
        return
    groups.jobs = jobs
    groups.to = Gradients(
        data_of(w_ih), data_of(w_hh), NULL, data_of(peephole), data_of(w_proj),
        data_of(layer_norm))
    if b is not None:
        groups.to.b = &b[0]
    x_view = view_of(x, concatenated)
    dy_view = view_or_none(dy, n.R, concatenated)
    dx_view = view_or_none(dx, n.I, concatenated)
    begin_backward(job, weights, tape.kind, steps, &x_view, &dy_view, &dx_view, &groups.to)
    set_tape(job, tape)
    count = groups.count = count_groups(job)
    threads = divide_backward(job, tape.masks is not None, count)
    for g in range(count - 1, -1, -1):
        restrict_to_group(jobs, g, count)
    buffer = new_backward_workspace(&groups, threads)
    for g in range(count):
        job = &jobs[g]
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
        store_state(None if dh_0 is None else dh_0[g::count], job.dh, n.Rp, &job.steps)
        store_state(None if dc_0 is None else dc_0[g::count], job.dc, n.Hp, &job.steps)
