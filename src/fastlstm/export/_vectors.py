"""C of what exported cells compute with: vectors of hidden units, and the activations on them.

Decisions:
a) A function of C is an entry of `SNIPPETS`; a file gets those that it names, and what these name.
b) `real` stands for the type of the network and `1.5_r` for a number of it, until `_text` ends.
c) The polynomials are those of csrc/activations.h, in the same order of operations, with a product
   and a sum where there is fma: the arithmetic of csrc/simd/scalar.h. A test compares the numbers.
d) Python leaves elu, softplus and scaled_tanh to libm, in double. Here there is no libm, but the
   same in double within 4 ulp, which rounded to float differs once in some 10^8 values.
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

PLAIN_TYPES = """\
typedef real vec;
typedef BITS vec_bits;
typedef int vec_mask;
"""
UNROLLING = """\
/* Sums stay in registers only where loops over them are unrolled. */
#if defined(__clang__)
#define ALWAYS_INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("clang loop unroll(full)")
#elif defined(__GNUC__)
#define ALWAYS_INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 16")
#else
#define ALWAYS_INLINE static inline
#define UNROLL
#endif
"""
TYPES = """\
#if LANES > 1
typedef real vec __attribute__((vector_size(LANES * sizeof(real))));
typedef BITS vec_bits __attribute__((vector_size(LANES * sizeof(real))));
typedef MASK vec_mask __attribute__((vector_size(LANES * sizeof(real))));
#else
typedef real vec;
typedef BITS vec_bits;
typedef int vec_mask;
#endif
"""

SNIPPETS = {
    "vec_load": """\
static inline vec vec_load(const real *p)
{
    vec v;
    memcpy(&v, p, sizeof v);
    return v;
}
""",
    "vec_weights": """\
static inline vec vec_weights(const weight *p) { return vec_load(p); }
""",
    "weight_at": """\
static inline real weight_at(const weight *p) { return *p; }
""",
    "vec_store": """\
static inline void vec_store(real *p, vec v) { memcpy(p, &v, sizeof v); }
""",
    "vec_lane": """\
static inline real vec_lane(vec v)
{
    real lanes[LANES];
    vec_store(lanes, v);
    return lanes[0];
}
""",
    "vec_splat": """\
static inline vec vec_splat(real x)
{
    const vec zero = {0};
    return x - zero;
}
""",
    "vec_first": """\
/* Where the vector of n units that holds unit j begins: the last one may overlap the one before, so
 * that some units are computed twice, and nothing that is read is written meanwhile. */
static inline size_t vec_first(size_t j, size_t n)
{
    return LANES == 1 || j + LANES <= n ? j : n - LANES;
}
""",
    "sums_at_once": """\
/* z := init + W x for the N vectors of units from j on, whose sums stay in registers. */
ALWAYS_INLINE void sums_at_once(real *z, const real *init, const weight *W, const real *x,
                                const size_t n, const size_t K, const size_t j, const size_t N)
{
    const size_t last = vec_first(j + (N - 1) * LANES, n);
    vec sum[SUMS];
    UNROLL for (size_t v = 0; v < N; v++)
        sum[v] = vec_load(&init[v + 1 < N ? j + v * LANES : last]);
    for (size_t k = 0; k < K; k++)
        UNROLL for (size_t v = 0; v < N; v++)
            sum[v] += x[k] * vec_weights(&W[k * n + (v + 1 < N ? j + v * LANES : last)]);
    UNROLL for (size_t v = 0; v < N; v++)
        vec_store(&z[v + 1 < N ? j + v * LANES : last], sum[v]);
}
""",
    "sums": """\
/* z := init + W x. z, init (n,), W (K, n), x (K,). Each sum goes on in the order of k. The units
 * are divided evenly over as few rounds as there are registers for; the last may overlap. */
ALWAYS_INLINE void sums(real *z, const real *init, const weight *W, const real *x,
                        const size_t n, const size_t K)
{
    const size_t vectors = (n + LANES - 1) / LANES;
    const size_t rounds = (vectors + SUMS - 1) / SUMS;
    const size_t N = (vectors + rounds - 1) / rounds;
    for (size_t round = 0; round < rounds; round++) {
        const size_t first = (round + 1) * N <= vectors ? round * N : vectors - N;
        sums_at_once(z, init, W, x, n, K, first * LANES, N);
    }
}
""",
    "vec_copy": """\
static inline void vec_copy(real *to, const real *from, size_t n)
{
    for (size_t j = 0; j < n; j += LANES)
        vec_store(&to[vec_first(j, n)], vec_load(&from[vec_first(j, n)]));
}
""",
    "vec_to_bits": """\
static inline vec_bits vec_to_bits(vec x)
{
    vec_bits bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}
""",
    "vec_from_bits": """\
static inline vec vec_from_bits(vec_bits bits)
{
    vec x;
    memcpy(&x, &bits, sizeof x);
    return x;
}
""",
    "vec_pick": """\
/* a where the condition holds, b elsewhere. */
#if LANES > 1
static inline vec vec_pick(vec_mask where, vec a, vec b)
{
    const vec_bits mask = (vec_bits)where;
    return vec_from_bits((mask & vec_to_bits(a)) | (~mask & vec_to_bits(b)));
}
#else
static inline vec vec_pick(vec_mask where, vec a, vec b) { return where ? a : b; }
#endif
""",
    "vec_least": """\
/* min(x, bound), and NaN where x is NaN. */
static inline vec vec_least(vec x, real bound)
{
    return vec_pick(x > vec_splat(bound), vec_splat(bound), x);
}
""",
    "vec_most": """\
/* max(x, bound), and NaN where x is NaN. */
static inline vec vec_most(vec x, real bound)
{
    return vec_pick(x < vec_splat(bound), vec_splat(bound), x);
}
""",
    "vec_within": """\
static inline vec vec_within(vec x, real bound) { return vec_most(vec_least(x, bound), -bound); }
""",
    "vec_abs": """\
static inline vec vec_abs(vec x) { return vec_from_bits(vec_to_bits(x) & ~SIGN); }
""",
    "vec_with_sign": """\
/* |m| with the sign of x. */
static inline vec vec_with_sign(vec m, vec x)
{
    return vec_from_bits((vec_to_bits(m) & ~SIGN) | (vec_to_bits(x) & SIGN));
}
""",
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
    "wide_expm1": """\
/* exp(x) - 1 for x <= 0, in double whatever the network is in: see vec_tanh. */
static double wide_expm1(double x)
{
    const double a = x / 2 < -20 ? -20 : x / 2;
    const double t = a * 2.8853900817779268 + 6755399441056767.0;
    const double n = t - 6755399441056767.0;
    double r = a - n * 0.34657359030097723007;
    r = r + n * 2.1004575363405422990e-11;
    WIDE_EXPM1_P
    p = r * r * p + (r + r);
    uint64_t bits;
    memcpy(&bits, &t, sizeof bits);
    bits <<= 52;
    double power;
    memcpy(&power, &bits, sizeof power);
    return power * p + (power - 1);
}
""",
    "wide_exp": """\
/* exp(x) for x <= 0, in double; 0 where it is below 1e-304. */
static double wide_exp(double x)
{
    if (x < -700)
        return 0;
    const double t = x * 1.4426950408889634 + 6755399441056767.0;
    const double n = t - 6755399441056767.0;
    double r = x - n * 0.69314718060195446014;
    r = r + n * 4.2009150726810845980e-11;
    WIDE_EXP_P
    uint64_t bits;
    memcpy(&bits, &t, sizeof bits);
    bits <<= 52;
    double power;
    memcpy(&power, &bits, sizeof power);
    return p * power;
}
""",
    "scaled_tanh": """\
static real scaled_tanh(real x, real alpha, real beta)
{
    const double z = beta * x;
    const double m = wide_expm1(z < 0 ? 2 * z : -2 * z);
    const double y = -m / (2 + m);
    return alpha * (real)(z < 0 ? -y : y);
}
""",
    "elu": """\
static real elu(real x, real alpha) { return x < 0 ? alpha * (real)wide_expm1(x) : x; }
""",
    "softplus": """\
/* max(x, 0) + log1p(e), e = exp(-|x|), where log1p(e) = 2 atanh(s), s = e / (2 + e) <= 1/3. */
static real softplus(real x)
{
    const double e = wide_exp(x < 0 ? (double)x : -(double)x);
    const double s = e / (2 + e);
    double sum = 0;
    for (int k = 35; k > 0; k -= 2)
        sum = sum * s * s + 1.0 / k;
    const real log1p_e = (real)(2 * s * sum);
    return (x < 0 ? 0 : x) + log1p_e;
}
""",
    "wide_sqrt": """\
/* The square root of x >= 1e-5, rounded correctly: digit after digit, in integers. */
static double wide_sqrt(double x)
{
    uint64_t bits, root = 0, rest = 0;
    memcpy(&bits, &x, sizeof bits);
    const uint64_t exponent = (bits >> 52) - 1;
    uint64_t digits = ((bits & 0xFFFFFFFFFFFFFu) | 0x10000000000000u) << (exponent & 1u ? 11 : 10);
    for (int k = 0; k < 54; k++) {
        rest = (rest << 2) | (digits >> 62);
        digits <<= 2;
        root <<= 1;
        if (rest > 2 * root) {
            rest -= 2 * root + 1;
            root++;
        }
    }
    root = (root >> 1) + (root & 1u);
    bits = (((exponent + 1024u) / 2u) << 52) + (root - 0x10000000000000u);
    memcpy(&x, &bits, sizeof x);
    return x;
}
""",
    "normalize": """\
/* z := (z - mean) / sqrt(variance + 1e-5) over n gates of `units` each: z (n, units). */
static void normalize(real *z, size_t n, size_t units)
{
    const double count = (double)(n * units);
    real total = 0;
    for (size_t j = 0; j < units; j++)
        for (size_t gate = 0; gate < n; gate++)
            total += z[gate * units + j];
    const real mean = (real)((double)total / count);
    total = 0;
    for (size_t j = 0; j < units; j++)
        for (size_t gate = 0; gate < n; gate++) {
            z[gate * units + j] -= mean;
            total += z[gate * units + j] * z[gate * units + j];
        }
    const real scale = (real)(1 / wide_sqrt((double)total / count + 1e-5));
    for (size_t j = 0; j < n * units; j++)
        z[j] *= scale;
}
""",
}

# in their place where weights are stored as bfloat16
BFLOAT16 = {
    "vec_weights": """\
/* Weights are stored as bfloat16: the upper half of a float. */
static inline vec vec_weights(const weight *p)
{
    uint32_t bits[LANES];
    vec v;
    for (size_t l = 0; l < LANES; l++)
        bits[l] = (uint32_t)p[l] << 16;
    memcpy(&v, bits, sizeof v);
    return v;
}
""",
    "weight_at": """\
static inline real weight_at(const weight *p)
{
    const uint32_t bits = (uint32_t)*p << 16;
    real x;
    memcpy(&x, &bits, sizeof x);
    return x;
}
""",
}

# what takes lanes one by one, by the function of the vector that does so
LANE_BY_LANE = {
    "vec_scaled_tanh": ("scaled_tanh", ("alpha", "beta")),
    "vec_elu": ("elu", ("alpha",)),
    "vec_softplus": ("softplus", ()),
}
for _name, (_of_lane, _parameters) in LANE_BY_LANE.items():
    SNIPPETS[_name] = f"""\
static inline vec {_name}(vec x{"".join(f", real {p}" for p in _parameters)})
{{
    real lanes[LANES];
    vec_store(lanes, x);
    for (size_t l = 0; l < LANES; l++)
        lanes[l] = {_of_lane}({", ".join(("lanes[l]", *_parameters))});
    return vec_load(lanes);
}}
"""
