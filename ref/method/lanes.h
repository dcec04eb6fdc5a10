/* lanes.h - one sum of gradients, in one order, for any number of ranks.
 *
 * The sequences of a step are cut into `lanes` equal groups, a power of two of them. A lane's gradient is the sum over
 * its micro-batches, one after the other; lanes are added as a binary tree, ((0 + 1) + (2 + 3)) + ..., each in the
 * gradients' own type. Rank r of R computes lanes r lanes/R to (r + 1) lanes/R: whole branches of the tree.
 *
 * Each tensor is cut into `lanes` segments, and a rank owns those with its own lanes' numbers. It gets the
 * others' sums of its segments, adds them as the rest of the tree, and moves only these weights: moments and masters
 * exist for them alone (ZeRO stage 1, arXiv 1910.02054). All numbers that decide a step (loss, norm) are sums over
 * lanes or segments in the tree's order. So nothing depends on R, and one rank gives the bits of all. */
#ifndef HYB_LANES_H
#define HYB_LANES_H
#include "base/ranks.h"
#include "model/model.h"

enum { LANES_MOST = 256 };
int lanes_check(int lanes, Err *e); /* ERR_USAGE: not a power of two, or too many; 0 is fine */
/* Element at which segment i of n elements begins; segment `lanes` is the end. One lane has one segment. Segments begin
 * at multiples of 16 elements; the last ones of a small tensor are empty. */
size_t lanes_edge(size_t n, int lanes, int i);
/* Where rank q's segments of n elements begin; q = number of ranks: the end. */
size_t lanes_rank_edge(size_t n, int lanes, const Ranks *r, int q);
/* x[0..lanes-1] -> their sum as a tree, in x[0]; one every `stride` numbers. */
void lanes_sum(double *x, int lanes, size_t stride);

typedef struct {
    Model *m;
    Ranks *ranks;
    int lanes, own, first; /* of all; of this rank; the first of these */
    Wide **waiting;        /* (log2 own) sums of 1, 2, 4, ... lanes that wait for as many more */
    Wide *others;          /* (room) the other ranks' sums of segments */
    size_t room;
    double *number; /* (lanes, numbers) */
    int numbers;
    int bad; /* after lanes_finish: the first rank with a lane whose first number, its loss, is not finite; -1: none */
    void *host, *mem, *memory;
} Lanes;

int lanes_divide(int lanes, int ranks, Err *e); /* ERR_USAGE where ranks do not divide lanes (0: one) */
/* lanes 1 (or 0): nothing is allocated. numbers: how many go with each lane. Asks lanes_divide. */
int lanes_open(Lanes *l, Model *m, int lanes, int numbers, Err *e);
void lanes_close(Lanes *l);
size_t lanes_bytes(const Model *m, int lanes);
/* m's gradients are those of this rank's lane i (from 0): joins what waits for them, and leaves zeros unless it was the
 * last. */
int lanes_add(Lanes *l, int i, Err *e);
/* The lane's row of `number`, to be filled. */
double *lanes_numbers(Lanes *l, int i);
/* After the last: m's gradients are sums over all lanes, within the segments of this rank; number[0..] those of the
 * numbers. */
int lanes_finish(Lanes *l, Err *e);

typedef struct {
    uint64_t bytes, messages;
} LanesCost;
/* What `rank` of `ranks` sends to the others in one step of training m, whose gradients exist: of each tensor the sums
 * of their segments, its own weights once they have moved, and the numbers of its lanes (`numbers` of each, as for
 * lanes_open) and segments (sums of squares); rank 0 also whether to stop. Source: ours; RANKS.md has it in letters. */
LanesCost lanes_cost(const Model *m, int lanes, int numbers, int ranks, int rank);

#endif
