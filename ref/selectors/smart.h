/* smart.h - the spacing rule of SMART (Zebra-Llama), as reconstructed in ref/METHOD.md 8, and distance regularisation
 * (3.3). */
#ifndef HYB_SMART_H
#define HYB_SMART_H
#include "base/err.h"

/* SMART on sensitivities s (L): the first layer is the best of the first floor(L/K), the last the best of the last
 * floor(L/K); the number of layers strictly between neighbours lies in [floor(q), ceil(q)], q = (last - first - K +
 * 1)/(K - 1); among such sets the one with the largest sum (ties: the lower layers). keep (L) 0/1. K 1:
 * the best of all. NAN counts as lowest. */
int smart_select(const double *s, int L, int K, int *keep, Err *e);
/* 1 if the first layer, the last and the gaps of keep respect the rule. */
int smart_spaced(const int *keep, int L);

/* K picks of argmax [ z_l - strength sum_{m picked} exp(-|l - m| / width) ], z = the scores standardised over layers;
 * strength 0 is the top K. Our reading of the paper's appendix, whose formula is not known. order (L, may be NULL):
 * picks first, then the rest by the same rule. Ties go to the lower layer. */
void distance_select(const double *score, int L, int K, double strength, double width, int *keep, int *order);

#endif
