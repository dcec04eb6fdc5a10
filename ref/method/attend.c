/* attend.c - distance and entropy of attention by its own op. See attend.h. */
#include "method/attend.h"
#include "base/mem.h"
#include <math.h>
#include <string.h>

static const double PARKED = 0.999; /* of a row's weight on the first token: nothing is left to have a distance */

static void attend_place(Attend *a, Arena *ar, const Backend *be) {
    a->value = arena_take(ar, (size_t)a->N * a->Hk * a->D, be->real_size);
    a->out = arena_take(ar, (size_t)a->N * a->H * a->D, be->real_size);
    a->lse = arena_take(ar, (size_t)a->N * a->H, be->wide_size);
}

static Attend attend_shape(const Model *m, int N, int T) {
    const Config *c = &m->c;
    Attend a = {.N = N, .T = T, .H = c->H, .Hk = c->Hk, .D = c->D, .window = c->window, .be = m->be};
    a.blocks = (c->D - 1) / 2;
    a.size = a.blocks > 0 ? (T + a.blocks - 1) / a.blocks : 0;
    return a;
}

size_t attend_bytes(const Model *m, int N) {
    Attend a = attend_shape(m, N, N);
    Arena ar = {0};
    attend_place(&a, &ar, m->be);
    return ar.used;
}

int attend_open(Attend *a, const Model *teacher, const Pass *p, Err *e) {
    *a = attend_shape(teacher, p->N, p->T);
    const size_t rows = (size_t)a->N * a->H, n = rows * a->D, bytes = attend_bytes(teacher, a->N);
    Arena ar = {0};
    int rc = a->be->alloc(a->be, &a->mem, bytes, "attention distances", e);
    if (!rc) rc = mem_alloc(&a->host, (2 * n + 4 * rows) * sizeof(double), "attention distances", e);
    if (rc) return attend_close(a), rc;
    arena_begin(&ar, a->mem, bytes);
    attend_place(a, &ar, a->be);
    a->q = a->host;
    a->o = a->q + n;
    a->lag = a->o + n;
    a->entropy = a->lag + rows;
    a->first = a->entropy + rows;
    a->self = a->first + rows;
    return OK;
}

void attend_close(Attend *a) {
    if (a->be) a->be->release(a->be, a->mem);
    mem_free(a->host);
    memset(a, 0, sizeof *a);
}

int attend_batch(Attend *a, const int *start, Err *e) {
    double *value = a->q; // Hk <= H: there is room
    memset(value, 0, (size_t)a->N * a->Hk * a->D * sizeof(double));
    for (int n = 0; n < a->N; n++)
        for (int h = 0; h < a->Hk; h++) {
            const int s = n % a->T, block = s / a->size;
            double *v = value + ((size_t)n * a->Hk + h) * a->D;
            v[block] = 1;
            v[a->blocks + block] = (double)(s - block * a->size) / a->size;
            v[a->D - 1] = s == (start ? start[n] : 0);
        }
    return real_put(a->be, a->value, DT_F64, value, (size_t)a->N * a->Hk * a->D, e);
}

static double row_lag(const Attend *a, const double *o, int t, int age) {
    const double first = o[a->D - 1];
    double lag = 0;
    if (age < 1 || first > PARKED) return NAN;
    for (int j = 0; j < a->blocks; j++) lag += o[j] * (t - j * a->size) - a->size * o[a->blocks + j];
    return fmax((lag - first * age) / (1 - first), 0); // rounding may make a distance of 0 a little less
}

int attend_layer(Attend *a, const Model *teacher, Pass *p, int l, const int *start, Err *e) {
    const Ops *op = a->be->op;
    const MixerCall *call = layer_call(teacher, p, l);
    const MixerActs *m = &p->layer[l].mix;
    const AttnDims d = {.B = call->B, .T = call->T, .H = a->H, .Hk = a->Hk, .D = a->D, .window = a->window};
    const double scale = 1 / sqrt(a->D);
    const size_t rows = (size_t)a->N * a->H, n = rows * a->D;
    op->attention_forward(a->out, a->lse, m->qs, m->ks, a->value, call->start, scale, call->work, &d);
    TRY(real_get(a->be, DT_F64, a->o, a->out, n, e));
    TRY(wide_get(a->be, DT_F64, a->entropy, a->lse, rows, e));
    for (size_t i = 0; i < rows; i++) {
        const int row = (int)(i / (size_t)a->H), t = row % a->T;
        a->first[i] = a->o[i * a->D + a->D - 1];
        a->lag[i] = row_lag(a, a->o + i * a->D, t, t - (start ? start[row] : 0));
    }
    op->attention_forward(a->out, a->lse, m->qs, m->ks, m->ks, call->start, scale, call->work, &d);
    TRY(real_get(a->be, DT_F64, a->q, m->qs, n, e));
    TRY(real_get(a->be, DT_F64, a->o, m->ks, n / (size_t)(a->H / a->Hk), e));
    for (size_t i = 0; i < rows; i++) { // entropy still holds lse
        const double *key = a->o + (i / (size_t)a->H * a->Hk + i % (size_t)a->H / (a->H / a->Hk)) * a->D;
        double dot = 0;
        for (int c = 0; c < a->D; c++) dot += a->q[i * a->D + c] * key[c];
        a->self[i] = exp(scale * dot - a->entropy[i]);
    }
    TRY(real_get(a->be, DT_F64, a->o, a->out, n, e));
    for (size_t i = 0; i < n; i++) a->entropy[i / (size_t)a->D] -= scale * a->q[i] * a->o[i];
    return OK;
}
