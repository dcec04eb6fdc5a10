/* batch.h - what a step reads: rows of text, and of what may be mixed into it, as a pure function of (seed, index).
 * Nothing to save. */
#ifndef HYB_BATCH_H
#define HYB_BATCH_H
#include "text/dataset.h"

/* The text of a run. The last `heldout` part of the tokens is never trained on; the cut is one token position for every
 * T. */
typedef struct {
    const Dataset *d;
    uint64_t seed;
    double heldout; /* fraction of the tokens, e.g. 0.05 */
    /* 1: attention and states begin anew at each document (clean); 0: they run on (official) */
    int boundaries;
    /* share of rows that are not text (score_mix), 0: none: the last floor(B mix + 1/2) of a batch of B */
    double mix;
    /* fills ids and target (rows,T) of rows first, first+1, ... as a pure function of (seed, index, row) */
    int (*mixed)(const void *ctx, uint64_t seed, uint64_t index, int first, int rows, int T, int *ids, int *target,
                 Err *e);
    const void *mixed_ctx;
} TextStream;

typedef enum { TRAINING, HELDOUT } Side; /* of the cut */
/* Windows of T tokens on one side of the cut. ERR_INPUT when there is not one (names tokens and
 * T). */
int stream_split(Split *out, const TextStream *s, int T, Side side, Err *e);

typedef struct {
    int B, T, N;
    int *ids, *target, *start; /* host (B,T): tokens, next tokens, see ops_decl.h `start` */
    /* (B,T) of a text of which completions alone count (dataset_completions), where the targets of prompts are -1:
     * 1/counted of those that count, else 0. NULL where all count. What losses take as `weight`. */
    float *weight;
    int counted; /* targets that count */
    /* the same for the batch that was made ahead, if has_ahead: number `ahead` of a stream with this seed and data */
    int *spare;
    int has_ahead;
    uint64_t ahead, ahead_seed;
    const Dataset *ahead_of;
    void *mem;
} Batch;
int batch_open(Batch *b, int B, int T, Err *e);
void batch_close(Batch *b); /* fine on a zeroed Batch */
/* Batch number `index` of the stream. With a mixture, text rows are those of the unmixed batch, the last ones
 * replaced. Held-out batches use a seed of their own kind: the same for every model that is compared. */
int batch_text(Batch *b, const TextStream *s, Side side, uint64_t index, Err *e);
/* Makes training batch `index` now, for the batch_text that asks for it next with the same stream:
 * while a device is at work on what it was given, so that it need not wait for the reading.
 * ids, target and start stay as they are until then. Cannot fail: then nothing is made ahead. */
void batch_ahead(Batch *b, const TextStream *s, uint64_t index);
/* Targets that count in the training batches first ... first+n-1 together; what was made ahead is lost. */
int batch_counted(Batch *b, const TextStream *s, uint64_t first, int n, int64_t *counted, Err *e);
/* What model code wants as `start`: NULL when documents are not kept apart. */
static inline const int *batch_start(const Batch *b, const TextStream *s) { return s->boundaries ? b->start : NULL; }

#endif
