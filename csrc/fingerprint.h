/* A fingerprint of an array of bits, to see whether weights have changed in place.
 *
 * Polynomials modulo 2^32 (2^64 for double), one per column of the
 * array: a change of a single element is always seen, because the multiplier is odd; changes of
 * several in one column cancel with a chance of 2^-32, of a whole matrix never in practice.
 * It runs as fast as weights can be read.
 */
#ifndef FASTLSTM_FINGERPRINT_H
#define FASTLSTM_FINGERPRINT_H

#include "kernels.h"
#include "tile.h"

#define FINGERPRINT_VECTORS 8
#define FINGERPRINT_REALS (FINGERPRINT_VECTORS * LANES)
_Static_assert(LANES <= MOST_LANES && FINGERPRINT_REALS <= MOST_FINGERPRINT_REALS,
               "who calls makes room for so many");

/* out (FINGERPRINT_REALS,) of x (n,) */
static void fingerprint(real_bits *out, const real *x, ptrdiff_t n)
{
    const real_bits multiplier = (real_bits)0x9E3779B97F4A7C15u; /* odd, bits well mixed */
    vec_bits hash[FINGERPRINT_VECTORS] = {0};
    vec_bits word;
    ptrdiff_t j = 0;
    for (; j + FINGERPRINT_REALS <= n; j += FINGERPRINT_REALS)
        UNROLL for (int v = 0; v < FINGERPRINT_VECTORS; v++) {
            memcpy(&word, x + j + v * LANES, sizeof word);
            hash[v] = hash[v] * multiplier + word;
        }
    memcpy(out, hash, sizeof hash);
    for (int k = 0; j < n; j++, k++) {
        real_bits bits;
        memcpy(&bits, x + j, sizeof bits);
        out[k] = out[k] * multiplier + bits;
    }
}

#endif
