/* add.c - add, accumulate, sum, sumsq. */
#include "parallel.h"
#include "ops/ops.h"
#include <string.h>

static void add_run(const void *job, size_t r) {
    const Job *j = job;
    const real *a = j->in[0] + r * RUN, *b = j->in[1] + r * RUN;
    real *y = j->out[0] + r * RUN;
    const size_t n = run_size(j->n, r);
    for (size_t i = 0; i < n; i += VW) vput(y + i, vget(a + i, n - i) + vget(b + i, n - i), n - i);
}
static void add(real *y, const real *a, const real *b, size_t n) {
    runs(add_run, (Job){.out = {y}, .in = {a, b}, .n = n});
}

static void accumulate_row(real *y, const real *x, float alpha, size_t n) {
    for (size_t i = 0; i < n; i += VW) vput(y + i, vfma(vset(alpha), vget(x + i, n - i), vget(y + i, n - i)), n - i);
}
static void accumulate_run(const void *job, size_t r) {
    const Job *j = job;
    accumulate_row(j->out[0] + r * RUN, j->in[0] + r * RUN, j->a, run_size(j->n, r));
}
static void accumulate(real *y, const real *x, double alpha, size_t n) {
    runs(accumulate_run, (Job){.out = {y}, .in = {x}, .n = n, .a = (float)alpha});
}

/* Sums of up to 8 blocks of RUN elements, each left to right in double as the contract asks;
 * eight chains hide the latency of one. Up to
 * SETS such sets, of any tensors, are one loop over threads; their sums then join their tensors' in order. */
enum { CHAINS = 8, SETS = 256 };
typedef struct {
    const float *x;
    size_t n;
    int tensor;
} SumSet;
typedef struct {
    const SumSet *set;
    double (*part)[CHAINS];
    int square;
} SumJob;

static double sum_tail(const float *x, size_t n, int square) {
    double s = 0;
    for (size_t i = 0; i < n; i++) s += square ? (double)x[i] * x[i] : x[i];
    return s;
}
static void sum_chains(const void *job, size_t set) {
    const SumJob *j = job;
    const float *x = j->set[set].x;
    const size_t n = j->set[set].n, blocks = n / RUN;
    double s[CHAINS] = {0};
    for (size_t i = 0; i < RUN; i++)
        for (size_t b = 0; b < blocks; b++) {
            const double v = x[b * RUN + i];
            s[b] += j->square ? v * v : v;
        }
    if (blocks < CHAINS) s[blocks] = sum_tail(x + blocks * RUN, n % RUN, j->square); // 0 where there is none
    memcpy(j->part[set], s, sizeof s);
}
static void sum_sets(double *out, const SumSet *set, int sets, size_t n, int square) {
    double part[SETS][CHAINS];
    const SumJob job = {set, part, square};
    pool_run_if(n > ALONE, (size_t)sets, sum_chains, &job);
    for (int k = 0; k < sets; k++)
        for (size_t b = 0; b < run_count(set[k].n); b++) out[set[k].tensor] += part[k][b];
}
static void sum_list(double *out, const Item *list, int tensors, int square) {
    SumSet set[SETS];
    int sets = 0;
    size_t n = 0;
    for (int t = 0; t < tensors; t++) {
        out[t] = 0;
        for (size_t from = 0; from < list[t].n; from += CHAINS * RUN) {
            const size_t rest = list[t].n - from;
            set[sets] = (SumSet){list[t].grad + from, rest < CHAINS * RUN ? rest : CHAINS * RUN, t};
            n += set[sets++].n;
            if (sets < SETS) continue;
            sum_sets(out, set, sets, n, square);
            sets = 0, n = 0;
        }
    }
    sum_sets(out, set, sets, n, square);
}
static void sum(double *out, const float *x, size_t n) {
    const Item one = {.grad = x, .n = n};
    sum_list(out, &one, 1, 0);
}
static void sumsq(double *out, const Item *list, int tensors) { sum_list(out, list, tensors, 1); }
