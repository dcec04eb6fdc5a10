/* ridge.h - linear least squares with a penalty, in double on the host: small systems from sums over many tokens. */
#ifndef HYB_RIDGE_H
#define HYB_RIDGE_H
#include "base/err.h"

/* X = (A + lambda I)^-1 B by Cholesky's factors, in place: A (n,n) symmetric, of which the upper half is read, becomes
 * the factor; B (n,m) becomes X. Every sum is in one fixed order. ERR_NUMERIC naming `what` when A + lambda I is not
 * positive definite, as with a NaN in it. */
int ridge_solve(double *A, double lambda, double *B, int n, int m, const char *what, Err *e);

#endif
