# Backward calls, as forward_call.pxi has the forward ones.


cdef enum:
    MOST_CALLS = 3                # at once: more would have too many lines


cdef real *gradient_of(
    str name, object gradient, ptrdiff_t rows, ptrdiff_t columns, bint wanted=True,
) except? NULL:
    """Where to add to the gradient (rows, columns); NULL for None, which nobody wants."""
    cdef StateView view = state_view(name, gradient, rows, columns, wanted, True)
    check_contiguous(name, gradient)
    return view.data


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


cdef StateView state_of_group(const StateView *state, int group, int count) noexcept nogil:
    """Every count-th row from row `group` on."""
    return StateView(
        offset(state.data, group * state.stride_b), state.stride_b * count, state.stride_f,
        state.F)


cdef class BackwardCall:
    """A backward call of one layer and direction, to be run by `run_backward`."""

    cdef Backward[MOST_GROUPS] jobs
    cdef Groups groups
    cdef Buffer buffer
    cdef Tape tape
    cdef object arrays          # whose memory the views are of
    cdef States dfinal, dinitial

    def __init__(
        self, Tape tape not None, *, dy, dfinal, dx, dinitial, w_ih not None, w_hh not None,
        b=None, peephole=None, w_proj=None, layer_norm=None,
    ):
        """Fill dx and `dinitial`, the pair dh_0, dc_0, and add to the gradients of the parameters.

        `dfinal` is the pair dh_n, dc_n. What was not given to `forward`, or is not wanted, is None.
        dx must be zero where it is ragged; None, if nobody wants it, saves a product.
        """
        cdef const PackedWeights *weights = &tape.weights.packed
        cdef const Sizes *n = &weights.size
        cdef const cell_options *has = &weights.options
        cdef Schedule schedule = tape.schedule
        cdef ptrdiff_t gates = n.N // n.H, B = schedule.steps.B
        cdef SequenceView dy_view = schedule.view("dy", dy, n.R)
        cdef SequenceView dx_view = schedule.view("dx", dx, n.I, True)
        cdef States dfinal_view = states_view(weights, B, "d{}_n", dfinal)
        cdef States dinitial_view = states_view(weights, B, "d{}_0", dinitial, True)
        cdef Gradients to = Gradients(
            gradient_of("w_ih", w_ih, n.N, n.I),
            gradient_of("w_hh", w_hh, n.N, n.R),
            gradient_of("b", None if b is None else b[np.newaxis], 1, bias_size(weights)),
            gradient_of("peephole", peephole, gates - 1, n.H, has.peephole != NULL),
            gradient_of("w_proj", w_proj, n.R, n.H, has.w_proj != NULL),
            gradient_of("layer_norm", layer_norm, 2 * gates + 2, n.H, has.norm != NULL))
        if (w_proj is None) != (has.w_proj == NULL):
            raise ValueError("gradients: expected that of w_proj if there is one")
        self.set(tape, &dy_view, &dfinal_view, &dx_view, &dinitial_view, &to,
                 (dy, dx, dfinal, dinitial, w_ih, w_hh, b, peephole, w_proj, layer_norm))

    cdef int set(
        self, Tape tape, const SequenceView *dy, const States *dfinal, const SequenceView *dx,
        const States *dinitial, const Gradients *to, object arrays,
    ) except -1:
        """See `__init__`."""
        if tape.weights.backward_buffer is None:
            raise ValueError("tape: expected weights that are packed for the backward step")
        self.tape = tape
        self.arrays = arrays
        self.dfinal = dfinal[0]
        self.dinitial = dinitial[0]
        self.groups.to = to[0]
        begin_backward(
            self.jobs, &tape.weights.packed, tape.kind, &tape.schedule.steps, &tape.view, dy, dx,
            to)
        set_tape(self.jobs, tape)
        self.groups.jobs = self.jobs
        self.groups.count = count_groups(self.jobs)
        return 0

    cdef void start(self, int parts, int ring, int pieces):
        """Place the lines and what they work in, `parts` of rows and panels each; or what a gang
        does, so many pieces at once.
        """
        cdef Memory memory = Memory(NULL, 0)
        cdef const Sizes *n = &self.jobs.size
        cdef Backward *job
        cdef StateView state
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
            state = state_of_group(&self.dfinal.h, g, count)
            load_state(job.dh, n.Rp, &state, &job.steps)
            state = state_of_group(&self.dfinal.c, g, count)
            load_state(job.dc, n.Hp, &state, &job.steps)

    cdef void finish(self):
        """Hand out the gradient of the initial state."""
        cdef const Sizes *n = &self.jobs.size
        cdef Backward *job
        cdef StateView state
        cdef int g, count = self.groups.count
        for g in range(count):
            job = &self.jobs[g]
            state = state_of_group(&self.dinitial.h, g, count)
            store_state(&state, job.dh, n.Rp, &job.steps)
            state = state_of_group(&self.dinitial.c, g, count)
            store_state(&state, job.dc, n.Hp, &job.steps)


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


cpdef int run_backward(list calls, bint chained=False) except -1:
    """Run calls of one batch at once. If chained, each makes the dy of the next."""
    cdef int i
    for i in range(0, len(calls), MOST_CALLS):
        run_few_backward(calls[i : i + MOST_CALLS], chained)
    return 0
