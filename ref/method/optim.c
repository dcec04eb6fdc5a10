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

static int walker_visit(void *ctx, const ParamInfo *info, Param *slot) {
    Walker *w = ctx;
    if (!slot->g) return OK;
    const size_t at = w->at;
    w->at += (info->n + 15) / 16 * 16; // every parameter begins on a cache line
    return w->visit ? w->visit(w->ctx, info, slot, at) : OK;
}

int optim_walk(const Optim *o, OptimVisit visit, void *ctx) {
    Walker w = {o, 0, visit, ctx};
    return params_walk(&o->m->c, &o->m->p, walker_visit, &w);
}

static int count_visit(void *ctx, const ParamInfo *info, Param *slot) {
    size_t *n = ctx;
    if (slot->g) n[0] += (info->n + 15) / 16 * 16, n[1]++;
    return OK;
}

static void optim_place(Optim *o, Arena *a, size_t params) {
    const Backend *be = o->m->be;
    o->m1 = arena_take(a, o->n, be->wide_size);
    o->m2 = arena_take(a, o->n, be->wide_size);
    o->master = be->real_type == be->wide_type || o->c.stochastic_rounding ? NULL : arena_take(a, o->n, be->wide_size);
    o->sum = arena_take(a, params, sizeof(double));
}

/* Measures: o->n and the bytes. */
static size_t optim_measure(Optim *o, Model *m, const OptimConfig *c, size_t *params) {
    size_t n[2] = {0, 0};
    params_walk(&m->c, &m->p, count_visit, n);
    o->m = m;
    o->c = *c;
    o->n = n[0];
    *params = n[1];
    Arena a = {0};
    optim_place(o, &a, n[1]);
    return a.used;
}

size_t optim_bytes(const Model *m, const OptimConfig *c) {
    Model copy = *m; // the walk wants a mutable list; nothing is changed
    Optim o = {0};
    size_t params;
    return optim_measure(&o, &copy, c, &params);
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
    const size_t most = info->n < 1 << 18 ? info->n : 1 << 18; // a device waits at each block
    void *block;
    TRY(mem_alloc(&block, most * sizeof(float), "master weights", masters->e));
    int rc = OK;
    for (size_t i = 0; i < info->n && !rc; i += most) {
        const size_t n = info->n - i < most ? info->n - i : most;
        rc = real_get(be, DT_F32, block, creal_at(be, slot->w, i), n, masters->e);
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
    size_t params;
    const size_t bytes = optim_measure(o, m, c, &params);
    o->bytes = bytes;
    if (m->be->alloc(m->be, &o->mem, bytes, "optimiser state", e)) {
        memset(o, 0, sizeof *o);
        return e ? e->code : ERR_MEMORY;
    }
    Arena a = {0};
    arena_begin(&a, o->mem, bytes);
    optim_place(o, &a, params);
    void *list = NULL;
    int rc = mem_alloc(&list, params * (sizeof(Trained) + sizeof(double)), "list of parameters", e);
    o->list = list;
    o->sums = (double *)(o->list + params);
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
} Step;

/* The official groups go by the name, so that attn_norm learns as fast as attention, and decay reaches everything
 * (ref/METHOD.md 4). */
static int list_visit(void *ctx, const ParamInfo *info, Param *slot, size_t at) {
    Step *s = ctx;
    const Optim *o = s->o;
    const Backend *be = o->m->be;
    const OptimConfig *c = &o->c;
    const int attn = c->official_groups ? strstr(info->name, "attn") != NULL : info->mixer;
    const int narrow = !info->wide && be->real_type != be->wide_type;
    o->list[s->i++] = (Trained){.master = !narrow     ? slot->ww
                                          : o->master ? wide_at(be, o->master, at)
                                                      : NULL,
                                .weight = narrow ? slot->w : NULL,
                                .m = wide_at(be, o->m1, at),
                                .v = wide_at(be, o->m2, at),
                                .grad = slot->g,
                                .n = info->n,
                                .lr = (attn ? c->lr_attn : c->lr) * s->factor,
                                .decay = c->official_groups || info->decays ? c->decay : 0};
    return OK;
}
static int norm_visit(void *ctx, const ParamInfo *info, Param *slot, size_t at) {
    Step *s = ctx;
    const double v = s->o->sums[s->i++];
    (void)slot, (void)at;
    if (!isfinite(v) && !s->bad[0]) strncpy(s->bad, info->name, sizeof s->bad - 1);
    s->square += v;
    return OK;
}

int optim_step(Optim *o, int64_t total, double *grad_norm, double *lr, Err *e) {
    Step s = {.o = o, .factor = schedule_factor(&o->c.schedule, o->step, total)};
    Backend *be = o->m->be;
    const OptimConfig *c = &o->c;
    optim_walk(o, list_visit, &s);
    const int tensors = s.i;
    be->op->sumsq(o->sum, o->list, tensors);
    be->download(be, o->sums, o->sum, (size_t)tensors * sizeof(double)); // the one time that a step waits
    s.i = 0;
    optim_walk(o, norm_visit, &s);
    const double norm = sqrt(s.square), scale = c->clip > 0 && norm > c->clip ? c->clip / (norm + 1e-6) : 1;
    *grad_norm = norm;
    *lr = (o->m->grad == GRAD_ALL ? c->lr : c->lr_attn) * s.factor;
    if (s.bad[0] || !isfinite(norm))
        return err_set(e, ERR_NUMERIC, "%s: its gradient is not finite", s.bad[0] ? s.bad : "sum of all parameters");
    o->step++;
    be->op->adamw(o->list, scale, c->beta1, c->beta2, c->eps, o->step, c->seed, tensors);
    model_invalidate(o->m);
    return OK;
}
