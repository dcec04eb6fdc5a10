/* probe.c - see probe.h. */
#include "report/probe.h"
#include "base/mem.h"
#include "base/rng.h"
#include <math.h>
#include <string.h>

typedef struct {
    Model *m;
    HeadProbe *out;
    int block, T;
    Pass pass;
    int *ids;
    double *q, *k, *lse; /* (T,H,D), (T,Hk,D), (T,H) */
    void *mem;
} Work;

/* Weight of query t on key j < t of one head. */
static double weight(const Work *w, int h, int t, int j) {
    const Config *c = &w->m->c;
    const double *q = w->q + ((size_t)t * c->H + h) * c->D, *k = w->k + ((size_t)j * c->Hk + h / (c->H / c->Hk)) * c->D;
    double dot = 0;
    if (j < 0 || (c->window > 0 && t - j >= c->window)) return 0;
    for (int i = 0; i < c->D; i++) dot += q[i] * k[i];
    return exp(dot / sqrt(c->D) - w->lse[(size_t)t * c->H + h]);
}

/* After layer l ran: its queries and keys still stand in the pass. */
static int layer_read(Work *w, int l, Err *e) {
    const Config *c = &w->m->c;
    const MixerActs *a = &w->pass.layer[l].mix;
    TRY(real_get(w->m->be, DT_F64, w->q, a->qs, (size_t)w->T * c->H * c->D, e));
    TRY(real_get(w->m->be, DT_F64, w->k, a->ks, (size_t)w->T * c->Hk * c->D, e));
    TRY(wide_get(w->m->be, DT_F64, w->lse, a->lse, (size_t)w->T * c->H, e));
    for (int h = 0; h < c->H; h++) {
        double previous = 0, induction = 0;
        for (int t = 1; t < w->T; t++) previous += weight(w, h, t, t - 1) / (w->T - 1);
        for (int t = w->block; t < w->T; t++) induction += weight(w, h, t, t - w->block + 1) / w->block;
        w->out->previous[l * c->H + h] += previous;
        w->out->induction[l * c->H + h] += induction;
    }
    return OK;
}

static int sequence_read(Work *w, Err *e) {
    Pass *p = &w->pass;
    const int L = w->m->c.L;
    TRY(pass_input(p, w->m, w->ids, NULL, e));
    model_embed(w->m, p, p->layer[0].x);
    for (int l = 0; l < L; l++) {
        layer_forward(w->m, p, l, p->layer[l].x, l + 1 < L ? p->layer[l + 1].x : p->x);
        if (!w->m->c.mixer[l]) TRY(layer_read(w, l, e));
    }
    return w->m->be->sync(w->m->be, e);
}

static int work_open(Work *w, Err *e) {
    const Config *c = &w->m->c;
    const size_t T = w->T, n_q = T * c->H * c->D, n_k = T * c->Hk * c->D, n_lse = T * c->H;
    TRY(mem_alloc(&w->mem, (n_q + n_k + n_lse) * sizeof(double) + T * sizeof(int), "queries and keys", e));
    w->q = w->mem;
    w->k = w->q + n_q;
    w->lse = w->k + n_k;
    w->ids = (int *)(w->lse + n_lse);
    return pass_open(&w->pass, w->m, 1, w->T, 0, e);
}

static int probe_run(Work *w, const int *ids, int n, int rows, uint64_t seed, Err *e) {
    TRY(work_open(w, e));
    for (int row = 0; row < rows; row++) {
        Rng r;
        rng_seed3(&r, seed, 0x70726f6265, (uint64_t)row);
        for (int t = 0; t < w->block; t++) {
            const uint64_t i = rng_below(&r, (uint64_t)(ids ? n : w->m->c.VOC));
            w->ids[t] = w->ids[t + w->block] = ids ? ids[i] : (int)i;
        }
        TRY(sequence_read(w, e));
    }
    return OK;
}

int probe_heads(HeadProbe *p, Model *m, const int *ids, int n, int block, int rows, uint64_t seed, Err *e) {
    const size_t heads = (size_t)m->c.L * m->c.H;
    memset(p, 0, sizeof *p);
    if (block < 2 || rows < 1 || (ids && n < 1))
        return err_set(e, ERR_USAGE, "probe: got %d sequences of two blocks of %d, expected at least 1 and 2", rows,
                       block);
    TRY(mem_alloc(&p->mem, 2 * heads * sizeof(double), "head weights", e));
    *p = (HeadProbe){m->c.L, m->c.H, p->mem, (double *)p->mem + heads, p->mem};
    Work w = {.m = m, .out = p, .block = block, .T = 2 * block};
    const int rc = probe_run(&w, ids, n, rows, seed, e);
    pass_close(&w.pass);
    mem_free(w.mem);
    for (size_t i = 0; i < heads; i++) {
        const int linear = m->c.mixer[i / (size_t)m->c.H] != 0;
        p->previous[i] = linear ? NAN : p->previous[i] / rows;
        p->induction[i] = linear ? NAN : p->induction[i] / rows;
    }
    if (rc) probe_heads_close(p);
    return rc;
}

void probe_heads_close(HeadProbe *p) {
    mem_free(p->mem);
    memset(p, 0, sizeof *p);
}

/* Twice the mean rank of a[i] among the pairs that count. */
static double rank_of(const double *a, const double *b, size_t n, size_t i) {
    double rank = 0;
    for (size_t k = 0; k < n; k++)
        if (!isnan(a[k] + b[k])) rank += a[k] < a[i] ? 2 : a[k] == a[i];
    return rank;
}

double probe_correlation(const double *a, const double *b, size_t n) {
    double x = 0, y = 0, xx = 0, yy = 0, xy = 0, m = 0;
    for (size_t i = 0; i < n; i++) {
        if (isnan(a[i] + b[i])) continue;
        const double p = rank_of(a, b, n, i), q = rank_of(b, a, n, i);
        m++;
        x += p, y += q, xx += p * p, yy += q * q, xy += p * q;
    }
    const double scale = (m * xx - x * x) * (m * yy - y * y);
    return scale > 0 ? (m * xy - x * y) / sqrt(scale) : NAN;
}
