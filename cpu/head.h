/* head.h - what the two losses on the output head share: logits of a block of rows and the way back, by gemm.c.
 *
 * The workspace is sized for doubles, so a block here is up to four times the caller's d->block rows.
 * Rows of logits are padded: a power of two would put the same column of all rows on the same cache sets. */
#ifndef HYB_CPU_HEAD_H
#define HYB_CPU_HEAD_H
#include "gemm.h"
#include "ops/ops.h"
#include "parallel.h"

enum { HEAD_ROWS = 512 };

INLINE size_t head_stride(const HeadDims *d) { return (((size_t)d->VOC + 15) & ~(size_t)15) + 16; }
/* Rows for `arrays` arrays of logits; at least d->block of them fit by head_work's formula. */
static size_t head_rows(const HeadDims *d, size_t arrays) {
    const size_t fit = head_work(d) / sizeof(float) / (arrays * head_stride(d));
    return fit < HEAD_ROWS ? fit : HEAD_ROWS;
}

/* z (rows, stride) = x W^T */
static void head_logits(float *z, const real *x, const real *w, size_t rows, size_t C, const HeadDims *d) {
    const Gemm g = {.sums = z,
                    .ldc = head_stride(d),
                    .a = x,
                    .lda = C,
                    .by = ROWS,
                    .b = w,
                    .ldb = C,
                    .trans = 1,
                    .weights = 1,
                    .M = rows,
                    .N = d->VOC,
                    .K = C};
    gemm(&g);
}
/* dx += dz W, dw += dz^T x. dz takes the place of z: where it is narrower, each row stands at the beginning of its
 * logits. */
static void head_gradient(real *dx, float *dw, const real *dz, const real *x, const real *w, size_t rows,
                          const HeadDims *d) {
    const size_t ld = head_stride(d) * (sizeof(float) / sizeof(real));
    product_gradients(dx, dw, dz, ld, x, w, rows, d->C, d->VOC);
}
#endif
