# The functions of the C API over plans: states, sequences, training, and the table of all.


# --- states ---------------------------------------------------------------------------------------

cdef inline void lay_out(
    PlanState *own, const Plan *plan, ptrdiff_t B, Memory *memory,
) noexcept nogil:
    own.plan = plan
    lay_out_state(&own.state, &plan.packed, plan.zoneout_h, plan.zoneout_c, B,
                  plan.packed.size.I, memory)


cdef size_t api_state_size(const fastlstm_plan *plan, ptrdiff_t B) noexcept nogil:
    cdef PlanState own
    cdef Memory memory = Memory(NULL, size_padded(sizeof(PlanState)))
    if not in_range(B, 1):
        return 0
    lay_out(&own, <const Plan *>plan, B, &memory)
    return size_or_0(memory.used)


cdef int api_init_state(
    const fastlstm_plan *plan, fastlstm_state *state, ptrdiff_t B,
) noexcept nogil:
    cdef Memory memory = Memory(<char *>state, size_padded(sizeof(PlanState)))
    if not in_range(B, 1):
        return FASTLSTM_BAD_SIZE
    if not is_aligned(state):
        return FASTLSTM_UNALIGNED
    lay_out(<PlanState *>state, <const Plan *>plan, B, &memory)
    memory_open(memory.start, memory.used)  # the caller's, who may copy all of it
    return FASTLSTM_OK


cdef void api_set_state(fastlstm_state *state, const void *h, const void *c) noexcept nogil:
    cdef State *own = &(<PlanState *>state).state
    cdef const Sizes *n = &own.job.size
    cdef ptrdiff_t B = own.job.steps.B
    copy_array(current_h(own), n.Rp, <const real *>h, n.R, B, n.R)
    if has_c(own.job.kind):
        copy_array(own.job.c, n.Hp, <const real *>c, n.H, B, n.H)


cdef void api_get_state(const fastlstm_state *state, void *h, void *c) noexcept nogil:
    cdef const State *own = &(<const PlanState *>state).state
    cdef const Sizes *n = &own.job.size
    cdef ptrdiff_t B = own.job.steps.B
    copy_array(<real *>h, n.R, current_h(own), n.Rp, B, n.R)
    if has_c(own.job.kind):
        copy_array(<real *>c, n.H, own.job.c, n.Hp, B, n.H)


# --- forward --------------------------------------------------------------------------------------

cdef void api_step(fastlstm_state *state, const void *x, void *y) noexcept nogil:
    cdef State *own = &(<PlanState *>state).state
    cdef const real *h = advance(own, <const real *>x)
    copy_array(<real *>y, own.job.size.R, h, own.job.size.Rp, own.job.steps.B, own.job.size.R)


cdef void api_reset_rows(fastlstm_state *state, const unsigned char *resets) noexcept nogil:
    reset_rows(&(<PlanState *>state).state, resets)


cdef inline SequenceView view_in_time(
    const Plan *plan, const void *data, ptrdiff_t T, ptrdiff_t B, ptrdiff_t F,
) noexcept nogil:
    """A contiguous (T, B, F) array in the order of the steps."""
    cdef real *first = <real *>data
    if plan.layer.reverse and first != NULL:
        return SequenceView(first + (T - 1) * B * F, -B * F, F, F, False)
    return SequenceView(first, B * F, F, F, False)


cdef void begin_call(
    Forward *job, const Plan *plan, ptrdiff_t T, ptrdiff_t B, bint training,
) noexcept nogil:
    """Set what follows from the plan and the sizes alone."""
    cdef Steps steps = plain_steps(T, B, False)
    begin_forward(job, &plan.packed, &steps, training)
    job.zoneout_h = plan.zoneout_h
    job.zoneout_c = plan.zoneout_c


cdef void lay_out_resets(
    Forward *job, const Plan *plan, const unsigned char *resets, Memory *memory,
) noexcept nogil:
    """Copy the flags (T, B), if there are any, in the order of the steps, or measure them."""
    cdef ptrdiff_t T = job.steps.count, B = job.steps.B, s
    cdef unsigned char *flags = <unsigned char *>carve_bytes(memory, T * B)
    if flags == NULL or resets == NULL:
        return
    job.steps.resets = flags
    if not plan.layer.reverse:
        memcpy(flags, resets, T * B)
        return
    for s in range(T):  # what is between t and t + 1 comes before t
        if s == 0:
            memset(flags, 0, B)
        else:
            memcpy(flags + s * B, resets + (T - s) * B, B)


cdef void lay_out_forward(Forward *job, Memory *memory) noexcept nogil:
    """The workspace of a forward call, with a place for h_n, or measure it."""
    cdef const Sizes *n = &job.size
    job.fused = job.options.norm != NULL or prefer_fused(job.steps.B, n, job.kernels)
    place_forward_workspace(job, 1, 1, memory)
    job.h_n = carve(memory, job.steps.B, n.R)


cdef void run_from_state(PlanState *own, Forward *job, const void *x, void *y) noexcept nogil:
    """Run a job that has its memory from the state on, and leave the state behind its last step."""
    cdef const Sizes *n = &job.size
    cdef ptrdiff_t T = job.steps.count, B = job.steps.B
    cdef real *h = current_h(&own.state)
    cdef real *c = own.state.job.c
    job.x = view_in_time(own.plan, x, T, B, n.I)
    job.y = view_in_time(own.plan, y, T, B, n.R)
    job.y_direct = y != NULL and not job.training
    if y == NULL:
        job.y = SequenceView(job.h_n, 0, n.R, n.R, False)
    copy_array(job.h, n.Rp, h, n.Rp, B, n.Rp)
    if has_c(job.kind):
        copy_array(job.c, n.Hp, c, n.Hp, B, n.Hp)
    while job.lines[0].begin < T:
        run_chunk(&job.lines, 0)
    copy_array(h, n.Rp, job.h_n, n.R, B, n.R)
    if has_c(job.kind):
        copy_array(c, n.Hp, cell_state(job, T - 1), n.Hp, B, n.Hp)


# --- sequences, with and without a tape -----------------------------------------------------------

cdef void lay_out_tape(
    KeptTape *tape, Forward *job, const Plan *plan, const unsigned char *resets, Memory *memory,
) noexcept nogil:
    place_tape(job, memory)
    lay_out_resets(job, plan, resets, memory)
    tape.plan = plan
    tape.steps = job.steps
    tape.gates = job.gates
    tape.extra = job.extra
    tape.h = job.h
    tape.c = job.c


cdef size_t api_tape_size(const fastlstm_plan *plan, ptrdiff_t T, ptrdiff_t B) noexcept nogil:
    cdef KeptTape tape
    cdef Forward job
    cdef Memory memory = Memory(NULL, size_padded(sizeof(KeptTape)))
    if not are_in_range(T, B):
        return 0
    begin_call(&job, <const Plan *>plan, T, B, True)
    lay_out_tape(&tape, &job, <const Plan *>plan, NULL, &memory)
    return size_or_0(memory.used)


cdef int api_forward_episodes(
    fastlstm_state *state, ptrdiff_t T, const void *x, const unsigned char *resets, void *y,
    fastlstm_tape *tape, void *workspace,
) noexcept nogil:
    cdef PlanState *own = <PlanState *>state
    cdef Memory memory = Memory(<char *>tape, size_padded(sizeof(KeptTape)))
    cdef Forward job
    if tape != NULL and not own.plan.layer.training:
        return FASTLSTM_NOT_TRAINABLE
    if not are_in_range(T, own.state.job.steps.B):
        return FASTLSTM_BAD_SIZE
    if not (is_aligned(tape) and is_aligned(workspace)):
        return FASTLSTM_UNALIGNED
    begin_call(&job, own.plan, T, own.state.job.steps.B, tape != NULL)
    if tape != NULL:
        lay_out_tape(<KeptTape *>tape, &job, own.plan, resets, &memory)
        memory_open(memory.start, memory.used)
    memory = Memory(<char *>workspace, 0)
    if tape == NULL:
        lay_out_resets(&job, own.plan, resets, &memory)
    lay_out_forward(&job, &memory)
    if T:
        run_from_state(own, &job, x, y)
    return FASTLSTM_OK


cdef int api_forward(
    fastlstm_state *state, ptrdiff_t T, const void *x, void *y, void *workspace,
) noexcept nogil:
    return api_forward_episodes(state, T, x, NULL, y, NULL, workspace)


cdef int api_forward_tape(
    fastlstm_state *state, ptrdiff_t T, const void *x, void *y, fastlstm_tape *tape,
    void *workspace,
) noexcept nogil:
    return api_forward_episodes(state, T, x, NULL, y, tape, workspace)


cdef void lay_out_backward(
    Groups *groups, const KeptTape *tape, const void *x, const fastlstm_gradients *gradients,
    Memory *memory,
) noexcept nogil:
    """Set all of a backward call, or measure it."""
    cdef const Plan *plan = tape.plan
    cdef const Sizes *n = &plan.packed.size
    cdef ptrdiff_t T = tape.steps.count, B = tape.steps.B
    cdef SequenceView rows_x = view_in_time(plan, x, T, B, n.I)
    cdef SequenceView rows_dy = view_in_time(plan, gradients.dy, T, B, n.R)
    cdef SequenceView rows_dx = view_in_time(plan, gradients.dx, T, B, n.I)
    cdef Backward *job = groups.jobs
    cdef int g
    groups.to = Gradients(
        <real *>gradients.dw_ih, <real *>gradients.dw_hh, <real *>gradients.db,
        <real *>gradients.dpeephole, <real *>gradients.dw_proj, <real *>gradients.dlayer_norm)
    if gradients.dy == NULL:
        rows_dy = SequenceView(NULL, 0, 0, n.R, False)
    begin_backward(
        job, &plan.packed, plan.packed.kind, &tape.steps, &rows_x, &rows_dy, &rows_dx, &groups.to)
    job.gates = tape.gates
    job.extra = tape.extra
    job.h = tape.h
    job.c = tape.c
    job.zoneout_h = plan.zoneout_h
    job.zoneout_c = plan.zoneout_c
    groups.count = count_groups(job)
    groups.parts = 1
    groups.pieces = 0
    groups.above = NULL
    for g in range(groups.count - 1, -1, -1):
        restrict_to_group(groups.jobs, g, groups.count)
    place_lines(groups, 1, memory)


cdef bint fit(const fastlstm_gradients *gradients, const PackedWeights *weights) noexcept nogil:
    """Whether all is there that must be, and nothing of what the layer does not have."""
    cdef const cell_options *has = &weights.options
    if gradients.size != sizeof(fastlstm_gradients) or gradients.dw_hh == NULL:
        return False
    if weights.size.I and (gradients.dx == NULL or gradients.dw_ih == NULL):
        return False
    if not has_c(weights.kind) and (gradients.dc_n != NULL or gradients.dc_0 != NULL):
        return False
    return ((has.w_proj != NULL or gradients.dw_proj == NULL)
            and (has.peephole != NULL or gradients.dpeephole == NULL)
            and (has.norm != NULL or gradients.dlayer_norm == NULL))


cdef int api_backward(
    const fastlstm_tape *tape, const void *x, const fastlstm_gradients *gradients,
    void *workspace,
) noexcept nogil:
    cdef const KeptTape *kept = <const KeptTape *>tape
    cdef Memory memory = Memory(<char *>workspace, 0)
    cdef Backward jobs[MOST_GROUPS]
    cdef Groups groups
    cdef Backward *job
    cdef const Sizes *n = &kept.plan.packed.size
    cdef ptrdiff_t rows, R = n.R, H = n.H
    cdef int g, count
    if not fit(gradients, &kept.plan.packed):
        return FASTLSTM_BAD_LAYER
    if not is_aligned(workspace):
        return FASTLSTM_UNALIGNED
    groups.jobs = jobs
    lay_out_backward(&groups, kept, x, gradients, &memory)
    count = groups.count
    rows = kept.steps.B // count
    for g in range(count):
        job = &jobs[g]
        memset(job.dh, 0, rows * n.Rp * sizeof(real))
        memset(job.dc, 0, rows * n.Hp * sizeof(real))
        copy_array(job.dh, n.Rp, offset(<const real *>gradients.dh_n, g * R), count * R, rows, R)
        copy_array(job.dc, n.Hp, offset(<const real *>gradients.dc_n, g * H), count * H, rows, H)
    run_backward_alone(&groups)
    for g in range(count):
        job = &jobs[g]
        copy_array(offset(<const real *>gradients.dh_0, g * R), count * R, job.dh, n.Rp, rows, R)
        copy_array(offset(<const real *>gradients.dc_0, g * H), count * H, job.dc, n.Hp, rows, H)
    return FASTLSTM_OK


cdef size_t api_workspace_size(const fastlstm_plan *plan, ptrdiff_t T, ptrdiff_t B) noexcept nogil:
    cdef const Plan *own = <const Plan *>plan
    cdef Memory memory = Memory(NULL, 0)
    cdef Memory backward_memory = Memory(NULL, 0)
    cdef Backward jobs[MOST_GROUPS]
    cdef Groups groups
    cdef KeptTape tape
    cdef fastlstm_gradients gradients
    cdef Forward job
    if not are_in_range(T, B):
        return 0
    begin_call(&job, own, T, B, False)
    lay_out_resets(&job, own, NULL, &memory)
    job.steps.resets = <const unsigned char *>own  # the most that may be wanted
    lay_out_forward(&job, &memory)
    if own.layer.training:
        memset(&tape, 0, sizeof(tape))
        memset(&gradients, 0, sizeof(gradients))
        tape.plan = own
        tape.steps = job.steps
        if own.packed.options.w_proj != NULL:
            gradients.dw_proj = <void *>own
        groups.jobs = jobs
        lay_out_backward(&groups, &tape, NULL, &gradients, &backward_memory)
    return size_or_0(max(memory.used, backward_memory.used))


cdef fastlstm_api table
table.version = FASTLSTM_API_VERSION
table.size = sizeof(table)
table.message = api_message
table.create = api_create
table.update = api_update
table.destroy = api_destroy
table.state_size = api_state_size
table.init_state = api_init_state
table.set_state = api_set_state
table.get_state = api_get_state
table.step = api_step
table.workspace_size = api_workspace_size
table.forward = api_forward
table.tape_size = api_tape_size
table.forward_tape = api_forward_tape
table.backward = api_backward
table.reset_rows = api_reset_rows
table.forward_episodes = api_forward_episodes

cdef const char *CAPSULE = "fastlstm.capi.capsule_f32"
if sizeof(real) == sizeof(double):
    CAPSULE = "fastlstm.capi.capsule_f64"
C_API_CAPSULE = PyCapsule_New(&table, CAPSULE, NULL)
C_API_ADDRESS = <size_t>&table
