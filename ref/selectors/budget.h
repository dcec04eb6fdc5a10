/* budget.h - how many layers, and which, fit a budget: memory at a context length, or any measured cost per layer
 * (ref/METHOD.md 11).
 *
 * Every layer costs soft[l] as softmax and lin[l] as linear attention; the value of keeping it softmax is value[l]. */
#ifndef HYB_BUDGET_H
#define HYB_BUDGET_H
#include "model/mixer.h"
#include "ops/backend.h"

/* Bytes of generation state per sequence: a KV cache of `context` tokens (no more than the window), or a recurrent
 * state. */
size_t budget_softmax_bytes(const Config *c, const Backend *be, long context);
size_t budget_linear_bytes(const Config *c, const Backend *be);
/* The same of a layer with mixer m that is not plain softmax: swa_v1's cache is bounded by its window. */
size_t budget_mixer_bytes(const Config *c, const Mixer *m, const Backend *be);

/* The set that maximises the sum of value over kept layers among those with sum of costs <= budget (to within 1e-12 of
 * it). NAN counts as -INFINITY: never kept unless keeping it is cheaper. Exact: partial sets that cost more and are
 * worth less than another are dropped; ERR_MEMORY if more than 2^20 remain. ERR_USAGE naming the least possible cost if
 * nothing fits. Ties: fewer layers. */
int budget_knapsack(const double *value, const double *soft, const double *lin, int L, double budget, int *keep,
                    Err *e);

/* Layers that fit when all cost the same: the largest K with K soft + (L-K) lin <= budget; -1 if none. */
int budget_count(double soft, double lin, int L, double budget);

#endif
