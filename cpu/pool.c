/* pool.c - see pool.h. */
#include "cpu/pool.h"
#include "cpu/cpu.h"
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <time.h>
#include <unistd.h>
#ifdef __x86_64__
#include <immintrin.h>
#endif

enum { THREADS_MAX = 256, STACK_BYTES = 8 << 20, SPIN_NS = 50000, OPEN = 1 << 20 };

/* Tasks [next, end) of one thread's share; whoever has finished its own goes on with the next one's. */
typedef struct { _Alignas(64) atomic_size_t next; size_t end; } Share;

static struct {
    _Alignas(64) atomic_int gate;     // OPEN while tasks may be taken, plus the number of helpers inside
    _Alignas(64) atomic_uint sequence; // which job it is; helpers wait for it to change
    atomic_int sleepers;
    atomic_flag busy;
    Task *task; // written only while the gate is shut and nobody inside
    const void *job;
    size_t step; // tasks taken at once
    int shares;
    atomic_int threads; // wanted; 0: not yet asked for
    int helpers;        // started
    Share share[THREADS_MAX];
    pthread_mutex_t lock; // around sleeping
    pthread_cond_t wake;
} pool = {.busy = ATOMIC_FLAG_INIT, .lock = PTHREAD_MUTEX_INITIALIZER, .wake = PTHREAD_COND_INITIALIZER};

static void cpu_relax(void) {
#ifdef __x86_64__
    _mm_pause();
#endif
}
static int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

static void shares_take(int first) {
    for (int k = 0; k < pool.shares; k++) {
        Share *s = &pool.share[(first + k) % pool.shares];
        for (;;) {
            const size_t from = atomic_fetch_add_explicit(&s->next, pool.step, memory_order_relaxed);
            const size_t end = s->end - from < pool.step ? s->end : from + pool.step;
            if (from >= s->end) break;
            for (size_t i = from; i < end; i++) pool.task(pool.job, i);
        }
    }
}

/* Waits for a job later than `seen`: turning for a moment, since loops follow each other closely, then asleep. */
static unsigned job_wait(unsigned seen) {
    const int64_t until = now_ns() + SPIN_NS;
    do {
        for (int i = 0; i < 32; i++) {
            const unsigned s = atomic_load_explicit(&pool.sequence, memory_order_acquire);
            if (s != seen) return s;
            cpu_relax();
        }
    } while (now_ns() < until);
    pthread_mutex_lock(&pool.lock);
    atomic_fetch_add(&pool.sleepers, 1);
    while (atomic_load(&pool.sequence) == seen) pthread_cond_wait(&pool.wake, &pool.lock);
    atomic_fetch_sub(&pool.sleepers, 1);
    pthread_mutex_unlock(&pool.lock);
    return atomic_load(&pool.sequence);
}

static void *helper_main(void *index) {
    const int me = (int)(intptr_t)index;
    unsigned seen = 0;
    for (;;) {
        seen = job_wait(seen);
        int g = atomic_load(&pool.gate);
        while (g >= OPEN && !atomic_compare_exchange_weak(&pool.gate, &g, g + 1)) {}
        if (g < OPEN) continue; // too late: that job is over
        if (me < pool.shares) shares_take(me);
        atomic_fetch_sub(&pool.gate, 1);
    }
    return NULL;
}

/* After fork() only the caller exists. */
static void pool_after_fork(void) {
    pool.helpers = 0;
    atomic_store(&pool.gate, 0);
    atomic_store(&pool.sequence, 0);
    atomic_store(&pool.sleepers, 0);
    pthread_mutex_init(&pool.lock, NULL);
    pthread_cond_init(&pool.wake, NULL);
    atomic_flag_clear(&pool.busy);
}

static void helpers_start(int wanted) {
    static int told;
    if (!told) told = 1, pthread_atfork(NULL, NULL, pool_after_fork);
    pthread_attr_t a;
    pthread_attr_init(&a);
    pthread_attr_setstacksize(&a, STACK_BYTES);
    pthread_attr_setdetachstate(&a, PTHREAD_CREATE_DETACHED);
    while (pool.helpers < wanted) {
        pthread_t t;
        if (pthread_create(&t, &a, helper_main, (void *)(intptr_t)(pool.helpers + 1))) break; // fewer will do
        pool.helpers++;
    }
    pthread_attr_destroy(&a);
}

static void job_open(size_t n, Task *task, const void *job, int threads) {
    pool.task = task, pool.job = job, pool.shares = threads;
    pool.step = n / ((size_t)threads * 8) + 1;
    for (int i = 0; i < threads; i++) {
        atomic_store_explicit(&pool.share[i].next, n * i / threads, memory_order_relaxed);
        pool.share[i].end = n * (i + 1) / threads;
    }
    atomic_store(&pool.gate, OPEN);
    atomic_fetch_add(&pool.sequence, 1);
    if (atomic_load(&pool.sleepers) == 0) return;
    pthread_mutex_lock(&pool.lock);
    pthread_cond_broadcast(&pool.wake);
    pthread_mutex_unlock(&pool.lock);
}

/* Nobody may enter any more; waits for those inside, who each finish what they have begun. */
static void job_close(void) {
    atomic_fetch_sub(&pool.gate, OPEN);
    for (int i = 0; atomic_load_explicit(&pool.gate, memory_order_acquire); i++) {
        if (i < 1000) cpu_relax();
        else sched_yield();
    }
}

int pool_threads(void) {
    const int n = atomic_load_explicit(&pool.threads, memory_order_relaxed);
    return n ? n : cpu_threads(0);
}

int cpu_threads(int n) {
    long all = sysconf(_SC_NPROCESSORS_ONLN);
#ifdef __linux__
    cpu_set_t mine;
    if (!sched_getaffinity(0, sizeof mine, &mine)) all = CPU_COUNT(&mine);
#endif
    if (n <= 0) n = all > 0 ? (int)all : 1;
    n = n < THREADS_MAX ? n : THREADS_MAX;
    atomic_store_explicit(&pool.threads, n, memory_order_relaxed);
    return n;
}

void pool_run(size_t n, Task *task, const void *job) {
    const int wanted = pool_threads(), threads = n < (size_t)wanted ? (int)n : wanted;
    if (threads < 2 || atomic_flag_test_and_set(&pool.busy)) {
        for (size_t i = 0; i < n; i++) task(job, i);
        return;
    }
    if (pool.helpers < wanted - 1) helpers_start(wanted - 1);
    job_open(n, task, job, threads);
    shares_take(0);
    job_close();
    atomic_flag_clear(&pool.busy);
}

void pool_run_if(int enough, size_t n, Task *task, const void *job) {
    if (enough) pool_run(n, task, job);
    else
        for (size_t i = 0; i < n; i++) task(job, i);
}
