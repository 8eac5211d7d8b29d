/* The kernels of one instruction set and element type: the contract between the vector code
 * (src/fastlstm/_kernels) and the time loops (src/fastlstm/_sequence.pxi).
 *
 * LANES, PANEL = 4 * LANES: reals in a vector and in a panel row, see tile.h
 * P = ceil(H / LANES)    panels of gates
 * Hp = P * LANES         the padded hidden size; Ip likewise the padded input size
 *
 * A matrix (rows, N) is a pointer and, where it is not N, a stride: the distance of rows in reals.
 * All memory is the caller's; a kernel keeps no pointer, allocates nothing and takes no lock.
 * Arguments may not overlap except where it is said. No alignment is required; packed weights
 * are fastest at 64 bytes.
 */
#ifndef FASTLSTM_KERNELS_H
#define FASTLSTM_KERNELS_H

#include "simd/real.h"
#include <stddef.h>

/* One time step of the hidden units of panels first <= p < last, taken from the last one to the first
 * if `descending`: alternating finds in the cache what the step before left. */
typedef struct {
    ptrdiff_t rows, I, H, first, last;
    int descending;
    const real *init;           /* (rows, P, 4, LANES): what x @ w_ih.T is added to; stride 0 repeats */
    ptrdiff_t init_stride;
    const real *x;              /* (rows, I); I may be 0, with init = x_t @ W_ih.T + b */
    ptrdiff_t x_stride;
    const real *w_ih;           /* pack_gates of W_ih */
    const real *h_prev;         /* (rows, H) */
    ptrdiff_t h_prev_stride;
    const real *w_hh;           /* pack_gates of W_hh */
    real *h;                    /* (rows, H) out */
    ptrdiff_t h_stride;
    real *c;                    /* (rows, Hp) out; may be c_prev */
    const real *c_prev;         /* (rows, Hp) */
    ptrdiff_t c_stride;
    real *gates;                /* (rows, P, 4, LANES) out: i, f, g, o; may be init; NULL: not wanted */
    ptrdiff_t gates_stride;
    real *z;                    /* (tile_rows, PANEL) scratch, fastest at 64 bytes */
} forward_step;

typedef struct {
    int lanes;

    /* Gate weights w (4H, K), of any strides, as panels (P, K, 4, LANES), units beyond H as 0. */
    void (*pack_gates)(real *panels, const real *w, ptrdiff_t row_stride, ptrdiff_t column_stride,
                       ptrdiff_t H, ptrdiff_t K);

    /* w (K, N) as panels of its columns (ceil(N / PANEL), K, 4, LANES), the last one of as few
     * vectors as hold its columns, columns beyond N as 0. */
    void (*pack_columns)(real *panels, const real *w, ptrdiff_t row_stride, ptrdiff_t column_stride,
                         ptrdiff_t K, ptrdiff_t N);

    /* z := init + a @ w for packed panels of w.
     * z, init (rows, vectors * LANES); a (rows, K). init_stride 0 repeats one row; init may be z. */
    void (*product)(real *z, ptrdiff_t z_stride, const real *init, ptrdiff_t init_stride,
                    const real *a, ptrdiff_t a_stride, const real *w,
                    ptrdiff_t rows, ptrdiff_t vectors, ptrdiff_t K);

    /* z := init + a.T @ d.  z, init (M, panels * PANEL), a (rows, M), d (rows, panels * PANEL).
     * init_stride 0 repeats one row; init may be z. */
    void (*outer_product)(real *z, ptrdiff_t z_stride, const real *init, ptrdiff_t init_stride,
                          const real *a, ptrdiff_t a_stride, const real *d, ptrdiff_t d_stride,
                          ptrdiff_t M, ptrdiff_t panels, ptrdiff_t rows);

    /* w (N, M) += z.T for columns first <= j < last of z (M, N). */
    void (*add_transposed)(real *w, const real *z, ptrdiff_t z_stride,
                           ptrdiff_t M, ptrdiff_t first, ptrdiff_t last);

    /* Whether a BLAS is likely to multiply faster than `outer_product` here. */
    int prefer_blas;

    /* One LSTM time step of what `step` says. */
    void (*lstm_forward_step)(const forward_step *step);

    /* Rows of the scratch z of a step. */
    int tile_rows;

    /* The element-wise part of the same step backward.
     * dz (rows, 4, H)       out
     * dc (rows, Hp)         in: dL/dc_t from the future; out: dL/dc_{t-1}
     * dh (rows, Hp), dy (rows, H)  in: their sum is dL/dh_t; dy_stride 0 repeats one row
     * gates (rows, P, 4, LANES), c, c_prev (rows, Hp)  in, as the forward step left them */
    void (*lstm_backward_cells)(real *dz, ptrdiff_t dz_stride, real *dc, ptrdiff_t dc_stride,
                                const real *dh, ptrdiff_t dh_stride,
                                const real *dy, ptrdiff_t dy_stride,
                                const real *gates, ptrdiff_t gates_stride,
                                const real *c, const real *c_prev, ptrdiff_t c_stride,
                                ptrdiff_t rows, ptrdiff_t H, ptrdiff_t first, ptrdiff_t last);

    /* sums (N,) += the sum of the rows of a (rows, N), top to bottom. */
    void (*add_rows)(real *sums, const real *a, ptrdiff_t a_stride, ptrdiff_t rows, ptrdiff_t N);

    /* out (fingerprint_reals,) := a fingerprint of x (n,), see fingerprint.h. */
    void (*fingerprint)(real_bits *out, const real *x, ptrdiff_t n);
    int fingerprint_reals;

    /* Measures of the machine, see roofline.h. */
    void (*fma_peak)(real *out, ptrdiff_t repeats);
    int fma_peak_operations;
    void (*read_all)(real *out, const real *x, ptrdiff_t n);

    /* y (n,) of x (n,); may be the same. */
    void (*sigmoid)(real *y, const real *x, ptrdiff_t n);
    void (*tanh)(real *y, const real *x, ptrdiff_t n);
} kernel_table;

#endif
