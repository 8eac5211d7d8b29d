# The kernels of one instruction set and element type: cells and tiles put together into the table
# that csrc/kernels.h describes. A module of this folder is its choice of header and this body.

from cpython.pycapsule cimport PyCapsule_New
from libc.math cimport INFINITY, sqrt
from libc.string cimport memcpy, memset

include "_table.pxi"

cdef extern from "any_activation.h":
    pass

cdef extern from "tile.h":
    int TILE_ROWS, PANELS_OF_A_ROW
    bint SCANS
    int GROUP
    bint PACKS_REALS
    ctypedef real weight
    ctypedef real operand
    ptrdiff_t WEIGHT_ROWS(ptrdiff_t K) noexcept nogil
    const operand *rounded(
        void *scratch, const real *a, ptrdiff_t *a_stride, ptrdiff_t rows, ptrdiff_t K, real least,
    ) noexcept nogil
    size_t rounded_bytes(ptrdiff_t rows, ptrdiff_t K) noexcept nogil
    void scan_rows(weight *panel, const real *rows, ptrdiff_t width, ptrdiff_t n) noexcept nogil
    void pack_rows(
        weight *panel, const real *rows, ptrdiff_t stride, ptrdiff_t width, ptrdiff_t K,
        ptrdiff_t begin, ptrdiff_t n) noexcept nogil
    void end_panel(weight *panel, ptrdiff_t width) noexcept nogil
    void begin_tiles(ptrdiff_t rows) noexcept nogil
    void end_task() noexcept nogil
    void product(
        real *z, ptrdiff_t z_stride, const real *init, ptrdiff_t init_stride,
        const real *a, ptrdiff_t a_stride, const void *w,
        ptrdiff_t rows, ptrdiff_t vectors, ptrdiff_t K, real least, void *scratch) noexcept nogil
    void (*weight_gradient_product)(
        real *z, ptrdiff_t z_stride, const real *init, ptrdiff_t init_stride,
        const real *a, ptrdiff_t a_stride, const real *d, ptrdiff_t d_stride,
        ptrdiff_t M, ptrdiff_t panels, ptrdiff_t rows, void *scratch) noexcept nogil
    size_t outer_product_bytes(ptrdiff_t M, ptrdiff_t rows) noexcept nogil
    void (*as_multiplied)(
        real *out, const real *w, ptrdiff_t step, ptrdiff_t K) noexcept nogil
    ptrdiff_t tile_rows(ptrdiff_t rows) noexcept nogil
    const real *ZEROS
    ctypedef void (*gates_function)(
        real *z, ptrdiff_t z_stride, const real *init, ptrdiff_t init_stride,
        const operand *x, ptrdiff_t x_stride, const weight *w_x, const weight *next_x, ptrdiff_t I,
        const operand *h, ptrdiff_t h_stride, const weight *w_h, const weight *next_h, ptrdiff_t R,
        ptrdiff_t rows, ptrdiff_t panels) noexcept nogil
    gates_function gates_lstm, gates_coupled, gates_gru, gates_gru_reset_before

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
include "_lstm_variant.pxi"
include "_one_step.pxi"
include "_packing.pxi"


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


cdef void multiply(real *out, const real *a, const real *b, ptrdiff_t N) noexcept nogil:
    cdef ptrdiff_t p
    cdef int n
    for p in range(blocks(N, LANES)):
        n = <int>(N - p * LANES)
        put(out + p * LANES, get(a + p * LANES, n) * get(b + p * LANES, n), n)


cdef void accumulate(real *sums, const real *a, const real *b, ptrdiff_t N) noexcept nogil:
    cdef ptrdiff_t p
    cdef int n
    cdef vec factor = splat(1)
    for p in range(blocks(N, LANES)):
        n = <int>(N - p * LANES)
        if b != NULL:
            factor = get(b + p * LANES, n)
        put(sums + p * LANES, fma(get(a + p * LANES, n), factor, get(sums + p * LANES, n)), n)


cdef void zoneout(real *y, const real *x, const real *keep, ptrdiff_t N) noexcept nogil:
    cdef ptrdiff_t p
    cdef int n
    cdef vec new
    for p in range(blocks(N, LANES)):
        n = <int>(N - p * LANES)
        new = get(y + p * LANES, n)
        put(y + p * LANES, fma(get(keep + p * LANES, n), get(x + p * LANES, n) - new, new), n)


cdef void zoneout_backward(
    real *dh, real *kept, const real *dy, const real *keep, ptrdiff_t N,
) noexcept nogil:
    cdef ptrdiff_t p
    cdef int n
    cdef vec dh_t, dh_kept
    for p in range(blocks(N, LANES)):
        n = <int>(N - p * LANES)
        dh_t = get(dh + p * LANES, n) + get(dy + p * LANES, n)
        dh_kept = get(keep + p * LANES, n) * dh_t
        put(kept + p * LANES, dh_kept, n)
        put(dh + p * LANES, dh_t - dh_kept, n)


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
table.pack_gate_weights = pack_gate_weights
table.pack_column_weights = pack_column_weights
table.weight_rows = weight_rows
table.product = product
table.rounded_bytes = rounded_bytes
table.outer_product = weight_gradient_product
table.outer_product_bytes = outer_product_bytes
table.rounded_weights = as_multiplied
table.add_transposed = add_transposed
table.prefer_blas = PACKS_REALS and TILE_ROWS * LANES * sizeof(real) < 96
table.input_product[:] = [
    lstm_input_product, lstm_variant_input_product, gru_input_product,
    gru_reset_before_input_product, rnn_input_product]
table.forward_step[:] = [
    lstm_forward_step, lstm_variant_forward_step, gru_forward_step,
    gru_reset_before_forward_step, rnn_forward_step]
table.backward_cells[:] = [
    lstm_backward_cells, lstm_variant_backward_cells, gru_backward_cells,
    gru_reset_before_backward_cells, rnn_backward_cells]
table.tile_rows = TILE_ROWS
table.end_task = end_task
table.multiply = multiply
table.accumulate = accumulate
table.zoneout = zoneout
table.zoneout_backward = zoneout_backward
table.option_gradients = lstm_option_gradients
table.add_rows = add_rows
table.fingerprint = fingerprint
table.fingerprint_reals = FINGERPRINT_REALS
table.fma_peak = fma_peak
table.fma_peak_operations = FMA_PEAK_OPERATIONS
table.read_all = read_all
table.sigmoid = sigmoid_array
table.tanh = tanh_array

prefer_blas = bool(table.prefer_blas)
kernels = PyCapsule_New(&table, "fastlstm.kernels", NULL)
