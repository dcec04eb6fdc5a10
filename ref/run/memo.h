/* memo.h - what a run has done already, in its directory: records as JSON files, trainings as checkpoints.
 *
 * A record NAME (and index I) is DIR/NAME.json (DIR/NAME-I.json), its training state DIR/NAME/ (DIR/NAME-I/). A record
 * holds the key it was made under, the hash of everything it depends on: under another key it is not there, and is made
 * again. Files are written whole, to a temporary name that is then renamed, so a run may be killed at any time and goes
 * on to the same bits.
 *
 * Several processes may share a run (base/worker.h): a piece is claimed before it is made, by the path of its record or
 * of its training. */
#ifndef HYB_RUN_MEMO_H
#define HYB_RUN_MEMO_H
#include "base/ranks.h"
#include "base/worker.h"
#include "run/record.h"
#include "run/train_run.h"

typedef struct {
    Memo memo;
    const char *dir;    /* NULL: nothing is kept */
    uint64_t key;       /* of what is made now */
    TrainOptions train; /* of all trainings: log, progress, stop, how often to save */
    Worker *worker;     /* NULL: nobody shares */
    Ranks *ranks;       /* rank 0 reads and claims for all */
    int piece, pieces;  /* of the records with an index, those of this process; pieces 0: all */
} RunMemo;

/* train: what all trainings have in common; stage, dir, until and fingerprint are filled in for each. */
RunMemo run_memo(const char *dir, uint64_t key, const TrainOptions *train);

#endif
