/* The tile of bfloat16 on AMX: up to 32 rows of a panel. The registers hold the sums of two tiles of rows
 * by two vectors of columns, or of one by four, so that weights, which come from the L2, are read once for
 * both tiles of rows; and 32 of K of the operands (registers 4 and 5) and weights (6 and 7).
 *
 * Included by bfloat16.h, whose packed weights have the layout of tile registers. Their height is set when
 * another one is wanted, and whoever runs a task of the core releases them at its end (end_task): to set
 * and release them takes 49 ns (Xeon). Nothing is prefetched: that made a step 12 % slower there.
 */
#define AMX_TILE
#undef TILE_ROWS
#define TILE_ROWS 32
#define LEAST_PAIR 16 /* rows that are two tiles */

typedef struct {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} tile_configuration;

static _Thread_local int tile_height; /* rows of registers 0 to 5; 0: they are not in use */

/* For tiles of `rows` rows, or one less. */
static inline void set_tile_rows(int rows)
{
    const int height = rows < LEAST_PAIR ? rows : (rows + 1) / 2;
    tile_configuration to __attribute__((aligned(64))) = {.palette = 1};
    if (height == tile_height)
        return;
    for (int i = 0; i < 8; i++) {
        to.row_bytes[i] = 64;
        to.rows[i] = i < 6 ? (uint8_t)height : 16;
    }
    _tile_loadconfig(&to);
    tile_height = height;
}

static void end_task(void)
{
    if (tile_height)
        _tile_release();
    tile_height = 0;
}

/* The numbers of registers are part of the instructions: constants where these are inlined. */
#define EACH_SUM(MACRO) MACRO(0) MACRO(1) MACRO(2) MACRO(3)

ALWAYS_INLINE void load_sums(const int sum, const real *from, ptrdiff_t stride)
{
#define LOAD(s) if (sum == s) _tile_loadd(s, from, stride * sizeof(real));
    EACH_SUM(LOAD)
#undef LOAD
}

ALWAYS_INLINE void store_sums(const int sum, real *to, ptrdiff_t stride)
{
#define STORE(s) if (sum == s) _tile_stored(s, to, stride * sizeof(real));
    EACH_SUM(STORE)
#undef STORE
}

/* sums += operands @ weights, of registers 4 + a and 6 + w */
ALWAYS_INLINE void multiply_registers(const int sum, const int a, const int w)
{
#define MULTIPLY(s)                                                                                \
    if (sum == s && a == 0 && w == 0) _tile_dpbf16ps(s, 4, 6);                                     \
    if (sum == s && a == 0 && w == 1) _tile_dpbf16ps(s, 4, 7);                                     \
    if (sum == s && a == 1 && w == 0) _tile_dpbf16ps(s, 5, 6);                                     \
    if (sum == s && a == 1 && w == 1) _tile_dpbf16ps(s, 5, 7);
    EACH_SUM(MULTIPLY)
#undef MULTIPLY
}

/* The sums from number `first` on += a @ w for some vectors of one panel. `below`: the rows of the second
 * tile, where `tiles` is 2. */
ALWAYS_INLINE void add_products(
    const int tiles, const int first, const int vectors, const operand *a, ptrdiff_t below,
    ptrdiff_t a_stride, const weight *w, ptrdiff_t w_step, ptrdiff_t K)
{
    for (ptrdiff_t k = 0; k < OPERANDS(K); k += 16, w += 16 * w_step) {
        _tile_loadd(4, a + k, a_stride * sizeof(operand));
        if (tiles == 2)
            _tile_loadd(5, a + below + k, a_stride * sizeof(operand));
        UNROLL for (int v = 0; v < vectors; v++) {
            if (v % 2 == 0)
                _tile_loadd(6, w + v * LANES, w_step * sizeof(weight));
            else
                _tile_loadd(7, w + v * LANES, w_step * sizeof(weight));
            multiply_registers(first + v, 0, v % 2);
            if (tiles == 2)
                multiply_registers(2 + first + v, 1, v % 2);
        }
    }
}

ALWAYS_INLINE int least_of(const int a, const int b) { return a < b ? a : b; }
ALWAYS_INLINE int most_of(const int a, const int b) { return a > b ? a : b; }

/* z := init + x @ w_x + h @ w_h for `vectors` vectors of a panel, of which x adds to x_vectors from x_first
 * on, and h likewise. Of two tiles the second ends with the last row: a row in both is the same in both. */
ALWAYS_INLINE void tiles_of_gates(
    const int tiles, ptrdiff_t rows, const int vectors,
    const int x_first, const int x_vectors, const int h_first, const int h_vectors,
    real *z, ptrdiff_t z_stride, const real *init, ptrdiff_t init_stride,
    const operand *x, ptrdiff_t x_stride, const weight *w_x, ptrdiff_t I,
    const operand *h, ptrdiff_t h_stride, const weight *w_h, ptrdiff_t R)
{
    const ptrdiff_t below = tiles == 2 ? rows - tile_height : 0;
    UNROLL for (int v = 0; v < 4; v += 4 / tiles) {
        const int end = least_of(v + 4 / tiles, vectors);
        const int x_begin = most_of(v, x_first), x_end = least_of(end, x_first + x_vectors);
        const int h_begin = most_of(v, h_first), h_end = least_of(end, h_first + h_vectors);
        UNROLL for (int r = 0; r < tiles; r++)
            UNROLL for (int j = v; j < end; j++)
                load_sums(2 * r + j - v, init + r * below * init_stride + j * LANES, init_stride);
        add_products(tiles, x_begin - v, x_end - x_begin, x, below * x_stride, x_stride,
                     w_x + (x_begin - x_first) * LANES, x_vectors * LANES, I);
        add_products(tiles, h_begin - v, h_end - h_begin, h, below * h_stride, h_stride,
                     w_h + (h_begin - h_first) * LANES, h_vectors * LANES, R);
        UNROLL for (int r = 0; r < tiles; r++)
            UNROLL for (int j = v; j < end; j++)
                store_sums(2 * r + j - v, z + r * below * z_stride + j * LANES, z_stride);
    }
}

/* See tile.h; of one panel. */
ALWAYS_INLINE void gates(
    const ptrdiff_t rows, const int panels,
    const int x_first, const int x_vectors, const int h_first, const int h_vectors,
    real *z, ptrdiff_t z_stride, const real *init, ptrdiff_t init_stride,
    const operand *x, ptrdiff_t x_stride, const weight *w_x, const weight *next_x, ptrdiff_t I,
    const operand *h, ptrdiff_t h_stride, const weight *w_h, const weight *next_h, ptrdiff_t R)
{
    (void)panels, (void)next_x, (void)next_h;
    if (rows < LEAST_PAIR)
        tiles_of_gates(1, rows, 4, x_first, x_vectors, h_first, h_vectors, z, z_stride, init,
                       init_stride, x, x_stride, w_x, I, h, h_stride, w_h, R);
    else
        tiles_of_gates(2, rows, 4, x_first, x_vectors, h_first, h_vectors, z, z_stride, init,
                       init_stride, x, x_stride, w_x, I, h, h_stride, w_h, R);
}

ALWAYS_INLINE void tile(
    const ptrdiff_t rows, const int panels, const int vectors,
    real *z, ptrdiff_t z_stride, const real *init, ptrdiff_t init_stride,
    const operand *a, ptrdiff_t a_stride, ptrdiff_t a_step,
    const weight *w, ptrdiff_t w_stride, ptrdiff_t w_step, const weight *ahead, ptrdiff_t K)
{
    (void)panels, (void)a_step, (void)w_stride, (void)w_step, (void)ahead;
    if (rows < LEAST_PAIR)
        tiles_of_gates(1, rows, vectors, 0, vectors, 0, 0, z, z_stride, init, init_stride,
                       a, a_stride, w, K, a, a_stride, w, 0);
    else
        tiles_of_gates(2, rows, vectors, 0, vectors, 0, 0, z, z_stride, init, init_stride,
                       a, a_stride, w, K, a, a_stride, w, 0);
}

/* The operands of the columns of a (rows, M), whose rows are K: [M][OPERANDS(K)]. */
#define COLUMN_STRIDE(M, K) OPERANDS(K)
#define COLUMN_STEP(M, K) 1

static inline void round_columns(
    operand *to, const real *a, ptrdiff_t a_stride, ptrdiff_t M, ptrdiff_t rows)
{
    const ptrdiff_t stride = OPERANDS(rows);
    const __m512i places = _mm512_mullo_epi32(
        _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0), _mm512_set1_epi32((int)stride));
    for (ptrdiff_t k = 0; k < 2 * stride; k += 2, a += 2 * a_stride)
        for (ptrdiff_t m = 0; m < M; m += LANES) {
            const int n = M - m < LANES ? (int)(M - m) : LANES;
            const vec even = k < rows ? vec_load_n(a + m, n) : vec_splat(0);
            const vec odd = k + 1 < rows ? vec_load_n(a + a_stride + m, n) : vec_splat(0);
            _mm512_mask_i32scatter_epi32(
                to + m * stride + k / 2, (__mmask16)((1u << n) - 1), places,
                (__m512i)pair_of_rows(even, odd), 4);
        }
}
