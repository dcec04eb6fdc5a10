/* s2.h - the selectors that distil to score. See s2.c. */
#ifndef HYB_S2_H
#define HYB_S2_H

/* All sets of K of L layers in lexicographic order as 0/1 rows: sets (cap,L). Returns their number; more than cap:
 * cap + 1. */
int subsets(int *sets, int cap, int L, int K);

#endif
