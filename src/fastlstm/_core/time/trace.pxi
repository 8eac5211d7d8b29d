# What a tape holds, for the eye.


def copy_from_tape(Tape tape, str name, int block, out):
    """Fill `out` (T, B, F) with h, c, or else with block `block` of the gates; out must be zero."""
    cdef const Sizes *n = &tape.weights.packed.size
    cdef Steps steps = tape.schedule.steps
    cdef ptrdiff_t lanes = tape.weights.packed.kernels.lanes, s, j, p, at
    cdef ptrdiff_t F = n.R if name == "h" else n.H
    cdef SequenceView view = sequence_view(
        "out", out, tape.schedule.T, steps.B, F, written=True)
    cdef real *to
    cdef const real *source
    if name == "c" and tape.c == NULL:
        raise ValueError("name: the cell has no cell state")
    if not -1 <= block < 4:
        raise ValueError(f"block: expected one of a panel's four, got {block}")
    if steps.B == 0 or steps.count == 0:
        return
    for s in range(steps.count):
        for j in range(alive(&steps, s)):
            at = first_row(&steps, s) + j
            to = row_of(&view, &steps, s, j)
            if name == "h":
                memcpy(to, tape.h + (steps.B + at) * n.Rp, F * sizeof(real))
            elif name == "c":
                memcpy(to, tape.c + (steps.B + at) * n.Hp, F * sizeof(real))
            else:
                source = tape.gates + at * n.Z
                for p in range((F + lanes - 1) // lanes):
                    memcpy(to + p * lanes, source + (4 * p + block) * lanes,
                           min(lanes, F - p * lanes) * sizeof(real))
