# Weights into panels, and gradients back out of them.

cdef enum:
    # Transposing goes by squares of this side: a cache line of floats on either side.
    SQUARE = 16


cdef void pack_gates(
    real *panels, const real *w, ptrdiff_t row_stride, ptrdiff_t column_stride,
    ptrdiff_t H, ptrdiff_t K, const int *order, ptrdiff_t blocks_of_panel,
) noexcept nogil:
    cdef ptrdiff_t p, k, square, begin, end, block, lane, unit, width = blocks_of_panel * LANES
    cdef const real *source
    cdef real *target
    for p in range(blocks(H, LANES)):
        for square in range(blocks(K, SQUARE)):
            begin = square * SQUARE
            end = min(K, begin + SQUARE)
            for block in range(blocks_of_panel):
                for lane in range(LANES):
                    unit = p * LANES + lane
                    source = w + (order[block] * H + unit) * row_stride
                    target = panels + block * LANES + lane
                    if unit < H and order[block] >= 0:
                        for k in range(begin, end):
                            target[k * width] = source[k * column_stride]
                    else:
                        for k in range(begin, end):
                            target[k * width] = 0
        panels += K * width


cdef void pack_columns(
    real *panels, const real *w, ptrdiff_t row_stride, ptrdiff_t column_stride,
    ptrdiff_t K, ptrdiff_t N,
) noexcept nogil:
    cdef ptrdiff_t p, k, j, width
    cdef const real *source
    for p in range(blocks(N, PANEL)):
        width = min(<ptrdiff_t>PANEL, blocks(N - p * PANEL, LANES) * LANES)
        for k in range(K):
            source = w + k * row_stride + p * PANEL * column_stride
            for j in range(width):
                panels[j] = source[j * column_stride] if p * PANEL + j < N else 0
            panels += width


cdef void add_transposed(
    real *w, const real *z, ptrdiff_t z_stride, ptrdiff_t M, ptrdiff_t first, ptrdiff_t last,
) noexcept nogil:
    cdef ptrdiff_t square, i, j, begin, end
    for square in range(blocks(M, SQUARE)):
        begin = square * SQUARE
        end = min(M, begin + SQUARE)
        for j in range(first, last):
            for i in range(begin, end):
                w[j * M + i] += z[i * z_stride + j]
