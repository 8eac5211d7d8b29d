/* The register tile, and the product of a matrix with packed panels that is built of it.
 *
 * A panel holds 4 * LANES columns of the right-hand matrix, row after row: [K][4][LANES]. For gate
 * weights these are the four gates of LANES hidden units, so that a row of the product has all that
 * the cell of these units needs; for plain columns the last panel is as narrow as it can be.
 *
 * Each element of a product is one chain  z = fma(a[k], w[k], z),  k = 0, 1, ..., K - 1.  Hence its
 * bits depend neither on the other rows, nor on how rows and panels are divided over tiles, calls
 * and threads: that is what makes the library's results bitwise reproducible.
 */
#ifndef FASTLSTM_TILE_H
#define FASTLSTM_TILE_H

#include <stddef.h>

/* Without full unrolling the accumulators would live in memory. */
#if defined(__clang__)
#define PREFETCH(p) __builtin_prefetch(p, 0, 2)
#define ALWAYS_INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("unroll")
#define UNROLL_ALL UNROLL
#elif defined(__GNUC__)
#define PREFETCH(p) __builtin_prefetch(p, 0, 2)
#define ALWAYS_INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 8")
#define UNROLL_ALL _Pragma("GCC unroll 32")
#else
#define PREFETCH(p) ((void)0)
#define ALWAYS_INLINE static inline
#define UNROLL
#define UNROLL_ALL
#endif

#define PANEL (4 * LANES)

/* z := init + a @ w for `rows` rows and `panels` panels of `vectors` vectors each, all three
 * compile-time constants where it is inlined. Element (k, j) of a panel is w[k * w_step + j].
 * `ahead` walks through memory that is wanted soon, a vector per k: weights larger than the L2
 * would otherwise be waited for. */
ALWAYS_INLINE void tile(
    const int rows, const int panels, const int vectors,
    real *z, ptrdiff_t z_stride, const real *init, ptrdiff_t init_stride,
    const real *a, ptrdiff_t a_stride, ptrdiff_t a_step,
    const real *w, ptrdiff_t w_stride, ptrdiff_t w_step, const real *ahead, ptrdiff_t K)
{
    vec acc[TILE_ROWS][2][4];
    UNROLL for (int r = 0; r < rows; r++)
        UNROLL for (int p = 0; p < panels; p++)
            UNROLL for (int v = 0; v < vectors; v++)
                acc[r][p][v] = vec_load(init + r * init_stride + p * PANEL + v * LANES);
    for (ptrdiff_t k = 0; k < K; k++, w += w_step, a += a_step, ahead += LANES) {
        PREFETCH(ahead);
        UNROLL for (int p = 0; p < panels; p++) {
            vec row[4];
            UNROLL for (int v = 0; v < vectors; v++)
                row[v] = vec_load(w + p * w_stride + v * LANES);
            UNROLL for (int r = 0; r < rows; r++) {
                const vec x = vec_splat(a[r * a_stride]);
                UNROLL for (int v = 0; v < vectors; v++)
                    acc[r][p][v] = vec_fma(x, row[v], acc[r][p][v]);
            }
        }
    }
    UNROLL for (int r = 0; r < rows; r++)
        UNROLL for (int p = 0; p < panels; p++)
            UNROLL for (int v = 0; v < vectors; v++)
                vec_store(z + r * z_stride + p * PANEL + v * LANES, acc[r][p][v]);
}

/* The same for one panel and any number of rows. Each of the first four tiles fetches a quarter of
 * the next panel. */
ALWAYS_INLINE void tiles(
    const int vectors, real *z, ptrdiff_t z_stride, const real *init, ptrdiff_t init_stride,
    const real *a, ptrdiff_t a_stride, ptrdiff_t a_step,
    const real *w, ptrdiff_t w_step, const real *next, ptrdiff_t rows, ptrdiff_t K)
{
    while (rows) {
        /* even blocks: 32 = 6 + 6 + 5 + 5 + 5 + 5 */
        const ptrdiff_t blocks = (rows + TILE_ROWS - 1) / TILE_ROWS;
        const ptrdiff_t n = (rows + blocks - 1) / blocks;
        switch (n) {
#define CASE(n)                                                                                   \
    case n:                                                                                       \
        tile(n, 1, vectors, z, z_stride, init, init_stride, a, a_stride, a_step, w, 0, w_step,    \
             next, K);                                                                            \
        break;
#if TILE_ROWS >= 6
            CASE(6) CASE(5) CASE(4)
#endif
#if TILE_ROWS >= 3
            CASE(3)
#endif
            CASE(2) CASE(1)
#undef CASE
        }
        z += n * z_stride;
        init += n * init_stride;
        a += n * a_stride;
        next += K * LANES;
        rows -= n;
    }
}

/* z := init + a @ w over one or two full panels, `next` being wanted after them. One row alone
 * would leave the fma units waiting for each other: give it two panels at once. */
ALWAYS_INLINE void full_panels(
    real *z, ptrdiff_t z_stride, const real *init, ptrdiff_t init_stride,
    const real *a, ptrdiff_t a_stride, ptrdiff_t a_step,
    const real *w, ptrdiff_t w_stride, ptrdiff_t w_step, const real *next,
    ptrdiff_t rows, ptrdiff_t panels, ptrdiff_t K)
{
    if (panels == 2)
        tile(1, 2, 4, z, z_stride, init, init_stride, a, a_stride, a_step,
             w, w_stride, w_step, next, K);
    else
        tiles(4, z, z_stride, init, init_stride, a, a_stride, a_step, w, w_step, next, rows, K);
}

/* How many panels the next call of full_panels should take. */
ALWAYS_INLINE ptrdiff_t panels_at_once(ptrdiff_t rows, ptrdiff_t left)
{
    return rows == 1 && left >= 2 ? 2 : 1;
}

/* z := init + a @ w, w in packed panels of which the last may be narrower: [K][1..4][LANES].
 * z, init (rows, vectors * LANES), a (rows, K). init_stride 0 repeats one row; init may be z. */
static void product(
    real *z, ptrdiff_t z_stride, const real *init, ptrdiff_t init_stride,
    const real *a, ptrdiff_t a_stride, const real *w,
    ptrdiff_t rows, ptrdiff_t vectors, ptrdiff_t K)
{
    for (ptrdiff_t n; vectors >= 4; vectors -= 4 * n) {
        n = panels_at_once(rows, vectors / 4);
        full_panels(z, z_stride, init, init_stride, a, a_stride, 1, w, K * PANEL, PANEL,
                    w + n * K * PANEL, rows, n, K);
        z += n * PANEL;
        init += n * PANEL;
        w += n * K * PANEL;
    }
    switch (vectors) {
#define CASE(n)                                                                                    \
    case n:                                                                                        \
        tiles(n, z, z_stride, init, init_stride, a, a_stride, 1, w, n * LANES, w, rows, K);        \
        break;
        CASE(3) CASE(2) CASE(1)
#undef CASE
    }
}

/* z := init + a.T @ d for some panels of columns: the weight gradients.
 * z, init (M, panels * PANEL), a (rows, M), d (rows, panels * PANEL) with any row strides. */
static void outer_product(
    real *z, ptrdiff_t z_stride, const real *init, ptrdiff_t init_stride,
    const real *a, ptrdiff_t a_stride, const real *d, ptrdiff_t d_stride,
    ptrdiff_t M, ptrdiff_t panels, ptrdiff_t rows)
{
    for (ptrdiff_t n; panels; panels -= n) {
        n = panels_at_once(M, panels);
        full_panels(z, z_stride, init, init_stride, a, 1, a_stride, d, PANEL, d_stride,
                    d + n * PANEL, M, n, rows);
        z += n * PANEL;
        init += n * PANEL;
        d += n * PANEL;
    }
}

/* z += h @ w for one or two panels of gates, the recurrent product. */
static void gate_product(
    real *z, ptrdiff_t z_stride, const real *h, ptrdiff_t h_stride,
    const real *w, const real *next, ptrdiff_t rows, ptrdiff_t panels, ptrdiff_t H)
{
    full_panels(z, z_stride, z, z_stride, h, h_stride, 1, w, H * PANEL, PANEL, next,
                rows, panels, H);
}

#endif
