/* The register tile, and the product of a matrix with packed panels that is built of it.
 *
 * A panel holds 4 * LANES columns of the right-hand matrix, row after row: [K][4][LANES]. For gate
 * weights these are the four gates of LANES hidden units, so that a row of the product has all that
 * the cell of these units needs; for plain columns the last panel is as narrow as it can be.
 *
 * Each element of a product is one chain  z = fma(a[k], w[k], z),  k = 0, 1, ..., K - 1.  Hence its
 * bits depend neither on the other rows, nor on how rows and panels are divided over tiles, calls
 * and threads: that is what makes the library's results bitwise reproducible.
 *
 * What is multiplied, reals or numbers of fewer bits, is the matter of arithmetic/, whose names stand in
 * real.h: `weight` and `operand` are reals, or groups of smaller numbers. Chains that end in float
 * (ENDS_IN_FLOAT) begin with 0, and `init` is added last.
 */
#ifndef FASTLSTM_TILE_H
#define FASTLSTM_TILE_H

#include <stddef.h>

#if defined(FASTLSTM_BFLOAT16)
#include "arithmetic/bfloat16.h"
#elif defined(FASTLSTM_INT8)
#include "arithmetic/int8.h"
#else
#include "arithmetic/real.h"
#endif

/* Without full unrolling the accumulators would live in memory. */
#if defined(__clang__)
#define PREFETCH(p) __builtin_prefetch(p, 0, 2)
#define ALWAYS_INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("clang loop unroll(full)")
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

#if defined(FASTLSTM_BFLOAT16) && defined(__AMX_BF16__)
#include "arithmetic/amx.h"
#endif

#ifndef AMX_TILE

/* The accumulators of a tile: `rows` rows of `panels` panels of `vectors` vectors, compile-time
 * constants where it is inlined. There are enough for TILE_ROWS rows of one panel, or one of two. */
typedef sums accumulators[TILE_ROWS][2][4];

/* acc += a @ w for the vectors first <= v < first + vectors of each panel. Group (k, j) of a panel
 * is w[k * w_step + j]. `ahead` walks through memory that is wanted soon, a vector per k: weights
 * larger than the L2 would otherwise be waited for. */
ALWAYS_INLINE void tile_add(
    accumulators acc, const int rows, const int panels, const int first, const int vectors,
    const operand *a, ptrdiff_t a_stride, ptrdiff_t a_step,
    const weight *w, ptrdiff_t w_stride, ptrdiff_t w_step, const weight *ahead, ptrdiff_t K)
{
#ifdef READS_PAIRS_OF_ONE_ROW
    if (rows == 1 && a_step == 1) {
        w += PAIR_ROWS_AFTER(K) * w_step;
        ahead += PAIR_ROWS_AFTER(K) * w_step;
        for (ptrdiff_t k = 0; k < K; k += 2, w += w_step, a += 2, ahead += LANES) {
            PREFETCH(ahead);
            UNROLL for (int p = 0; p < panels; p++)
                UNROLL for (int v = 0; v < vectors; v++)
                    acc[0][p][first + v] = dot_pairs(
                        acc[0][p][first + v], a, load_pairs(w + p * w_stride + v * LANES));
        }
        return;
    }
#endif
    for (ptrdiff_t k = 0; k < K; k += GROUP, w += w_step, a += a_step, ahead += LANES) {
        PREFETCH(ahead);
        UNROLL for (int p = 0; p < panels; p++) {
            weights_of_lanes row[4];
            UNROLL for (int v = 0; v < vectors; v++)
                row[v] = load_weights(w + p * w_stride + v * LANES);
            UNROLL for (int r = 0; r < rows; r++) {
                const operand_of_lanes x = splat_operand(a + r * a_stride);
                UNROLL for (int v = 0; v < vectors; v++)
                    acc[r][p][first + v] = dot(acc[r][p][first + v], x, row[v]);
            }
        }
    }
}

#if !ENDS_IN_FLOAT

ALWAYS_INLINE void tile_load(
    accumulators acc, const int rows, const int panels, const int vectors,
    const real *init, ptrdiff_t init_stride)
{
    UNROLL for (int r = 0; r < rows; r++)
        UNROLL for (int p = 0; p < panels; p++)
            UNROLL for (int v = 0; v < vectors; v++)
                acc[r][p][v] = vec_load(init + r * init_stride + p * PANEL + v * LANES);
}

ALWAYS_INLINE void tile_store(
    accumulators acc, const int rows, const int panels, const int vectors,
    real *z, ptrdiff_t z_stride)
{
    UNROLL for (int r = 0; r < rows; r++)
        UNROLL for (int p = 0; p < panels; p++)
            UNROLL for (int v = 0; v < vectors; v++)
                vec_store(z + r * z_stride + p * PANEL + v * LANES, acc[r][p][v]);
}

#else

/* z := init + a @ w for the vectors first <= v < first + vectors of each panel of z. */
ALWAYS_INLINE void tile_part(
    const int rows, const int panels, const int first, const int vectors,
    real *z, ptrdiff_t z_stride, const real *init, ptrdiff_t init_stride,
    const operand *a, ptrdiff_t a_stride, ptrdiff_t a_step,
    const weight *w, ptrdiff_t w_stride, ptrdiff_t w_step, const weight *ahead, ptrdiff_t K)
{
    accumulators acc;
    UNROLL for (int p = 0; p < panels; p++)
        UNROLL for (int v = 0; v < vectors; v++)
            UNROLL for (int r = 0; r < rows; r++)
                acc[r][p][v] = load_sums(w + p * w_stride + w_step + v * LANES);
    tile_add(acc, rows, panels, 0, vectors, a + OPERAND_HEAD, a_stride, a_step,
             w + WEIGHT_HEAD * w_step, w_stride, w_step, ahead, K);
    UNROLL for (int p = 0; p < panels; p++)
        UNROLL for (int v = 0; v < vectors; v++)
            UNROLL for (int r = 0; r < rows; r++) {
                const ptrdiff_t at = p * PANEL + (first + v) * LANES;
                const vec start = vec_load(init + r * init_stride + at);
                vec_store(z + r * z_stride + at,
                          end_in_float(start, acc[r][p][v], a + r * a_stride, w + p * w_stride + v * LANES));
            }
}

#endif

/* z := init + a @ w */
ALWAYS_INLINE void tile(
    const int rows, const int panels, const int vectors,
    real *z, ptrdiff_t z_stride, const real *init, ptrdiff_t init_stride,
    const operand *a, ptrdiff_t a_stride, ptrdiff_t a_step,
    const weight *w, ptrdiff_t w_stride, ptrdiff_t w_step, const weight *ahead, ptrdiff_t K)
{
#if ENDS_IN_FLOAT
    tile_part(rows, panels, 0, vectors, z, z_stride, init, init_stride, a, a_stride, a_step,
              w, w_stride, w_step, ahead, K);
#else
    accumulators acc;
    tile_load(acc, rows, panels, vectors, init, init_stride);
    tile_add(acc, rows, panels, 0, vectors, a, a_stride, a_step, w, w_stride, w_step, ahead, K);
    tile_store(acc, rows, panels, vectors, z, z_stride);
#endif
}

#endif

/* An init for two panels. */
static const real ZEROS[2 * PANEL];

/* How many of `rows` rows the next tile takes: even blocks, 32 = 6 + 6 + 5 + 5 + 5 + 5. */
ALWAYS_INLINE ptrdiff_t tile_rows(ptrdiff_t rows)
{
    const ptrdiff_t blocks = (rows + TILE_ROWS - 1) / TILE_ROWS;
    return (rows + blocks - 1) / blocks;
}

#ifdef AMX_TILE
static inline void begin_tiles(ptrdiff_t rows) { set_tile_rows((int)tile_rows(rows)); }
#define PANELS_OF_A_ROW 1
#else
#define PANELS_OF_A_ROW 2
#endif

/* The same for one panel and any number of rows. Each of the first four tiles fetches a quarter of
 * the next panel. */
ALWAYS_INLINE void tiles(
    const int vectors, real *z, ptrdiff_t z_stride, const real *init, ptrdiff_t init_stride,
    const operand *a, ptrdiff_t a_stride, ptrdiff_t a_step,
    const weight *w, ptrdiff_t w_step, const weight *next, ptrdiff_t rows, ptrdiff_t K)
{
    while (rows) {
        const ptrdiff_t n = tile_rows(rows);
#ifdef AMX_TILE
        tile(n, 1, vectors, z, z_stride, init, init_stride, a, a_stride, a_step, w, 0, w_step, next, K);
#else
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
#endif
        z += n * z_stride;
        init += n * init_stride;
        a += n * a_stride;
        next += WEIGHT_ROWS(K) * LANES;
        rows -= n;
    }
}

/* z := init + a @ w over one or two full panels, `next` being wanted after them. One row alone
 * would leave the fma units waiting for each other: give it two panels at once. */
ALWAYS_INLINE void full_panels(
    real *z, ptrdiff_t z_stride, const real *init, ptrdiff_t init_stride,
    const operand *a, ptrdiff_t a_stride, ptrdiff_t a_step,
    const weight *w, ptrdiff_t w_stride, ptrdiff_t w_step, const weight *next,
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
    return rows == 1 && left >= PANELS_OF_A_ROW ? PANELS_OF_A_ROW : 1;
}

/* z := init + a @ w, w in `panels` of which the last may be narrower: [WEIGHT_ROWS(K)][1..4][LANES].
 * z, init (rows, vectors * LANES), a (rows, K). init_stride 0 repeats one row; init may be z. `least` and
 * `scratch` (rounded_bytes(rows, K)) are what rounding a takes. */
static void product(
    real *z, ptrdiff_t z_stride, const real *init, ptrdiff_t init_stride,
    const real *rows_of_a, ptrdiff_t a_stride, const void *panels,
    ptrdiff_t rows, ptrdiff_t vectors, ptrdiff_t K, real least, void *scratch)
{
    const weight *w = panels;
    const operand *a = rounded(scratch, rows_of_a, &a_stride, rows, K, least);
    if (!rows)
        return;
    begin_tiles(rows);
    for (ptrdiff_t n; vectors >= 4; vectors -= 4 * n) {
        n = panels_at_once(rows, vectors / 4);
        full_panels(z, z_stride, init, init_stride, a, a_stride, 1, w, WEIGHT_ROWS(K) * PANEL, PANEL,
                    w + n * WEIGHT_ROWS(K) * PANEL, rows, n, K);
        z += n * PANEL;
        init += n * PANEL;
        w += n * WEIGHT_ROWS(K) * PANEL;
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
 * z, init (M, panels * PANEL), a (rows, M), d (rows, panels * PANEL) with any row strides; `scratch`
 * (outer_product_bytes(M, rows)). */
#if defined(FASTLSTM_INT8)

/* Gradients of int8 are those of float32. */
static void (*const weight_gradient_product)(
    real *, ptrdiff_t, const real *, ptrdiff_t, const real *, ptrdiff_t, const real *, ptrdiff_t,
    ptrdiff_t, ptrdiff_t, ptrdiff_t, void *) = NULL;
static inline size_t outer_product_bytes(ptrdiff_t M, ptrdiff_t rows) { (void)M, (void)rows; return 0; }

#elif defined(FASTLSTM_BFLOAT16)

static inline size_t outer_product_bytes(ptrdiff_t M, ptrdiff_t rows)
{
    return columns_bytes(M, rows) + (size_t)WEIGHT_ROWS(rows) * PANEL * sizeof(weight);
}

static void outer_product(
    real *z, ptrdiff_t z_stride, const real *init, ptrdiff_t init_stride,
    const real *rows_of_a, ptrdiff_t a_stride, const real *d, ptrdiff_t d_stride,
    ptrdiff_t M, ptrdiff_t panels, ptrdiff_t rows, void *scratch)
{
    operand *a = scratch;
    weight *panel = (weight *)((char *)scratch + columns_bytes(M, rows));
    if (!M || !panels)
        return;
    round_columns(a, rows_of_a, a_stride, M, rows);
    memset(panel, 0, WEIGHT_ROWS(rows) * PANEL * sizeof(weight));
    begin_tiles(M);
    for (ptrdiff_t p = 0; p < panels; p++) {
        pack_rows(panel, d + p * PANEL, d_stride, PANEL, rows, 0, rows);
        tiles(4, z + p * PANEL, z_stride, init + p * PANEL, init_stride,
              a, COLUMN_STRIDE(M, rows), COLUMN_STEP(M, rows), panel, PANEL, panel, M, rows);
    }
}

static void (*const weight_gradient_product)(
    real *, ptrdiff_t, const real *, ptrdiff_t, const real *, ptrdiff_t, const real *, ptrdiff_t,
    ptrdiff_t, ptrdiff_t, ptrdiff_t, void *) = outer_product;

#else

static inline size_t outer_product_bytes(ptrdiff_t M, ptrdiff_t rows) { (void)M, (void)rows; return 0; }

static void outer_product(
    real *z, ptrdiff_t z_stride, const real *init, ptrdiff_t init_stride,
    const real *a, ptrdiff_t a_stride, const real *d, ptrdiff_t d_stride,
    ptrdiff_t M, ptrdiff_t panels, ptrdiff_t rows, void *scratch)
{
    (void)scratch;
    for (ptrdiff_t n; panels; panels -= n) {
        n = panels_at_once(M, panels);
        full_panels(z, z_stride, init, init_stride, a, 1, a_stride, d, PANEL, d_stride,
                    d + n * PANEL, M, n, rows);
        z += n * PANEL;
        init += n * PANEL;
        d += n * PANEL;
    }
}

static void (*const weight_gradient_product)(
    real *, ptrdiff_t, const real *, ptrdiff_t, const real *, ptrdiff_t, const real *, ptrdiff_t,
    ptrdiff_t, ptrdiff_t, ptrdiff_t, void *) = outer_product;

#endif

/* The pre-activations of one tile of gates: z (rows, panels * PANEL) := init + x @ w_x + h @ w_h.
 * A panel of z has four vectors, of which x adds to x_vectors from x_first on, and h likewise:
 * constants where it is inlined. Panels of weights are [K][vectors][LANES]; next_x and next_h are
 * wanted after them. */
#ifndef AMX_TILE
ALWAYS_INLINE void gates(
    const int rows, const int panels,
    const int x_first, const int x_vectors, const int h_first, const int h_vectors,
    real *z, ptrdiff_t z_stride, const real *init, ptrdiff_t init_stride,
    const operand *x, ptrdiff_t x_stride, const weight *w_x, const weight *next_x, ptrdiff_t I,
    const operand *h, ptrdiff_t h_stride, const weight *w_h, const weight *next_h, ptrdiff_t R)
{
    const ptrdiff_t x_step = x_vectors * LANES, h_step = h_vectors * LANES;
#if ENDS_IN_FLOAT
    if (I == 0 || x_vectors < 4 || h_vectors < 4)
        for (int r = 0; r < rows; r++)
            memmove(z + r * z_stride, init + r * init_stride, panels * PANEL * sizeof(real));
    else
        tile_part(rows, panels, x_first, x_vectors, z, z_stride, init, init_stride, x, x_stride, 1,
                  w_x, WEIGHT_ROWS(I) * x_step, x_step, next_x, I);
    if (I && (x_vectors < 4 || h_vectors < 4))
        tile_part(rows, panels, x_first, x_vectors, z, z_stride, z, z_stride, x, x_stride, 1,
                  w_x, WEIGHT_ROWS(I) * x_step, x_step, next_x, I);
    if (R)
        tile_part(rows, panels, h_first, h_vectors, z, z_stride, z, z_stride, h, h_stride, 1,
                  w_h, WEIGHT_ROWS(R) * h_step, h_step, next_h, R);
#else
    accumulators acc;
    tile_load(acc, rows, panels, 4, init, init_stride);
    tile_add(acc, rows, panels, x_first, x_vectors, x, x_stride, 1,
             w_x, WEIGHT_ROWS(I) * x_step, x_step, next_x, I);
    tile_add(acc, rows, panels, h_first, h_vectors, h, h_stride, 1,
             w_h, WEIGHT_ROWS(R) * h_step, h_step, next_h, R);
    tile_store(acc, rows, panels, 4, z, z_stride);
#endif
}
#endif

/* The same for as many rows as tile_rows says, and for two panels of a single row. */
typedef void (*gates_function)(
    real *z, ptrdiff_t z_stride, const real *init, ptrdiff_t init_stride,
    const operand *x, ptrdiff_t x_stride, const weight *w_x, const weight *next_x, ptrdiff_t I,
    const operand *h, ptrdiff_t h_stride, const weight *w_h, const weight *next_h, ptrdiff_t R,
    ptrdiff_t rows, ptrdiff_t panels);

#define CASE(n, rows, panels, ...)                                                                 \
    case n:                                                                                        \
        gates(rows, panels, __VA_ARGS__, z, z_stride, init, init_stride,                           \
              x, x_stride, w_x, next_x, I, h, h_stride, w_h, next_h, R);                           \
        break;
#ifdef AMX_TILE /* of any number of rows */
#define FIRST_CASES(...) default: (void)panels; CASE(1, rows, 1, __VA_ARGS__)
#else
#define FIRST_CASES(...)                                                                           \
    CASE(0, 1, 2, __VA_ARGS__) CASE(1, 1, 1, __VA_ARGS__) CASE(2, 2, 1, __VA_ARGS__)
#endif
#if TILE_ROWS == 6
#define MORE_CASES(...)                                                                            \
    CASE(3, 3, 1, __VA_ARGS__) CASE(4, 4, 1, __VA_ARGS__) CASE(5, 5, 1, __VA_ARGS__)               \
    CASE(6, 6, 1, __VA_ARGS__)
#elif TILE_ROWS == 3
#define MORE_CASES(...) CASE(3, 3, 1, __VA_ARGS__)
#else
#define MORE_CASES(...)
#endif
#define DEFINE_GATES(name, ...)                                                                    \
    static void name(                                                                              \
        real *z, ptrdiff_t z_stride, const real *init, ptrdiff_t init_stride,                      \
        const operand *x, ptrdiff_t x_stride, const weight *w_x, const weight *next_x,             \
        ptrdiff_t I, const operand *h, ptrdiff_t h_stride, const weight *w_h,                      \
        const weight *next_h, ptrdiff_t R,                                                         \
        ptrdiff_t rows, ptrdiff_t panels)                                                          \
    {                                                                                              \
        switch (panels == 2 ? 0 : rows) {                                                          \
            FIRST_CASES(__VA_ARGS__) MORE_CASES(__VA_ARGS__)                                       \
        }                                                                                          \
    }

/* The blocks of a panel, see kernels.h:           x          h   */
DEFINE_GATES(gates_lstm, 0, 4, 0, 4)            /* f i g o    f i g o */
DEFINE_GATES(gates_coupled, 1, 3, 1, 3)         /*   i g o      i g o */
DEFINE_GATES(gates_gru, 0, 3, 1, 3)             /* n r z        r z q */
DEFINE_GATES(gates_gru_reset_before, 0, 3, 1, 2) /* n r z       r z   */
#undef DEFINE_GATES
#undef FIRST_CASES
#undef MORE_CASES
#undef CASE

#endif
