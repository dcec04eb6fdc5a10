/* s1.c - family s1: S1 is the stage-1 loss on held-out batches. Stage 1 is teacher-forced, so a layer's loss does not
 * depend on the others: GA-S1 (loss of all other layers, lower is better) and GR-S1 (loss of this layer, higher is more
 * important) give one ranking (ref/METHOD.md 8). */
#include "base/mem.h"
#include "method/align.h"
#include "selectors/parts.h"

enum { ADDITION = 1, REMOVAL = 2 };

/* Stage-1 losses of one held-out batch into rows: of the layer itself, or minus the mean of what all others leave. */
static int s1_batch(Align *a, const SelectInput *in, int i, int addition, LayerScore *rows, Err *e) {
    double loss, layer[MAX_LAYERS], sum = 0;
    TRY(batch_text(&a->batch, &a->data, HELDOUT, (uint64_t)i, e));
    TRY(align_batch(a, 0, &loss, layer, e));
    for (int l = 0; l < in->L; l++) sum += layer[l];
    for (int l = 0; l < in->L; l++) rows[l].batch_kl[i] = addition ? -(sum - layer[l]) / in->L : layer[l];
    return OK;
}

static int s1_rows(const SelectInput *in, int addition, LayerScore *rows, Err *e) {
    const Heldout *h = in->heldout;
    const StageOptions o = {.steps = 1, .batch_size = h->B, .micro_batch_size = h->B, .train_seq_len = h->T};
    char name[64];
    int done;
    Align a;
    Partial partial = partial_of(in, 0, name);
    TRY(partial_begin(&partial, rows, in->L, &done, e));
    TRY(align_open(&a, in->teacher, in->stage1_student, &h->data, &o, in->align_form, e));
    int rc = OK;
    for (int i = done; i < h->batches && !rc; i++) {
        rc = s1_batch(&a, in, i, addition, rows, e);
        if (!rc) rc = partial_unit(&partial, rows, in->L, i + 1, e);
    }
    align_close(&a);
    if (rc) return rc;
    for (int l = 0; l < in->L; l++) score_finish(&rows[l], l, h->batches);
    score_share(rows, in->L, (int64_t)h->batches * h->B * h->T, partial_seconds(&partial));
    score_rank(rows, in->L);
    return OK;
}

static int score_s1(const Selector *s, const SelectInput *in, LayerScore *rows, Err *e) {
    void *mem;
    if (s->kind != (ADDITION | REMOVAL)) return s1_rows(in, s->kind == ADDITION, rows, e);
    TRY(mem_alloc(&mem, (size_t)in->L * sizeof(LayerScore), "layer scores", e));
    int rc = s1_rows(in, 1, mem, e);
    if (!rc) rc = s1_rows(in, 0, rows, e);
    if (!rc) score_average(rows, mem, rows, in->L);
    mem_free(mem);
    return rc;
}

static const Selector s1[] = {
    {"gr", "gr_s1", "stage-1 loss of this layer alone", "alignment loss of this layer", NEEDS_STUDENT, score_s1,
     choose_own, NULL, REMOVAL},
    {"ga", "ga_s1", "stage-1 loss with this layer softmax", "-alignment loss of all other layers", NEEDS_STUDENT,
     score_s1, choose_own, NULL, ADDITION},
    {"avg", "avg_s1", "mean of the ranks of ga_s1 and gr_s1", "-mean rank", NEEDS_STUDENT, score_s1, choose_own, NULL,
     ADDITION | REMOVAL},
};
const SelectorFamily family_s1 = {.name = "s1", FAMILY(s1)};
