/* compare.c - see compare.h. */
#include "tools/compare.h"
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

enum { ELEMENT = 8, LOOSE = 1000 };

static int finite_bits(double x) {
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    return (bits >> 52 & 0x7ff) != 0x7ff;
}

static Comparison refuse(Comparison c, Verdict v, size_t at, double a, double r) {
    c.verdict = v, c.at = at, c.a = a, c.r = r, c.rel = INFINITY, c.margin = 0;
    return c;
}

Comparison compare(const double *a, const double *r, size_t n, double tol) {
    Comparison c = {COMPARE_OK, 0, INFINITY, 0, 0, 0};
    if (n == 0) return refuse(c, COMPARE_EMPTY, 0, 0, 0);
    double largest = 0, sum_r = 0, sum_e = 0;
    for (size_t i = 0; i < n; i++) {
        if (!finite_bits(a[i]) || !finite_bits(r[i])) return refuse(c, COMPARE_NOT_FINITE, i, a[i], r[i]);
        largest = fmax(largest, fabs(r[i]));
    }
    if (largest == 0) {
        for (size_t i = 0; i < n; i++)
            if (a[i] != 0) return refuse(c, COMPARE_NOT_ZERO, i, a[i], r[i]);
        return c;
    }
    for (size_t i = 0; i < n; i++) { // in units of the largest element: squares cannot overflow or vanish
        const double x = r[i] / largest, e = (a[i] - r[i]) / largest;
        sum_r += x * x;
        sum_e += e * e;
    }
    const double rms = largest * sqrt(sum_r / (double)n);
    double worst = -1;
    for (size_t i = 0; i < n; i++) {
        const double e = fabs(a[i] - r[i]) / fmax(fabs(r[i]), rms);
        if (e > worst) worst = e, c.at = i, c.a = a[i], c.r = r[i];
    }
    c.rel = sqrt(sum_e / sum_r);
    const double error = fmax(c.rel, worst / ELEMENT);
    c.margin = error > 0 ? tol / error : INFINITY;
    if (!(c.rel <= tol)) c.verdict = COMPARE_NORM;
    else if (!(worst <= ELEMENT * tol)) c.verdict = COMPARE_ELEMENT;
    return c;
}

const char *compare_word(const Comparison *c) {
    static const char *const word[] = {"ok", "EMPTY", "NOT FINITE", "NOT ZERO", "TOO FAR", "ONE ELEMENT"};
    if (c->verdict == COMPARE_OK && c->margin > LOOSE && c->margin < INFINITY) return "loose";
    return word[c->verdict];
}

void compare_index(char *dst, size_t cap, size_t at, const int *dims, int rank) {
    size_t below = 1, used = 0;
    for (int i = 0; i < rank; i++) below *= (size_t)dims[i];
    for (int i = 0; i < rank && used < cap; i++) {
        below /= (size_t)dims[i];
        used +=
            (size_t)snprintf(dst + used, cap - used, "%c%zu%s", i ? ',' : '[', at / below, i == rank - 1 ? "]" : "");
        at %= below;
    }
    if (rank == 0) snprintf(dst, cap, "[]");
}

double compare_tol(double unit, double n) { return 8 * unit * sqrt(n < 1 ? 1 : n); }
