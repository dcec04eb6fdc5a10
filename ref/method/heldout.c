/* heldout.c - what is a student worth? KL to the teacher, and loss on the text, over held-out batches.
 *
 * The batches are the same for all students, so their differences are paired; the standard error is that of the mean
 * over batches. See heldout.h. */
#include "method/heldout.h"
#include "base/mem.h"
#include "method/loss.h"
#include <math.h>
#include <string.h>

/* Mean and standard error over batches. */
static void batch_stats(const double *v, int n, double *mean, double *se) {
    double sum = 0, square = 0;
    for (int i = 0; i < n; i++) sum += v[i];
    *mean = sum / n;
    for (int i = 0; i < n; i++) square += (v[i] - *mean) * (v[i] - *mean);
    *se = n > 1 ? sqrt(square / (n - 1) / n) : NAN;
}

/* Does target[t] continue the pair ids[t-1], ids[t] as it was continued earlier in the same document of this window? */
static int repeats(const int *ids, const int *target, int t, int first) {
    for (int j = first + 1; j < t; j++)
        if (ids[j - 1] == ids[t - 1] && ids[j] == ids[t] && target[j] == target[t]) return 1;
    return 0;
}

static void split_add(const Heldout *h, const float *loss, const int *start, double sum[2], double count[2]) {
    for (int b = 0; b < h->B; b++)
        for (int t = 0; t < h->T; t++) {
            const size_t row = (size_t)b * h->T, n = row + t;
            if (h->batch.target[n] < 0) continue;
            const int hit = t > 0 && repeats(h->batch.ids + row, h->batch.target + row, t, start ? start[n] : 0);
            sum[hit] += loss[n];
            count[hit] += 1;
        }
}

int heldout_text(Heldout *h, int i, Err *e) {
    TRY(batch_text(&h->batch, &h->data, HELDOUT, (uint64_t)i, e));
    for (int n = 0; n < h->batch.N && h->batch.weight; n++) h->batch.weight[n] *= (float)h->share[i];
    return OK;
}

/* rows: the loss of every token of the batch. */
static int heldout_batch(Heldout *h, Model *student, Pass *p, Loss *loss, int i, HeldoutResult *r, double *teacher_ce,
                         float *rows, Err *e) {
    Model *t = h->teacher_model;
    const int *start = batch_start(&h->batch, &h->data);
    const Real *xt;
    const float *weight;
    TRY(heldout_text(h, i, e));
    weight = h->batch.weight;
    TRY(teacher_hidden(&h->teacher, i, h->batch.ids, start, &xt, e));
    TRY(pass_input(p, student, h->batch.ids, start, e));
    model_forward(student, p);
    TRY(loss_kl(loss, student, p, xt, t->c.C, params_head(&t->p)->w, 1, weight, 0, &r->batch_kl[i], NULL, e));
    TRY(loss_xent(loss, student, p, h->batch.target, weight, 0, &r->batch_ce[i], rows, NULL, e));
    if (!teacher_ce) return OK;
    const Pass view = teacher_view(&h->teacher, xt);
    return loss_xent(loss, t, &view, h->batch.target, weight, 0, teacher_ce, NULL, NULL, e);
}

/* Ranks share the batches out: those of rank q are first(q) to first(q + 1). */
static int heldout_first(const Heldout *h, const Ranks *r, int q) { return h->batches * q / ranks_count(r); }

/* What each rank has found of its batches, `size` bytes for each, for all. */
static int heldout_gather(const Heldout *h, Ranks *r, void *data, size_t size, Err *e) {
    size_t at[RANKS_MOST + 1];
    for (int q = 0; q <= ranks_count(r); q++) at[q] = (size_t)heldout_first(h, r, q) * size;
    return ranks_gather(r, data, at, e);
}

int heldout_run(Heldout *h, Model *student, HeldoutResult *r, Err *e) {
    Pass p;
    Loss loss = {0};
    void *mem;
    double ce[HELDOUT_MAX] = {0}, sum[2] = {0}, count[2] = {0};
    const int want_ce = isnan(h->teacher_ce) && h->teacher_model->c.C == student->c.C;
    Ranks *k = student->be->ranks;
    const size_t N = (size_t)h->B * h->T;
    memset(r, 0, sizeof *r);
    TRY(mem_alloc(&mem, (size_t)h->batches * N * sizeof(float), "losses by token", e));
    float *rows = mem;
    int rc = pass_open(&p, student, h->B, h->T, 0, e);
    if (rc) {
        mem_free(rows);
        return rc;
    }
    rc = loss_open(&loss, student, h->teacher_model->c.C, h->B * h->T, e);
    for (int i = heldout_first(h, k, ranks_index(k)); i < heldout_first(h, k, ranks_index(k) + 1) && !rc; i++)
        rc = heldout_batch(h, student, &p, &loss, i, r, want_ce ? &ce[i] : NULL, rows + (size_t)i * N, e);
    if (!rc) rc = student->be->sync(student->be, e);
    loss_close(&loss);
    pass_close(&p);
    if (!rc) rc = heldout_gather(h, k, rows, N * sizeof *rows, e);
    if (!rc) rc = heldout_gather(h, k, r->batch_kl, sizeof *r->batch_kl, e);
    if (!rc) rc = heldout_gather(h, k, r->batch_ce, sizeof *r->batch_ce, e);
    if (!rc) rc = heldout_gather(h, k, ce, sizeof *ce, e);
    for (int i = 0; i < h->batches && !rc; i++) { // in this order, whoever found what is added
        rc = heldout_text(h, i, e);
        if (!rc) split_add(h, rows + (size_t)i * N, batch_start(&h->batch, &h->data), sum, count);
    }
    mem_free(rows);
    if (rc) return rc;
    r->ce_new = sum[0] / count[0];
    r->ce_repeat = sum[1] / count[1];
    r->repeated = count[1] / (count[0] + count[1]);
    if (want_ce) h->teacher_ce = 0;
    for (int i = 0; want_ce && i < h->batches; i++) h->teacher_ce += ce[i] / h->batches;
    r->batches = h->batches;
    batch_stats(r->batch_kl, h->batches, &r->kl, &r->kl_se);
    batch_stats(r->batch_ce, h->batches, &r->ce, &r->ce_se);
    return OK;
}

/* ---------------------------------------------------------------- opening and closing */

static int heldout_shares(Heldout *h, Err *e) {
    double sum = 0;
    for (int i = 0; i < h->batches; i++) {
        if (h->data.d->completions) TRY(batch_text(&h->batch, &h->data, HELDOUT, (uint64_t)i, e));
        h->share[i] = h->data.d->completions ? h->batch.counted : h->batch.N;
        sum += h->share[i];
    }
    for (int i = 0; i < h->batches && sum > 0; i++) h->share[i] *= h->batches / sum;
    if (sum > 0) return OK;
    err_set(e, ERR_INPUT, "text: its held-out part has no token of a completion in %d batches", h->batches);
    return err_hint(e, "give more text, more eval_batches, or another held-out fraction");
}

int heldout_open(Heldout *h, Model *teacher, const TextStream *data, int B, int T, int batches, size_t cache, Err *e) {
    *h = (Heldout){.data = *data, .teacher_model = teacher, .B = B, .T = T, .teacher_ce = NAN};
    Split split;
    TRY(stream_split(&split, data, T, HELDOUT, e));
    if ((uint64_t)h->B > split.count) h->B = (int)split.count;
    const uint64_t most = split.count / (uint64_t)h->B; // each window at most once
    h->batches = batches < 1 ? 1 : batches > HELDOUT_MAX ? HELDOUT_MAX : batches;
    if ((uint64_t)h->batches > most) h->batches = (int)most;
    int rc = batch_open(&h->batch, h->B, T, e);
    if (!rc) rc = heldout_shares(h, e);
    if (!rc) rc = teacher_open(&h->teacher, teacher, h->B, T, h->batches, cache, e);
    if (rc) heldout_close(h);
    return rc;
}

void heldout_close(Heldout *h) {
    teacher_close(&h->teacher);
    batch_close(&h->batch);
    memset(h, 0, sizeof *h);
}
