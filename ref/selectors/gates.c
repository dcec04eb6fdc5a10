/* gates.c - see gates.h. */
#include "selectors/gates.h"
#include "base/log.h"
#include "base/mem.h"
#include "selectors/gates_trained.h"
#include "selectors/parts.h"
#include <math.h>
#include <string.h>

static void gates_place(Gates *g, Arena *ar) {
    const Backend *be = g->stage1_student->be;
    const Config *c = &g->stage1_student->c;
    const size_t n = (size_t)g->sp.N * c->C;
    g->soft = arena_take(ar, n, be->real_size);
    g->lin = arena_take(ar, n, be->real_size);
    g->dy = arena_take(ar, n, be->real_size);
    g->dw = arena_take(ar, (size_t)c->C * c->H * c->D + c->C, be->wide_size);
}

static int gates_start(Gates *g, Err *e) {
    Backend *be = g->stage1_student->be;
    const Config *c = &g->stage1_student->c;
    const size_t w = (size_t)c->C * c->H * c->D + c->C; // an output projection and its bias
    Arena ar = {0};
    TRY(mem_alloc(&g->host, (2 * w + (size_t)c->L * (c->H + 1)) * sizeof(double), "gate derivatives", e));
    g->w_host = g->host;
    g->dw_host = g->w_host + w;
    g->slope = g->dw_host + w;
    TRY(pass_open(&g->sp, g->stage1_student, g->heldout->B, g->heldout->T, PASS_TRAIN | PASS_KEEP, e));
    TRY(pass_open(&g->tp, g->teacher, g->heldout->B, g->heldout->T, PASS_TRAIN | PASS_KEEP, e));
    TRY(loss_open(&g->loss, g->stage1_student, g->teacher->c.C, g->sp.N, e));
    gates_place(g, &ar);
    const size_t bytes = ar.used;
    TRY(be->alloc(be, &g->mem, bytes, "gate scratch", e));
    ar = (Arena){0};
    arena_begin(&ar, g->mem, bytes);
    gates_place(g, &ar);
    return OK;
}

int gates_open(Gates *g, Model *teacher, Model *stage1_student, Heldout *heldout, Err *e) {
    *g = (Gates){.teacher = teacher, .stage1_student = stage1_student, .heldout = heldout};
    const int rc = gates_start(g, e);
    if (rc) gates_close(g);
    return rc;
}

void gates_close(Gates *g) {
    if (g->mem) g->stage1_student->be->release(g->stage1_student->be, g->mem);
    loss_close(&g->loss);
    pass_close(&g->tp);
    pass_close(&g->sp);
    mem_free(g->host);
    memset(g, 0, sizeof *g);
}

/* y_l = (1 - a) linear + a softmax, both kept for the derivative. */
static void gated_mixer(Gates *g, int l, double a, Real *y) {
    Backend *be = g->stage1_student->be;
    const Mixer *mix = mixer_at(g->teacher->c.mixer[l]);
    const size_t n = (size_t)g->sp.N * g->stage1_student->c.C;
    mix->forward(mix, layer_call(g->teacher, &g->tp, l), &g->tp.layer[l].mix, g->soft, g->sp.layer[l].n1);
    layer_mixer(g->stage1_student, &g->sp, l, a == 0 ? y : g->lin);
    if (a == 0) return;
    be->zero(be, y, n * be->real_size);
    be->op->accumulate(y, g->lin, 1 - a, n);
    be->op->accumulate(y, g->soft, a, n);
}

static void gates_forward(Gates *g, const double *a) {
    Model *m = g->stage1_student;
    Pass *p = &g->sp;
    const int L = m->c.L;
    model_embed(m, p, p->layer[0].x);
    for (int l = 0; l < L; l++) {
        layer_norm_in(m, p, l, p->layer[l].x);
        gated_mixer(g, l, a[l], p->mix_out);
        layer_mlp(m, p, l, p->layer[l].x, p->mix_out, l + 1 < L ? p->layer[l + 1].x : p->x);
    }
    m->be->op->rmsnorm_forward(p->h, p->r, p->x, m->p.norm.w, m->c.norm_eps, p->N, m->c.C);
}

/* slope (H+1) += sign * <dy, W o + b>, by heads of o (N,H*D). */
static int slope_add(Gates *g, const Real *o, const Param *w, const Param *bias, const Real *dy, double sign,
                     double *slope, Err *e) {
    Backend *be = g->stage1_student->be;
    const Config *c = &g->stage1_student->c;
    const int Q = c->H * c->D;
    const size_t n = (size_t)c->C * Q;
    Wide *db = wide_at(be, g->dw, n);
    be->zero(be, g->dw, (n + c->C) * be->wide_size);
    be->op->linear_backward(NULL, g->dw, bias->n ? db : NULL, dy, o, w->w, g->sp.N, Q, c->C);
    TRY(wide_get(be, DT_F64, g->dw_host, g->dw, n + c->C, e));
    TRY(real_get(be, DT_F64, g->w_host, w->w, n, e));
    for (size_t i = 0; i < n; i++) slope[i % Q / c->D] += sign * g->w_host[i] * g->dw_host[i];
    if (!bias->n) return OK;
    TRY(real_get(be, DT_F64, g->w_host, bias->w, c->C, e));
    for (int i = 0; i < c->C; i++) slope[c->H] += sign * g->w_host[i] * g->dw_host[n + i];
    return OK;
}

/* One of the two mixers of a layer, with weight s, into p->dn. */
static void gated_backward(Gates *g, Model *m, Pass *p, int l, double s, const Real *dx) {
    Backend *be = m->be;
    const Mixer *mix = mixer_at(m->c.mixer[l]);
    const size_t n = (size_t)p->N * m->c.C;
    if (s == 0) return;
    be->zero(be, g->dy, n * be->real_size);
    be->op->accumulate(g->dy, dx, s, n);
    mix->backward(mix, layer_call(m, p, l), &p->layer[l].mix, g->sp.dn, g->dy, g->sp.layer[l].n1);
}

static int gates_backward(Gates *g, const double *a, Err *e) {
    Model *m = g->stage1_student, *t = g->teacher;
    Backend *be = m->be;
    Pass *p = &g->sp;
    const size_t n = (size_t)p->N * m->c.C;
    memset(g->slope, 0, (size_t)m->c.L * (m->c.H + 1) * sizeof(double));
    be->zero(be, p->dx, n * be->real_size);
    be->op->rmsnorm_backward(p->dx, NULL, g->loss.dh, p->x, m->p.norm.w, p->r, p->N, m->c.C);
    for (int l = m->c.L - 1; l >= 0; l--) {
        double *slope = g->slope + (size_t)l * (m->c.H + 1);
        const MixerParams *lin = layer_call(m, p, l)->p, *soft = layer_call(t, &g->tp, l)->p;
        layer_mlp_backward(m, p, l, p->dx);
        TRY(slope_add(g, g->tp.layer[l].mix.o, &soft->o, &soft->o_bias, p->dx, 1, slope, e));
        TRY(slope_add(g, p->layer[l].mix.y, &lin->o, &lin->o_bias, p->dx, -1, slope, e));
        be->zero(be, p->dn, n * be->real_size);
        gated_backward(g, m, p, l, 1 - a[l], p->dx);
        gated_backward(g, t, &g->tp, l, a[l], p->dx);
        be->op->rmsnorm_backward(p->dx, NULL, p->dn, p->layer[l].x, m->p.layer[l].attn_norm.w, p->layer[l].r1, p->N,
                                 m->c.C);
    }
    return OK;
}

/* key: of the teacher's states, kept for held-out batches alone. */
static int gates_run(Gates *g, Side side, uint64_t index, int64_t key, const double *a, double *kl, Err *e) {
    Heldout *h = g->heldout;
    Model *t = g->teacher;
    const int *start = batch_start(&h->batch, &h->data);
    const Real *xt;
    TRY(side == HELDOUT ? heldout_text(h, (int)index, e) : batch_text(&h->batch, &h->data, side, index, e));
    TRY(teacher_hidden(&h->teacher, key, h->batch.ids, start, &xt, e));
    TRY(pass_input(&g->sp, g->stage1_student, h->batch.ids, start, e));
    TRY(pass_input(&g->tp, t, h->batch.ids, start, e));
    gates_forward(g, a);
    TRY(loss_kl(&g->loss, g->stage1_student, &g->sp, xt, t->c.C, params_head(&t->p)->w, 1, h->batch.weight, 1, kl, NULL,
                e));
    TRY(gates_backward(g, a, e));
    return g->stage1_student->be->sync(g->stage1_student->be, e);
}

int gates_batch(Gates *g, int i, const double *a, double *kl, Err *e) {
    return gates_run(g, HELDOUT, (uint64_t)i, i, a, kl, e);
}

int gates_training_batch(Gates *g, uint64_t index, const double *a, double *kl, Err *e) {
    return gates_run(g, TRAINING, index, g->heldout->teacher.n_slots, a, kl, e);
}

/* rows += -slope * weight of batch i */
static void rows_add(const Gates *g, LayerScore *rows, int i, double weight) {
    const int H = g->stage1_student->c.H;
    for (int l = 0; l < g->stage1_student->c.L; l++) {
        const double *slope = g->slope + (size_t)l * (H + 1);
        rows[l].heads = H < SCORE_HEADS ? H : SCORE_HEADS;
        for (int k = 0; k <= H; k++) rows[l].batch_kl[i] -= weight * slope[k];
        for (int k = 0; k < rows[l].heads; k++) rows[l].head[k] -= weight * slope[k] / g->heldout->batches;
    }
}

static int gates_all(Gates *g, LayerScore *rows, const int *keep, int nodes, int done, Partial *partial, Err *e) {
    double a[MAX_LAYERS], kl;
    for (int i = done; i < g->heldout->batches; i++) {
        for (int k = 0; k < (nodes ? nodes : 1); k++) {
            for (int l = 0; l < g->stage1_student->c.L; l++)
                a[l] = nodes ? (2 * k + 1) / (2.0 * nodes) : keep && keep[l];
            TRY(gates_batch(g, i, a, &kl, e));
            rows_add(g, rows, i, nodes ? 1.0 / nodes : 1);
        }
        TRY(partial_unit(partial, rows, g->stage1_student->c.L, i + 1, e));
    }
    return OK;
}

int gates_scores(LayerScore *rows, Model *teacher, Model *stage1_student, const int *keep, int nodes, Heldout *heldout,
                 Partial *partial, Err *e) {
    Gates g;
    Partial none = {0}, *k = partial ? partial : &none;
    const int L = stage1_student->c.L, passes = nodes ? nodes : 1;
    int done;
    TRY(partial_begin(k, rows, L, &done, e));
    TRY(gates_open(&g, teacher, stage1_student, heldout, e));
    const int rc = gates_all(&g, rows, keep, nodes, done, k, e);
    gates_close(&g);
    if (rc) return rc;
    for (int l = 0; l < L; l++) score_finish(&rows[l], l, !nodes && keep && keep[l] ? 0 : heldout->batches);
    score_share(rows, L, (int64_t)passes * heldout->batches * heldout->B * heldout->T, partial_seconds(k));
    score_rank(rows, L);
    return OK;
}

/* ---------------------------------------------------------------- the family */

static int gates_round(const SelectInput *in, const int *picked, int pick, int nodes, LayerScore *rows, Err *e) {
    char name[64];
    Partial partial = partial_of(in, pick, name);
    return gates_scores(rows, in->teacher, in->stage1_student, picked, nodes, in->heldout, &partial, e);
}

static int round_gates(const SelectInput *in, const int *picked, int pick, LayerScore *rows, Err *e) {
    return gates_round(in, picked, pick, 0, rows, e);
}
static int score_gates(const Selector *s, const SelectInput *in, LayerScore *rows, Err *e) {
    return gates_round(in, NULL, 0, s->kind, rows, e);
}
static int score_gates_greedy(const Selector *s, const SelectInput *in, LayerScore *rows, Err *e) {
    (void)s;
    return greedy(in, round_gates, rows, e);
}
static int score_gates_trained(const Selector *s, const SelectInput *in, LayerScore *rows, Err *e) {
    char name[64];
    Partial partial = partial_of(in, 0, name);
    (void)s;
    return gates_train(rows, in->teacher, in->stage1_student, in->K, GATES_STEPS, in->heldout, &partial, e);
}

static const Selector gates[] = {
    {NULL, "gates", "slope of the KL when softmax is mixed into the linear student",
     "-dKL/da at a = 0 (nats per token)", NEEDS_STUDENT, score_gates, choose_own, NULL, 0},
    {"path", "path_gates", "the same slope averaged along the path to the teacher",
     "-dKL/da along the path (nats per token)", NEEDS_STUDENT, score_gates, choose_own, NULL, PATH_NODES},
    {"greedy", "gates_greedy", "gates, scored anew after each pick", "-dKL/da given the picks before (nats per token)",
     NEEDS_STUDENT | NEEDS_K, score_gates_greedy, choose_own, NULL, 0},
    {"trained", "gates_trained", "the same gates trained together, K of them open",
     "gate after training (0: linear, 1: softmax)", NEEDS_STUDENT | NEEDS_K, score_gates_trained, choose_own, NULL, 0},
};
const SelectorFamily family_gates = {.name = "gates", FAMILY(gates)};
