# Weights into panels, and gradients back out of them.

cdef enum:
    # Transposing goes by squares of this side: a cache line of floats on either side.
    SQUARE = 16


cdef void gather_gates(
    real *rows, const real *w, ptrdiff_t row_stride, ptrdiff_t column_stride,
    ptrdiff_t H, ptrdiff_t p, ptrdiff_t begin, ptrdiff_t end, const int *order,
    ptrdiff_t blocks_of_panel,
) noexcept nogil:
    """The rows begin..end of panel p, (end - begin, blocks, LANES)."""
    cdef ptrdiff_t k, block, lane, unit, width = blocks_of_panel * LANES
    cdef const real *source
    cdef real *target
    for block in range(blocks_of_panel):
        for lane in range(LANES):
            unit = p * LANES + lane
            source = w + (order[block] * H + unit) * row_stride + begin * column_stride
            target = rows + block * LANES + lane
            if unit < H and order[block] >= 0:
                for k in range(end - begin):
                    target[k * width] = source[k * column_stride]
            else:
                for k in range(end - begin):
                    target[k * width] = 0


cdef void gather_columns(
    real *rows, const real *w, ptrdiff_t row_stride, ptrdiff_t column_stride,
    ptrdiff_t N, ptrdiff_t p, ptrdiff_t begin, ptrdiff_t end,
) noexcept nogil:
    """The rows begin..end of panel p, (end - begin, its width)."""
    cdef ptrdiff_t k, j, width = width_of_panel(N, p)
    cdef const real *source
    for k in range(begin, end):
        source = w + k * row_stride + p * PANEL * column_stride
        for j in range(width):
            rows[j] = source[j * column_stride] if p * PANEL + j < N else 0
        rows += width


cdef inline ptrdiff_t width_of_panel(ptrdiff_t N, ptrdiff_t p) noexcept nogil:
    """The last of N columns may leave a panel narrower."""
    return min(<ptrdiff_t>PANEL, blocks(N - p * PANEL, LANES) * LANES)


cdef void pack_gates(
    real *panels, const real *w, ptrdiff_t row_stride, ptrdiff_t column_stride,
    ptrdiff_t H, ptrdiff_t K, const int *order, ptrdiff_t blocks_of_panel,
) noexcept nogil:
    cdef ptrdiff_t p, square, begin, width = blocks_of_panel * LANES
    for p in range(blocks(H, LANES)):
        for square in range(blocks(K, SQUARE)):
            begin = square * SQUARE
            gather_gates(
                panels + begin * width, w, row_stride, column_stride, H, p,
                begin, min(K, begin + SQUARE), order, blocks_of_panel)
        panels += K * width


cdef void pack_columns(
    real *panels, const real *w, ptrdiff_t row_stride, ptrdiff_t column_stride,
    ptrdiff_t K, ptrdiff_t N,
) noexcept nogil:
    cdef ptrdiff_t p
    for p in range(blocks(N, PANEL)):
        gather_columns(panels, w, row_stride, column_stride, N, p, 0, K)
        panels += K * width_of_panel(N, p)


# The same for weights that are multiplied. Where these are groups of smaller numbers, each panel is
# gathered in parts, and packed from there; in int8 after a look for the largest elements.

cdef ptrdiff_t weight_rows(ptrdiff_t K) noexcept nogil:
    return WEIGHT_ROWS(K)


cdef void pack_gate_weights(
    void *panels, const real *w, ptrdiff_t row_stride, ptrdiff_t column_stride,
    ptrdiff_t H, ptrdiff_t K, const int *order, ptrdiff_t blocks_of_panel,
) noexcept nogil:
    cdef ptrdiff_t p, square, begin, end, width = blocks_of_panel * LANES
    cdef weight *panel = <weight *>panels
    cdef real rows[SQUARE * 4 * MOST_LANES]
    cdef bint scan
    if PACKS_REALS:
        pack_gates(<real *>panels, w, row_stride, column_stride, H, K, order, blocks_of_panel)
        return
    for p in range(blocks(H, LANES)):
        memset(panel, 0, WEIGHT_ROWS(K) * width * sizeof(weight))
        for scan in range(SCANS, -1, -1):
            for square in range(blocks(K, SQUARE)):
                begin = square * SQUARE
                end = min(K, begin + SQUARE)
                gather_gates(
                    rows, w, row_stride, column_stride, H, p, begin, end, order, blocks_of_panel)
                if scan:
                    scan_rows(panel, rows, width, end - begin)
                else:
                    pack_rows(panel, rows, width, width, K, begin, end - begin)
        end_panel(panel, width)
        panel += WEIGHT_ROWS(K) * width


cdef void pack_column_weights(
    void *panels, const real *w, ptrdiff_t row_stride, ptrdiff_t column_stride,
    ptrdiff_t K, ptrdiff_t N,
) noexcept nogil:
    cdef ptrdiff_t p, square, begin, end, width
    cdef weight *panel = <weight *>panels
    cdef real rows[SQUARE * 4 * MOST_LANES]
    cdef bint scan
    if PACKS_REALS:
        pack_columns(<real *>panels, w, row_stride, column_stride, K, N)
        return
    for p in range(blocks(N, PANEL)):
        width = width_of_panel(N, p)
        memset(panel, 0, WEIGHT_ROWS(K) * width * sizeof(weight))
        for scan in range(SCANS, -1, -1):
            for square in range(blocks(K, SQUARE)):
                begin = square * SQUARE
                end = min(K, begin + SQUARE)
                gather_columns(rows, w, row_stride, column_stride, N, p, begin, end)
                if scan:
                    scan_rows(panel, rows, width, end - begin)
                else:
                    pack_rows(panel, rows, width, width, K, begin, end - begin)
        end_panel(panel, width)
        panel += WEIGHT_ROWS(K) * width


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
