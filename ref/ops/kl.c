/* kl.c - stage 2: forward KL from teacher to student with temperature, fused with both output heads, a block of rows at
 * a time. */
#include "ops/head.h"

/* e^d - 1 - d for |d| <= 1, by its series: no cancellation. */
static double kl_phi(double d) {
    double term = d * d / 2, sum = 0;
    for (int k = 3; k < 24; k++) {
        sum += term;
        term *= d / k;
    }
    return sum;
}

/* tau^2 KL of one row, in double whatever the precision. With u_v = ((z_v - max z) - (zt_v - max zt)) / tau:
 *   D = log sum_v pT e^u, d_v = u_v - D = log pS - log pT, and as sum pS = sum pT = 1:  KL = sum_v pT (e^d - 1 - d).
 * Every term is positive, where pT (log pT - log pS) has two signs and what is left of them may be 1e-12 of one. An
 * error of D counts by its square, for KL is least at the true D. */
static double kl_value(const real *z_n, const real *zt_n, double tau, int VOC) {
    double max_s = z_n[0], max_t = zt_n[0], sum_s = 0, sum_t = 0, more = 0, sum = 0;
    for (int v = 1; v < VOC; v++) {
        max_s = fmax(max_s, (double)z_n[v]);
        max_t = fmax(max_t, (double)zt_n[v]);
    }
    for (int v = 0; v < VOC; v++) {
        const double e_s = exp((z_n[v] - max_s) / tau), e_t = exp((zt_n[v] - max_t) / tau);
        const double u = (((double)z_n[v] - zt_n[v]) - (max_s - max_t)) / tau;
        sum_s += e_s;
        sum_t += e_t;
        more += fabs(u) < 1 ? e_t * expm1(u) : e_s - e_t;
    }
    const double D = fabs(more) < sum_t / 2 ? log1p(more / sum_t) : log(sum_s / sum_t);
    for (int v = 0; v < VOC; v++) {
        const double pt = exp((zt_n[v] - max_t) / tau) / sum_t, ps = exp((z_n[v] - max_s) / tau) / sum_s;
        const double d = (((double)z_n[v] - zt_n[v]) - (max_s - max_t)) / tau - D;
        sum += fabs(d) > 1 ? ps - pt - pt * d : pt * kl_phi(d); // not pt e^d: pt may be 0 where ps is not
    }
    return tau * tau * sum;
}

/* Loss of one row; z_n (student logits) becomes weight times the gradient of the loss in it. */
static wide kl_row(real *z_n, const real *zt_n, wide weight_n, wide tau, int VOC) {
    const wide lse_s = head_lse(z_n, tau, VOC), lse_t = head_lse(zt_n, tau, VOC);
    const wide loss = (wide)kl_value(z_n, zt_n, tau, VOC);
    for (int v = 0; v < VOC; v++) {
        const wide pt = exp(zt_n[v] / tau - lse_t), ps = exp(z_n[v] / tau - lse_s);
        z_n[v] = weight_n * tau * (ps - pt); // tau^2 from the loss, 1/tau from z / tau
    }
    return loss;
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
