# The C API: plans, states and tapes in memory of C, over the same time loops as the Python one.
# include/fastlstm.h says what every function promises.
#
# Decisions:
# a) A plan is one block of memory, which begins with the struct. `update` packs again in place.
# b) A step is one of a state (step/state.pxi); a sequence is a call of its own that begins and ends
#    with what the state holds.
# c) The size of the caller's memory is measured by the code that lays it out, see time/memory.pxi.

from cpython.pycapsule cimport PyCapsule_New

from fastlstm cimport (
    FASTLSTM_ALIGNMENT, FASTLSTM_API_VERSION, FASTLSTM_BAD_LAYER, FASTLSTM_BAD_SIZE,
    FASTLSTM_DEFAULT, FASTLSTM_ELU, FASTLSTM_GRU, FASTLSTM_GRU_RESET_BEFORE, FASTLSTM_LEAKY_RELU,
    FASTLSTM_LSTM, FASTLSTM_LSTM_COUPLED, FASTLSTM_NO_MEMORY, FASTLSTM_NOT_TRAINABLE, FASTLSTM_OK,
    FASTLSTM_RNN, FASTLSTM_SCALED_TANH, FASTLSTM_SIGMOID, FASTLSTM_SOFTPLUS, FASTLSTM_TANH,
    FASTLSTM_UNALIGNED, fastlstm_activation, fastlstm_api, fastlstm_gradients, fastlstm_layer,
    fastlstm_plan, fastlstm_state, fastlstm_tape)

cdef enum:
    MOST = 1 << 28              # of any size: products of three still fit


cdef struct Plan:
    PackedWeights packed
    fastlstm_layer layer        # as given; its arrays are gone
    const real *zoneout_h       # (Rp,), or NULL
    const real *zoneout_c       # (Hp,), or NULL


cdef struct PlanState:
    const Plan *plan
    State state


cdef struct KeptTape:
    const Plan *plan
    Steps steps
    const real *gates
    const real *extra
    const real *h
    const real *c


cdef const char *api_message(int status) noexcept nogil:
    if status == FASTLSTM_OK:
        return "ok"
    if status == FASTLSTM_NO_MEMORY:
        return "no memory"
    if status == FASTLSTM_BAD_LAYER:
        return "the layer or the gradients: a field is out of range, or does not fit the others"
    if status == FASTLSTM_BAD_SIZE:
        return "T or B is out of range"
    if status == FASTLSTM_UNALIGNED:
        return "a state, tape or workspace is not aligned to 64 bytes"
    if status == FASTLSTM_NOT_TRAINABLE:
        return "the plan was made without `training`"
    return "unknown status"


cdef inline bint is_aligned(const void *memory) noexcept nogil:
    return <size_t>memory % FASTLSTM_ALIGNMENT == 0


cdef inline bint in_range(ptrdiff_t size, ptrdiff_t least) noexcept nogil:
    return least <= size <= MOST


cdef inline bint are_in_range(ptrdiff_t T, ptrdiff_t B) noexcept nogil:
    return in_range(T, 0) and in_range(B, 1) and size_times(T, B) <= MOST_ROWS


cdef inline size_t size_or_0(size_t size) noexcept nogil:
    return 0 if size == NO_SIZE else size


# --- plans ----------------------------------------------------------------------------------------

cdef bint is_valid_activation(const fastlstm_activation *a) noexcept nogil:
    if a.kind == FASTLSTM_LEAKY_RELU or a.kind == FASTLSTM_ELU:
        return a.alpha >= 0
    if a.kind == FASTLSTM_SCALED_TANH:
        return a.alpha != 0
    return FASTLSTM_DEFAULT <= a.kind <= FASTLSTM_SOFTPLUS


cdef bint is_valid(const fastlstm_layer *layer) noexcept nogil:
    cdef bint is_lstm = layer.cell == FASTLSTM_LSTM or layer.cell == FASTLSTM_LSTM_COUPLED
    if layer.size != sizeof(fastlstm_layer):
        return False
    if not FASTLSTM_LSTM <= layer.cell <= FASTLSTM_RNN:
        return False
    if not (in_range(layer.input_size, 0) and in_range(layer.hidden_size, 1)
            and in_range(layer.proj_size, 0)):
        return False
    if (layer.w_ih == NULL and layer.input_size) or layer.w_hh == NULL:
        return False
    if (layer.w_proj != NULL) != (layer.proj_size != 0):
        return False
    if not is_lstm and (layer.w_proj != NULL or layer.peephole != NULL or layer.layer_norm != NULL):
        return False
    if not (layer.clip >= 0 and layer.cell_clip >= 0 and layer.proj_clip >= 0):
        return False
    if layer.clip and layer.training:
        return False
    if not (0 <= layer.zoneout_h <= 1 and 0 <= layer.zoneout_c <= 1):
        return False
    return (is_valid_activation(&layer.gate) and is_valid_activation(&layer.candidate)
            and is_valid_activation(&layer.output))


cdef activation activation_in(const fastlstm_activation *a, int default) noexcept nogil:
    cdef activation own
    own.kind = default if a.kind == FASTLSTM_DEFAULT else a.kind - FASTLSTM_SIGMOID
    own.alpha = <real>a.alpha
    own.beta = <real>a.beta
    return own


cdef inline real bound_in(double bound) noexcept nogil:
    return <real>bound if bound else INFINITY


cdef inline Matrix matrix_in(const void *data, ptrdiff_t columns) noexcept nogil:
    return Matrix(<const real *>data, columns, 1)


cdef const real *row_of_rates(Memory *memory, ptrdiff_t count, double rate) noexcept nogil:
    """A row of one number, or NULL for 0."""
    cdef real *rates = NULL
    cdef ptrdiff_t unit
    if rate:
        rates = carve(memory, 1, count)
        if rates != NULL:
            for unit in range(count):
                rates[unit] = <real>rate
    return rates


cdef void lay_out_plan(
    Plan *plan, const kernel_table *k, const fastlstm_layer *layer, Memory *memory,
) noexcept nogil:
    """Set all of a plan, or measure it."""
    cdef PackedWeights *packed = &plan.packed
    cdef cell_options *options = &packed.options
    cdef ptrdiff_t H = layer.hidden_size, N = 4 * H
    cdef ptrdiff_t R = layer.proj_size if layer.proj_size else H
    cdef Given given
    memset(plan, 0, sizeof(Plan))
    plan.layer = layer[0]
    if layer.cell == FASTLSTM_RNN:
        N = H
    elif layer.cell != FASTLSTM_LSTM:
        N = 3 * H
    given = Given(
        matrix_in(layer.w_ih, layer.input_size), matrix_in(layer.w_hh, R),
        matrix_in(layer.b, 1), matrix_in(layer.peephole, H), matrix_in(layer.w_proj, H),
        matrix_in(layer.layer_norm, H))
    given.b.row_stride = 0
    packed.kernels = k
    options.coupled = layer.cell == FASTLSTM_LSTM_COUPLED
    options.clip = bound_in(layer.clip)
    options.cell_clip = bound_in(layer.cell_clip)
    options.proj_clip = bound_in(layer.proj_clip)
    options.gate = activation_in(&layer.gate, TANH if layer.cell == FASTLSTM_RNN else SIGMOID)
    options.candidate = activation_in(&layer.candidate, TANH)
    options.output = activation_in(&layer.output, TANH)
    if layer.cell == FASTLSTM_GRU:
        packed.kind = GRU
    elif layer.cell == FASTLSTM_GRU_RESET_BEFORE:
        packed.kind = GRU_RESET_BEFORE
    elif layer.cell == FASTLSTM_RNN:
        packed.kind = RNN
    else:
        packed.kind = lstm_kind(options, &given)
        if layer.zoneout_h or layer.zoneout_c:
            packed.kind = LSTM_VARIANT
    packed.size = sizes_of(packed, layer.input_size, R, N)
    pack(packed, memory, &given)
    if layer.training:
        pack_backward(packed, memory, &given)
    plan.zoneout_h = row_of_rates(memory, packed.size.Rp, layer.zoneout_h)
    plan.zoneout_c = row_of_rates(memory, packed.size.Hp, layer.zoneout_c)


cdef int api_create(fastlstm_plan **made, const fastlstm_layer *layer) noexcept nogil:
    cdef Plan plan
    cdef Memory memory = Memory(NULL, size_padded(sizeof(Plan)))
    made[0] = NULL
    if not is_valid(layer):
        return FASTLSTM_BAD_LAYER
    lay_out_plan(&plan, kernels(), layer, &memory)
    memory = Memory(<char *>new_block(memory.used), size_padded(sizeof(Plan)))
    if memory.start == NULL:
        return FASTLSTM_NO_MEMORY
    made[0] = <fastlstm_plan *>memory.start
    lay_out_plan(<Plan *>memory.start, plan.packed.kernels, layer, &memory)
    return FASTLSTM_OK


cdef int api_update(fastlstm_plan *plan, const fastlstm_layer *layer) noexcept nogil:
    cdef Plan *own = <Plan *>plan
    cdef fastlstm_layer now = own.layer
    cdef Memory memory = Memory(<char *>plan, size_padded(sizeof(Plan)))
    now.w_ih = layer.w_ih
    now.w_hh = layer.w_hh
    now.b = layer.b
    now.w_proj = layer.w_proj
    now.peephole = layer.peephole
    now.layer_norm = layer.layer_norm
    if (layer.size != now.size or layer.cell != now.cell or layer.input_size != now.input_size
            or layer.hidden_size != now.hidden_size or layer.proj_size != now.proj_size
            or (own.packed.options.peephole == NULL) != (now.peephole == NULL)
            or (own.packed.options.norm == NULL) != (now.layer_norm == NULL)
            or not is_valid(&now)):
        return FASTLSTM_BAD_LAYER
    lay_out_plan(own, own.packed.kernels, &now, &memory)
    return FASTLSTM_OK


cdef void api_destroy(fastlstm_plan *plan) noexcept nogil:
    if plan != NULL:
        free_block(plan)


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
    cdef Steps steps = Steps(T, B, False, NULL, NULL, NULL)
    begin_forward(job, &plan.packed, &steps, training)
    job.zoneout_h = plan.zoneout_h
    job.zoneout_c = plan.zoneout_c


cdef void lay_out_forward(Forward *job, Memory *memory) noexcept nogil:
    """The workspace of a forward call, with a place for h_n, or measure it."""
    cdef const Sizes *n = &job.size
    job.fused = job.options.norm != NULL or prefer_fused(job.steps.B, n)
    place_forward_workspace(job, 1, memory)
    job.h_n = carve(memory, job.steps.B, n.R)


cdef void run_forward(PlanState *own, Forward *job, const void *x, void *y) noexcept nogil:
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
    job.end = T
    forward_thread(job, 0, 1)
    copy_array(h, n.Rp, job.h_n, n.R, B, n.R)
    if has_c(job.kind):
        copy_array(c, n.Hp, cell_state(job, T - 1), n.Hp, B, n.Hp)


cdef int api_forward(
    fastlstm_state *state, ptrdiff_t T, const void *x, void *y, void *workspace,
) noexcept nogil:
    cdef PlanState *own = <PlanState *>state
    cdef Memory memory = Memory(<char *>workspace, 0)
    cdef Forward job
    if not are_in_range(T, own.state.job.steps.B):
        return FASTLSTM_BAD_SIZE
    if not is_aligned(workspace):
        return FASTLSTM_UNALIGNED
    if T:
        begin_call(&job, own.plan, T, own.state.job.steps.B, False)
        lay_out_forward(&job, &memory)
        run_forward(own, &job, x, y)
    return FASTLSTM_OK


# --- training -------------------------------------------------------------------------------------

cdef void lay_out_tape(KeptTape *tape, Forward *job, Memory *memory) noexcept nogil:
    place_tape(job, memory)
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
    lay_out_tape(&tape, &job, &memory)
    return size_or_0(memory.used)


cdef int api_forward_tape(
    fastlstm_state *state, ptrdiff_t T, const void *x, void *y, fastlstm_tape *tape,
    void *workspace,
) noexcept nogil:
    cdef PlanState *own = <PlanState *>state
    cdef KeptTape *kept = <KeptTape *>tape
    cdef Memory memory = Memory(<char *>tape, size_padded(sizeof(KeptTape)))
    cdef Forward job
    if not own.plan.layer.training:
        return FASTLSTM_NOT_TRAINABLE
    if not are_in_range(T, own.state.job.steps.B):
        return FASTLSTM_BAD_SIZE
    if not (is_aligned(tape) and is_aligned(workspace)):
        return FASTLSTM_UNALIGNED
    begin_call(&job, own.plan, T, own.state.job.steps.B, True)
    kept.plan = own.plan
    lay_out_tape(kept, &job, &memory)
    memory = Memory(<char *>workspace, 0)
    lay_out_forward(&job, &memory)
    if T:
        run_forward(own, &job, x, y)
    return FASTLSTM_OK


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
    for g in range(groups.count - 1, -1, -1):
        restrict_to_group(groups.jobs, g, groups.count)
    for g in range(groups.count):
        place_backward_workspace(&groups.jobs[g], memory)


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
    backward_thread(&groups, 0, 1)
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
    lay_out_forward(&job, &memory)
    if own.layer.training:
        memset(&tape, 0, sizeof(tape))
        memset(&gradients, 0, sizeof(gradients))
        tape.plan = own
        tape.steps = job.steps
        # the most that may be wanted
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

cdef const char *CAPSULE = "fastlstm.capi.capsule_f32"
if sizeof(real) == sizeof(double):
    CAPSULE = "fastlstm.capi.capsule_f64"
C_API_CAPSULE = PyCapsule_New(&table, CAPSULE, NULL)
C_API_ADDRESS = <size_t>&table
