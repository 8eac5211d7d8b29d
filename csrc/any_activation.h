/* The activations that ONNX lists, on a vector, chosen at run time; and their slopes from their
 * outputs. Sigmoid, tanh and relu are vector code; the rest, seldom used, is libm lane by lane. */
#ifndef FASTLSTM_ANY_ACTIVATION_H
#define FASTLSTM_ANY_ACTIVATION_H

#include "activations.h"
#include "kernels.h"
#include <math.h>

static inline real rare_activation(const activation *a, real x)
{
    const real alpha = a->alpha, beta = a->beta;
    switch (a->kind) {
    case AFFINE: return alpha * x + beta;
    case LEAKY_RELU: return x < 0 ? alpha * x : x;
    case THRESHOLDED_RELU: return x > alpha ? x : isnan(x) ? x : 0;
    case SCALED_TANH: return alpha * (real)tanh(beta * x);
    case HARD_SIGMOID: {
        const real y = alpha * x + beta;
        return y < 0 ? 0 : y > 1 ? 1 : y;
    }
    case ELU: return x < 0 ? alpha * (real)expm1(x) : x;
    case SOFTSIGN: return isinf(x) ? copysign(1, x) : x / (1 + (real)fabs(x));
    case SOFTPLUS: return (x > 0 ? x : isnan(x) ? x : 0) + (real)log1p(exp(-fabs(x)));
    }
    return x;
}

/* dy/dx as a function of y */
static inline real rare_slope(const activation *a, real y)
{
    const real alpha = a->alpha, beta = a->beta;
    switch (a->kind) {
    case AFFINE: return alpha;
    case LEAKY_RELU: return y < 0 ? alpha : 1;
    case THRESHOLDED_RELU: return y != 0;
    case SCALED_TANH: return alpha ? beta * (alpha - y * y / alpha) : 0;
    case HARD_SIGMOID: return y > 0 && y < 1 ? alpha : 0;
    case ELU: return y < 0 ? y + alpha : 1;
    case SOFTSIGN: return (1 - (real)fabs(y)) * (1 - (real)fabs(y));
    case SOFTPLUS: return -(real)expm1(-y);
    }
    return 1;
}

static inline vec vec_activate(const activation *a, vec x)
{
    real lanes[LANES];
    switch (a->kind) {
    case SIGMOID: return vec_sigmoid(x);
    case TANH: return vec_tanh(x);
    case RELU: return vec_most(x, vec_splat(0));
    }
    vec_store(lanes, x);
    for (int l = 0; l < LANES; l++)
        lanes[l] = rare_activation(a, lanes[l]);
    return vec_load(lanes);
}

static inline vec vec_slope(const activation *a, vec y)
{
    const vec one = vec_splat(1);
    real lanes[LANES];
    switch (a->kind) {
    case SIGMOID: return y * (one - y);
    case TANH: return one - y * y;
    }
    vec_store(lanes, y);
    for (int l = 0; l < LANES; l++)
        lanes[l] = a->kind == RELU ? lanes[l] > 0 : rare_slope(a, lanes[l]);
    return vec_load(lanes);
}

/* The sum of all lanes, from the first to the last. */
static inline real vec_sum(vec v)
{
    real lanes[LANES], sum = 0;
    vec_store(lanes, v);
    for (int l = 0; l < LANES; l++)
        sum += lanes[l];
    return sum;
}

/* 1 where |x| < bound, else 0. */
static inline vec vec_within(vec x, real bound)
{
    real lanes[LANES];
    vec_store(lanes, x);
    for (int l = 0; l < LANES; l++)
        lanes[l] = lanes[l] < bound && lanes[l] > -bound;
    return vec_load(lanes);
}

#endif
