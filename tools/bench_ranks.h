/* bench_ranks.h - what a step of stage 2 costs with several ranks, against rank 0 by itself in the same start.
 *
 * Both train the same random student with the same lanes (method/lanes.h), so their losses must be equal to the bit;
 * what each rank has sent must be what lanes_cost says, to the byte. */
#ifndef HYB_BENCH_RANKS_H
#define HYB_BENCH_RANKS_H
#include "tools/bench_steps.h"

typedef struct {
    Config c;          /* a softmax model; its student is linear in all layers */
    const char *model; /* directory that c was read from; NULL: random weights */
    int mixer, lanes;
    int batch_size, seq_len; /* sequences of a step, cut into the lanes, and their tokens */
    int repeat;              /* steps that count, behind one that does not */
    BenchForm form;
} BenchRanks;

/* be->ranks: those that take part, all of which call this; NULL: a table of one row. Rank 0 prints. ERR_USAGE where
 * sizes do not fit, ERR_CHECK where losses, bytes or messages are not as they must be; what fails in a step. */
int bench_ranks_run(const BenchRanks *o, Backend *be, FILE *out, Err *e);

#endif
