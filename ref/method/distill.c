/* distill.c - stages 2 and 3: all of the student's weights learn the teacher's next-token distribution, or the text.
 *
 *   stage 2   L = mean over tokens of KL( teacher(.|x; tau) || student(.|x; tau) )      Algorithm 1, lines 5 and 9
 *   stage 3   L = mean over tokens of -log student(next|x)
 *
 * Where completions alone count, the mean is over the step's tokens whose next token belongs to one: sum_n w_n L_n /
 * sum_n w_n over all micro-batches, w_n in {0, 1}; not a mean of means, which would weigh a token by its neighbours.
 * See distill.h. */
#include "method/distill.h"
#include "base/mem.h"
#include "method/transfer.h"
#include <string.h>

/* The weight of each token in the sum: scale over the mean number of targets that count in a micro-batch of this step,
 * which is N where all count. A step without any has the loss 0 and no gradient. */
static int distill_weights(Distill *d, int64_t step, double scale, Err *e) {
    const int *target = d->batch.target;
    double mean = d->batch.N;
    if (d->batch.weight && d->counted_step != step + 1) {
        TRY(batch_counted(&d->batch, &d->data, (uint64_t)(step * d->micro), d->micro, &d->counted, e));
        d->counted_step = step + 1;
    }
    if (d->batch.weight) mean = (double)d->counted / d->micro;
    for (int n = 0; n < d->batch.N; n++) d->weight[n] = d->batch.weight && target[n] < 0 ? 0 : (float)(scale / mean);
    return OK;
}

/* One micro-batch: teacher's hidden state, student forward, loss with its gradient at h, student backward. */
static int distill_gradients(void *ctx, int64_t step, int micro, double scale, double *loss, int64_t *tokens, Err *e) {
    Distill *d = ctx;
    Model *m = d->student;
    const int64_t index = step * d->micro + micro;
    TRY(batch_text(&d->batch, &d->data, TRAINING, (uint64_t)index, e));
    const int *start = batch_start(&d->batch, &d->data);
    TRY(distill_weights(d, step, scale, e));
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
    *loss /= scale;                                        // the sum had it in its weights
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

/* ---------------------------------------------------------------- the hybrid */

int hybrid_open(Model *h, Model *teacher, Model *stage1_student, const int *keep, GradKind grad, Err *e) {
    Config c = stage1_student->c;
    char what[128];
    if (stage1_student != teacher && config_difference(&c, &teacher->c, what, sizeof what)) {
        err_set(e, ERR_INPUT, "student and teacher differ: %s", what);
        return err_hint(e,
                        "layers of one can only stand in the other where both compute alike: is it the student's own "
                        "teacher?");
    }
    for (int l = 0; l < c.L; l++)
        if (keep[l]) c.mixer[l] = 0;
    TRY(model_open(h, &c, stage1_student->be, grad, e));
    h->chunk = stage1_student->chunk;
    const int rc = transfer_hybrid(h, stage1_student, teacher, e);
    if (rc) model_close(h);
    return rc;
}

/* ---------------------------------------------------------------- opening and closing */

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
