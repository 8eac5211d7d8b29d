"""C of what is computed in double, lane by lane: norms, elu, softplus, scaled_tanh.

Decision: Python leaves these activations to libm, in double. Here there is no libm, but the same in
double within 4 ulp, which rounded to float differs once in some 10^8 values.
"""

SNIPPETS = {
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
