/* add.c - add, accumulate, sum, sumsq. */
#include "parallel.h"

static void add_run(const void *job, size_t r) {
    const Job *j = job;
    const float *a = j->in[0] + r * RUN, *b = j->in[1] + r * RUN;
    float *y = j->out[0] + r * RUN;
    const size_t n = run_size(j->n, r);
    for (size_t i = 0; i < n; i += VW) vput(y + i, vget(a + i, n - i) + vget(b + i, n - i), n - i);
}
static void add(float *y, const float *a, const float *b, size_t n) { runs(add_run, (Job){{y}, {a, b}, .n = n}); }

static void accumulate_row(float *y, const float *x, float alpha, size_t n) {
    for (size_t i = 0; i < n; i += VW) vput(y + i, vfma(vset(alpha), vget(x + i, n - i), vget(y + i, n - i)), n - i);
}
static void accumulate_run(const void *job, size_t r) {
    const Job *j = job;
    accumulate_row(j->out[0] + r * RUN, j->in[0] + r * RUN, j->a, run_size(j->n, r));
}
static void accumulate(float *y, const float *x, double alpha, size_t n) {
    runs(accumulate_run, (Job){{y}, {x}, .n = n, .a = (float)alpha});
}

/* Sums of up to 8 blocks of RUN elements, each left to right in double as the contract asks; eight chains hide the latency of one. */
enum { CHAINS = 8, GROUP = 512 };
typedef struct { double *part; const float *x; size_t blocks; int square; } SumJob;

static void sum_chains(const void *job, size_t set) {
    const SumJob *j = job;
    const size_t first = set * CHAINS, blocks = j->blocks - first < CHAINS ? j->blocks - first : CHAINS;
    const float *x = j->x + first * RUN;
    double s[CHAINS] = {0};
    for (size_t i = 0; i < RUN; i++)
        for (size_t b = 0; b < blocks; b++) {
            const double v = x[b * RUN + i];
            s[b] += j->square ? v * v : v;
        }
    for (size_t b = 0; b < blocks; b++) j->part[first + b] = s[b];
}
static double sum_tail(const float *x, size_t n, int square) {
    double s = 0;
    for (size_t i = 0; i < n; i++) s += square ? (double)x[i] * x[i] : x[i];
    return s;
}
static double sum_of(const float *x, size_t n, int square) {
    double total = 0, part[GROUP];
    for (size_t from = 0; from < n; from += (size_t)GROUP * RUN) {
        const size_t m = n - from < (size_t)GROUP * RUN ? n - from : (size_t)GROUP * RUN;
        const SumJob job = {part, x + from, m / RUN, square};
        pool_run_if(m > ALONE, (job.blocks + CHAINS - 1) / CHAINS, sum_chains, &job);
        for (size_t b = 0; b < job.blocks; b++) total += part[b];
        if (m % RUN) total += sum_tail(x + from + job.blocks * RUN, m % RUN, square);
    }
    return total;
}
static void sum(double *out, const float *x, size_t n) { *out = sum_of(x, n, 0); }
static void sumsq(double *out, const float *x, size_t n) { *out = sum_of(x, n, 1); }
