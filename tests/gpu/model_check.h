/* model_check.h - whole models on one backend against another: every gradient of one batch, and the losses of some
 * training steps.
 * Used by tests/test_cuda.c on the emulator and by tests/gpu/verify.c on a device. */
#ifndef HYB_MODEL_CHECK_H
#define HYB_MODEL_CHECK_H
#include <math.h>
#include <stdio.h>
#include <string.h>
#include "base/mem.h"
#include "base/rng.h"
#include "method/loss.h"
#include "method/optim.h"
#include "model/model.h"

typedef struct {
    Backend *be;
    Model m;
    Pass p;
    Loss l;
} ModelRun;

static void model_run_close(ModelRun *r) {
    loss_close(&r->l);
    pass_close(&r->p);
    model_close(&r->m);
    backend_close(r->be);
    memset(r, 0, sizeof *r);
}
static int model_run_open(ModelRun *r, const char *backend, const Config *c, int B, int T, int chunk, Err *e) {
    memset(r, 0, sizeof *r);
    int rc = backend_open(&r->be, backend, 1, e);
    if (!rc) rc = model_open(&r->m, c, r->be, GRAD_ALL, e);
    if (!rc) r->m.chunk = chunk, rc = model_init(&r->m, 7, 0.5, 1.0, 0, e);
    if (!rc) rc = pass_open(&r->p, &r->m, B, T, PASS_TRAIN, e);
    if (!rc) rc = loss_open(&r->l, &r->m, 0, B * T, e);
    if (rc) model_run_close(r);
    return rc;
}

/* Random tokens, in documents when `start` is given, and next-token targets. */
static void model_batch(int *ids, int *target, int *start, int B, int T, int VOC, uint64_t seed) {
    Rng g;
    rng_seed(&g, seed);
    for (int n = 0; n < B * T; n++) {
        ids[n] = (int)rng_below(&g, (uint64_t)VOC);
        target[n] = (int)(((unsigned)ids[n] * 5u + 3u) % (unsigned)VOC); // something that can be learned
        if (start) start[n] = n % T == 0 ? 0 : rng_below(&g, 12) == 0 ? n % T : start[n - 1];
    }
}

/* The other run gets this one's weights, which may be rounded. */
typedef struct {
    ModelRun *from, *to;
    Err *e;
} WeightCopy;
static int weight_copy_visit(void *ctx, const ParamInfo *info, Param *slot) {
    WeightCopy *w = ctx;
    ParamInfo found;
    Param other;
    void *host;
    TRY(mem_alloc(&host, info->n * sizeof(double), "weights", w->e));
    int rc = param_get(w->from->be, info, slot, DT_F64, host, w->e);
    if (!rc && !model_find(&w->to->m, info->name, &found, &other))
        rc = err_set(w->e, ERR_CHECK, "%s: not in the other model", info->name);
    if (!rc) rc = param_put(w->to->be, &found, &other, DT_F64, host, w->e);
    mem_free(host);
    return rc;
}

typedef struct {
    ModelRun *of, *ref;
    double worst;
    char where[160];
    Err *e;
} GradCompare;
static int grad_compare_visit(void *ctx, const ParamInfo *info, Param *slot) {
    GradCompare *c = ctx;
    ParamInfo found;
    Param other;
    void *a, *b;
    TRY(mem_alloc(&a, info->n * sizeof(double), "gradient", c->e));
    int rc = mem_alloc(&b, info->n * sizeof(double), "gradient", c->e);
    if (!rc) rc = wide_get(c->of->be, DT_F64, a, slot->g, info->n, c->e);
    if (!rc && model_find(&c->ref->m, info->name, &found, &other))
        rc = wide_get(c->ref->be, DT_F64, b, other.g, info->n, c->e);
    double num = 0, den = 0;
    for (size_t i = 0; i < info->n && !rc; i++) {
        const double d = ((double *)a)[i] - ((double *)b)[i];
        num += d * d, den += ((double *)b)[i] * ((double *)b)[i];
    }
    const double rel = den > 0 ? sqrt(num / den) : sqrt(num);
    if (!(rel <= c->worst))
        c->worst = isfinite(rel) ? rel : INFINITY, snprintf(c->where, sizeof c->where, "%s", info->name);
    mem_free(a);
    if (!rc) mem_free(b);
    return rc;
}

/* Gradient of the mean cross-entropy of one batch on `backend` against ref64 with the same weights:
 * the worst relative error and its tensor. */
static inline int model_check_gradient(const char *backend, const Config *c, int B, int T, int chunk, double *worst,
                                       char *where, size_t cap, Err *e) {
    ModelRun of, ref = {0};
    void *mem;
    double value;
    TRY(mem_alloc(&mem, (size_t)B * T * 3 * sizeof(int), "batch", e));
    int *ids = mem, *target = ids + B * T, *start = target + B * T,
        rc = model_run_open(&of, backend, c, B, T, chunk, e);
    model_batch(ids, target, start, B, T, c->VOC, 5);
    if (!rc) rc = model_run_open(&ref, "ref64", c, B, T, chunk, e);
    WeightCopy w = {&of, &ref, e};
    if (!rc) rc = params_walk(&of.m.c, &of.m.p, weight_copy_visit, &w);
    ModelRun *run[2] = {&of, &ref};
    for (int i = 0; i < 2 && !rc; i++) {
        ModelRun *r = run[i];
        rc = pass_input(&r->p, &r->m, ids, start, e);
        if (rc) break;
        model_zero_grad(&r->m);
        model_forward(&r->m, &r->p);
        rc = loss_xent(&r->l, &r->m, &r->p, target, NULL, 1, &value, NULL, NULL, e);
        if (!rc) model_backward(&r->m, &r->p, r->l.dh), rc = r->be->sync(r->be, e);
    }
    GradCompare g = {&of, &ref, 0, "", e};
    if (!rc) rc = params_walk(&of.m.c, &of.m.p, grad_compare_visit, &g);
    *worst = g.worst;
    snprintf(where, cap, "%s", g.where);
    if (ref.be) model_run_close(&ref);
    if (of.be) model_run_close(&of);
    mem_free(mem);
    return rc;
}

/* `steps` steps of AdamW on `backend`: loss[i] before step i. */
static inline int model_train(const char *backend, const Config *c, int B, int T, int chunk, int steps, double *loss,
                              Err *e) {
    const OptimConfig oc = {.lr = 3e-3,
                            .lr_attn = 3e-3,
                            .beta1 = 0.9,
                            .beta2 = 0.95,
                            .eps = 1e-8,
                            .decay = 0.01,
                            .clip = 1,
                            .schedule = {.kind = SCHEDULE_CONSTANT}};
    ModelRun r;
    Optim o = {0};
    void *mem;
    TRY(mem_alloc(&mem, (size_t)B * T * 2 * sizeof(int), "batch", e));
    int *ids = mem, *target = ids + B * T, rc = model_run_open(&r, backend, c, B, T, chunk, e);
    if (!rc) rc = optim_open(&o, &r.m, &oc, e);
    if (!rc) model_zero_grad(&r.m);
    for (int i = 0; i < steps && !rc; i++) {
        double norm, lr;
        model_batch(ids, target, NULL, B, T, c->VOC, 100 + (uint64_t)i);
        rc = pass_input(&r.p, &r.m, ids, NULL, e);
        if (rc) break;
        model_forward(&r.m, &r.p);
        rc = loss_xent(&r.l, &r.m, &r.p, target, NULL, 1, &loss[i], NULL, NULL, e);
        if (rc) break;
        model_backward(&r.m, &r.p, r.l.dh);
        rc = optim_step(&o, steps, &norm, &lr, e);
        model_zero_grad(&r.m);
    }
    optim_close(&o);
    if (r.be) model_run_close(&r);
    mem_free(mem);
    return rc;
}

/* The largest difference of two loss curves, relative to the loss or to 0.1 where it is smaller;
 * also whether the first went down. */
static inline double curve_difference(const double *a, const double *b, int n, int *learned) {
    double worst = 0;
    for (int i = 0; i < n; i++) worst = fmax(worst, isfinite(a[i]) ? fabs(a[i] - b[i]) / fmax(b[i], 0.1) : INFINITY);
    *learned = n > 1 && a[n - 1] < a[0];
    return worst;
}

static Config model_small(const char *const *mixer, int L, int C, int H, int Hk, int D, int F, int VOC) {
    Config c = {.family = "qwen3",
                .C = C,
                .L = L,
                .H = H,
                .Hk = Hk,
                .D = D,
                .F = F,
                .VOC = VOC,
                .tied = 1,
                .qk_norm = 1,
                .max_positions = 4096};
    c.norm_eps = c.o_norm_eps = 1e-6;
    c.rope = (Rope){.kind = ROPE_PLAIN, .theta = 10000};
    c.conv_width = 4;
    c.swa_window = 9;
    c.bos = -1;
    for (int l = 0; l < L; l++) c.mixer[l] = mixer_find(mixer[l]);
    return c;
}
#endif
