# One time step after the other: what streams and the states of the C API are made of.
#
# A state is a forward call of one layer that never ends, of which `advance` takes the next step. It
# does what the time loops do, to the bit; but all that a step needs is prepared, for even and for
# odd steps, which read what the other writes. Only x is new.


cdef struct State:
    Forward job
    Share share
    forward_step todo[2]        # even and odd steps
    ptrdiff_t s                 # the next step; from 2 on, where the one before is no longer h_0


cdef void lay_out_state(
    State *state, const PackedWeights *weights, const real *zoneout_h, const real *zoneout_c,
    ptrdiff_t B, ptrdiff_t x_stride, Memory *memory,
) noexcept nogil:
    """Make a state of zeros, or measure its memory; the zoneouts are one row each, or NULL.

    B is at most MOST_ROWS.
    """
    cdef Forward *job = &state.job
    cdef Steps steps = plain_steps(PTRDIFF_MAX // (B + 1), B, False)
    cdef ptrdiff_t s
    begin_forward(job, weights, &steps, False)
    job.zoneout_h = zoneout_h
    job.zoneout_c = zoneout_c
    if job.kind == LSTM and (zoneout_h != NULL or zoneout_c != NULL):
        job.kind = LSTM_VARIANT
    job.fused = True
    job.x = SequenceView(NULL, 0, x_stride, job.size.I, False)
    place_forward_workspace(job, 1, 1, memory)
    if memory.start == NULL:
        return
    state.share = job.lines[0].share
    state.s = 2
    for s in range(2, 4):
        prepare_share(&state.todo[s & 1], job, &state.share, job.lines[0].scratch)
        prepare_step(&state.todo[s & 1], job, &state.share, s, NULL, NULL)


cdef inline const real *advance(State *state, const real *x) noexcept nogil:
    """Take a step from x (B, I); return h (B, R), Rp apart."""
    cdef forward_step *todo = &state.todo[state.s & 1]
    todo.x = x
    run_step(todo, &state.job, &state.share, state.s)
    state.job.kernels.end_task()
    state.s += 1
    return todo.h


cdef inline real *current_h(const State *state) noexcept nogil:
    """h (B, R) after the last step, Rp apart; c is job.c."""
    return state.todo[(state.s + 1) & 1].h


cdef inline void reset_rows(State *state, const unsigned char *resets) noexcept nogil:
    """h and c of the rows whose flag is not 0 := 0."""
    cdef const Sizes *n = &state.job.size
    cdef ptrdiff_t j
    for j in range(state.job.steps.B):
        if resets[j]:
            memset(current_h(state) + j * n.Rp, 0, n.R * sizeof(real))
            memset(state.job.c + j * n.Hp, 0, n.H * sizeof(real))


cdef inline void copy_array(
    real *to, ptrdiff_t to_stride, const real *source, ptrdiff_t source_stride,
    ptrdiff_t rows, ptrdiff_t F,
) noexcept nogil:
    """to := source, both (rows, F); either may be NULL: nothing is written, or 0."""
    cdef ptrdiff_t j
    if to == NULL:
        return
    for j in range(rows):
        if source == NULL:
            memset(to + j * to_stride, 0, F * sizeof(real))
        else:
            memcpy(to + j * to_stride, source + j * source_stride, F * sizeof(real))
