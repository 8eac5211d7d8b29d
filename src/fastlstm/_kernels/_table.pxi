# csrc/kernels.h, where every argument is explained.

from libc.stddef cimport ptrdiff_t

cdef extern from "kernels.h":
    ctypedef unsigned long long real_bits
    enum:
        LSTM
        LSTM_VARIANT
        GRU
        GRU_RESET_BEFORE
        RNN
        CELLS
    enum:
        SIGMOID
        TANH
        HARD_SIGMOID
        SOFTSIGN
        SOFTPLUS
    enum:
        MOST_LANES
        MOST_FINGERPRINT_REALS
        MOST_INT8_PRODUCTS
    ctypedef struct activation:
        int kind
        real alpha, beta
    ctypedef struct cell_options:
        activation gate, candidate, output
        real clip
        bint coupled, bounded
        real cell_clip, proj_clip
        const real *peephole
        const real *norm
        const void *w_proj
        const void *w_proj_columns
        const void *w_hn
        const void *w_hn_columns
    ctypedef struct extra_parts:
        ptrdiff_t c, m, h, norm_x, norm_h, norm_c, scales, size
    ctypedef struct gradient_parts:
        ptrdiff_t h, b, u, proj, size
    ctypedef struct forward_step:
        ptrdiff_t rows, I, H, R, first, last
        bint descending
        const real *init
        ptrdiff_t init_stride
        const real *x
        ptrdiff_t x_stride
        const void *w_ih
        const real *u
        ptrdiff_t u_stride
        const void *w_hh
        const real *h_prev
        ptrdiff_t h_prev_stride
        real *h
        ptrdiff_t h_stride
        real *c
        const real *c_prev
        ptrdiff_t c_stride
        const real *zoneout_c
        ptrdiff_t zoneout_c_stride
        real *gates
        ptrdiff_t gates_stride
        real *extra
        ptrdiff_t extra_stride
        extra_parts parts
        const cell_options *options
        const real *zeros
        real *z
        void *rounded
    ctypedef struct backward_step:
        ptrdiff_t rows, H, R, first, last
        real *dz
        ptrdiff_t dz_stride
        gradient_parts gradients
        real *dc
        ptrdiff_t dc_stride
        real *dh
        ptrdiff_t dh_stride
        const real *dy
        ptrdiff_t dy_stride
        const real *gates
        ptrdiff_t gates_stride
        const real *c
        const real *c_prev
        ptrdiff_t c_stride
        const real *u
        ptrdiff_t u_stride
        const real *h_prev
        ptrdiff_t h_prev_stride
        const real *zoneout_c
        ptrdiff_t zoneout_c_stride
        const real *extra
        ptrdiff_t extra_stride
        extra_parts parts
        const cell_options *options
        real *scratch
        ptrdiff_t scratch_stride
        const real *dropout
        ptrdiff_t dropout_stride
        const real *zeros
        void *rounded
    ctypedef void (*forward_kernel)(const forward_step *step) noexcept nogil
    ctypedef void (*backward_kernel)(const backward_step *step) noexcept nogil
    ctypedef struct kernel_table:
        int lanes
        void (*pack_gates)(
            real *panels, const real *w, ptrdiff_t row_stride, ptrdiff_t column_stride,
            ptrdiff_t H, ptrdiff_t K, const int *order, ptrdiff_t blocks) noexcept nogil
        void (*pack_columns)(
            real *panels, const real *w, ptrdiff_t row_stride, ptrdiff_t column_stride,
            ptrdiff_t K, ptrdiff_t N) noexcept nogil
        void (*pack_gate_weights)(
            void *panels, const real *w, ptrdiff_t row_stride, ptrdiff_t column_stride,
            ptrdiff_t H, ptrdiff_t K, const int *order, ptrdiff_t blocks) noexcept nogil
        void (*pack_column_weights)(
            void *panels, const real *w, ptrdiff_t row_stride, ptrdiff_t column_stride,
            ptrdiff_t K, ptrdiff_t N) noexcept nogil
        ptrdiff_t (*weight_rows)(ptrdiff_t K) noexcept nogil
        void (*product)(
            real *z, ptrdiff_t z_stride, const real *init, ptrdiff_t init_stride,
            const real *a, ptrdiff_t a_stride, const void *w,
            ptrdiff_t rows, ptrdiff_t vectors, ptrdiff_t K, real least, void *scratch,
        ) noexcept nogil
        size_t (*rounded_bytes)(ptrdiff_t rows, ptrdiff_t K) noexcept nogil
        void (*outer_product)(
            real *z, ptrdiff_t z_stride, const real *init, ptrdiff_t init_stride,
            const real *a, ptrdiff_t a_stride, const real *d, ptrdiff_t d_stride,
            ptrdiff_t M, ptrdiff_t panels, ptrdiff_t rows, void *scratch) noexcept nogil
        size_t (*outer_product_bytes)(ptrdiff_t M, ptrdiff_t rows) noexcept nogil
        void (*rounded_weights)(
            real *out, const real *w, ptrdiff_t step, ptrdiff_t K) noexcept nogil
        void (*add_transposed)(
            real *w, const real *z, ptrdiff_t z_stride,
            ptrdiff_t M, ptrdiff_t first, ptrdiff_t last) noexcept nogil
        int prefer_blas
        forward_kernel[5] input_product  # CELLS
        forward_kernel[5] forward_step
        backward_kernel[5] backward_cells
        int tile_rows
        void (*end_task)() noexcept nogil
        void (*multiply)(real *out, const real *a, const real *b, ptrdiff_t n) noexcept nogil
        void (*accumulate)(real *sums, const real *a, const real *b, ptrdiff_t n) noexcept nogil
        void (*zoneout)(real *y, const real *x, const real *keep, ptrdiff_t n) noexcept nogil
        void (*zoneout_backward)(
            real *dh, real *kept, const real *dy, const real *keep, ptrdiff_t n) noexcept nogil
        void (*option_gradients)(
            real *dpeephole, real *dnorm, const real *dz, const real *extra, const real *c_prev,
            const extra_parts *parts, const gradient_parts *gradients,
            const cell_options *options, ptrdiff_t H) noexcept nogil
        void (*add_rows)(
            real *sums, const real *a, ptrdiff_t a_stride, ptrdiff_t rows, ptrdiff_t N,
        ) noexcept nogil
        void (*fingerprint)(real_bits *out, const real *x, ptrdiff_t n) noexcept nogil
        int fingerprint_reals
        void (*fma_peak)(real *out, ptrdiff_t repeats) noexcept nogil
        int fma_peak_operations
        void (*read_all)(real *out, const real *x, ptrdiff_t n) noexcept nogil
        void (*sigmoid)(real *y, const real *x, ptrdiff_t n) noexcept nogil
        void (*tanh)(real *y, const real *x, ptrdiff_t n) noexcept nogil
