/* launch.h - processes of one training: whether mpirun or srun started this one with others, and what follows.
 *
 * Ranks other than the first print nothing, change no file and read no standard input; why one of them failed is told
 * to rank 0, which says so in one line and ends all. Only main.c knows whether MPI was built in (make MPI=1). */
#ifndef HYB_LAUNCH_H
#define HYB_LAUNCH_H
#include "base/ranks.h"
#include "tools/cli.h"

typedef struct {
    /* timeout: seconds without a word from another rank until it counts as hung; 0: never */
    int (*open)(Ranks **r, double timeout, Err *e);
    /* why NULL: all is done. Else, or where that fails, one rank says why, all end with its code, and this does not
     * return. */
    int (*close)(Ranks *r, const Err *why);
} RanksEngine;

/* Processes that mpirun says it has started, and which of them this is. 1 and 0 without it. Under srun alone only
 * --ranks says that they belong together: without it they share a run as workers do. */
int launch_size(void);
int launch_rank(void);
/* c->ranks, where there are others; engine NULL: no MPI was built in. ERR_USAGE where the command cannot, or where
 * another number was started than --ranks says. */
int launch_open(Cli *c, const RanksEngine *engine, Err *e);
/* This rank's program, device and options are those of rank 0, but for where files lie and for threads. */
int launch_same(const Cli *c, Err *e);

#endif
