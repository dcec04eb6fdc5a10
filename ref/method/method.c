/* method.c - which layers of a Transformer must stay softmax, and the hybrid that keeps them: the paper's Algorithm 1.
 * See method.h. */
#include "method/method.h"
#include "base/mem.h"
#include <stdio.h>

int hybridize(Method *m, Err *e) {
    int keep[MAX_LAYERS] = {0}, enough = 0;
    if (!m->stage1_student.be) TRY(method_stage1(m, NULL, e)); /*  1, 2  all layers linear, each aligned */
    TRY(m->aligned(m->ctx, &enough, e));
    if (enough) return OK;
    m->scoring.stage1_student = &m->stage1_student;
    if (m->scores) TRY(m->scores(m->ctx, e)); /*  3-6   one layer at a time softmax again */
    else if (m->score) TRY(ga_s2(m->score, &m->scoring, "scores", m->memo, e));
    TRY(m->choose(m->ctx, keep, &enough, e)); /*  7     the K most important ones stay */
    if (enough) return OK;
    return m->student(m->ctx, keep, e); /*  8, 9  method_hybrid, then judged */
}

/* Stage 1, and what it begins with. */
typedef struct {
    Align align; // first: its gradients take this struct as their own
    Method *m;
    Fit fit;
} Stage1;

static int stage1_prepare(void *ctx, Err *e) {
    Stage1 *s = ctx;
    Method *m = s->m;
    TRY(fit_start(&s->fit, m->init, &s->align, m->init_tokens, m->memo, e));
    return m->started ? m->started(m->ctx, &s->fit, e) : OK;
}

static int stage1_train(Method *m, Model *student, TrainResult *t, Err *e) {
    void *mem;
    TRY(mem_alloc(&mem, sizeof(Stage1), "stage 1", e));
    Stage1 *s = mem;
    s->m = m;
    int rc = align_open(&s->align, m->teacher, student, &m->text, &m->stage1, m->align_form, e);
    if (!rc) {
        Task task = align_task(&s->align);
        if (m->init != START_TEACHER) task.prepare = stage1_prepare;
        rc = m->memo->train(m->memo, "stage1", -1, &task, &m->stage1, 0, t, e); /* 2 */
        align_close(&s->align);
    }
    mem_free(mem);
    return rc;
}

int method_stage1(Method *m, double *seconds, Err *e) {
    Model student;
    TrainResult t = {0};
    TRY(model_open(&student, &m->linear, m->teacher->be, GRAD_MIXERS, e));
    int rc = transfer_weights(&student, m->teacher, m->kv_repeat, m->seed, e); /* 1 */
    if (!rc) rc = stage1_train(m, &student, &t, e);
    if (!rc) rc = model_open(&m->stage1_student, &m->linear, m->teacher->be, GRAD_NONE, e);
    if (!rc) rc = transfer_hybrid(&m->stage1_student, &student, m->teacher, e);
    model_close(&student);
    if (seconds) *seconds = t.seconds;
    return rc;
}

/* One of stages 2 and 3 on an open hybrid. */
static int method_distill(Method *m, Model *hybrid, const StageOptions *stage, int with_teacher, const char *run,
                          const char *name, TrainResult *t, size_t *bytes, Err *e) {
    Teacher teacher = {0};
    Distill d;
    TrainResult one = {0};
    if (with_teacher) TRY(teacher_open(&teacher, m->teacher, stage->micro_batch_size, stage->train_seq_len, 0, 0, e));
    int rc = distill_open(&d, hybrid, with_teacher ? &teacher : NULL, &m->text, stage, m->tau, m->checkpointing, e);
    if (!rc) {
        const Task task = distill_task(&d, run);
        const size_t need = hybrid->weight_bytes + hybrid->grad_bytes + optim_bytes(hybrid, &stage->optim) +
                            d.pass.bytes + d.loss.bytes + teacher_bytes(&teacher) + m->teacher->weight_bytes +
                            m->stage1_student.weight_bytes + model_prepack_bytes(m->teacher, 0) +
                            model_prepack_bytes(hybrid, train_prepack(stage));
        if (need > *bytes) *bytes = need;
        rc = m->memo->train(m->memo, name, -1, &task, stage, 0, &one, e);
        distill_close(&d);
    }
    teacher_close(&teacher);
    t->seconds += one.seconds;
    t->tokens += one.tokens;
    return rc;
}

int method_hybrid(Method *m, Model *hybrid, const int *keep, const char *run, const char *name, TrainResult *t,
                  size_t *bytes, Err *e) {
    char training[160];
    TRY(hybrid_open(hybrid, m->teacher, &m->stage1_student, keep, GRAD_ALL, e)); /* 8 */
    snprintf(training, sizeof training, "%s/stage2", name);
    int rc = method_distill(m, hybrid, &m->stage2, 1, run, training, t, bytes, e); /* 9 */
    if (!rc && (m->stage3.steps || m->stage3.target_tokens)) {
        snprintf(training, sizeof training, "%s/stage3", name);
        rc = method_distill(m, hybrid, &m->stage3, 0, run, training, t, bytes, e);
    }
    if (rc) model_close(hybrid);
    return rc;
}
