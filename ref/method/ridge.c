/* ridge.c - (A + lambda I) X = B by A + lambda I = U^T U, U upper triangular. See ridge.h. */
#include "method/ridge.h"
#include <math.h>
#include <stddef.h>

/* y -= a x: rows are walked along memory, so that a compiler may take several numbers at a time. */
static void row_take(double *y, double a, const double *x, int n) {
    for (int i = 0; i < n; i++) y[i] -= a * x[i];
}

static int factor(double *A, int n) {
    for (int k = 0; k < n; k++) {
        double *u = A + (size_t)k * n;
        if (!(u[k] > 0) || !isfinite(u[k])) return 0;
        const double d = sqrt(u[k]);
        for (int j = k; j < n; j++) u[j] /= d;
        for (int i = k + 1; i < n; i++) row_take(A + (size_t)i * n + i, u[i], u + i, n - i);
    }
    return 1;
}

int ridge_solve(double *A, double lambda, double *B, int n, int m, const char *what, Err *e) {
    for (int i = 0; i < n; i++) A[(size_t)i * n + i] += lambda;
    if (!factor(A, n))
        return err_set(e, ERR_NUMERIC, "%s: its %d x %d system has no solution: not finite, or not positive", what, n,
                       n);
    for (int i = 0; i < n; i++) { // U^T Z = B
        double *z = B + (size_t)i * m;
        for (int k = 0; k < i; k++) row_take(z, A[(size_t)k * n + i], B + (size_t)k * m, m);
        for (int j = 0; j < m; j++) z[j] /= A[(size_t)i * n + i];
    }
    for (int i = n - 1; i >= 0; i--) { // U X = Z
        double *x = B + (size_t)i * m;
        for (int k = i + 1; k < n; k++) row_take(x, A[(size_t)i * n + k], B + (size_t)k * m, m);
        for (int j = 0; j < m; j++) x[j] /= A[(size_t)i * n + i];
    }
    return OK;
}
