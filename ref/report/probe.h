/* probe.h - what do a model's softmax heads look at? A block of random tokens, repeated once (ref/METHOD.md 12;
 * Olsson et al. 2022, arXiv 2209.11895):
 *     previous   mean attention weight on the token before, over all positions but the first
 *     induction  in the second copy, mean weight on the token that followed the same token in the first copy
 * Chance is about 1/t at position t. Only these two weights per position are computed, from q, k and the saved
 * log-sum-exp. */
#ifndef HYB_PROBE_H
#define HYB_PROBE_H
#include "model/model.h"

typedef struct {
    int L, H;
    double *previous, *induction; /* (L,H); NAN in linear layers */
    void *mem;
} HeadProbe;

/* rows sequences of 2*block tokens drawn from ids (n of them; NULL: the whole vocabulary, n ignored). block >= 2. */
int probe_heads(HeadProbe *p, Model *m, const int *ids, int n, int block, int rows, uint64_t seed, Err *e);
void probe_heads_close(HeadProbe *p);
/* Spearman's rho of two numbers per head: equal values share their mean rank, pairs with a NAN are left out;
 * NAN if nothing varies. */
double probe_correlation(const double *a, const double *b, size_t n);

#endif
