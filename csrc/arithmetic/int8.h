/* int8: rows and weights rounded to 127 steps of their largest element, summed exactly in 32 bits, and
 *
 *     z = fma(float(sum), a_scale * w_scale, init)
 *
 * See real.h for the names. Integer sums are the same in any order, and what follows is rounded
 * correctly, so that z has the same bits on every instruction set. A lane of 32 bits holds four weights.
 * |sum| <= 127 * 127 * K fits for K <= MOST_INT8_PRODUCTS (kernels.h).
 *
 * Sets with vpdpbusd multiply unsigned by signed bytes: rows have 128 added, and the sum begins with what
 * that adds too much. Others widen weights to 16 bits (vpmaddubsw would saturate).
 *
 * A packed panel begins with a row of scales and one of first sums, a rounded row with its scale.
 */
#ifndef FASTLSTM_ARITHMETIC_H
#define FASTLSTM_ARITHMETIC_H

#include <float.h>
#include <math.h>
#include <stddef.h>

typedef uint32_t weight;

#define GROUP 4
#define PACKS_REALS 0
#define WEIGHT_HEAD 2
#define OPERAND_HEAD 1
#define ENDS_IN_FLOAT 1
#define WEIGHT_ROWS(K) ((K) ? WEIGHT_HEAD + ((K) + 3) / 4 : 0)
/* as many as whole vectors fill */
#define OPERANDS(K) (OPERAND_HEAD + ((K) + 4 * LANES - 1) / (4 * LANES) * LANES)

#ifndef VECTOR_BYTES
typedef int32_t sums, weights_of_lanes;
#define SUMS_AS_FLOAT(s) ((real)(s))
#else
typedef int32_t sums __attribute__((vector_size(VECTOR_BYTES)));
typedef sums weights_of_lanes;
#define SUMS_AS_FLOAT(s) __builtin_convertvector(s, vec)
#endif

static inline sums load_sums(const weight *w)
{
    sums v;
    memcpy(&v, w, sizeof v);
    return v;
}

static inline weights_of_lanes load_weights(const weight *w) { return load_sums(w); }

#if defined(__AVX512VNNI__) || defined(__AVXVNNI__)

#define ADDED 128
typedef uint32_t operand;
typedef sums operand_of_lanes;

static inline operand_of_lanes splat_operand(const operand *a) { return (int32_t)*a - (sums){0}; }

static inline sums dot(sums acc, operand_of_lanes a, weights_of_lanes w)
{
#ifdef __AVX512VNNI__
    return (sums)_mm512_dpbusd_epi32((__m512i)acc, (__m512i)a, (__m512i)w);
#else
    return (sums)_mm256_dpbusd_avx_epi32((__m256i)acc, (__m256i)a, (__m256i)w);
#endif
}

static inline void set_operand(operand *to, const int8_t *q)
{
    memcpy(to, q, 4);
    *to ^= 0x80808080u;
}

#elif !defined(VECTOR_BYTES)

#define ADDED 0
typedef uint32_t operand;
typedef uint32_t operand_of_lanes;

static inline operand_of_lanes splat_operand(const operand *a) { return *a; }

static inline sums dot(sums acc, operand_of_lanes a, weights_of_lanes w)
{
    for (int i = 0; i < 32; i += 8)
        acc += (int8_t)(a >> i) * (int8_t)((uint32_t)w >> i);
    return acc;
}

static inline void set_operand(operand *to, const int8_t *q)
{
    *to = (uint32_t)(uint8_t)q[0] | (uint32_t)(uint8_t)q[1] << 8 | (uint32_t)(uint8_t)q[2] << 16
        | (uint32_t)(uint8_t)q[3] << 24;
}

#else

#define ADDED 0
/* the first and third of the group as two numbers of 16 bits, and the second and fourth */
typedef struct { int32_t even, odd; } operand;
typedef struct { sums even, odd; } operand_of_lanes;
typedef int16_t halves __attribute__((vector_size(VECTOR_BYTES)));

static inline operand_of_lanes splat_operand(const operand *a)
{
    return (operand_of_lanes){a->even - (sums){0}, a->odd - (sums){0}};
}

/* acc + the products of the two halves of each lane */
static inline sums add_products(sums acc, sums a, halves w)
{
#if defined(__AVX512BW__)
    return acc + (sums)_mm512_madd_epi16((__m512i)a, (__m512i)w);
#elif defined(__AVX2__)
    return acc + (sums)_mm256_madd_epi16((__m256i)a, (__m256i)w);
#elif defined(__SSE2__)
    return acc + (sums)_mm_madd_epi16((__m128i)a, (__m128i)w);
#else
    const int16x8_t b = (int16x8_t)a, c = (int16x8_t)w;
    return acc + (sums)vpaddq_s32(vmull_s16(vget_low_s16(b), vget_low_s16(c)), vmull_high_s16(b, c));
#endif
}

static inline sums dot(sums acc, operand_of_lanes a, weights_of_lanes w)
{
    acc = add_products(acc, a.even, ((halves)w << 8) >> 8);
    return add_products(acc, a.odd, (halves)w >> 8);
}

static inline void set_operand(operand *to, const int8_t *q)
{
    to->even = (int32_t)((uint32_t)(uint16_t)q[0] | (uint32_t)(uint16_t)q[2] << 16);
    to->odd = (int32_t)((uint32_t)(uint16_t)q[1] | (uint32_t)(uint16_t)q[3] << 16);
}

#endif

/* The scale of numbers up to `most`, and what they are multiplied with to be rounded: 0 where all are
 * next to nothing, NaN where one is not finite. */
static inline real int8_scale(real most, real *inverse)
{
    *inverse = 0;
    if (!(most <= FLT_MAX))
        return NAN;
    if (most < 0x1p-100f)
        return 0;
    *inverse = 127 / most;
    return most / 127;
}

/* x * inverse, rounded to nearest even: adding 1.5 * 2^23 rounds. */
static inline sums int8_steps(vec x, vec inverse)
{
    const vec t = x * inverse + vec_splat(12582912);
    return (sums)vec_as_bits(t) - 0x4b400000;
}

/* The larger ones of |x| and `most`, as bits, of which those of NaN are the largest. */
static inline sums larger_bits(sums most, vec x)
{
    const sums bits = (sums)(vec_as_bits(x) & 0x7fffffffu);
#ifndef VECTOR_BYTES
    return bits > most ? bits : most;
#else
    const sums larger = bits > most;
    return (bits & larger) | (most & ~larger);
#endif
}

static inline real largest(const real *a, ptrdiff_t K, real least)
{
    sums most = (sums)vec_as_bits(vec_splat(least));
    int32_t lanes[LANES], largest;
    for (ptrdiff_t k = 0; k < K; k += LANES)
        most = larger_bits(most, K - k >= LANES ? vec_load(a + k) : vec_load_n(a + k, (int)(K - k)));
    memcpy(lanes, &most, sizeof most);
    largest = lanes[0];
    for (int l = 1; l < LANES; l++)
        largest = lanes[l] > largest ? lanes[l] : largest;
    memcpy(&least, &largest, sizeof least);
    return least;
}

static inline void round_row(operand *to, const real *a, ptrdiff_t K, real least)
{
    real inverse;
    const real scale = int8_scale(largest(a, K, least), &inverse);
    memcpy(to, &scale, sizeof scale);
    to += OPERAND_HEAD;
    for (ptrdiff_t k = 0; k < K; k += 4 * LANES) {
        int8_t q[4 * LANES];
        for (int v = 0; v < 4; v++) {
            const ptrdiff_t at = k + v * LANES, left = K - at;
            int32_t lanes[LANES];
            const sums steps = int8_steps(
                left >= LANES ? vec_load(a + at) : left > 0 ? vec_load_n(a + at, (int)left) : vec_splat(0),
                vec_splat(inverse));
#ifdef __AVX512F__
            (void)lanes;
            _mm_storeu_si128((__m128i *)(q + v * LANES), _mm512_cvtepi32_epi8((__m512i)steps));
#else
            memcpy(lanes, &steps, sizeof steps);
            for (int l = 0; l < LANES; l++)
                q[v * LANES + l] = (int8_t)lanes[l];
#endif
        }
        for (int l = 0; l < LANES; l++)
            set_operand(to + k / 4 + l, q + 4 * l);
    }
}

static inline void begin_tiles(ptrdiff_t rows) { (void)rows; }
static void end_task(void) {}

static inline size_t rounded_bytes(ptrdiff_t rows, ptrdiff_t K)
{
    return ((size_t)rows * OPERANDS(K) * sizeof(operand) + 63) / 64 * 64;
}

static inline const operand *rounded(
    void *scratch, const real *a, ptrdiff_t *a_stride, ptrdiff_t rows, ptrdiff_t K, real least)
{
    operand *to = scratch;
    for (ptrdiff_t r = 0; r < rows && K; r++)
        round_row(to + r * OPERANDS(K), a + r * *a_stride, K, least);
    *a_stride = OPERANDS(K);
    return to;
}

/* A vector of the epilogue; `panel` is where the vector's lanes begin in a panel of rows of w_step. */
static inline vec end_in_float(vec init, sums acc, const operand *row, const weight *panel)
{
    real scale;
    vec w_scale;
    memcpy(&scale, row, sizeof scale);
    memcpy(&w_scale, panel, sizeof w_scale);
    return vec_fma(SUMS_AS_FLOAT(acc), vec_splat(scale) * w_scale, init);
}

/* Panels are packed from floats (rows, width) in two passes: the largest element of each column, then
 * all elements, rows `begin` of K on, a multiple of 4. The first row of the panel has the largest elements
 * first, at last the scales. */
#define SCANS 1
static inline void scan_rows(weight *panel, const real *from, ptrdiff_t width, ptrdiff_t rows)
{
    for (ptrdiff_t k = 0; k < rows; k++)
        for (ptrdiff_t j = 0; j < width; j += LANES) {
            const sums most = larger_bits(load_sums(panel + j), vec_load(from + k * width + j));
            memcpy(panel + j, &most, sizeof most);
        }
}

static inline void pack_rows(
    weight *panel, const real *from, ptrdiff_t from_stride, ptrdiff_t width,
    ptrdiff_t K, ptrdiff_t begin, ptrdiff_t rows)
{
    (void)K;
    for (ptrdiff_t j = 0; j < width; j += LANES) {
        real inverse[LANES], most[LANES];
        memcpy(most, panel + j, sizeof most);
        for (int l = 0; l < LANES; l++)
            int8_scale(most[l], &inverse[l]);
        for (ptrdiff_t k = 0; k < rows; k += 4) {
            sums word = {0}, first = load_sums(panel + width + j);
            for (int i = 0; i < 4 && k + i < rows; i++) {
                const sums q = int8_steps(vec_load(from + (k + i) * from_stride + j), vec_load(inverse));
                word |= (q & 0xff) << 8 * i;
                first -= ADDED * q;
            }
            memcpy(panel + width + j, &first, sizeof first);
            memcpy(panel + (WEIGHT_HEAD + (begin + k) / 4) * width + j, &word, sizeof word);
        }
    }
}

static inline void end_panel(weight *panel, ptrdiff_t width)
{
    for (ptrdiff_t j = 0; j < width; j++) {
        real most, inverse;
        memcpy(&most, panel + j, sizeof most);
        most = int8_scale(most, &inverse);
        memcpy(panel + j, &most, sizeof most);
    }
}

/* out (K,) := what a row of weights, `step` apart, is multiplied as. */
static inline void rounded_weights(real *out, const real *w, ptrdiff_t step, ptrdiff_t K)
{
    real most = 0, inverse, scale;
    for (ptrdiff_t k = 0; k < K; k++)
        if (!(fabsf(w[k * step]) <= most || most != most))
            most = fabsf(w[k * step]);
    scale = int8_scale(most, &inverse);
    for (ptrdiff_t k = 0; k < K; k++) {
        const real t = w[k * step] * inverse + 12582912;
        out[k] = (t - 12582912) * scale;
    }
}

static void (*const as_multiplied)(real *, const real *, ptrdiff_t, ptrdiff_t) = rounded_weights;

#endif
