# The kernels' vector functions by themselves, for tests and benchmarks.

def sigmoid(const real[::1] x, real[::1] y):
    """y := sigmoid(x)."""
    if x.shape[0]:
        kernels().sigmoid(&y[0], &x[0], x.shape[0])


def tanh(const real[::1] x, real[::1] y):
    """y := tanh(x)."""
    if x.shape[0]:
        kernels().tanh(&y[0], &x[0], x.shape[0])


def fma_peak(ptrdiff_t repeats):
    """Do repeats * fma_peak_operations() floating point operations in registers."""
    cdef real out[MOST_LANES]
    cdef const kernel_table *k = kernels()
    memset(out, 0, sizeof(out))
    with nogil:
        k.fma_peak(out, repeats)


def fma_peak_operations():
    """Floating point operations of one repeat of `fma_peak`, 2 per lane of an fma."""
    return kernels().fma_peak_operations


def read(const real[::1] x, ptrdiff_t repeats):
    """Read x, a multiple of 128 elements, repeatedly. Write it first: fresh pages are one."""
    cdef real out[MOST_LANES]
    cdef const kernel_table *k = kernels()
    cdef ptrdiff_t i
    if x.shape[0] % 128 or not x.shape[0]:
        raise ValueError(f"x: expected a multiple of 128 elements, got {x.shape[0]}")
    with nogil:
        for i in range(repeats):
            k.read_all(out, &x[0], x.shape[0])
