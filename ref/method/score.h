/* score.h - GA-S2: how much does it help to give layer l its softmax attention back? (method.md 1.2 step 3, 3.1)
 *
 * For every layer: the stage-1 student with only layer l softmax, a short stage 2, then the KL to the teacher.
 * All layers read the same tokens in the same order and are judged on the same held-out batches, so their scores are
 * paired. GR-S2 is the other direction: the teacher with only layer l linear; the larger the KL, the more important the
 * layer.
 *
 * LayerScore is what every selector that scores layers leaves behind; tokens and seconds of its rows add up to what it
 * cost. */
#ifndef HYB_SCORE_H
#define HYB_SCORE_H
#include "eval/recall.h"
#include "method/distill.h"
#include "selectors/early_stop.h"

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

typedef struct {
    /* dir: where layers' checkpoints and results lie (required); stage: the short stage 2 */
    TrainOptions train;
    double tau;
    int checkpointing;
    int official;       /* 1: score by the running training KL */
    int64_t eval_every; /* steps between trajectory points; 0: steps/8, at least 1 */
    size_t cache;       /* bytes of teacher states shared between layers */
    int removal;        /* 1: GR-S2, score = +KL of the teacher with layer l linear */
    /* (L) layers that are softmax in every run (greedy addition): not scored, rank last. NULL: none */
    const int *keep;
    /* (n_sets,L) 0/1: score these sets of softmax layers instead of single layers; n_sets <= MAX_LAYERS. NULL:
     * layers */
    const int *sets;
    int n_sets;
    /* ending runs before their last step; with either of them all layers advance together from evaluation to evaluation
     * */
    EarlyStop stop; /* R 0: off */
    /* drop layers this many paired standard errors behind the K-th best; 0: off (never with removal) */
    double halving_z;
    int K;                /* of both */
    const Recall *recall; /* asked at the end of every run, has no influence on scores; may be NULL */
} ScoreOptions;

/* Scores all layers; out (L), or (n_sets). start: the stage-1 student. Resumable: DIR/layer-N.json is a finished layer,
 * DIR/layer-N/ one in progress.
 * With early stopping DIR/rounds/ holds every layer's evaluations, and DIR/early_stop.json the sets, drops, and tokens
 * saved.
 * Ranks are filled in: higher score first, ties to the lower layer. */
int score_layers(LayerScore *out, Model *teacher, Model *start, const TextStream *data, Heldout *heldout,
                 const ScoreOptions *o, Err *e);
/* Ranks by score; layers given up earlier (fewer points) stand behind those given up later. */
void score_rank(LayerScore *s, int L);
/* score = mean of the first n batch_kl, se its standard error; n 0: a layer without a score (NAN). */
void score_finish(LayerScore *s, int layer, int n);
/* Spreads the cost of a selector that does all layers at once evenly over its rows. */
void score_share(LayerScore *s, int L, int64_t tokens, double seconds);
/* Finished rows of any selector as DIR/layer-N.json: *found = 1 if all L were there. ERR_USAGE when made by other
 * options. */
int score_rows_load(LayerScore *s, int L, const char *dir, uint64_t fingerprint, int *found, Err *e);
int score_rows_save(const LayerScore *s, int L, const char *dir, uint64_t fingerprint, Err *e);
/* rank (L) at point p (by -running or -kl, as official says) of those layers that have it, 1 = best;
 * 0 for those given up before. Returns how many have it. */
int score_ranks_at(const LayerScore *s, int L, int p, int official, int *rank);

/* Hybrid = `start` with the softmax layers of teacher where keep[l]: opened, GRAD_ALL (method.md 2.6). */
int hybrid_open(Model *h, Model *teacher, Model *start, const int *keep /* (L) 0/1 */, GradKind grad, Err *e);

#endif
