/* tile.h - the inner kernel of every matrix product here: C (m,n) = or += A (m,k) B (k,n) for one block, on one thread.
 *
 * A tile of C, MR rows by two vectors, is held in registers while k runs; a step loads two vectors of B and broadcasts
 * MR elements of
 * A. The accumulators are 24 names, not an array: gcc spills arrays of vectors. Every element of C is one chain of FMAs
 * over k from 0 in order, then one store or addition: how C is cut into tiles, and by whom, changes no bit of the
 * result.
 *
 * A is read in place, either by rows (a[i*lda + k], ROWS) or by columns (a[k*lda + i], COLS).
 * Row k of B is at b + k*ldb. */
#ifndef HYB_CPU_TILE_H
#define HYB_CPU_TILE_H
#include "dot.h"

enum { ROWS, COLS };

/* sum + s b; of pairs (dot.h), two products. */
#if DOT == DOT_PAIRS
INLINE vf muladd(int pairs, vf s, vf b, vf sum) { return pairs ? vdot(sum, s, b) : vfma(s, b, sum); }
#else
INLINE vf muladd(int pairs, vf s, vf b, vf sum) { return (void)pairs, vfma(s, b, sum); }
#endif

/* one row of the tile's epilogue; tail > 0: only so many lanes exist */
INLINE void tile_row(float *c, vf x0, vf x1, int nv, size_t tail, int add) {
    if (tail) {
        vstore_n(c, add ? vload_n(c, tail) + x0 : x0, tail);
        return;
    }
    vstore(c, add ? vload(c) + x0 : x0);
    if (nv == 2) vstore(c + VW, add ? vload(c + VW) + x1 : x1);
}

/* mr rows x nv vectors (or one of `tail` lanes); mr, nv, by and whether there is a tail are constants:
 * the compiler removes the rest */
INLINE void tile(int mr, int nv, int by, int pairs, float *c, size_t ldc, const float *a, size_t lda, const float *b,
                 size_t ldb, size_t k, size_t tail, int add) {
    vf x00 = vset(0), x01 = x00, x10 = x00, x11 = x00, x20 = x00, x21 = x00, x30 = x00, x31 = x00, x40 = x00, x41 = x00,
       x50 = x00, x51 = x00, x60 = x00, x61 = x00, x70 = x00, x71 = x00, x80 = x00, x81 = x00, x90 = x00, x91 = x00,
       xa0 = x00, xa1 = x00, xb0 = x00, xb1 = x00;
    const size_t row = by == ROWS ? lda : 1, step = by == ROWS ? 1 : lda;
    const float *a0 = a, *a3 = mr > 3 ? a + 3 * row : a, *a6 = mr > 6 ? a + 6 * row : a, *a9 = mr > 9 ? a + 9 * row : a;
    for (size_t p = 0; p < k; p++) {
        const vf b0 = tail ? vload_n(b, tail) : vload(b), b1 = nv == 2 ? vload(b + VW) : b0;
        vf s;
        if (mr > 0) s = vset(a0[0]), x00 = muladd(pairs, s, b0, x00), x01 = nv == 2 ? muladd(pairs, s, b1, x01) : x01;
        if (mr > 1) s = vset(a0[row]), x10 = muladd(pairs, s, b0, x10), x11 = nv == 2 ? muladd(pairs, s, b1, x11) : x11;
        if (mr > 2)
            s = vset(a0[2 * row]), x20 = muladd(pairs, s, b0, x20), x21 = nv == 2 ? muladd(pairs, s, b1, x21) : x21;
        if (mr > 3) s = vset(a3[0]), x30 = muladd(pairs, s, b0, x30), x31 = nv == 2 ? muladd(pairs, s, b1, x31) : x31;
        if (mr > 4) s = vset(a3[row]), x40 = muladd(pairs, s, b0, x40), x41 = nv == 2 ? muladd(pairs, s, b1, x41) : x41;
        if (mr > 5)
            s = vset(a3[2 * row]), x50 = muladd(pairs, s, b0, x50), x51 = nv == 2 ? muladd(pairs, s, b1, x51) : x51;
        if (mr > 6) s = vset(a6[0]), x60 = muladd(pairs, s, b0, x60), x61 = nv == 2 ? muladd(pairs, s, b1, x61) : x61;
        if (mr > 7) s = vset(a6[row]), x70 = muladd(pairs, s, b0, x70), x71 = nv == 2 ? muladd(pairs, s, b1, x71) : x71;
        if (mr > 8)
            s = vset(a6[2 * row]), x80 = muladd(pairs, s, b0, x80), x81 = nv == 2 ? muladd(pairs, s, b1, x81) : x81;
        if (mr > 9) s = vset(a9[0]), x90 = muladd(pairs, s, b0, x90), x91 = nv == 2 ? muladd(pairs, s, b1, x91) : x91;
        if (mr > 10)
            s = vset(a9[row]), xa0 = muladd(pairs, s, b0, xa0), xa1 = nv == 2 ? muladd(pairs, s, b1, xa1) : xa1;
        if (mr > 11)
            s = vset(a9[2 * row]), xb0 = muladd(pairs, s, b0, xb0), xb1 = nv == 2 ? muladd(pairs, s, b1, xb1) : xb1;
        a0 += step, a3 += step, a6 += step, a9 += step, b += ldb;
    }
    if (mr > 0) tile_row(c, x00, x01, nv, tail, add);
    if (mr > 1) tile_row(c + ldc, x10, x11, nv, tail, add);
    if (mr > 2) tile_row(c + 2 * ldc, x20, x21, nv, tail, add);
    if (mr > 3) tile_row(c + 3 * ldc, x30, x31, nv, tail, add);
    if (mr > 4) tile_row(c + 4 * ldc, x40, x41, nv, tail, add);
    if (mr > 5) tile_row(c + 5 * ldc, x50, x51, nv, tail, add);
    if (mr > 6) tile_row(c + 6 * ldc, x60, x61, nv, tail, add);
    if (mr > 7) tile_row(c + 7 * ldc, x70, x71, nv, tail, add);
    if (mr > 8) tile_row(c + 8 * ldc, x80, x81, nv, tail, add);
    if (mr > 9) tile_row(c + 9 * ldc, x90, x91, nv, tail, add);
    if (mr > 10) tile_row(c + 10 * ldc, xa0, xa1, nv, tail, add);
    if (mr > 11) tile_row(c + 11 * ldc, xb0, xb1, nv, tail, add);
}

/* The instances: 1..MR rows of each kind, behind one switch. */
#define TILE_CASE(m)                                                                                                   \
    case m:                                                                                                            \
        if (m <= MR) tile(m <= MR ? m : 1, nv, by, pairs, c, ldc, a, lda, b, ldb, k, tail, add);                       \
        break
INLINE void tile_switch(int mr, int nv, int by, int pairs, float *c, size_t ldc, const float *a, size_t lda,
                        const float *b, size_t ldb, size_t k, size_t tail, int add) {
    switch (mr) {
        TILE_CASE(1);
        TILE_CASE(2);
        TILE_CASE(3);
        TILE_CASE(4);
        TILE_CASE(5);
        TILE_CASE(6);
        TILE_CASE(7);
        TILE_CASE(8);
        TILE_CASE(9);
        TILE_CASE(10);
        TILE_CASE(11);
        TILE_CASE(12);
    }
}
#undef TILE_CASE
typedef void Tile(int mr, float *c, size_t ldc, const float *a, size_t lda, const float *b, size_t ldb, size_t k,
                  size_t tail, int add);
#define TILE_KIND(name, nv, by, pairs, tail)                                                                           \
    static void name(int mr, float *c, size_t ldc, const float *a, size_t lda, const float *b, size_t ldb, size_t k,   \
                     size_t n, int add) {                                                                              \
        (void)n;                                                                                                       \
        tile_switch(mr, nv, by, pairs, c, ldc, a, lda, b, ldb, k, tail, add);                                          \
    }
TILE_KIND(tile_rows2, 2, ROWS, 0, 0)
TILE_KIND(tile_rows1, 1, ROWS, 0, 0)
TILE_KIND(tile_rows_tail, 1, ROWS, 0, n)
TILE_KIND(tile_cols2, 2, COLS, 0, 0)
TILE_KIND(tile_cols1, 1, COLS, 0, 0)
TILE_KIND(tile_cols_tail, 1, COLS, 0, n)
#if DOT == DOT_PAIRS
TILE_KIND(tile_pairs, 2, ROWS, 1, 0)
#endif
#undef TILE_KIND

/* C (m,n) = or += A B over one panel of B; rows in tiles of nearly equal height. */
static void panel_rows(Tile *f, float *c, size_t ldc, const float *a, size_t lda, int by, const float *b, size_t ldb,
                       size_t m, size_t k, size_t tail, int add) {
    const size_t tiles = (m + MR - 1) / MR, base = m / tiles, more = m % tiles, row = by == ROWS ? lda : 1;
    for (size_t t = 0; t < tiles; t++) {
        const size_t mr = base + (t < more);
        f((int)mr, c, ldc, a, lda, b, ldb, k, tail, add);
        c += mr * ldc, a += mr * row;
    }
}
/* n <= 2 VW columns */
static void panel_mul(float *c, size_t ldc, const float *a, size_t lda, int by, const float *b, size_t ldb, size_t m,
                      size_t n, size_t k, int add) {
    if (n == 2 * VW) {
        panel_rows(by == ROWS ? tile_rows2 : tile_cols2, c, ldc, a, lda, by, b, ldb, m, k, 0, add);
        return;
    }
    if (n >= VW) {
        panel_rows(by == ROWS ? tile_rows1 : tile_cols1, c, ldc, a, lda, by, b, ldb, m, k, 0, add);
        c += VW, b += VW, n -= VW;
    }
    if (n) panel_rows(by == ROWS ? tile_rows_tail : tile_cols_tail, c, ldc, a, lda, by, b, ldb, m, k, n, add);
}

/* C (m,n) = or += A (m,k) B (k,n), all in place: for operands that fit the caches. */
SHARED void block_mul(float *c, size_t ldc, const float *a, size_t lda, int by, const float *b, size_t ldb, size_t m,
                      size_t n, size_t k, int add) {
    for (size_t j = 0; m && j < n; j += 2 * VW)
        panel_mul(c + j, ldc, a, lda, by, b + j, ldb, m, n - j < 2 * VW ? n - j : 2 * VW, k, add);
}

/* y (cols,rows) = x (rows,cols) transposed, in 4 x 4 blocks. */
INLINE void transpose4(float *y, size_t ldy, const float *x, size_t ldx) {
    const V4 a = *(const V4 *)x, b = *(const V4 *)(x + ldx), c = *(const V4 *)(x + 2 * ldx),
             d = *(const V4 *)(x + 3 * ldx);
    const V4 ab = __builtin_shufflevector(a, b, 0, 4, 1, 5), AB = __builtin_shufflevector(a, b, 2, 6, 3, 7);
    const V4 cd = __builtin_shufflevector(c, d, 0, 4, 1, 5), CD = __builtin_shufflevector(c, d, 2, 6, 3, 7);
    *(V4 *)y = __builtin_shufflevector(ab, cd, 0, 1, 4, 5);
    *(V4 *)(y + ldy) = __builtin_shufflevector(ab, cd, 2, 3, 6, 7);
    *(V4 *)(y + 2 * ldy) = __builtin_shufflevector(AB, CD, 0, 1, 4, 5);
    *(V4 *)(y + 3 * ldy) = __builtin_shufflevector(AB, CD, 2, 3, 6, 7);
}
// a block whose lines, read and written, fit the first cache however they are aligned
enum { TILE_ROWS = 32, TILE_COLS = 16 };
static void transpose_block(float *y, size_t ldy, const float *x, size_t ldx, size_t rows, size_t cols) {
    const size_t r4 = rows & ~(size_t)3, c4 = cols & ~(size_t)3;
    for (size_t i = 0; i < r4; i += 4)
        for (size_t j = 0; j < c4; j += 4) transpose4(y + j * ldy + i, ldy, x + i * ldx + j, ldx);
    for (size_t i = 0; i < rows; i++)
        for (size_t j = i < r4 ? c4 : 0; j < cols; j++) y[j * ldy + i] = x[i * ldx + j];
}
static void transpose(float *y, size_t ldy, const float *x, size_t ldx, size_t rows, size_t cols) {
    for (size_t i = 0; i < rows; i += TILE_ROWS)
        for (size_t j = 0; j < cols; j += TILE_COLS)
            transpose_block(y + j * ldy + i, ldy, x + i * ldx + j, ldx, rows - i < TILE_ROWS ? rows - i : TILE_ROWS,
                            cols - j < TILE_COLS ? cols - j : TILE_COLS);
}
#endif
