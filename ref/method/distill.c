/* distill.c - stages 2 and 3, and the held-out measure of every student. See distill.h. */
#include "method/distill.h"
#include "base/mem.h"
#include <math.h>
#include <string.h>

static int distill_start(Distill *d, const StageOptions *o, int checkpointing, Err *e) {
    const int B = o->micro_batch_size, T = o->train_seq_len;
    const unsigned flags = PASS_TRAIN | (checkpointing ? PASS_CHECKPOINT : 0);
    TRY(batch_open(&d->batch, B, T, e));
    TRY(pass_open(&d->pass, d->student, B, T, flags, e));
    TRY(loss_open(&d->loss, d->student, d->teacher ? d->teacher->m->c.C : 0, B * T, e));
    void *weight;
    TRY(mem_alloc(&weight, (size_t)B * T * sizeof(float), "loss weights", e));
    d->weight = weight;
    return OK;
}

int distill_open(Distill *d, Model *student, Teacher *teacher, const TextStream *data, const StageOptions *o,
                 double tau, int checkpointing, Err *e) {
    *d = (Distill){.student = student, .teacher = teacher, .tau = tau, .data = *data, .micro = stage_micro_batches(o)};
    const int rc = distill_start(d, o, checkpointing, e);
    if (rc) distill_close(d);
    return rc;
}

void distill_close(Distill *d) {
    mem_free(d->weight);
    loss_close(&d->loss);
    pass_close(&d->pass);
    batch_close(&d->batch);
    memset(d, 0, sizeof *d);
}

/* One micro-batch: teacher's hidden state, student forward, loss with its gradient at h, student backward. */
static int distill_gradients(void *ctx, int64_t step, int micro, double scale, double *loss, int64_t *tokens, Err *e) {
    Distill *d = ctx;
    Model *m = d->student;
    const int64_t index = step * d->micro + micro;
    const int *start = batch_start(&d->batch, &d->data);
    TRY(batch_text(&d->batch, &d->data, 0, (uint64_t)index, e));
    for (int n = 0; n < d->batch.N; n++) d->weight[n] = (float)(scale / d->batch.N);
    const Real *xt = NULL;
    if (d->teacher) TRY(teacher_hidden(d->teacher, index, d->batch.ids, start, &xt, e));
    TRY(pass_input(&d->pass, m, d->batch.ids, start, e));
    model_forward(m, &d->pass);
    if (d->teacher) {
        Model *t = d->teacher->m;
        TRY(loss_kl(&d->loss, m, &d->pass, xt, t->c.C, params_head(&t->p)->w, d->tau, d->weight, 1, loss, NULL, e));
    } else TRY(loss_xent(&d->loss, m, &d->pass, d->batch.target, d->weight, 1, loss, NULL, NULL, e));
    model_backward(m, &d->pass, d->loss.dh);
    batch_ahead(&d->batch, &d->data, (uint64_t)index + 1); // while the device is busy
    *loss /= scale;
    *tokens = d->batch.N;
    return OK;
}

Task distill_task(Distill *d, const char *run) {
    return (Task){.stage = d->teacher ? "stage2" : "stage3",
                  .run = run,
                  .model = d->student,
                  .ctx = d,
                  .gradients = distill_gradients,
                  .epoch_tokens = (int64_t)d->data.d->tokens};
}

/* ---------------------------------------------------------------- held-out batches */

int heldout_open(Heldout *h, Model *teacher, const TextStream *data, int B, int T, int batches, size_t cache, Err *e) {
    *h = (Heldout){.data = *data, .teacher_model = teacher, .B = B, .T = T, .teacher_ce = NAN};
    Split split;
    TRY(stream_split(&split, data, T, 1, e));
    if ((uint64_t)h->B > split.count) h->B = (int)split.count;
    const uint64_t most = split.count / (uint64_t)h->B; // each window at most once
    h->batches = batches < 1 ? 1 : batches > HELDOUT_MAX ? HELDOUT_MAX : batches;
    if ((uint64_t)h->batches > most) h->batches = (int)most;
    int rc = batch_open(&h->batch, h->B, T, e);
    if (!rc) rc = teacher_open(&h->teacher, teacher, h->B, T, h->batches, cache, e);
    if (rc) heldout_close(h);
    return rc;
}

void heldout_close(Heldout *h) {
    teacher_close(&h->teacher);
    batch_close(&h->batch);
    memset(h, 0, sizeof *h);
}

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
            const int hit = t > 0 && repeats(h->batch.ids + row, h->batch.target + row, t, start ? start[n] : 0);
            sum[hit] += loss[n];
            count[hit] += 1;
        }
}

static int heldout_batch(Heldout *h, Model *student, Pass *p, Loss *loss, int i, HeldoutResult *r, double *teacher_ce,
                         float *rows, double sum[2], double count[2], Err *e) {
    Model *t = h->teacher_model;
    const int *start = batch_start(&h->batch, &h->data);
    const Real *xt;
    TRY(batch_text(&h->batch, &h->data, 1, (uint64_t)i, e));
    TRY(teacher_hidden(&h->teacher, i, h->batch.ids, start, &xt, e));
    TRY(pass_input(p, student, h->batch.ids, start, e));
    model_forward(student, p);
    TRY(loss_kl(loss, student, p, xt, t->c.C, params_head(&t->p)->w, 1, NULL, 0, &r->batch_kl[i], NULL, e));
    TRY(loss_xent(loss, student, p, h->batch.target, NULL, 0, &r->batch_ce[i], rows, NULL, e));
    split_add(h, rows, start, sum, count);
    if (!teacher_ce) return OK;
    Pass view = h->teacher.pass; // the loss reads nothing but h
    view.h = (Real *)(uintptr_t)xt;
    double ce;
    TRY(loss_xent(loss, t, &view, h->batch.target, NULL, 0, &ce, NULL, NULL, e));
    *teacher_ce += ce / h->batches;
    return OK;
}

int heldout_run(Heldout *h, Model *student, HeldoutResult *r, Err *e) {
    Pass p;
    Loss loss = {0};
    void *rows;
    double ce = 0, sum[2] = {0}, count[2] = {0};
    const int want_ce = isnan(h->teacher_ce) && h->teacher_model->c.C == student->c.C;
    memset(r, 0, sizeof *r);
    TRY(mem_alloc(&rows, (size_t)h->B * h->T * sizeof(float), "losses by token", e));
    int rc = pass_open(&p, student, h->B, h->T, 0, e);
    if (rc) {
        mem_free(rows);
        return rc;
    }
    rc = loss_open(&loss, student, h->teacher_model->c.C, h->B * h->T, e);
    for (int i = 0; i < h->batches && !rc; i++)
        rc = heldout_batch(h, student, &p, &loss, i, r, want_ce ? &ce : NULL, rows, sum, count, e);
    if (!rc) rc = student->be->sync(student->be, e);
    loss_close(&loss);
    pass_close(&p);
    mem_free(rows);
    if (rc) return rc;
    r->ce_new = sum[0] / count[0];
    r->ce_repeat = sum[1] / count[1];
    r->repeated = count[1] / (count[0] + count[1]);
    if (want_ce) h->teacher_ce = ce;
    r->batches = h->batches;
    batch_stats(r->batch_kl, h->batches, &r->kl, &r->kl_se);
    batch_stats(r->batch_ce, h->batches, &r->ce, &r->ce_se);
    return OK;
}
