# The tape: what training keeps of a forward call, in one piece of memory.


cdef void place_tape(Forward *job, Memory *memory) noexcept nogil:
    """Memory for what training keeps."""
    cdef const Sizes *n = &job.size
    cdef ptrdiff_t B = job.steps.B, rows = first_row(&job.steps, job.steps.count)
    job.gates = carve(memory, rows, n.Z)
    job.extra = carve(memory, rows, job.parts.size if job.kind != LSTM else 0)
    job.h = carve(memory, B + rows, n.Rp)
    job.c = NULL
    if has_c(job.kind):
        job.c = carve(memory, B + rows, n.Hp)


def tape_bytes(Weights weights, rows, B):
    """Bytes that `place_tape` takes without masks; rows and B may be symbols, as PyTorch has."""
    cdef const Sizes *n = &weights.packed.size
    cdef int kind = weights.packed.kind
    widths = [
        rows * n.Z, rows * (weights.packed.parts.size if kind != LSTM else 0), (B + rows) * n.Rp]
    if kind == LSTM or kind == LSTM_VARIANT:
        widths.append((B + rows) * n.Hp)
    return sum((width * sizeof(real) + 63) // 64 * 64 for width in widths)


cdef class Tape:
    """What `backward` needs of a forward call: gates, cell and hidden states, and x itself.

    All but x is one piece of memory. With it, weights, x and the arguments of `forward` a tape can
    be made again, so that others may keep it as plain bytes.
    """

    cdef Weights weights
    cdef Schedule schedule
    cdef Masks masks
    cdef int kind
    cdef readonly object x
    cdef SequenceView view      # of x
    cdef readonly object memory
    cdef readonly Py_ssize_t nbytes
    cdef real *gates
    cdef real *extra
    cdef real *h
    cdef real *c

    def __init__(
        self, Weights weights not None, x not None,
        unsigned char[::1] memory not None, *, const ptrdiff_t[::1] lengths=None,
        bint reverse=False, bint concatenated=False, const unsigned char[:, :] resets=None,
    ):
        """The tape of a call without masks, from x as the core had it and what was `memory`."""
        cdef Schedule schedule = schedule_of(x, lengths, reverse, concatenated, resets)
        cdef SequenceView view = schedule.view("x", x, weights.packed.size.I)
        cdef Memory parts = Memory(NULL, 0)
        cdef Forward job
        begin_forward(&job, &weights.packed, &schedule.steps, True)
        place_tape(&job, &parts)
        if <size_t>memory.shape[0] != parts.used:
            raise ValueError(f"memory: expected {parts.used} bytes, got {memory.shape[0]}")
        if <size_t>&memory[0] % sizeof(real):
            raise ValueError("memory: expected an aligned array")
        parts = Memory(<char *>&memory[0], 0)
        place_tape(&job, &parts)
        job.x = view
        self.memory = memory
        self.set(&job, weights, schedule, x, parts.used)

    cdef void set(
        self, const Forward *job, Weights weights, Schedule schedule, object x, size_t nbytes,
    ) noexcept:
        self.weights = weights
        self.schedule = schedule
        self.kind = job.kind
        self.x = x
        self.view = job.x
        self.nbytes = nbytes
        self.gates = job.gates
        self.extra = job.extra
        self.h = job.h
        self.c = job.c


cdef Schedule schedule_of(
    object x, const ptrdiff_t[::1] lengths, bint reverse, bint concatenated,
    const unsigned char[:, :] resets,
):
    """The steps of x."""
    cdef Schedule schedule
    check_layout("x", x, 3, False)
    if not concatenated:
        return new_schedule(
            cnp.PyArray_DIM(x, 0), cnp.PyArray_DIM(x, 1), lengths, reverse, resets)
    if lengths is None or lengths.shape[0] == 0:
        raise ValueError("lengths: expected some with concatenated=True")
    schedule = new_schedule(lengths[0], lengths.shape[0], lengths, reverse, resets)
    schedule.concatenated = True
    return schedule


cdef Tape new_tape(Forward *job, Weights weights, Schedule schedule, Masks masks, object x):
    """Memory for the tape of a call whose job is set."""
    cdef Memory memory = Memory(NULL, 0)
    cdef Tape tape = Tape.__new__(Tape)
    cdef Buffer buffer
    place_tape(job, &memory)
    tape.memory = buffer = Buffer(memory.used)
    memory = memory_of(buffer)
    place_tape(job, &memory)
    clear_gaps(job, &memory)
    tape.masks = masks
    tape.set(job, weights, schedule, x, memory.used)
    return tape


cdef void clear_gaps(const Forward *job, const Memory *memory) noexcept nogil:
    """Set to 0 what no step writes, so that equal calls make equal bytes."""
    cdef size_t gap = 64 + MEMORY_GAP
    cdef char *h_end = memory.start + memory.used if job.c == NULL else <char *>job.c
    cdef char *ends[4]
    cdef int i
    if memory.used == 0:
        return
    memory_open(memory.start, memory.used)
    if job.size.R != job.size.Rp:
        memset(job.h, 0, h_end - <char *>job.h)
    ends[:] = [<char *>job.extra, <char *>job.h, h_end, memory.start + memory.used]
    for i in range(4):
        if ends[i] >= memory.start + gap:
            memset(ends[i] - gap, 0, gap)
    for i in range(4):
        if ends[i] >= memory.start + gap:
            memory_close(ends[i] - MEMORY_GAP, MEMORY_GAP)
