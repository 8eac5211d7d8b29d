"""C of the activations on a vector, and the numbers of the type that they need.

Decisions:
a) The polynomials are those of csrc/activations.h, in the same order of operations, with a product
   and a sum where there is fma: the arithmetic of csrc/simd/scalar.h. A test compares the numbers.
b) `FAST_ACTIVATIONS` wait less: a step of few units waits for chains of operations most of its
   time. 2^r is a polynomial in pairs, and one step brings r within bounds. Over all float32 they
   are within 2e-7 of sigmoid and tanh, absolutely.
c) For the form of `SNIPPETS` see `_vectors`.
"""

# exp(r), and (expm1(2r) - 2r) / r^2, for |r| <= ln(2)/2
EXP = {
    "float": (1, 1, 0.499999881, 0.166665182, 0.0416696519, 0.00836894847, 0.00137450045),
    "double": (
        *(1, 1, 0.50000000000000133, 0.16666666666666496, 0.041666666666512205),
        *(0.0083333333334418974, 0.0013888888947622803, 0.0001984126961865291),
        *(2.4801489464217243e-05, 2.7557487453322498e-06, 2.7631415237958658e-07),
        2.5031071935404739e-08,
    ),
}
EXPM1_2 = {
    "float": (2, 1.33333337, 0.666664183, 0.266662419, 0.0891552344, 0.0255362317),
    "double": (
        *(2, 1.3333333333333337, 0.6666666666666663, 0.26666666666642874, 0.088888888888992323),
        *(0.025396825440521256, 0.006349206341597715, 0.0014109314469400518),
        *(0.00028218702748990102, 5.1415887416069097e-05, 8.5591986951991817e-06),
    ),
}
# of the type: bits of the mantissa, the power of 2 whose unit is 1.5, its bias of exponents,
# ln 2 in two parts, below what exp is 0
FORMAT = {
    "float": {
        "MANTISSA": "23",
        "ROUND": "12583039.0_r",
        "ROUND_IS": "1.5 * 2^23 + 127",
        "LN2_HIGH": "0.693145751953125_r",
        "LN2_LOW": "1.428606765330187e-6_r",
        "HALF_LN2_HIGH": "0.3465728759765625_r",
        "HALF_LN2_LOW": "7.143033826650935e-7_r",
        "EXP_IS_ZERO": "-105.0_r",
        "LIFT": "64",
        "SINK": "5.42101086242752217e-20_r",
        "BITS": "uint32_t",
        "MASK": "int32_t",
        "SIGN": "0x80000000u",
    },
    "double": {
        "MANTISSA": "52",
        "ROUND": "6755399441056767.0_r",
        "ROUND_IS": "1.5 * 2^52 + 1023",
        "LN2_HIGH": "0.69314718060195446014_r",
        "LN2_LOW": "-4.2009150726810845980e-11_r",
        "HALF_LN2_HIGH": "0.34657359030097723007_r",
        "HALF_LN2_LOW": "-2.1004575363405422990e-11_r",
        "EXP_IS_ZERO": "-746.0_r",
        "LIFT": "512",
        "SINK": "7.45834073120020674e-155_r",
        "BITS": "uint64_t",
        "MASK": "int64_t",
        "SIGN": "0x8000000000000000u",
    },
}

# 2^r for |r| <= 1/2, of float alone: minimax, relative error 9.2e-8
EXP2 = (1, 0.693147004, 0.240222424, 0.0555073359, 0.00967151299, 0.00132647273)

SNIPPETS = {
    "vec_sigmoid": """\
/* 1 / (1 + exp(-x)) as e / (1 + e), e = exp(x) = 2^n exp(r), |r| <= ln(2)/2. Adding ROUND_IS rounds
 * to the integer n and leaves it, with the bias of exponents, in the last bits. The power is made
 * 2^LIFT times too large and then brought down, so that e may be a denormal number. */
static inline vec vec_sigmoid(vec x)
{
    x = vec_most(vec_least(x, 40.0_r), EXP_IS_ZERO);
    const vec t = x * LOG2_E + ROUND;
    const vec n = t - ROUND;
    vec r = x - n * LN2_HIGH;
    r = r - n * LN2_LOW;
    EXP_P
    const vec power = vec_from_bits((vec_to_bits(t) + LIFT) << MANTISSA);
    const vec e = p * power * SINK;
    return e / (1.0_r + e);
}
""",
    "vec_tanh": """\
/* -m / (2 + m), m = expm1(-2|x|) = 2^n (expm1(2r) + 1) - 1, with the sign of x. */
static inline vec vec_tanh(vec x)
{
    const vec a = vec_most(-vec_abs(x), -20.0_r);
    const vec t = a * TWICE_LOG2_E + ROUND;
    const vec n = t - ROUND;
    vec r = a - n * HALF_LN2_HIGH;
    r = r - n * HALF_LN2_LOW;
    EXPM1_P
    p = r * r * p + (r + r);
    const vec power = vec_from_bits(vec_to_bits(t) << MANTISSA);
    return vec_with_sign((power * p + (power - 1.0_r)) / (power * p + (power + 1.0_r)), x);
}
""",
    "vec_relu": """\
static inline vec vec_relu(vec x) { return vec_most(x, 0.0_r); }
""",
    "vec_affine": """\
static inline vec vec_affine(vec x, real alpha, real beta) { return alpha * x + beta; }
""",
    "vec_leaky_relu": """\
static inline vec vec_leaky_relu(vec x, real alpha)
{
    return vec_pick(x < vec_splat(0.0_r), alpha * x, x);
}
""",
    "vec_thresholded_relu": """\
static inline vec vec_thresholded_relu(vec x, real alpha)
{
    return vec_pick(x <= vec_splat(alpha), vec_splat(0.0_r), x);
}
""",
    "vec_hard_sigmoid": """\
static inline vec vec_hard_sigmoid(vec x, real alpha, real beta)
{
    return vec_least(vec_most(alpha * x + beta, 0.0_r), 1.0_r);
}
""",
    "vec_softsign": """\
static inline vec vec_softsign(vec x)
{
    const vec a = vec_abs(x);
    return vec_pick(a > vec_splat(LARGEST), vec_with_sign(vec_splat(1.0_r), x), x / (1.0_r + a));
}
""",
}

# in their place where NAME_FAST is defined, in float
FAST_ACTIVATIONS = {
    "vec_exp": """\
/* exp(x), -87 <= x <= 0, as 2^n 2^r, |r| <= 1/2. Adding ROUND_IS rounds to the integer n and leaves
 * it, with the bias of exponents, in the last bits. Returns 2^r, and 2^n in `power`. */
static inline vec vec_exp(vec x, vec *power)
{
    const vec t = x * LOG2_E + ROUND;
    const vec r = x * LOG2_E - (t - ROUND);
    const vec r2 = r * r;
    *power = vec_from_bits(vec_to_bits(t) << MANTISSA);
    EXP2_P
}
""",
    "vec_sigmoid": """\
/* 1 / (1 + exp(-|x|)), or exp(-|x|) / (1 + exp(-|x|)) where x < 0. */
static inline vec vec_sigmoid(vec x)
{
    vec power;
    const vec e = vec_exp(vec_most(-vec_abs(x), -87.0_r), &power);
    return vec_pick(x < vec_splat(0.0_r), e * power, vec_splat(1.0_r)) / (e * power + 1.0_r);
}
""",
    "vec_tanh": """\
/* (1 - exp(-2|x|)) / (1 + exp(-2|x|)), with the sign of x. */
static inline vec vec_tanh(vec x)
{
    vec power;
    const vec e = vec_exp(vec_most(-2.0_r * vec_abs(x), -87.0_r), &power);
    return vec_with_sign((1.0_r - e * power) / (e * power + 1.0_r), x);
}
""",
}
