# Backward calls, as forward_call.pxi has the forward ones.


cdef enum:
    MOST_CALLS = 3                # at once: more would have too many lines


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


cdef class BackwardCall:
    """A backward call of one layer and direction, to be run by `run_backward`."""

    cdef Backward[MOST_GROUPS] jobs
    cdef Groups groups
    cdef Buffer buffer
    cdef Tape tape
    cdef object gradients
    cdef const real[:, :, :] x, dy
    cdef real[:, :, :] dx
    cdef const real[:, :] dh_n, dc_n
    cdef real[:, ::1] dh_0, dc_0

    def __init__(
        self, Tape tape not None, *, const real[:, :, :] dy, dfinal, real[:, :, :] dx, dinitial,
        real[:, ::1] w_ih not None, real[:, ::1] w_hh not None, real[::1] b=None,
        real[:, ::1] peephole=None, real[:, ::1] w_proj=None, real[:, ::1] layer_norm=None,
    ):
        """Fill dx and `dinitial`, the pair dh_0, dc_0, and add to the gradients of the parameters.

        `dfinal` is the pair dh_n, dc_n. What was not given to `forward`, or is not wanted, is None.
        dx must be zero where it is ragged; None, if nobody wants it, saves a product.
        """
        cdef const PackedWeights *weights = &tape.weights.packed
        cdef const Sizes *n = &weights.size
        cdef Schedule schedule = tape.schedule
        cdef SequenceView x_view, dy_view, dx_view
        cdef Gradients *to = &self.groups.to
        self.tape = tape
        self.gradients = w_ih, w_hh, b, peephole, w_proj, layer_norm
        self.x = tape.x
        self.dy = dy
        self.dx = dx
        self.dh_n, self.dc_n = dfinal
        self.dh_0, self.dc_0 = dinitial
        schedule.check("x", self.x, n.I)
        schedule.check("dy", dy, n.R)
        schedule.check("dx", dx, n.I)
        check_states(weights, schedule.steps.B, "dh_n", self.dh_n, "dc_n", self.dc_n)
        check_states(weights, schedule.steps.B, "dh_0", self.dh_0, "dc_0", self.dc_0)
        check_gradients(weights, w_ih, w_hh, b, peephole, w_proj, layer_norm)
        if tape.weights.backward_buffer is None:
            raise ValueError("tape: expected weights that are packed for the backward step")
        to[0] = Gradients(
            data_of(w_ih), data_of(w_hh), NULL, data_of(peephole), data_of(w_proj),
            data_of(layer_norm))
        if b is not None:
            to.b = &b[0]
        x_view = view_of(self.x, schedule.concatenated)
        dy_view = view_or_none(dy, n.R, schedule.concatenated)
        dx_view = view_or_none(dx, n.I, schedule.concatenated)
        begin_backward(
            self.jobs, weights, tape.kind, &schedule.steps, &x_view, &dy_view, &dx_view, to)
        set_tape(self.jobs, tape)
        self.groups.jobs = self.jobs
        self.groups.count = count_groups(self.jobs)

    cdef void start(self, int parts, int ring, int pieces):
        """Place the lines and what they work in, `parts` of rows and panels each; or what a gang
        does, so many pieces at once.
        """
        cdef Memory memory = Memory(NULL, 0)
        cdef const Sizes *n = &self.jobs.size
        cdef Backward *job
        cdef int g, count = self.groups.count
        for g in range(count - 1, -1, -1):
            restrict_to_group(self.jobs, g, count)
        self.groups.parts = parts
        self.groups.pieces = pieces
        place_lines(&self.groups, ring, &memory)
        self.buffer = Buffer(memory.used)
        memory = memory_of(self.buffer)
        place_lines(&self.groups, ring, &memory)
        for g in range(count):
            job = &self.jobs[g]
            load_state(job.dh, n.Rp, None if self.dh_n is None else self.dh_n[g::count],
                       &job.steps)
            load_state(job.dc, n.Hp, None if self.dc_n is None else self.dc_n[g::count],
                       &job.steps)

    cdef void finish(self):
        """Hand out the gradient of the initial state."""
        cdef const Sizes *n = &self.jobs.size
        cdef Backward *job
        cdef int g, count = self.groups.count
        for g in range(count):
            job = &self.jobs[g]
            store_state(
                None if self.dh_0 is None else self.dh_0[g::count], job.dh, n.Rp, &job.steps)
            store_state(
                None if self.dc_0 is None else self.dc_0[g::count], job.dc, n.Hp, &job.steps)


cdef int parts_of_group(const Backward *job, int groups, int threads) noexcept:
    """Into how many parts the work of a group is cut: the lines of one keep two threads busy."""
    return <int>max(<ptrdiff_t>1, min(<ptrdiff_t>threads // (2 * groups), job.steps.B // 6, 8))


cdef int gang_for(BackwardCall call, int threads) noexcept:
    """How many threads share the hidden units of a step; 1 where lines do better."""
    cdef const Backward *job = call.jobs
    cdef ptrdiff_t B = job.steps.B
    if (threads == 1 or call.groups.count > 1 or call.tape.masks is not None
            or takes_whole_rows(job.kind) or not prefer_units(B, threads, &job.size, job.kernels)):
        return 1
    return threads_for_step(B, &job.size, threads)


cdef int run_few_backward(list calls, bint chained) except -1:
    """Run at most MOST_CALLS calls."""
    cdef const BackwardLine *lines[TEAM_MOST_LINES]
    cdef team_lines work = team_lines(&lines[0], 0, 1, backward_ready, run_backward_task)
    cdef BackwardCall call, above = None
    cdef Backward *job
    cdef BackwardGang gang
    cdef double operations = 0
    cdef int threads, i, together = 1, groups = 0
    for call in calls:
        job = call.jobs
        groups += call.groups.count
        operations += (<double>first_row(&job.steps, job.steps.count)
                       * job.size.Z * (job.size.I + job.size.R) * 2)
    if chained or len(calls) == 1:  # threads read the dz that others made: not worth it for little
        operations /= 16
    threads = threads_for(operations)
    if len(calls) == 1:
        together = gang_for(call, threads)
    if together > 1:
        start_backward_gang(&gang, &call.groups, together)
    for call in calls:
        if call.jobs.steps.B == 0:
            continue
        if together > 1:
            call.start(1, 1, gang.pieces)
        elif threads == 1:
            call.start(1, 1, 0)
        else:
            call.start(parts_of_group(call.jobs, groups, threads), RING, 0)
        if chained and above is not None:
            call.groups.above = &above.groups
        for i in range(call.groups.line_count):
            lines[work.lines] = &call.groups.lines[i]
            work.lines += 1
        work.block = call.groups.group_lines
        above = call
    while not is_done(&work):
        with nogil:
            if together > 1 and gang.end:
                gang.until = now() + UNINTERRUPTED
                run_backward_together(&gang, together)
            else:
                run_lines(&work, threads, now() + UNINTERRUPTED)
        PyErr_CheckSignals()
    for call in calls:
        if call.jobs.steps.B:
            call.finish()
    return 0


def run_backward(list calls, bint chained=False):
    """Run calls of one batch at once. If chained, each makes the dy of the next."""
    cdef int i
    for i in range(0, len(calls), MOST_CALLS):
        run_few_backward(calls[i : i + MOST_CALLS], chained)
