# The kernels of one instruction set and element type: cells and tiles put together into the table
# that csrc/kernels.h describes. A module of this folder is its choice of header and this body.

from cpython.pycapsule cimport PyCapsule_New

include "_table.pxi"

cdef extern from "activations.h":
    pass

cdef extern from "tile.h":
    int TILE_ROWS
    void product(
        real *z, ptrdiff_t z_stride, const real *init, ptrdiff_t init_stride,
        const real *a, ptrdiff_t a_stride, const real *w,
        ptrdiff_t rows, ptrdiff_t vectors, ptrdiff_t K) noexcept nogil
    void outer_product(
        real *z, ptrdiff_t z_stride, const real *init, ptrdiff_t init_stride,
        const real *a, ptrdiff_t a_stride, const real *d, ptrdiff_t d_stride,
        ptrdiff_t M, ptrdiff_t panels, ptrdiff_t rows) noexcept nogil
    ptrdiff_t tile_rows(ptrdiff_t rows) noexcept nogil
    void gates_lstm(
        real *z, const real *init, ptrdiff_t init_stride,
        const real *x, ptrdiff_t x_stride, const real *w_x, const real *next_x, ptrdiff_t I,
        const real *h, ptrdiff_t h_stride, const real *w_h, const real *next_h, ptrdiff_t R,
        ptrdiff_t rows, ptrdiff_t panels) noexcept nogil

cdef extern from "fingerprint.h":
    int FINGERPRINT_REALS
    void fingerprint(real_bits *out, const real *x, ptrdiff_t n) noexcept nogil

cdef extern from "roofline.h":
    int FMA_PEAK_OPERATIONS
    void fma_peak(real *out, ptrdiff_t repeats) noexcept nogil
    void read_all(real *out, const real *x, ptrdiff_t n) noexcept nogil

include "_vector.pxi"


cdef inline vec get(const real *p, int n) noexcept nogil:
    return load(p) if n >= LANES else load_n(p, n)


cdef inline void put(real *p, vec v, int n) noexcept nogil:
    if n >= LANES:
        store(p, v)
    else:
        store_n(p, v, n)


cdef inline ptrdiff_t blocks(ptrdiff_t n, ptrdiff_t size) noexcept nogil:
    return (n + size - 1) // size


include "_cells.pxi"


cdef enum:
    # Transposing goes by squares of this side: a cache line of floats on either side.
    SQUARE = 16


cdef void pack_gates(
    real *panels, const real *w, ptrdiff_t row_stride, ptrdiff_t column_stride,
    ptrdiff_t H, ptrdiff_t K,
) noexcept nogil:
    cdef ptrdiff_t p, k, square, begin, end, gate, lane, unit
    cdef const real *source
    cdef real *target
    for p in range(blocks(H, LANES)):
        for square in range(blocks(K, SQUARE)):
            begin = square * SQUARE
            end = min(K, begin + SQUARE)
            for gate in range(4):
                for lane in range(LANES):
                    unit = p * LANES + lane
                    source = w + (gate * H + unit) * row_stride
                    target = panels + gate * LANES + lane
                    if unit < H:
                        for k in range(begin, end):
                            target[k * PANEL] = source[k * column_stride]
                    else:
                        for k in range(begin, end):
                            target[k * PANEL] = 0
        panels += K * PANEL


cdef void pack_columns(
    real *panels, const real *w, ptrdiff_t row_stride, ptrdiff_t column_stride,
    ptrdiff_t K, ptrdiff_t N,
) noexcept nogil:
    cdef ptrdiff_t p, k, j, width
    cdef const real *source
    for p in range(blocks(N, PANEL)):
        width = min(<ptrdiff_t>PANEL, blocks(N - p * PANEL, LANES) * LANES)
        for k in range(K):
            source = w + k * row_stride + p * PANEL * column_stride
            for j in range(width):
                panels[j] = source[j * column_stride] if p * PANEL + j < N else 0
            panels += width


cdef void add_transposed(
    real *w, const real *z, ptrdiff_t z_stride, ptrdiff_t M, ptrdiff_t first, ptrdiff_t last,
) noexcept nogil:
    cdef ptrdiff_t square, i, j, begin, end
    for square in range(blocks(M, SQUARE)):
        begin = square * SQUARE
        end = min(M, begin + SQUARE)
        for j in range(first, last):
            for i in range(begin, end):
                w[j * M + i] += z[i * z_stride + j]


cdef void lstm_forward_step(const forward_step *s) noexcept nogil:
    # a single row takes two panels at once, see tile.h; of more rows one panel stays in L1
    cdef ptrdiff_t most = 2 if s.rows == 1 else 1
    cdef ptrdiff_t groups = blocks(s.last - s.first, most)
    cdef ptrdiff_t direction = -most if s.descending else most
    cdef ptrdiff_t X = s.I * PANEL, R = s.H * PANEL  # sizes of a panel of weights
    cdef ptrdiff_t i, j, p, panels, q, n, r, ahead
    for i in range(groups):
        p = s.first + most * (groups - 1 - i if s.descending else i)
        panels = min(most, s.last - p)
        r = 0
        ahead = 0
        while r < s.rows:
            n = tile_rows(s.rows - r)
            gates_lstm(
                s.z, s.init + r * s.init_stride + p * PANEL, s.init_stride,
                s.x + r * s.x_stride, s.x_stride, s.w_ih + p * X,
                s.w_ih + (p + direction) * X + ahead * s.I, s.I,
                s.h_prev + r * s.h_prev_stride, s.h_prev_stride, s.w_hh + p * R,
                s.w_hh + (p + direction) * R + ahead * s.H, s.H, n, panels)
            ahead += LANES  # each of the first four tiles fetches a quarter of the next panel
            for j in range(n):
                for q in range(panels):
                    lstm_cell_forward(
                        s.h + (r + j) * s.h_stride + (p + q) * LANES,
                        s.c + (r + j) * s.c_stride + (p + q) * LANES,
                        NULL if s.gates == NULL
                        else s.gates + (r + j) * s.gates_stride + (p + q) * PANEL,
                        s.z + (j + q) * PANEL,
                        s.c_prev + (r + j) * s.c_stride + (p + q) * LANES,
                        <int>(s.H - (p + q) * LANES))
            r += n


cdef void lstm_backward_cells(
    real *dz, ptrdiff_t dz_stride, real *dc, ptrdiff_t dc_stride,
    const real *dh, ptrdiff_t dh_stride, const real *dy, ptrdiff_t dy_stride,
    const real *gates, ptrdiff_t gates_stride,
    const real *c, const real *c_prev, ptrdiff_t c_stride,
    ptrdiff_t rows, ptrdiff_t H, ptrdiff_t first, ptrdiff_t last,
) noexcept nogil:
    cdef ptrdiff_t r, p, unit
    for r in range(rows):
        for p in range(first, last):
            unit = p * LANES
            lstm_cell_backward(
                dz + r * dz_stride + unit, H, dc + r * dc_stride + unit,
                dh + r * dh_stride + unit, dy + r * dy_stride + unit,
                gates + r * gates_stride + p * PANEL,
                c + r * c_stride + unit, c_prev + r * c_stride + unit,
                <int>(H - unit))


cdef void add_rows(
    real *sums, const real *a, ptrdiff_t a_stride, ptrdiff_t rows, ptrdiff_t N,
) noexcept nogil:
    cdef ptrdiff_t r, p
    cdef int n
    cdef vec total
    for p in range(blocks(N, LANES)):
        n = <int>min(<ptrdiff_t>LANES, N - p * LANES)
        total = get(sums + p * LANES, n)
        for r in range(rows):
            total = total + get(a + r * a_stride + p * LANES, n)
        put(sums + p * LANES, total, n)


cdef void sigmoid_array(real *y, const real *x, ptrdiff_t N) noexcept nogil:
    cdef ptrdiff_t p
    cdef int n
    for p in range(blocks(N, LANES)):
        n = <int>min(<ptrdiff_t>LANES, N - p * LANES)
        put(y + p * LANES, sigmoid(get(x + p * LANES, n)), n)


cdef void tanh_array(real *y, const real *x, ptrdiff_t N) noexcept nogil:
    cdef ptrdiff_t p
    cdef int n
    for p in range(blocks(N, LANES)):
        n = <int>min(<ptrdiff_t>LANES, N - p * LANES)
        put(y + p * LANES, tanh(get(x + p * LANES, n)), n)


cdef kernel_table table
table.lanes = LANES
table.pack_gates = pack_gates
table.pack_columns = pack_columns
table.product = product
table.outer_product = outer_product
table.add_transposed = add_transposed
table.prefer_blas = TILE_ROWS * LANES * sizeof(real) < 96
table.lstm_forward_step = lstm_forward_step
table.tile_rows = TILE_ROWS
table.lstm_backward_cells = lstm_backward_cells
table.add_rows = add_rows
table.fingerprint = fingerprint
table.fingerprint_reals = FINGERPRINT_REALS
table.fma_peak = fma_peak
table.fma_peak_operations = FMA_PEAK_OPERATIONS
table.read_all = read_all
table.sigmoid = sigmoid_array
table.tanh = tanh_array

kernels = PyCapsule_New(&table, "fastlstm.kernels", NULL)
