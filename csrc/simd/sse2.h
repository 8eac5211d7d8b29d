/* Baseline x86-64: SSE2, 16 registers of 16 bytes, no fma. */
#include <emmintrin.h>
#include <math.h>

#define VECTOR_BYTES 16
#define TILE_ROWS 2
#include "vector.h"

#ifdef FASTLSTM_INT8 /* whose results are the same bits everywhere */
static inline vec vec_fma(vec a, vec b, vec c)
{
    for (int l = 0; l < LANES; l++)
        a[l] = fmaf(a[l], b[l], c[l]);
    return a;
}
#else
static inline vec vec_fma(vec a, vec b, vec c) { return a * b + c; }
#endif
static inline vec vec_divide(vec n, vec d) { return n / d; }

/* min and max return their second operand where either is NaN */
#ifdef FASTLSTM_DOUBLE
static inline vec vec_least(vec x, vec bound) { return _mm_min_pd(bound, x); }
static inline vec vec_most(vec x, vec bound) { return _mm_max_pd(bound, x); }
#else
static inline vec vec_least(vec x, vec bound) { return _mm_min_ps(bound, x); }
static inline vec vec_most(vec x, vec bound) { return _mm_max_ps(bound, x); }
#endif
