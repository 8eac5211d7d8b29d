# cython: language_level=3, cdivision=True
"""Row-major products over SciPy's BLAS: the only caller of BLAS.

Decision: SciPy is imported when this module is, and this module when kernels are chosen that
multiply slower than a BLAS (`prefer_blas`): most machines never pay for it.
"""

from scipy.linalg.cython_blas cimport dgemm, sgemm

from fastlstm._core.runtime cimport set_blas

ctypedef fused real:
    float
    double


cdef void gemm(
    bint transpose_a, bint transpose_b, int m, int n, int k,
    const real *a, int lda, const real *b, int ldb, real beta, real *c, int ldc,
) noexcept nogil:
    """C := op(A) @ op(B) + beta * C; op(A) (m, k), op(B) (k, n), C (m, n), rows ld* apart."""
    # BLAS is column-major: it computes the transposes, C.T := op(B).T @ op(A).T + beta * C.T
    cdef char *ta = "t" if transpose_a else "n"
    cdef char *tb = "t" if transpose_b else "n"
    cdef real one = 1
    if m == 0 or n == 0:
        return
    if real is float:
        sgemm(tb, ta, &n, &m, &k, &one, <float *>b, &ldb, <float *>a, &lda, &beta, c, &ldc)
    else:
        dgemm(tb, ta, &n, &m, &k, &one, <double *>b, &ldb, <double *>a, &lda, &beta, c, &ldc)


set_blas(<void *>gemm[float], <void *>gemm[double])
