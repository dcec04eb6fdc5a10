/* model.c - weights on a backend: allocation, initialisation, and the decoder's forward and backward. */
#include "model/model.h"
#include "base/mem.h"
#include "base/poison.h"
#include "base/rng.h"
#include <math.h>
#include <string.h>

/* ---------------------------------------------------------------- weights and gradients */

struct Half {
    uint16_t *mem;
    int now; /* the layer whose matrices stand in the shared memory, -1: none */
};

/* half: BF16 matrices of all layers; begin, end: the part of `weights` in which they become `real`, one layer at a
 * time. */
typedef struct {
    const Backend *be;
    GradKind grad;
    Arena weights, grads, half;
    int wides, layer;
    size_t begin, end;
} Place;

static void half_place(Place *p, const ParamInfo *info, Param *slot) {
    if (p->layer != info->layer) p->weights.used = p->begin, p->layer = info->layer;
    slot->half = arena_take(&p->half, info->n, sizeof(uint16_t));
    slot->w = arena_take(&p->weights, info->n, p->be->real_size);
    if (p->weights.used > p->end) p->end = p->weights.used;
}

static int trains(GradKind grad, const ParamInfo *info) {
    return grad == GRAD_ALL || (grad == GRAD_MIXERS && info->mixer);
}

/* Weights in `real` first, those in `wide` behind them, so that each kind is one run of memory. */
static int place_visit(void *ctx, const ParamInfo *info, Param *slot) {
    Place *p = ctx;
    const int half = p->grad == GRAD_HALF && info->rank == 2 && info->layer >= 0 && !info->wide;
    if ((half ? 2 : info->wide) != p->wides) return OK;
    slot->n = info->n;
    if (half) return half_place(p, info, slot), OK;
    slot->w = arena_take(&p->weights, info->n, info->wide ? p->be->wide_size : p->be->real_size);
    slot->g = trains(p->grad, info) ? arena_take(&p->grads, info->n, p->be->wide_size) : NULL;
    return OK;
}

static void params_place(Model *m, Place *p) {
    for (p->wides = 0; p->wides < 2; p->wides++) params_walk(&m->c, &m->p, place_visit, p);
    p->begin = p->end = p->weights.used;
    p->layer = -1;
    params_walk(&m->c, &m->p, place_visit, p); // wides == 2: matrices kept in BF16
    p->weights.used = p->end;
    // kinds of layers share this memory, so that red zones of one fall inside tensors of another
    if (p->weights.base) unpoison(p->weights.base + p->begin, p->end - p->begin);
}

static int half_open(Model *m, Place *p, Err *e) {
    void *mem;
    TRY(mem_alloc(&mem, sizeof(Half), "weights", e));
    m->half = mem;
    m->half->now = -1;
    TRY(mem_alloc(&mem, p->half.used, "weights in BF16", e));
    m->half->mem = mem;
    m->weight_bytes += p->half.used;
    const size_t bytes = p->half.used;
    arena_begin(&p->half, mem, bytes);
    return OK;
}

void layer_weights(const Model *m, int l) {
    if (!m->half || m->half->now == l) return;
    Param *p = (Param *)&m->p.layer[l]; // a layer is nothing but parameters
    for (size_t i = 0; i < sizeof(LayerParams) / sizeof(Param); i++)
        if (p[i].half)
            real_put(m->be, p[i].w, DT_BF16, p[i].half, p[i].n, NULL); // a conversion that exists cannot fail
    m->half->now = l;
}

/* Everything of model_open but the memory: sizes. */
static int model_begin(Model *m, Place *p, const Config *c, Backend *be, GradKind grad, Err *e) {
    memset(m, 0, sizeof *m);
    TRY(config_check(c, "config", e));
    *p = (Place){.be = be, .grad = grad};
    m->be = be;
    m->c = *c;
    m->grad = grad;
    m->chunk = 64;
    void *layers;
    TRY(mem_alloc(&layers, (size_t)c->L * sizeof(LayerParams), "layer table", e));
    m->p.layer = layers;
    params_place(m, p); // measures
    m->weight_bytes = p->weights.used;
    m->grad_bytes = p->grads.used;
    if (!p->weights.overflow && !p->grads.overflow) return OK;
    model_close(m);
    return err_set(e, ERR_MEMORY, "model: its parameters need more bytes than this machine can address");
}

/* A gradient that is only counted: not NULL, since that means that a parameter does not train. */
static int counted_visit(void *ctx, const ParamInfo *info, Param *slot) {
    if (trains(((const Model *)ctx)->grad, info)) slot->g = ctx;
    return OK;
}

int model_measure(Model *m, const Config *c, Backend *be, GradKind grad, Err *e) {
    Place p;
    TRY(model_begin(m, &p, c, be, grad, e));
    return params_walk(&m->c, &m->p, counted_visit, m);
}

int model_open(Model *m, const Config *c, Backend *be, GradKind grad, Err *e) {
    Place p;
    TRY(model_begin(m, &p, c, be, grad, e));
    const size_t weights = m->weight_bytes;
    if ((grad == GRAD_HALF && half_open(m, &p, e)) || be->alloc(be, &m->weight_mem, weights, "weights", e) ||
        (m->grad_bytes && be->alloc(be, &m->grad_mem, m->grad_bytes, "gradients", e))) {
        model_close(m);
        return e ? e->code : ERR_MEMORY;
    }
    arena_begin(&p.weights, m->weight_mem, weights);
    arena_begin(&p.grads, m->grad_mem, m->grad_bytes);
    params_place(m, &p); // lays out
    return OK;
}

/* ---------------------------------------------------------------- weights laid out once for many products */

typedef struct {
    const Model *m;
    int what;
    size_t *bytes;
    void (*then)(Backend *b, const Real *w);
} PrepackWalk;
/* The matrices that linear and the heads read: the embedding only where it is the head too. */
static int prepack_visit(void *ctx, const ParamInfo *info, Param *slot) {
    const PrepackWalk *h = ctx;
    Backend *be = h->m->be;
    const int backward = h->what & PREPACK_BACKWARD;
    if (info->rank != 2 || info->wide || (slot->w == h->m->p.embed.w && h->m->p.head.n)) return OK;
    if (h->what & PREPACK_HEAD && info->layer >= 0) return OK;
    if (h->then) h->then(be, slot->w);
    else if (h->bytes) *h->bytes += be->prepack_bytes(be, (int)info->shape[0], (int)info->shape[1], backward);
    else be->prepack(be, slot->w, (int)info->shape[0], (int)info->shape[1], backward);
    return OK;
}
void model_prepack(Model *m, int what) {
    PrepackWalk h = {.m = m, .what = what};
    if (!m->be->prepack || m->half || m->prepacked) return;
    params_walk(&m->c, &m->p, prepack_visit, &h);
    m->prepacked = 1;
}
size_t model_prepack_bytes(const Model *m, int what) {
    size_t bytes = 0;
    Params p = m->p; // the walk wants a mutable list; nothing is changed
    PrepackWalk h = {.m = m, .what = what, .bytes = &bytes};
    if (m->be->prepack && !m->half) params_walk(&m->c, &p, prepack_visit, &h);
    return bytes;
}
static void prepacked_each(Model *m, void (*then)(Backend *b, const Real *w)) {
    PrepackWalk h = {.m = m, .then = then};
    if (m->prepacked) params_walk(&m->c, &m->p, prepack_visit, &h);
}
void model_invalidate(Model *m) { prepacked_each(m, m->be->invalidate); }
void model_prepack_release(Model *m) {
    prepacked_each(m, m->be->prepack_release);
    m->prepacked = 0;
}

void model_close(Model *m) {
    if (m->be) model_prepack_release(m);
    if (m->be) {
        m->be->release(m->be, m->weight_mem);
        m->be->release(m->be, m->grad_mem);
        m->be->release(m->be, m->rope);
    }
    if (m->half) mem_free(m->half->mem);
    mem_free(m->half);
    mem_free(m->p.layer);
    memset(m, 0, sizeof *m);
}

static int zero_visit(void *ctx, const ParamInfo *info, Param *slot) {
    const Model *m = ctx;
    if (slot->g) m->be->zero(m->be, slot->g, info->n * m->be->wide_size);
    return OK;
}
/* One run of memory: one call where calls cost; on the host one each, since red zones may stand between them (arena.h).
 * */
void model_zero_grad(Model *m) {
    if (m->be->host) params_walk(&m->c, &m->p, zero_visit, m);
    else if (m->grad_bytes) m->be->zero(m->be, m->grad_mem, m->grad_bytes);
}

typedef struct {
    const char *name;
    ParamInfo info;
    Param slot;
    char found;
} Find;
static int find_visit(void *ctx, const ParamInfo *info, Param *slot) {
    Find *f = ctx;
    if (strcmp(f->name, info->name)) return OK;
    f->info = *info;
    f->info.name = f->name;
    f->slot = *slot;
    return f->found = 1;
}
int model_find(const Model *m, const char *name, ParamInfo *info, Param *slot) {
    Find f = {.name = name};
    Params p = m->p; // the walk wants a mutable list; nothing is changed
    params_walk(&m->c, &p, find_visit, &f);
    if (!f.found) return 0;
    if (f.info.layer >= 0) layer_weights(m, f.info.layer);
    if (info) *info = f.info;
    if (slot) *slot = f.slot;
    return 1;
}

static int half_convert(const ParamInfo *i, DType to, void *dst, DType from, const void *src, Err *e) {
    if (!dtype_convert(to, dst, from, src, i->n)) return OK;
    return err_set(e, ERR_INPUT, "%s: got dtype %s or %s, expected F16, BF16, F32 or F64", i->name, dtype_name(from),
                   dtype_name(to));
}
int param_put(Backend *be, const ParamInfo *i, const Param *p, DType type, const void *host, Err *e) {
    if (be->invalidate && !i->wide) be->invalidate(be, p->w);
    if (p->half) return half_convert(i, DT_BF16, p->half, type, host, e);
    return i->wide ? wide_put(be, p->ww, type, host, i->n, e) : real_put(be, p->w, type, host, i->n, e);
}
int param_get(Backend *be, const ParamInfo *i, const Param *p, DType type, void *host, Err *e) {
    if (p->half) return half_convert(i, type, host, DT_BF16, p->half, e);
    return i->wide ? wide_get(be, type, host, p->ww, i->n, e) : real_get(be, type, host, p->w, i->n, e);
}

/* ---------------------------------------------------------------- initialisation */

typedef struct {
    Model *m;
    uint64_t seed;
    double embed_std, gain;
    int mixers_only;
    Err *e;
} Init;

static uint64_t name_hash(const char *s) { // FNV-1a
    uint64_t h = 14695981039346656037u;
    for (; *s; s++) h = (h ^ (unsigned char)*s) * 1099511628211u;
    return h;
}

static double init_value(const Init *a, const ParamInfo *i, Rng *r) {
    const double fan = i->fan ? (double)i->fan : 1;
    switch (i->init) {
    case INIT_ONES:
        return 1;
    case INIT_ZEROS:
        return 0;
    case INIT_FAN_IN:
        return (2 * rng_uniform(r) - 1) / sqrt(fan);
    case INIT_A_LOG:
        return log(fmax(16 * rng_uniform(r), 1e-4)); // U may come near 0, where log would run away
    case INIT_A_LOG_1:
        return log(1 + 15 * rng_uniform(r));
    case INIT_DT_BIAS: {
        const double dt = fmax(exp(rng_uniform(r) * (log(0.1) - log(0.001)) + log(0.001)), 1e-4);
        return dt + log(-expm1(-dt)); // the inverse of softplus
    }
    case INIT_NORMAL:
        break;
    }
    if (i->layer < 0 && !strcmp(i->name, "model.embeddings.weight")) return a->embed_std * rng_normal(r);
    return a->gain / sqrt(fan) * (i->residual ? 1 / sqrt(2.0 * a->m->c.L) : 1) * rng_normal(r);
}

static int init_visit(void *ctx, const ParamInfo *info, Param *slot) {
    Init *a = ctx;
    if (a->mixers_only && !(info->mixer && info->copy == COPY_NONE)) return OK;
    Rng r;
    rng_seed3(&r, a->seed, name_hash(info->name), 0);
    void *mem;
    TRY(mem_alloc(&mem, info->n * sizeof(double), info->name, a->e));
    double *x = mem;
    for (size_t i = 0; i < info->n; i++) x[i] = init_value(a, info, &r);
    const int rc = param_put(a->m->be, info, slot, DT_F64, x, a->e);
    mem_free(mem);
    return rc;
}

int model_init(Model *m, uint64_t seed, double embed_std, double gain, int mixers_only, Err *e) {
    Init a = {m, seed, embed_std, gain, mixers_only, e};
    return params_walk(&m->c, &m->p, init_visit, &a);
}

/* ---------------------------------------------------------------- rope table */

/* Frequency of pair i, with the context-extension rules of linear and llama3 scaling (
 * Llama 3.1 model card code). */
static double rope_frequency(const Rope *r, int i, int D) {
    const double f = pow(r->theta, -2.0 * i / D);
    if (r->kind == ROPE_LINEAR) return f / r->factor;
    if (r->kind != ROPE_LLAMA3) return f;
    const double wavelength = 2 * acos(-1) / f;
    if (wavelength < r->original / r->high_freq) return f; // turns often: keep
    if (wavelength > r->original / r->low_freq)
        return f / r->factor; // never turns once in the original context: stretch
    const double s = (r->original / wavelength - r->low_freq) / (r->high_freq - r->low_freq);
    return (1 - s) * f / r->factor + s * f;
}

/* Positions 0..rows-1 of one table. turned 0: nothing is rotated. base: of the scale of queries, 0 without. */
static void rope_fill(double *t, const Config *c, int rows, int turned, double base) {
    const int half = c->D / 2;
    for (int i = 0; i < half; i++) {
        const double f = turned ? rope_frequency(&c->rope, i, c->D) : 0;
        for (int pos = 0; pos < rows; pos++) {
            const double s = base > 0 ? log(pos + base) / log(base) : 1;
            t[((size_t)pos * half + i) * 2] = s * cos(pos * f);
            t[((size_t)pos * half + i) * 2 + 1] = s * sin(pos * f);
        }
    }
}

size_t model_rope_bytes(const Config *c, const Backend *be, int rows) {
    return (size_t)rows * c->D * be->wide_size * (c->no_rope || c->logit_base > 0 ? 3 : 1);
}

int model_rope(Model *m, int rows, Err *e) {
    const Config *c = &m->c;
    if (rows <= m->rope_rows) return OK;
    const size_t n = (size_t)rows * c->D, all = model_rope_bytes(c, m->be, rows) / m->be->wide_size;
    void *host, *table;
    TRY(mem_alloc(&host, all * sizeof(double), "rope table", e));
    rope_fill(host, c, rows, 1, 0);
    if (all > n) {
        rope_fill((double *)host + n, c, rows, !c->no_rope, c->logit_base);
        rope_fill((double *)host + 2 * n, c, rows, !c->no_rope, 0);
    }
    int rc = m->be->alloc(m->be, &table, all * m->be->wide_size, "rope table", e);
    if (!rc && (rc = wide_put(m->be, table, DT_F64, host, all, e))) m->be->release(m->be, table);
    mem_free(host);
    if (rc) return rc;
    m->be->release(m->be, m->rope);
    m->rope = m->rope_q = m->rope_k = table;
    if (all > n) m->rope_q = wide_at(m->be, table, n), m->rope_k = wide_at(m->be, table, 2 * n);
    m->rope_rows = rows;
    return OK;
}

/* ---------------------------------------------------------------- one layer */

MixerCall *layer_call(const Model *m, Pass *p, int l) {
    layer_weights(m, l);
    p->call.be = m->be;
    p->call.c = &m->c;
    p->call.p = &m->p.layer[l].mix;
    p->call.rope_q = m->c.mixer[l] ? m->rope : m->rope_q;
    p->call.rope_k = m->c.mixer[l] ? m->rope : m->rope_k;
    p->call.start = p->start;
    p->call.B = p->B;
    p->call.T = p->T;
    p->call.chunk = m->chunk;
    return &p->call;
}

void model_embed(const Model *m, Pass *p, Real *x) {
    m->be->op->embed_forward(x, m->p.embed.w, p->ids, p->N, m->c.C, m->c.VOC);
}

void layer_norm_in(const Model *m, Pass *p, int l, const Real *x) {
    LayerActs *a = &p->layer[l];
    layer_weights(m, l);
    m->be->op->rmsnorm_forward(a->n1, a->r1, x, m->p.layer[l].attn_norm.w, m->c.norm_eps, p->N, m->c.C);
}

void layer_mixer(const Model *m, Pass *p, int l, Real *y) {
    const Mixer *mix = mixer_at(m->c.mixer[l]);
    mix->forward(mix, layer_call(m, p, l), &p->layer[l].mix, y, p->layer[l].n1);
}

void layer_mlp(const Model *m, Pass *p, int l, const Real *x, const Real *y, Real *x_out) {
    const Ops *op = m->be->op;
    const LayerParams *w = &m->p.layer[l];
    LayerActs *a = &p->layer[l];
    const int N = p->N, C = m->c.C, F = m->c.F;
    layer_weights(m, l);
    op->add_rmsnorm_forward(a->x2, a->n2, a->r2, x, y, w->mlp_norm.w, m->c.norm_eps, N, C);
    op->linear_forward(a->gate, a->n2, w->gate.w, NULL, N, C, F);
    op->linear_forward(a->up, a->n2, w->up.w, NULL, N, C, F);
    op->swiglu_forward(a->act, a->gate, a->up, (size_t)N * F);
    op->linear_forward(p->mix_out, a->act, w->down.w, NULL, N, F, C);
    op->add(x_out, a->x2, p->mix_out, (size_t)N * C);
}

void layer_forward(const Model *m, Pass *p, int l, const Real *x, Real *x_out) {
    layer_norm_in(m, p, l, x);
    layer_mixer(m, p, l, p->mix_out);
    layer_mlp(m, p, l, x, p->mix_out, x_out);
}

/* n1, n2, act were left to later layers: once more, by the same ops on the same numbers, so the bits are the same. */
static int recomputes(const Pass *p) { return !(p->flags & (PASS_CHECKPOINT | PASS_KEEP)); }

void layer_mlp_backward(Model *m, Pass *p, int l, Real *dx) {
    Backend *be = m->be;
    const Ops *op = be->op;
    LayerParams *w = &m->p.layer[l];
    LayerActs *a = &p->layer[l];
    const int N = p->N, C = m->c.C, F = m->c.F;
    const size_t f = (size_t)N * F;
    layer_weights(m, l);
    if (recomputes(p)) {
        op->rmsnorm_forward(a->n2, a->r2, a->x2, w->mlp_norm.w, m->c.norm_eps, N, C);
        op->swiglu_forward(a->act, a->gate, a->up, f);
    }
    Real *dact = p->dact[0], *dgate = p->dact[1], *dup = p->dact[2];
    // x_out = x2 + down(swiglu(gate n2, up n2)): dx is dL/dx2 already, the branch adds to it
    be->zero(be, dact, f * be->real_size);
    be->zero(be, dgate, f * be->real_size);
    be->zero(be, dup, f * be->real_size);
    be->zero(be, p->dn, (size_t)N * C * be->real_size);
    op->linear_backward(dact, w->down.g, NULL, dx, a->act, w->down.w, N, F, C);
    op->swiglu_backward(dgate, dup, dact, a->gate, a->up, f);
    op->linear_backward(p->dn, w->gate.g, NULL, dgate, a->n2, w->gate.w, N, C, F);
    op->linear_backward(p->dn, w->up.g, NULL, dup, a->n2, w->up.w, N, C, F);
    op->rmsnorm_backward(dx, w->mlp_norm.g, p->dn, a->x2, w->mlp_norm.w, a->r2, N, C);
}

void layer_backward(Model *m, Pass *p, int l, Real *dx) {
    Backend *be = m->be;
    LayerActs *a = &p->layer[l];
    const Mixer *mix = mixer_at(m->c.mixer[l]);
    layer_mlp_backward(m, p, l, dx);
    // x2 = x + mixer(n1)
    if (recomputes(p)) layer_norm_in(m, p, l, a->x);
    be->zero(be, p->dn, (size_t)p->N * m->c.C * be->real_size);
    mix->backward(mix, layer_call(m, p, l), &a->mix, p->dn, dx, a->n1);
    be->op->rmsnorm_backward(dx, m->p.layer[l].attn_norm.g, p->dn, a->x, m->p.layer[l].attn_norm.w, a->r1, p->N,
                             m->c.C);
}

/* ---------------------------------------------------------------- the stack */

void model_forward(const Model *m, Pass *p) {
    const int L = m->c.L;
    model_embed(m, p, p->layer[0].x);
    for (int l = 0; l < L; l++) layer_forward(m, p, l, p->layer[l].x, l + 1 < L ? p->layer[l + 1].x : p->x);
    m->be->op->rmsnorm_forward(p->h, p->r, p->x, m->p.norm.w, m->c.norm_eps, p->N, m->c.C);
}

void model_backward(Model *m, Pass *p, const Real *dh) {
    Backend *be = m->be;
    be->zero(be, p->dx, (size_t)p->N * m->c.C * be->real_size);
    be->op->rmsnorm_backward(p->dx, m->p.norm.g, dh, p->x, m->p.norm.w, p->r, p->N, m->c.C);
    for (int l = m->c.L - 1; l >= 0; l--) {
        // only layer inputs were kept: run the layer again, into the memory all layers share
        if (p->flags & PASS_CHECKPOINT) layer_forward(m, p, l, p->layer[l].x, p->recompute);
        layer_backward(m, p, l, p->dx);
    }
    if (m->p.embed.g) be->op->embed_backward(m->p.embed.g, p->dx, p->ids, p->N, m->c.C, m->c.VOC);
}
