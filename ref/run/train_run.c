/* train_run.c - what stands around the training loop: checkpoints, log, progress. See train_run.h. */
#include "run/train_run.h"
#include "base/file.h"
#include "base/mem.h"
#include "io/jsonl.h"
#include "run/stage_options.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

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
    return log_drop(path, row_beyond, &b, e);
}

/* ---------------------------------------------------------------- one run */

typedef struct {
    Train train;
    const TrainOptions *o;
    CheckpointState s; /* extra: the state of the training, then the task's numbers */
    int64_t saved;     /* step of the newest checkpoint, -1 none */
    double began, stepped, session_tokens, base_seconds;
    Log *log;
} Run;

/* Every option of a stage, by the rows that the tables of commands have too. */
static uint64_t stage_key(const StageOptions *o, uint64_t h) {
    static const Option rows[] = {STAGE_ROWS("stage", StageShell, stage, AFFECTS_STAGE1)};
    static const OptionTable table = {rows, (int)(sizeof rows / sizeof *rows)};
    const StageShell shell = {*o};
    h = options_key(&table, &shell, AFFECTS_STAGE1, h);
    if (o->optim.lanes > 1) h = fingerprint_real(h, o->optim.lanes);
    return o->optim.stochastic_rounding ? fingerprint_real(h, (double)o->optim.seed) : h;
}

static double run_seconds(const Run *r) { return r->base_seconds + (log_now() - r->began); }

static int run_save(Run *r, Err *e) {
    Train *t = &r->train;
    const int n = t->task->n_extra;
    if (!r->o->dir || r->saved == t->step) return OK;
    if (n) memcpy(t->state + 1 + TRAIN_RECENT, t->task->extra, (size_t)n * sizeof(double));
    r->s.extra = t->state;
    r->s.step = t->step;
    r->s.tokens = t->tokens;
    r->s.skipped = t->skipped;
    r->s.seconds = run_seconds(r);
    r->s.updates = t->optim.step;
    TRY(checkpoint_save(r->o->dir, &t->optim, &r->s, r->o->keep_last > 0 ? r->o->keep_last : 2, e));
    r->saved = t->step;
    return OK;
}

static int run_load(Run *r, Err *e) {
    Train *t = &r->train;
    const int n = t->task->n_extra;
    int found = 0, rc = checkpoint_load(r->o->dir, &t->optim, &r->s, &found, r->o->warn, r->o->warn_ctx, e);
    if (rc == ERR_USAGE && r->o->replaces) {
        if (e) *e = (Err){0};
        return file_remove_tree(r->o->dir, e); // it was made under another key: begin anew
    }
    if (rc || !found) return rc;
    t->step = r->s.step;
    t->tokens = r->s.tokens;
    t->skipped = r->s.skipped;
    if (n) memcpy(t->task->extra, t->state + 1 + TRAIN_RECENT, (size_t)n * sizeof(double));
    r->saved = r->s.step;
    r->base_seconds = r->s.seconds;
    t->resumed = 1;
    return OK;
}

static int run_begin(void *ctx, Train *t, Err *e) {
    Run *r = ctx;
    const Task *task = t->task;
    r->s.extra = t->state;
    r->s.n_extra = 1 + TRAIN_RECENT + task->n_extra;
    r->saved = -1;
    snprintf(r->s.stage, sizeof r->s.stage, "%s", task->stage);
    snprintf(r->s.run, sizeof r->s.run, "%s", task->run ? task->run : "");
    r->s.fingerprint =
        fingerprint_real(stage_key(&r->o->stage, fingerprint_text(r->o->fingerprint, task->stage)), r->o->nan);
    r->s.fingerprint = fingerprint_backend(r->s.fingerprint, task->model->be->name);
    if (r->o->dir) TRY(run_load(r, e));
    if (r->o->log_path && ranks_first(task->model->be->ranks)) {
        TRY(train_log_trim(r->o->log_path, task->stage, task->run, t->step, e));
        if (t->step < t->steps) TRY(log_open(&r->log, r->o->log_path, 1, e));
    }
    r->began = r->stepped = log_now();
    return OK;
}

static void row_number(LogRow *row, const char *name, double v) {
    json_out_real(((JsonLogRow *)(void *)row)->json, name, v);
}
static void row_numbers(LogRow *row, const char *name, const double *v, int n) {
    JsonOut *j = ((JsonLogRow *)(void *)row)->json;
    json_out_array(j, name);
    for (int i = 0; i < n; i++) json_out_real(j, NULL, v[i]);
    json_out_close(j);
}

static int run_log(Run *r, Err *e) {
    const Train *t = &r->train;
    const int64_t every = r->o->log_every > 0 ? r->o->log_every : 10;
    if (t->step % every && t->step != t->steps) return OK;
    const double session = log_now() - r->began;
    const double mean = r->s.loss_count ? r->s.loss_sum / (double)r->s.loss_count : NAN;
    r->s.loss_sum = 0;
    r->s.loss_count = 0;
    JsonOut j;
    json_out_begin(&j, 0);
    json_out_object(&j, NULL);
    json_out_str(&j, "stage", t->task->stage);
    json_out_str(&j, "run", r->s.run);
    json_out_int(&j, "step", t->step);
    json_out_real(&j, "loss", mean);
    json_out_real(&j, "grad_norm", t->grad_norm);
    json_out_real(&j, "learning_rate", t->lr);
    if (t->task->epoch_tokens > 0) json_out_real(&j, "epoch", (double)t->tokens / (double)t->task->epoch_tokens);
    json_out_int(&j, "num_input_tokens_seen", t->tokens);
    if (t->skipped) json_out_int(&j, "skipped_steps", t->skipped);
    JsonLogRow row = {{row_number, row_numbers}, &j};
    if (t->task->log) t->task->log(t->task->ctx, &row.row);
    json_out_real(&j, "time", run_seconds(r));
    json_out_real(&j, "tok_per_s", session > 0 ? r->session_tokens / session : 0);
    json_out_close(&j);
    if (r->log) return log_row(r->log, &j, e);
    json_out_free(&j);
    return OK;
}

static void run_progress(const Run *r, double step_s) {
    const Train *t = &r->train;
    const double session = log_now() - r->began;
    char label[96];
    snprintf(label, sizeof label, "%s%s%s step", t->task->stage, r->s.run[0] ? " " : "", r->s.run);
    ProgressLine line = {.label = label, .step = (long)t->step, .total = (long)t->steps, .step_ms = 1e3 * step_s};
    progress_add(&line, "loss", "%.4f", t->loss);
    progress_add(&line, "grad", "%.2f", t->grad_norm);
    progress_add(&line, "lr", "%.1e", t->lr);
    line.tok_per_s = session > 0 ? r->session_tokens / session : 0;
    line.eta_s = line.tok_per_s > 0 && t->tokens > 0 && t->step > 0
                     ? (double)t->tokens / (double)t->step * (double)(t->steps - t->step) / line.tok_per_s
                     : -1;
    progress_report(r->o->progress, &line);
}

static int run_step(void *ctx, Train *t, Err *e) {
    Run *r = ctx;
    const double now = log_now();
    if (t->finite) {
        r->s.loss_sum += t->loss;
        r->s.loss_count++;
    }
    r->session_tokens += (double)t->step_tokens;
    TRY(run_log(r, e));
    run_progress(r, now - r->stepped);
    r->stepped = now;
    return r->o->save_every > 0 && t->step % r->o->save_every == 0 ? run_save(r, e) : OK;
}

static int run_end(void *ctx, Train *t, Err *e) {
    (void)t;
    return run_save(ctx, e);
}

/* The unfinished step was taken back: saves, and says which signal it was. */
static int run_stop(void *ctx, Train *t, Err *e) {
    Run *r = ctx;
    int signal_number = r->o->stop ? *r->o->stop : 0;
    TRY(ranks_share(t->lanes.ranks, &signal_number, sizeof signal_number, e));
    TRY(run_save(r, e));
    return err_set(e, 128 + signal_number, "%s %s stopped by %s after step %lld of %lld%s", t->task->stage, r->s.run,
                   signal_number == ERR_SIGTERM - 128 ? "SIGTERM" : "SIGINT", (long long)t->step, (long long)t->steps,
                   r->o->dir ? "; a checkpoint was written" : "");
}

int train_run(const Task *task, const TrainOptions *o, TrainResult *out, Err *e) {
    Run r = {.o = o, .saved = -1};
    const TrainWatch watch = {&r, run_begin, run_step, run_end, run_stop, o->stop};
    r.train.nan = o->nan;
    r.train.max_skips = o->max_skips;
    const int rc = train(&r.train, task, &o->stage, o->until, &watch, e);
    if (!rc && out) {
        const Train *t = &r.train;
        const double *recent = t->state;
        *out = (TrainResult){.step = t->step,
                             .steps = t->steps,
                             .tokens = t->tokens,
                             .skipped = t->skipped,
                             .recent = train_recent(t),
                             .seconds = run_seconds(&r),
                             .resumed = t->resumed};
        out->loss = recent[0] > 0 ? recent[1 + ((int64_t)recent[0] - 1) % TRAIN_RECENT] : NAN;
    }
    log_close(r.log);
    train_close(&r.train);
    return rc;
}
