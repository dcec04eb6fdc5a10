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

#ifdef __linux__
/* Processors that this program may use, from before anything was pinned. */
static const cpu_set_t *allowed(void) {
    static cpu_set_t set;
    static int known;
    if (!known) known = sched_getaffinity(0, sizeof set, &set) ? -1 : 1;
    return known > 0 ? &set : NULL;
}
/* The calling thread to the i-th of them, or to all of them again. */
static void pin(size_t i, int on) {
    const cpu_set_t *all = allowed();
    cpu_set_t one;
    if (!all) return;
    CPU_ZERO(&one);
    i %= (size_t)CPU_COUNT(all);
    for (int c = 0; c < CPU_SETSIZE; c++)
        if (CPU_ISSET(c, all) && i-- == 0) CPU_SET(c, &one);
    sched_setaffinity(0, sizeof one, on ? &one : all);
}
#else
static void pin(size_t i, int on) { (void)i, (void)on; }
#endif

int cpu_threads(int n) {
    long all = sysconf(_SC_NPROCESSORS_ONLN);
#ifdef __linux__
    if (allowed()) all = CPU_COUNT(allowed());
#endif
    if (n <= 0) n = all > 0 ? (int)all : 1;
    return threads_wanted = n < THREADS_MAX ? n : THREADS_MAX;
}

int pool_threads(void) { return threads_wanted ? threads_wanted : cpu_threads(0); }

static _Thread_local size_t me;
size_t pool_me(void) { return me; }

static void run_alone(size_t n, PoolTask *task, const void *job) {
    const size_t outer = me; // of the loop that this one may be inside
    me = 0;
    for (size_t i = 0; i < n; i++) task(job, i);
    me = outer;
}

#ifdef _OPENMP
/* gcc's OpenMP waits for ever in a child of fork() for the team that its parent had. The child's flag is set before it
 * could ask. */
static int team_started, team_lost;
static void child_after_fork(void) { team_lost = team_started; }

/* OpenMP ends a loop when the last thread of its team has come. On a machine with other work that can be tens of
 * milliseconds after the caller has done all tasks by itself, so the waiting is measured: where it was more than half
 * of 10 ms spent in loops, the caller works alone for 20 times as long as it waited, and then tries again.
 * The bits do not depend on it. */
static _Thread_local double spent, waited, alone_until;
static void back_off(double begun, double done, double ended) {
    spent += ended - begun;
    waited += ended - done;
    if (spent < 0.01) return;
    if (waited > spent / 2) alone_until = ended + 20 * waited;
    spent = waited = 0;
}

void pool_run(size_t n, PoolTask *task, const void *job) {
    const int wanted = pool_threads(), threads = n < (size_t)wanted ? (int)n : wanted;
    const double begun = omp_get_wtime();
    double done = begun;
    if (threads < 2 || team_lost || omp_in_parallel() || begun < alone_until) {
        run_alone(n, task, job);
        return;
    }
    if (!team_started) team_started = 1, pthread_atfork(NULL, NULL, child_after_fork);
    // taken at once: few enough hand-outs, and no long wait at the end
    const int step = (int)(n / ((size_t)threads * 8) + 1);
#pragma omp parallel num_threads(threads)
    {
        me = (size_t)omp_get_thread_num();
#pragma omp for schedule(dynamic, step) nowait
        for (size_t i = 0; i < n; i++) task(job, i);
#pragma omp master
        done = omp_get_wtime();
    }
    back_off(begun, done, omp_get_wtime());
}

void cpu_pin(int on) {
    const int threads = team_lost ? 1 : pool_threads();
    if (!team_started && threads > 1) team_started = 1, pthread_atfork(NULL, NULL, child_after_fork);
#pragma omp parallel num_threads(threads) if (threads > 1)
    pin((size_t)omp_get_thread_num(), on);
}
#else
void pool_run(size_t n, PoolTask *task, const void *job) { run_alone(n, task, job); }
void cpu_pin(int on) { pin(0, on); }
#endif

void pool_run_if(int enough, size_t n, PoolTask *task, const void *job) {
    if (enough) pool_run(n, task, job);
    else run_alone(n, task, job);
}
