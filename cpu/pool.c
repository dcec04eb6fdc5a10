/* pool.c - see pool.h. */
#include "cpu/pool.h"
#include "cpu/cpu.h"
#include <pthread.h>
#include <sched.h>
#include <unistd.h>
#ifdef _OPENMP
#include <omp.h>
#endif

enum { THREADS_MAX = 256 };
static int threads_wanted; /* 0: not yet asked for */

int cpu_threads(int n) {
    long all = sysconf(_SC_NPROCESSORS_ONLN);
#ifdef __linux__
    cpu_set_t mine;
    if (!sched_getaffinity(0, sizeof mine, &mine)) all = CPU_COUNT(&mine);
#endif
    if (n <= 0) n = all > 0 ? (int)all : 1;
    return threads_wanted = n < THREADS_MAX ? n : THREADS_MAX;
}

int pool_threads(void) { return threads_wanted ? threads_wanted : cpu_threads(0); }

static void run_alone(size_t n, Task *task, const void *job) {
    for (size_t i = 0; i < n; i++) task(job, i);
}

#ifdef _OPENMP
/* gcc's OpenMP waits for ever in a child of fork() for the team that its parent had. The child's flag is set before it could ask. */
static int team_started, team_lost;
static void child_after_fork(void) { team_lost = team_started; }

void pool_run(size_t n, Task *task, const void *job) {
    const int wanted = pool_threads(), threads = n < (size_t)wanted ? (int)n : wanted;
    if (threads < 2 || team_lost || omp_in_parallel()) {
        run_alone(n, task, job);
        return;
    }
    if (!team_started) team_started = 1, pthread_atfork(NULL, NULL, child_after_fork);
    const int step = (int)(n / ((size_t)threads * 8) + 1); // taken at once: few enough hand-outs, and no long wait at the end
#pragma omp parallel for num_threads(threads) schedule(dynamic, step)
    for (size_t i = 0; i < n; i++) task(job, i);
}
#else
void pool_run(size_t n, Task *task, const void *job) { run_alone(n, task, job); }
#endif

void pool_run_if(int enough, size_t n, Task *task, const void *job) {
    if (enough) pool_run(n, task, job);
    else run_alone(n, task, job);
}
