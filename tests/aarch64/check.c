/* The C layer of aarch64 without Python: NEON against plain loops and long double (128 bits there). Run by ./run. */
#include "simd/neon.h"
#include "activations.h"
#include "fingerprint.h"
#include "tile.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static int failures;

static void check(int ok, const char *what)
{
    printf("%s: %s\n", what, ok ? "ok" : "FAILED");
    failures += !ok;
}

/* Largest error in units in the last place of real, over `steps` points of [-110, 110]. */
static double largest_error(int is_tanh, int steps)
{
    const double epsilon = sizeof(real) == 4 ? 0x1p-23 : 0x1p-52;
    double worst = 0;
    for (int i = 0; i <= steps; i++) {
        const real x = (real)(220.0 * i / steps - 110);
        const vec v = is_tanh ? vec_tanh(vec_splat(x)) : vec_sigmoid(vec_splat(x));
        const long double e = expl((long double)x);
        const long double exact = is_tanh ? tanhl((long double)x) : e / (1 + e);
        int exponent;
        frexp((double)exact, &exponent);
        const double ulp = fmax(ldexp(epsilon, exponent - 1), sizeof(real) == 4 ? 0x1p-149 : 0);
        if (exact != 0)
            worst = fmax(worst, (double)fabsl((long double)v[0] - exact) / ulp);
    }
    return worst;
}

static int product_agrees(int rows, int panels, int K)
{
    const int N = panels * PANEL;
    real *a = malloc(rows * K * sizeof(real)), *w = malloc(N * K * sizeof(real));
    real *init = malloc(N * sizeof(real)), *z = malloc(rows * N * sizeof(real));
    for (int i = 0; i < rows * K; i++)
        a[i] = (real)(rand() / (double)RAND_MAX - 0.5);
    for (int i = 0; i < N * K; i++)
        w[i] = (real)(rand() / (double)RAND_MAX - 0.5);
    for (int i = 0; i < N; i++)
        init[i] = (real)i;
    product(z, N, init, 0, a, K, w, rows, 4 * panels, K, 0, NULL);
    int ok = 1;
    for (int r = 0; r < rows; r++)
        for (int j = 0; j < N; j++) {
            double sum = init[j];
            for (int k = 0; k < K; k++)
                sum += (double)a[r * K + k] * w[(j / PANEL * K + k) * PANEL + j % PANEL];
            ok = ok && fabs(sum - z[r * N + j]) <= 1e-5 * (1 + fabs(sum));
        }
    free(a), free(w), free(init), free(z);
    return ok;
}

static int outer_product_agrees(int rows, int M)
{
    const int N = 2 * PANEL;
    real *a = malloc(rows * M * sizeof(real)), *d = malloc(rows * N * sizeof(real));
    real *z = malloc(M * N * sizeof(real)), zeros[2 * PANEL] = {0};
    for (int i = 0; i < rows * M; i++)
        a[i] = (real)(rand() / (double)RAND_MAX - 0.5);
    for (int i = 0; i < rows * N; i++)
        d[i] = (real)(rand() / (double)RAND_MAX - 0.5);
    outer_product(z, N, zeros, 0, a, M, d, N, M, 2, rows, NULL);
    int ok = 1;
    for (int i = 0; i < M; i++)
        for (int j = 0; j < N; j++) {
            double sum = 0;
            for (int r = 0; r < rows; r++)
                sum += (double)a[r * M + i] * d[r * N + j];
            ok = ok && fabs(sum - z[i * N + j]) <= 1e-5 * (1 + fabs(sum));
        }
    free(a), free(d), free(z);
    return ok;
}

/* The tiles of the gates: blocks that x and h add to, see kernels.h. */
static int gates_agree(gates_function f, int x_first, int x_vectors, int h_first, int h_vectors,
                       int rows, int panels)
{
    enum { I = 5, R = 7 };
    const int N = panels * PANEL, X = x_vectors * LANES, U = h_vectors * LANES;
    real init[2 * PANEL], z[TILE_ROWS * 2 * PANEL], x[TILE_ROWS * I], h[TILE_ROWS * R];
    real w_x[2 * I * PANEL], w_h[2 * R * PANEL];
#define FILL(a)                                                                                    \
    for (size_t i = 0; i < sizeof a / sizeof *a; i++)                                              \
        a[i] = (real)(rand() / (double)RAND_MAX - 0.5);
    FILL(init) FILL(x) FILL(h) FILL(w_x) FILL(w_h)
#undef FILL
    f(z, N, init, 0, x, I, w_x, w_x, I, h, R, w_h, w_h, R, rows, panels);
    int ok = 1;
    for (int r = 0; r < rows; r++)
        for (int j = 0; j < N; j++) {
            const int p = j / PANEL, in_x = j % PANEL - x_first * LANES, in_h = j % PANEL - h_first * LANES;
            double sum = init[j];
            for (int k = 0; k < I && in_x >= 0 && in_x < X; k++)
                sum += (double)x[r * I + k] * w_x[(p * I + k) * X + in_x];
            for (int k = 0; k < R && in_h >= 0 && in_h < U; k++)
                sum += (double)h[r * R + k] * w_h[(p * R + k) * U + in_h];
            ok = ok && fabs(sum - z[r * N + j]) <= 1e-5 * (1 + fabs(sum));
        }
    return ok;
}

int main(void)
{
    const double sigmoid = largest_error(0, 20000), tanh_ = largest_error(1, 20000);
    printf("sigmoid %.2f ulp, tanh %.2f ulp\n", sigmoid, tanh_);
    check(sigmoid <= 2.5 && tanh_ <= 2.5, "activations within 2.5 ulp");
    int ok = 1;
    for (int rows = 1; rows <= 13; rows++)
        for (int panels = 1; panels <= 3; panels++)
            ok = ok && product_agrees(rows, panels, 7 + rows);
    check(ok, "products of 1 to 13 rows");
    ok = 1;
    for (int M = 1; M <= 13; M++)
        ok = ok && outer_product_agrees(9, M);
    check(ok, "outer products of 1 to 13 rows");
    ok = 1;
    for (int rows = 1; rows <= TILE_ROWS; rows++)
        for (int panels = 1; panels <= (rows == 1 ? 2 : 1); panels++)
            ok = ok && gates_agree(gates_lstm, 0, 4, 0, 4, rows, panels) &&
                 gates_agree(gates_coupled, 1, 3, 1, 3, rows, panels) &&
                 gates_agree(gates_gru, 0, 3, 1, 3, rows, panels) &&
                 gates_agree(gates_gru_reset_before, 0, 3, 1, 2, rows, panels);
    check(ok, "tiles of the gates of each cell");
    real x[100] = {0};
    real_bits before[FINGERPRINT_REALS], after[FINGERPRINT_REALS];
    fingerprint(before, x, 100);
    ok = 1;
    for (int i = 0; i < 100; i++) {
        x[i] = 1;
        fingerprint(after, x, 100);
        ok = ok && memcmp(before, after, sizeof before);
        x[i] = 0;
    }
    check(ok, "fingerprint sees each single change");
    vec v = vec_load_n((real[]){1, 2, 3, 4}, 1);
    check(v[0] == 1 && v[1] == 0, "load_n");
    check(isnan(vec_sigmoid(vec_splat((real)NAN))[0]) && isnan(vec_tanh(vec_splat((real)NAN))[0]),
          "NaN propagates");
    return failures != 0;
}
