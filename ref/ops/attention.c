/* attention.c - causal softmax attention, a query row at a time: nothing of the T x T matrix is kept.
 * The backward pass computes a probability again from the saved lse (Dao et al., arXiv 2205.14135). */
#include "ops/ref_math.h"

/* First key that the query at absolute position pos may look at. */
static int attention_first(const int *start, int b, int pos, const AttnDims *d) {
    const int first = start ? start[(size_t)b * (d->past + d->T) + pos] : 0, window = pos - d->window + 1;
    return d->window > 0 && window > first ? window : first;
}

static size_t attention_key(int b, int j, int hk, const AttnDims *d) { /* where k_bjh and v_bjh begin */
    const int stride = d->stride ? d->stride : d->past + d->T;
    return (((size_t)b * stride + j) * d->Hk + hk) * d->D;
}

/* acc: D numbers of scratch. Every score is computed twice, so that no row of probabilities needs a place:
 * a context may be long. */
static void attention_row(real *o_bth, wide *lse_bth, const real *q_bth, const real *k, const real *v, wide *acc,
                          double scale, int b, int first, int pos, int hk, const AttnDims *d) {
    wide max = -INFINITY, sum_p = 0;
    for (int j = first; j <= pos; j++) max = fmax(max, (wide)scale * dot(q_bth, k + attention_key(b, j, hk, d), d->D));
    for (int c = 0; c < d->D; c++) acc[c] = 0;
    for (int j = first; j <= pos; j++) {
        const size_t kv = attention_key(b, j, hk, d);
        const wide p = exp((wide)scale * dot(q_bth, k + kv, d->D) - max);
        sum_p += p;
        for (int c = 0; c < d->D; c++) acc[c] += p * v[kv + c];
    }
    for (int c = 0; c < d->D; c++) o_bth[c] = acc[c] / sum_p;
    *lse_bth = max + log(sum_p);
}

static void attention_forward(real *o, wide *lse, const real *q, const real *k, const real *v, const int *start,
                              double scale, void *work, const AttnDims *d) {
    for (int b = 0; b < d->B; b++)
        for (int t = 0; t < d->T; t++)
            for (int h = 0; h < d->H; h++) {
                const size_t bth = ((size_t)b * d->T + t) * d->H + h;
                const int pos = d->past + t;
                attention_row(o + bth * d->D, lse + bth, q + bth * d->D, k, v, work, scale, b,
                              attention_first(start, b, pos, d), pos, h / (d->H / d->Hk), d);
            }
}

static void attention_backward(real *dq, real *dk, real *dv, const real *dout, const real *o, const wide *lse,
                               const real *q, const real *k, const real *v, const int *start, double scale, void *work,
                               const AttnDims *d) {
    (void)work;
    for (int b = 0; b < d->B; b++)
        for (int t = 0; t < d->T; t++)
            for (int h = 0; h < d->H; h++) {
                const size_t bth = ((size_t)b * d->T + t) * d->H + h;
                const real *q_bth = q + bth * d->D, *do_bth = dout + bth * d->D;
                const wide delta = dot(do_bth, o + bth * d->D, d->D); // = sum_j p_j dp_j with dp_j = do . v_j
                for (int j = attention_first(start, b, t, d); j <= t; j++) {
                    const size_t kv = attention_key(b, j, h / (d->H / d->Hk), d);
                    const wide p = exp((wide)scale * dot(q_bth, k + kv, d->D) - lse[bth]);
                    // through the softmax: ds_j = p_j (dp_j - sum_i p_i dp_i)
                    const wide ds = p * (dot(do_bth, v + kv, d->D) - delta);
                    for (int c = 0; c < d->D; c++) {
                        dv[kv + c] += p * do_bth[c];                        // from o = sum_j p_j v_j
                        dq[bth * d->D + c] += (wide)scale * ds * k[kv + c]; // from s_j = scale q . k_j
                        dk[kv + c] += (wide)scale * ds * q_bth[c];
                    }
                }
            }
}
