/* kl.c - stage 2: forward KL from teacher to student with temperature, fused with both output heads, a block of rows at
 * a time. */
#include "ops/head.h"

/* Loss of one row; z_n (student logits) becomes weight times the gradient of the loss in it. */
static wide kl_row(real *z_n, const real *zt_n, wide weight_n, wide tau, int VOC) {
    const wide lse_s = head_lse(z_n, tau, VOC), lse_t = head_lse(zt_n, tau, VOC);
    wide s = 0;
    for (int v = 0; v < VOC; v++) {
        const wide log_pt = zt_n[v] / tau - lse_t, log_ps = z_n[v] / tau - lse_s, pt = exp(log_pt);
        s += pt * (log_pt - log_ps);
        z_n[v] = weight_n * tau * (exp(log_ps) - pt); // tau^2 from the loss, 1/tau from z / tau
    }
    return tau * tau * s;
}

static void head_kl(wide *loss, real *dx, wide *dw, const real *x, const real *w, const real *xt, const real *wt,
                    const wide *weight, double tau, void *work, const HeadDims *d) {
    real *z = work, *zt = z + (size_t)d->block * d->VOC; // (block,VOC) each
    for (int from = 0; from < d->N; from += d->block) {
        const int rows = head_rows(from, d);
        const real *x_from = x + (size_t)from * d->C;
        head_logits(z, x_from, w, rows, d->C, d->VOC);
        head_logits(zt, xt + (size_t)from * d->Ct, wt, rows, d->Ct, d->VOC);
        for (int i = 0; i < rows; i++) {
            const wide weight_n = weight ? weight[from + i] : 1;
            real *z_n = z + (size_t)i * d->VOC;
            if (weight_n == 0) {
                loss[from + i] = 0;
                for (int v = 0; v < d->VOC; v++) z_n[v] = 0;
            } else loss[from + i] = kl_row(z_n, zt + (size_t)i * d->VOC, weight_n, (wide)tau, d->VOC);
        }
        head_gradient(dx ? dx + (size_t)from * d->C : NULL, dw, z, x_from, w, rows, d->C, d->VOC);
    }
}
