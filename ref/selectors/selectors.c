/* selectors.c - the selectors: one row in a table each. See selectors.h. */
#include "selectors/selectors.h"
#include "base/mem.h"
#include "selectors/budget.h"
#include "selectors/scorers.h"
#include "selectors/smart.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---------------------------------------------------------------- zero-ablation of the teacher */

typedef struct {
    int layer;
} Ablation;

/* model_forward, except that one mixer's output is zero: the residual and the MLP still run. */
static void ablation_forward(void *ctx, const Model *m, Pass *p) {
    const Ablation *a = ctx;
    Backend *be = m->be;
    const size_t n = (size_t)p->N * m->c.C;
    model_embed(m, p, p->layer[0].x);
    for (int l = 0; l < m->c.L; l++) {
        Real *x = p->layer[l].x, *out = l + 1 < m->c.L ? p->layer[l + 1].x : p->x;
        layer_norm_in(m, p, l, x);
        layer_mixer(m, p, l, p->mix_out);
        if (l == a->layer) be->zero(be, p->mix_out, n * be->real_size);
        layer_mlp(m, p, l, x, p->mix_out, out);
    }
    be->op->rmsnorm_forward(p->h, p->r, p->x, m->p.norm.w, m->c.norm_eps, p->N, m->c.C);
}

int recall_ablated(Model *teacher, Recall *recall, int layer, double *mean, Err *e) {
    double accuracy[RECALL_MAX_N];
    Ablation a = {layer};
    return recall_run(recall, teacher, layer < 0 ? NULL : ablation_forward, &a, accuracy, mean, e);
}

/* ---------------------------------------------------------------- the selectors */

/* Within a budget: scores count from the lowest one on, so that a score is what a layer adds. */
static int choose_budget(const SelectInput *in, const LayerScore *rows, int *keep, Err *e) {
    double value[MAX_LAYERS], low = INFINITY;
    for (int l = 0; l < in->L; l++) low = rows[l].score < low ? rows[l].score : low;
    for (int l = 0; l < in->L; l++) value[l] = rows[l].score - low;
    return budget_knapsack(value, in->soft, in->lin, in->L, in->budget, keep, e);
}

/* What the rows say: the first K ranks. */
static int choose_rows(const SelectInput *in, const LayerScore *rows, int *keep, Err *e) {
    double value[MAX_LAYERS];
    if (in->soft) return choose_budget(in, rows, keep, e);
    for (int l = 0; l < in->L; l++) value[l] = rows[l].rank >= 1 ? -rows[l].rank : NAN;
    select_top(value, in->L, in->K, keep);
    return OK;
}

static int choose_score(const SelectInput *in, int *keep, Err *e) { return choose_rows(in, in->score, keep, e); }

static int choose_own(const SelectInput *in, int *keep, Err *e) { return choose_rows(in, in->rows, keep, e); }

static int choose_smart(const SelectInput *in, int *keep, Err *e) {
    double s[MAX_LAYERS];
    for (int l = 0; l < in->L; l++) s[l] = in->rows[l].score;
    return smart_select(s, in->L, in->K, keep, e);
}

static int choose_distance(const SelectInput *in, int *keep, Err *e) {
    double s[MAX_LAYERS];
    (void)e;
    for (int l = 0; l < in->L; l++) s[l] = in->score[l].score;
    distance_select(s, in->L, in->K, in->distance_strength, in->distance_width, keep, NULL);
    return OK;
}

static int choose_uniform(const SelectInput *in, int *keep, Err *e) {
    (void)e;
    return select_uniform(in->L, in->K, keep);
}

static int choose_uniform_last(const SelectInput *in, int *keep, Err *e) {
    (void)e;
    return select_uniform_last(in->L, in->K, keep);
}

static int choose_stride(const SelectInput *in, int *keep, Err *e) {
    if (in->stride < 1 || in->first < 0)
        return err_set(e, ERR_USAGE, "uniform_stride: got first %d and stride %d, expected >= 0 and >= 1", in->first,
                       in->stride);
    const long last = in->first + (long)(in->K - 1) * in->stride;
    if (in->K > 0 && last >= in->L)
        return err_set(e, ERR_USAGE, "uniform_stride: layer %ld is needed, the model has %d", last, in->L);
    for (int i = 0; i < in->K; i++) keep[in->first + i * in->stride] = 1;
    return OK;
}

static int choose_random(const SelectInput *in, int *keep, Err *e) {
    int order[MAX_LAYERS];
    Rng r;
    (void)e;
    rng_seed3(&r, in->seed, 0x73656c, (uint64_t)in->draw);
    for (int l = 0; l < in->L; l++) order[l] = l;
    rng_shuffle(&r, order, (size_t)in->L);
    for (int i = 0; i < in->K; i++) keep[order[i]] = 1;
    return OK;
}

static int choose_explicit(const SelectInput *in, int *keep, Err *e) {
    TRY(select_check_list(in->list, in->n_list, in->L, in->K, "keep_full_attention_layers", e));
    for (int i = 0; i < in->n_list; i++) keep[in->list[i]] = 1;
    return OK;
}

static int choose_none(const SelectInput *in, int *keep, Err *e) {
    (void)in, (void)keep, (void)e;
    return OK;
}

static int choose_all(const SelectInput *in, int *keep, Err *e) {
    (void)e;
    for (int l = 0; l < in->L; l++) keep[l] = 1;
    return OK;
}

/* A new selector: a row here; what it needs of models is in scorers.c. */
static const Selector SELECTORS[] = {
    {"ga_s2", "KL-guided: one-swap KL to the teacher", "-KL to the teacher (nats per token)", NEEDS_SCORES, NULL,
     choose_score, NULL},
    {"uniform", "evenly spaced from layer 0", NULL, 0, NULL, choose_uniform, NULL},
    {"uniform_last", "evenly spaced, last layer of each group", NULL, 0, NULL, choose_uniform_last, NULL},
    {"uniform_stride", "a given first layer and stride", NULL, 0, NULL, choose_stride, NULL},
    {"random", "drawn from the seed", NULL, 0, NULL, choose_random, NULL},
    {"explicit", "the given list", NULL, 0, NULL, choose_explicit, NULL},
    {"ablation", "drop in recall when the teacher's mixer is set to zero", "recall lost (fraction)", NEEDS_RECALL,
     score_ablation, choose_own, NULL},
    {"none", "all layers linear", NULL, 0, NULL, choose_none, NULL},
    {"all", "all layers softmax", NULL, 0, NULL, choose_all, NULL},
    {"gr_s2", "KL of the teacher with this layer linear, distilled", "KL to the teacher (nats per token)",
     NEEDS_STUDENT | NEEDS_TRAINING, score_gr_s2, choose_own, "official_score"},
    {"avg_s2", "mean of the ranks of ga_s2 and gr_s2", "-mean rank", NEEDS_SCORES | NEEDS_STUDENT | NEEDS_TRAINING,
     score_avg_s2, choose_own, "official_score"},
    {"ga_s1", "stage-1 loss with this layer softmax", "-alignment loss of all other layers", NEEDS_STUDENT, score_ga_s1,
     choose_own, NULL},
    {"gr_s1", "stage-1 loss of this layer alone", "alignment loss of this layer", NEEDS_STUDENT, score_gr_s1,
     choose_own, NULL},
    {"avg_s1", "mean of the ranks of ga_s1 and gr_s1", "-mean rank", NEEDS_STUDENT, score_avg_s1, choose_own, NULL},
    {"distance", "ga_s2 with a penalty on neighbours of chosen layers", "-KL to the teacher (nats per token)",
     NEEDS_SCORES, NULL, choose_distance, NULL},
    {"ppl", "rise of the text's cross-entropy when the teacher's mixer is bypassed",
     "rise of the text loss (nats per token)", NEEDS_STUDENT, score_ppl, choose_own, NULL},
    {"act_mse", "change of the teacher's last hidden state when its mixer is bypassed",
     "mean squared change of the last hidden state", NEEDS_STUDENT, score_act_mse, choose_own, NULL},
    {"smart", "forward-only one-swap KL under SMART's spacing rule", "fall of the KL (nats per token)", NEEDS_STUDENT,
     score_swap, choose_smart, NULL},
    {"swap", "forward-only one-swap KL", "fall of the KL (nats per token)", NEEDS_STUDENT, score_swap, choose_own,
     NULL},
    {"swap_remove", "forward-only KL of the teacher with this layer linear", "KL to the teacher (nats per token)",
     NEEDS_STUDENT, score_swap_remove, choose_own, NULL},
    {"gates", "slope of the KL when softmax is mixed into the linear student", "-dKL/da at a = 0 (nats per token)",
     NEEDS_STUDENT, score_gates, choose_own, NULL},
    {"path_gates", "the same slope averaged along the path to the teacher", "-dKL/da along the path (nats per token)",
     NEEDS_STUDENT, score_path_gates, choose_own, NULL},
    {"gates_trained", "the same gates trained together, K of them open", "gate after training (0: linear, 1: softmax)",
     NEEDS_STUDENT | NEEDS_K, score_gates_trained, choose_own, NULL},
    {"swap_greedy", "swap, scored anew after each pick", "fall of the KL given the picks before (nats per token)",
     NEEDS_STUDENT | NEEDS_K, score_swap_greedy, choose_own, NULL},
    {"gates_greedy", "gates, scored anew after each pick", "-dKL/da given the picks before (nats per token)",
     NEEDS_STUDENT | NEEDS_K, score_gates_greedy, choose_own, NULL},
    {"ga_s2_greedy", "ga_s2, scored anew after each pick", "-KL given the picks before (nats per token)",
     NEEDS_STUDENT | NEEDS_K | NEEDS_TRAINING, score_ga_s2_greedy, choose_own, "official_score"},
    {"trunk_s2", "ga_s2 as short branches of one distilled all-linear trunk", "-KL to the teacher (nats per token)",
     NEEDS_STUDENT | NEEDS_TRAINING, score_trunk_s2, choose_own, "official_score,branch_steps"},
    {"ar", "task: loss in sums of recalled digits when the teacher's mixer is bypassed", "accuracy lost (fraction)",
     NEEDS_TASKS, score_ar, choose_own, "task_samples,task_pairs,task_new_tokens"},
    {"ar_mh", "task: the same with names that stand for names", "accuracy lost (fraction)", NEEDS_TASKS, score_ar_mh,
     choose_own, "task_samples,task_pairs,task_new_tokens"},
    {"vt", "task: variable tracking", "accuracy lost (fraction)", NEEDS_TASKS, score_vt, choose_own,
     "task_samples,task_pairs,task_new_tokens"},
    {"cwe", "task: common words", "accuracy lost (fraction)", NEEDS_TASKS, score_cwe, choose_own,
     "task_samples,task_pairs,task_new_tokens"},
    {"fwe", "task: frequent words", "accuracy lost (fraction)", NEEDS_TASKS, score_fwe, choose_own,
     "task_samples,task_pairs,task_new_tokens"},
    {"phone_book", "task: phone book", "accuracy lost (fraction)", NEEDS_TASKS, score_phone_book, choose_own,
     "task_samples,task_pairs,task_new_tokens"},
    {"retrieval", "task: one value out of a dictionary", "accuracy lost (fraction)", NEEDS_TASKS, score_retrieval,
     choose_own, "task_samples,task_pairs,task_new_tokens"},
    {"exhaustive", "the best of all sets of K layers, each distilled",
     "-KL of the best set with this layer (nats per token)", NEEDS_STUDENT | NEEDS_K | NEEDS_TRAINING, score_exhaustive,
     choose_own, "official_score"},
};

int selector_count(void) { return (int)(sizeof SELECTORS / sizeof *SELECTORS); }
const Selector *selector_at(int i) { return i >= 0 && i < selector_count() ? &SELECTORS[i] : NULL; }
const Selector *selector_find(const char *name) {
    for (int i = 0; i < selector_count(); i++)
        if (!strcmp(SELECTORS[i].name, name)) return &SELECTORS[i];
    return NULL;
}

int selector_scales(const char *name) {
    static const char *const fixed[] = {"explicit", "none", "all", "exhaustive", "uniform_stride"};
    for (size_t i = 0; i < sizeof fixed / sizeof *fixed; i++)
        if (!strcmp(name, fixed[i])) return 0;
    return 1;
}

static int select_check(const Selector *s, const SelectInput *in, Err *e) {
    if (in->K < 0 || in->K > in->L)
        return err_set(e, ERR_USAGE, "%s: got %d softmax layers, expected 0 to %d", s->name, in->K, in->L);
    if (s->needs & NEEDS_SCORES && !in->score) return err_set(e, ERR_USAGE, "%s: needs layer scores", s->name);
    if (in->rows) return OK;
    if (s->needs & NEEDS_RECALL && (!in->recall || !in->teacher)) {
        err_set(e, ERR_USAGE, "%s: needs the teacher and a recall probe", s->name);
        return err_hint(e, "set recall_keys");
    }
    if (s->needs & NEEDS_STUDENT && (!in->teacher || !in->stage1_student || !in->heldout))
        return err_set(e, ERR_USAGE, "%s: needs the teacher, the stage-1 student and held-out text", s->name);
    if (s->needs & NEEDS_TASKS && (!in->teacher || !in->tokenizer))
        return err_set(e, ERR_USAGE, "%s: needs the teacher and its tokenizer", s->name);
    if (s->needs & NEEDS_TRAINING && (!in->scoring || !in->memo))
        return err_set(e, ERR_USAGE, "%s: needs training text and the options of scoring runs", s->name);
    return OK;
}

int selector_score(const Selector *s, const SelectInput *in, LayerScore *rows, Err *e) {
    SelectInput fresh = *in;
    fresh.rows = NULL;
    TRY(select_check(s, &fresh, e));
    return s->score ? s->score(&fresh, rows, e) : err_set(e, ERR_USAGE, "%s: does not score layers", s->name);
}

int select_layers(const Selector *s, const SelectInput *in, int *keep, Err *e) {
    SelectInput full = *in;
    void *mem = NULL;
    TRY(select_check(s, in, e));
    for (int l = 0; l < in->L; l++) keep[l] = 0;
    if (s->score && !in->rows) {
        TRY(mem_alloc(&mem, (size_t)in->L * sizeof(LayerScore), "layer scores", e));
        full.rows = mem;
        const int rc = s->score(in, mem, e);
        if (rc) return mem_free(mem), rc;
    }
    const int rc = s->choose(&full, keep, e);
    mem_free(mem);
    return rc;
}
