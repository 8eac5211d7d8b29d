/* bfloat16: the upper half of a float, products summed in float. See real.h for the names.
 *
 * A lane of 32 bits holds two weights, those of k (low half) and k + 1. Sets with vdpbf16ps multiply
 * pairs. With AMX (amx.h) the same layout is that of a tile. All others multiply floats that were
 * rounded, as fast as any floats; but a single row, which waits for memory, reads pairs and widens them: a
 * panel has both. vdpbf16ps and tdpbf16ps take denormals for 0 and add in orders of their own: bits hold per
 * instruction set.
 *
 * Rounding is to nearest even, so that |x - rounded x| <= 2^-9 |x|; NaN stays NaN.
 */
#ifndef FASTLSTM_ARITHMETIC_H
#define FASTLSTM_ARITHMETIC_H

#include <stddef.h>

typedef uint32_t weight;
typedef vec sums;

#define PACKS_REALS 0
#define WEIGHT_HEAD 0
#define OPERAND_HEAD 0
#define ENDS_IN_FLOAT 0

/* x rounded to the upper half of its bits; the lower half is 0. */
static inline vec_bits bfloat16_bits(vec x)
{
    const vec_bits bits = vec_as_bits(x);
    const vec_bits nearest = bits + 0x7fff + ((bits >> 16) & 1);
    const vec_bits nan = vec_is_nan(x);
    return ((nearest & ~nan) | ((bits | 0x400000) & nan)) & 0xffff0000u;
}

/* Two rows of floats as a row of weights. */
static inline vec_bits pair_of_rows(vec even, vec odd)
{
    return bfloat16_bits(odd) | (bfloat16_bits(even) >> 16);
}

static inline vec_bits load_pairs(const weight *w)
{
    vec_bits v;
    memcpy(&v, w, sizeof v);
    return v;
}

static inline void store_weights(weight *w, vec_bits v) { memcpy(w, &v, sizeof v); }

#ifdef __AVX512BF16__

#define GROUP 2
typedef uint32_t operand;
typedef __m512bh operand_of_lanes;
typedef vec_bits weights_of_lanes;

static inline weights_of_lanes load_weights(const weight *w) { return load_pairs(w); }

static inline operand_of_lanes splat_operand(const operand *a)
{
    return (operand_of_lanes)_mm512_set1_epi32((int)*a);
}

static inline sums dot(sums acc, operand_of_lanes a, weights_of_lanes w)
{
    return (sums)_mm512_dpbf16_ps((__m512)acc, a, (__m512bh)w);
}

#ifdef __AMX_BF16__ /* whole tiles */
#define MULTIPLE 32
#else
#define MULTIPLE 16
#endif
#define OPERANDS(K) (((K) + MULTIPLE - 1) / MULTIPLE * (MULTIPLE / 2))

static inline void round_row(operand *to, const real *a, ptrdiff_t K)
{
    for (ptrdiff_t k = 0; k < 2 * OPERANDS(K); k += LANES) {
        const ptrdiff_t left = K - k;
        const vec x = left >= LANES ? vec_load(a + k) : vec_load_n(a + k, left > 0 ? (int)left : 0);
        _mm256_storeu_si256((__m256i *)(to + k / 2), (__m256i)_mm512_cvtneps_pbh((__m512)x));
    }
}

#else

#define READS_PAIRS_OF_ONE_ROW
#define GROUP 1
typedef real operand;
typedef vec operand_of_lanes, weights_of_lanes;

#define OPERANDS(K) (((K) + LANES - 1) / LANES * LANES + 1) /* a pair may need one more */

static inline weights_of_lanes load_weights(const weight *w) { return bits_as_vec(load_pairs(w)); }
static inline operand_of_lanes splat_operand(const operand *a) { return vec_splat(*a); }
static inline sums dot(sums acc, operand_of_lanes a, weights_of_lanes w) { return vec_fma(a, w, acc); }

/* acc + a[0] * even + a[1] * odd, as two floats would be added */
static inline sums dot_pairs(sums acc, const operand *a, vec_bits w)
{
    acc = vec_fma(vec_splat(a[0]), bits_as_vec(w << 16), acc);
    return vec_fma(vec_splat(a[1]), bits_as_vec(w & 0xffff0000u), acc);
}

static inline void round_row(operand *to, const real *a, ptrdiff_t K)
{
    to[OPERANDS(K) - 1] = 0;
    for (ptrdiff_t k = 0; k < K; k += LANES) {
        const vec x = K - k >= LANES ? vec_load(a + k) : vec_load_n(a + k, (int)(K - k));
        vec_store(to + k, bits_as_vec(bfloat16_bits(x)));
    }
}

#endif

#if defined(__AMX_BF16__) /* whole tiles */
#define WEIGHT_ROWS(K) OPERANDS(K)
#define PAIR_ROWS_AFTER(K) 0
#elif defined(__AVX512BF16__)
#define WEIGHT_ROWS(K) (((K) + 1) / 2)
#define PAIR_ROWS_AFTER(K) 0
#else
#define WEIGHT_ROWS(K) ((K) + ((K) + 1) / 2)
#define PAIR_ROWS_AFTER(K) (K)
#endif

/* Bytes of `rows` rounded rows, and of one more. */
static inline size_t rounded_bytes(ptrdiff_t rows, ptrdiff_t K)
{
    return ((size_t)(rows + 1) * OPERANDS(K) * sizeof(operand) + 63) / 64 * 64;
}

static inline const operand *rounded(
    void *scratch, const real *a, ptrdiff_t *a_stride, ptrdiff_t rows, ptrdiff_t K, real least)
{
    operand *to = scratch;
    (void)least;
    for (ptrdiff_t r = 0; r < rows && K; r++)
        round_row(to + r * OPERANDS(K), a + r * *a_stride, K);
    *a_stride = OPERANDS(K);
    return to;
}

/* A panel of K rows, or the part of it from row `begin` on, an even one, of floats (rows, width). */
#define SCANS 0
static inline void scan_rows(weight *panel, const real *from, ptrdiff_t width, ptrdiff_t rows)
{
    (void)panel, (void)from, (void)width, (void)rows;
}
static inline void end_panel(weight *panel, ptrdiff_t width) { (void)panel, (void)width; }

static inline void pack_rows(
    weight *panel, const real *from, ptrdiff_t from_stride, ptrdiff_t width,
    ptrdiff_t K, ptrdiff_t begin, ptrdiff_t rows)
{
    weight *pairs = panel + (PAIR_ROWS_AFTER(K) + begin / 2) * width;
#ifdef READS_PAIRS_OF_ONE_ROW
    for (ptrdiff_t k = 0; k < rows; k++)
        for (ptrdiff_t j = 0; j < width; j += LANES)
            store_weights(panel + (begin + k) * width + j,
                          bfloat16_bits(vec_load(from + k * from_stride + j)));
#endif
    for (ptrdiff_t k = 0; k < rows; k += 2, from += 2 * from_stride, pairs += width)
        for (ptrdiff_t j = 0; j < width; j += LANES) {
            const vec odd = k + 1 < rows ? vec_load(from + from_stride + j) : vec_splat(0);
            store_weights(pairs + j, pair_of_rows(vec_load(from + j), odd));
        }
}

#ifndef __AMX_BF16__ /* which has these in amx.h */

static inline void begin_tiles(ptrdiff_t rows) { (void)rows; }
static void end_task(void) {}

/* The operands of the columns of a (rows, M), whose rows are K: [groups][M]. */
#define COLUMN_STRIDE(M, K) 1
#define COLUMN_STEP(M, K) (M)

static inline void round_columns(
    operand *to, const real *a, ptrdiff_t a_stride, ptrdiff_t M, ptrdiff_t rows)
{
    for (ptrdiff_t k = 0; k < rows; k += GROUP, a += GROUP * a_stride, to += M)
        for (ptrdiff_t m = 0; m < M; m += LANES) {
            const int n = M - m < LANES ? (int)(M - m) : LANES;
            const vec even = n == LANES ? vec_load(a + m) : vec_load_n(a + m, n);
#ifdef __AVX512BF16__
            const vec odd = k + 1 < rows ? vec_load_n(a + a_stride + m, n) : vec_splat(0);
            const vec_bits group = pair_of_rows(even, odd);
#else
            const vec_bits group = bfloat16_bits(even);
#endif
            vec_store_n((real *)(to + m), bits_as_vec(group), n);
        }
#ifdef READS_PAIRS_OF_ONE_ROW
    memset(to, 0, M * sizeof *to); /* the other half of the last pair, where M is 1 */
#endif
}

#endif

/* Bytes of the rounded columns of a matrix (rows, M). */
static inline size_t columns_bytes(ptrdiff_t M, ptrdiff_t rows)
{
    return ((size_t)(M + 1) * OPERANDS(rows) * sizeof(operand) + 63) / 64 * 64;
}

/* The backward call packs weights of its own. */
static void (*const as_multiplied)(real *, const real *, ptrdiff_t, ptrdiff_t) = NULL;

#endif
