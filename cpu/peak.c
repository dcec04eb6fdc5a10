/* peak.c - the two ceilings that every figure is held against: multiply-adds from registers, and reading memory. */
#include "parallel.h"

enum { PEAK_TASKS = 1024 };

/* Twelve chains hide the latency; the empty asm keeps the compiler from seeing that the numbers do not matter. */
static float fma_chains(size_t rounds) {
    const vf a = vset(0.999f), b = vset(1e-3f);
    vf x0 = a, x1 = a, x2 = a, x3 = a, x4 = a, x5 = a, x6 = a, x7 = a, x8 = a, x9 = a, xa = a, xb = a;
    for (size_t i = 0; i < rounds; i++) {
        x0 = vfma(x0, a, b), x1 = vfma(x1, a, b), x2 = vfma(x2, a, b), x3 = vfma(x3, a, b);
        x4 = vfma(x4, a, b), x5 = vfma(x5, a, b), x6 = vfma(x6, a, b), x7 = vfma(x7, a, b);
        x8 = vfma(x8, a, b), x9 = vfma(x9, a, b), xa = vfma(xa, a, b), xb = vfma(xb, a, b);
#ifdef __x86_64__
        __asm__ volatile(""
                         : "+x"(x0), "+x"(x1), "+x"(x2), "+x"(x3), "+x"(x4), "+x"(x5), "+x"(x6), "+x"(x7), "+x"(x8),
                           "+x"(x9), "+x"(xa), "+x"(xb));
#elif defined(__aarch64__)
        __asm__ volatile(""
                         : "+w"(x0), "+w"(x1), "+w"(x2), "+w"(x3), "+w"(x4), "+w"(x5), "+w"(x6), "+w"(x7), "+w"(x8),
                           "+w"(x9), "+w"(xa), "+w"(xb));
#endif
    }
    return vsum(((x0 + x1) + (x2 + x3)) + ((x4 + x5) + (x6 + x7)) + ((x8 + x9) + (xa + xb)));
}
// got: one number a task, so that nothing is dropped
typedef struct {
    size_t rounds, n;
    const float *x;
    float *got;
} PeakJob;

static void fma_task(const void *job, size_t t) {
    const PeakJob *j = job;
    j->got[t] = fma_chains(j->rounds);
}
/* Sixteen tasks a thread: the helpers come when they come. */
static double fma_run(size_t rounds) {
    float got[PEAK_TASKS];
    const size_t all = (size_t)pool_threads() * 16, tasks = all < PEAK_TASKS ? all : PEAK_TASKS;
    const PeakJob j = {.rounds = rounds / 16 + 1, .got = got};
    pool_run(tasks, fma_task, &j);
    double done = 0;
    for (size_t t = 0; t < tasks; t++) done += got[t] > 0 ? 24.0 * VW * (double)j.rounds : 0;
    return done;
}

static float read_sum(const float *x, size_t n) {
    vf s0 = vset(0), s1 = s0, s2 = s0, s3 = s0;
    for (size_t i = 0; i + 4 * VW <= n; i += 4 * VW)
        s0 = s0 + vload(x + i), s1 = s1 + vload(x + i + VW), s2 = s2 + vload(x + i + 2 * VW),
        s3 = s3 + vload(x + i + 3 * VW);
    return vsum((s0 + s1) + (s2 + s3));
}
static void read_task(const void *job, size_t t) {
    const PeakJob *j = job;
    j->got[t] = read_sum(j->x + j->n / PEAK_TASKS * t, j->n / PEAK_TASKS);
}
static float read_run(const float *x, size_t n) {
    float got[PEAK_TASKS], total = 0;
    const PeakJob j = {.x = x, .n = n, .got = got};
    pool_run(PEAK_TASKS, read_task, &j);
    for (size_t t = 0; t < PEAK_TASKS; t++) total += got[t];
    return total;
}
