/* The tile of bfloat16 on AMX: 16 rows of one panel in four tile registers, 32 of K at a time.
 *
 * Included by bfloat16.h, whose packed weights have the layout of tile registers. The registers are
 * set up by each call of a product: that and their release take 49 ns (Xeon), and nobody else's setting is
 * relied on or left changed, whoever runs on this thread in between.
 */
#define AMX_TILE
#undef TILE_ROWS
#define TILE_ROWS 16

typedef struct {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} tile_configuration;

/* Tiles of so many rows: registers 0 to 3 are sums, 4 is operands, 5 to 7 weights. */
static inline void set_tile_rows(int rows)
{
    tile_configuration to __attribute__((aligned(64))) = {.palette = 1};
    for (int i = 0; i < 8; i++) {
        to.row_bytes[i] = 64;
        to.rows[i] = i < 5 ? (uint8_t)rows : 16;
    }
    _tile_loadconfig(&to);
}

static inline void end_tiles(void) { _tile_release(); }

/* z := init + a @ w for some vectors of one panel; `rows` is at most what begin_tiles had, and one less at
 * least: sums of a row too many are left out. */
static inline void tile_part(
    const int rows, const int panels, const int first, const int vectors,
    real *z, ptrdiff_t z_stride, const real *init, ptrdiff_t init_stride,
    const operand *a, ptrdiff_t a_stride, ptrdiff_t a_step,
    const weight *w, ptrdiff_t w_stride, ptrdiff_t w_step, const weight *ahead, ptrdiff_t K)
{
    real part[TILE_ROWS][4 * LANES] __attribute__((aligned(64)));
    const int w_bytes = (int)(w_step * sizeof(weight));
    (void)panels, (void)a_step, (void)w_stride, (void)ahead;
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (ptrdiff_t k = 0; k < OPERANDS(K); k += 16, w += 16 * w_step) {
        _tile_loadd(4, a + k, a_stride * sizeof(operand));
        _tile_loadd(5, w, w_bytes);
        _tile_dpbf16ps(0, 4, 5);
        if (vectors > 1) {
            _tile_loadd(6, w + LANES, w_bytes);
            _tile_dpbf16ps(1, 4, 6);
        }
        if (vectors > 2) {
            _tile_loadd(7, w + 2 * LANES, w_bytes);
            _tile_dpbf16ps(2, 4, 7);
        }
        if (vectors > 3) {
            _tile_loadd(5, w + 3 * LANES, w_bytes);
            _tile_dpbf16ps(3, 4, 5);
        }
    }
    _tile_stored(0, &part[0][0], sizeof part[0]);
    if (vectors > 1)
        _tile_stored(1, &part[0][LANES], sizeof part[0]);
    if (vectors > 2)
        _tile_stored(2, &part[0][2 * LANES], sizeof part[0]);
    if (vectors > 3)
        _tile_stored(3, &part[0][3 * LANES], sizeof part[0]);
    z += first * LANES;
    init += first * LANES;
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < vectors; v++)
            vec_store(z + r * z_stride + v * LANES,
                      vec_load(init + r * init_stride + v * LANES) + vec_load(&part[r][v * LANES]));
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
