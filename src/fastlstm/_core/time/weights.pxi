# Weights as the kernels want them.
#
# Packing is C and needs no interpreter, so that plans of the C API (plan.pxi) share it.


cdef enum:
    PARTS = 4                    # of large parameters, which threads share


cdef struct Fingerprint:
    const kernel_table *kernels
    const real *params
    ptrdiff_t n
    int parts                   # each a line of one task, see team.h
    bint[PARTS] done
    real_bits *out              # (parts, fingerprint_reals)


cdef int fingerprint_ready(void *argument, int part) noexcept nogil:
    return -1 if (<const Fingerprint *>argument).done[part] else 1


cdef void fingerprint_part(void *argument, int part) noexcept nogil:
    cdef Fingerprint *job = <Fingerprint *>argument
    cdef ptrdiff_t begin = job.n * part // job.parts
    job.kernels.fingerprint(
        job.out + part * job.kernels.fingerprint_reals, job.params + begin,
        job.n * (part + 1) // job.parts - begin)
    job.done[part] = True


cdef bytes fingerprint_of(const real *params, ptrdiff_t n):
    """Bytes that are equal for equal parameters, and otherwise different (see fingerprint.h)."""
    cdef real_bits out[PARTS * MOST_FINGERPRINT_REALS]
    cdef Fingerprint job
    cdef team_lines work
    job.kernels = kernels()
    job.params = params
    job.n = n
    job.parts = PARTS if n > 500_000 else 1
    job.out = out
    if job.parts == 1:
        fingerprint_part(&job, 0)
    else:
        memset(job.done, 0, sizeof(job.done))
        work = team_lines(&job, job.parts, 1, fingerprint_ready, fingerprint_part)
        with nogil:
            run_lines(&work, threads_for(n), now() + UNINTERRUPTED)
    return PyBytes_FromStringAndSize(
        <char *>out, job.parts * job.kernels.fingerprint_reals * sizeof(real_bits))


def fingerprint(const real[::1] params):
    """The same of an array."""
    return fingerprint_of(&params[0], params.shape[0])


cdef struct Sizes:
    ptrdiff_t I, H, R
    ptrdiff_t Ip, Hp, Rp        # rounded up to whole vectors
    ptrdiff_t Z                 # reals in a row of gates
    ptrdiff_t P                 # panels of gates
    ptrdiff_t N                 # rows of W_ih: gates * H
    ptrdiff_t N_h               # rows of W_hh that multiply h itself: the GRU may reset some before


# Orders for pack_gates: which of the user's gates each block of a panel is.
cdef int[4] LSTM_ORDER = [1, 0, 2, 3]
cdef int[4] COUPLED_BIAS_ORDER = [-1, 0, 1, 2]
cdef int[4] GRU_ORDER = [2, 0, 1, 3]
cdef int[4] RESET_BEFORE_ORDER = [2, 0, 1, -1]
cdef int[4] AS_GIVEN = [0, 1, 2, -1]  # W_hh of the GRU, weights of the coupled LSTM


cdef activation activation_of(tuple given) except *:
    """From kind, alpha and beta; the kinds are numbered in csrc/kernels.h."""
    return activation(given[0], given[1], given[2])


cdef real bound_of(object bound) except? -1:
    return INFINITY if bound is None else bound


cdef struct Matrix:              # as the user has it, of any strides; data is NULL if there is none
    const real *data
    ptrdiff_t row_stride
    ptrdiff_t column_stride


cdef struct Given:               # the parameters of one layer and direction
    Matrix w_ih                 # (N, I)
    Matrix w_hh                 # (N, R)
    Matrix b                    # (1, N), or (1, 4H) for the GRU
    Matrix peephole             # (3, H), coupled (2, H)
    Matrix w_proj               # (R, H)
    Matrix layer_norm           # (2 * gates + 2, H)


cdef Matrix matrix_of(const real[:, :] w) noexcept:
    if w is None:
        return Matrix(NULL, 0, 0)
    return Matrix(&w[0, 0], w.strides[0] // <ptrdiff_t>sizeof(real),
                  w.strides[1] // <ptrdiff_t>sizeof(real))


cdef inline Matrix from_row(Matrix w, ptrdiff_t first) noexcept nogil:
    return Matrix(w.data + first * w.row_stride, w.row_stride, w.column_stride)


cdef inline Matrix transposed(Matrix w) noexcept nogil:
    return Matrix(w.data, w.column_stride, w.row_stride)


cdef struct PackedWeights:
    const kernel_table *kernels
    const kernel_table *backward_kernels  # those of reals, where weights are int8
    int kind                    # of cell; LSTM stands for LSTM_VARIANT too where masks ask for it
    Sizes size
    cell_options options
    extra_parts parts
    gradient_parts gradients
    const real *w_ih            # pack_gates; RNN: pack_columns of the transposed
    const real *w_hh
    const real *b               # (Z,)
    const real *w_ih_columns
    const real *w_hh_columns


cdef inline bint has_c(int kind) noexcept nogil:
    """Whether the cell has a state c beside h."""
    return kind == LSTM or kind == LSTM_VARIANT


cdef inline bint takes_whole_rows(int kind) noexcept nogil:
    """Whether a step wants all hidden units of a row, so that threads cannot share them."""
    return kind == LSTM_VARIANT or kind == GRU_RESET_BEFORE


cdef int lstm_kind(const cell_options *options, const Given *given) noexcept nogil:
    """LSTM if nothing differs from the plain one, else LSTM_VARIANT."""
    if (options.coupled or options.clip != INFINITY or options.cell_clip != INFINITY
            or options.gate.kind != SIGMOID or options.candidate.kind != TANH
            or options.output.kind != TANH or given.peephole.data != NULL
            or given.w_proj.data != NULL or given.layer_norm.data != NULL):
        return LSTM_VARIANT
    return LSTM


cdef Sizes sizes_of(const PackedWeights *to, ptrdiff_t I, ptrdiff_t R, ptrdiff_t N) noexcept nogil:
    cdef ptrdiff_t lanes = to.kernels.lanes
    cdef Sizes n
    n.N = N
    n.H = N
    if to.kind == LSTM or to.kind == LSTM_VARIANT:
        n.H = N // (3 if to.options.coupled else 4)
    elif to.kind != RNN:
        n.H = N // 3
    n.N_h = 2 * n.H if to.kind == GRU_RESET_BEFORE else N
    n.I = I
    n.R = R
    n.Ip = (I + lanes - 1) // lanes * lanes
    n.Hp = (n.H + lanes - 1) // lanes * lanes
    n.Rp = (R + lanes - 1) // lanes * lanes
    n.Z = n.Hp if to.kind == RNN else 4 * n.Hp
    n.P = (n.Z + 4 * lanes - 1) // (4 * lanes)
    return n


cdef inline ptrdiff_t bias_size(const PackedWeights *of) noexcept nogil:
    """The GRU that resets after the product has a bias within the reset besides."""
    return of.size.N + (of.size.H if of.kind == GRU else 0)


cdef void set_parts(PackedWeights *to) noexcept nogil:
    """Where things are in the rows of extra and of gradients, see kernels.h."""
    cdef const Sizes *n = &to.size
    cdef extra_parts *e = &to.parts
    cdef gradient_parts *g = &to.gradients
    memset(e, 0, sizeof(extra_parts))
    memset(g, 0, sizeof(gradient_parts))
    g.size = n.N
    if to.kind == GRU:
        g.h = n.N
        g.size = 2 * n.N
    if to.kind == GRU_RESET_BEFORE:
        e.h = n.Hp
        e.size = 2 * n.Hp
    if to.kind != LSTM and to.kind != LSTM_VARIANT:
        return
    e.m = n.Hp
    e.h = 2 * n.Hp
    e.norm_x = n.Hp if to.options.w_proj == NULL else 2 * n.Hp + n.Rp
    e.norm_h = e.norm_x + n.Z
    e.norm_c = e.norm_h + n.Z
    e.scales = e.norm_c + n.Hp
    e.size = e.norm_x
    if to.options.norm != NULL:
        e.size = e.scales + max(to.kernels.lanes, 4)
        g.h = n.N
        g.b = 2 * n.N
    g.u = g.b + n.N
    g.proj = g.u + n.H
    if to.kind == LSTM_VARIANT:
        g.size = g.proj + (0 if to.options.w_proj == NULL else n.R)


cdef const real *columns(
    const kernel_table *k, Memory *memory, Matrix w, ptrdiff_t K, ptrdiff_t N,
) noexcept nogil:
    """pack_column_weights of w (K, N)."""
    cdef real *panels = carve(memory, k.weight_rows(K), (N + k.lanes - 1) // k.lanes * k.lanes)
    if panels != NULL and K and N:
        k.pack_column_weights(panels, w.data, w.row_stride, w.column_stride, K, N)
    return panels


cdef const real *panels(
    const PackedWeights *to, Memory *memory, Matrix w, ptrdiff_t K, const int *order,
    ptrdiff_t blocks,
) noexcept nogil:
    """pack_gate_weights of w (gates * H, K)."""
    cdef real *packed = carve(memory, blocks * to.size.Hp, to.kernels.weight_rows(K))
    if packed != NULL and K:
        to.kernels.pack_gate_weights(
            packed, w.data, w.row_stride, w.column_stride, to.size.H, K, order, blocks)
    return packed


cdef Matrix as_multiplied(
    const PackedWeights *to, Memory *memory, Matrix w, ptrdiff_t N, ptrdiff_t K,
) noexcept nogil:
    """w (N, K), in int8 rounded: what the backward call is to multiply with."""
    cdef ptrdiff_t n
    cdef real *rounded
    if to.kernels.rounded_weights == NULL or w.data == NULL:
        return w
    rounded = carve(memory, N, K)
    if rounded != NULL:
        for n in range(N):
            to.kernels.rounded_weights(
                rounded + n * K, w.data + n * w.row_stride, w.column_stride, K)
    return Matrix(rounded, K, 1)


cdef const real *pack_bias(
    const PackedWeights *to, Memory *memory, Matrix b, const int *order,
) noexcept nogil:
    """A row of gates (P, 4, LANES)."""
    cdef real *packed
    if b.data == NULL:
        return carve_zeros(memory, 1, to.size.Z)
    packed = carve(memory, 1, to.size.Z)
    if packed == NULL:
        return NULL
    if to.kind == RNN:
        to.kernels.pack_columns(packed, b.data, b.row_stride, b.column_stride, 1, to.size.H)
    else:
        to.kernels.pack_gates(
            packed, b.data, b.column_stride, b.row_stride, to.size.H, 1, order, 4)
    return packed


cdef const real *pack_peephole(
    const PackedWeights *to, Memory *memory, Matrix peephole,
) noexcept nogil:
    """(3, Hp): i, f, o from (3, H), or from (2, H): i, o."""
    cdef ptrdiff_t Hp = to.size.Hp, unit, given = 0, gate
    cdef real *packed = carve_zeros(memory, 3, Hp)
    cdef Matrix of_gate
    if packed == NULL:
        return NULL
    for gate in range(3):
        if gate == 1 and to.options.coupled:
            continue
        of_gate = from_row(peephole, given)
        given += 1
        for unit in range(to.size.H):
            packed[gate * Hp + unit] = of_gate.data[unit * of_gate.column_stride]
    return packed


cdef const real *pack_norm(const PackedWeights *to, Memory *memory, Matrix norm) noexcept nogil:
    """Gains (Z,) of x and of h, gain and shift (Hp,) of c, from rows of H."""
    cdef ptrdiff_t Z = to.size.Z, Hp = to.size.Hp, H = to.size.H, half, unit
    cdef ptrdiff_t gates = 3 if to.options.coupled else 4
    cdef const int *order = LSTM_ORDER
    cdef real *packed = carve_zeros(memory, 2, Z + Hp)
    cdef Matrix of_gates, of_c
    if packed == NULL:
        return NULL
    if to.options.coupled:
        order = COUPLED_BIAS_ORDER
    for half in range(2):
        of_gates = from_row(norm, half * gates)
        of_c = from_row(norm, 2 * gates + half)
        to.kernels.pack_gates(
            packed + half * Z, of_gates.data, of_gates.column_stride, 0, H, 1, order, 4)
        for unit in range(H):
            packed[2 * Z + half * Hp + unit] = of_c.data[unit * of_c.column_stride]
    return packed


cdef inline bint is_within_1(const activation *a) noexcept nogil:
    return a.kind in (SIGMOID, TANH, HARD_SIGMOID, SOFTSIGN)


cdef bint is_bounded(const PackedWeights *of, const Given *given) noexcept nogil:
    """Whether |h| <= 1 if |h_0| is."""
    cdef const cell_options *options = &of.options
    if has_c(of.kind):
        return (given.w_proj.data == NULL and is_within_1(&options.gate)
                and is_within_1(&options.output))
    return is_within_1(&options.gate) and (of.kind == RNN or is_within_1(&options.candidate))


cdef void pack(PackedWeights *to, Memory *memory, const Given *given) noexcept nogil:
    """Pack what the forward step needs, or measure it; kernels, kind, options, size are set."""
    cdef const Sizes *n = &to.size
    cdef Matrix w_ih = given.w_ih, w_hh = given.w_hh
    cdef const int *bias_order = LSTM_ORDER
    to.options.bounded = is_bounded(to, given)
    if to.kind == RNN:
        to.w_ih = columns(to.kernels, memory, transposed(w_ih), n.I, n.H)
        to.w_hh = columns(to.kernels, memory, transposed(w_hh), n.R, n.H)
    elif to.kind == GRU:
        bias_order = GRU_ORDER
        to.w_ih = panels(to, memory, w_ih, n.I, GRU_ORDER, 3)
        to.w_hh = panels(to, memory, w_hh, n.R, AS_GIVEN, 3)
    elif to.kind == GRU_RESET_BEFORE:
        bias_order = RESET_BEFORE_ORDER
        to.w_ih = panels(to, memory, w_ih, n.I, RESET_BEFORE_ORDER, 3)
        to.w_hh = panels(to, memory, w_hh, n.R, AS_GIVEN, 2)
        to.options.w_hn = columns(
            to.kernels, memory, transposed(from_row(w_hh, 2 * n.H)), n.H, n.H)
    elif to.options.coupled:
        bias_order = COUPLED_BIAS_ORDER
        to.w_ih = panels(to, memory, w_ih, n.I, AS_GIVEN, 3)
        to.w_hh = panels(to, memory, w_hh, n.R, AS_GIVEN, 3)
    else:
        to.w_ih = panels(to, memory, w_ih, n.I, LSTM_ORDER, 4)
        to.w_hh = panels(to, memory, w_hh, n.R, LSTM_ORDER, 4)
    to.b = pack_bias(to, memory, given.b, bias_order)
    if given.peephole.data != NULL:
        to.options.peephole = pack_peephole(to, memory, given.peephole)
    if given.layer_norm.data != NULL:
        to.options.norm = pack_norm(to, memory, given.layer_norm)
    if given.w_proj.data != NULL:
        to.options.w_proj = columns(to.kernels, memory, transposed(given.w_proj), n.H, n.R)
    set_parts(to)


cdef void pack_backward(PackedWeights *to, Memory *memory, const Given *given) noexcept nogil:
    """Pack what the backward step needs besides, or measure it."""
    cdef const Sizes *n = &to.size
    cdef const kernel_table *k = to.backward_kernels
    cdef Matrix w_hh = as_multiplied(to, memory, given.w_hh, n.N, n.R)
    cdef Matrix w_proj = as_multiplied(to, memory, given.w_proj, n.R, n.H)
    to.w_ih_columns = columns(
        k, memory, as_multiplied(to, memory, given.w_ih, n.N, n.I), n.N, n.I)
    to.w_hh_columns = columns(k, memory, w_hh, n.N_h, n.R)
    if given.w_proj.data != NULL:
        to.options.w_proj_columns = columns(k, memory, w_proj, n.R, n.H)
    if to.kind == GRU_RESET_BEFORE:
        to.options.w_hn_columns = columns(k, memory, from_row(w_hh, n.N_h), n.H, n.H)


cdef int set_compute_dtype(PackedWeights *to, str compute_dtype, ptrdiff_t most) except -1:
    """Multiply in fewer bits; `most` is the largest number of products in a sum."""
    if sizeof(real) == sizeof(double):
        raise TypeError(f"compute_dtype: expected None in float64, got {compute_dtype!r}")
    to.kernels = <const kernel_table *>kernels_in(compute_dtype)
    if to.kernels.rounded_weights == NULL:
        to.backward_kernels = to.kernels
    elif most > MOST_INT8_PRODUCTS:
        raise ValueError(
            f"compute_dtype: int8 takes at most {MOST_INT8_PRODUCTS} inputs and units, got {most}")
    return 0


cdef class Weights:
    """Packed weights of one layer and direction. They keep no reference to the arrays given."""

    cdef PackedWeights packed
    cdef Buffer forward_buffer
    cdef Buffer backward_buffer

    @property
    def H(self):
        """Number of hidden units."""
        return self.packed.size.H

    def __init__(
        self, str cell, const real[:, :] w_ih, const real[:, :] w_hh, const real[:, :] b, *,
        bint reset_after=True, const real[:, :] peephole=None, const real[:, :] w_proj=None,
        const real[:, ::1] layer_norm=None, bint coupled=False, clip=None, cell_clip=None,
        proj_clip=None, tuple activations, isa=None, str compute_dtype=None,
    ):
        """b is (1, its length); activations are tuples of kind, alpha, beta.

        isa: None for the instruction set in use.
        """
        cdef PackedWeights *packed = &self.packed
        cdef cell_options *options = &packed.options
        cdef ptrdiff_t I = w_ih.shape[1], R = w_hh.shape[1], N = w_hh.shape[0]
        cdef Memory memory = Memory(NULL, 0)
        cdef Given given
        cdef Buffer buffer
        packed.kernels = packed.backward_kernels = kernels()
        if isa is not None:
            packed.kernels = packed.backward_kernels = <const kernel_table *>kernels_named(
                isa, sizeof(real) == sizeof(double))
        if compute_dtype is not None:
            set_compute_dtype(packed, compute_dtype, max(I, R, N // 4))
        options.clip = bound_of(clip)
        options.cell_clip = bound_of(cell_clip)
        options.proj_clip = bound_of(proj_clip)
        options.coupled = coupled
        options.gate = activation_of(activations[0])
        if len(activations) > 1:
            options.candidate = activation_of(activations[1])
        if len(activations) > 2:
            options.output = activation_of(activations[2])
        given = Given(
            matrix_of(w_ih), matrix_of(w_hh), matrix_of(b), matrix_of(peephole),
            matrix_of(w_proj), matrix_of(layer_norm))
        if cell == "lstm":
            packed.kind = lstm_kind(options, &given)
        elif cell == "gru":
            packed.kind = GRU if reset_after else GRU_RESET_BEFORE
        else:
            packed.kind = RNN
        packed.size = sizes_of(packed, I, R, N)
        self.check(w_ih, w_hh, w_proj)
        self.check_rest(b, peephole, layer_norm)
        pack(packed, &memory, &given)
        buffer = Buffer(memory.used)
        memory = memory_of(buffer)
        pack(packed, &memory, &given)
        self.forward_buffer = buffer

    cdef int check(
        self, const real[:, :] w_ih, const real[:, :] w_hh, const real[:, :] w_proj,
    ) except -1:
        """Raise ValueError unless these have the shapes that the sizes demand."""
        cdef const Sizes *n = &self.packed.size
        if n.H < 1 or n.R < 1 or n.N % n.H:
            raise ValueError(f"w_hh: expected gates of one size, got {(n.N, n.R)}")
        if w_proj is None and n.R != n.H:
            raise ValueError(f"w_hh: expected {(n.N, n.H)}, got {(n.N, n.R)}")
        check_matrix("w_ih", w_ih, n.N, n.I)
        check_matrix("w_hh", w_hh, n.N, n.R)
        check_matrix("w_proj", w_proj, n.R, n.H, has_c(self.packed.kind))
        return 0

    cdef int check_rest(
        self, const real[:, :] b, const real[:, :] peephole, const real[:, :] layer_norm,
    ) except -1:
        cdef const Sizes *n = &self.packed.size
        cdef bint is_lstm = has_c(self.packed.kind)
        check_matrix("b", b, 1, bias_size(&self.packed))
        check_matrix("peephole", peephole, n.N // n.H - 1, n.H, is_lstm)
        check_matrix("layer_norm", layer_norm, 2 * (n.N // n.H) + 2, n.H, is_lstm)
        return 0

    def prepare_backward(
        self, const real[:, :] w_ih, const real[:, :] w_hh, const real[:, :] w_proj=None,
    ):
        """Pack the same weights for the backward step too."""
        cdef Memory memory = Memory(NULL, 0)
        cdef Matrix none = Matrix(NULL, 0, 0)
        cdef Given given
        cdef Buffer buffer
        if self.backward_buffer is not None:
            return
        if (w_proj is None) != (self.packed.options.w_proj == NULL):
            raise ValueError("w_proj: expected what the forward step was packed with")
        self.check(w_ih, w_hh, w_proj)
        given = Given(matrix_of(w_ih), matrix_of(w_hh), none, none, matrix_of(w_proj), none)
        pack_backward(&self.packed, &memory, &given)
        buffer = Buffer(memory.used)
        memory = memory_of(buffer)
        pack_backward(&self.packed, &memory, &given)
        self.backward_buffer = buffer
