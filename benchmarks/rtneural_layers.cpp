/* The layers that RTNeural (github.com/jatinchowdhury18/RTNeural) has, in our words, to be timed beside ours:
 * export.py compiles this with CELL_LSTM or CELL_GRU, INPUTS and UNITS, and one of
 *
 *     PLAIN      inner products and libm, as its STL back end
 *     EIGEN      one product of a matrix of fixed size with (x, h, 1), activations of Eigen
 *     RTNEURAL   its own headers, from a checkout that is given
 *
 * Gates stand in the order f, i, g, o of the LSTM and n, r, z, q of the GRU in set(), as in fastlstm. */
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <numeric>
#include <time.h>
#include <vector>
#if defined(EIGEN)
#include <Eigen/Dense>
#elif defined(RTNEURAL)
#include <RTNeural/RTNeural.h>
#endif

#ifdef CELL_LSTM
constexpr int G = 4, GB = 4;
#else
constexpr int G = 3, GB = 4;
#endif
constexpr int I = INPUTS, H = UNITS;

#if defined(PLAIN)

static float W[G][H][I], U[G][H][H], b[GB][H], h[H], c[H];

static float sigmoid(float x) { return 1.0f / (1.0f + std::exp(-x)); }
static float dot(const float *w, const float *v, int n) { return std::inner_product(w, w + n, v, 0.0f); }

static void set(const float *w, const float *u, const float *bias)
{
    std::copy(w, w + G * H * I, &W[0][0][0]);
    std::copy(u, u + G * H * H, &U[0][0][0]);
    std::copy(bias, bias + GB * H, &b[0][0]);
}

static void step(const float *x, float *y)
{
    float zx[GB][H] = {}, zh[GB][H];
    for (int g = 0; g < G; g++)
        for (int j = 0; j < H; j++) {
            zx[g][j] = dot(W[g][j], x, I);
            zh[g][j] = dot(U[g][j], h, H);
        }
    for (int j = 0; j < H; j++) {
#ifdef CELL_LSTM
        const float f = sigmoid(zx[0][j] + zh[0][j] + b[0][j]);
        const float i = sigmoid(zx[1][j] + zh[1][j] + b[1][j]);
        const float g = std::tanh(zx[2][j] + zh[2][j] + b[2][j]);
        const float o = sigmoid(zx[3][j] + zh[3][j] + b[3][j]);
        c[j] = f * c[j] + i * g;
        h[j] = o * std::tanh(c[j]);
#else
        const float r = sigmoid(zx[1][j] + zh[1][j] + b[1][j]);
        const float z = sigmoid(zx[2][j] + zh[2][j] + b[2][j]);
        const float n = std::tanh(zx[0][j] + b[0][j] + r * (zh[0][j] + b[3][j]));
        h[j] = z * h[j] + (1 - z) * n;
#endif
        y[j] = h[j];
    }
}

#elif defined(EIGEN)

template <int N> using Vector = Eigen::Matrix<float, N, 1>;
template <int N, int K> using Matrix = Eigen::Matrix<float, N, K>;

template <class V> static auto sigmoid(const V &z) { return 1.0f / ((-z.array()).exp() + 1.0f); }

#ifdef CELL_LSTM
static Matrix<4 * H, I + H + 1> W; /* rows f, i, o, g */
static Vector<I + H + 1> xh1;
static Vector<H> c;

static void set(const float *w, const float *u, const float *bias)
{
    const int from[] = {0, 1, 3, 2};
    for (int g = 0; g < 4; g++)
        for (int j = 0; j < H; j++) {
            for (int k = 0; k < I; k++)
                W(g * H + j, k) = w[(from[g] * H + j) * I + k];
            for (int k = 0; k < H; k++)
                W(g * H + j, I + k) = u[(from[g] * H + j) * H + k];
            W(g * H + j, I + H) = bias[from[g] * H + j];
        }
    xh1.setZero();
    xh1(I + H) = 1;
    c.setZero();
}

static void step(const float *x, float *y)
{
    for (int k = 0; k < I; k++)
        xh1(k) = x[k];
    const Vector<4 * H> z = W * xh1;
    const Vector<3 * H> fio = sigmoid(z.template head<3 * H>());
    c = fio.template segment<H>(0).cwiseProduct(c)
        + fio.template segment<H>(H).cwiseProduct(z.template tail<H>().array().tanh().matrix());
    const Vector<H> tanh_c = c.array().tanh();
    xh1.template segment<H>(I) = fio.template segment<H>(2 * H).cwiseProduct(tanh_c);
    for (int j = 0; j < H; j++)
        y[j] = xh1(I + j);
}
#else
static Matrix<3 * H, I + 1> W; /* rows z, r, n */
static Matrix<3 * H, H + 1> U;
static Vector<I + 1> x1;
static Vector<H + 1> h1;

static void set(const float *w, const float *u, const float *bias)
{
    const int from[] = {2, 1, 0};
    for (int g = 0; g < 3; g++)
        for (int j = 0; j < H; j++) {
            for (int k = 0; k < I; k++)
                W(g * H + j, k) = w[(from[g] * H + j) * I + k];
            for (int k = 0; k < H; k++)
                U(g * H + j, k) = u[(from[g] * H + j) * H + k];
            W(g * H + j, I) = bias[from[g] * H + j];
            U(g * H + j, H) = g == 2 ? bias[3 * H + j] : 0;
        }
    x1.setZero();
    h1.setZero();
    x1(I) = h1(H) = 1;
}

static void step(const float *x, float *y)
{
    for (int k = 0; k < I; k++)
        x1(k) = x[k];
    const Vector<3 * H> zx = W * x1, zh = U * h1;
    const Vector<2 * H> zr = sigmoid(zx.template head<2 * H>() + zh.template head<2 * H>());
    const Vector<H> n = (zx.template tail<H>()
        + zr.template tail<H>().cwiseProduct(zh.template tail<H>())).array().tanh();
    h1.template head<H>() = ((1.0f - zr.template head<H>().array()) * n.array()
        + zr.template head<H>().array() * h1.template head<H>().array()).matrix();
    for (int j = 0; j < H; j++)
        y[j] = h1(j);
}
#endif

#else

using Rows = std::vector<std::vector<float>>;

/* (G * H, K) in our order of gates to (K, G * H) in that of Keras */
static Rows turned(const float *from, int K, const int *order)
{
    Rows to(K, std::vector<float>(G * H));
    for (int k = 0; k < K; k++)
        for (int g = 0; g < G; g++)
            for (int j = 0; j < H; j++)
                to[k][g * H + j] = from[(order[g] * H + j) * K + k];
    return to;
}

#ifdef CELL_LSTM
static RTNeural::ModelT<float, I, H, RTNeural::LSTMLayerT<float, I, H>> model;
#else
static RTNeural::ModelT<float, I, H, RTNeural::GRULayerT<float, I, H>> model;
#endif

static void set(const float *w, const float *u, const float *bias)
{
    auto &layer = model.template get<0>();
#ifdef CELL_LSTM
    const int order[] = {1, 0, 2, 3}; /* i, f, g, o */
    layer.setBVals(turned(bias, 1, order)[0]);
#else
    const int order[] = {2, 1, 0}; /* z, r, n */
    Rows both = {turned(bias, 1, order)[0], std::vector<float>(3 * H)};
    std::copy(bias + 3 * H, bias + 4 * H, both[1].begin() + 2 * H);
    layer.setBVals(both);
#endif
    layer.setWVals(turned(w, I, order));
    layer.setUVals(turned(u, H, order));
    model.reset();
}

static void step(const float *x, float *y)
{
    model.forward(x);
    std::copy(model.getOutputs(), model.getOutputs() + H, y);
}
#endif

extern "C" void peer_set(const float *w, const float *u, const float *bias) { set(w, u, bias); }
extern "C" void peer_run(const float *x, float *y, int steps)
{
    for (int t = 0; t < steps; t++)
        step(x + t * I, y + t * H);
}
