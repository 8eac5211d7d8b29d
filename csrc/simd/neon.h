/* NEON of aarch64: 32 registers of 16 bytes. */
#include <arm_neon.h>

#define VECTOR_BYTES 16
#define TILE_ROWS 6
#include "vector.h"

static inline vec vec_divide(vec n, vec d) { return n / d; }

/* FMIN and FMAX give NaN where either is NaN */
#ifdef FASTLSTM_DOUBLE
static inline vec vec_fma(vec a, vec b, vec c) { return (vec)vfmaq_f64((float64x2_t)c, (float64x2_t)a, (float64x2_t)b); }
static inline vec vec_least(vec x, vec bound) { return (vec)vminq_f64((float64x2_t)x, (float64x2_t)bound); }
static inline vec vec_most(vec x, vec bound) { return (vec)vmaxq_f64((float64x2_t)x, (float64x2_t)bound); }
#else
static inline vec vec_fma(vec a, vec b, vec c) { return (vec)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b); }
static inline vec vec_least(vec x, vec bound) { return (vec)vminq_f32((float32x4_t)x, (float32x4_t)bound); }
static inline vec vec_most(vec x, vec bound) { return (vec)vmaxq_f32((float32x4_t)x, (float32x4_t)bound); }
#endif
