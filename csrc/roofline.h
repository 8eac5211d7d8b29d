/* What the machine can do at best: fused multiply-adds in registers, and reading memory. */
#ifndef FASTLSTM_ROOFLINE_H
#define FASTLSTM_ROOFLINE_H

#include "tile.h"

/* Enough independent chains to hide the latency of fma, as many as the tile has. */
#define FMA_CHAINS (TILE_ROWS * 4)
#define FMA_PEAK_OPERATIONS (2 * FMA_CHAINS * LANES)

/* `repeats` times FMA_PEAK_OPERATIONS floating point operations; out (LANES,) takes their result. */
static void fma_peak(real *out, ptrdiff_t repeats)
{
    vec chain[FMA_CHAINS];
    const vec factor = vec_splat(out[0]), term = vec_splat(out[1 % LANES]);
    UNROLL_ALL for (int c = 0; c < FMA_CHAINS; c++)
        chain[c] = vec_splat((real)c);
    for (ptrdiff_t i = 0; i < repeats; i++)
        UNROLL_ALL for (int c = 0; c < FMA_CHAINS; c++)
            chain[c] = vec_fma(chain[c], factor, term);
    vec total = chain[0];
    for (int c = 1; c < FMA_CHAINS; c++)
        total = total + chain[c];
    vec_store(out, total);
}

/* Read x (n,), n a multiple of 8 * LANES, and combine it into out (LANES,). */
static void read_all(real *out, const real *x, ptrdiff_t n)
{
    vec_bits sum[8] = {0};
    vec_bits word;
    for (ptrdiff_t j = 0; j < n; j += 8 * LANES)
        UNROLL for (int v = 0; v < 8; v++) {
            memcpy(&word, x + j + v * LANES, sizeof word);
            sum[v] ^= word;
        }
    for (int v = 1; v < 8; v++)
        sum[0] ^= sum[v];
    memcpy(out, sum, sizeof sum[0]);
}

#endif
