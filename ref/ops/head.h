/* head.h - what the two losses on the output head share: logits of a block of rows, and the way back from their
 * gradient. */
#ifndef HYB_REF_HEAD_H
#define HYB_REF_HEAD_H
#include "ops/ref_math.h"

static inline int head_rows(int from, const HeadDims *d) { return d->N - from < d->block ? d->N - from : d->block; }

/* z (rows,VOC) = x W^T, x (rows,C), w (VOC,C) */
static void head_logits(real *z, const real *x, const real *w, int rows, int C, int VOC) {
    for (int n = 0; n < rows; n++)
        for (int v = 0; v < VOC; v++) z[(size_t)n * VOC + v] = dot(x + (size_t)n * C, w + (size_t)v * C, C);
}

/* From z = x W^T: dx_n += W^T dz_n, dw += sum_n dz_n x_n^T. Either may be NULL. */
static void head_gradient(real *dx, wide *dw, const real *dz, const real *x, const real *w, int rows, int C, int VOC) {
    for (int n = 0; n < rows; n++) {
        const real *x_n = x + (size_t)n * C;
        for (int v = 0; v < VOC; v++) {
            const wide dz_nv = dz[(size_t)n * VOC + v];
            const real *w_v = w + (size_t)v * C;
            if (dz_nv == 0) continue; // a row of weight 0 is skipped, whatever it holds
            if (dx)
                for (int c = 0; c < C; c++) dx[(size_t)n * C + c] += dz_nv * w_v[c];
            if (dw)
                for (int c = 0; c < C; c++) dw[(size_t)v * C + c] += dz_nv * x_n[c];
        }
    }
}

/* log sum_v exp(z_v / tau) */
static wide head_lse(const real *z_n, wide tau, int VOC) {
    wide max = z_n[0], sum_p = 0;
    for (int v = 1; v < VOC; v++) max = fmax(max, (wide)z_n[v]);
    for (int v = 0; v < VOC; v++) sum_p += exp((z_n[v] - max) / tau);
    return max / tau + log(sum_p);
}
#endif
