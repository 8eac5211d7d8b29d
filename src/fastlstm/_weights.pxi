# Weights as the kernels want them.


cdef enum:
    PARTS = 4                    # of large parameters, which threads share


cdef struct Fingerprint:
    const kernel_table *kernels
    const real *params
    ptrdiff_t n
    int parts
    real_bits *out              # (parts, fingerprint_reals)


cdef void fingerprint_thread(void *argument, int thread, int threads) noexcept nogil:
    cdef const Fingerprint *job = <const Fingerprint *>argument
    cdef ptrdiff_t begin, i = thread
    while i < job.parts:
        begin = job.n * i // job.parts
        job.kernels.fingerprint(
            job.out + i * job.kernels.fingerprint_reals, job.params + begin,
            job.n * (i + 1) // job.parts - begin)
        i += threads


def fingerprint(const real[::1] params):
    """Bytes that are equal for equal parameters, and otherwise different (see fingerprint.h)."""
    cdef real_bits out[PARTS * 8 * MOST_LANES]
    cdef ptrdiff_t n = params.shape[0]
    cdef Fingerprint job
    job.kernels = kernels()
    job.params = &params[0]
    job.n = n
    job.parts = PARTS if n > 500_000 else 1
    job.out = out
    if job.parts == 1:
        fingerprint_thread(&job, 0, 1)
    else:
        with nogil:
            run_team(fingerprint_thread, &job, threads_for(n))
    return PyBytes_FromStringAndSize(
        <char *>out, job.parts * job.kernels.fingerprint_reals * sizeof(real_bits))


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

ACTIVATIONS = (  # in the order of csrc/kernels.h
    "sigmoid", "tanh", "relu", "affine", "leaky_relu", "thresholded_relu", "scaled_tanh",
    "hard_sigmoid", "elu", "softsign", "softplus")
PLAIN_LSTM = (("sigmoid", 0.0, 0.0), ("tanh", 0.0, 0.0), ("tanh", 0.0, 0.0))


cdef activation activation_of(tuple given) except *:
    """Name, alpha, beta as the kernels want them."""
    cdef activation a
    a.kind = ACTIVATIONS.index(given[0])
    a.alpha = given[1]
    a.beta = given[2]
    return a


cdef real bound_of(object bound) except? -1:
    return INFINITY if bound is None else bound


cdef inline ptrdiff_t stride(const real[:, :] w, int axis) noexcept:
    return w.strides[axis] // <ptrdiff_t>sizeof(real)


cdef class Weights:
    """Packed weights of one layer and direction. They keep no reference to the arrays given."""

    cdef const kernel_table *kernels
    cdef int kind               # of cell; LSTM stands for LSTM_VARIANT too where masks ask for it
    cdef Sizes size
    cdef cell_options options
    cdef extra_parts parts
    cdef gradient_parts gradients
    cdef list buffers
    cdef bint has_backward
    cdef const real *w_ih       # pack_gates; RNN: pack_columns of the transposed
    cdef const real *w_hh
    cdef const real *b          # (Z,)
    cdef const real *w_ih_columns
    cdef const real *w_hh_columns

    @property
    def H(self):
        """Number of hidden units."""
        return self.size.H

    def __init__(
        self, str cell, const real[:, :] w_ih, const real[:, :] w_hh, const real[:, :] b, *,
        bint reset_after=True, const real[:, :] peephole=None, const real[:, :] w_proj=None,
        const real[:, :] layer_norm=None, bint coupled=False, clip=None, cell_clip=None,
        proj_clip=None, tuple activations=PLAIN_LSTM,
    ):
        """b is (1, its length); activations are tuples of name, alpha, beta."""
        self.kernels = kernels()
        self.buffers = []
        self.options.clip = bound_of(clip)
        self.options.cell_clip = bound_of(cell_clip)
        self.options.proj_clip = bound_of(proj_clip)
        self.options.coupled = coupled
        self.options.gate = activation_of(activations[0])
        if len(activations) > 1:
            self.options.candidate = activation_of(activations[1])
        if len(activations) > 2:
            self.options.output = activation_of(activations[2])
        if cell == "lstm":
            self.kind = LSTM
            if (coupled or peephole is not None or w_proj is not None or layer_norm is not None
                    or clip is not None or cell_clip is not None
                    or [a[0] for a in activations] != ["sigmoid", "tanh", "tanh"]):
                self.kind = LSTM_VARIANT
        elif cell == "gru":
            self.kind = GRU if reset_after else GRU_RESET_BEFORE
        else:
            self.kind = RNN
        self.size = self.sizes(w_ih.shape[1], w_hh.shape[1], w_hh.shape[0])
        self.pack(w_ih, w_hh, b)
        if peephole is not None:
            self.options.peephole = self.pack_peephole(peephole)
        if layer_norm is not None:
            self.options.norm = self.pack_norm(layer_norm)
        if w_proj is not None:
            self.options.w_proj = self.columns(
                w_proj, 0, stride(w_proj, 1), stride(w_proj, 0), self.size.H, self.size.R)
        self.set_parts()

    cdef Sizes sizes(self, ptrdiff_t I, ptrdiff_t R, ptrdiff_t N) noexcept:
        cdef ptrdiff_t lanes = self.kernels.lanes
        cdef Sizes n
        n.N = N
        n.H = N
        if self.kind == LSTM or self.kind == LSTM_VARIANT:
            n.H = N // (3 if self.options.coupled else 4)
        elif self.kind != RNN:
            n.H = N // 3
        n.N_h = 2 * n.H if self.kind == GRU_RESET_BEFORE else N
        n.I = I
        n.R = R
        n.Ip = (I + lanes - 1) // lanes * lanes
        n.Hp = (n.H + lanes - 1) // lanes * lanes
        n.Rp = (R + lanes - 1) // lanes * lanes
        n.Z = n.Hp if self.kind == RNN else 4 * n.Hp
        n.P = (n.Z + 4 * lanes - 1) // (4 * lanes)
        return n

    cdef void set_parts(self) noexcept:
        """Where things are in the rows of extra and of gradients, see kernels.h."""
        cdef Sizes *n = &self.size
        cdef extra_parts *e = &self.parts
        cdef gradient_parts *g = &self.gradients
        memset(e, 0, sizeof(extra_parts))
        memset(g, 0, sizeof(gradient_parts))
        g.size = n.N
        if self.kind == GRU:
            g.h = n.N
            g.size = 2 * n.N
        if self.kind == GRU_RESET_BEFORE:
            e.h = n.Hp
            e.size = 2 * n.Hp
        if self.kind != LSTM and self.kind != LSTM_VARIANT:
            return
        e.m = n.Hp
        e.h = 2 * n.Hp
        e.norm_x = n.Hp if self.options.w_proj == NULL else 2 * n.Hp + n.Rp
        e.norm_h = e.norm_x + n.Z
        e.norm_c = e.norm_h + n.Z
        e.scales = e.norm_c + n.Hp
        e.size = e.norm_x
        if self.options.norm != NULL:
            e.size = e.scales + max(self.kernels.lanes, 4)
            g.h = n.N
            g.b = 2 * n.N
        g.u = g.b + n.N
        g.proj = g.u + n.H
        if self.kind == LSTM_VARIANT:
            g.size = g.proj + (0 if self.options.w_proj == NULL else n.R)

    cdef real *take(self, size_t count) except NULL:
        """Memory for this many reals, as long as these weights live."""
        cdef Buffer buffer = Buffer(max(count, <size_t>1) * sizeof(real))
        self.buffers.append(buffer)
        return <real *>buffer.take(count * sizeof(real))

    cdef const real *columns(
        self, const real[:, :] w, ptrdiff_t first, ptrdiff_t row_stride, ptrdiff_t column_stride,
        ptrdiff_t K, ptrdiff_t N,
    ) except NULL:
        """pack_columns of a (K, N) view of w that begins with its row `first`."""
        cdef ptrdiff_t lanes = self.kernels.lanes
        cdef real *panels = self.take(K * ((N + lanes - 1) // lanes * lanes))
        if K and N:
            self.kernels.pack_columns(panels, &w[first, 0], row_stride, column_stride, K, N)
        return panels

    cdef const real *panels(
        self, const real[:, :] w, const int *order, ptrdiff_t blocks,
    ) except NULL:
        """pack_gates of w."""
        cdef Sizes *n = &self.size
        cdef ptrdiff_t K = w.shape[1]
        cdef real *panels = self.take(blocks * n.Hp * K)
        if K:
            self.kernels.pack_gates(
                panels, &w[0, 0], stride(w, 0), stride(w, 1), n.H, K, order, blocks)
        return panels

    cdef const real *vector(self, const real[:, :] b, const int *order) except NULL:
        """A row of gates (P, 4, LANES) from b (1, gates * H)."""
        cdef Sizes *n = &self.size
        cdef real *row = self.take(n.Z)
        self.kernels.pack_gates(row, &b[0, 0], stride(b, 1), 0, n.H, 1, order, 4)
        return row

    cdef int pack(
        self, const real[:, :] w_ih, const real[:, :] w_hh, const real[:, :] b,
    ) except -1:
        cdef Sizes *n = &self.size
        cdef real *zeros
        cdef const int *bias_order = LSTM_ORDER
        if self.kind == RNN:
            self.w_ih = self.columns(w_ih, 0, stride(w_ih, 1), stride(w_ih, 0), n.I, n.H)
            self.w_hh = self.columns(w_hh, 0, stride(w_hh, 1), stride(w_hh, 0), n.R, n.H)
        elif self.kind == GRU:
            bias_order = GRU_ORDER
            self.w_ih = self.panels(w_ih, GRU_ORDER, 3)
            self.w_hh = self.panels(w_hh, AS_GIVEN, 3)
        elif self.kind == GRU_RESET_BEFORE:
            bias_order = RESET_BEFORE_ORDER
            self.w_ih = self.panels(w_ih, RESET_BEFORE_ORDER, 3)
            self.w_hh = self.panels(w_hh, AS_GIVEN, 2)
            self.options.w_hn = self.columns(
                w_hh, 2 * n.H, stride(w_hh, 1), stride(w_hh, 0), n.H, n.H)
        elif self.options.coupled:
            bias_order = COUPLED_BIAS_ORDER
            self.w_ih = self.panels(w_ih, AS_GIVEN, 3)
            self.w_hh = self.panels(w_hh, AS_GIVEN, 3)
        else:
            self.w_ih = self.panels(w_ih, LSTM_ORDER, 4)
            self.w_hh = self.panels(w_hh, LSTM_ORDER, 4)
        if b is None:
            zeros = self.take(n.Z)
            memset(zeros, 0, n.Z * sizeof(real))
            self.b = zeros
        elif self.kind == RNN:
            self.b = self.columns(b, 0, stride(b, 0), stride(b, 1), 1, n.H)
        else:
            self.b = self.vector(b, bias_order)

    cdef const real *pack_peephole(self, const real[:, :] peephole) except NULL:
        """(3, Hp): i, f, o from (3, H), or from (2, H): i, o."""
        cdef Sizes *n = &self.size
        cdef real *packed = self.take(3 * n.Hp)
        cdef ptrdiff_t row, unit, last = peephole.shape[0] - 1
        memset(packed, 0, 3 * n.Hp * sizeof(real))
        for unit in range(n.H):
            packed[unit] = peephole[0, unit]
            if last == 2:
                packed[n.Hp + unit] = peephole[1, unit]
            packed[2 * n.Hp + unit] = peephole[last, unit]
        return packed

    cdef const real *pack_norm(self, const real[:, :] norm) except NULL:
        """Gains (Z,) of x and of h, gain and shift (Hp,) of c, from rows of H."""
        cdef Sizes *n = &self.size
        cdef ptrdiff_t gates = 3 if self.options.coupled else 4, row, unit
        cdef real *packed = self.take(2 * n.Z + 2 * n.Hp)
        cdef const int *order = LSTM_ORDER
        if self.options.coupled:
            order = COUPLED_BIAS_ORDER
        memset(packed, 0, (2 * n.Z + 2 * n.Hp) * sizeof(real))
        for row in range(2):
            self.kernels.pack_gates(
                packed + row * n.Z, &norm[row * gates, 0], stride(norm, 1), 0, n.H, 1, order, 4)
            for unit in range(n.H):
                packed[2 * n.Z + row * n.Hp + unit] = norm[2 * gates + row, unit]
        return packed

    def prepare_backward(
        self, const real[:, :] w_ih, const real[:, :] w_hh, const real[:, :] w_proj=None,
    ):
        """Pack the same weights for the backward step too."""
        cdef Sizes *n = &self.size
        if self.has_backward:
            return
        self.w_ih_columns = self.columns(w_ih, 0, stride(w_ih, 0), stride(w_ih, 1), n.N, n.I)
        self.w_hh_columns = self.columns(w_hh, 0, stride(w_hh, 0), stride(w_hh, 1), n.N_h, n.R)
        if w_proj is not None:
            self.options.w_proj_columns = self.columns(
                w_proj, 0, stride(w_proj, 0), stride(w_proj, 1), n.R, n.H)
        if self.kind == GRU_RESET_BEFORE:
            self.options.w_hn_columns = self.columns(
                w_hh, n.N_h, stride(w_hh, 0), stride(w_hh, 1), n.H, n.H)
        self.has_backward = True
