/* ranks.h - processes that train one model together, step by step: who they are, and the few ways in which they talk.
 *
 * A rank is a process that was started with others by mpirun or srun. What carries the bytes is not known here:
 * tools/ranks_mpi.c fills in the functions. NULL is a process by itself, which every call here takes.
 * Every rank makes the same calls in the same order. What is read from a run directory, and what is decided by it, is
 * read by rank 0 and told to the others, so that no two ranks can disagree. Source: ours. */
#ifndef HYB_RANKS_H
#define HYB_RANKS_H
#include <stddef.h>
#include <stdint.h>
#include "base/err.h"

typedef struct {
    void *data;
    size_t bytes; /* 0: nothing goes this way */
} RankPart;

typedef struct Ranks Ranks;
struct Ranks {
    int rank, size;
    int local, here; /* number among the ranks of this machine, and how many those are */
    /* Begins to send out[q] to rank q and to receive in[q] from it, for all q but this rank's. Host memory, which is
     * left alone until wait has ended all that was begun. */
    int (*post)(Ranks *r, const RankPart *out, const RankPart *in, Err *e);
    int (*wait)(Ranks *r, Err *e);
    /* Rank 0's bytes, for all. Host memory. */
    int (*share)(Ranks *r, void *data, size_t bytes, Err *e);
    /* Rank 0 is at work on something that takes long, and no hung process. */
    void (*alive)(Ranks *r);
    char (*hosts)[64];        /* (size) names of their machines */
    uint64_t bytes, messages; /* that this rank has sent */
    /* Seconds that it spent in post, wait and share; and those with messages under way, from the first post to the end
     * of the wait. What is under way and not waited for is hidden behind other work. */
    double waited, under_way;
    void *state;
};
enum { RANKS_MOST = 256, RANKS_MESSAGE = 1 << 30 /* bytes: more go as several messages */ };

static inline int ranks_count(const Ranks *r) { return r ? r->size : 1; }
static inline int ranks_index(const Ranks *r) { return r ? r->rank : 0; }
static inline int ranks_first(const Ranks *r) { return !r || !r->rank; } /* who reads and writes files */

int ranks_swap(Ranks *r, const RankPart *out, const RankPart *in, Err *e); /* post and wait */
int ranks_share(Ranks *r, void *data, size_t bytes, Err *e);
/* Of an array in which rank q's bytes are those from at[q] to at[q+1] (size + 1 numbers): all of it, for all. */
int ranks_gather(Ranks *r, void *data, const size_t *at, Err *e);
int ranks_gather_post(Ranks *r, void *data, const size_t *at, Err *e); /* the same without the wait */
/* How something ended that only rank 0 did: rc and *e of rank 0, for all. */
int ranks_outcome(Ranks *r, int rc, Err *e);
/* ERR_USAGE naming this rank where its number is not rank 0's: "rank 1: ... differs: `what`". All ranks end then. */
int ranks_equal(Ranks *r, uint64_t number, const char *what, Err *e);

#endif
