/* score.h - GA-S2: how much does it help to give layer l its softmax attention back? (method.md 1.2 step 3, 3.1)
 *
 * For every layer: the stage-1 student with only layer l softmax, a short stage 2, then the KL to the teacher. All layers read the
 * same tokens in the same order and are judged on the same held-out batches, so their scores are paired. */
#ifndef HYB_SCORE_H
#define HYB_SCORE_H
#include "method/distill.h"

enum { SCORE_POINTS = 64 }; /* evaluations of one layer's run that are kept */
typedef struct { int64_t step, tokens; double kl, kl_se, running; } ScorePoint;
typedef struct {
    int layer, rank;       /* rank 1 = most important; 0: not scored */
    double score;          /* I(layer) = -KL: higher = keep as softmax. Clean: held-out KL; official: mean training KL of the last 10 steps */
    double se;             /* standard error of the held-out KL over batches */
    double running;        /* mean training KL of the last 10 steps */
    int64_t tokens;
    double seconds;
    int points, batches;
    ScorePoint point[SCORE_POINTS]; /* trajectory; the last one is the end of the run */
    double batch_kl[HELDOUT_MAX];   /* per held-out batch at the end */
} LayerScore;

typedef struct {
    TrainOptions train;  /* dir: where layers' checkpoints and results lie (required); stage: the short stage 2 */
    double tau;
    int checkpointing;
    int official;        /* 1: score by the running training KL */
    int64_t eval_every;  /* steps between trajectory points; 0: steps/8, at least 1 */
    size_t cache;        /* bytes of teacher states shared between layers */
} ScoreOptions;

/* Scores all layers; out (L). start: the stage-1 student. Resumable: DIR/layer-N.json is a finished layer, DIR/layer-N/ one in progress.
 * Ranks are filled in: higher score first, ties to the lower layer. */
int score_layers(LayerScore *out, Model *teacher, Model *start, const TextStream *data, Heldout *heldout, const ScoreOptions *o, Err *e);
void score_rank(LayerScore *s, int L);
/* The layers of point p in rank order (-running or -kl as official says): order (L). Returns 0 when not every layer has that point. */
int score_order_at(const LayerScore *s, int L, int p, int official, int *order);

/* Hybrid = `start` with the softmax layers of teacher where keep[l]: opened, GRAD_ALL (method.md 2.6). */
int hybrid_open(Model *h, Model *teacher, Model *start, const int *keep /* (L) 0/1 */, GradKind grad, Err *e);

#endif
