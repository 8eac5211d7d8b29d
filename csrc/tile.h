/* The register tile, and the product of a matrix with packed panels that is built of it.
 *
 * A panel holds 4 * LANES columns of the right-hand matrix, row after row: [K][4][LANES]. For gate
 * weights these are the four gates of LANES hidden units, so that a row of the product has all that
 * the cell of these units needs.
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
#define ALWAYS_INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("unroll")
#define UNROLL_ALL UNROLL
#elif defined(__GNUC__)
#define ALWAYS_INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 8")
#define UNROLL_ALL _Pragma("GCC unroll 32")
#else
#define ALWAYS_INLINE static inline
#define UNROLL
#define UNROLL_ALL
#endif

#define PANEL (4 * LANES)

/* `rows` rows by `panels` panels, both compile-time constants where it is inlined. */
ALWAYS_INLINE void tile(
    const int rows, const int panels,
    real *z, ptrdiff_t z_stride,           /* out (rows, panels * PANEL) */
    const real *init, ptrdiff_t init_stride, /* z starts from this; stride 0 repeats a row; may be z */
    const real *a, ptrdiff_t a_stride,     /* (rows, K), K contiguous */
    const real *w, ptrdiff_t w_stride,     /* panels of (K, PANEL), w_stride apart */
    ptrdiff_t K)
{
    vec acc[TILE_ROWS][2][4];
    UNROLL for (int r = 0; r < rows; r++)
        UNROLL for (int p = 0; p < panels; p++)
            UNROLL for (int g = 0; g < 4; g++)
                acc[r][p][g] = vec_load(init + r * init_stride + p * PANEL + g * LANES);
    for (ptrdiff_t k = 0; k < K; k++, w += PANEL)
        UNROLL for (int p = 0; p < panels; p++) {
            vec column[4];
            UNROLL for (int g = 0; g < 4; g++)
                column[g] = vec_load(w + p * w_stride + g * LANES);
            UNROLL for (int r = 0; r < rows; r++) {
                const vec x = vec_splat(a[r * a_stride + k]);
                UNROLL for (int g = 0; g < 4; g++)
                    acc[r][p][g] = vec_fma(x, column[g], acc[r][p][g]);
            }
        }
    UNROLL for (int r = 0; r < rows; r++)
        UNROLL for (int p = 0; p < panels; p++)
            UNROLL for (int g = 0; g < 4; g++)
                vec_store(z + r * z_stride + p * PANEL + g * LANES, acc[r][p][g]);
}

/* z = init + a @ w over `panels` panels: z (rows, panels * PANEL), a (rows, K).
 * Strides are in elements; init_stride 0 repeats one row; init may be z; nothing else may overlap. */
static void panel_product(
    real *z, ptrdiff_t z_stride, const real *init, ptrdiff_t init_stride,
    const real *a, ptrdiff_t a_stride, const real *w,
    ptrdiff_t rows, ptrdiff_t panels, ptrdiff_t K)
{
    const ptrdiff_t w_stride = K * PANEL;
    ptrdiff_t p = 0;
    if (rows == 1)
        /* one row alone leaves the fma units waiting for each other: two panels at once */
        for (; p + 1 < panels; p += 2)
            tile(1, 2, z + p * PANEL, z_stride, init + p * PANEL, init_stride, a, a_stride,
                 w + p * w_stride, w_stride, K);
    for (; p < panels; p++) {
        ptrdiff_t left = rows;
        real *z_p = z + p * PANEL;
        const real *init_p = init + p * PANEL, *a_p = a, *w_p = w + p * w_stride;
        while (left) {
            /* even blocks: 32 = 6 + 6 + 5 + 5 + 5 + 5 */
            const ptrdiff_t blocks = (left + TILE_ROWS - 1) / TILE_ROWS;
            const ptrdiff_t n = (left + blocks - 1) / blocks;
            switch (n) {
#define CASE(n) \
    case n: tile(n, 1, z_p, z_stride, init_p, init_stride, a_p, a_stride, w_p, w_stride, K); break;
#if TILE_ROWS >= 6
                CASE(6) CASE(5) CASE(4)
#endif
#if TILE_ROWS >= 3
                CASE(3)
#endif
                CASE(2) CASE(1)
#undef CASE
            }
            z_p += n * z_stride;
            init_p += n * init_stride;
            a_p += n * a_stride;
            left -= n;
        }
    }
}

#endif
