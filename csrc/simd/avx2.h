/* AVX2 and FMA: 16 registers of 32 bytes. */
#include <immintrin.h>

#define VECTOR_BYTES 32
#define TILE_ROWS 3
#include "vector.h"

/* min and max return their second operand where either is NaN */
#ifdef FASTLSTM_DOUBLE
static inline vec vec_fma(vec a, vec b, vec c) { return _mm256_fmadd_pd(a, b, c); }
static inline vec vec_divide(vec n, vec d) { return n / d; }
static inline vec vec_least(vec x, vec bound) { return _mm256_min_pd(bound, x); }
static inline vec vec_most(vec x, vec bound) { return _mm256_max_pd(bound, x); }
#else
static inline vec vec_fma(vec a, vec b, vec c) { return _mm256_fmadd_ps(a, b, c); }
static inline vec vec_least(vec x, vec bound) { return _mm256_min_ps(bound, x); }
static inline vec vec_most(vec x, vec bound) { return _mm256_max_ps(bound, x); }

#ifdef FASTLSTM_INT8 /* whose results are the same bits everywhere */
static inline vec vec_divide(vec n, vec d) { return n / d; }
#else
/* The estimate is good to 1.5 * 2^-12, one Newton step makes 2^-22, correcting the quotient the rest. */
static inline vec vec_divide(vec n, vec d)
{
    vec r = _mm256_rcp_ps(d);
    r = vec_fma(r, _mm256_fnmadd_ps(d, r, vec_splat(1)), r);
    const vec q = n * r;
    return vec_fma(_mm256_fnmadd_ps(d, q, n), r, q);
}
#endif
#endif
