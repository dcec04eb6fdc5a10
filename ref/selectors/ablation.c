/* ablation.c - families ablation and task: what does the teacher lose when one mixer's output is zero? Measured by the
 * recall probe, or by one of the tasks of diagnostic_tasks.h (ref/METHOD.md 8). */
#include "selectors/parts.h"
#include <string.h>

/* model_forward, except that one mixer's output is zero: the residual and the MLP still run. */
static void ablation_forward(void *ctx, const Model *m, Pass *p) {
    const int *ablated = ctx;
    Backend *be = m->be;
    const size_t n = (size_t)p->N * m->c.C;
    model_embed(m, p, p->layer[0].x);
    for (int l = 0; l < m->c.L; l++) {
        Real *x = p->layer[l].x, *out = l + 1 < m->c.L ? p->layer[l + 1].x : p->x;
        layer_norm_in(m, p, l, x);
        layer_mixer(m, p, l, p->mix_out);
        if (l == *ablated) be->zero(be, p->mix_out, n * be->real_size);
        layer_mlp(m, p, l, x, p->mix_out, out);
    }
    be->op->rmsnorm_forward(p->h, p->r, p->x, m->p.norm.w, m->c.norm_eps, p->N, m->c.C);
}

int recall_ablated(Model *teacher, Recall *recall, int layer, double *mean, Err *e) {
    double accuracy[RECALL_MAX_N];
    return recall_run(recall, teacher, layer < 0 ? NULL : ablation_forward, &layer, accuracy, mean, e);
}

/* How well the teacher does without one layer's attention, or with all (layer -1). */
typedef int AblatedAccuracy(const SelectInput *in, const void *what, int layer, double *accuracy, int64_t *tokens,
                            Err *e);

/* Layer by layer: what is lost of the teacher's accuracy. Unit 0 is the whole teacher. */
static int score_ablated(const SelectInput *in, AblatedAccuracy *ablated, const void *what, LayerScore *rows, Err *e) {
    char name[64];
    int done;
    Partial partial = partial_of(in, 0, name);
    TRY(partial_begin(&partial, rows, in->L, &done, e));
    for (int unit = done; unit <= in->L; unit++) {
        double v = 0;
        TRY(ablated(in, what, unit - 1, &v, &rows[0].tokens, e));
        if (unit) rows[unit - 1].score = partial.base - v;
        else partial.base = v;
        TRY(partial_unit(&partial, rows, in->L, unit + 1, e));
    }
    const int64_t tokens = rows[0].tokens;
    for (int l = 0; l < in->L; l++) {
        const double score = rows[l].score;
        score_finish(&rows[l], l, 0);
        rows[l].score = score;
    }
    score_share(rows, in->L, tokens, partial_seconds(&partial));
    score_rank(rows, in->L);
    return OK;
}

static int ablated_recall(const SelectInput *in, const void *what, int layer, double *accuracy, int64_t *tokens,
                          Err *e) {
    (void)what;
    for (int i = 0; i < in->recall->n_n; i++)
        *tokens += (int64_t)in->recall->rows * 2 * (in->recall->n[i] + in->recall->queries);
    return recall_ablated(in->teacher, in->recall, layer, accuracy, e);
}

static int ablated_task(const SelectInput *in, const void *what, int layer, double *accuracy, int64_t *tokens, Err *e) {
    const DiagnosticTask *task = what;
    const DiagnosticOptions o = {in->own.task_samples, in->own.task_pairs, in->own.task_new_tokens, in->seed};
    if (layer < 0) return diagnostic_accuracy(task, in->teacher, in->tokenizer, &o, accuracy, tokens, e);
    return diagnostic_ablated(task, in->teacher, in->tokenizer, &o, layer, accuracy, tokens, e);
}

static int score_ablation(const Selector *s, const SelectInput *in, LayerScore *rows, Err *e) {
    (void)s;
    return score_ablated(in, ablated_recall, NULL, rows, e);
}

static int score_task(const Selector *s, const SelectInput *in, LayerScore *rows, Err *e) {
    return score_ablated(in, ablated_task, diagnostic_find(s->name), rows, e);
}

static const Selector ablation[] = {{NULL, "ablation", "drop in recall when the teacher's mixer is set to zero",
                                     "recall lost (fraction)", NEEDS_RECALL, score_ablation, choose_own, NULL, 0}};
const SelectorFamily family_ablation = {.name = "ablation", FAMILY(ablation)};

#define TASK(NAME, LABEL)                                                                                              \
    {                                                                                                                  \
        NAME, NAME, "task: " LABEL, "accuracy lost (fraction)", NEEDS_TASKS, score_task, choose_own,                   \
            "task_samples,task_pairs,task_new_tokens", 0                                                               \
    }
static const Selector task[] = {
    TASK("ar", "loss in sums of recalled digits when the teacher's mixer is bypassed"),
    TASK("ar_mh", "the same with names that stand for names"),
    TASK("vt", "variable tracking"),
    TASK("cwe", "common words"),
    TASK("fwe", "frequent words"),
    TASK("phone_book", "phone book"),
    TASK("retrieval", "one value out of a dictionary"),
};
#undef TASK
const SelectorFamily family_task = {.name = "task", FAMILY(task)};
