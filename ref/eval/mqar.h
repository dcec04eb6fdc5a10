/* mqar.h - recall probes of plain token ids that need no data: multi-query associative recall and copying.
 *
 * MQAR is zoology's: n key-value pairs, then the keys again at positions drawn with a power law over gaps; the value is to be predicted
 * at each key's second position and is not in the input there. Copying: a random block, then the same block again. The distribution is
 * the original's, its random stream is not. Source: evaluation.md 7.1, 7.3. */
#ifndef HYB_MQAR_H
#define HYB_MQAR_H
#include "base/rng.h"
#include "model/model.h"

typedef struct {
    int vocab;         /* keys from 1 .. vocab/2-1, values from vocab/2 .. vocab-1 */
    int T, n;          /* length (even), pairs */
    int passes;        /* times the pairs are shown: 1; 2 is "just read twice" */
    double power;      /* 0.01 */
    int random_filler; /* 1: other positions are random tokens; 0: token 0 */
    int copy;          /* 1: copying instead; n is the block's length, T = 2 n */
} MqarSpec;

/* ERR_USAGE when 2 n (passes + 1) > T, T is odd, or the vocabulary is too small. */
int mqar_check(const MqarSpec *s, Err *e);
/* One sequence: ids (T), target (T) what is to be predicted or -1, weight (T) 1 where something is. scratch: vocab + T ints. */
void mqar_row(const MqarSpec *s, Rng *r, int *ids, int *target, float *weight, int *scratch);

typedef struct {
    double accuracy, accuracy_se, loss;
    int64_t asked;
} MqarResult;
/* rows sequences, a pure function of (spec, seed). accuracy: mean over sequences of the fraction of right argmaxes; loss: nats. */
int mqar_run(const MqarSpec *s, Model *m, int rows, uint64_t seed, MqarResult *out, Err *e);

#endif
