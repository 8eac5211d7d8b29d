/* The kernels of one instruction set and element type: the contract between the vector code
 * (src/fastlstm/_kernels) and the time loops (src/fastlstm/_sequence.pxi).
 *
 * LANES, PANEL = 4 * LANES: reals in a vector and in a panel row, see tile.h
 * P = ceil(H / LANES)     panels of gates; Hp = P * LANES, the padded hidden size
 * Q = ceil(H / PANEL)     panels of plain columns; Hq = Q * PANEL
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

typedef struct {
    int lanes;

    /* Gate weights w (4H, K), of any strides, as panels (P, K, 4, LANES), units beyond H as 0. */
    void (*pack_gates)(real *panels, const real *w, ptrdiff_t row_stride, ptrdiff_t column_stride,
                       ptrdiff_t H, ptrdiff_t K);

    /* w (K, N) as panels of its columns (ceil(N / PANEL), K, PANEL), columns beyond N as 0. */
    void (*pack_columns)(real *panels, const real *w, ptrdiff_t row_stride, ptrdiff_t column_stride,
                         ptrdiff_t K, ptrdiff_t N);

    /* z := init + a @ w for `panels` packed panels of w.
     * z, init (rows, panels * PANEL); a (rows, K). init_stride 0 repeats one row; init may be z. */
    void (*product)(real *z, ptrdiff_t z_stride, const real *init, ptrdiff_t init_stride,
                    const real *a, ptrdiff_t a_stride, const real *w,
                    ptrdiff_t rows, ptrdiff_t panels, ptrdiff_t K);

    /* One LSTM time step for the hidden units of panels first <= p < last.
     * h (rows, H)           out
     * c, c_prev (rows, Hp)  out, in; may be the same
     * z (rows, P, 4, LANES) in: x_t @ W_ih.T + b; out: the gates i, f, g, o
     * h_prev (rows, H)      in; w_hh: pack_gates of W_hh */
    void (*lstm_forward_step)(real *h, ptrdiff_t h_stride, real *c, const real *c_prev,
                              ptrdiff_t c_stride, real *z, ptrdiff_t z_stride,
                              const real *h_prev, ptrdiff_t h_prev_stride, const real *w_hh,
                              ptrdiff_t rows, ptrdiff_t H, ptrdiff_t first, ptrdiff_t last);

    /* The element-wise part of the same step backward.
     * dz (rows, 4, H)       out
     * dc (rows, Hp)         in: dL/dc_t from the future; out: dL/dc_{t-1}
     * dh (rows, Hq), dy (rows, H)  in: their sum is dL/dh_t; dy_stride 0 repeats one row
     * gates (rows, P, 4, LANES), c, c_prev (rows, Hp)  in, as the forward step left them */
    void (*lstm_backward_cells)(real *dz, ptrdiff_t dz_stride, real *dc, ptrdiff_t dc_stride,
                                const real *dh, ptrdiff_t dh_stride,
                                const real *dy, ptrdiff_t dy_stride,
                                const real *gates, ptrdiff_t gates_stride,
                                const real *c, const real *c_prev, ptrdiff_t c_stride,
                                ptrdiff_t rows, ptrdiff_t H, ptrdiff_t first, ptrdiff_t last);

    /* sums (N,) += the sum of the rows of a (rows, N), top to bottom. */
    void (*add_rows)(real *sums, const real *a, ptrdiff_t rows, ptrdiff_t N);

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
