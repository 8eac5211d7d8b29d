# THE GATE MATH: one vector of hidden units of one row, forward and backward.
#
# Decisions:
# a) `vec` is a vector of LANES hidden units, so a line here is the equation for all of them; the
#    letters are those of docs/design.md and of fastlstm.reference.
# b) fma(a, b, c) = a * b + c is written out wherever it is meant. The compiler may not contract by
#    itself, so a cell gives the same bits wherever it is inlined.
# c) A cell reads z, gates, c and dh in padded rows; what belongs to the user (h, dy, dz) is LANES
#    or fewer units, the last argument n.
# d) The plain LSTM stands by itself, with nothing to decide. All its variants are one cell, in
#    _lstm_variant.pxi.


cdef inline vec bounded(const cell_options *options, vec x) noexcept nogil:
    """The input of an activation under ONNX's `clip`."""
    if options.clip == INFINITY:
        return x
    return most(least(x, splat(options.clip)), splat(-options.clip))


# In two parts: the chain from z to h is so long that a row after the other leaves units waiting.

cdef inline void lstm_cell_forward_1(
    real *c, real *gates, real *z, const real *c_prev,
) noexcept nogil:
    """gates (4, LANES): f, i, g, o, or NULL where they are not wanted. z (4, LANES): out o."""
    cdef vec f = sigmoid(load(z))
    cdef vec i = sigmoid(load(z + LANES))
    cdef vec g = tanh(load(z + 2 * LANES))
    cdef vec o = sigmoid(load(z + 3 * LANES))
    store(c, fma(f, load(c_prev), i * g))
    store(z + 3 * LANES, o)
    if gates != NULL:
        store(gates, f)
        store(gates + LANES, i)
        store(gates + 2 * LANES, g)
        store(gates + 3 * LANES, o)


cdef inline void lstm_cell_forward_2(real *h, const real *z, const real *c, int n) noexcept nogil:
    put(h, load(z + 3 * LANES) * tanh(load(c)), n)


cdef inline void lstm_cell_backward(
    real *dz, ptrdiff_t H, real *dc, const real *dh, const real *dy,
    const real *gates, const real *c, const real *c_prev, int n,
) noexcept nogil:
    """dz (4, H): gates H apart. dc: in dL/dc_t of the future, out dL/dc_{t-1}."""
    cdef vec one = splat(1)
    cdef vec f = load(gates)
    cdef vec i = load(gates + LANES)
    cdef vec g = load(gates + 2 * LANES)
    cdef vec o = load(gates + 3 * LANES)
    cdef vec tanh_c = tanh(load(c))
    cdef vec dh_t = get(dy, n) + load(dh)
    cdef vec dc_t = fma(dh_t * o, one - tanh_c * tanh_c, load(dc))
    put(dz, dc_t * g * (i * (one - i)), n)
    put(dz + H, dc_t * load(c_prev) * (f * (one - f)), n)
    put(dz + 2 * H, dc_t * i * (one - g * g), n)
    put(dz + 3 * H, dh_t * tanh_c * (o * (one - o)), n)
    store(dc, dc_t * f)


cdef inline void gru_cell_forward(
    real *h, real *gates, const real *z, const real *h_prev, const cell_options *options, int n,
) noexcept nogil:
    """z (4, LANES): n, r, z, q. gates: the same, activated, or NULL where they are not wanted."""
    cdef vec r = activate(&options.gate, bounded(options, load(z + LANES)))
    cdef vec u = activate(&options.gate, bounded(options, load(z + 2 * LANES)))  # z of the papers
    cdef vec q = load(z + 3 * LANES)
    cdef vec g = activate(&options.candidate, bounded(options, fma(r, q, load(z))))  # n
    put(h, fma(u, get(h_prev, n) - g, g), n)
    if gates != NULL:
        store(gates, g)
        store(gates + LANES, r)
        store(gates + 2 * LANES, u)
        store(gates + 3 * LANES, q)


cdef inline void gru_cell_backward(
    real *dz_x, real *dz_h, ptrdiff_t H, real *dh, const real *dy, const real *gates,
    const real *h_prev, const cell_options *options, int n,
) noexcept nogil:
    """dz_x (3, H): r, z, n. dz_h (3, H): r, z, q. dh: in dL/dh_t of the future, out what reaches
    h_{t-1} without W_hh.
    """
    cdef vec one = splat(1)
    cdef vec g = load(gates)
    cdef vec r = load(gates + LANES)
    cdef vec u = load(gates + 2 * LANES)
    cdef vec q = load(gates + 3 * LANES)
    cdef vec dh_t = get(dy, n) + load(dh)
    cdef vec dg = dh_t * (one - u) * slope(&options.candidate, g)
    cdef vec dr = dg * q * slope(&options.gate, r)
    cdef vec du = dh_t * (get(h_prev, n) - g) * slope(&options.gate, u)
    put(dz_x, dr, n)
    put(dz_x + H, du, n)
    put(dz_x + 2 * H, dg, n)
    put(dz_h, dr, n)
    put(dz_h + H, du, n)
    put(dz_h + 2 * H, dg * r, n)
    store(dh, dh_t * u)


# The GRU whose reset comes before the product: half a cell, the product (r * h) @ W_hn, the rest.

cdef inline void gru_reset_before_forward_1(
    real *gates, real *rh, const real *u, const cell_options *options, int n,
) noexcept nogil:
    """gates: in n (without h), r, z; out r and z activated. rh (LANES,): r * h."""
    cdef vec r = activate(&options.gate, bounded(options, load(gates + LANES)))
    store(gates + LANES, r)
    store(gates + 2 * LANES, activate(&options.gate, bounded(options, load(gates + 2 * LANES))))
    store(rh, r * get(u, n))


cdef inline void gru_reset_before_forward_2(
    real *h, real *gates, const real *q, const real *h_prev, const cell_options *options, int n,
) noexcept nogil:
    """q (LANES,): (r * h) @ W_hn."""
    cdef vec u = load(gates + 2 * LANES)
    cdef vec g = activate(&options.candidate, bounded(options, load(gates) + load(q)))
    store(gates, g)
    put(h, fma(u, get(h_prev, n) - g, g), n)


cdef inline void gru_reset_before_backward_1(
    real *dz, ptrdiff_t H, real *dh, const real *dy, const real *gates, const real *h_prev,
    const cell_options *options, int n,
) noexcept nogil:
    cdef vec g = load(gates)
    cdef vec u = load(gates + 2 * LANES)
    cdef vec dh_t = get(dy, n) + load(dh)
    put(dz + H, dh_t * (get(h_prev, n) - g) * slope(&options.gate, u), n)
    put(dz + 2 * H, dh_t * (splat(1) - u) * slope(&options.candidate, g), n)
    store(dh, dh_t * u)


cdef inline void gru_reset_before_backward_2(
    real *dz, real *dh, const real *drh, const real *gates, const real *u, const real *dropout,
    const cell_options *options, int n,
) noexcept nogil:
    """drh (LANES,): dL/d(r * h)."""
    cdef vec r = load(gates + LANES)
    cdef vec dh_t = load(drh) * r
    put(dz, load(drh) * get(u, n) * slope(&options.gate, r), n)
    if dropout != NULL:
        dh_t = dh_t * get(dropout, n)
    store(dh, load(dh) + dh_t)


cdef inline void rnn_cell_forward(
    real *h, real *gates, const cell_options *options, int n,
) noexcept nogil:
    """gates (LANES,): in z, out h."""
    cdef vec h_t = activate(&options.gate, bounded(options, load(gates)))
    store(gates, h_t)
    put(h, h_t, n)


cdef inline void rnn_cell_backward(
    real *dz, real *dh, const real *dy, const real *gates, const cell_options *options, int n,
) noexcept nogil:
    put(dz, (get(dy, n) + load(dh)) * slope(&options.gate, load(gates)), n)
    store(dh, splat(0))
