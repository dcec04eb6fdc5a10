/* generate.c - prefill and decode through the mixers' states, and sampling. */
#include "model/generate.h"
#include "base/mem.h"
#include "base/poison.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

static void state_place(const Decode *d, Arena *ar, int linear) {
    const Model *m = d->m;
    for (int l = 0; l < m->c.L; l++) {
        const Mixer *mix = mixer_at(m->c.mixer[l]);
        if (mix->linear == linear) mix->place_state(mix, &m->c, m->be, &d->state[l], ar, d->B, d->capacity, d->step);
    }
}

/* Caches (softmax) first, fixed-size states behind them, then one row of logits per sequence. */
static void decode_place(Decode *d, Arena *ar, Real **logits) {
    state_place(d, ar, 0);
    d->cache_bytes = ar->used;
    state_place(d, ar, 1);
    d->state_bytes = ar->used - d->cache_bytes;
    *logits = arena_take(ar, (size_t)d->B * d->m->c.VOC, d->m->be->real_size);
}

int decode_open(Decode *d, Model *m, int B, int capacity, int step, Err *e) {
    memset(d, 0, sizeof *d);
    if (capacity < 1 || step < 1)
        return err_set(e, ERR_USAGE, "generation: got capacity %d, step %d, expected at least 1", capacity, step);
    if (step > capacity) step = capacity;
    void *state;
    TRY(mem_alloc(&state, (size_t)m->c.L * (sizeof(MixerState) + sizeof(void *)), "layer states", e));
    *d = (Decode){.m = m, .B = B, .capacity = capacity, .step = step, .state = state};
    d->record = (void **)(d->state + m->c.L);
    Arena ar = {0};
    decode_place(d, &ar, &d->logits); // measures
    d->bytes = ar.used;
    int rc = ar.overflow
                 ? err_set(e, ERR_MEMORY, "caches of %d x %d tokens need more bytes than this machine can address", B,
                           capacity)
                 : OK;
    if (!rc) rc = model_rope(m, capacity, e);
    if (!rc) rc = pass_open(&d->pass, m, B, step, 0, e);
    if (!rc) rc = m->be->alloc(m->be, &d->mem, d->bytes, "key/value caches and states", e);
    if (rc) {
        decode_close(d);
        return rc;
    }
    Arena lay = {0};
    arena_begin(&lay, d->mem, d->bytes);
    decode_place(d, &lay, &d->logits);
    return OK;
}

void decode_close(Decode *d) {
    if (d->m) {
        for (int l = 0; l < d->m->c.L && d->m->be->record_free; l++) d->m->be->record_free(d->m->be, d->record[l]);
        pass_close(&d->pass);
        d->m->be->release(d->m->be, d->mem);
    }
    mem_free(d->state);
    memset(d, 0, sizeof *d);
}

void decode_reset(Decode *d) {
    d->past = 0;
    if (d->m->be->host) unpoison(d->mem, d->bytes); // the red zones too; laying out again puts them back
    d->m->be->zero(d->m->be, d->mem, d->bytes);
    Arena lay = {0};
    arena_begin(&lay, d->mem, d->bytes);
    decode_place(d, &lay, &d->logits);
}

/* Layers [from, end) on the piece in the pass. */
static void layers_run(Decode *d, int from, int end) {
    Model *m = d->m;
    Pass *p = &d->pass;
    for (int l = from; l < end; l++) {
        LayerActs *a = &p->layer[l];
        const Mixer *mix = mixer_at(m->c.mixer[l]);
        layer_norm_in(m, p, l, a->x);
        mix->extend(mix, layer_call(m, p, l), &a->mix, &d->state[l], p->mix_out, a->n1, d->past);
        layer_mlp(m, p, l, a->x, p->mix_out, l + 1 < m->c.L ? p->layer[l + 1].x : p->x);
    }
}

/* Linear layers make the same calls for every single token: recorded at the second (the first lets libraries make their
 * plans), replayed from then on. Softmax layers do not, since their cache grows. */
static void linear_run(Decode *d, int from, int end) {
    Backend *be = d->m->be;
    void **g = &d->record[from];
    if (be->record_begin && !d->m->half && d->pass.T == 1 && d->singles == 2 && !*g) {
        be->record_begin(be);
        layers_run(d, from, end);
        be->record_end(be, g);
    }
    if (d->pass.T == 1 && *g) be->replay(be, *g);
    else layers_run(d, from, end);
}

/* One piece of t <= step tokens through all layers; leaves the last layer's output in pass.x. */
static int decode_piece(Decode *d, const int *ids, int stride, int t, Err *e) {
    Model *m = d->m;
    Pass *p = &d->pass;
    Backend *be = m->be;
    p->T = t;
    p->N = d->B * t;
    for (int b = 0; b < d->B; b++) {
        for (int i = 0; i < t; i++)
            if (ids[(size_t)b * stride + i] < 0 || ids[(size_t)b * stride + i] >= m->c.VOC)
                return err_set(e, ERR_INPUT, "token id %d: expected 0 to %d", ids[(size_t)b * stride + i],
                               m->c.VOC - 1);
        be->upload(be, p->ids + (size_t)b * t, ids + (size_t)b * stride, (size_t)t * sizeof(int));
    }
    if (t == 1) d->singles++;
    model_embed(m, p, p->layer[0].x);
    for (int l = 0, end; l < m->c.L; l = end) {
        const int linear = mixer_at(m->c.mixer[l])->linear;
        for (end = l + 1; linear && end < m->c.L && mixer_at(m->c.mixer[end])->linear;) end++;
        if (linear) linear_run(d, l, end);
        else layers_run(d, l, end);
    }
    d->past += t;
    return OK;
}

static int decode_logits(Decode *d, float *logits, Err *e) {
    Model *m = d->m;
    Pass *p = &d->pass;
    Backend *be = m->be;
    const size_t C = m->c.C, last = p->T - 1;
    for (int b = 0; b < d->B; b++) // gather the last token of every sequence
        be->move(be, real_at(be, p->mix_out, b * C), creal_at(be, p->x, ((size_t)b * p->T + last) * C),
                 C * be->real_size);
    be->op->rmsnorm_forward(p->h, p->r, p->mix_out, m->p.norm.w, m->c.norm_eps, d->B, m->c.C);
    be->op->linear_forward(d->logits, p->h, params_head(&m->p)->w, NULL, d->B, m->c.C, m->c.VOC);
    return real_get(be, DT_F32, logits, d->logits, (size_t)d->B * m->c.VOC, e);
}

int decode_extend(Decode *d, const int *ids, int T, float *logits, Err *e) {
    if (T < 1 || T > d->capacity - d->past)
        return err_set(e, ERR_USAGE, "generation: %d more tokens after %d, but there is room for %d in all", T, d->past,
                       d->capacity);
    for (int done = 0; done < T; done += d->pass.T) {
        const int t = T - done < d->step ? T - done : d->step;
        TRY(decode_piece(d, ids + done, T, t, e));
    }
    if (logits) TRY(decode_logits(d, logits, e));
    return d->m->be->sync(d->m->be, e);
}

/* ---------------------------------------------------------------- sampling */

typedef struct {
    float logit;
    int id;
} Candidate;
static int candidate_order(const void *a,
                           const void *b) { // larger logit first, then smaller id: a total order
    const Candidate *x = a, *y = b;
    if (x->logit != y->logit) return x->logit < y->logit ? 1 : -1;
    return (x->id > y->id) - (x->id < y->id);
}

static int sample_greedy(const float *logits, int n) {
    int best = -1;
    for (int i = 0; i < n; i++)
        if (isfinite(logits[i]) && (best < 0 || logits[i] > logits[best])) best = i;
    return best;
}

int sample(const Sampler *s, Rng *rng, const float *logits, int n, int *id, Err *e) {
    *id = sample_greedy(logits, n);
    if (*id < 0) return err_set(e, ERR_NUMERIC, "sampling: none of the %d logits is finite", n);
    if (!(s->temperature > 0)) return OK;
    const double draw = rng_uniform(rng);
    void *mem;
    TRY(mem_alloc(&mem, (size_t)n * sizeof(Candidate), "sampling candidates", e));
    Candidate *c = mem;
    int m = 0;
    for (int i = 0; i < n; i++)
        if (isfinite(logits[i])) c[m++] = (Candidate){logits[i], i};
    qsort(c, m, sizeof *c, candidate_order);
    if (s->top_k > 0 && s->top_k < m) m = s->top_k;
    const double top = c[0].logit;
    double total = 0;
    for (int i = 0; i < m; i++) total += exp((c[i].logit - top) / s->temperature);
    if (s->top_p < 1) { // the smallest prefix whose mass reaches top_p; always at least one
        double mass = 0;
        int k = 0;
        while (k < m && (k == 0 || mass < s->top_p * total)) mass += exp((c[k++].logit - top) / s->temperature);
        m = k;
        total = mass;
    }
    double left = draw * total;
    int k = 0;
    while (k + 1 < m && (left -= exp((c[k].logit - top) / s->temperature)) >= 0) k++;
    *id = c[k].id;
    mem_free(mem);
    return OK;
}
