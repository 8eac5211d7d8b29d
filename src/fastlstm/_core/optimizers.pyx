# cython: boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""One pass over a flat buffer of parameters: the updates of SGD and Adam, and a sum of squares.

Decisions:
a) Each update reads and writes every element once, in one loop, so that the
   compiler vectorises it and a step costs one trip through memory.
b) The formulas are those of `torch.optim`; the letters are the papers': w parameters, g gradient,
   m and v the running moments. Scalars are computed in double and rounded once to the dtype.
c) Nothing is checked here; `training` passes buffers of equal length that do not overlap.
"""

from libc.math cimport pow, sqrt, sqrtf

ctypedef fused real:
    float
    double

# Partial sums of `sum_of_squares`: enough independent additions to fill the vector units.
cdef enum:
    LANES = 32


cdef inline real root(real x) noexcept nogil:
    if real is float:
        return sqrtf(x)
    else:
        return sqrt(x)


def sgd_step(real[::1] w, const real[::1] g, double lr, double weight_decay):
    """Descend: w -= lr * (g + weight_decay * w)."""
    cdef Py_ssize_t k
    cdef real rate = <real>lr
    cdef real decay = <real>weight_decay
    with nogil:
        for k in range(w.shape[0]):
            w[k] -= rate * (g[k] + decay * w[k])


def momentum_step(
    real[::1] w, const real[::1] g, real[::1] velocity,
    double lr, double weight_decay, double momentum, bint nesterov,
):
    """Descend along velocity = momentum * velocity + gradient, or one step ahead (Nesterov)."""
    cdef Py_ssize_t k
    cdef real d
    cdef real rate = <real>lr
    cdef real decay = <real>weight_decay
    cdef real mu = <real>momentum
    with nogil:
        for k in range(w.shape[0]):
            d = g[k] + decay * w[k]
            velocity[k] = mu * velocity[k] + d
            w[k] -= rate * (d + mu * velocity[k] if nesterov else velocity[k])


def adam_step(
    real[::1] w, const real[::1] g, real[::1] m, real[::1] v, Py_ssize_t t,
    double lr, double beta1, double beta2, double eps, double l2, double shrink,
):
    """Make Adam's step number t >= 1.

    The weight decay is `l2` (added to the gradient: Adam) or 1 - `shrink` (of w itself: AdamW).
    """
    cdef Py_ssize_t k
    cdef real d
    cdef real new_m = <real>(1.0 - beta1)
    cdef real keep_v = <real>beta2
    cdef real new_v = <real>(1.0 - beta2)
    cdef real rate = <real>(lr / (1.0 - pow(beta1, t)))
    cdef real scale = <real>(1.0 / sqrt(1.0 - pow(beta2, t)))
    cdef real tiny = <real>eps
    cdef real decay = <real>l2
    cdef real kept = <real>shrink
    with nogil:
        for k in range(w.shape[0]):
            d = g[k] + decay * w[k]
            m[k] += new_m * (d - m[k])
            v[k] = keep_v * v[k] + new_v * d * d
            w[k] = kept * w[k] - rate * m[k] / (root(v[k]) * scale + tiny)


def sum_of_squares(const real[::1] g):
    """Return the sum of g * g, accumulated in double precision."""
    cdef Py_ssize_t k, lane
    cdef Py_ssize_t groups = g.shape[0] // LANES
    cdef double partial[LANES]
    cdef double total = 0.0
    with nogil:
        for lane in range(LANES):
            partial[lane] = 0.0
        for k in range(groups):
            for lane in range(LANES):
                partial[lane] += <double>g[k * LANES + lane] * <double>g[k * LANES + lane]
        for lane in range(LANES):
            total += partial[lane]
        for k in range(groups * LANES, g.shape[0]):
            total += <double>g[k] * <double>g[k]
    return total
