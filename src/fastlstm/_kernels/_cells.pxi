# THE GATE MATH: one hidden vector of one row, forward and backward.
#
# Decisions:
# a) `vec` is a vector of LANES hidden units, so a line here is the equation for all of them; the
#    letters are those of DESIGN.md and of reference.py.
# b) fma(a, b, c) = a * b + c is written out wherever it is meant. The compiler may not contract by
#    itself, so a cell gives the same bits wherever it is inlined.
# c) A cell reads gates, c and dh in padded rows; what belongs to the user (h, dy, dz) is LANES or
#    fewer units, the last argument n.


cdef inline void lstm_cell_forward(
    real *h, real *c, real *gates, const real *z, const real *c_prev, int n,
) noexcept nogil:
    """gates (4, LANES): i, f, g, o, or NULL where they are not wanted."""
    cdef vec i = sigmoid(load(z))
    cdef vec f = sigmoid(load(z + LANES))
    cdef vec g = tanh(load(z + 2 * LANES))
    cdef vec o = sigmoid(load(z + 3 * LANES))
    cdef vec c_t = fma(f, load(c_prev), i * g)
    store(c, c_t)
    put(h, o * tanh(c_t), n)
    if gates != NULL:
        store(gates, i)
        store(gates + LANES, f)
        store(gates + 2 * LANES, g)
        store(gates + 3 * LANES, o)


cdef inline void lstm_cell_backward(
    real *dz, ptrdiff_t H, real *dc, const real *dh, const real *dy,
    const real *gates, const real *c, const real *c_prev, int n,
) noexcept nogil:
    """dz (4, H): gates H apart. dc: in dL/dc_t of the future, out dL/dc_{t-1}."""
    cdef vec one = splat(1)
    cdef vec i = load(gates)
    cdef vec f = load(gates + LANES)
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
