/* swap.c - one layer swapped at a time, the prefix shared. See swap.h. */
#include "selectors/swap.h"
#include "base/log.h"
#include "base/mem.h"
#include "method/loss.h"
#include "selectors/parts.h"
#include "selectors/smart.h"
#include <math.h>
#include <string.h>

typedef struct {
    SwapKind kind;
    Model *base, *other; /* source stack is run; where swapped mixers come from, NULL: they say nothing */
    const int *keep;     /* layers that are always other's */
    Heldout *heldout;
    Pass bp, op;
    Loss loss;
    /* (L,N,C) inputs of all layers without a swap; residual stream above a swap; last hidden state without a swap */
    Real *prefix, *x, *h;
    void *mem;
    const Real *xt; /* the teacher's last hidden state of this batch */
} Swap;

typedef enum { OF_BASE, OF_OTHER } Source;

static Real *prefix_at(const Swap *s, int l) {
    return real_at(s->base->be, s->prefix, (size_t)l * s->bp.N * s->base->c.C);
}

/* One layer of base with its own mixer, the other's, or none. out may be x. */
static void layer_run(Swap *s, int l, Source source, const Real *x, Real *out) {
    Model *m = s->base;
    Backend *be = m->be;
    Pass *p = &s->bp;
    const size_t n = (size_t)p->N * m->c.C;
    layer_norm_in(m, p, l, x);
    if (source == OF_BASE) layer_mixer(m, p, l, p->mix_out);
    else if (!s->other) be->zero(be, p->mix_out, n * be->real_size);
    else {
        const Mixer *mix = mixer_at(s->other->c.mixer[l]);
        mix->forward(mix, layer_call(s->other, &s->op, l), &s->op.layer[l].mix, p->mix_out, p->layer[l].n1);
    }
    layer_mlp(m, p, l, x, p->mix_out, out);
}

static Source source_at(const Swap *s, int l) { return s->keep && s->keep[l] ? OF_OTHER : OF_BASE; }

/* Measure of the residual stream x at the end of the stack; first: without a swap. */
static int swap_measure(Swap *s, const Real *x, int first, double *v, Err *e) {
    Model *m = s->base, *t = s->heldout->teacher_model;
    Pass *p = &s->bp;
    const int N = p->N, C = m->c.C;
    const float *weight = s->heldout->batch.weight;
    m->be->op->rmsnorm_forward(p->h, p->r, x, m->p.norm.w, m->c.norm_eps, N, C);
    if (s->kind == SWAP_PPL) return loss_xent(&s->loss, m, p, s->heldout->batch.target, weight, 0, v, NULL, NULL, e);
    if (s->kind != SWAP_MSE)
        return loss_kl(&s->loss, m, p, s->xt, t->c.C, params_head(&t->p)->w, 1, weight, 0, v, NULL, e);
    if (first) m->be->move(m->be, s->h, p->h, (size_t)N * C * m->be->real_size);
    m->be->op->align_loss(s->loss.loss, NULL, s->h, p->h, 1, ALIGN_SQUARED, N, C);
    TRY(wide_get(m->be, DT_F64, s->loss.row_loss, s->loss.loss, N, e));
    *v = 0;
    for (int i = 0; i < N; i++) *v += s->loss.row_loss[i] / N / C;
    return OK;
}

static int swap_batch(Swap *s, int i, LayerScore *rows, Err *e) {
    Heldout *h = s->heldout;
    Model *m = s->base;
    const int L = m->c.L, *start = batch_start(&h->batch, &h->data);
    double base, v;
    TRY(heldout_text(h, i, e));
    if (s->kind == SWAP_ADD || s->kind == SWAP_REMOVE)
        TRY(teacher_hidden(&h->teacher, i, h->batch.ids, start, &s->xt, e));
    TRY(pass_input(&s->bp, m, h->batch.ids, start, e));
    if (s->other) TRY(pass_input(&s->op, s->other, h->batch.ids, start, e));
    model_embed(m, &s->bp, s->prefix);
    for (int l = 0; l < L; l++)
        layer_run(s, l, source_at(s, l), prefix_at(s, l), l + 1 < L ? prefix_at(s, l + 1) : s->x);
    TRY(swap_measure(s, s->x, 1, &base, e));
    for (int l = 0; l < L; l++) {
        if (source_at(s, l) == OF_OTHER) continue;
        layer_run(s, l, OF_OTHER, prefix_at(s, l), s->x);
        for (int k = l + 1; k < L; k++) layer_run(s, k, source_at(s, k), s->x, s->x);
        TRY(swap_measure(s, s->x, 0, &v, e));
        rows[l].batch_kl[i] = s->kind == SWAP_ADD ? base - v : v - base;
    }
    return m->be->sync(m->be, e);
}

static void swap_place(Swap *s, Arena *a) {
    const size_t n = (size_t)s->bp.N * s->base->c.C, size = s->base->be->real_size;
    s->prefix = arena_take(a, n * s->base->c.L, size);
    s->x = arena_take(a, n, size);
    s->h = arena_take(a, n, size);
}

static int swap_open(Swap *s, Err *e) {
    Heldout *h = s->heldout;
    Backend *be = s->base->be;
    Arena a = {0};
    TRY(pass_open(&s->bp, s->base, h->B, h->T, 0, e));
    if (s->other) TRY(pass_open(&s->op, s->other, h->B, h->T, 0, e));
    TRY(loss_open(&s->loss, s->base, h->teacher_model->c.C, h->B * h->T, e));
    swap_place(s, &a);
    const size_t bytes = a.used;
    TRY(be->alloc(be, &s->mem, bytes, "inputs of all layers", e));
    a = (Arena){0};
    arena_begin(&a, s->mem, bytes);
    swap_place(s, &a);
    return OK;
}

static void swap_close(Swap *s) {
    s->base->be->release(s->base->be, s->mem);
    loss_close(&s->loss);
    pass_close(&s->op);
    pass_close(&s->bp);
}

int swap_scores(LayerScore *rows, SwapKind kind, Model *teacher, Model *stage1_student, const int *keep,
                Heldout *heldout, Partial *partial, Err *e) {
    const int L = teacher->c.L, add = kind == SWAP_ADD;
    Partial none = {0}, *k = partial ? partial : &none;
    int done;
    Swap s = {.kind = kind, .base = add ? stage1_student : teacher, .keep = add ? keep : NULL, .heldout = heldout};
    s.other = add ? teacher : kind == SWAP_REMOVE ? stage1_student : NULL;
    TRY(partial_begin(k, rows, L, &done, e));
    int rc = swap_open(&s, e);
    for (int i = done; i < heldout->batches && !rc; i++) {
        rc = swap_batch(&s, i, rows, e);
        if (!rc) rc = partial_unit(k, rows, L, i + 1, e);
    }
    swap_close(&s);
    for (int l = 0; l < L && !rc; l++) score_finish(&rows[l], l, source_at(&s, l) == OF_OTHER ? 0 : heldout->batches);
    if (!rc) score_share(rows, L, (int64_t)heldout->batches * heldout->B * heldout->T, partial_seconds(k));
    if (!rc) score_rank(rows, L);
    return rc;
}

/* ---------------------------------------------------------------- families swap, bypass, smart */

static int swap_round(const SelectInput *in, SwapKind kind, const int *picked, int pick, LayerScore *rows, Err *e) {
    char name[64];
    Partial partial = partial_of(in, pick, name);
    return swap_scores(rows, kind, in->teacher, in->stage1_student, picked, in->heldout, &partial, e);
}
static int round_swap(const SelectInput *in, const int *picked, int pick, LayerScore *rows, Err *e) {
    return swap_round(in, SWAP_ADD, picked, pick, rows, e);
}
static int score_swap(const Selector *s, const SelectInput *in, LayerScore *rows, Err *e) {
    return swap_round(in, (SwapKind)s->kind, NULL, 0, rows, e);
}
static int score_swap_greedy(const Selector *s, const SelectInput *in, LayerScore *rows, Err *e) {
    (void)s;
    return greedy(in, round_swap, rows, e);
}

static const Selector swap[] = {
    {NULL, "swap", "forward-only one-swap KL", "fall of the KL (nats per token)", NEEDS_STUDENT, score_swap, choose_own,
     NULL, SWAP_ADD},
    {"remove", "swap_remove", "forward-only KL of the teacher with this layer linear",
     "KL to the teacher (nats per token)", NEEDS_STUDENT, score_swap, choose_own, NULL, SWAP_REMOVE},
    {"greedy", "swap_greedy", "swap, scored anew after each pick",
     "fall of the KL given the picks before (nats per token)", NEEDS_STUDENT | NEEDS_K, score_swap_greedy, choose_own,
     NULL, 0},
};
const SelectorFamily family_swap = {.name = "swap", FAMILY(swap)};

static const Selector bypass[] = {
    {"ppl", "ppl", "rise of the text's cross-entropy when the teacher's mixer is bypassed",
     "rise of the text loss (nats per token)", NEEDS_STUDENT, score_swap, choose_own, NULL, SWAP_PPL},
    {"mse", "act_mse", "change of the teacher's last hidden state when its mixer is bypassed",
     "mean squared change of the last hidden state", NEEDS_STUDENT, score_swap, choose_own, NULL, SWAP_MSE},
};
const SelectorFamily family_bypass = {.name = "bypass", FAMILY(bypass)};

static int choose_smart(const SelectInput *in, int *keep, Err *e) {
    double s[MAX_LAYERS];
    for (int l = 0; l < in->L; l++) s[l] = in->rows[l].score;
    return smart_select(s, in->L, in->K, keep, e);
}
static const Selector smart[] = {{NULL, "smart", "forward-only one-swap KL under SMART's spacing rule",
                                  "fall of the KL (nats per token)", NEEDS_STUDENT, score_swap, choose_smart, NULL,
                                  SWAP_ADD}};
const SelectorFamily family_smart = {.name = "smart", FAMILY(smart)};
