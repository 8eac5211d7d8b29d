# Row-major products over SciPy's BLAS: the only caller of BLAS.

from scipy.linalg.cython_blas cimport dgemm, sgemm

ctypedef fused floating:
    float
    double


cdef inline void gemm(
    bint transpose_a, bint transpose_b, int m, int n, int k,
    const floating *a, int lda, const floating *b, int ldb,
    floating beta, floating *c, int ldc,
) noexcept nogil:
    """C := op(A) @ op(B) + beta * C; op(A) (m, k), op(B) (k, n), C (m, n), rows ld* apart."""
    # BLAS is column-major: it computes the transposes, C.T := op(B).T @ op(A).T + beta * C.T
    cdef char *ta = "t" if transpose_a else "n"
    cdef char *tb = "t" if transpose_b else "n"
    cdef floating one = 1
    if m == 0 or n == 0:
        return
    if floating is float:
        sgemm(tb, ta, &n, &m, &k, &one, <float *>b, &ldb, <float *>a, &lda, &beta, c, &ldc)
    else:
        dgemm(tb, ta, &n, &m, &k, &one, <double *>b, &ldb, <double *>a, &lda, &beta, c, &ldc)
