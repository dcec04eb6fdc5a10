/* taylor.c - Taylor-Calibrate's closed form for gdn_v4 as published (arXiv 2606.16429 and its code), to be compared
 * with fit.c. What the pass reads: the same text, windows and order; they read the first 1,024 tokens of the text that
 * is evaluated later.
 *
 *   read all batches
 *     d_h = mean of sum_s p_ts |t - s|, the token itself counted as 1/2, at least 1/2;   e_h = mean entropy
 *   decay    A_log = 0, dt_bias_h = softplus^-1(gamma_h),  gamma_h = ln 2 / d_h, from .001 to 5
 *            a_proj stays random, with standard deviation .02
 *   write    row h of b_proj, random, scaled until its mean size is logit(b_h)/sqrt(C);  b_h from .3 to .7 by entropy
 *   read them again: y_T the attention's context, y_S the delta rule's output before its norm, without 1/sqrt(D)
 *   value    s_h = <y_T, y_S> / <y_S, y_S>, from .1 to 10;  rows of v_proj of head h times s_h
 *   and again
 *   gate     g_proj = alpha v_proj,  alpha = .01 mean rms(y_T) / mean rms(SiLU(v_proj x)) over rows and heads
 *
 * Kept on purpose: the value scale is cancelled by the norm that follows and reaches the output only through alpha; the
 * decay wobbles from token to token around its aim; without a bias and with random signs the write gate is near .5 on
 * average whatever b_h; the first token's weight counts as distance. Ours: their random rows are normal, these are the
 * uniform ones that were drawn, scaled. Their 300 steps of refinement are stage 1's first steps here. */
#include "base/mem.h"
#include "method/fit_parts.h"
#include <string.h>

/* Sums of one layer, in its `cross`: TAYLOR_SUMS for every head. */
enum { ROWS, LAG, ENTROPY, TS, SS, RMS_T, RMS_V };

static int see_lags(Work *w, int l, const int *start) {
    const Attend *at = &w->attend;
    for (int n = 0; n < w->N; n++)
        for (int h = 0; h < w->H; h++) {
            const size_t i = (size_t)n * w->H + h;
            const int t = n % at->T, age = t - (start ? start[n] : 0);
            double *seen = w->sum[l].cross + h * TAYLOR_SUMS, first = at->first[i];
            // the first token's weight counts here, which attend.h leaves out
            const double lag = age < 1 ? 0 : isnan(at->lag[i]) ? age * first : at->lag[i] * (1 - first) + age * first;
            seen[ROWS]++;
            seen[LAG] += lag + 0.5 * at->self[i];
            seen[ENTROPY] += at->entropy[i];
        }
    return OK;
}

static double clamp(double v, double low, double high) { return fmin(fmax(v, low), high); }

static int put_rows(Work *w, int l) {
    const double *seen = w->sum[l].cross;
    const int C = w->C, H = w->H;
    double low = INFINITY, high = -INFINITY;
    FitLayer *f = &w->f->layer[l];
    TRY(fit_fill(w, l, "attn.A_log", (size_t)H, 0));
    for (int h = 0; h < H; h++) {
        const double *s = seen + h * TAYLOR_SUMS, d = fmax(s[LAG] / s[ROWS], 0.5);
        w->buf[h] = softplus_inverse(clamp(log(2) / d, 1e-3, 5));
        low = fmin(low, s[ENTROPY] / s[ROWS]), high = fmax(high, s[ENTROPY] / s[ROWS]);
        f->distance += d / H;
        f->entropy += s[ENTROPY] / s[ROWS] / H;
    }
    TRY(fit_put(w, l, "attn.dt_bias", w->buf));
    TRY(fit_get(w, w->s, l, "attn.a_proj.weight", w->buf));
    for (int i = 0; i < H * C; i++) w->buf[i] *= 0.02 * sqrt(3.0 * C); // drawn from U(+-1/sqrt(C))
    TRY(fit_put(w, l, "attn.a_proj.weight", w->buf));
    TRY(fit_get(w, w->s, l, "attn.b_proj.weight", w->buf));
    for (int h = 0; h < H; h++) {
        const double c = 1 - (seen[h * TAYLOR_SUMS + ENTROPY] / seen[h * TAYLOR_SUMS + ROWS] - low) /
                                 fmax(high - low, 1e-3),
                     b = 0.3 + 0.4 * c;
        double *row = w->buf + (size_t)h * C, size = 0;
        for (int i = 0; i < C; i++) size += fabs(row[i]) / C;
        for (int i = 0; i < C; i++) row[i] *= log(b / (1 - b)) / sqrt(C) / size;
    }
    return fit_put(w, l, "attn.b_proj.weight", w->buf);
}

/* Context of the teacher's heads into host (N,Q), and another tensor of that shape into buf. */
static int both(Work *w, int l, double *host, const Real *other) {
    const size_t n = (size_t)w->N * w->Q;
    TRY(real_get(w->be, DT_F64, host, w->a->tp.layer[l].mix.o, n, w->e));
    return real_get(w->be, DT_F64, w->buf, other, n, w->e);
}

static int see_values(Work *w, int l, const int *start) {
    double *context = w->attend.q; // (N,H,D), free by now
    (void)start;
    TRY(both(w, l, context, fit_mixer(w, l)->o));
    for (size_t i = 0; i < (size_t)w->N * w->Q; i++) {
        double *seen = w->sum[l].cross + i % (size_t)w->Q / (size_t)w->D * TAYLOR_SUMS, s = w->buf[i] * sqrt(w->D);
        seen[TS] += context[i] * s;
        seen[SS] += s * s;
    }
    return OK;
}

static int put_values(Work *w, int l) {
    TRY(fit_get(w, w->s, l, "attn.v_proj.weight", w->buf));
    for (size_t i = 0; i < (size_t)w->Q * w->C; i++) {
        const double *seen = w->sum[l].cross + i / (size_t)w->C / (size_t)w->D * TAYLOR_SUMS;
        w->buf[i] *= seen[SS] > 0 ? clamp(seen[TS] / seen[SS], 0.1, 10) : 1;
    }
    return fit_put(w, l, "attn.v_proj.weight", w->buf);
}

static int see_sizes(Work *w, int l, const int *start) {
    double *context = w->attend.q;
    (void)start;
    TRY(both(w, l, context, fit_mixer(w, l)->vs));
    for (size_t i = 0; i < (size_t)w->N * w->H; i++) {
        double t = 0, v = 0, *seen = w->sum[l].cross;
        for (size_t c = i * w->D; c < (i + 1) * w->D; c++) t += context[c] * context[c], v += w->buf[c] * w->buf[c];
        seen[RMS_T] += sqrt(t / w->D);
        seen[RMS_V] += sqrt(v / w->D);
    }
    return OK;
}

static int put_gate(Work *w, int l) {
    const double *seen = w->sum[l].cross, alpha = seen[RMS_V] > 0 ? 0.01 * seen[RMS_T] / seen[RMS_V] : 0;
    TRY(fit_get(w, w->s, l, "attn.v_proj.weight", w->buf));
    for (size_t i = 0; i < (size_t)w->Q * w->C; i++) w->buf[i] *= alpha;
    return fit_put(w, l, "attn.g_proj.weight", w->buf);
}

static int each_layer(Work *w, int (*put)(Work *w, int l)) {
    for (int l = 0; l < w->t->c.L; l++)
        if (w->s->c.mixer[l]) TRY(put(w, l));
    return OK;
}

int taylor_all(Work *w, int64_t batches) {
    TRY(fit_read(w, 0, batches, see_lags, 1));
    TRY(each_layer(w, put_rows));
    TRY(fit_read(w, 0, batches, see_values, 0));
    TRY(each_layer(w, put_values));
    TRY(fit_read(w, 0, batches, see_sizes, 0));
    w->f->tokens /= 3; // the same ones three times
    return each_layer(w, put_gate);
}
