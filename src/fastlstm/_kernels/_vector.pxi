# The vector type and its operations; csrc/simd/scalar.h explains them.
#
# `vec` is declared as a float so that Cython lets arithmetic through; it never looks inside. The
# instruction set and element type are those of the header that the including module chose.

cdef extern from *:
    ctypedef float vec
    int LANES
    int PANEL
    vec splat "vec_splat"(real x) noexcept nogil
    vec load "vec_load"(const real *p) noexcept nogil
    void store "vec_store"(real *p, vec v) noexcept nogil
    vec load_n "vec_load_n"(const real *p, int n) noexcept nogil
    void store_n "vec_store_n"(real *p, vec v, int n) noexcept nogil
    vec fma "vec_fma"(vec a, vec b, vec c) noexcept nogil
    vec least "vec_least"(vec x, vec bound) noexcept nogil
    vec most "vec_most"(vec x, vec bound) noexcept nogil
    vec sigmoid "vec_sigmoid"(vec x) noexcept nogil
    vec tanh "vec_tanh"(vec x) noexcept nogil
    vec activate "vec_activate"(const activation *a, vec x) noexcept nogil
    vec slope "vec_slope"(const activation *a, vec y) noexcept nogil
    vec within "vec_within"(vec x, real bound) noexcept nogil
    real vec_sum(vec v) noexcept nogil
