/* train.c - the training loop: gradients of all micro-batches, clip, AdamW. See train.h. */
#include "method/train.h"
#include "base/mem.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---------------------------------------------------------------- one step */

static int stopped(const TrainWatch *w) { return w && w->stopped ? *w->stopped : 0; }

/* Whether all ranks shall stop: where there are others, rank 0's word counts, once a step. */
static int train_stopped(const Train *t, const TrainWatch *w, int *cut, Err *e) {
    *cut = stopped(w);
    return ranks_share(t->lanes.ranks, cut, sizeof *cut, e);
}

/* Gradients of the micro-batches from `first` on to before `end`, into the loss and the tokens of the step. *cut:
 * asked to stop in between; the step must then be taken back. */
static int micro_gradients(Train *t, const TrainWatch *w, int first, int end, int *cut, Err *e) {
    t->loss = 0;
    t->step_tokens = 0;
    for (int i = first; i < end; i++) {
        double loss;
        int64_t n = 0;
        if (ranks_count(t->lanes.ranks) < 2 && (*cut = stopped(w))) return OK;
        TRY(t->task->gradients(t->task->ctx, t->step, i, 1.0 / t->micro, &loss, &n, e));
        t->loss += loss / t->micro;
        t->step_tokens += n;
    }
    return OK;
}

/* Gradients of all micro-batches: of this rank's lanes, and from the other ranks the sums of theirs. */
static int train_gradients(Train *t, const TrainWatch *w, const double *before, int *cut, Err *e) {
    Lanes *l = &t->lanes;
    const int micro = t->micro / l->lanes, sums = t->task->n_sums;
    double *extra = t->task->extra + t->task->sums;
    if (l->lanes < 2) return micro_gradients(t, w, 0, t->micro, cut, e);
    for (int i = 0; i < l->own; i++) {
        double *number = lanes_numbers(l, i);
        for (int k = 0; k < sums; k++) extra[k] = 0;
        TRY(micro_gradients(t, w, (l->first + i) * micro, (l->first + i + 1) * micro, cut, e));
        if (*cut) return OK;
        number[0] = t->loss;
        number[1] = (double)t->step_tokens;
        for (int k = 0; k < sums; k++) number[2 + k] = extra[k];
        TRY(lanes_add(l, i, e));
    }
    TRY(lanes_finish(l, e));
    t->loss = l->number[0];
    t->step_tokens = (int64_t)l->number[1];
    for (int k = 0; k < sums; k++) extra[k] = before[t->task->sums + k] + l->number[2 + k];
    return OK;
}

/* A loss or gradient that is not finite: skip the step as allowed, else fail. */
static int train_not_finite(Train *t, const Err *why, Err *e) {
    const Task *task = t->task;
    t->skipped++;
    if (t->nan == NAN_SKIP && t->skipped <= t->max_skips) return OK;
    const Lanes *l = &t->lanes;
    char where[100] = "";
    if (ranks_count(l->ranks) > 1 && l->bad >= 0)
        snprintf(where, sizeof where, ", met by rank %d on %s", l->bad, l->ranks->hosts[l->bad]);
    err_set(e, ERR_NUMERIC, "%s %s: step %lld: %s (loss %g)%s%s", task->stage, task->run ? task->run : "",
            (long long)t->step + 1, why->code ? why->msg : "loss is not finite", t->loss, where,
            t->nan == NAN_SKIP ? "; too many skipped steps" : "");
    return err_hint(e, "lower the learning rate, or skip such steps (nan_skip with max_skips)");
}

/* The task's numbers as they were before an unfinished step. */
static void train_take_back(Train *t, const double *before) {
    if (t->task->n_extra) memcpy(t->task->extra, before, (size_t)t->task->n_extra * sizeof *before);
}

static int train_step(Train *t, const TrainWatch *w, double *before, int *cut, Err *e) {
    const Task *task = t->task;
    Err why = {0};
    if (task->n_extra) memcpy(before, task->extra, (size_t)task->n_extra * sizeof *before);
    model_zero_grad(task->model);
    const int rc = train_gradients(t, w, before, cut, e);
    if (rc || *cut) {
        train_take_back(t, before);
        return rc;
    }
    const int moved = isfinite(t->loss) ? optim_step(&t->optim, t->steps, &t->grad_norm, &t->lr, &why) : ERR_NUMERIC;
    if (moved && moved != ERR_NUMERIC) { // another rank, not a number
        if (e) *e = why;
        return moved;
    }
    t->finite = !moved;
    TRY(task->model->be->sync(task->model->be, e));
    if (t->finite) {
        double *recent = t->state;
        recent[1 + (int64_t)recent[0] % TRAIN_RECENT] = t->loss;
        recent[0] += 1;
    } else {
        train_take_back(t, before);
        TRY(train_not_finite(t, &why, e));
    }
    t->step++;
    t->tokens += t->step_tokens;
    return task->after ? task->after(task->ctx, t->step, t->tokens, train_recent(t), e) : OK;
}

/* ---------------------------------------------------------------- all steps */

static int train_loop(Train *t, int64_t last, const TrainWatch *w, double *before, Err *e) {
    while (t->step < last) {
        int cut;
        TRY(train_stopped(t, w, &cut, e));
        if (!cut) TRY(train_step(t, w, before, &cut, e));
        if (cut) return w->stop ? w->stop(w->ctx, t, e) : err_set(e, 128 + cut, "%s stopped", t->task->stage);
        if (w && w->step) TRY(w->step(w->ctx, t, e));
    }
    return w && w->end ? w->end(w->ctx, t, e) : OK;
}

double train_recent(const Train *t) {
    const double *recent = t->state;
    const int n = recent[0] < TRAIN_RECENT ? (int)recent[0] : TRAIN_RECENT;
    double sum = 0;
    for (int i = 0; i < n; i++) sum += recent[1 + i];
    return n ? sum / n : NAN;
}

/* Several micro-batches read the same weights; within one, the loss's blocks of rows read the same head. */
int train_prepack(const StageOptions *o) { return PREPACK_BACKWARD | (stage_micro_batches(o) > 1 ? 0 : PREPACK_HEAD); }

int train(Train *t, const Task *task, const StageOptions *stage, int64_t until, const TrainWatch *w, Err *e) {
    const size_t n = 1 + TRAIN_RECENT + (size_t)task->n_extra;
    void *mem;
    *t = (Train){.task = task, .stage = stage, .nan = t->nan, .max_skips = t->max_skips};
    TRY(stage_check(stage, task->stage, e));
    t->steps = stage_steps(stage);
    t->micro = stage_micro_batches(stage);
    TRY(mem_alloc(&mem, (n + (size_t)task->n_extra) * sizeof(double), "training state", e));
    t->state = mem;
    TRY(lanes_open(&t->lanes, task->model, stage->optim.lanes, 2 + task->n_sums, e));
    TRY(optim_open(&t->optim, task->model, &stage->optim, e));
    if (w && w->begin) TRY(w->begin(w->ctx, t, e));
    if (task->prepare && !t->resumed) {
        TRY(task->prepare(task->ctx, e));
        TRY(optim_masters(&t->optim, e));
    }
    model_prepack(task->model, train_prepack(stage));
    model_invalidate(task->model);
    return train_loop(t, until > 0 && until < t->steps ? until : t->steps, w, t->state + n, e);
}

void train_close(Train *t) {
    if (t->task) model_prepack_release(t->task->model);
    optim_close(&t->optim);
    lanes_close(&t->lanes);
    mem_free(t->state);
    *t = (Train){0};
}

/* ---------------------------------------------------------------- what a stage says */

int stage_micro_batches(const StageOptions *o) {
    return o->batch_size / o->micro_batch_size; // stage_check: without a rest
}

int64_t stage_steps(const StageOptions *o) {
    if (o->steps > 0) return o->steps;
    const int64_t per_step = (int64_t)o->micro_batch_size * stage_micro_batches(o) * o->train_seq_len;
    const int64_t steps = o->target_tokens / per_step;
    return steps > 1 ? steps : 1;
}

void stage_settle(StageOptions *o, int lanes) {
    const int one = lanes > 1 && o->batch_size % lanes == 0 ? o->batch_size / lanes : o->batch_size;
    o->optim.lanes = lanes;
    if (o->micro_batch_size > one) o->micro_batch_size = one;
}

/* Each lane has as many micro-batches as the others. */
static int stage_lanes_check(const StageOptions *o, const char *what, Err *e) {
    const int lanes = o->optim.lanes;
    TRY(lanes_check(lanes, e));
    if (lanes < 2) return OK;
    if (o->batch_size % lanes) {
        err_set(e, ERR_USAGE, "%s.batch_size: got %d, expected a multiple of the %d lanes", what, o->batch_size, lanes);
        int most = 1;
        while (o->batch_size % (2 * most) == 0) most *= 2;
        return err_hint(e, "give %s.batch_size %d, or at most %d lanes", what, (o->batch_size / lanes + 1) * lanes,
                        most);
    }
    const int one = o->batch_size / lanes;
    if (one % o->micro_batch_size == 0) return OK;
    err_set(e, ERR_USAGE, "%s.micro_batch_size: got %d, expected a divisor of the %d sequences of a lane", what,
            o->micro_batch_size, one);
    return err_hint(e, "give %s.micro_batch_size %d", what, one);
}

int stage_check(const StageOptions *o, const char *what, Err *e) {
    const OptimConfig *c = &o->optim;
    const struct {
        const char *key;
        double v, lo, hi;
    } row[] = {{"batch_size", o->batch_size, 1, 1 << 20},
               {"micro_batch_size", o->micro_batch_size, 1, 1 << 20},
               {"train_seq_len", o->train_seq_len, 1, 1 << 24},
               {"steps", (double)o->steps, 0, 1e15},
               {"target_tokens", (double)o->target_tokens, 0, 1e18},
               {"lr", c->lr, 0, 1e3},
               {"lr_attn", c->lr_attn, 0, 1e3},
               {"max_grad_norm", c->clip, 0, 1e30},
               {"weight_decay", c->decay, 0, 1e3},
               {"adam_beta1", c->beta1, 0, 0.9999999},
               {"adam_beta2", c->beta2, 0, 0.9999999},
               {"adam_epsilon", c->eps, ADAM_EPS_LEAST, 1},
               {"warmup_steps", (double)c->schedule.warmup, 0, 1e15},
               {"final_lr_fraction", c->schedule.final, 0, 1},
               {"hold_fraction", c->schedule.hold, 0, 1}};
    for (size_t i = 0; i < sizeof row / sizeof *row; i++)
        if (!(row[i].v >= row[i].lo && row[i].v <= row[i].hi))
            return err_set(e, ERR_USAGE, "%s.%s: got %g, expected %g to %g", what, row[i].key, row[i].v, row[i].lo,
                           row[i].hi);
    if (o->batch_size % o->micro_batch_size) {
        err_set(e, ERR_USAGE, "%s.batch_size: got %d, expected a multiple of micro_batch_size %d", what, o->batch_size,
                o->micro_batch_size);
        int micro = o->micro_batch_size < o->batch_size ? o->micro_batch_size : o->batch_size;
        while (o->batch_size % micro) micro--;
        return err_hint(e, "give micro_batch_size %d, or another batch_size", micro);
    }
    if (o->steps < 1 && o->target_tokens < 1) return err_set(e, ERR_USAGE, "%s: give steps or target_tokens", what);
    return stage_lanes_check(o, what, e);
}
