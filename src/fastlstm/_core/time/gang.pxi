# A single layer of few rows or large weights: threads share the hidden units of each step. A step
# is a phase, see team.h, whose pieces are a few panels each; so each thread finds its weights in
# its cache.


cdef inline int pieces_of(ptrdiff_t n, ptrdiff_t size) noexcept nogil:
    return <int>((n + size - 1) // size)


cdef struct ForwardGang:
    Line *line                  # all rows; its `begin` is the next step, `end` that of the chunk
    ptrdiff_t s                 # the step that runs: beside `todo`, where every thread looks
    forward_step todo
    const real *z
    int pieces                  # of a phase, at most
    ptrdiff_t panels            # of a piece: a single row takes two at once, see tile.h
    bint multiplies             # this phase is x @ W_ih.T + b of the chunk, else a step
    bint steps                  # a step has been begun
    long long until


cdef void start_gang(ForwardGang *gang, const Forward *job, int threads) noexcept nogil:
    """Set how a step is divided; the line is still to be placed."""
    gang.panels = panels_of_piece(job.size.P, job.steps.B, threads)
    gang.pieces = pieces_of(job.size.P, gang.panels)
    gang.multiplies = gang.steps = False


cdef int next_phase(void *argument) noexcept nogil:
    """`next` of team.h: finish the phase before, and prepare the next one."""
    cdef ForwardGang *gang = <ForwardGang *>argument
    cdef Line *line = gang.line
    cdef const Forward *job = line.job
    if gang.steps:
        store_outputs(job, &line.share, line.begin)
        if not job.fused:
            gang.z += rows_of_z(job, &line.share, line.begin) * job.size.Z
        line.begin += 1
        gang.steps = False
    if gang.multiplies:
        gang.multiplies = False
        gang.z = first_z(line, line.begin)
    elif line.begin == line.count or (line.begin % 8 == 0 and now() > gang.until):
        return 0
    elif line.begin == line.end or line.begin == 0:
        line.end = chunk_end(line, line.begin)
        gang.multiplies = not job.fused
        if gang.multiplies:
            return gang.pieces
    prepare_step(&gang.todo, job, &line.share, line.begin, gang.z, line.x_step)
    gang.todo.descending = False  # pieces come in one order, and fetch what comes next
    gang.s = line.begin
    gang.steps = True
    return gang.pieces


cdef void run_piece(void *argument, int piece) noexcept nogil:
    """`run` of team.h: some hidden units of a phase."""
    cdef const ForwardGang *gang = <const ForwardGang *>argument
    cdef const Forward *job = gang.line.job
    cdef char *scratch = gang.line.scratch + piece * job.scratch_size
    cdef Share share = gang.line.share
    cdef forward_step todo
    share.first_panel = piece * gang.panels
    share.last_panel = min(share.first_panel + gang.panels, job.size.P)
    if gang.multiplies:
        multiply_input(gang.line, &share, gang.line.end, scratch)
    else:
        todo = gang.todo
        todo.first = share.first_panel
        todo.last = share.last_panel
        set_scratch(&todo, job, scratch)
        run_step(&todo, job, &share, gang.s)
    job.kernels.end_task()


cdef ptrdiff_t panels_of_piece(ptrdiff_t panels, ptrdiff_t rows, int threads) noexcept nogil:
    """How many panels a piece has: two pieces for each thread, so that one can take another's; a
    single row takes two panels at once, see tile.h.
    """
    cdef ptrdiff_t least = 2 if rows == 1 else 1, each = panels // (2 * threads)
    return max(least, each - each % least)


cdef void run_together(Forward *job, int threads, ForwardGang *gang) noexcept nogil:
    """Run a job of one line until it is done or `gang.until` has come."""
    cdef team_phases work = team_phases(gang, next_phase, run_piece)
    run_phases(&work, threads)


# --- backward -------------------------------------------------------------------------------------

cdef enum:
    ROWS_OF_PIECE = 32           # of dx


cdef enum Stage:
    NEW_CHUNK
    OF_CELLS
    OF_PRODUCT
    OF_GRADIENTS


cdef struct BackwardGang:
    Groups *groups              # one group
    Share share                 # all of it
    backward_step todo
    Stage stage                 # what the phase that runs is
    int pieces                  # of a phase that rounds, at most
    ptrdiff_t panels            # of a piece of OF_PRODUCT
    ptrdiff_t gradient_panels   # of a piece of a weight gradient
    ptrdiff_t s                 # the step
    ptrdiff_t begin, end        # the chunk
    long long until


cdef void start_backward_gang(BackwardGang *gang, Groups *groups, int threads) noexcept nogil:
    """Set how phases are divided; what they work in is still to be placed."""
    cdef const Backward *job = groups.jobs
    cdef ptrdiff_t panels = pieces_of(job.size.Rp, 4 * job.kernels.lanes)
    gang.groups = groups
    gang.share = Share(0, 1, 0, job.size.P)
    gang.stage = NEW_CHUNK
    gang.panels = panels_of_piece(panels, job.steps.B, threads)
    gang.gradient_panels = 1
    if job.kernels.outer_product_bytes(1, 1):  # each piece rounds what it multiplies
        gang.gradient_panels = max(
            <ptrdiff_t>1, job.weight_gradients[0].panels // (2 * threads))
    gang.begin = gang.end = job.steps.count
    gang.pieces = max(
        pieces_of(panels, gang.panels),
        pieces_of_gradients(gang, min(
            first_row(&job.steps, gang.end), max(job.chunk_rows, job.steps.B))))


cdef int pieces_of_gradients(const BackwardGang *gang, ptrdiff_t rows) noexcept nogil:
    """What the dz of so many rows is spent on."""
    cdef const Backward *job = gang.groups.jobs
    cdef int pieces = 0 if job.dx.data == NULL else pieces_of(rows, ROWS_OF_PIECE), i
    for i in range(job.weight_gradient_count):
        pieces += pieces_of(job.weight_gradients[i].panels, gang.gradient_panels)
    return pieces


cdef int next_backward_phase(void *argument) noexcept nogil:
    """`next` of team.h: cells and product of each step, and what a chunk's dz is spent on."""
    cdef BackwardGang *gang = <BackwardGang *>argument
    cdef Backward *job = gang.groups.jobs
    cdef const Steps *steps = &job.steps
    cdef int i
    if gang.stage == OF_CELLS:
        gang.stage = OF_PRODUCT
        return pieces_of(job.size.Rp, gang.panels * 4 * job.kernels.lanes)
    if gang.stage == OF_PRODUCT:
        stop_gradients(job, &gang.share, gang.s)
    if gang.stage == OF_PRODUCT and gang.s == gang.begin:
        gang.stage = OF_GRADIENTS
        return pieces_of_gradients(
            gang, first_row(steps, gang.end) - first_row(steps, gang.begin))
    if gang.stage == OF_GRADIENTS:
        for i in range(gang.groups.line_count):
            if gang.groups.lines[i].duty != SUMS:
                gang.groups.lines[i].end = gang.begin
        gang.end = gang.begin
        gang.stage = NEW_CHUNK
    if gang.stage == NEW_CHUNK:
        if gang.end == 0 or now() > gang.until:
            return 0
        gang.begin = chunk_begin(steps, gang.end, job.chunk_rows)
        gang.s = gang.end
        collect(job, &gang.share, &job.chunks[0], gang.begin, gang.end)
    gang.s -= 1
    point_backward_step(
        &gang.todo, job, &gang.share, &job.chunks[0], gang.s,
        first_row(steps, gang.s) - first_row(steps, gang.begin), job.rounded)
    gang.stage = OF_CELLS
    return pieces_of(job.size.P, 4)


cdef void run_backward_piece(void *argument, int piece) noexcept nogil:
    """`run` of team.h."""
    cdef const BackwardGang *gang = <const BackwardGang *>argument
    run_piece_of_stage(gang, piece)
    gang.groups.jobs.kernels.end_task()


cdef void run_piece_of_stage(const BackwardGang *gang, int piece) noexcept nogil:
    cdef const Backward *job = gang.groups.jobs
    cdef const Chunk *chunk = &job.chunks[0]
    cdef ptrdiff_t vectors = gang.panels * 4, lanes = job.kernels.lanes
    cdef void *rounded = job.rounded + piece * job.rounded_size
    cdef const WeightGradient *gradient
    cdef Share share = gang.share
    cdef backward_step todo
    cdef int i, pieces
    if gang.stage == OF_CELLS:
        share.first_panel = 4 * piece
        share.last_panel = min(<ptrdiff_t>4 * (piece + 1), job.size.P)
        if has_resets(&job.steps, gang.s, gang.s + 1):
            reset_backward_cells(
                job, &share, chunk, gang.s,
                first_row(&job.steps, gang.s) - first_row(&job.steps, gang.begin), rounded)
            return
        todo = gang.todo
        todo.first = share.first_panel
        todo.last = share.last_panel
        job.kernels.backward_cells[job.kind](&todo)
        return
    if gang.stage == OF_PRODUCT:
        todo = gang.todo
        todo.rounded = rounded
        multiply_hidden(
            job, &gang.share, &todo, piece * vectors,
            min((piece + 1) * vectors, job.size.Rp // lanes))
        return
    for i in range(job.weight_gradient_count):
        gradient = &job.weight_gradients[i]
        pieces = pieces_of(gradient.panels, gang.gradient_panels)
        if piece < pieces:
            if i == 0 and piece == 0:
                add_bias_gradients(job, chunk, gang.begin, gang.end)
            add_weight_gradient(
                job, gradient, chunk, gang.begin, gang.end, piece * gang.gradient_panels,
                min((piece + 1) * gang.gradient_panels, gradient.panels), rounded)
            return
        piece -= pieces
    input_gradient(
        job, chunk, gang.begin, piece * ROWS_OF_PIECE, min(
            <ptrdiff_t>(piece + 1) * ROWS_OF_PIECE,
            first_row(&job.steps, gang.end) - first_row(&job.steps, gang.begin)), rounded)


cdef void run_backward_together(BackwardGang *gang, int threads) noexcept nogil:
    """Run a job of one group, but for the sums at the end, until `gang.until` has come."""
    cdef team_phases work = team_phases(gang, next_backward_phase, run_backward_piece)
    run_phases(&work, threads)


# --- when -----------------------------------------------------------------------------------------

cdef bint prefer_units(
    ptrdiff_t B, int threads, const Sizes *n, const kernel_table *k,
) noexcept:
    """Whether threads share hidden units, not rows: too few rows, or weights that want two L2."""
    return B < threads or (
        k.weight_rows(n.R) * n.Z * sizeof(real) > (1 << 20) and B < 6 * threads)


cdef int threads_for_step(ptrdiff_t B, const Sizes *n, int most) noexcept:
    """How many threads are worth meeting at each step: that costs a fifth of waking a thread."""
    return <int>min(<ptrdiff_t>min(most, threads_for(5 * <double>B * n.Z * n.R)), n.P)
