/* What a tile multiplies: reals as they are. The other headers of this folder define the same names for
 * numbers of fewer bits, of which a lane of 32 bits holds a group of several consecutive k.
 *
 *   GROUP                 elements of K in a group
 *   weight                a group of one column, packed: [WEIGHT_ROWS(K)][vectors][LANES]
 *   operand               a group of one row, rounded and ready to be put into all lanes
 *   sums                  LANES sums
 *   PACKS_REALS           whether `weight` is a real, packed as it is
 *   WEIGHT_HEAD           rows of a packed panel before its groups, and OPERAND_HEAD of a rounded row
 *   WEIGHT_ROWS(K), OPERANDS(K)   rows of a panel, operands of a row, heads and padding counted; 0 for 0
 *   ENDS_IN_FLOAT         whether a product ends in  z = init + sums,  and does not begin with init
 *   dot(acc, a, w)        acc + a * w
 *   rounded(...)          the operands of rows, none where K is 0; where nothing is rounded, the rows themselves
 */
#ifndef FASTLSTM_ARITHMETIC_H
#define FASTLSTM_ARITHMETIC_H

#include <stddef.h>

typedef real weight;
typedef real operand;
typedef vec sums, weights_of_lanes, operand_of_lanes;

#define GROUP 1
#define PACKS_REALS 1
#define WEIGHT_HEAD 0
#define OPERAND_HEAD 0
#define WEIGHT_ROWS(K) (K)
#define OPERANDS(K) (K)
#define ENDS_IN_FLOAT 0

static inline weights_of_lanes load_weights(const weight *w) { return vec_load(w); }
static inline operand_of_lanes splat_operand(const operand *a) { return vec_splat(*a); }
static inline sums dot(sums acc, operand_of_lanes a, weights_of_lanes w) { return vec_fma(a, w, acc); }

static inline void begin_tiles(ptrdiff_t rows) { (void)rows; }
static void end_task(void) {}
static inline size_t rounded_bytes(ptrdiff_t rows, ptrdiff_t K) { (void)rows, (void)K; return 0; }

/* Nothing is packed otherwise than as reals. */
#define SCANS 0
static inline void scan_rows(weight *panel, const real *from, ptrdiff_t width, ptrdiff_t rows)
{
    (void)panel, (void)from, (void)width, (void)rows;
}
static inline void pack_rows(
    weight *panel, const real *from, ptrdiff_t from_stride, ptrdiff_t width,
    ptrdiff_t K, ptrdiff_t begin, ptrdiff_t rows)
{
    (void)panel, (void)from, (void)from_stride, (void)width, (void)K, (void)begin, (void)rows;
}
static inline void end_panel(weight *panel, ptrdiff_t width) { (void)panel, (void)width; }

static inline const operand *rounded(
    void *scratch, const real *a, ptrdiff_t *a_stride, ptrdiff_t rows, ptrdiff_t K, real least)
{
    (void)scratch, (void)a_stride, (void)rows, (void)K, (void)least;
    return a;
}

/* Weights are multiplied as they are packed. */
static void (*const as_multiplied)(real *, const real *, ptrdiff_t, ptrdiff_t) = NULL;

#endif
