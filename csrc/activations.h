/* sigmoid and tanh on a vector, for float and double.
 *
 * With x = n ln 2 + r, |r| <= ln(2)/2:  exp(x) = 2^n exp(r). The polynomials are minimax fits of
 * exp(r) and of (expm1(2r) - 2r) / r^2, made with Sollya's fpminimax; their own error is below
 * 0.1 ulp of the result.
 *
 * Largest error in units in the last place: over every float, and over samples of double, as
 * `pytest -s -m "slow or not slow" tests/test_activations.py` measures it:
 *
 *                        avx512   avx2   sse2   scalar
 *     float   sigmoid     2.42    2.41   2.41    2.41    (absolute: 9.0e-8)
 *             tanh        1.91    1.91   1.95    1.95
 *     double  sigmoid     2.19    2.19   2.19    2.19
 *             tanh        2.01    2.01   2.01    2.01
 */
#ifndef FASTLSTM_ACTIVATIONS_H
#define FASTLSTM_ACTIVATIONS_H

#ifdef FASTLSTM_DOUBLE
static const real EXP[] = {
    1, 1, 0.50000000000000133, 0.16666666666666496, 0.041666666666512205, 0.0083333333334418974,
    0.0013888888947622803, 0.0001984126961865291, 2.4801489464217243e-05, 2.7557487453322498e-06,
    2.7631415237958658e-07, 2.5031071935404739e-08};
static const real EXPM1_2[] = {
    2, 1.3333333333333337, 0.6666666666666663, 0.26666666666642874, 0.088888888888992323,
    0.025396825440521256, 0.006349206341597715, 0.0014109314469400518, 0.00028218702748990102,
    5.1415887416069097e-05, 8.5591986951991817e-06};
/* ln 2 in two parts, the first so short that its product with n is exact even without fma */
#define LN2_HIGH 0.69314718060195446014404296875
#define LN2_LOW -4.2009150726810845979353590145975e-11
#define EXP_IS_ZERO -746
#else
static const real EXP[] = {
    1, 1, 0.499999881f, 0.166665182f, 0.0416696519f, 0.00836894847f, 0.00137450045f};
static const real EXPM1_2[] = {
    2, 1.33333337f, 0.666664183f, 0.266662419f, 0.0891552344f, 0.0255362317f};
#define LN2_HIGH 0.693145751953125f
#define LN2_LOW 1.428606765330187045037746429443359375e-6f
#define EXP_IS_ZERO -105
#endif

#define LOG2_E ((real)1.4426950408889634073599246810019)
#define LENGTH(array) ((int)(sizeof(array) / sizeof((array)[0])))

static inline vec vec_polynomial(const real *c, int length, vec x)
{
    vec y = vec_splat(c[length - 1]);
    for (int k = length - 2; k >= 0; k--)
        y = vec_fma(y, x, vec_splat(c[k]));
    return y;
}

/* e / (1 + e), e = exp(x). Bounded above, where it is 1 to the last bit, so that e stays finite. */
static inline vec vec_sigmoid(vec x)
{
    const vec bias = vec_splat(INTEGER_BIAS);
    x = vec_most(vec_least(x, vec_splat(40)), vec_splat(EXP_IS_ZERO));
    const vec n = vec_fma(x, vec_splat(LOG2_E), bias) - bias;
    vec r = vec_fma(n, vec_splat(-LN2_HIGH), x);
    r = vec_fma(n, vec_splat(-LN2_LOW), r);
    const vec e = vec_scale(vec_polynomial(EXP, LENGTH(EXP), r), n);
    return vec_divide(e, vec_splat(1) + e);
}

/* -m / (2 + m), m = expm1(-2|x|), with the sign of x: no cancellation anywhere, and exactly odd.
 * 2 + m has its own fma: rounded twice it would cost another ulp where tanh is close to 1. */
static inline vec vec_tanh(vec x)
{
    const vec bias = vec_splat(INTEGER_BIAS), one = vec_splat(1);
    const vec a = vec_most(vec_negative_abs(x), vec_splat(-20));
    const vec t = vec_fma(a, vec_splat(2 * LOG2_E), bias);
    const vec n = t - bias;
    vec r = vec_fma(n, vec_splat(-LN2_HIGH / 2), a);
    r = vec_fma(n, vec_splat(-LN2_LOW / 2), r);
    const vec p = vec_fma(r * r, vec_polynomial(EXPM1_2, LENGTH(EXPM1_2), r), r + r);
    const vec power = vec_exp2_biased(t);
    const vec m = vec_fma(power, p, power - one);
    return vec_with_sign(vec_divide(m, vec_fma(power, p, power + one)), x);
}

#endif
