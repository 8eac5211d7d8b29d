/* What the vector sets share, in the vector extension of gcc and clang.
 *
 * A set's header defines VECTOR_BYTES and TILE_ROWS, includes this file, and adds what differs:
 * fma, divide, least, most, scale, load_n and store_n. The names are explained in scalar.h.
 */
#ifndef FASTLSTM_SIMD_H
#define FASTLSTM_SIMD_H

#include "real.h"
#include <string.h>

typedef real vec __attribute__((vector_size(VECTOR_BYTES)));
typedef real_bits vec_bits __attribute__((vector_size(VECTOR_BYTES)));

#define LANES ((int)(VECTOR_BYTES / sizeof(real)))

static inline vec vec_splat(real x) { return x - (vec){0}; }
static inline void vec_store(real *p, vec v) { memcpy(p, &v, sizeof v); }

static inline vec vec_load(const real *p)
{
    vec v;
    memcpy(&v, p, sizeof v);
    return v;
}

static inline vec_bits vec_as_bits(vec x) { return (vec_bits)x; }
static inline vec bits_as_vec(vec_bits bits) { return (vec)bits; }
static inline vec_bits vec_is_nan(vec x) { return (vec_bits)(x != x); }

static inline vec vec_negative_abs(vec x) { return (vec)((vec_bits)x | SIGN_BIT); }

static inline vec vec_with_sign(vec m, vec x)
{
    return (vec)(((vec_bits)m & ~SIGN_BIT) | ((vec_bits)x & SIGN_BIT));
}

static inline vec vec_exp2_biased(vec t) { return (vec)((vec_bits)t << MANTISSA_BITS); }

/* For sets without masked loads and stores and without a scaling instruction. */
#ifndef VECTOR_HAS_MASKS

static inline vec vec_load_n(const real *p, int n)
{
    vec v = {0};
    memcpy(&v, p, n * sizeof(real));
    return v;
}

static inline void vec_store_n(real *p, vec v, int n) { memcpy(p, &v, n * sizeof(real)); }

static inline vec vec_scale(vec x, vec n)
{
    const vec half = n * (real)0.5 + INTEGER_BIAS;
    return x * vec_exp2_biased(half) * vec_exp2_biased(n - (half - INTEGER_BIAS) + INTEGER_BIAS);
}

#endif
#endif
