# One time step of each cell, forward and backward: tiles and cells put together.


cdef inline const operand *rounded_x(
    const forward_step *s, ptrdiff_t *stride, ptrdiff_t I,
) noexcept nogil:
    return rounded(s.rounded, s.x, stride, s.rows, I, 0)


cdef inline const operand *rounded_u(
    const forward_step *s, ptrdiff_t *stride, ptrdiff_t I, ptrdiff_t R,
) noexcept nogil:
    return rounded(
        <char *>s.rounded + rounded_bytes(s.rows, I), s.u, stride, s.rows, R, s.options.bounded)


cdef void tile_gates(
    gates_function gates, const forward_step *s, ptrdiff_t x_vectors, ptrdiff_t h_vectors,
    real *z, ptrdiff_t z_stride, const real *init, ptrdiff_t init_stride,
    ptrdiff_t I, ptrdiff_t R,
) noexcept nogil:
    """z (rows, Z) := init + x @ W_ih.T + u @ W_hh.T for panels first..last; I or R may be 0.

    init_stride < 0: `init` is two panels, which all rows and panels start from.
    """
    # a single row takes two panels at once, see tile.h; of more rows one panel stays in L1
    cdef ptrdiff_t most = PANELS_OF_A_ROW if s.rows == 1 else 1, p = s.first, panels, n, r
    cdef ptrdiff_t X = WEIGHT_ROWS(I) * x_vectors * LANES  # sizes of a panel
    cdef ptrdiff_t U = WEIGHT_ROWS(R) * h_vectors * LANES
    cdef ptrdiff_t x_stride = s.x_stride, u_stride = s.u_stride
    cdef const operand *x = rounded_x(s, &x_stride, I)
    cdef const operand *u = rounded_u(s, &u_stride, I, R)
    cdef const weight *w_ih = <const weight *>s.w_ih
    cdef const weight *w_hh = <const weight *>s.w_hh
    cdef const real *start
    begin_tiles(s.rows)
    while p < s.last:
        panels = min(most, s.last - p)
        r = 0
        while r < s.rows:
            n = tile_rows(s.rows - r)
            start = init if init_stride < 0 else init + r * init_stride + p * PANEL
            gates(
                z + r * z_stride + p * PANEL, z_stride, start, max(init_stride, <ptrdiff_t>0),
                x + r * x_stride, x_stride, w_ih + p * X, w_ih + (p + 1) * X, I,
                u + r * u_stride, u_stride, w_hh + p * U, w_hh + (p + 1) * U, R,
                n, panels)
            r += n
        p += panels


cdef void fused_step(
    gates_function gates, const forward_step *s, ptrdiff_t x_vectors, ptrdiff_t h_vectors,
    bint is_gru,
) noexcept nogil:
    """The plain LSTM and the GRU: a tile of z, then its cells while it is in L1."""
    cdef ptrdiff_t most = PANELS_OF_A_ROW if s.rows == 1 else 1
    cdef ptrdiff_t groups = blocks(s.last - s.first, most)
    cdef ptrdiff_t direction = -most if s.descending else most
    cdef ptrdiff_t I = WEIGHT_ROWS(s.I), X = I * x_vectors * LANES
    cdef ptrdiff_t R = WEIGHT_ROWS(s.R), U = R * h_vectors * LANES
    cdef ptrdiff_t i, j, p, panels, q, n, r, ahead, unit
    cdef ptrdiff_t x_stride = s.x_stride, u_stride = s.u_stride
    cdef const operand *x = rounded_x(s, &x_stride, s.I)
    cdef const operand *u = rounded_u(s, &u_stride, s.I, s.R)
    cdef const weight *w_ih = <const weight *>s.w_ih
    cdef const weight *w_hh = <const weight *>s.w_hh
    cdef real *out
    begin_tiles(s.rows)
    for i in range(groups):
        p = s.first + most * (groups - 1 - i if s.descending else i)
        panels = min(most, s.last - p)
        r = 0
        ahead = 0
        while r < s.rows:
            n = tile_rows(s.rows - r)
            gates(
                s.z, PANEL, s.init + r * s.init_stride + p * PANEL, s.init_stride,
                x + r * x_stride, x_stride, w_ih + p * X,
                w_ih + (p + direction) * X + ahead * I, s.I,
                u + r * u_stride, u_stride, w_hh + p * U,
                w_hh + (p + direction) * U + ahead * R, s.R, n, panels)
            ahead += LANES  # each of the first four tiles fetches a quarter of the next panel
            for j in range(r, r + n):
                for q in range(panels):
                    unit = (p + q) * LANES
                    out = NULL if s.gates == NULL else s.gates + j * s.gates_stride + 4 * unit
                    if is_gru:
                        gru_cell_forward(
                            s.h + j * s.h_stride + unit, out, s.z + (j - r + q) * PANEL,
                            s.h_prev + j * s.h_prev_stride + unit, s.options, <int>(s.H - unit))
                    else:
                        lstm_cell_forward_1(
                            s.c + j * s.c_stride + unit, out, s.z + (j - r + q) * PANEL,
                            s.c_prev + j * s.c_stride + unit)
            if not is_gru:
                for j in range(r, r + n):
                    for q in range(panels):
                        unit = (p + q) * LANES
                        lstm_cell_forward_2(
                            s.h + j * s.h_stride + unit, s.z + (j - r + q) * PANEL,
                            s.c + j * s.c_stride + unit, <int>(s.H - unit))
            r += n


# --- LSTM -----------------------------------------------------------------------------------------

cdef void lstm_input_product(const forward_step *s) noexcept nogil:
    tile_gates(gates_lstm, s, 4, 4, s.gates, s.gates_stride, s.init, s.init_stride, s.I, 0)


cdef void lstm_forward_step(const forward_step *s) noexcept nogil:
    fused_step(gates_lstm, s, 4, 4, False)


cdef void lstm_backward_cells(const backward_step *s) noexcept nogil:
    cdef ptrdiff_t r, p, unit
    for r in range(s.rows):
        for p in range(s.first, s.last):
            unit = p * LANES
            lstm_cell_backward(
                s.dz + r * s.dz_stride + unit, s.H, s.dc + r * s.dc_stride + unit,
                s.dh + r * s.dh_stride + unit, s.dy + r * s.dy_stride + unit,
                s.gates + r * s.gates_stride + p * PANEL,
                s.c + r * s.c_stride + unit, s.c_prev + r * s.c_stride + unit,
                <int>(s.H - unit))


# --- LSTM with options ----------------------------------------------------------------------------

cdef void lstm_variant_input_product(const forward_step *s) noexcept nogil:
    if s.options.coupled:
        tile_gates(gates_coupled, s, 3, 3, s.gates, s.gates_stride, s.init, s.init_stride, s.I, 0)
    else:
        lstm_input_product(s)


cdef void lstm_variant_forward_step(const forward_step *s) noexcept nogil:
    cdef gates_function gates = gates_lstm
    cdef ptrdiff_t v = 4, r, j
    cdef real *out
    if s.options.coupled:
        gates = gates_coupled
        v = 3
    if s.options.norm != NULL:
        tile_gates(gates, s, v, v, s.extra + s.parts.norm_x, s.extra_stride, ZEROS, -1, s.I, 0)
        tile_gates(gates, s, v, v, s.extra + s.parts.norm_h, s.extra_stride, ZEROS, -1, 0, s.R)
    else:
        tile_gates(gates, s, v, v, s.gates, s.gates_stride, s.init, s.init_stride, s.I, s.R)
    for r in range(s.rows):
        lstm_variant_row_forward(s, r)
    if s.options.w_proj == NULL:
        return
    product(
        s.extra + s.parts.h, s.extra_stride, s.zeros, 0, s.extra + s.parts.m, s.extra_stride,
        s.options.w_proj, s.rows, blocks(s.R, LANES), s.H, 0, s.rounded)
    for r in range(s.rows):
        out = s.extra + r * s.extra_stride + s.parts.h
        if s.options.proj_clip != INFINITY:
            for j in range(blocks(s.R, LANES)):
                store(out + j * LANES, most(least(
                    load(out + j * LANES), splat(s.options.proj_clip)),
                    splat(-s.options.proj_clip)))
        memcpy(s.h + r * s.h_stride, out, s.R * sizeof(real))


cdef void lstm_variant_backward_cells(const backward_step *s) noexcept nogil:
    cdef ptrdiff_t r, p, n
    cdef real *dh
    cdef real *dproj
    cdef const real *h
    cdef vec d
    if s.options.w_proj == NULL:
        for r in range(s.rows):
            lstm_variant_row_backward(
                s, r, s.dh + r * s.dh_stride, s.dy + r * s.dy_stride)
    else:
        for r in range(s.rows):
            dh = s.dh + r * s.dh_stride
            dproj = s.dz + r * s.dz_stride + s.gradients.proj
            h = s.extra + r * s.extra_stride + s.parts.h
            for p in range(blocks(s.R, LANES)):
                n = s.R - p * LANES
                d = load(dh + p * LANES) + get(s.dy + r * s.dy_stride + p * LANES, <int>n)
                if s.options.proj_clip != INFINITY:
                    d = d * within(load(h + p * LANES), s.options.proj_clip)
                put(dproj + p * LANES, d, <int>n)
        product(
            s.scratch, s.scratch_stride, s.zeros, 0, s.dz + s.gradients.proj, s.dz_stride,
            s.options.w_proj_columns, s.rows, blocks(s.H, LANES), s.R, 0, s.rounded)
        for r in range(s.rows):
            lstm_variant_row_backward(s, r, s.scratch + r * s.scratch_stride, s.zeros)
    for r in range(s.rows):
        memset(s.dh + r * s.dh_stride, 0, blocks(s.R, LANES) * LANES * sizeof(real))


# --- GRU ------------------------------------------------------------------------------------------

cdef void gru_input_product(const forward_step *s) noexcept nogil:
    tile_gates(gates_gru, s, 3, 3, s.gates, s.gates_stride, s.init, s.init_stride, s.I, 0)


cdef void gru_forward_step(const forward_step *s) noexcept nogil:
    fused_step(gates_gru, s, 3, 3, True)


cdef void gru_backward_cells(const backward_step *s) noexcept nogil:
    cdef ptrdiff_t r, p, unit
    cdef real *dz
    for r in range(s.rows):
        for p in range(s.first, s.last):
            unit = p * LANES
            dz = s.dz + r * s.dz_stride + unit
            gru_cell_backward(
                dz, dz + s.gradients.h, s.H, s.dh + r * s.dh_stride + unit,
                s.dy + r * s.dy_stride + unit, s.gates + r * s.gates_stride + p * PANEL,
                s.h_prev + r * s.h_prev_stride + unit, s.options, <int>(s.H - unit))


# --- GRU with the reset before the product --------------------------------------------------------

cdef void gru_reset_before_input_product(const forward_step *s) noexcept nogil:
    tile_gates(
        gates_gru_reset_before, s, 3, 2, s.gates, s.gates_stride, s.init, s.init_stride, s.I, 0)


cdef void gru_reset_before_forward_step(const forward_step *s) noexcept nogil:
    cdef ptrdiff_t r, p, unit
    tile_gates(
        gates_gru_reset_before, s, 3, 2, s.gates, s.gates_stride, s.init, s.init_stride, s.I, s.R)
    for r in range(s.rows):
        for p in range(blocks(s.H, LANES)):
            unit = p * LANES
            gru_reset_before_forward_1(
                s.gates + r * s.gates_stride + 4 * unit,
                s.extra + r * s.extra_stride + s.parts.m + unit,
                s.u + r * s.u_stride + unit, s.options, <int>(s.H - unit))
    product(
        s.extra + s.parts.h, s.extra_stride, s.zeros, 0, s.extra + s.parts.m, s.extra_stride,
        s.options.w_hn, s.rows, blocks(s.H, LANES), s.H, s.options.bounded, s.rounded)
    for r in range(s.rows):
        for p in range(blocks(s.H, LANES)):
            unit = p * LANES
            gru_reset_before_forward_2(
                s.h + r * s.h_stride + unit, s.gates + r * s.gates_stride + 4 * unit,
                s.extra + r * s.extra_stride + s.parts.h + unit,
                s.h_prev + r * s.h_prev_stride + unit, s.options, <int>(s.H - unit))


cdef void gru_reset_before_backward_cells(const backward_step *s) noexcept nogil:
    cdef ptrdiff_t r, p, unit
    cdef const real *dropout = NULL
    for r in range(s.rows):
        for p in range(blocks(s.H, LANES)):
            unit = p * LANES
            gru_reset_before_backward_1(
                s.dz + r * s.dz_stride + unit, s.H, s.dh + r * s.dh_stride + unit,
                s.dy + r * s.dy_stride + unit, s.gates + r * s.gates_stride + 4 * unit,
                s.h_prev + r * s.h_prev_stride + unit, s.options, <int>(s.H - unit))
    product(
        s.scratch, s.scratch_stride, s.zeros, 0, s.dz + 2 * s.H, s.dz_stride,
        s.options.w_hn_columns, s.rows, blocks(s.H, LANES), s.H, 0, s.rounded)
    for r in range(s.rows):
        for p in range(blocks(s.H, LANES)):
            unit = p * LANES
            if s.dropout != NULL:
                dropout = s.dropout + r * s.dropout_stride + unit
            gru_reset_before_backward_2(
                s.dz + r * s.dz_stride + unit, s.dh + r * s.dh_stride + unit,
                s.scratch + r * s.scratch_stride + unit,
                s.gates + r * s.gates_stride + 4 * unit, s.u + r * s.u_stride + unit,
                dropout, s.options, <int>(s.H - unit))


# --- plain RNN ------------------------------------------------------------------------------------

cdef ptrdiff_t vectors_of_share(const forward_step *s) noexcept nogil:
    """How many vectors the panels first..last have: the last one of all may be narrower."""
    return min(4 * s.last, blocks(s.H, LANES)) - 4 * s.first


cdef void rnn_input_product(const forward_step *s) noexcept nogil:
    cdef ptrdiff_t begin = s.first * PANEL
    product(
        s.gates + begin, s.gates_stride, s.init + begin, s.init_stride, s.x, s.x_stride,
        <const weight *>s.w_ih + begin * WEIGHT_ROWS(s.I), s.rows, vectors_of_share(s), s.I, 0,
        s.rounded)


cdef void rnn_forward_step(const forward_step *s) noexcept nogil:
    cdef ptrdiff_t r, v, unit, begin = s.first * PANEL, vectors = vectors_of_share(s)
    cdef const real *init = s.init + begin
    cdef ptrdiff_t init_stride = s.init_stride
    if s.I:
        rnn_input_product(s)
        init = s.gates + begin
        init_stride = s.gates_stride
    product(
        s.gates + begin, s.gates_stride, init, init_stride, s.u, s.u_stride,
        <const weight *>s.w_hh + begin * WEIGHT_ROWS(s.R), s.rows, vectors, s.R, s.options.bounded,
        s.rounded)
    for r in range(s.rows):
        for v in range(vectors):
            unit = begin + v * LANES
            rnn_cell_forward(
                s.h + r * s.h_stride + unit, s.gates + r * s.gates_stride + unit, s.options,
                <int>(s.H - unit))


cdef void rnn_backward_cells(const backward_step *s) noexcept nogil:
    cdef ptrdiff_t r, v, unit
    for r in range(s.rows):
        for v in range(4 * s.first, min(4 * s.last, blocks(s.H, LANES))):
            unit = v * LANES
            rnn_cell_backward(
                s.dz + r * s.dz_stride + unit, s.dh + r * s.dh_stride + unit,
                s.dy + r * s.dy_stride + unit, s.gates + r * s.gates_stride + unit,
                s.options, <int>(s.H - unit))
