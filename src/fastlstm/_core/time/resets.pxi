# Episodes within a sequence: rows whose state is zero before a step, and through which no gradient
# passes there.
#
# Decision: a flag for each row of each step. A step that has any reads copies of h_{t-1} and
# c_{t-1} in which those rows are zero; backward its cells are taken run by run of rows, so that
# what those rows read is one row of zeros, and dh and dc of those rows end as zero. The tape stays
# as it is: the step before needs what it left. Steps without any pay for a look at the flags.


cdef inline bint is_reset(const Steps *steps, ptrdiff_t s, ptrdiff_t j) noexcept nogil:
    """Whether the state of row j is zero before step s."""
    return (steps.resets != NULL
            and steps.resets[(first_row(steps, s) + j) * steps.resets_stride] != 0)


cdef bint has_resets(const Steps *steps, ptrdiff_t begin, ptrdiff_t end) noexcept nogil:
    """Whether any row's state is zero before one of the steps begin..end."""
    cdef ptrdiff_t s, j
    if steps.resets == NULL:
        return False
    for s in range(begin, end):
        for j in range(alive(steps, s)):
            if is_reset(steps, s, j):
                return True
    return False


cdef inline void copy_or_zero(
    real *to, const real *source, ptrdiff_t n, bint zero,
) noexcept nogil:
    """to (n,) := source, or 0."""
    if zero:
        memset(to, 0, n * sizeof(real))
    else:
        memcpy(to, source, n * sizeof(real))


cdef void reset_states(
    forward_step *todo, const Forward *job, const Share *share, ptrdiff_t s,
) noexcept nogil:
    """Let step s read copies of h_{t-1} and c_{t-1} in which some rows are zero, if any are."""
    cdef const Steps *steps = &job.steps
    cdef ptrdiff_t Rp = job.size.Rp, Hp = job.size.Hp
    cdef ptrdiff_t first = share.first_row, step = share.row_step, i
    cdef real *h = job.reset_h + first * Rp
    cdef real *c = job.reset_c + first * Hp
    cdef bint zero, with_c = has_c(job.kind)
    if not has_resets(steps, s, s + 1):
        return
    for i in range(todo.rows):
        zero = is_reset(steps, s, first + i * step)
        copy_or_zero(
            h + i * step * Rp, todo.h_prev + i * todo.h_prev_stride, job.size.R, zero)
        if with_c:
            copy_or_zero(c + i * step * Hp, todo.c_prev + i * todo.c_stride, Hp, zero)
    todo.h_prev = h
    todo.h_prev_stride = step * Rp
    todo.c_prev = c
    if job.dropout == NULL:
        todo.u = todo.h_prev
        todo.u_stride = todo.h_prev_stride


cdef void reset_backward_cells(
    const Backward *job, const Share *share, const Chunk *chunk, ptrdiff_t s, ptrdiff_t at,
    void *rounded,
) noexcept nogil:
    """The cells of a step that has resets: rows between them together, those rows one by one."""
    cdef const Steps *steps = &job.steps
    cdef ptrdiff_t end = alive(steps, s), step = share.row_step
    cdef Share rows = share[0]
    cdef backward_step todo
    while rows.first_row < end:
        point_backward_step(&todo, job, &rows, chunk, s, at, rounded)
        todo.rows = 1
        if is_reset(steps, s, rows.first_row):
            todo.h_prev = todo.u = todo.c_prev = job.zeros
        else:
            while (rows.first_row + todo.rows * step < end
                   and not is_reset(steps, s, rows.first_row + todo.rows * step)):
                todo.rows += 1
        if job.zoneout_h != NULL:
            split_zoneout(job, &rows, s, &todo)
        job.kernels.backward_cells[job.kind](&todo)
        rows.first_row += todo.rows * step


cdef inline void stop_gradients(
    const Backward *job, const Share *share, ptrdiff_t s,
) noexcept nogil:
    """dh and dc := 0 where no gradient passes to the step before s."""
    cdef ptrdiff_t i, j
    if job.steps.resets == NULL:
        return
    for i in range(rows_of_share(share, alive(&job.steps, s))):
        j = share.first_row + i * share.row_step
        if is_reset(&job.steps, s, j):
            memset(job.dh + j * job.size.Rp, 0, job.size.Rp * sizeof(real))
            memset(job.dc + j * job.size.Hp, 0, job.size.Hp * sizeof(real))
