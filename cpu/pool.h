/* pool.h - the one place where cpu/ starts threads: an OpenMP loop over tasks.
 *
 * A task writes outputs of its own and nothing else, so the bits do not depend on who runs it. Without -fopenmp,
 * inside another parallel region, and in a child of fork() (whose OpenMP team stayed behind in the parent), the caller
 * runs every task itself. */
#ifndef HYB_CPU_POOL_H
#define HYB_CPU_POOL_H
#include <stddef.h>

typedef void PoolTask(const void *job, size_t i);
/* task(job, i) for every i in [0, n), each once, in any order, by any thread; returns when all are done. */
void pool_run(size_t n, PoolTask *task, const void *job);
/* The same without other threads unless `enough`: for loops that may be too short to share. */
void pool_run_if(int enough, size_t n, PoolTask *task, const void *job);
/* Which of the threads of its loop a task is on: below the number of tasks, so that a task can have a workspace of its
 * thread, still in the cache from the task before. */
size_t pool_me(void);
int pool_threads(void); /* how many take part, the caller included */
#endif
