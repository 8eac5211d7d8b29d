/* AVX-512 F, DQ, BW, VL: 32 registers of 64 bytes, masks, scaling. */
#include <immintrin.h>

#define VECTOR_BYTES 64
#define VECTOR_HAS_MASKS
#define TILE_ROWS 6
#include "vector.h"

/* min and max return their second operand where either is NaN */
#ifdef FASTLSTM_DOUBLE
static inline vec vec_fma(vec a, vec b, vec c) { return _mm512_fmadd_pd(a, b, c); }
static inline vec vec_least(vec x, vec bound) { return _mm512_min_pd(bound, x); }
static inline vec vec_most(vec x, vec bound) { return _mm512_max_pd(bound, x); }
static inline vec vec_scale(vec x, vec n) { return _mm512_scalef_pd(x, n); }
static inline vec vec_load_n(const real *p, int n) { return _mm512_maskz_loadu_pd((__mmask8)((1u << n) - 1), p); }
static inline void vec_store_n(real *p, vec v, int n) { _mm512_mask_storeu_pd(p, (__mmask8)((1u << n) - 1), v); }

/* The estimate is good to 2^-14, one Newton step makes 2^-28, correcting the quotient the rest. */
static inline vec vec_divide(vec n, vec d)
{
    vec r = _mm512_rcp14_pd(d);
    r = vec_fma(r, _mm512_fnmadd_pd(d, r, vec_splat(1)), r);
    const vec q = n * r;
    return vec_fma(_mm512_fnmadd_pd(d, q, n), r, q);
}
#else
static inline vec vec_fma(vec a, vec b, vec c) { return _mm512_fmadd_ps(a, b, c); }
static inline vec vec_least(vec x, vec bound) { return _mm512_min_ps(bound, x); }
static inline vec vec_most(vec x, vec bound) { return _mm512_max_ps(bound, x); }
static inline vec vec_scale(vec x, vec n) { return _mm512_scalef_ps(x, n); }
static inline vec vec_load_n(const real *p, int n) { return _mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p); }
static inline void vec_store_n(real *p, vec v, int n) { _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), v); }

#ifdef FASTLSTM_INT8 /* whose results are the same bits everywhere */
static inline vec vec_divide(vec n, vec d) { return n / d; }
#else
/* The estimate is good to 2^-14, correcting the quotient makes it 2^-28. */
static inline vec vec_divide(vec n, vec d)
{
    const vec r = _mm512_rcp14_ps(d);
    const vec q = n * r;
    return vec_fma(_mm512_fnmadd_ps(d, q, n), r, q);
}
#endif
#endif
