/* pool.h - the threads of cpu/: the caller and its helpers take the tasks of one loop.
 *
 * Not OpenMP: its loops end only when every thread of the team has come, so that on a machine with other work a loop of 0.1 ms waits
 * for the scheduler to bring an idle thread back (measured: 25 to 55 ms, with 8 busy processes on 2 cores). Here a helper that does not
 * come is not missed: the caller takes its tasks too, and waits only for tasks that somebody has begun. */
#ifndef HYB_CPU_POOL_H
#define HYB_CPU_POOL_H
#include <stddef.h>

typedef void Task(const void *job, size_t i);
/* task(job, i) for every i in [0, n), each once, in any order, by any thread; returns when all are done. Tasks of a task run one
 * after the other, as do those of a second thread that calls while the helpers are busy. */
void pool_run(size_t n, Task *task, const void *job);
/* The same without helpers unless `enough`: for loops that may be too short to share. */
void pool_run_if(int enough, size_t n, Task *task, const void *job);
int pool_threads(void); /* how many take part, the caller included */
#endif
