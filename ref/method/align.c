/* align.c - stage 1: every linear mixer learns to answer as the attention that it replaces (Algorithm 1, line 2).
 *
 *   L_l = mean over tokens of | attention_l(n1) - mixer_l(n1) | / sqrt(C),   n1 = the teacher's normed input of layer l
 *
 * Teacher-forced: one teacher pass feeds all layers, so no layer's loss depends on another's. See align.h. */
#include "method/align.h"
#include "base/mem.h"
#include <string.h>

/* One student mixer on the teacher's normed input n1: forward, distance to a->t, backward into its parameters only. */
static void align_mixer(Align *a, int l, const Real *n1, double weight) {
    Model *m = a->student;
    Backend *be = m->be;
    const Mixer *mix = mixer_at(m->c.mixer[l]);
    MixerActs *acts = &a->sp.layer[l].mix;
    mix->forward(mix, layer_call(m, &a->sp, l), acts, a->s, n1);
    if (weight == 0) {
        be->op->align_loss(a->loss, NULL, a->t, a->s, 1, a->form, a->sp.N, m->c.C);
        return;
    }
    be->zero(be, a->ds, (size_t)a->sp.N * m->c.C * be->real_size);
    be->op->align_loss(a->loss, a->ds, a->t, a->s, weight, a->form, a->sp.N, m->c.C);
    mix->backward(mix, layer_call(m, &a->sp, l), acts, NULL, a->ds, n1); // dx = NULL: the input is the teacher's
}

int align_batch(Align *a, double scale, double *loss, double *layer_loss, Err *e) {
    Model *t = a->teacher;
    Backend *be = t->be;
    const int *start = batch_start(&a->batch, &a->data);
    const int L = t->c.L;
    // over layers: the code's mean, the paper's sum
    const double mean = a->form == ALIGN_NORM ? 1.0 / a->linear_layers : 1.0;
    int last = L - 1;
    while (last > 0 && !a->student->c.mixer[last]) last--;
    TRY(pass_input(&a->tp, t, a->batch.ids, start, e));
    TRY(pass_input(&a->sp, a->student, a->batch.ids, start, e));
    be->zero(be, a->sum, (size_t)L * sizeof(double));
    model_embed(t, &a->tp, a->x);
    for (int l = 0; l <= last; l++) {
        layer_norm_in(t, &a->tp, l, a->x);
        layer_mixer(t, &a->tp, l, a->t);
        if (a->student->c.mixer[l]) {
            align_mixer(a, l, a->tp.layer[l].n1, scale * mean / a->batch.N);
            be->op->sum(a->sum + l, a->loss, a->batch.N);
        }
        if (l == last) break; // nothing after the last mixer enters the loss
        layer_mlp(t, &a->tp, l, a->x, a->t, a->x);
    }
    if (a->next) batch_ahead(&a->batch, &a->data, a->next); // while the device is busy
    double sum[MAX_LAYERS];
    be->download(be, sum, a->sum, (size_t)L * sizeof(double));
    *loss = 0;
    for (int l = 0; l < L; l++) {
        const double v = sum[l] / a->batch.N;
        *loss += mean * v;
        if (layer_loss) layer_loss[l] = v;
    }
    return OK;
}

static int align_gradients(void *ctx, int64_t step, int micro, double scale, double *loss, int64_t *tokens, Err *e) {
    Align *a = ctx;
    const int L = a->teacher->c.L;
    double layer[MAX_LAYERS];
    const uint64_t index = (uint64_t)(step * a->micro + micro);
    TRY(batch_text(&a->batch, &a->data, TRAINING, index, e));
    a->next = index + 1;
    TRY(align_batch(a, scale, loss, layer, e));
    for (int l = 0; l < L; l++) a->extra[l] += layer[l];
    a->extra[L] += 1;
    *tokens = a->batch.N;
    return OK;
}

static void align_log(void *ctx, LogRow *row) {
    Align *a = ctx;
    const int L = a->teacher->c.L;
    double mean[MAX_LAYERS];
    for (int l = 0; l < L; l++) mean[l] = a->extra[L] > 0 ? a->extra[l] / a->extra[L] : 0;
    row->numbers(row, "layer_losses", mean, L);
    memset(a->extra, 0, (size_t)(L + 1) * sizeof(double));
}

Task align_task(Align *a) {
    return (Task){.stage = "stage1",
                  .model = a->student,
                  .ctx = a,
                  .gradients = align_gradients,
                  .log = align_log,
                  .extra = a->extra,
                  .n_extra = a->teacher->c.L + 1,
                  .n_sums = a->teacher->c.L + 1,
                  .epoch_tokens = (int64_t)a->data.d->tokens};
}

/* ---------------------------------------------------------------- opening and closing */

static void align_place(Align *a, Arena *ar) {
    const Backend *be = a->teacher->be;
    const size_t N = a->batch.N, C = a->teacher->c.C;
    a->x = arena_take(ar, N * C, be->real_size);
    a->t = arena_take(ar, N * C, be->real_size);
    a->s = arena_take(ar, N * C, be->real_size);
    a->ds = arena_take(ar, N * C, be->real_size);
    a->loss = arena_take(ar, N, be->wide_size);
    a->sum = arena_take(ar, a->teacher->c.L, sizeof(double));
}

static int align_start(Align *a, const StageOptions *o, Err *e) {
    Backend *be = a->teacher->be;
    const int B = o->micro_batch_size, T = o->train_seq_len, L = a->teacher->c.L;
    void *extra;
    TRY(mem_alloc(&extra, (size_t)(L + 1) * sizeof(double), "layer losses", e));
    a->extra = extra;
    TRY(batch_open(&a->batch, B, T, e));
    TRY(pass_open(&a->tp, a->teacher, B, T, 0, e));
    // what backward needs is one layer's at a time: the memory of a checkpointing pass
    TRY(pass_open(&a->sp, a->student, B, T, PASS_TRAIN | PASS_CHECKPOINT, e));
    Arena ar = {0};
    align_place(a, &ar);
    TRY(be->alloc(be, &a->mem, ar.used, "alignment scratch", e));
    const size_t bytes = ar.used;
    arena_begin(&ar, a->mem, bytes);
    align_place(a, &ar);
    for (int l = 0; l < L; l++) a->linear_layers += a->student->c.mixer[l] != 0;
    if (!a->linear_layers) return err_set(e, ERR_USAGE, "stage 1: the student has no linear layer to align");
    return OK;
}

int align_open(Align *a, Model *teacher, Model *student, const TextStream *data, const StageOptions *o, int form,
               Err *e) {
    *a = (Align){.teacher = teacher, .student = student, .data = *data, .micro = stage_micro_batches(o), .form = form};
    model_prepack(teacher, 0);
    const int rc = align_start(a, o, e);
    if (rc) align_close(a);
    return rc;
}

void align_close(Align *a) {
    if (a->mem) a->teacher->be->release(a->teacher->be, a->mem);
    mem_free(a->extra);
    pass_close(&a->sp);
    pass_close(&a->tp);
    batch_close(&a->batch);
    memset(a, 0, sizeof *a);
}
