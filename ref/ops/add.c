/* add.c - the residual stream, gradient accumulation, and sums for logs and clipping. */
#include "ops/ref_math.h"

static void add(real *y, const real *a, const real *b, size_t n) {
    for (size_t i = 0; i < n; i++) y[i] = a[i] + b[i];
}

static void accumulate(real *y, const real *x, double alpha, size_t n) {
    for (size_t i = 0; i < n; i++) y[i] += (wide)alpha * x[i];
}

enum { SUM_BLOCK = 4096 }; /* the order of a sum is part of the contract: every backend adds the same blocks */

static void sum(double *out, const wide *x, size_t n) {
    double total = 0;
    for (size_t from = 0; from < n; from += SUM_BLOCK) {
        const size_t to = n - from < SUM_BLOCK ? n : from + SUM_BLOCK;
        double block = 0;
        for (size_t i = from; i < to; i++) block += x[i];
        total += block;
    }
    out[0] = total;
}

static void sumsq(double *out, const trained *list, int tensors) {
    for (int t = 0; t < tensors; t++) {
        const wide *x = list[t].grad;
        const size_t n = list[t].n;
        double total = 0;
        for (size_t from = 0; from < n; from += SUM_BLOCK) {
            const size_t to = n - from < SUM_BLOCK ? n : from + SUM_BLOCK;
            double block = 0;
            for (size_t i = from; i < to; i++) block += (double)x[i] * x[i];
            total += block;
        }
        out[t] = total;
    }
}
