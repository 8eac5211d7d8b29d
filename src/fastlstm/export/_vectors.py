"""C of vectors of hidden units: types, loads and stores, sums, comparisons.

Decisions:
a) A function of C is an entry of `SNIPPETS`; a file gets those that it names, and what these name.
   `_activations` and `_wide` have more of them.
b) `real` stands for the type of the network and `1.5_r` for a number of it, until `_text` ends.
"""

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
#define UNROLL _Pragma("GCC unroll 32")
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
/* z := init + W x for the N vectors of units from j on, whose sums stay in registers: each in as
 * many chains as CHAINS says, which only meet at the end. One chain goes on in the order of k. */
ALWAYS_INLINE void sums_at_once(real *z, const real *init, const weight *W, const real *x,
                                const size_t n, const size_t K, const size_t j, const size_t N)
{
    const size_t last = vec_first(j + (N - 1) * LANES, n);
    const size_t chains = CHAINS(N);
    vec sum[SUMS];
    UNROLL for (size_t v = 0; v < N; v++)
        sum[v] = vec_load(&init[v + 1 < N ? j + v * LANES : last]);
    UNROLL for (size_t v = N; v < chains * N; v++)
        sum[v] = vec_splat(0.0_r);
    size_t k = 0;
    for (; k + chains <= K; k += chains)
        UNROLL for (size_t v = 0; v < chains * N; v++) {
            const size_t at = k + v / N, unit = v % N + 1 < N ? j + v % N * LANES : last;
            sum[v] += x[at] * vec_weights(&W[at * n + unit]);
        }
    for (; k < K; k++)
        UNROLL for (size_t v = 0; v < N; v++)
            sum[v] += x[k] * vec_weights(&W[k * n + (v + 1 < N ? j + v * LANES : last)]);
    UNROLL for (size_t v = chains * N; v-- > N;)
        sum[v - N] += sum[v];
    UNROLL for (size_t v = 0; v < N; v++)
        vec_store(&z[v + 1 < N ? j + v * LANES : last], sum[v]);
}
""",
    "sums": """\
/* z := init + W x. z, init (n,), W (K, n), x (K,). The units are divided evenly over
 * as few rounds as there are registers for; the last round may overlap. */
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
