/* The element type, chosen with FASTLSTM_DOUBLE, and the facts of its format. */
#ifndef FASTLSTM_REAL_H
#define FASTLSTM_REAL_H

#include <stdint.h>

#ifdef FASTLSTM_DOUBLE
typedef double real;
typedef uint64_t real_bits;
#define MANTISSA_BITS 52
#define INTEGER_BIAS (6755399441055744.0 + 1023) /* 1.5 * 2^52: adding it rounds |x| < 2^50 */
#else
typedef float real;
typedef uint32_t real_bits;
#define MANTISSA_BITS 23
#define INTEGER_BIAS (12582912.0f + 127) /* 1.5 * 2^23: adding it rounds |x| < 2^21 */
#endif

#define SIGN_BIT ((real_bits)1 << (8 * sizeof(real) - 1))

#endif
