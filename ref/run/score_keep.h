/* score_keep.h - a selector that trains nothing is stopped and goes on: rows between two layers, or two held-out
 * batches, kept on disk. */
#ifndef HYB_SCORE_KEEP_H
#define HYB_SCORE_KEEP_H
#include "method/score.h"

typedef struct {
    const char *dir; /* DIR/partial.json; NULL: nothing is kept */
    uint64_t fingerprint;
    const volatile int *stop;     /* a signal's number once it came; may be NULL */
    double base;                  /* what all layers are compared with, where there is such a number */
    double seconds, begin, saved; /* spent before; log_now of begin and of the last save */
} ScoreKeep;
enum { KEEP_SECONDS = 10 }; /* at least so long between two saves */

/* Zeroes rows (L), or takes them over with *done units (layers or batches) from an earlier call that was stopped. */
int score_keep_begin(ScoreKeep *k, LayerScore *rows, int L, int *done, Err *e);
/* After each unit: saves if it is time to, and if a stop was asked for: then 128 + the signal's number.
 * Kept are score, tokens, the first `done` of batch_kl, and heads. */
int score_keep_unit(ScoreKeep *k, const LayerScore *rows, int L, int done, Err *e);
/* Seconds of all calls so far. */
double score_keep_seconds(const ScoreKeep *k);

#endif
