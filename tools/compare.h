/* compare.h - the one comparator: tensor `a` against reference `r`, both as doubles. tests/test_comparator.c attacks it
 * first.
 *
 * Refused, in this order: nothing to compare; a or r not finite (looked at bit by bit, so that no compiler flag can
 * hide a NaN); r all zero and a not exactly zero; ||a - r|| / ||r|| above tol; any element with |a - r| > 8 tol
 * max(|r|, rms(r)), which is what a single wrong element in a large tensor runs into. Tolerances come from arithmetic:
 * compare_tol. */
#ifndef HYB_COMPARE_H
#define HYB_COMPARE_H
#include <stddef.h>

typedef enum { COMPARE_OK, COMPARE_EMPTY, COMPARE_NOT_FINITE, COMPARE_NOT_ZERO, COMPARE_NORM, COMPARE_ELEMENT } Verdict;
typedef struct {
    Verdict verdict;
    double rel; /* ||a - r|| / ||r|| (0 where both are 0) */
    /* tolerance / error, of whichever of the two bounds is nearer; INFINITY where there is no error */
    double margin;
    /* the element with the largest error relative to its bound, or the first that is not finite or not zero */
    size_t at;
    double a, r; /* the values there */
} Comparison;

Comparison compare(const double *a, const double *r, size_t n, double tol);
/* "ok", "loose" (margin above 1000: the tolerance says nothing), "EMPTY", "NOT FINITE", "NOT ZERO", "TOO FAR",
 * "ONE ELEMENT" */
const char *compare_word(const Comparison *c);
/* "[0,5,1,3]": flat index `at` in a tensor of `rank` dims. */
void compare_index(char *dst, size_t cap, size_t at, const int *dims, int rank);
/* 8 u sqrt(n): u the unit roundoff of the arithmetic, n the longest reduction or chain behind an element. */
double compare_tol(double unit, double n);

#endif
