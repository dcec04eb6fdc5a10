/* train.c - the loop. See train.h. */
#include "method/train.h"
#include "base/mem.h"
#include "io/jsonl.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { RECENT = 10 }; /* steps of the running loss: the official code logs means of 10 steps (method.md 1.4) */

int stage_micro_batches(const StageOptions *o) {
    const int n = (o->batch_size + o->micro_batch_size - 1) / o->micro_batch_size;
    return n > 1 ? n : 1;
}

int64_t stage_steps(const StageOptions *o) {
    if (o->steps > 0) return o->steps;
    const int64_t per_step = (int64_t)o->micro_batch_size * stage_micro_batches(o) * o->train_seq_len;
    const int64_t steps = o->target_tokens / per_step;
    return steps > 1 ? steps : 1;
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
               {"adam_epsilon", c->eps, 0, 1},
               {"warmup_steps", (double)c->schedule.warmup, 0, 1e15},
               {"final_lr_fraction", c->schedule.final, 0, 1},
               {"hold_fraction", c->schedule.hold, 0, 1}};
    for (size_t i = 0; i < sizeof row / sizeof *row; i++)
        if (!(row[i].v >= row[i].lo && row[i].v <= row[i].hi))
            return err_set(e, ERR_USAGE, "%s.%s: got %g, expected %g to %g", what, row[i].key, row[i].v, row[i].lo,
                           row[i].hi);
    if (o->steps < 1 && o->target_tokens < 1) return err_set(e, ERR_USAGE, "%s: give steps or target_tokens", what);
    return OK;
}

static uint64_t train_fingerprint(const Task *t, const TrainOptions *o) {
    const StageOptions *s = &o->stage;
    const OptimConfig *c = &s->optim;
    const double v[] = {(double)stage_steps(s),
                        stage_micro_batches(s),
                        s->micro_batch_size,
                        s->train_seq_len,
                        c->lr,
                        c->lr_attn,
                        c->beta1,
                        c->beta2,
                        c->eps,
                        c->decay,
                        c->clip,
                        c->schedule.kind,
                        (double)c->schedule.warmup,
                        c->schedule.final,
                        c->schedule.hold,
                        c->official_groups,
                        o->nan};
    uint64_t h = fingerprint_text(o->fingerprint, t->stage);
    for (size_t i = 0; i < sizeof v / sizeof *v; i++) h = fingerprint_real(h, v[i]);
    if (c->stochastic_rounding) h = fingerprint_real(fingerprint_text(h, "stochastic_rounding"), (double)c->seed);
    return h;
}

/* ---------------------------------------------------------------- the log */

typedef struct {
    const char *stage, *run;
    int64_t step;
} Beyond;
static int row_is(const Json *j, const char *key, const char *want) {
    const char *s = json_str(j, json_get(j, 0, key), NULL);
    return !strcmp(s ? s : "", want);
}
static int row_beyond(void *ctx, const Json *row) {
    const Beyond *b = ctx;
    int64_t step = 0;
    return row_is(row, "stage", b->stage) && row_is(row, "run", b->run) &&
           !json_opt_int(row, 0, "step", 0, INT64_MAX, &step, NULL) && step > b->step;
}
int train_log_trim(const char *path, const char *stage, const char *run, int64_t step, Err *e) {
    Beyond b = {stage, run ? run : "", step};
    return log_cut(path, row_beyond, &b, e);
}

/* ---------------------------------------------------------------- one run */

typedef struct {
    const Task *t;
    const TrainOptions *o;
    int64_t steps, saved; /* saved: step of the newest checkpoint, -1 none */
    int micro;
    Optim optim;
    /* extra = number of losses seen, the last RECENT of them in a ring, then the task's numbers */
    CheckpointState s;
    double *backup; /* the task's numbers at the begin of the step */
    double loss, norm, lr, began, session_tokens, base_seconds;
    Log *log;
} Run;

static double *run_recent(Run *r) { return r->s.extra; }
static double *run_task_extra(Run *r) { return r->s.extra + 1 + RECENT; }
static double recent_mean(const double *recent) {
    const int n = recent[0] < RECENT ? (int)recent[0] : RECENT;
    double sum = 0;
    for (int i = 0; i < n; i++) sum += recent[1 + i];
    return n ? sum / n : NAN;
}

static void run_pull(Run *r) { /* the task's numbers into the state */
    if (r->t->n_extra) memcpy(run_task_extra(r), r->t->extra, (size_t)r->t->n_extra * sizeof(double));
    r->s.seconds = r->base_seconds + (log_now() - r->began);
    r->s.updates = r->optim.step;
}

static int run_save(Run *r, Err *e) {
    if (!r->o->dir || r->saved == r->s.step) return OK;
    run_pull(r);
    TRY(checkpoint_save(r->o->dir, &r->optim, &r->s, r->o->keep_last > 0 ? r->o->keep_last : 2, e));
    r->saved = r->s.step;
    return OK;
}

static int run_log(Run *r, Err *e) {
    const int64_t every = r->o->log_every > 0 ? r->o->log_every : 10;
    if (r->s.step % every && r->s.step != r->steps) return OK;
    const double seconds = r->base_seconds + (log_now() - r->began), session = log_now() - r->began;
    const double mean = r->s.loss_count ? r->s.loss_sum / (double)r->s.loss_count : NAN;
    r->s.loss_sum = 0;
    r->s.loss_count = 0;
    JsonOut j;
    json_out_begin(&j, 0);
    json_out_object(&j, NULL);
    json_out_str(&j, "stage", r->t->stage);
    json_out_str(&j, "run", r->s.run);
    json_out_int(&j, "step", r->s.step);
    json_out_real(&j, "loss", mean);
    json_out_real(&j, "grad_norm", r->norm);
    json_out_real(&j, "learning_rate", r->lr);
    if (r->t->epoch_tokens > 0) json_out_real(&j, "epoch", (double)r->s.tokens / (double)r->t->epoch_tokens);
    json_out_int(&j, "num_input_tokens_seen", r->s.tokens);
    if (r->s.skipped) json_out_int(&j, "skipped_steps", r->s.skipped);
    if (r->t->log) r->t->log(r->t->ctx, &j);
    json_out_real(&j, "time", seconds);
    json_out_real(&j, "tok_per_s", session > 0 ? r->session_tokens / session : 0);
    json_out_close(&j);
    if (!r->log) {
        json_out_free(&j);
        return OK;
    }
    return log_row(r->log, &j, e);
}

static void run_progress(const Run *r, double step_s) {
    const double session = log_now() - r->began;
    char label[96];
    snprintf(label, sizeof label, "%s%s%s step", r->t->stage, r->s.run[0] ? " " : "", r->s.run);
    ProgressLine line = {.label = label, .step = (long)r->s.step, .total = (long)r->steps, .step_ms = 1e3 * step_s};
    progress_add(&line, "loss", "%.4f", r->loss);
    progress_add(&line, "grad", "%.2f", r->norm);
    progress_add(&line, "lr", "%.1e", r->lr);
    line.tok_per_s = session > 0 ? r->session_tokens / session : 0;
    line.eta_s = line.tok_per_s > 0 && r->s.tokens > 0 && r->s.step > 0
                     ? (double)r->s.tokens / (double)r->s.step * (double)(r->steps - r->s.step) / line.tok_per_s
                     : -1;
    progress_report(r->o->progress, &line);
}

static int run_stopped(const Run *r) { return r->o->stop && *r->o->stop; }

/* Takes the unfinished step back, saves, and says which signal it was. */
static int run_stop(Run *r, Err *e) {
    const int signal_number = *r->o->stop;
    TRY(run_save(r, e));
    return err_set(e, 128 + signal_number, "%s %s stopped by %s after step %lld of %lld%s", r->t->stage, r->s.run,
                   signal_number == ERR_SIGTERM - 128 ? "SIGTERM" : "SIGINT", (long long)r->s.step, (long long)r->steps,
                   r->o->dir ? "; a checkpoint was written" : "");
}

/* Gradients of all micro-batches. *stopped: asked to stop in between; the step must then be taken back. */
static int run_gradients(Run *r, int64_t *tokens, int *stopped, Err *e) {
    r->loss = 0;
    for (int i = 0; i < r->micro; i++) {
        double loss;
        int64_t n = 0;
        if ((*stopped = run_stopped(r))) return OK;
        TRY(r->t->gradients(r->t->ctx, r->s.step, i, 1.0 / r->micro, &loss, &n, e));
        r->loss += loss / r->micro;
        *tokens += n;
    }
    return OK;
}

static void run_take_back(Run *r) {
    model_zero_grad(r->t->model);
    if (r->t->n_extra) memcpy(r->t->extra, r->backup, (size_t)r->t->n_extra * sizeof(double));
}

/* A loss or gradient that is not finite: skip the step as allowed, else fail. rc, ne: what optim_step said, if it was
 * asked. */
static int run_not_finite(Run *r, const Err *ne, Err *e) {
    run_take_back(r);
    r->s.skipped++;
    if (r->o->nan == NAN_SKIP && r->s.skipped <= r->o->max_skips) return OK;
    err_set(e, ERR_NUMERIC, "%s %s: step %lld: %s (loss %g)%s", r->t->stage, r->s.run, (long long)r->s.step + 1,
            ne->code ? ne->msg : "loss is not finite", r->loss,
            r->o->nan == NAN_SKIP ? "; too many skipped steps" : "");
    return err_hint(e, "lower the learning rate, or skip such steps (nan_skip with max_skips)");
}

static int run_step(Run *r, int *stopped, Err *e) {
    Backend *be = r->t->model->be;
    int64_t tokens = 0;
    Err ne = {0};
    const double begin = log_now();
    if (r->t->n_extra) memcpy(r->backup, r->t->extra, (size_t)r->t->n_extra * sizeof(double));
    int rc = run_gradients(r, &tokens, stopped, e);
    if (rc || *stopped) {
        run_take_back(r);
        return rc;
    }
    const int finite = isfinite(r->loss) && !optim_step(&r->optim, r->steps, &r->norm, &r->lr, &ne);
    TRY(be->sync(be, e));
    if (!finite) TRY(run_not_finite(r, &ne, e));
    else {
        double *recent = run_recent(r);
        recent[1 + (int64_t)recent[0] % RECENT] = r->loss;
        recent[0] += 1;
        r->s.loss_sum += r->loss;
        r->s.loss_count++;
    }
    r->s.step++;
    r->s.tokens += tokens;
    r->session_tokens += (double)tokens;
    if (r->t->after) TRY(r->t->after(r->t->ctx, r->s.step, r->s.tokens, recent_mean(run_recent(r)), e));
    TRY(run_log(r, e));
    run_progress(r, log_now() - begin);
    return OK;
}

static int run_loop(Run *r, Err *e) {
    const int64_t last = r->o->until > 0 && r->o->until < r->steps ? r->o->until : r->steps;
    while (r->s.step < last) {
        int stopped = run_stopped(r);
        if (!stopped) TRY(run_step(r, &stopped, e));
        if (stopped) return run_stop(r, e);
        if (r->o->save_every > 0 && r->s.step % r->o->save_every == 0) TRY(run_save(r, e));
    }
    return run_save(r, e);
}

/* Several micro-batches read the same weights; within one, the loss's blocks of rows read the same head. */
int train_hold(const StageOptions *o) { return HOLD_BACKWARD | (stage_micro_batches(o) > 1 ? 0 : HOLD_HEAD); }

static int run_begin(Run *r, int *found, Err *e) {
    const Task *t = r->t;
    const TrainOptions *o = r->o;
    const int n = 1 + RECENT + t->n_extra;
    void *mem;
    TRY(mem_alloc(&mem, (size_t)(n + t->n_extra) * sizeof(double), "training state", e));
    r->s.extra = mem;
    r->s.n_extra = n;
    r->backup = r->s.extra + n;
    snprintf(r->s.stage, sizeof r->s.stage, "%s", t->stage);
    snprintf(r->s.run, sizeof r->s.run, "%s", t->run ? t->run : "");
    r->s.fingerprint = train_fingerprint(t, o);
    TRY(optim_open(&r->optim, t->model, &o->stage.optim, e));
    model_zero_grad(t->model);
    if (o->dir) TRY(checkpoint_load(o->dir, &r->optim, &r->s, found, o->warn, o->warn_ctx, e));
    if (*found && t->n_extra) memcpy(t->extra, run_task_extra(r), (size_t)t->n_extra * sizeof(double));
    r->saved = *found ? r->s.step : -1;
    r->base_seconds = r->s.seconds;
    if (o->log_path) {
        TRY(train_log_trim(o->log_path, t->stage, t->run, r->s.step, e));
        if (r->s.step < r->steps) TRY(log_open(&r->log, o->log_path, 1, e));
    }
    model_hold(t->model, train_hold(&o->stage));
    model_changed(t->model);
    r->began = log_now();
    return OK;
}

static void run_result(Run *r, TrainResult *out, int resumed) {
    const double *recent = run_recent(r);
    *out = (TrainResult){
        .step = r->s.step, .steps = r->steps, .tokens = r->s.tokens, .skipped = r->s.skipped, .resumed = resumed};
    out->recent = recent_mean(recent);
    out->loss = recent[0] > 0 ? recent[1 + ((int64_t)recent[0] - 1) % RECENT] : NAN;
    out->seconds = r->base_seconds + (log_now() - r->began);
}

int train_run(const Task *t, const TrainOptions *o, TrainResult *out, Err *e) {
    TRY(stage_check(&o->stage, t->stage, e));
    Run r = {.t = t, .o = o, .steps = stage_steps(&o->stage), .micro = stage_micro_batches(&o->stage), .saved = -1};
    int found = 0, rc = run_begin(&r, &found, e);
    if (!rc) rc = run_loop(&r, e);
    if (!rc && out) run_result(&r, out, found);
    log_close(r.log);
    model_let_go(t->model);
    optim_close(&r.optim);
    mem_free(r.s.extra);
    return rc;
}
