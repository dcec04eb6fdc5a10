/* train_run.h - a training with all that stands around the loop: checkpoints, the log, progress, a stop. Resumable,
 * stoppable, bit-exact. */
#ifndef HYB_TRAIN_RUN_H
#define HYB_TRAIN_RUN_H
#include "base/log.h"
#include "base/json.h"
#include "method/train.h"
#include "run/checkpoint.h"

typedef struct {
    StageOptions stage;
    int log_every;        /* steps a log row averages over; 0: 10 */
    const char *log_path; /* log.jsonl, appended to; NULL: none */
    const char *dir;      /* checkpoints; NULL: none */
    int64_t save_every;   /* steps; 0: only when stopped and at the end */
    int keep_last;        /* checkpoints kept; 0: 2 */
    /* pause after this step, with a checkpoint, as if it were the last; 0: run to the end */
    int64_t until;
    NanPolicy nan; /* see Train */
    int max_skips;
    /* the caller's part of the key: data, seed, teacher; the options of the stage are added */
    uint64_t fingerprint;
    /* 1: a checkpoint under another key is dropped and the training begins anew; 0: it is refused */
    int replaces;
    const Progress *progress; /* may be NULL */
    /* set to 2 (SIGINT) or 15 (SIGTERM) by a handler that wants the run to stop; may be NULL */
    volatile int *stop;
    Warn warn;
    void *warn_ctx;
} TrainOptions;

/* Runs the task to its last step, from its newest checkpoint if there is one; a task that is finished returns at once
 * with its weights loaded. ERR_SIGINT / ERR_SIGTERM: *stop was set, a checkpoint was written. ERR_NUMERIC: see train().
 * After a resume the log file is as an uninterrupted run would have left it, except for times. */
int train_run(const Task *t, const TrainOptions *o, TrainResult *r, Err *e);

/* Takes out of the log what is torn, and rows of this stage and run with step > `step`. No file is fine. */
int train_log_trim(const char *path, const char *stage, const char *run, int64_t step, Err *e);

/* A task's log row as JSON, for tasks of run/ that write more than numbers. */
typedef struct {
    LogRow row;
    JsonOut *json;
} JsonLogRow;

#endif
