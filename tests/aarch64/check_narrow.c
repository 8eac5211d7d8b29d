/* Products in bfloat16 and int8 on NEON against plain loops; int8, and its activations, to the bit. Run by
 * ./run; with HEADER also for other sets. */
#ifndef HEADER
#define HEADER "simd/neon.h"
#endif
#include HEADER
#include "activations.h"
#include "tile.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* x as it is multiplied, in a row whose largest element is `most`; its scale comes out too. */
static double rounded_to(real x, real most, real *scale)
{
#ifdef FASTLSTM_INT8
    real inverse;
    *scale = int8_scale(most, &inverse);
    return rint((double)(real)(x * inverse));
#else
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    bits = (bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000u;
    memcpy(&x, &bits, sizeof x);
    *scale = 1;
    return x;
#endif
}

static int product_agrees(int rows, int K, real least)
{
    enum { N = PANEL };
    real *a = malloc(rows * K * sizeof(real)), *w = malloc(N * K * sizeof(real));
    real *z = malloc(rows * N * sizeof(real)), init[N];
    weight *panel = calloc(WEIGHT_ROWS(K) * N, sizeof(weight));
    void *scratch = malloc(rounded_bytes(rows, K));
    for (int i = 0; i < rows * K; i++)
        a[i] = (real)(rand() / (double)RAND_MAX - 0.5);
    for (int i = 0; i < N * K; i++)
        w[i] = (real)(rand() / (double)RAND_MAX - 0.5);
    for (int i = 0; i < N; i++)
        init[i] = (real)(0.1 * i);
    scan_rows(panel, w, N, K);
    pack_rows(panel, w, N, N, K, 0, K);
    end_panel(panel, N);
    product(z, N, init, 0, a, K, panel, rows, 4, K, least, scratch);
    int ok = 1;
    for (int r = 0; r < rows; r++)
        for (int j = 0; j < N; j++) {
            real most_a = least, most_w = 0, scale_a = 1, scale_w = 1;
            double sum = 0;
            for (int k = 0; k < K; k++) {
                most_a = fmaxf(most_a, fabsf(a[r * K + k]));
                most_w = fmaxf(most_w, fabsf(w[k * N + j]));
            }
            for (int k = 0; k < K; k++)
                sum += rounded_to(a[r * K + k], most_a, &scale_a) * rounded_to(w[k * N + j], most_w, &scale_w);
#ifdef FASTLSTM_INT8
            ok = ok && z[r * N + j] == fmaf((real)sum, scale_a * scale_w, init[j]);
#else
            ok = ok && fabs(z[r * N + j] - (init[j] + sum)) <= 1e-5 * (1 + fabs(sum));
#endif
        }
    free(a), free(w), free(z), free(panel), free(scratch);
    return ok;
}

/* A hash (FNV) of the bits of sigmoid and tanh at 20,001 points: the same on every set and machine. */
static uint32_t hash_of_activations(void)
{
    uint32_t hash = 2166136261u;
    for (int i = 0; i <= 20000; i++) {
        const vec x = vec_splat((real)(i - 10000) / 91);
        real values[2][LANES];
        uint32_t bits[2];
        vec_store(values[0], vec_sigmoid(x));
        vec_store(values[1], vec_tanh(x));
        memcpy(&bits[0], values[0], 4);
        memcpy(&bits[1], values[1], 4);
        hash = ((hash ^ bits[0]) * 16777619u ^ bits[1]) * 16777619u;
    }
    return hash;
}

int main(void)
{
    int ok = 1;
#ifdef FASTLSTM_INT8
    ok = hash_of_activations() == 0xf08bf382u;
    printf("activations: %08x %s\n", hash_of_activations(), ok ? "ok" : "FAILED");
#endif
    for (int rows = 1; rows <= 13; rows++)
        for (int K = 1; K <= 40; K++)
            ok = ok && product_agrees(rows, K, 0) && product_agrees(rows, K, 1);
    printf("products of 1 to 13 rows: %s\n", ok ? "ok" : "FAILED");
    return !ok;
}
