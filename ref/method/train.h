/* train.h - the one training loop: every stage is a Task for it. Resumable, stoppable, bit-exact.
 *
 * One step = `micro` gradient calls, clip, AdamW. Stage 1, stage 2, stage 3, the scoring runs and pretraining differ
 * only in what a gradient call does (align.h, distill.h, pretrain.h). */
#ifndef HYB_TRAIN_H
#define HYB_TRAIN_H
#include "base/log.h"
#include "io/json.h"
#include "run/checkpoint.h"

typedef struct Task {
    const char *stage; /* "stage1", "stage2", "stage3", "score", "pretrain": the log's `stage` */
    const char *run;   /* which of several runs of a stage: "layer-3", "uniform"; NULL: "" */
    Model *model;      /* what trains */
    void *ctx;
    /* Adds scale * d(mean loss)/d(parameters) of micro-batch `micro` of step `step` (from 0) to the gradients.
     * *loss = mean loss, unscaled; *tokens = tokens read. Must be a pure function of its arguments, the weights and
     * `extra`. */
    int (*gradients)(void *ctx, int64_t step, int micro, double scale, double *loss, int64_t *tokens, Err *e);
    /* After the update of step `done` (from 1): evaluations, curriculum. recent: mean loss of the last 10 steps.
     * May be NULL. */
    int (*after)(void *ctx, int64_t done, int64_t tokens, double recent, Err *e);
    void (*log)(void *ctx, JsonOut *row); /* more members for a log row (layer_losses, ...). May be NULL. */
    /* (n_extra) numbers that belong to the state, saved in checkpoints. May be NULL. */
    double *extra;
    int n_extra;
    /* tokens of one pass over the data, for the log's `epoch`; 0: unknown */
    int64_t epoch_tokens;
} Task;

typedef enum { NAN_STOP, NAN_SKIP } NanPolicy;
typedef struct {   /* keys of the official YAML where one exists (interfaces.md A5) */
    int64_t steps; /* 0: from target_tokens */
    int64_t target_tokens;
    /* sequences a step, sequences a gradient call, tokens a sequence */
    int batch_size, micro_batch_size, train_seq_len;
    OptimConfig optim; /* lr, lr_attn, max_grad_norm (clip), lr_scheduler_type (schedule), ... */
} StageOptions;

typedef struct {
    StageOptions stage;
    int log_every;        /* steps a log row averages over; 0: 10 */
    const char *log_path; /* log.jsonl, appended to; NULL: none */
    const char *dir;      /* checkpoints; NULL: none */
    int64_t save_every;   /* steps; 0: only when stopped and at the end */
    int keep_last;        /* checkpoints kept; 0: 2 */
    /* pause after this step, with a checkpoint, as if it were the last; 0: run to the end */
    int64_t until;
    NanPolicy nan; /* not-finite loss or gradient: stop with ERR_NUMERIC, or skip the step */
    int max_skips; /* NAN_SKIP: more than so many in one run are ERR_NUMERIC */
    /* the caller's part: data, seed, teacher; the loop adds the stage's options */
    uint64_t fingerprint;
    const Progress *progress; /* may be NULL */
    /* set to 2 (SIGINT) or 15 (SIGTERM) by a handler that wants the run to stop; may be NULL */
    volatile int *stop;
    Warn warn;
    void *warn_ctx;
} TrainOptions;

typedef struct {
    int64_t step, steps, tokens, skipped;
    double loss; /* of the last step */
    /* mean loss of the last (up to) 10 steps: the official code's logged loss, and its layer score */
    double recent;
    double seconds; /* training time, earlier sessions included */
    int resumed;    /* 1: went on from a checkpoint */
} TrainResult;

/* Micro-batches a step and steps, by the official formulas (method.md 1.5): accumulation = max(1, ceil(batch/micro)),
 * steps = max(1, floor(target_tokens / (micro * accumulation * seq))). The effective batch is micro * accumulation. */
int stage_micro_batches(const StageOptions *o);
int64_t stage_steps(const StageOptions *o);
/* ERR_USAGE naming the field: sizes >= 1, rates finite and >= 0, steps or target_tokens given. `what` is the stage. */
int stage_check(const StageOptions *o, const char *what, Err *e);

/* Runs the task to its last step, from its newest checkpoint if there is one; a task that is finished returns at once
 * with its weights loaded. ERR_SIGINT / ERR_SIGTERM: *stop was set, a checkpoint was written. ERR_NUMERIC:
 * names step and, where known, the parameter.
 * After a resume the log file is as an uninterrupted run would have left it, except for times. */
int train_run(const Task *t, const TrainOptions *o, TrainResult *r, Err *e);
int train_hold(const StageOptions *o); /* which weights of its model it holds: for model_hold_bytes */

/* Cuts the log before the first row that is torn, or of this stage and run with step > `step`. Nothing there is fine.
 * */
int train_log_trim(const char *path, const char *stage, const char *run, int64_t step, Err *e);

#endif
