/* scheduler.h - the one scheduler of scoring runs: all to their end one after the other, or side by side from
 * evaluation to evaluation, so that they end early when the ranking has settled or when they clearly lose. See
 * early_stop.h. */
#ifndef HYB_SCHEDULER_H
#define HYB_SCHEDULER_H
#include "method/ga_s2.h"
#include "selectors/early_stop.h"

typedef struct {
    EarlyStop stop;   /* R 0: off */
    double halving_z; /* drop layers this many paired standard errors behind the K-th best; 0: off */
    int K;            /* of both */
} SchedulerOptions;

/* Scores of n hybrids, softmax where keep (n,L) says 1, as score_sets keeps them; ranks among those that in (n) names
 * (NULL: all), the others come last without a score. With an early end NAME/rounds-R/layer-i holds every evaluation
 * until all are over, and NAME/early_stop says what was saved. options NULL: none. */
int scheduler_run(LayerScore *out, const Scoring *s, const SchedulerOptions *options, const int *keep, const int *in,
                  int n, const char *name, Memo *memo, Err *e);

/* GA-S2 with that: ga_s2() itself where nothing ends early. */
int scheduler_ga_s2(LayerScore *out, const Scoring *s, const SchedulerOptions *options, const char *name, Memo *memo,
                    Err *e);

#endif
