/* kl.c - forward KL on blocks of both heads' logits; the student's become their own gradient.
 *
 * The value as in ref/ops/kl.c: with u = (z_S - max z_S - z_T + max z_T) / tau, D = log sum p_T e^u and d = u - D,
 * KL = sum p_T (e^d - 1 - d). Two passes over the logits; floats are added in blocks whose sums are added in double. */
#include "head.h"
#include <math.h>

enum { KL_BLOCK = 512 }; // a multiple of any vector

/* (e^x - 1 - x) / x^2 for |x| < 0.5, to 1e-9 */
INLINE vf kl_series(vf x) {
    vf p = vset(1.0f / 362880);
    p = vfma(p, x, vset(1.0f / 40320));
    p = vfma(p, x, vset(1.0f / 5040));
    p = vfma(p, x, vset(1.0f / 720));
    p = vfma(p, x, vset(1.0f / 120));
    p = vfma(p, x, vset(1.0f / 24));
    p = vfma(p, x, vset(1.0f / 6));
    return vfma(p, x, vset(0.5f));
}

/* A row: maxima, 1/tau, their difference in two parts, and what the first pass finds. The gradient divides by sums in
 * float, the value by those in double: fix_s and fix_t are the quotients. */
typedef struct {
    float max_s, max_t, rate, shift, shift_low;
    float sum_s, sum_t, D, fix_s, fix_t;
} KlRow;

INLINE vf kl_u(const KlRow *r, vf z_s, vf z_t) {
    return (((z_s - z_t) - vset(r->shift)) - vset(r->shift_low)) * vset(r->rate);
}
INLINE vf kl_more(vf e_s, vf e_t, vf u) {
    return vless(vabs(u), vset(0.5f), e_t * vfma(u * u, kl_series(u), u), e_s - e_t);
}
INLINE vf kl_term(vf p_s, vf p_t, vf d) {
    return vless(vabs(d), vset(0.5f), p_t * (d * d) * kl_series(d), (p_s - p_t) - p_t * d);
}

static void kl_sums(KlRow *r, const float *z_s, const float *z_t, size_t n) {
    vf sum_s = vset(0), sum_t = vset(0);
    double exact_s = 0, exact_t = 0, more = 0; // more: sum e_T (e^u - 1) = exact_s - exact_t
    size_t v = 0;
    while (v + VW <= n) {
        const size_t end = v + KL_BLOCK < n ? v + KL_BLOCK : n;
        vf block_s = vset(0), block_t = vset(0), block_more = vset(0);
        for (; v + VW <= end; v += VW) {
            const vf s = vload(z_s + v), t = vload(z_t + v);
            const vf e_s = vexp((s - vset(r->max_s)) * vset(r->rate)), e_t = vexp((t - vset(r->max_t)) * vset(r->rate));
            sum_s = sum_s + e_s, sum_t = sum_t + e_t;
            block_s = block_s + e_s, block_t = block_t + e_t;
            block_more = block_more + kl_more(e_s, e_t, kl_u(r, s, t));
        }
        exact_s += vsum(block_s), exact_t += vsum(block_t), more += vsum(block_more);
    }
    r->sum_s = vsum(sum_s), r->sum_t = vsum(sum_t);
    for (; v < n; v++) {
        const float e_s = expf((z_s[v] - r->max_s) * r->rate), e_t = expf((z_t[v] - r->max_t) * r->rate);
        r->sum_s += e_s, r->sum_t += e_t;
        exact_s += e_s, exact_t += e_t;
        more += (kl_more(vset(e_s), vset(e_t), kl_u(r, vset(z_s[v]), vset(z_t[v]))))[0];
    }
    more /= exact_t;
    r->D = (float)(fabs(more) < 0.5 ? log1p(more) : log(exact_s / exact_t));
    r->fix_s = (float)(r->sum_s / exact_s), r->fix_t = (float)(r->sum_t / exact_t);
}

/* KL of columns [v, end); their gradient goes to dz if there is one. */
static double kl_block(const KlRow *r, real *dz, const float *z_s, const float *z_t, size_t v, size_t end, float f) {
    const vf one_s = vset(1 / r->sum_s), one_t = vset(1 / r->sum_t);
    vf sum = vset(0);
    for (; v + VW <= end; v += VW) {
        const vf s = vload(z_s + v), t = vload(z_t + v);
        const vf p_t = vexp((t - vset(r->max_t)) * vset(r->rate)) * one_t;
        const vf p_s = vexp((s - vset(r->max_s)) * vset(r->rate)) * one_s;
        sum = sum + kl_term(p_s * vset(r->fix_s), p_t * vset(r->fix_t), kl_u(r, s, t) - vset(r->D));
        if (dz) vput(dz + v, vset(f) * (p_s - p_t), VW);
    }
    double total = vsum(sum);
    for (; v < end; v++) {
        const vf p_t = vset(expf((z_t[v] - r->max_t) * r->rate)) * one_t;
        const vf p_s = vset(expf((z_s[v] - r->max_s) * r->rate)) * one_s;
        const vf d = kl_u(r, vset(z_s[v]), vset(z_t[v])) - vset(r->D);
        total += kl_term(p_s * vset(r->fix_s), p_t * vset(r->fix_t), d)[0];
        if (dz) vput(dz + v, vset(f) * (p_s - p_t), 1);
    }
    return total;
}

/* dz may be z_s: what is read of a column is read before its gradient is written, at its place or before it. */
static float kl_row(real *dz, float *z_s, float *z_t, float weight, float tau, int gradient, size_t VOC) {
    size_t block;
    KlRow r = {.max_s = row_max(z_s, VOC, &block), .max_t = row_max(z_t, VOC, &block), .rate = 1 / tau};
    const double shift = (double)r.max_s - r.max_t;
    double kl = 0;
    r.shift = (float)shift;
    r.shift_low = (float)(shift - r.shift);
    kl_sums(&r, z_s, z_t, VOC);
    for (size_t v = 0; v < VOC; v += KL_BLOCK) // weight tau: tau^2 from the loss, 1/tau from z / tau
        kl += kl_block(&r, gradient ? dz : NULL, z_s, z_t, v, v + KL_BLOCK < VOC ? v + KL_BLOCK : VOC, weight * tau);
    return (float)((double)tau * tau * kl);
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
