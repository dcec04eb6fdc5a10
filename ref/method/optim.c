/* optim.c - AdamW, clipping and schedules. See optim.h. */
#include "method/optim.h"
#include "base/mem.h"
#include <math.h>
#include <string.h>

double schedule_factor(const Schedule *s, int64_t done, int64_t total) {
    if (done < s->warmup) return (double)(done + 1) / (double)s->warmup;
    if (s->kind == SCHEDULE_CONSTANT || total <= 0) return 1;
    double p = (double)done / (double)total, f = s->final;
    if (s->kind == SCHEDULE_HOLD_LINEAR) return p < s->hold ? 1 : 1 - (1 - f) * (p - s->hold) / (1 - s->hold);
    if (total > s->warmup) p = (double)(done - s->warmup) / (double)(total - s->warmup);
    if (s->kind == SCHEDULE_LINEAR) return 1 - (1 - f) * p;
    return f + (1 - f) * 0.5 * (1 + cos(acos(-1) * p));
}

typedef struct {
    const Optim *o;
    size_t at;
    OptimVisit visit;
    void *ctx;
} Walker;

void optim_part(const Optim *o, size_t n, int q, size_t *from, size_t *count) {
    const Ranks *r = o->m->be->ranks;
    *from = lanes_rank_edge(n, o->lanes, r, q);
    *count = lanes_rank_edge(n, o->lanes, r, q + 1) - *from;
}

static size_t part_room(const Optim *o, size_t n) {
    size_t from, count;
    optim_part(o, n, ranks_index(o->m->be->ranks), &from, &count);
    return (count + 15) / 16 * 16; // every parameter begins on a cache line
}

static int walker_visit(void *ctx, const ParamInfo *info, Param *slot) {
    Walker *w = ctx;
    if (!slot->g) return OK;
    const size_t at = w->at;
    w->at += part_room(w->o, info->n);
    return w->visit ? w->visit(w->ctx, info, slot, at) : OK;
}

int optim_walk(const Optim *o, OptimVisit visit, void *ctx) {
    Walker w = {o, 0, visit, ctx};
    return params_walk(&o->m->c, &o->m->p, walker_visit, &w);
}

static int count_visit(void *ctx, const ParamInfo *info, Param *slot) {
    Optim *o = ctx;
    if (slot->g) o->n += part_room(o, info->n), o->params++;
    return OK;
}

static void optim_place(Optim *o, Arena *a) {
    const Backend *be = o->m->be;
    o->m1 = arena_take(a, o->n, be->wide_size);
    o->m2 = arena_take(a, o->n, be->wide_size);
    o->master = be->real_type == be->wide_type || o->c.stochastic_rounding ? NULL : arena_take(a, o->n, be->wide_size);
    o->sum = arena_take(a, o->params * (size_t)o->own, sizeof(double));
}

/* Measures: counts and the bytes. */
static size_t optim_measure(Optim *o, Model *m, const OptimConfig *c) {
    const Ranks *r = m->be->ranks;
    const int lanes = c->lanes > 1 ? c->lanes : 1, own = lanes / ranks_count(r);
    *o = (Optim){.m = m, .c = *c, .lanes = lanes, .own = own, .first = own * ranks_index(r)};
    params_walk(&m->c, &m->p, count_visit, o);
    Arena a = {0};
    optim_place(o, &a);
    return a.used;
}

size_t optim_bytes(const Model *m, const OptimConfig *c) {
    Model copy = *m; // the walk wants a mutable list; nothing is changed
    Optim o;
    return optim_measure(&o, &copy, c);
}

/* Master copies begin as the weights, converted in blocks over the host: once per run. */
typedef struct {
    Optim *o;
    Err *e;
} Masters;
static int master_visit(void *ctx, const ParamInfo *info, Param *slot, size_t at) {
    Masters *masters = ctx;
    Backend *be = masters->o->m->be;
    if (!optim_has_master(masters->o, info)) return OK;
    size_t from, count;
    optim_part(masters->o, info->n, ranks_index(be->ranks), &from, &count);
    const size_t most = count < 1 << 18 ? count : 1 << 18; // a device waits at each block
    void *block;
    TRY(mem_alloc(&block, most * sizeof(float), "master weights", masters->e));
    int rc = OK;
    for (size_t i = 0; i < count && !rc; i += most) {
        const size_t n = count - i < most ? count - i : most;
        rc = real_get(be, DT_F32, block, creal_at(be, slot->w, from + i), n, masters->e);
        if (!rc) rc = wide_put(be, wide_at(be, masters->o->master, at + i), DT_F32, block, n, masters->e);
    }
    mem_free(block);
    return rc;
}

int optim_check(const OptimConfig *c, const Backend *be, Err *e) {
    if (!c->stochastic_rounding || be->real_type == DT_BF16) return OK;
    err_set(e, ERR_USAGE, "stochastic_rounding: got device %s, whose weights are %s, expected one with bf16 weights",
            be->name, dtype_name(be->real_type));
    return err_hint(e, "cuda-bf16 has them; elsewhere nothing is rounded");
}

int optim_masters(Optim *o, Err *e) {
    Masters masters = {o, e};
    return o->master ? optim_walk(o, master_visit, &masters) : OK;
}

int optim_open(Optim *o, Model *m, const OptimConfig *c, Err *e) {
    memset(o, 0, sizeof *o);
    TRY(optim_check(c, m->be, e));
    const size_t bytes = optim_measure(o, m, c);
    o->bytes = bytes;
    if (m->be->alloc(m->be, &o->mem, bytes, "optimiser state", e)) {
        memset(o, 0, sizeof *o);
        return e ? e->code : ERR_MEMORY;
    }
    Arena a = {0};
    arena_begin(&a, o->mem, bytes);
    optim_place(o, &a);
    void *list = NULL;
    const size_t own = o->params * (size_t)o->own, all = o->params * (size_t)o->lanes;
    int rc = mem_alloc(&list, own * sizeof(Trained) + all * sizeof(double), "list of parameters", e);
    o->list = list;
    o->sums = (double *)(o->list + own);
    if (!rc) rc = optim_masters(o, e);
    if (rc) optim_close(o);
    return rc;
}

void optim_close(Optim *o) {
    if (o->m) o->m->be->release(o->m->be, o->mem);
    mem_free(o->list);
    memset(o, 0, sizeof *o);
}

typedef struct {
    Optim *o;
    int i;         /* parameters seen */
    double square; /* sum of all squared gradients */
    char bad[160]; /* first parameter whose gradient is not finite */
    double factor;
    Err *e;
} Step;

/* Row i of the list of each segment of this rank. The official groups go by the name, so that attn_norm learns as fast
 * as attention, and decay reaches everything (ref/METHOD.md 4). */
static int list_visit(void *ctx, const ParamInfo *info, Param *slot, size_t at) {
    Step *s = ctx;
    const Optim *o = s->o;
    const Backend *be = o->m->be;
    const OptimConfig *c = &o->c;
    const int attn = c->official_groups ? strstr(info->name, "attn") != NULL : info->mixer;
    const int narrow = !info->wide && be->real_type != be->wide_type;
    const size_t begin = lanes_edge(info->n, o->lanes, o->first);
    for (int k = 0; k < o->own; k++) {
        const size_t from = lanes_edge(info->n, o->lanes, o->first + k),
                     to = lanes_edge(info->n, o->lanes, o->first + k + 1);
        const size_t kept = at + from - begin;
        o->list[(size_t)k * o->params + (size_t)s->i] =
            (Trained){.master = !narrow     ? wide_at(be, slot->ww, from)
                                : o->master ? wide_at(be, o->master, kept)
                                            : NULL,
                      .weight = narrow ? real_at(be, slot->w, from) : NULL,
                      .m = wide_at(be, o->m1, kept),
                      .v = wide_at(be, o->m2, kept),
                      .grad = wide_at(be, slot->g, from),
                      .n = to - from,
                      .lr = (attn ? c->lr_attn : c->lr) * s->factor,
                      .decay = c->official_groups || info->decays ? c->decay : 0};
    }
    s->i++;
    return OK;
}
static int norm_visit(void *ctx, const ParamInfo *info, Param *slot, size_t at) {
    Step *s = ctx;
    double *sums = s->o->sums + s->i++;
    (void)slot, (void)at;
    lanes_sum(sums, s->o->lanes, s->o->params);
    if (!isfinite(*sums) && !s->bad[0]) strncpy(s->bad, info->name, sizeof s->bad - 1);
    s->square += *sums;
    return OK;
}

/* The same weights everywhere again: each rank has moved its part of them. */
static int weights_visit(void *ctx, const ParamInfo *info, Param *slot, size_t at) {
    const Step *s = ctx;
    const Optim *o = s->o;
    Backend *be = o->m->be;
    Ranks *r = be->ranks;
    const size_t size = info->wide ? be->wide_size : be->real_size;
    size_t edge[RANKS_MOST + 1];
    void *host;
    (void)at;
    for (int q = 0; q <= r->size; q++) edge[q] = lanes_rank_edge(info->n, o->lanes, r, q) * size;
    if (be->host) return ranks_gather_post(r, slot->w, edge, s->e); // the wait comes after the last
    TRY(mem_alloc(&host, info->n * size, "weights on their way", s->e));
    be->download(be, host, slot->w, info->n * size);
    const int rc = ranks_gather(r, host, edge, s->e);
    if (!rc) be->upload(be, slot->w, host, info->n * size);
    mem_free(host);
    return rc;
}

static int optim_weights(Step *s) {
    Ranks *r = s->o->m->be->ranks;
    if (ranks_count(r) < 2) return OK;
    TRY(optim_walk(s->o, weights_visit, s));
    return r->wait(r, s->e);
}

/* Segments of one tensor are rounded up and down by other chances than each other, whoever has them. */
static uint64_t segment_seed(const Optim *o, int segment) {
    return o->c.seed + (uint64_t)segment * UINT64_C(0xd1342543de82ef95);
}

/* Sums of squares of all segments. */
static int optim_squares(Optim *o, Err *e) {
    Backend *be = o->m->be;
    size_t at[RANKS_MOST + 1];
    const size_t row = o->params * sizeof(double);
    for (int k = 0; k < o->own; k++)
        be->op->sumsq(o->sum + (size_t)k * o->params, o->list + (size_t)k * o->params, (int)o->params);
    // the one time that a step waits
    be->download(be, o->sums + (size_t)o->first * o->params, o->sum, (size_t)o->own * row);
    for (int q = 0; q <= ranks_count(be->ranks); q++) at[q] = (size_t)(q * o->own) * row;
    return ranks_gather(be->ranks, o->sums, at, e);
}

int optim_step(Optim *o, int64_t total, double *grad_norm, double *lr, Err *e) {
    Step s = {.o = o, .factor = schedule_factor(&o->c.schedule, o->step, total), .e = e};
    Backend *be = o->m->be;
    const OptimConfig *c = &o->c;
    optim_walk(o, list_visit, &s);
    TRY(optim_squares(o, e));
    s.i = 0;
    optim_walk(o, norm_visit, &s);
    const double norm = sqrt(s.square), scale = c->clip > 0 && norm > c->clip ? c->clip / (norm + 1e-6) : 1;
    *grad_norm = norm;
    *lr = (o->m->grad == GRAD_ALL ? c->lr : c->lr_attn) * s.factor;
    if (s.bad[0] || !isfinite(norm))
        return err_set(e, ERR_NUMERIC, "%s: its gradient is not finite", s.bad[0] ? s.bad : "sum of all parameters");
    o->step++;
    for (int k = 0; k < o->own; k++)
        be->op->adamw(o->list + (size_t)k * o->params, scale, c->beta1, c->beta2, c->eps, o->step,
                      segment_seed(o, o->first + k), (int)o->params);
    TRY(optim_weights(&s));
    model_invalidate(o->m);
    return OK;
}
