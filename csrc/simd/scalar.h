/* Scalar: one lane, plain C11 for any compiler and CPU; and the vocabulary that all headers here share.
 *
 *   real, vec                 float (double with FASTLSTM_DOUBLE), and LANES of them;
 *                             `+ - *` work on vec and are never contracted to fma
 *   vec_bits                  the same as unsigned integers
 *   TILE_ROWS                 rows whose 4 * TILE_ROWS accumulators fit into the registers (tile.h)
 *   vec_splat(x)              x in every lane
 *   vec_load(p), vec_store    any alignment
 *   vec_load_n, vec_store_n   the first n <= LANES only; load_n fills the rest with 0
 *   vec_as_bits, bits_as_vec  the bits of x, and back;  vec_is_nan(x): all bits set where x is NaN
 *   vec_fma(a, b, c)          a * b + c, rounded once where the set can, for int8 always
 *   vec_divide(n, d)          n / d within 0.6 ulp, for 1 <= d <= 2^64 and |n| <= d; for int8 exact
 *   vec_least(x, bound)       min(x, bound), and NaN where x is NaN
 *   vec_most(x, bound)        max(x, bound), and NaN where x is NaN
 *   vec_negative_abs(x)       -|x|
 *   vec_with_sign(m, x)       |m| with the sign of x
 *   vec_exp2_biased(t)        2^n for t = n + INTEGER_BIAS, which has n and the exponent's bias
 *                             in its last bits; n in [-126, 127], for double [-1022, 1023]
 *   vec_scale(x, n)           x * 2^n for integral n in twice that range, underflowing gradually
 */
#ifndef FASTLSTM_SIMD_H
#define FASTLSTM_SIMD_H

#include "real.h"
#include <math.h>
#include <string.h>

typedef real vec;
typedef real_bits vec_bits;

#define LANES 1
#define TILE_ROWS 2

static inline vec_bits vec_as_bits(vec x)
{
    vec_bits bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static inline vec bits_as_vec(vec_bits bits)
{
    vec x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static inline vec_bits vec_is_nan(vec x) { return x != x ? ~(vec_bits)0 : 0; }
static inline vec vec_splat(real x) { return x; }
static inline vec vec_load(const real *p) { return *p; }
static inline void vec_store(real *p, vec v) { *p = v; }
static inline vec vec_load_n(const real *p, int n) { return n ? *p : 0; }
static inline void vec_store_n(real *p, vec v, int n) { if (n) *p = v; }
#ifdef FASTLSTM_INT8 /* whose results are the same bits everywhere */
static inline vec vec_fma(vec a, vec b, vec c) { return fmaf(a, b, c); }
#else
static inline vec vec_fma(vec a, vec b, vec c) { return a * b + c; }
#endif
static inline vec vec_divide(vec n, vec d) { return n / d; }
static inline vec vec_least(vec x, vec bound) { return x > bound ? bound : x; }
static inline vec vec_most(vec x, vec bound) { return x < bound ? bound : x; }
static inline vec vec_negative_abs(vec x) { return x > 0 ? -x : x; }

static inline vec vec_with_sign(vec m, vec x)
{
    real_bits a, b;
    memcpy(&a, &m, sizeof a);
    memcpy(&b, &x, sizeof b);
    a = (a & ~SIGN_BIT) | (b & SIGN_BIT);
    memcpy(&m, &a, sizeof m);
    return m;
}

static inline vec vec_exp2_biased(vec t)
{
    real_bits bits;
    memcpy(&bits, &t, sizeof bits);
    bits <<= MANTISSA_BITS;
    memcpy(&t, &bits, sizeof t);
    return t;
}

static inline vec vec_scale(vec x, vec n)
{
    const vec half = n * (real)0.5 + INTEGER_BIAS;
    return x * vec_exp2_biased(half) * vec_exp2_biased(n - (half - INTEGER_BIAS) + INTEGER_BIAS);
}

#endif
