/* klstats.h - how a model's next-token distribution differs from a base model's, position by position:
 * what llama.cpp reports as
 * KL-divergence statistics, and the split of zoology: does the token to come continue a bigram that this context has
 * shown before?
 *
 * Consecutive windows of T tokens, each from a fresh state, as perplexity.h. Units are nats. Source:
 * ref/eval/README.md 1.
 * */
#ifndef HYB_KLSTATS_H
#define HYB_KLSTATS_H
#include "base/log.h"
#include "model/model.h"

typedef struct {
    double mean, se; /* over positions; se = deviation / sqrt(positions), as llama.cpp */
    double min, q01, q05, q10, median, q90, q95, q99, q999, max;
    double dp_mean, dp_mean_se, dp_rms; /* of p(next token of the text), model - base */
    /* of the two cross-entropies over positions; NAN where one of them is constant */
    double correlation;
    double same_top, same_top_se; /* fraction of positions with the same argmax */
    /* mean cross-entropies of the text and their difference, model - base */
    double nll, nll_base, delta, delta_se;
    int64_t positions; /* T - 1 a window: those that predict a token of it */
} KlStats;
typedef struct {
    KlStats all, seen, fresh;
} KlReport; /* seen: the pair (this token, next token) occurred earlier in the window */

/* One vocabulary, one backend (ERR_INPUT otherwise). Texts of less than one window are one shorter window. */
int klstats_run(KlReport *r, Model *base, Model *m, const int *ids, size_t n, int T, const Progress *progress, Err *e);
/* Statistics of n positions; kl is sorted in place. same, delta: per position. */
void klstats_of(KlStats *s, float *kl, const float *nll, const float *nll_base, const unsigned char *same, size_t n);

#endif
