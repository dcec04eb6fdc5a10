/* add.c - add, accumulate, sum, sumsq. */
#include "parallel.h"

static void add_run(float *y, const float *a, const float *b, size_t n) {
    for (size_t i = 0; i < n; i += VW) vput(y + i, vget(a + i, n - i) + vget(b + i, n - i), n - i);
}
static void add(float *y, const float *a, const float *b, size_t n) {
#pragma omp parallel for if (n > ALONE)
    for (size_t r = 0; r < run_count(n); r++) add_run(y + r * RUN, a + r * RUN, b + r * RUN, run_size(n, r));
}

static void accumulate_run(float *y, const float *x, float alpha, size_t n) {
    for (size_t i = 0; i < n; i += VW) vput(y + i, vfma(vset(alpha), vget(x + i, n - i), vget(y + i, n - i)), n - i);
}
static void accumulate(float *y, const float *x, double alpha, size_t n) {
#pragma omp parallel for if (n > ALONE)
    for (size_t r = 0; r < run_count(n); r++) accumulate_run(y + r * RUN, x + r * RUN, (float)alpha, run_size(n, r));
}

/* Sums of up to 8 blocks of RUN elements, each left to right in double as the contract asks; eight chains hide the latency of one. */
enum { CHAINS = 8, GROUP = 512 };
static void sum_chains(double *out, const float *x, size_t blocks, int square) {
    double s[CHAINS] = {0};
    for (size_t i = 0; i < RUN; i++)
        for (size_t b = 0; b < CHAINS; b++) {
            const double v = b < blocks ? x[b * RUN + i] : 0;
            s[b] += square ? v * v : v;
        }
    for (size_t b = 0; b < blocks; b++) out[b] = s[b];
}
static void sum_tail(double *out, const float *x, size_t n, int square) {
    double s = 0;
    for (size_t i = 0; i < n; i++) s += square ? (double)x[i] * x[i] : x[i];
    *out = s;
}
static void sum_of(double *out, const float *x, size_t n, int square) {
    double total = 0, part[GROUP + 1];
    for (size_t from = 0; from < n; from += (size_t)GROUP * RUN) {
        const size_t m = n - from < (size_t)GROUP * RUN ? n - from : (size_t)GROUP * RUN, full = m / RUN, sets = (full + CHAINS - 1) / CHAINS;
#pragma omp parallel for if (m > ALONE)
        for (size_t s = 0; s < sets; s++) {
            const size_t b = s * CHAINS;
            sum_chains(part + b, x + from + b * RUN, full - b < CHAINS ? full - b : CHAINS, square);
        }
        if (m % RUN) sum_tail(part + full, x + from + full * RUN, m % RUN, square);
        for (size_t b = 0; b < run_count(m); b++) total += part[b];
    }
    *out = total;
}
static void sum(double *out, const float *x, size_t n) { sum_of(out, x, n, 0); }
static void sumsq(double *out, const float *x, size_t n) { sum_of(out, x, n, 1); }
