/* train.h - the one training loop: every stage is a Task for it. Source: ref/METHOD.md 3.8 and 4.
 *
 * One step = gradients of `micro` micro-batches, clip, AdamW. Stage 1, stage 2, stage 3, the scoring runs and
 * pretraining differ only in what a gradient call does (align.h, distill.h, run/pretrain.h).
 * What stands around the loop, from checkpoints to the log, is a TrainWatch. */
#ifndef HYB_TRAIN_H
#define HYB_TRAIN_H
#include "method/optim.h"

/* Where a task's own numbers go for whoever reads along: called inside Task.log. */
typedef struct LogRow {
    void (*number)(struct LogRow *row, const char *name, double v);
    void (*numbers)(struct LogRow *row, const char *name, const double *v, int n);
} LogRow;

typedef struct Task {
    const char *stage; /* "stage1", "stage2", "stage3", "score", "pretrain" */
    const char *run;   /* which of several runs of a stage: "layer-3", "uniform"; NULL: "" */
    Model *model;      /* what trains */
    void *ctx;
    /* Adds scale * d(mean loss)/d(parameters) of micro-batch `micro` of step `step` (from 0) to the gradients.
     * *loss = mean loss, unscaled; *tokens = tokens read. Must be a pure function of its arguments, the weights and
     * `extra`. */
    int (*gradients)(void *ctx, int64_t step, int micro, double scale, double *loss, int64_t *tokens, Err *e);
    /* Writes the weights that the first step begins with; a training that goes on has its own. May be NULL. */
    int (*prepare)(void *ctx, Err *e);
    /* After the update of step `done` (from 1): evaluations, curriculum. recent: mean loss of the last 10 steps.
     * May be NULL. */
    int (*after)(void *ctx, int64_t done, int64_t tokens, double recent, Err *e);
    void (*log)(void *ctx, LogRow *row); /* the task's own numbers since the last call. May be NULL. */
    /* (n_extra) numbers that belong to the state of the training. May be NULL. Those from number `sums` on, n_sums of
     * them, are sums that gradients adds to and does not read: a lane's are added as its gradients are. */
    double *extra;
    int n_extra, sums, n_sums;
    /* tokens of one pass over the data; 0: unknown */
    int64_t epoch_tokens;
} Task;

typedef enum { NAN_STOP, NAN_SKIP } NanPolicy;
typedef struct {   /* keys of the official YAML where one exists */
    int64_t steps; /* 0: from target_tokens */
    int64_t target_tokens;
    /* sequences a step, sequences a gradient call, tokens a sequence */
    int batch_size, micro_batch_size, train_seq_len;
    OptimConfig optim; /* lr, lr_attn, max_grad_norm (clip), lr_scheduler_type (schedule), ... */
} StageOptions;

/* Micro-batches a step and steps, by the official formulas: accumulation = max(1, ceil(batch/micro)),
 * steps = max(1, floor(target_tokens / (micro * accumulation * seq))). The effective batch is micro * accumulation. */
int stage_micro_batches(const StageOptions *o);
int64_t stage_steps(const StageOptions *o);
/* Lanes of a stage, and no more sequences at a time than in a step, or in a lane where the batch divides. */
void stage_settle(StageOptions *o, int lanes);
/* ERR_USAGE naming the field: sizes >= 1, rates finite and >= 0, steps or target_tokens given. `what` is the stage. */
int stage_check(const StageOptions *o, const char *what, Err *e);

enum { TRAIN_RECENT = 10 }; /* steps of the running loss: the official code logs means of 10 steps */
/* A training in progress. A TrainWatch may read all of it, and fill the state when it begins. */
typedef struct Train {
    const Task *task;
    const StageOptions *stage;
    int64_t steps;
    int micro;
    NanPolicy nan; /* not-finite loss or gradient: stop with ERR_NUMERIC, or skip the step */
    int max_skips; /* NAN_SKIP: more than so many in one run are ERR_NUMERIC */
    Optim optim;
    Lanes lanes;
    /* the state: with the weights and the optimiser, all that the next step depends on */
    int64_t step, tokens, skipped;
    /* (1 + TRAIN_RECENT) number of losses seen and the last of them in a ring; then the task's n_extra numbers */
    double *state;
    int resumed; /* 1: TrainWatch.begin has set it, with the weights, to what an earlier start left */
    /* what the last step did */
    double loss, grad_norm, lr;
    int finite;
    int64_t step_tokens;
} Train;

typedef struct TrainWatch {
    void *ctx;
    int (*begin)(void *ctx, Train *t, Err *e); /* may set the state to that of an earlier start */
    int (*step)(void *ctx, Train *t, Err *e);  /* after every step */
    int (*end)(void *ctx, Train *t, Err *e);   /* after the last */
    int (*stop)(void *ctx, Train *t, Err *e);  /* a stop was asked for: what it returns ends the training */
    /* The signal's number once a stop was asked for; may be NULL. */
    const volatile int *stopped;
} TrainWatch; /* members may be NULL */

typedef struct {
    int64_t step, steps, tokens, skipped;
    double loss; /* of the last step */
    /* mean loss of the last (up to) 10 steps: the official code's logged loss, and its layer score */
    double recent;
    double seconds; /* training time, earlier sessions included */
    int resumed;    /* 1: went on from an earlier start */
} TrainResult;

/* Trains up to step `until` (0: to the end). ERR_NUMERIC names step and, where known, the parameter. A step that a stop
 * interrupts is taken back. t: nan and max_skips may be set; the rest is filled here, and stays readable. */
int train(Train *t, const Task *task, const StageOptions *stage, int64_t until, const TrainWatch *watch, Err *e);
void train_close(Train *t);
/* Mean of the ring of recent losses; NAN before the first. */
double train_recent(const Train *t);
int train_prepack(const StageOptions *o); /* which weights of its model it holds: for model_prepack_bytes */

#endif
