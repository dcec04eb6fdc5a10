/* kl.c - forward KL on blocks of both heads' logits; the student's become their own gradient.
 *
 * With a = (z - max) / tau of each side and e = e^a:  KL = sum e_T (a_T - a_S) / sum e_T - log sum e_T + log sum e_S.
 * */
#include "head.h"
#include <math.h>

typedef struct {
    float sum_s, sum_t, cross;
} KlSums;

/* z_s, z_t become e_S, e_T */
static KlSums kl_exp(float *z_s, float *z_t, float max_s, float max_t, float rate, size_t n) {
    vf sum_s = vset(0), sum_t = vset(0), cross = vset(0);
    size_t v = 0;
    for (; v + VW <= n; v += VW) {
        const vf a_s = (vload(z_s + v) - vset(max_s)) * vset(rate), a_t = (vload(z_t + v) - vset(max_t)) * vset(rate);
        const vf e_s = vexp(a_s), e_t = vexp(a_t);
        vstore(z_s + v, e_s), vstore(z_t + v, e_t);
        sum_s = sum_s + e_s, sum_t = sum_t + e_t, cross = vfma(e_t, a_t - a_s, cross);
    }
    KlSums k = {vsum(sum_s), vsum(sum_t), vsum(cross)};
    for (; v < n; v++) {
        const float a_s = (z_s[v] - max_s) * rate, a_t = (z_t[v] - max_t) * rate;
        z_s[v] = expf(a_s), z_t[v] = expf(a_t);
        k.sum_s += z_s[v], k.sum_t += z_t[v], k.cross += z_t[v] * (a_t - a_s);
    }
    return k;
}

/* dz may be z_s */
static float kl_row(real *dz, float *z_s, float *z_t, float weight, float tau, int gradient, size_t VOC) {
    size_t block;
    const float max_s = row_max(z_s, VOC, &block), max_t = row_max(z_t, VOC, &block);
    const KlSums k = kl_exp(z_s, z_t, max_s, max_t, 1 / tau, VOC);
    const float f = weight * tau; // tau^2 from the loss, 1/tau from z / tau
    for (size_t v = 0; gradient && v < VOC; v += VW) {
        const vf p_t = vget(z_t + v, VOC - v) * vset(1 / k.sum_t), p_s = vget(z_s + v, VOC - v) * vset(1 / k.sum_s);
        vput(dz + v, vset(f) * (p_s - p_t), VOC - v);
    }
    return tau * tau * (k.cross / k.sum_t - logf(k.sum_t) + logf(k.sum_s));
}

typedef struct {
    float *loss, *z, *zt;
    const float *weight;
    float tau;
    int gradient;
    size_t VOC, ld;
} KlJob;

static void kl_task(const void *job, size_t n) {
    const KlJob *j = job;
    const float weight_n = j->weight ? j->weight[n] : 1;
    float *z_n = j->z + n * j->ld;
    if (weight_n != 0) j->loss[n] = kl_row((real *)z_n, z_n, j->zt + n * j->ld, weight_n, j->tau, j->gradient, j->VOC);
    else {
        j->loss[n] = 0;
        memset(z_n, 0, j->VOC * sizeof *z_n);
    }
}
static void head_kl(float *loss, real *dx, float *dw, const real *x, const real *w, const real *xt, const real *wt,
                    const float *weight, double tau, void *work, const HeadDims *d) {
    const size_t block = head_rows(d, 2), ld = head_stride(d);
    float *z = work, *zt = z + block * ld;
    for (size_t n = 0; n < (size_t)d->N; n += block) {
        const size_t rows = (size_t)d->N - n < block ? (size_t)d->N - n : block;
        const real *x_n = x + n * d->C;
        const KlJob j = {loss + n, z, zt, at(weight, n), (float)tau, dx || dw, d->VOC, ld};
        head_logits(z, x_n, w, rows, d->C, d);
        head_logits(zt, xt + n * d->Ct, wt, rows, d->Ct, d);
        pool_run_if(rows * d->VOC > ALONE / 2, rows, kl_task, &j);
        head_gradient(at(dx, n * d->C), dw, (const real *)z, x_n, w, rows, d);
    }
}
