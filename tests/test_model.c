/* test_model.c - the whole decoder: every parameter tensor against float64 differences, in every mixer;
 * recomputation, document boundaries, generation against the full forward. */
#include "base/mem.h"
#include "base/rng.h"
#include "model/generate.h"
#include "model/model.h"
#include "tests/suite.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static Config tiny(const char *mixer0, const char *mixer1) {
    Config c = {
        .family = "llama", .C = 8, .L = 2, .H = 4, .Hk = 2, .D = 2, .F = 12, .VOC = 11, .tied = 1, .max_positions = 64};
    c.norm_eps = 1e-5;
    c.o_norm_eps = 1e-5;
    c.rope = (Rope){.kind = ROPE_PLAIN, .theta = 100};
    c.conv_width = 4;
    c.swa_window = 3;
    c.bos = -1;
    c.mixer[0] = mixer_find(mixer0);
    c.mixer[1] = mixer_find(mixer1);
    ck_assert_int_ge(c.mixer[0], 0);
    ck_assert_int_ge(c.mixer[1], 0);
    return c;
}

/* A model with its pass, and the loss sum_n weight_n xent_n on random targets. */
typedef struct {
    Backend *be;
    Model m;
    Pass p;
    int N, *target;
    void *loss, *weight, *dh, *work, *dev_target;
    HeadDims d;
    double host_weight[64];
} Rig;

static void ok(int rc, const Err *e) {
    if (rc) ck_abort_msg("%s (%s)", e->msg, e->hint);
}

static void rig_open(Rig *r, const Config *c, const char *backend, int B, int T, unsigned flags, const int *start) {
    Err e = {0};
    memset(r, 0, sizeof *r);
    ok(backend_open(&r->be, backend, 1, &e), &e);
    ok(model_open(&r->m, c, r->be, GRAD_ALL, &e), &e);
    r->m.chunk = 3;
    ok(model_init(&r->m, 7, 0.7, 1.0, 0, &e), &e);
    ok(pass_open(&r->p, &r->m, B, T, PASS_TRAIN | flags, &e), &e);
    r->N = B * T;
    int ids[64];
    static int target[64];
    Rng g;
    rng_seed(&g, 3);
    for (int n = 0; n < r->N; n++) {
        ids[n] = (int)rng_below(&g, c->VOC);
        target[n] = (int)rng_below(&g, c->VOC);
        r->host_weight[n] = n == 1 ? 0 : rng_normal(&g);
    }
    ok(pass_input(&r->p, &r->m, ids, start, &e), &e);
    r->d = (HeadDims){.N = r->N, .C = c->C, .VOC = c->VOC, .block = 4};
    ok(r->be->alloc(r->be, &r->loss, r->N * r->be->wide_size, "t", &e), &e);
    ok(r->be->alloc(r->be, &r->weight, r->N * r->be->wide_size, "t", &e), &e);
    ok(r->be->alloc(r->be, &r->dh, (size_t)r->N * c->C * r->be->real_size, "t", &e), &e);
    ok(r->be->alloc(r->be, &r->work, head_work(&r->d), "t", &e), &e);
    ok(r->be->alloc(r->be, &r->dev_target, r->N * sizeof(int), "t", &e), &e);
    ok(wide_put(r->be, r->weight, DT_F64, r->host_weight, r->N, &e), &e);
    r->be->upload(r->be, r->dev_target, target, r->N * sizeof(int));
}

static void rig_close(Rig *r) {
    void *mem[] = {r->loss, r->weight, r->dh, r->work, r->dev_target};
    for (int i = 0; i < 5; i++) r->be->release(r->be, mem[i]);
    pass_close(&r->p);
    model_close(&r->m);
    backend_close(r->be);
}

static double rig_loss(Rig *r, int backward) {
    Err e = {0};
    double loss[64], sum = 0;
    Param *head = params_head(&r->m.p);
    model_forward(&r->m, &r->p);
    if (backward) {
        model_zero_grad(&r->m);
        r->be->zero(r->be, r->dh, (size_t)r->N * r->m.c.C * r->be->real_size);
    }
    r->be->op->head_xent(r->loss, NULL, backward ? r->dh : NULL, backward ? head->g : NULL, r->p.h, head->w,
                         r->dev_target, r->weight, r->work, &r->d);
    if (backward) model_backward(&r->m, &r->p, r->dh);
    ok(wide_get(r->be, DT_F64, loss, r->loss, r->N, &e), &e);
    for (int n = 0; n < r->N; n++) sum += loss[n] * r->host_weight[n];
    return sum;
}

/* Central difference over four points with step h: its error falls with h^4, its rounding grows with 1/h. */
static double difference(Rig *r, const ParamInfo *info, const Param *slot, double *w, size_t i, double h) {
    Err e = {0};
    const double keep = w[i], at[4] = {keep + h, keep - h, keep + 2 * h, keep - 2 * h};
    double f[4];
    for (int k = 0; k < 4; k++) {
        w[i] = at[k];
        ok(param_put(r->be, info, slot, DT_F64, w, &e), &e);
        f[k] = rig_loss(r, 0);
    }
    w[i] = keep;
    return (8 * (f[0] - f[1]) - (f[2] - f[3])) / (12 * h);
}

/* Relative error of the gradient of one tensor. Two step sizes, because tensors of small gradient are drowned in
 * rounding at the one and those of strong curvature (norms of nearly zero vectors) in truncation at the other;
 * a wrong gradient agrees with neither. */
typedef struct {
    Rig *r;
    double worst;
    char where[160];
    int tensors;
} Diff;
static int diff_visit(void *ctx, const ParamInfo *info, Param *slot) {
    Diff *d = ctx;
    Rig *r = d->r;
    Err e = {0};
    double *w = calloc(info->n, sizeof *w), *g = calloc(info->n, sizeof *g), rel = INFINITY;
    ok(param_get(r->be, info, slot, DT_F64, w, &e), &e);
    ok(wide_get(r->be, DT_F64, g, slot->g, info->n, &e), &e);
    for (double h = 2e-5; h < 1e-3 && rel >= 1e-8; h *= 10) {
        double num = 0, den = 0;
        for (size_t i = 0; i < info->n; i++) {
            const double fd = difference(r, info, slot, w, i, h);
            num += (fd - g[i]) * (fd - g[i]);
            den += fd * fd;
        }
        ck_assert_msg(den > 0, "%s: the loss does not depend on it", info->name);
        rel = fmin(rel, sqrt(num / den));
    }
    ok(param_put(r->be, info, slot, DT_F64, w, &e), &e);
    ck_assert_msg(rel < 1e-7, "%s: relative error %g", info->name, rel);
    if (rel > d->worst) {
        d->worst = rel;
        snprintf(d->where, sizeof d->where, "%s", info->name);
    }
    d->tensors++;
    free(w);
    free(g);
    return OK;
}

static void gradients(const Config *c, const char *label, unsigned flags, const int *start) {
    Rig r;
    rig_open(&r, c, "ref64", 2, 7, flags, start);
    rig_loss(&r, 1);
    Diff d = {.r = &r};
    params_walk(c, &r.m.p, diff_visit, &d);
    printf("ok  gradients %-28s %2d tensors, worst %.1e of 1e-7 (%s)\n", label, d.tensors, d.worst, d.where);
    rig_close(&r);
}

START_TEST(test_gradients) {
    for (int i = 1; i < mixer_count(); i++) { // every mixer there is
        const char *name = mixer_at(i)->name;
        const Config c = tiny("softmax", name);
        gradients(&c, name, 0, NULL);
    }
    const Config rev = tiny("gdn_v4", "softmax");
    gradients(&rev, "gdn_v4 below softmax", 0, NULL);
}
END_TEST

START_TEST(test_gradients_variants) {
    const int start[14] = {0, 0, 2, 2, 2, 5, 5, 0, 1, 2, 2, 2, 2, 2};
    Config c = tiny("softmax", "gdn_v4");
    gradients(&c, "recomputed", PASS_CHECKPOINT, NULL);
    gradients(&c, "documents", 0, start);
    c = tiny("softmax", "gdn_v3");
    gradients(&c, "documents, convolution", 0, start);
    c = tiny("softmax", "gla_v1");
    gradients(&c, "documents, gla", 0, start);
    c = tiny("softmax", "kda_v2");
    gradients(&c, "documents, kda, convolution", 0, start);
    c = tiny("softmax", "gdn_v5");
    c.qkv_bias = c.linear_bias = 1;
    gradients(&c, "stacked projections, biases", 0, NULL);
    c = tiny("kda_v1", "swa_v1");
    c.D = 4;
    c.qk_norm = 1;
    gradients(&c, "kda below swa, wide heads", PASS_CHECKPOINT, start);
    c = tiny("softmax", "gdn_v4");
    c.tied = 0;
    c.qkv_bias = c.linear_bias = c.o_bias = 1;
    gradients(&c, "untied, biases (qwen2)", 0, NULL);
    c = tiny("softmax", "softmax");
    c.qk_norm = 1;
    c.D = 4; // H*D = 16 != C
    gradients(&c, "q/k norm, wide heads (qwen3)", 0, NULL);
    c = tiny("softmax", "gdn_v4");
    c.D = 4;
    c.window = 3;
    gradients(&c, "window (mistral), wide heads", 0, NULL);
    c = tiny("softmax", "gdn_v4");
    c.rope = (Rope){.kind = ROPE_LLAMA3, .theta = 100, .factor = 8, .low_freq = 1, .high_freq = 4, .original = 16};
    gradients(&c, "llama3 rope", 0, NULL);
    c = tiny("softmax", "gdn_v4");
    c.no_rope = 1;
    gradients(&c, "no rotary embedding, documents", 0, start);
    c.logit_base = 3;
    gradients(&c, "... and scaled queries", 0, NULL);
    c = tiny("softmax", "swa_v1");
    c.logit_base = 3;
    c.qk_norm = 1;
    gradients(&c, "scaled queries, q/k norm, swa", PASS_CHECKPOINT, NULL);
}
END_TEST

/* Hidden states (T, C) of one layer of softmax attention on these tokens. W_q is multiplied by scale first. */
static void hidden(double *h, const Config *c, const int *ids, int T, double scale) {
    Rig r;
    Err e = {0};
    ParamInfo info;
    Param q;
    double w[64];
    rig_open(&r, c, "ref64", 1, T, 0, NULL);
    ck_assert(model_find(&r.m, "model.layers.0.attn.q_proj.weight", &info, &q));
    ck_assert_uint_le(info.n, 64);
    ok(param_get(r.be, &info, &q, DT_F64, w, &e), &e);
    for (size_t i = 0; i < info.n; i++) w[i] *= scale;
    ok(param_put(r.be, &info, &q, DT_F64, w, &e), &e);
    ok(pass_input(&r.p, &r.m, ids, NULL, &e), &e);
    model_forward(&r.m, &r.p);
    r.be->download(r.be, h, r.p.h, (size_t)T * c->C * sizeof(double));
    rig_close(&r);
}
static double row_distance(const double *a, const double *b, int t) {
    double d = 0;
    for (int i = 8 * t; i < 8 * t + 8; i++) d = fmax(d, fabs(a[i] - b[i]));
    return d;
}

/* What Config.no_rope and logit_base say, word for word. */
START_TEST(test_positions) {
    enum { T = 7 };
    const int ids[T] = {1, 2, 3, 4, 5, 6, 7}, mixed[T] = {4, 2, 6, 1, 3, 5, 7};
    double a[T * 8], b[T * 8], base[T * 8];
    Config c = tiny("softmax", "softmax");
    c.L = 1;
    hidden(a, &c, ids, T, 1);
    hidden(b, &c, mixed, T, 1);
    ck_assert(row_distance(a, b, 6) > 1e-3); // with rope the order of what came before counts
    c.no_rope = 1;
    hidden(a, &c, ids, T, 1);
    hidden(b, &c, mixed, T, 1);
    ck_assert(row_distance(a, b, 6) < 1e-12); // without, attention is a function of the set
    ck_assert(row_distance(a, b, 3) > 1e-3);
    for (c.no_rope = 0; c.no_rope < 2; c.no_rope++) {
        c.logit_base = 4;
        hidden(base, &c, ids, T, 1);
        c.logit_base = 0;
        hidden(a, &c, ids, T, 1);
        ck_assert(row_distance(a, base, 6) > 1e-4);
        for (int t = 0; t < T; t += 3) {
            hidden(b, &c, ids, T, log(t + 4) / log(4));
            ck_assert(row_distance(b, base, t) < 1e-12);
        }
        c.logit_base = 1e300; // so large that it is none
        hidden(b, &c, ids, T, 1);
        ck_assert(!memcmp(a, b, sizeof a));
        c.logit_base = 0;
    }
    Rig r;
    Err e = {0};
    const int start[T] = {0, 0, 0, 3, 3, 3, 3};
    c = tiny("softmax", "gdn_v4");
    c.logit_base = 4;
    rig_open(&r, &c, "ref64", 1, T, 0, NULL);
    ck_assert_int_eq(pass_input(&r.p, &r.m, ids, start, &e), ERR_USAGE); // which position would it be?
    ck_assert_ptr_nonnull(strstr(e.msg, "logit_base"));
    rig_close(&r);
}
END_TEST

typedef struct {
    Model *other;
    int n;
} Same;
static int same_gradient(void *ctx, const ParamInfo *info, Param *slot) {
    Same *s = ctx;
    ParamInfo other;
    Param p;
    ck_assert(model_find(s->other, info->name, &other, &p));
    ck_assert_msg(!memcmp(slot->g, p.g, info->n * s->other->be->wide_size), "%s differs", info->name);
    s->n++;
    return OK;
}

/* Recomputing layers in backward must give the same bits as keeping them. */
START_TEST(test_checkpoint_bits) {
    const Config c = tiny("gdn_v4", "softmax");
    Rig a, b;
    rig_open(&a, &c, "ref32", 2, 7, 0, NULL);
    rig_open(&b, &c, "ref32", 2, 7, PASS_CHECKPOINT, NULL);
    ck_assert(rig_loss(&a, 1) == rig_loss(&b, 1));
    Same same = {&b.m, 0};
    params_walk(&a.m.c, &a.m.p, same_gradient, &same);
    ck_assert_int_gt(same.n, 20);
    ck_assert_msg(b.p.bytes < a.p.bytes, "recomputation saves nothing: %zu bytes against %zu", b.p.bytes, a.p.bytes);
    rig_close(&a);
    rig_close(&b);
}
END_TEST

/* Held weights (Backend.prepack): the same bits, before and after weights change, by an update or by param_put;
 * all memory comes back. */
static int nudge_visit(void *ctx, const ParamInfo *info, Param *slot) {
    Model *m = ctx;
    Err e = {0};
    double *w = calloc(info->n, sizeof *w);
    ok(param_get(m->be, info, slot, DT_F64, w, &e), &e);
    for (size_t i = 0; i < info->n; i++) w[i] += 0.01 * (double)(i % 7);
    ok(param_put(m->be, info, slot, DT_F64, w, &e), &e);
    free(w);
    return OK;
}
START_TEST(test_held_weights) {
    Config c = tiny("gdn_v4", "softmax");
    c.F = 340; // wide enough for the panels of backward
    Rig a, b;
    rig_open(&a, &c, "cpu", 4, 7, 0, NULL);
    rig_open(&b, &c, "cpu", 4, 7, 0, NULL);
    const size_t before = mem_now();
    model_prepack(&b.m, 1);
    for (int round = 0; round < 3; round++) {
        const double value = rig_loss(&a, 1);
        for (int again = 0; again < 2; again++) ck_assert_msg(value == rig_loss(&b, 1), "round %d", round);
        Same same = {&b.m, 0};
        params_walk(&a.m.c, &a.m.p, same_gradient, &same);
        ck_assert_uint_gt(mem_now(), before);
        ck_assert_uint_le(mem_now() - before, model_prepack_bytes(&b.m, 1) + 4096 * sizeof(void *)); // and the table
        Rig *const r[] = {&a, &b};
        for (int i = 0; i < 2; i++) {
            if (round) params_walk(&c, &r[i]->m.p, nudge_visit, &r[i]->m);
            else {
                Param *up = &r[i]->m.p.layer[0].up;
                // float weights: real and wide are one type
                r[i]->be->op->accumulate(up->w, (Real *)up->g, -0.1, up->n);
                model_invalidate(&r[i]->m);
            }
        }
    }
    model_prepack_release(&b.m);
    ck_assert_uint_eq(mem_now(), before);
    model_prepack(&b.m, 0); // left to model_close
    rig_close(&a);
    rig_close(&b);
}
END_TEST

/* Two documents in one window give what each gives alone: attention, state and convolution all stop at the boundary.
 * (Rope is relative.) */
START_TEST(test_documents) {
    const char *names[] = {"softmax", "gdn_v3", "gdn_v4", "gdn_v5", "gla_v1", "kda_v1", "kda_v2", "swa_v1"};
    for (int i = 0; i < 8; i++) {
        const Config c = tiny(names[i], "softmax");
        Err e = {0};
        Rig r, one;
        const int start[7] = {0, 0, 0, 3, 3, 3, 3};
        rig_open(&r, &c, "ref64", 1, 7, 0, start);
        rig_open(&one, &c, "ref64", 1, 4, 0, NULL);
        int ids[7];
        r.be->download(r.be, ids, r.p.ids, sizeof ids);
        ok(pass_input(&one.p, &one.m, ids + 3, NULL, &e), &e);
        model_forward(&r.m, &r.p);
        model_forward(&one.m, &one.p);
        double ha[56], hb[32];
        ok(real_get(r.be, DT_F64, ha, r.p.h, 56, &e), &e);
        ok(real_get(one.be, DT_F64, hb, one.p.h, 32, &e), &e);
        for (int k = 0; k < 32; k++)
            ck_assert_msg(fabs(ha[24 + k] - hb[k]) < 1e-11, "%s: element %d differs", names[i], k);
        rig_close(&r);
        rig_close(&one);
    }
}
END_TEST

/* Weights kept in BF16: once rounded, the same bits come out, whichever layer was asked for last, in half the memory.
 * */
typedef struct {
    Model *from, *to;
} Rounded;
static int round_visit(void *ctx, const ParamInfo *info, Param *slot) {
    const Rounded *k = ctx;
    Err e = {0};
    double *w = calloc(info->n, sizeof *w);
    uint16_t *h = calloc(info->n, sizeof *h);
    Param p;
    ok(param_get(k->from->be, info, slot, DT_F64, w, &e), &e);
    ck_assert(model_find(k->to, info->name, NULL, &p));
    if (p.half) {
        ok(param_get(k->from->be, info, slot, DT_BF16, h, &e), &e);
        ok(param_put(k->from->be, info, slot, DT_BF16, h, &e), &e);
        ok(param_put(k->to->be, info, &p, DT_BF16, h, &e), &e);
    } else ok(param_put(k->to->be, info, &p, DT_F64, w, &e), &e);
    free(w);
    free(h);
    return OK;
}
START_TEST(test_half_weights) {
    const char *names[] = {"ref64", "ref32", "cpu"};
    for (int i = 0; i < 3; i++) {
        const Config c = tiny("softmax", "gdn_v1");
        Err e = {0};
        Rig r;
        Model half;
        Pass p;
        int ids[14];
        char a[14 * 8 * 8], b[14 * 8 * 8];
        rig_open(&r, &c, names[i], 2, 7, 0, NULL);
        ok(model_open(&half, &c, r.be, GRAD_HALF, &e), &e);
        half.chunk = 3;
        ok(params_walk(&c, &r.m.p, round_visit, &(Rounded){&r.m, &half}), &e);
        ok(pass_open(&p, &half, 2, 7, 0, &e), &e);
        r.be->download(r.be, ids, r.p.ids, sizeof ids);
        ok(pass_input(&p, &half, ids, NULL, &e), &e);
        const size_t n = 14 * (size_t)c.C * r.be->real_size;
        ck_assert_uint_le(n, sizeof a);
        model_find(&half, "model.layers.1.mlp.down_proj.weight", NULL, NULL); // leaves layer 1 in place
        for (int again = 0; again < 2; again++) {
            model_forward(&r.m, &r.p);
            model_forward(&half, &p);
            r.be->download(r.be, a, r.p.h, n);
            r.be->download(r.be, b, p.h, n);
            ck_assert_msg(!memcmp(a, b, n), "%s", names[i]);
        }
        pass_close(&p);
        model_close(&half);
        rig_close(&r);
    }
}
END_TEST

/* Prefill in pieces of any size, then token by token, must give the logits of the full forward at every position. */
START_TEST(test_generation) {
    enum { T = 13, B = 2 };
    for (int i = 0; i < mixer_count(); i++) {
        const char *name = mixer_at(i)->name;
        Config c = tiny(name, "softmax");
        c.window = i % 3 == 1 ? 1 + i % 4 : 0;
        c.qk_norm = i == 1;
        c.no_rope = i % 4 == 2;
        c.logit_base = i % 3 ? 0 : 5;
        Rig r;
        Err e = {0};
        rig_open(&r, &c, "ref64", B, T, 0, NULL);
        model_forward(&r.m, &r.p);
        int ids[B * T];
        r.be->download(r.be, ids, r.p.ids, sizeof ids);
        void *full;
        ok(r.be->alloc(r.be, &full, (size_t)B * T * c.VOC * r.be->real_size, "t", &e), &e);
        r.be->op->linear_forward(full, r.p.h, params_head(&r.m.p)->w, NULL, B * T, c.C, c.VOC);
        float want[B * T * 11], got[B * 11];
        ok(real_get(r.be, DT_F32, want, full, (size_t)B * T * c.VOC, &e), &e);
        for (int prefill = 1; prefill <= 9; prefill += 4) {
            Decode d;
            ok(decode_open(&d, &r.m, B, T, 5, &e), &e);
            for (int round = 0; round < 2; round++) { // the second round after a reset
                decode_reset(&d);
                for (int done = 0; done < T;) {
                    const int t = done ? 1 : prefill;
                    int piece[B * T];
                    for (int b = 0; b < B; b++) memcpy(piece + b * t, ids + b * T + done, t * sizeof(int));
                    ok(decode_extend(&d, piece, t, got, &e), &e);
                    done += t;
                    for (int b = 0; b < B; b++)
                        for (int v = 0; v < 11; v++)
                            ck_assert_msg(fabsf(got[b * 11 + v] - want[(b * T + done - 1) * 11 + v]) < 1e-6f,
                                          "%s: token %d, sequence %d", name, done - 1, b);
                }
            }
            int more[B] = {0, 0};
            ck_assert_int_eq(decode_extend(&d, more, 1, NULL, &e), ERR_USAGE); // no room left
            e = (Err){0};
            decode_close(&d);
        }
        r.be->release(r.be, full);
        rig_close(&r);
    }
}
END_TEST

/* The cache of a windowed layer does not grow with the context, for all that many more tokens than it holds go through
 * it. */
START_TEST(test_window_cache) {
    enum { T = 60, STEP = 4, W = 5 };
    Config c = tiny("swa_v1", "softmax");
    c.swa_window = c.window = W;
    // swa_v1 over a windowed softmax layer, and two of the latter: one cache, one rule
    for (int kept = 0; kept < 2; kept++) {
        if (kept) c.mixer[0] = 0;
        Rig r;
        Err e = {0};
        Decode small, large;
        rig_open(&r, &c, "ref64", 1, T, 0, NULL);
        model_forward(&r.m, &r.p);
        int ids[T];
        r.be->download(r.be, ids, r.p.ids, sizeof ids);
        double h[T * 8];
        ok(real_get(r.be, DT_F64, h, r.p.h, T * 8, &e), &e);
        ok(decode_open(&small, &r.m, 1, 2 * W + STEP, STEP, &e), &e);
        ok(decode_open(&large, &r.m, 1, 10 * T, STEP, &e), &e);
        ck_assert_uint_eq(small.cache_bytes, large.cache_bytes);
        ck_assert_int_eq(large.state[0].rows, 2 * W + STEP);
        decode_close(&small);
        // pieces of 1 to STEP tokens, until the rows have moved several times
        for (int done = 0, i = 0; done < T; i++) {
            const int t = 1 + i % STEP < T - done ? 1 + i % STEP : T - done;
            float got[11];
            double want[11] = {0}, *w = r.be->host ? (double *)params_head(&r.m.p)->w : NULL;
            ok(decode_extend(&large, ids + done, t, got, &e), &e);
            done += t;
            for (int v = 0; v < 11; v++)
                for (int k = 0; k < 8; k++) want[v] += w[v * 8 + k] * h[(done - 1) * 8 + k];
            for (int v = 0; v < 11; v++) ck_assert_msg(fabs(got[v] - want[v]) < 1e-6, "token %d", done - 1);
        }
        decode_close(&large);
        rig_close(&r);
    }
}
END_TEST

START_TEST(test_sampling) {
    const float logits[6] = {0, 2, 1, 2, -INFINITY, NAN};
    Rng r;
    Err e = {0};
    int id, count[6] = {0};
    rng_seed(&r, 1);
    ck_assert_int_eq(sample(&(Sampler){0}, &r, logits, 6, &id, &e), OK);
    ck_assert_int_eq(id, 1); // the first maximum
    for (int i = 0; i < 20000; i++) {
        ck_assert_int_eq(sample(&(Sampler){.temperature = 1, .top_p = 1}, &r, logits, 6, &id, &e), OK);
        count[id]++;
    }
    const double z = 2 * exp(2) + exp(1) + 1;
    ck_assert_int_eq(count[4] + count[5], 0);
    ck_assert_double_eq_tol(count[1] / 20000., exp(2) / z, 0.015);
    ck_assert_double_eq_tol(count[2] / 20000., exp(1) / z, 0.015);
    ck_assert_double_eq_tol(count[0] / 20000., 1 / z, 0.01);
    for (int i = 0; i < 200; i++) {
        sample(&(Sampler){.temperature = 1, .top_p = 1, .top_k = 2}, &r, logits, 6, &id, &e);
        ck_assert(id == 1 || id == 3);
        sample(&(Sampler){.temperature = 1, .top_p = 0.3}, &r, logits, 6, &id, &e);
        ck_assert_int_eq(id, 1);
    }
    const float bad[2] = {NAN, INFINITY};
    ck_assert_int_eq(sample(&(Sampler){0}, &r, bad, 2, &id, &e), ERR_NUMERIC);
}
END_TEST

START_TEST(test_bad_config) {
    Backend *be;
    Model m;
    Err e = {0};
    ok(backend_open(&be, "ref32", 1, &e), &e);
    Config bad[8];
    for (int i = 0; i < 8; i++) bad[i] = tiny("softmax", i == 6 ? "swa_v1" : "gdn_v4");
    bad[0].D = 3;
    bad[1].Hk = 3;
    bad[2].norm_eps = NAN;
    bad[3].mixer[1] = 99;
    bad[4].L = 0;
    bad[5].rope.theta = INFINITY;
    bad[6].swa_window = 0;
    bad[7].logit_base = 1;
    const char *field[] = {"head_dim",          "num_key_value_heads", "rms_norm_eps", "layer 1",
                           "num_hidden_layers", "rope_theta",          "swa_window",   "logit_base"};
    for (int i = 0; i < 8; i++) {
        e = (Err){0};
        ck_assert_int_eq(model_open(&m, &bad[i], be, GRAD_NONE, &e), ERR_INPUT);
        ck_assert_msg(strstr(e.msg, field[i]), "'%s' does not name %s", e.msg, field[i]);
        model_close(&m);
    }
    backend_close(be);
}
END_TEST

/* Every allocation that opening a model, a pass or a decode makes is failed once: a clean error, nothing leaked (ASan),
 * nothing half built. */
START_TEST(test_out_of_memory) {
    const Config c = tiny("softmax", "gdn_v4");
    int failed = 0;
    for (long n = 0;; n++) {
        Backend *be = NULL;
        Model m = {0};
        Pass p = {0};
        Decode d = {0};
        Err e = {0};
        const size_t before = mem_now();
        mem_fail_after(n);
        int rc = backend_open(&be, "ref32", 1, &e);
        if (!rc) rc = model_open(&m, &c, be, GRAD_ALL, &e);
        if (!rc) rc = model_init(&m, 1, 1, 1, 0, &e);
        if (!rc) rc = pass_open(&p, &m, 1, 5, PASS_TRAIN, &e);
        if (!rc) rc = decode_open(&d, &m, 1, 5, 2, &e);
        mem_fail_after(-1);
        decode_close(&d);
        pass_close(&p);
        model_close(&m);
        backend_close(be);
        ck_assert_uint_eq(mem_now(), before);
        if (!rc) break;
        ck_assert_int_eq(rc, ERR_MEMORY);
        failed++;
    }
    ck_assert_int_gt(failed, 5);
}
END_TEST

SUITE("model") {
    GROUP("all", .timeout = 120);
    CASE(test_gradients);
    CASE(test_gradients_variants);
    CASE(test_positions);
    CASE(test_checkpoint_bits);
    CASE(test_held_weights);
    CASE(test_documents);
    CASE(test_half_weights);
    CASE(test_generation);
    CASE(test_window_cache);
    CASE(test_sampling);
    CASE(test_bad_config);
    CASE(test_out_of_memory);
}
