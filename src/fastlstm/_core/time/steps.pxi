# Steps and rows: which rows take part in a step, where they are, and who works on them.


cdef struct Steps:
    ptrdiff_t count             # of steps: the longest row
    ptrdiff_t B
    bint reverse                # ragged rows only; others come with a negative stride
    const ptrdiff_t *order      # (B,) rows by falling length; NULL: not ragged
    const ptrdiff_t *lengths    # (B,) in that order
    const ptrdiff_t *first      # (count + 1,) rows before step s
    const unsigned char *resets  # of each row of each step, see resets.pxi, or NULL
    ptrdiff_t resets_stride     # from row to row of a step


cdef inline Steps plain_steps(ptrdiff_t count, ptrdiff_t B, bint reverse) noexcept nogil:
    """Steps of B rows each, without resets."""
    return Steps(count, B, reverse, NULL, NULL, NULL, NULL, 1)


cdef inline ptrdiff_t first_row(const Steps *steps, ptrdiff_t s) noexcept nogil:
    return s * steps.B if steps.order == NULL else steps.first[s]


cdef inline ptrdiff_t alive(const Steps *steps, ptrdiff_t s) noexcept nogil:
    if s >= steps.count:
        return 0
    return first_row(steps, s + 1) - first_row(steps, s)


cdef inline ptrdiff_t batch_row(const Steps *steps, ptrdiff_t j) noexcept nogil:
    return j if steps.order == NULL else steps.order[j]


cdef inline ptrdiff_t time_of(const Steps *steps, ptrdiff_t s, ptrdiff_t j) noexcept nogil:
    """Where in time row j has its step s."""
    if steps.order != NULL and steps.reverse:
        return steps.lengths[j] - 1 - s
    return s


cdef ptrdiff_t chunk_begin(const Steps *steps, ptrdiff_t end, ptrdiff_t most_rows) noexcept nogil:
    cdef ptrdiff_t s = end - 1
    while s > 0 and first_row(steps, end) - first_row(steps, s - 1) <= most_rows:
        s -= 1
    return s


cdef class Schedule:
    """The steps of T time steps and B rows, from their lengths where they differ."""

    cdef Steps steps
    cdef ptrdiff_t T
    cdef bint concatenated      # x and y are (1, all rows, F), step after step
    cdef Buffer buffer
    cdef Buffer resets

    cdef SequenceView view(self, str name, object a, ptrdiff_t F, bint written=False) except *:
        """View an array that has a row of F for each row of each step, or None."""
        cdef SequenceView view
        cdef ptrdiff_t b
        if not self.concatenated:
            return sequence_view(name, a, self.T, self.steps.B, F, written)
        for b in range(self.steps.B):
            if self.steps.order[b] != b:
                raise ValueError("lengths: expected falling ones with concatenated=True")
        view = sequence_view(name, a, 1, first_row(&self.steps, self.steps.count), F, written)
        view.concatenated = True
        return view

    cdef int sort(self, ptrdiff_t T, const ptrdiff_t[::1] lengths) except -1:
        """Sort the rows. Another thread may change `lengths` meanwhile: it is read once."""
        cdef ptrdiff_t B = self.steps.B, b, s, longest = 0, place = 0
        cdef Buffer own = Buffer(size_times(B, sizeof(ptrdiff_t)))
        cdef ptrdiff_t *length = <ptrdiff_t *>own.block.memory
        cdef ptrdiff_t *order
        cdef ptrdiff_t *sorted_lengths
        cdef ptrdiff_t *first
        cdef Memory memory
        for b in range(B):
            length[b] = lengths[b]
            if not 0 <= length[b] <= T:
                raise ValueError(f"lengths: expected values in [0, {T}], got {length[b]}")
            longest = max(longest, length[b])
        self.buffer = Buffer(
            size_plus(size_times(2 * B + longest + 32, sizeof(ptrdiff_t)), 3 * MEMORY_GAP))
        memory = memory_of(self.buffer)
        order = <ptrdiff_t *>carve_bytes(&memory, B * sizeof(ptrdiff_t))
        sorted_lengths = <ptrdiff_t *>carve_bytes(&memory, B * sizeof(ptrdiff_t))
        first = <ptrdiff_t *>carve_bytes(&memory, (longest + 2) * sizeof(ptrdiff_t))
        # counting sort, stable: first[n] becomes the number of rows longer than n, ...
        memset(first, 0, (longest + 2) * sizeof(ptrdiff_t))
        for b in range(B):
            first[length[b]] += 1
        for s in range(longest, -1, -1):
            place += first[s]
            first[s] = place - first[s]
        for b in range(B):
            order[first[length[b]]] = b
            sorted_lengths[first[length[b]]] = length[b]
            first[length[b]] += 1
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
        return 0

    cdef int take_resets(self, const unsigned char[:, :] resets) except -1:
        """Copy the flags of (T, B) in the order of the steps. They are read once."""
        cdef Steps *steps = &self.steps
        cdef ptrdiff_t B = steps.B, s, j, rows = first_row(steps, steps.count)
        cdef unsigned char *flags
        if resets.shape[0] != self.T or resets.shape[1] != B:
            raise ValueError(
                f"resets: expected {(self.T, B)}, got {(resets.shape[0], resets.shape[1])}")
        self.resets = Buffer(rows)
        flags = <unsigned char *>self.resets.block.memory
        for s in range(steps.count):
            for j in range(alive(steps, s)):
                flags[first_row(steps, s) + j] = (
                    resets[time_of(steps, s, j), batch_row(steps, j)] != 0)
        steps.resets = flags
        return 0


cdef Schedule new_schedule(
    ptrdiff_t T, ptrdiff_t B, const ptrdiff_t[::1] lengths=None, bint reverse=False,
    const unsigned char[:, :] resets=None,
):
    """The steps of T time steps and B rows."""
    cdef Schedule schedule = Schedule.__new__(Schedule)
    if T < 0 or B < 0 or size_times(T, B) > MOST_ROWS:
        raise MemoryError(f"x: expected at most {MOST_ROWS} rows, got {T} steps of {B}")
    schedule.T = T
    schedule.steps = plain_steps(T, B, reverse)
    if lengths is not None:
        if lengths.shape[0] != B:
            raise ValueError(f"lengths: expected {(B,)}, got {(lengths.shape[0],)}")
        schedule.sort(T, lengths)
    if resets is not None:
        schedule.take_resets(resets)
    return schedule


cdef struct Share:               # some of each step
    ptrdiff_t first_row         # this row and every `row_step`-th after it
    ptrdiff_t row_step
    ptrdiff_t first_panel       # hidden units of panels first_panel <= p < last_panel
    ptrdiff_t last_panel


cdef inline ptrdiff_t rows_of_share(const Share *share, ptrdiff_t n) noexcept nogil:
    """How many of n rows belong to the share."""
    return (n - share.first_row + share.row_step - 1) // share.row_step


cdef inline ptrdiff_t steps_of_share(const Share *share, const Steps *steps) noexcept nogil:
    """How many steps any row of the share takes part in."""
    return steps.count if steps.order == NULL else steps.lengths[share.first_row]


cdef inline bint is_flat(const SequenceView *a, const Steps *steps) noexcept nogil:
    """Whether the rows of all steps follow each other at one distance, see flat_stride."""
    return steps.order == NULL and (steps.B == 1 or a.stride_t == steps.B * a.stride_b)


cdef inline ptrdiff_t flat_stride(const SequenceView *a, const Steps *steps) noexcept nogil:
    return a.stride_t if steps.B == 1 else a.stride_b


cdef inline real *row_of(
    const SequenceView *a, const Steps *steps, ptrdiff_t s, ptrdiff_t j,
) noexcept nogil:
    """Row j of step s."""
    cdef ptrdiff_t t = time_of(steps, s, j)
    if steps.order != NULL:
        if a.concatenated:
            return a.data + (steps.first[t] + j) * a.stride_b
        j = steps.order[j]
    return a.data + t * a.stride_t + j * a.stride_b


cdef void copy_rows(
    real *gathered, ptrdiff_t stride, const SequenceView *a, const Steps *steps, ptrdiff_t s,
    ptrdiff_t begin, ptrdiff_t end, bint scatter,
) noexcept nogil:
    """Rows begin..end, counted from step s on, from their places to `gathered`, or back."""
    cdef ptrdiff_t r, j, before = first_row(steps, s)
    for r in range(begin, end):
        while first_row(steps, s + 1) - before <= r:
            s += 1
        j = r - (first_row(steps, s) - before)
        if scatter:
            memcpy(row_of(a, steps, s, j), gathered + r * stride, a.F * sizeof(real))
        else:
            memcpy(gathered + r * stride, row_of(a, steps, s, j), a.F * sizeof(real))


cdef void load_state(
    real *out, ptrdiff_t stride, const StateView *state, const Steps *steps,
) noexcept nogil:
    """out (B, stride), in the order of the steps, padded with 0, from the state, or 0."""
    cdef const real *row
    cdef ptrdiff_t j, unit
    memset(out, 0, steps.B * stride * sizeof(real))
    if state.data == NULL:
        return
    for j in range(steps.B):
        row = state.data + batch_row(steps, j) * state.stride_b
        for unit in range(state.F):
            out[j * stride + unit] = row[unit * state.stride_f]


cdef void store_state(
    const StateView *state, const real *values, ptrdiff_t stride, const Steps *steps,
) noexcept nogil:
    """The reverse, if anybody wants it."""
    cdef real *row
    cdef ptrdiff_t j, unit
    if state.data == NULL:
        return
    for j in range(steps.B):
        row = state.data + batch_row(steps, j) * state.stride_b
        for unit in range(state.F):
            row[unit * state.stride_f] = values[j * stride + unit]
