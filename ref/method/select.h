/* select.h - from scores to layers. See ref/METHOD.md 3.4. */
#ifndef HYB_SELECT_H
#define HYB_SELECT_H
#include "base/err.h"
#include "model/config.h"

/* K = floor(L ratio + 1/2): reproduces every budget of the official files. */
int select_count(int L, double ratio);
/* The K layers with the highest score; ties go to the lower layer; NAN counts as lowest. */
void select_top(const double *score, int L, int K, int *keep);
/* Uniform layouts (ref/METHOD.md 8): from 0 by the largest stride that fits, floor((L-1)/(K-1));
 * the last layer of each of K groups; first, first+stride, ... */
int select_uniform(int L, int K, int *keep);
int select_uniform_last(int L, int K, int *keep);
/* ERR_USAGE naming the value: duplicate, out of [0, L), wrong count (K < 0: any count). `what` names the option. */
int select_check_list(const int *list, int n, int L, int K, const char *what, Err *e);
/* Agreement of two orders (permutations, best first): Kendall's tau, Spearman's rho, and Jaccard of their first K. */
double select_kendall(const int *a, const int *b, int L);
double select_spearman(const int *a, const int *b, int L);
double select_jaccard(const int *a, const int *b, int L, int K);
/* keep as "3,7,11" */
void select_text(char *dst, size_t cap, const int *keep, int L);

#endif
