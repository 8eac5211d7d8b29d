# What threads claim of a backward call. A group of rows has a line for the steps, whose tasks make
# dz chunk by chunk, and behind it lines that spend dz: on dx, and on each weight gradient. The last
# lines add the groups' sums, in the order of the groups.


cdef enum Duty:
    WEIGHTS                     # the lines of a group, in the order in which a thread prefers them:
    INPUT                       # what spends dz while it is warm comes first
    STEPS
    SUMS


cdef struct Groups:              # of a backward call
    Backward *jobs
    int count
    Gradients to
    const Groups *above         # the call of the layer above, whose dx is our dy, or NULL
    int parts                   # into which rows and panels are cut where there are threads
    int pieces                  # of a phase of a gang, or 0
    BackwardLine *lines
    int line_count
    int group_lines             # so many of each group come first


cdef struct BackwardLine:
    const Groups *groups
    const Backward *job         # of the group; of SUMS, the first one
    BackwardLine *group         # the first line of the group
    Duty duty
    int gradient
    int part
    int chunk                   # of the ring, for the next task
    ptrdiff_t end               # the steps before it are still to do
    ptrdiff_t begin             # of the next task
    ptrdiff_t used              # STEPS: what spends dz must have done the steps from here on


cdef bint behind(const BackwardLine *first, int count, Duty duty, ptrdiff_t end) noexcept nogil:
    """Whether any line of this duty has not yet done all steps from `end` on."""
    cdef int i
    for i in range(count):
        if first[i].duty == duty and team_load(&first[i].end) > end:
            return True
    return False


cdef int backward_ready(void *lines, int i) noexcept nogil:
    """`ready` of team.h."""
    cdef const BackwardLine *line = (<const BackwardLine **>lines)[i]
    cdef const Groups *groups = line.groups
    cdef const Groups *above = groups.above
    cdef int count = groups.group_lines
    if line.end == 0:
        return -1
    if line.duty == SUMS:
        return not behind(groups.lines, groups.count * count, WEIGHTS, 0)
    if line.duty != STEPS:
        return not behind(line.group, count, STEPS, line.begin)
    if behind(line.group, count, WEIGHTS, line.used) or behind(
            line.group, count, INPUT, line.used):
        return 0
    return above == NULL or not behind(
        above.lines, above.count * above.group_lines, INPUT, line.begin)


cdef void run_backward_task(void *lines, int i) noexcept nogil:
    """`run` of team.h."""
    cdef BackwardLine *line = (<BackwardLine **>lines)[i]
    cdef const Backward *job = line.job
    cdef const Steps *steps = &job.steps
    cdef const Chunk *chunk = &job.chunks[line.chunk]
    cdef const WeightGradient *gradient = &job.weight_gradients[line.gradient]
    cdef ptrdiff_t part = line.part, parts = line.groups.parts, rows, end = line.end
    cdef void *rounded = job.rounded + (line - line.group) * job.rounded_size
    cdef Share share
    if line.duty == SUMS:
        sum_groups(line.groups.jobs, line.groups.count, &line.groups.to, line.gradient,
                   line.part, line.groups.parts)
        team_store(&line.end, 0)
        return
    if line.duty == STEPS:
        share = Share(part, parts, 0, job.size.P)
        collect(job, &share, chunk, line.begin, end)
        run_backward_steps(job, &share, chunk, line.begin, end, rounded)
        line.used = end if job.ring > 1 else line.begin
    elif line.duty == INPUT:
        rows = first_row(steps, end) - first_row(steps, line.begin)
        input_gradient(
            job, chunk, line.begin, rows * part // parts, rows * (part + 1) // parts, rounded)
    else:
        if line.gradient == 0 and part == 0:
            add_bias_gradients(job, chunk, line.begin, end)
        add_weight_gradient(
            job, gradient, chunk, line.begin, end, gradient.panels * part // parts,
            gradient.panels * (part + 1) // parts, rounded)
    job.kernels.end_task()
    line.chunk = (line.chunk + 1) % job.ring
    end = line.begin
    if end:
        line.begin = chunk_begin(steps, end, job.chunk_rows)
    team_store(&line.end, end)


cdef void append_line(
    Groups *groups, const Backward *job, Duty duty, int gradient, int part,
) noexcept nogil:
    cdef BackwardLine *line = &groups.lines[groups.line_count]
    cdef ptrdiff_t end = job.steps.count
    line.groups = groups
    line.job = job
    line.group = groups.lines + groups.line_count // groups.group_lines * groups.group_lines
    line.duty = duty
    line.gradient = gradient
    line.part = part
    line.chunk = 0
    line.end = line.used = max(end, <ptrdiff_t>(duty == SUMS))
    if duty == INPUT and job.dx.data == NULL:
        line.end = 0
    line.begin = chunk_begin(&job.steps, end, job.chunk_rows) if end else 0
    groups.line_count += 1


cdef void place_lines(Groups *groups, int ring, Memory *memory) noexcept nogil:
    """Memory for the groups and their lines; `parts` and `pieces` are set."""
    cdef int weights = groups.jobs.weight_gradient_count, g, i, part
    groups.group_lines = (weights + 2) * groups.parts
    groups.line_count = 0
    groups.lines = <BackwardLine *>carve_bytes(
        memory, sizeof(BackwardLine) * (
            groups.count * groups.group_lines + weights * groups.parts))
    for g in range(groups.count):
        groups.jobs[g].ring = ring
        place_backward_workspace(&groups.jobs[g], max(groups.group_lines, groups.pieces), memory)
    if groups.lines == NULL:
        return
    for g in range(groups.count):
        for i in range(weights):
            for part in range(groups.parts):
                append_line(groups, &groups.jobs[g], WEIGHTS, i, part)
        for part in range(groups.parts):
            append_line(groups, &groups.jobs[g], INPUT, 0, part)
        for part in range(groups.parts):
            append_line(groups, &groups.jobs[g], STEPS, 0, part)
    for i in range(weights):
        for part in range(groups.parts):
            append_line(groups, groups.jobs, SUMS, i, part)


cdef void run_backward_alone(Groups *groups) noexcept nogil:
    """All of a call in this thread."""
    cdef BackwardLine *lines[TEAM_MOST_LINES]
    cdef team_lines work = team_lines(
        &lines[0], groups.line_count, groups.group_lines, backward_ready, run_backward_task)
    cdef int i
    for i in range(groups.line_count):
        lines[i] = &groups.lines[i]
    run_lines(&work, 1, INT64_MAX)
