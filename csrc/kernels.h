/* The kernels of one instruction set and element type: the contract between the vector code
 * (src/fastlstm/_kernels) and the time loops (src/fastlstm/_core/sequence.pxi).
 *
 * LANES, PANEL = 4 * LANES: reals in a vector and in a panel row, see tile.h
 * Hp, Ip, Rp             H, I, R rounded up to whole vectors
 * R                      what is fed back: the projection's size, or H
 * Z                      reals in a row of gates: 4 * Hp, for the plain RNN Hp
 * P = ceil(Z / PANEL)    panels of gates: of LANES hidden units, for the plain RNN of PANEL
 *
 * The four blocks of a panel of gates are, for the LSTM f, i, g, o (the coupled one has no weights for
 * f); for the GRU n, r, z and, if reset after the product, q = h W_hn + b_hn. Arrays of the user have
 * the gates in PyTorch's order, each of H units: i, f, g, o (coupled i, g, o) and r, z, n.
 *
 * A matrix (rows, N) is a pointer and, where it is not N, a stride: the distance of rows in reals.
 * All memory is the caller's; a kernel keeps no pointer, allocates nothing and takes no lock.
 * Arguments may not overlap except where it is said. No alignment is required; packed weights
 * are fastest at 64 bytes.
 *
 * A table multiplies reals, or numbers of fewer bits (see arithmetic/): then weights are packed as groups
 * of several, WEIGHT_ROWS(K) rows of panels for K, each as wide as a real; and x, u and dz are rounded by
 * the kernel that multiplies them, into scratch of the caller's. All else is the same.
 */
#ifndef FASTLSTM_KERNELS_H
#define FASTLSTM_KERNELS_H

#include "simd/real.h"
#include <stddef.h>

enum { LSTM, LSTM_VARIANT, GRU, GRU_RESET_BEFORE, RNN, CELLS };

/* ONNX's list; the slope of each can be had from its output. */
enum {
    SIGMOID, TANH, RELU, AFFINE, LEAKY_RELU, THRESHOLDED_RELU, SCALED_TANH, HARD_SIGMOID, ELU,
    SOFTSIGN, SOFTPLUS
};

typedef struct {
    int kind;
    real alpha, beta;
} activation;

/* What makes a cell differ from the plain one. Bounds are infinite where there is none. */
typedef struct {
    activation gate, candidate, output;
    real clip;                  /* of the input of each activation */
    int coupled;                /* f = 1 - i */
    int bounded;                /* |h| <= 1 if |h_0| is: the scale of h in int8 is 1/127 */
    real cell_clip, proj_clip;
    const real *peephole;       /* (3, Hp): i, f, o; or NULL */
    const real *norm;           /* gains of x (P, 4, LANES) and of h (P, 4, LANES), gain and shift of
                                 * c (2, Hp); or NULL */
    const void *w_proj;         /* pack_columns of W_proj.T (H, R); or NULL */
    const void *w_proj_columns; /* pack_columns of W_proj (R, H); for the backward step */
    const void *w_hn;           /* GRU_RESET_BEFORE: pack_columns of W_hn.T (H, H) */
    const void *w_hn_columns;   /* pack_columns of W_hn (H, H) */
} cell_options;

/* The parts of a row that a cell keeps beside its gates, `size` reals in all:
 *   LSTM_VARIANT      c~ (Hp) before zoneout; with a projection m (Hp) and h~ (Rp), what went into it
 *                     and came out; with layer norm N(x W) (Z), N(h W) (Z), N(c~) (Hp) and the three
 *                     factors that were divided by (LANES, or 4)
 *   GRU_RESET_BEFORE  m: r * h (Hp); h: (r * h) @ W_hn (Hp) */
typedef struct {
    ptrdiff_t c, m, h, norm_x, norm_h, norm_c, scales, size;
} extra_parts;

/* The parts of a row of gradients, each gate H wide without padding:
 *   x      (gates * H)  dL/d(x W_ih)
 *   h      (gates * H)  dL/d(h W_hh); for the LSTM without layer norm it is the part x itself
 *   b      (gates * H)  dL/db; likewise. The GRU with reset after has dL/db_hn in part h
 *   u      (H)          layer norm: dL/d(input of the output activation)
 *   proj   (R)          projection: dL/d(m W_proj) */
typedef struct {
    ptrdiff_t h, b, u, proj, size;
} gradient_parts;

/* One time step of the hidden units of panels first <= p < last, taken from the last one to the first
 * if `descending`: alternating finds in the cache what the step before left. LSTM_VARIANT and
 * GRU_RESET_BEFORE always take all panels. */
typedef struct {
    ptrdiff_t rows, I, H, R, first, last;
    int descending;
    const real *init;           /* (rows, Z): what x @ W_ih.T is added to; stride 0 repeats */
    ptrdiff_t init_stride;
    const real *x;              /* (rows, I); I may be 0, with init = x_t @ W_ih.T + b */
    ptrdiff_t x_stride;
    const void *w_ih;           /* pack_gates of W_ih; for the RNN pack_columns of W_ih.T */
    const real *u;              /* (rows, R): h_prev, or what dropout leaves of it */
    ptrdiff_t u_stride;
    const void *w_hh;           /* pack_gates of W_hh; for the RNN pack_columns of W_hh.T */
    const real *h_prev;         /* (rows, R) */
    ptrdiff_t h_prev_stride;
    real *h;                    /* (rows, R) out */
    ptrdiff_t h_stride;
    real *c;                    /* (rows, Hp) out; may be c_prev */
    const real *c_prev;         /* (rows, Hp) */
    ptrdiff_t c_stride;
    const real *zoneout_c;      /* (rows, Hp), or NULL; stride 0 repeats */
    ptrdiff_t zoneout_c_stride;
    real *gates;                /* (rows, Z) out; may be init; NULL for LSTM and GRU: not wanted */
    ptrdiff_t gates_stride;
    real *extra;                /* (rows, parts.size) out */
    ptrdiff_t extra_stride;
    extra_parts parts;
    const cell_options *options; /* all but the plain LSTM */
    const real *zeros;          /* (max(Hp, Rp),) */
    real *z;                    /* (tile_rows, PANEL) scratch, fastest at 64 bytes */
    void *rounded;              /* scratch: rounded_bytes of (rows, I) and of (rows, max(R, H)) */
} forward_step;

/* The element-wise part of the same step backward. */
typedef struct {
    ptrdiff_t rows, H, R, first, last;
    real *dz;                   /* (rows, gradients.size) out */
    ptrdiff_t dz_stride;
    gradient_parts gradients;
    real *dc;                   /* (rows, Hp) in: dL/dc_t from the future; out: dL/dc_{t-1} */
    ptrdiff_t dc_stride;
    real *dh;                   /* (rows, Rp) in: see dy; out, but for the plain LSTM: the part of */
    ptrdiff_t dh_stride;        /* dL/dh_{t-1} that did not pass through W_hh */
    const real *dy;             /* (rows, R) in: dy + dh is dL/dh_t; stride 0 repeats one row */
    ptrdiff_t dy_stride;
    const real *gates;          /* (rows, Z), c, c_prev (rows, Hp), extra: as the forward step left */
    ptrdiff_t gates_stride;
    const real *c;
    const real *c_prev;
    ptrdiff_t c_stride;
    const real *u;              /* (rows, R): as in the forward step */
    ptrdiff_t u_stride;
    const real *h_prev;
    ptrdiff_t h_prev_stride;
    const real *zoneout_c;
    ptrdiff_t zoneout_c_stride;
    const real *extra;
    ptrdiff_t extra_stride;
    extra_parts parts;
    const cell_options *options;
    real *scratch;              /* (rows, Hp): LSTM_VARIANT with projection, GRU_RESET_BEFORE */
    ptrdiff_t scratch_stride;
    const real *dropout;        /* (rows, R): GRU_RESET_BEFORE, or NULL */
    ptrdiff_t dropout_stride;
    const real *zeros;          /* (max(Hp, Rp),) */
    void *rounded;              /* scratch: rounded_bytes(rows, max(R, H)) */
} backward_step;

typedef void (*forward_kernel)(const forward_step *step);
typedef void (*backward_kernel)(const backward_step *step);

/* Bounds for arrays on the stack of whoever calls. */
enum { MOST_LANES = 16, MOST_FINGERPRINT_REALS = 8 * MOST_LANES };

/* Of numbers in int8, whose sum must fit into 32 bits. */
enum { MOST_INT8_PRODUCTS = 1 << 17 };

typedef struct {
    int lanes;                  /* at most MOST_LANES */

    /* Weights w (gates * H, K), of any strides, as panels (P, K, blocks, LANES), units beyond H as 0;
     * block k has the rows of gate order[k], or 0 if that is negative. */
    void (*pack_gates)(real *panels, const real *w, ptrdiff_t row_stride, ptrdiff_t column_stride,
                       ptrdiff_t H, ptrdiff_t K, const int *order, ptrdiff_t blocks);

    /* w (K, N) as panels of its columns (ceil(N / PANEL), K, 4, LANES), the last one of as few
     * vectors as hold its columns, columns beyond N as 0. */
    void (*pack_columns)(real *panels, const real *w, ptrdiff_t row_stride, ptrdiff_t column_stride,
                         ptrdiff_t K, ptrdiff_t N);

    /* The same for weights that are multiplied: weight_rows(K) instead of K. */
    void (*pack_gate_weights)(void *panels, const real *w, ptrdiff_t row_stride, ptrdiff_t column_stride,
                              ptrdiff_t H, ptrdiff_t K, const int *order, ptrdiff_t blocks);
    void (*pack_column_weights)(void *panels, const real *w, ptrdiff_t row_stride, ptrdiff_t column_stride,
                                ptrdiff_t K, ptrdiff_t N);
    ptrdiff_t (*weight_rows)(ptrdiff_t K);

    /* z := init + a @ w for panels of w.
     * z, init (rows, vectors * LANES); a (rows, K). init_stride 0 repeats one row; init may be z.
     * int8: `least` is the least number of which 1/127 is the scale of a row; 0 otherwise.
     * scratch: rounded_bytes(rows, K), 0 where reals are multiplied. */
    void (*product)(real *z, ptrdiff_t z_stride, const real *init, ptrdiff_t init_stride,
                    const real *a, ptrdiff_t a_stride, const void *w,
                    ptrdiff_t rows, ptrdiff_t vectors, ptrdiff_t K, real least, void *scratch);
    size_t (*rounded_bytes)(ptrdiff_t rows, ptrdiff_t K);

    /* z := init + a.T @ d.  z, init (M, panels * PANEL), a (rows, M), d (rows, panels * PANEL).
     * init_stride 0 repeats one row; init may be z. scratch: outer_product_bytes(M, rows).
     * NULL in tables of int8, whose backward call is that of float32. */
    void (*outer_product)(real *z, ptrdiff_t z_stride, const real *init, ptrdiff_t init_stride,
                          const real *a, ptrdiff_t a_stride, const real *d, ptrdiff_t d_stride,
                          ptrdiff_t M, ptrdiff_t panels, ptrdiff_t rows, void *scratch);
    size_t (*outer_product_bytes)(ptrdiff_t M, ptrdiff_t rows);

    /* int8: out (K,) := what the weights w (K), `step` apart, are multiplied as; else NULL. */
    void (*rounded_weights)(real *out, const real *w, ptrdiff_t step, ptrdiff_t K);

    /* w (N, M) += z.T for columns first <= j < last of z (M, N). */
    void (*add_transposed)(real *w, const real *z, ptrdiff_t z_stride,
                           ptrdiff_t M, ptrdiff_t first, ptrdiff_t last);

    /* Whether a BLAS is likely to multiply faster than `outer_product` here. */
    int prefer_blas;

    /* gates := init + x @ W_ih.T for panels first..last: what a step takes as init, with I = 0. */
    forward_kernel input_product[CELLS];
    forward_kernel forward_step[CELLS];
    backward_kernel backward_cells[CELLS];
    int tile_rows;

    /* To be called by whoever ran any of these, before the thread does anything else: kernels may leave
     * registers in a state of theirs. */
    void (*end_task)(void);

    /* out (n,) := a * b; may be a or b. */
    void (*multiply)(real *out, const real *a, const real *b, ptrdiff_t n);

    /* sums (n,) += a * b; b may be NULL for 1. */
    void (*accumulate)(real *sums, const real *a, const real *b, ptrdiff_t n);

    /* y (n,) := keep * x + (1 - keep) * y */
    void (*zoneout)(real *y, const real *x, const real *keep, ptrdiff_t n);

    /* dh (n,) in: dL/dh_t from the future; out: (1 - keep) * (dh + dy). kept (n,) := the rest. */
    void (*zoneout_backward)(real *dh, real *kept, const real *dy, const real *keep, ptrdiff_t n);

    /* Add what a row of a step of LSTM_VARIANT contributes to the gradients of its options:
     * dpeephole (3, H), or (2, H) if coupled; dnorm (2 * gates + 2, H). */
    void (*option_gradients)(real *dpeephole, real *dnorm, const real *dz, const real *extra,
                             const real *c_prev, const extra_parts *parts,
                             const gradient_parts *gradients, const cell_options *options,
                             ptrdiff_t H);

    /* sums (N,) += the sum of the rows of a (rows, N), top to bottom. */
    void (*add_rows)(real *sums, const real *a, ptrdiff_t a_stride, ptrdiff_t rows, ptrdiff_t N);

    /* out (fingerprint_reals,) := a fingerprint of x (n,), see fingerprint.h. */
    void (*fingerprint)(real_bits *out, const real *x, ptrdiff_t n);
    int fingerprint_reals;      /* at most MOST_FINGERPRINT_REALS */

    /* Measures of the machine, see roofline.h. */
    void (*fma_peak)(real *out, ptrdiff_t repeats);
    int fma_peak_operations;
    void (*read_all)(real *out, const real *x, ptrdiff_t n);

    /* y (n,) of x (n,); may be the same. */
    void (*sigmoid)(real *y, const real *x, ptrdiff_t n);
    void (*tanh)(real *y, const real *x, ptrdiff_t n);
} kernel_table;

#endif
