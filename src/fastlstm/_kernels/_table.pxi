# csrc/kernels.h, where every argument is explained.

from libc.stddef cimport ptrdiff_t

cdef extern from "kernels.h":
    ctypedef unsigned long long real_bits
    ctypedef struct forward_step:
        ptrdiff_t rows, I, H, first, last
        bint descending
        const real *init
        ptrdiff_t init_stride
        const real *x
        ptrdiff_t x_stride
        const real *w_ih
        const real *h_prev
        ptrdiff_t h_prev_stride
        const real *w_hh
        real *h
        ptrdiff_t h_stride
        real *c
        const real *c_prev
        ptrdiff_t c_stride
        real *gates
        ptrdiff_t gates_stride
        real *z
    ctypedef struct kernel_table:
        int lanes
        void (*pack_gates)(
            real *panels, const real *w, ptrdiff_t row_stride, ptrdiff_t column_stride,
            ptrdiff_t H, ptrdiff_t K) noexcept nogil
        void (*pack_columns)(
            real *panels, const real *w, ptrdiff_t row_stride, ptrdiff_t column_stride,
            ptrdiff_t K, ptrdiff_t N) noexcept nogil
        void (*product)(
            real *z, ptrdiff_t z_stride, const real *init, ptrdiff_t init_stride,
            const real *a, ptrdiff_t a_stride, const real *w,
            ptrdiff_t rows, ptrdiff_t vectors, ptrdiff_t K) noexcept nogil
        void (*outer_product)(
            real *z, ptrdiff_t z_stride, const real *init, ptrdiff_t init_stride,
            const real *a, ptrdiff_t a_stride, const real *d, ptrdiff_t d_stride,
            ptrdiff_t M, ptrdiff_t panels, ptrdiff_t rows) noexcept nogil
        void (*add_transposed)(
            real *w, const real *z, ptrdiff_t z_stride,
            ptrdiff_t M, ptrdiff_t first, ptrdiff_t last) noexcept nogil
        int prefer_blas
        void (*lstm_forward_step)(const forward_step *step) noexcept nogil
        int tile_rows
        void (*lstm_backward_cells)(
            real *dz, ptrdiff_t dz_stride, real *dc, ptrdiff_t dc_stride,
            const real *dh, ptrdiff_t dh_stride, const real *dy, ptrdiff_t dy_stride,
            const real *gates, ptrdiff_t gates_stride,
            const real *c, const real *c_prev, ptrdiff_t c_stride,
            ptrdiff_t rows, ptrdiff_t H, ptrdiff_t first, ptrdiff_t last) noexcept nogil
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
