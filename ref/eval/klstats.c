/* klstats.c - see klstats.h. */
#include "eval/klstats.h"
#include "base/mem.h"
#include "method/loss.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- statistics ---- */

static int increasing(const void *a, const void *b) {
    const float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

/* Linear interpolation between the two neighbours of sorted x. */
static double quantile(const float *x, size_t n, double q) {
    const double at = q * (double)(n - 1);
    const size_t i = (size_t)at;
    return i + 1 < n ? x[i] + (at - (double)i) * (x[i + 1] - x[i]) : x[n - 1];
}

static double se_of(double sum, double squares, double n) {
    const double mean = sum / n;
    return n > 1 ? sqrt(fmax(squares / n - mean * mean, 0) / (n - 1)) : NAN;
}

void klstats_of(KlStats *s, float *kl, const float *nll, const float *nll_base, const unsigned char *same, size_t n) {
    double sum = 0, squares = 0, delta = 0, delta2 = 0, right = 0, a = 0, b = 0, aa = 0, bb = 0, ab = 0, dp = 0,
           dp2 = 0;
    memset(s, 0, sizeof *s);
    s->positions = (int64_t)n;
    if (!n) return;
    for (size_t i = 0; i < n; i++) {
        const double d = (double)nll[i] - nll_base[i];
        sum += kl[i];
        squares += (double)kl[i] * kl[i];
        delta += d;
        delta2 += d * d;
        a += nll[i];
        b += nll_base[i];
        right += same[i];
        aa += (double)nll[i] * nll[i];
        bb += (double)nll_base[i] * nll_base[i];
        ab += (double)nll[i] * nll_base[i];
        const double p = exp(-(double)nll[i]) - exp(-(double)nll_base[i]);
        dp += p;
        dp2 += p * p;
    }
    qsort(kl, n, sizeof *kl, increasing);
    const double N = (double)n;
    s->mean = sum / N;
    s->se = se_of(sum, squares, N);
    s->min = kl[0];
    s->median = quantile(kl, n, .5);
    s->q10 = quantile(kl, n, .1);
    s->q90 = quantile(kl, n, .9);
    s->q999 = quantile(kl, n, .999);
    s->q01 = quantile(kl, n, .01);
    s->q05 = quantile(kl, n, .05);
    s->q95 = quantile(kl, n, .95);
    s->q99 = quantile(kl, n, .99);
    s->max = kl[n - 1];
    s->same_top = right / N;
    s->same_top_se = se_of(right, right, N);
    s->nll = a / N;
    s->nll_base = b / N;
    s->delta = delta / N;
    s->delta_se = se_of(delta, delta2, N);
    s->dp_mean = dp / N;
    s->dp_mean_se = se_of(dp, dp2, N);
    s->dp_rms = sqrt(dp2 / N);
    const double va = aa / N - s->nll * s->nll, vb = bb / N - s->nll_base * s->nll_base;
    s->correlation = va > 0 && vb > 0 ? (ab / N - s->nll * s->nll_base) / sqrt(va * vb) : NAN;
}

/* ---- the two models over the text ---- */

typedef struct {
    float *kl, *nll, *nll_base;
    unsigned char *same, *seen;
    size_t n;
} Table; /* one entry a predicted position */
typedef struct {
    Model *m[2]; /* base, model */
    Pass pass[2];
    Loss loss[2];
    int T, B, *ids, *target, *top[2];
    float *weight, *nll[2], *kl;
    void *mem;
} Side;

static void side_close(Side *s) {
    for (int k = 0; k < 2; k++) {
        pass_close(&s->pass[k]);
        loss_close(&s->loss[k]);
    }
    mem_free(s->mem);
}

static int side_open(Side *s, Err *e) {
    const size_t N = (size_t)s->B * s->T;
    TRY(mem_alloc(&s->mem, N * (4 * sizeof(int) + 4 * sizeof(float)), "windows", e));
    s->ids = s->mem;
    s->target = s->ids + N;
    s->top[0] = s->target + N;
    s->top[1] = s->top[0] + N;
    s->weight = (float *)(s->top[1] + N);
    s->nll[0] = s->weight + N;
    s->nll[1] = s->nll[0] + N;
    s->kl = s->nll[1] + N;
    for (int k = 0; k < 2; k++) {
        TRY(pass_open(&s->pass[k], s->m[k], s->B, s->T, 0, e));
        TRY(loss_open(&s->loss[k], s->m[k], k ? s->m[0]->c.C : 0, (int)N, e));
    }
    return OK;
}

static int bigram_seen(const int *ids, int t) {
    for (int i = 0; i < t; i++)
        if (ids[i] == ids[t] && ids[i + 1] == ids[t + 1]) return 1;
    return 0;
}

static int side_run(Side *s, const int *ids, int rows, Table *out, Err *e) {
    const int T = s->T;
    double value;
    for (int b = 0; b < s->B; b++) // rows beyond the last repeat the first
        for (int t = 0; t < T; t++) {
            const size_t at = (size_t)b * T + t, from = (size_t)(b < rows ? b : 0) * T + t;
            s->ids[at] = ids[from];
            s->weight[at] = t + 1 < T;
            s->target[at] = t + 1 < T ? ids[from + 1] : -1;
        }
    for (int k = 0; k < 2; k++) {
        TRY(pass_input(&s->pass[k], s->m[k], s->ids, NULL, e));
        model_forward(s->m[k], &s->pass[k]);
        TRY(loss_xent(&s->loss[k], s->m[k], &s->pass[k], s->target, s->weight, 0, &value, s->nll[k], s->top[k], e));
    }
    TRY(loss_kl(&s->loss[1], s->m[1], &s->pass[1], s->pass[0].h, s->m[0]->c.C, params_head(&s->m[0]->p)->w, 1, NULL, 0,
                &value, s->kl, e));
    for (int b = 0; b < rows; b++)
        for (int t = 0; t + 1 < T; t++) {
            const size_t at = (size_t)b * T + t, i = out->n++;
            out->kl[i] = s->kl[at];
            out->nll_base[i] = s->nll[0][at];
            out->nll[i] = s->nll[1][at];
            out->same[i] = s->top[0][at] == s->top[1][at];
            out->seen[i] = (unsigned char)bigram_seen(ids + (size_t)b * T, t);
            if (!isfinite(s->kl[at]) || !isfinite(out->nll[i]))
                return err_set(e, ERR_NUMERIC, "position %zu: the KL is not finite", i);
        }
    return OK;
}

/* Moves the entries with seen == which to the front of a copy and describes them; which < 0: all. */
static void part(KlStats *s, const Table *t, int which, Table *copy) {
    copy->n = 0;
    for (size_t i = 0; i < t->n; i++) {
        if (which >= 0 && t->seen[i] != which) continue;
        const size_t k = copy->n++;
        copy->kl[k] = t->kl[i];
        copy->nll[k] = t->nll[i];
        copy->nll_base[k] = t->nll_base[i];
        copy->same[k] = t->same[i];
    }
    klstats_of(s, copy->kl, copy->nll, copy->nll_base, copy->same, copy->n);
}

static int table_open(Table *t, size_t n, void **mem, Err *e) {
    TRY(mem_alloc(mem, n * (3 * sizeof(float) + 2) + 1, "positions", e));
    t->kl = *mem;
    t->nll = t->kl + n;
    t->nll_base = t->nll + n;
    t->same = (unsigned char *)(t->nll_base + n);
    t->seen = t->same + n;
    t->n = 0;
    return OK;
}

static int run(Side *s, const int *ids, size_t windows, Table *t, const Progress *progress, Err *e) {
    const double began = log_now();
    TRY(side_open(s, e));
    for (size_t w = 0; w < windows;) {
        const int rows = windows - w < (size_t)s->B ? (int)(windows - w) : s->B;
        TRY(side_run(s, ids + w * s->T, rows, t, e));
        w += rows;
        ProgressLine line = {.label = "window", .step = (long)w, .total = (long)windows};
        line.eta_s = progress_eta(log_now() - began, (long)w, (long)(windows - w));
        progress_report(progress, &line);
    }
    return OK;
}

int klstats_run(KlReport *r, Model *base, Model *m, const int *ids, size_t n, int T, const Progress *progress, Err *e) {
    Side s = {.m = {base, m}};
    Table t = {0}, copy = {0};
    void *mem[2] = {0};
    memset(r, 0, sizeof *r);
    if (base->c.VOC != m->c.VOC)
        return err_set(e, ERR_INPUT, "vocabularies differ: the base model has %d tokens, the other %d", base->c.VOC,
                       m->c.VOC);
    if (T < 2) return err_set(e, ERR_USAGE, "window length: got %d tokens, expected at least 2", T);
    if (n < 2) return err_set(e, ERR_INPUT, "the text has %zu tokens, expected at least 2", n);
    s.T = n < (size_t)T ? (int)n : T;
    const size_t windows = n / (size_t)s.T;
    s.B = s.T < 2048 ? 2048 / s.T : 1;
    if ((size_t)s.B > windows) s.B = (int)windows;
    int rc = table_open(&t, windows * (size_t)(s.T - 1), &mem[0], e);
    if (!rc) rc = table_open(&copy, windows * (size_t)(s.T - 1), &mem[1], e);
    if (!rc) rc = run(&s, ids, windows, &t, progress, e);
    if (!rc) {
        part(&r->all, &t, -1, &copy);
        part(&r->seen, &t, 1, &copy);
        part(&r->fresh, &t, 0, &copy);
    }
    side_close(&s);
    mem_free(mem[0]);
    mem_free(mem[1]);
    return rc;
}
