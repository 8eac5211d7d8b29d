# Forward calls: what Python hands over is checked, the work is divided, the lines are run. Every
# 20 ms or so signals are looked for, so that Ctrl-C works.


cdef struct States:              # of one layer and direction
    StateView h                 # (B, R)
    StateView c                 # (B, H)


cdef States states_view(
    const PackedWeights *of, ptrdiff_t B, str names, object pair, bint written=False,
) except *:
    """View a pair of h and c; `names` has {} for their letters."""
    h, c = pair
    return States(
        state_view(names.format("h"), h, B, of.size.R, True, written),
        state_view(names.format("c"), c, B, of.size.H, has_c(of.kind), written))


cdef void start_states(Forward *job, const States *initial) noexcept nogil:
    """Load the initial state, which is the final one of rows of no steps."""
    cdef const Steps *steps = &job.steps
    cdef const Sizes *n = &job.size
    cdef ptrdiff_t j, b
    load_state(job.h, n.Rp, &initial.h, steps)
    if job.c_n != NULL:
        load_state(job.c, n.Hp, &initial.c, steps)
    for j in range(alive(steps, 0), steps.B):
        b = batch_row(steps, j)
        memcpy(job.h_n + b * n.R, job.h + j * n.Rp, n.R * sizeof(real))
        if job.c_n != NULL:
            memcpy(job.c_n + b * n.H, job.c + j * n.Hp, n.H * sizeof(real))


cdef class ForwardCall:
    """A forward call of one layer and direction, to be run by `run_forward`."""

    cdef Forward job
    cdef Buffer buffer
    cdef Weights weights
    cdef Schedule schedule
    cdef Masks masks
    cdef readonly Tape tape     # or None
    cdef object arrays          # whose memory the views are of
    cdef States initial

    def __init__(
        self, Weights weights not None, x not None, y not None, *,
        initial, final, masks=None, const ptrdiff_t[::1] lengths=None, bint reverse=False,
        const unsigned char[:, :] resets=None, bint training=False, bint concatenated=False,
    ):
        """Fill y and `final`, the pair h_n, c_n (None without a cell state), when it is run.

        y must be zero where it is ragged. `initial` is the pair h_0, c_0; `masks` are zoneout_h,
        zoneout_c and dropout_h, zoneouts being numbers or arrays (T, B, R) and (T, B, H). `resets`
        (T, B) is not 0 where a state is zero before a step, in the order in which steps run. Where
        `concatenated`, x and y are (1, sum of lengths, I or R), step after step, lengths fall, and
        there are no masks.
        """
        cdef Schedule schedule = schedule_of(x, lengths, reverse, concatenated, resets)
        cdef const PackedWeights *packed = &weights.packed
        cdef SequenceView x_view = schedule.view("x", x, packed.size.I)
        cdef SequenceView y_view = schedule.view("y", y, packed.size.R, True)
        cdef ptrdiff_t B = schedule.steps.B
        cdef States initial_view = states_view(packed, B, "{}_0", initial)
        cdef States final_view = states_view(packed, B, "{}_n", final, True)
        check_contiguous("h_n", final[0])
        check_contiguous("c_n", final[1])
        if concatenated and masks is not None:
            raise ValueError("masks: expected None with concatenated=True")
        self.set(weights, schedule, &x_view, &y_view, &initial_view, &final_view, masks, training,
                 x, (y, initial, final))

    cdef int set(
        self, Weights weights, Schedule schedule, const SequenceView *x, const SequenceView *y,
        const States *initial, const States *final, masks, bint training, object x_array,
        object arrays,
    ) except -1:
        """See `__init__`."""
        cdef const PackedWeights *packed = &weights.packed
        cdef Forward *job = &self.job
        if final.h.data == NULL or (final.c.data == NULL) == has_c(packed.kind):
            raise ValueError("final: expected h_n, and c_n of cells that have one")
        self.weights = weights
        self.schedule = schedule
        self.initial = initial[0]
        self.arrays = x_array, arrays
        begin_forward(job, packed, &schedule.steps, training)
        if masks is not None:
            self.masks = Masks(schedule, weights, *masks)
            set_masks(job, self.masks)
        job.x = x[0]
        job.y = y[0]
        if training:
            self.tape = new_tape(job, weights, schedule, self.masks, x_array)
        job.y_direct = not training and schedule.steps.order == NULL
        job.h_n = final.h.data
        job.c_n = final.c.data
        return 0

    cdef void start(self, int lines, int pieces):
        """Place the lines, of whose tasks so many pieces run at once, and what they work in."""
        cdef Forward *job = &self.job
        job.fused = job.options.norm != NULL or prefer_fused(
            job.steps.B // lines, &job.size, job.kernels)
        if pieces > 1 and job.steps.order != NULL:  # x_t is gathered by one thread, for all
            job.fused = True
        self.buffer = new_forward_workspace(job, lines, pieces)
        start_states(job, &self.initial)


cdef bint is_done(const team_lines *work) noexcept nogil:
    """Whether no line has a task left; it need not be ready."""
    cdef int line
    for line in range(work.lines):
        if work.ready(work.job, line) >= 0:
            return False
    return True


cdef int lines_of_each(const Forward *job, int calls, int threads) noexcept:
    """Into how many lines the rows of each of so many calls are divided."""
    cdef ptrdiff_t B = job.steps.B
    if B < 12 * threads:  # tiles of few rows are slower: rather run calls beside each other
        threads = (threads + calls - 1) // calls
    return <int>max(<ptrdiff_t>1, min(<ptrdiff_t>threads, B, TEAM_MOST_LINES // calls))


cpdef int run_forward(list calls, bint chained=False) except -1:
    """Run calls of one batch at once. If chained, each makes the x of the next."""
    cdef Line *lines[TEAM_MOST_LINES]
    cdef team_lines work = team_lines(&lines[0], 0, 1, line_ready, run_chunk)
    cdef ForwardCall call, below = None
    cdef Forward *job
    cdef ForwardGang gang
    cdef double operations = 0
    cdef int count = len(calls), threads, i, together = 1
    if count > TEAM_MOST_LINES:
        raise ValueError(f"calls: expected at most {TEAM_MOST_LINES}, got {count}")
    for call in calls:
        job = &call.job
        operations += (<double>first_row(&job.steps, job.steps.count)
                       * job.size.Z * (job.size.I + job.size.R))
    threads = threads_for(operations)
    job = &call.job
    if (threads > 1 and count == 1 and call.masks is None and not takes_whole_rows(job.kind)
            and prefer_units(job.steps.B, threads, &job.size, job.kernels)):
        together = threads_for_step(job.steps.B, &job.size, threads)
    if together > 1:
        start_gang(&gang, job, together)
    for call in calls:
        job = &call.job
        if job.steps.B == 0:
            continue
        i = 1 if together > 1 else lines_of_each(job, count, threads)
        if chained and threads > 1:
            job.chunk_steps = max(<ptrdiff_t>8, job.steps.count // 16)
        call.start(i, gang.pieces if together > 1 else 1)
        for i in range(job.line_count):
            if chained and below is not None:
                job.lines[i].below = &below.job.lines[i]
            lines[work.lines] = &job.lines[i]
            work.lines += 1
        below = call
    if together > 1:
        gang.line = lines[0]
        prepare_share(&gang.todo, job, &gang.line.share, gang.line.scratch)
    while not is_done(&work):
        with nogil:
            if together > 1:
                gang.until = now() + UNINTERRUPTED
                run_together(job, together, &gang)
            else:
                run_lines(&work, threads, now() + UNINTERRUPTED)
        PyErr_CheckSignals()
    return 0
