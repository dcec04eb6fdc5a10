/* early_stop.h - when is the ranking settled? The paper's rule for ending the scoring runs (ref/METHOD.md 7),
 * and the drop of clearly losing layers by paired standard errors.
 *
 * At evaluation e, T_e = the top K. With the last R of them:  backbone B = intersection;
 * J = mean Jaccard over consecutive pairs, or over all pairs (which of the two the paper means is not known).
 * Stop when |B| >= K - 1 and J >= threshold. */
#ifndef HYB_EARLY_STOP_H
#define HYB_EARLY_STOP_H
#include "base/err.h"

enum { EARLY_STOP_MAX_R = 64 };
typedef struct {
    int R;            /* evaluations looked at; 0: never stop. The paper's 10 */
    double threshold; /* the paper's 0.90 */
    int all_pairs;
} EarlyStop;
typedef struct {
    int stop, backbone;
    double jaccard;
} EarlyStopState; /* jaccard NAN before R evaluations */

/* top: n sets so far, oldest first, each K layers of L. Never stops before R of them. */
EarlyStopState early_stop(const EarlyStop *o, const int *top /* (n,K) */, int n, int K, int L);

/* Successive halving: which of the `alive` layers to give up, given the scores of the same held-out batches (L,
 * batches; lower KL is better). A layer goes if its KL exceeds that of the K-th best alive layer by more than z paired
 * standard errors; worst first, at most half of the alive layers beyond the K best (rounded up) at a time.
 * Sets drop (L), mean and se (L) of every alive layer's difference;
 * returns how many go. Fewer than 3 batches: none. */
int halving_drop(const double *const *batch_kl, int L, int batches, int K, double z, const int *alive, int *drop,
                 double *mean, double *se);

#endif
