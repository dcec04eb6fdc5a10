/* score.h - LayerScore: the result of one layer, for every selector. The sum of tokens and seconds over layers is the
 * selector's cost. */
#ifndef HYB_SCORE_H
#define HYB_SCORE_H
#include "method/heldout.h"
#include "method/memo.h"

enum { SCORE_POINTS = 64, SCORE_HEADS = 128 }; /* evaluations of one layer's run, and heads, that are kept */
typedef struct {
    int64_t step, tokens;
    double kl, kl_se, running;
} ScorePoint;
typedef struct {
    int layer, rank; /* rank 1 = most important; 0: not scored */
    /* I(layer) = -KL: higher = keep as softmax. Clean: held-out KL; official: mean training KL of the last 10 steps */
    double score;
    double se;      /* standard error of the held-out KL over batches */
    double running; /* mean training KL of the last 10 steps */
    /* of the trained hybrid, mean over numbers of pairs; NAN: not asked, or nothing was trained */
    double recall;
    int64_t tokens;
    double seconds;
    int points, batches;
    ScorePoint point[SCORE_POINTS]; /* trajectory; the last one is the end of the run */
    double batch_kl[HELDOUT_MAX];   /* per held-out batch at the end */
    int64_t dropped;                /* successive halving: step at which the layer was given up, 0: never */
    /* its paired difference from the K-th best layer then (nats), and the standard error of that */
    double drop_mean, drop_se;
    int heads; /* selectors with scores per head: they add up to the layer's score, output bias aside */
    double head[SCORE_HEADS];
} LayerScore;
/* What is kept of a layer: all of it, or all but the trajectory (ranking.json, and rows of other selectors). */
extern const Record layer_score_record, layer_row_record;

/* Ranks by score, higher first, ties to the lower layer; layers given up earlier (fewer points) stand behind those given
 * up later. NAN counts as lowest. */
void score_rank(LayerScore *s, int L);
/* score = mean of the first n batch_kl, se its standard error; n 0: a layer without a score (NAN). */
void score_finish(LayerScore *s, int layer, int n);
/* Spreads the cost of a selector that does all layers at once evenly over its rows. */
void score_share(LayerScore *s, int L, int64_t tokens, double seconds);
/* Layers by value, best first; ties to the lower layer, NAN last. */
void score_order(const double *value, int L, int *order);
/* rank (L) at point p (by -running or -kl, as official says) of those layers that have it, 1 = best;
 * 0 for those given up before. Returns how many have it. */
int score_ranks_at(const LayerScore *s, int L, int p, int official, int *rank);

#endif
