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
    packed.kernels = packed.backward_kernels = k
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
