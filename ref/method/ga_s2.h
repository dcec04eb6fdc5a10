/* ga_s2.h - the paper's scores: how much does it help to give layer l its softmax attention back? See ref/METHOD.md
 * 3.3. */
#ifndef HYB_GA_S2_H
#define HYB_GA_S2_H
#include "method/distill.h"
#include "method/score.h"

/* What a scoring run is made of. */
typedef struct {
    Model *teacher, *stage1_student; /* stage1_student: the stage-1 student, frozen */
    const TextStream *text;          /* what is trained on */
    Heldout *heldout;                /* what is judged on */
    StageOptions stage;              /* the short stage 2 */
    double tau;
    int checkpointing;
    int official;       /* 1: the score is the running training KL, as in the official code; 0: the held-out KL */
    int removal;        /* 1: hybrids lack layers instead of having them: the score is +KL */
    int64_t eval_every; /* steps between the points of a trajectory; 0: steps/8, at least 1 */
    size_t cache;       /* bytes of teacher states shared between layers */
    /* one more number of every trained hybrid, LayerScore.recall; it has no influence on scores. May be NULL */
    int (*probe)(void *ctx, Model *m, double *value, Err *e);
    void *probe_ctx;
} Scoring;

/* Scores of n hybrids: softmax where keep (n,L) says 1. Trained up to step `until` (0: to the end), where the last
 * evaluation is their score, -KL. alive (n): 0 leaves a row as it is; NULL: all. Results are kept as NAME/RECORD-i,
 * their trainings as NAME/layer-i; whether a training is dropped when its result is there is for `until` to say:
 * at the end. */
int score_sets(LayerScore *out, const Scoring *s, const int *keep, const int *alive, int n, const char *name,
               const char *record, int64_t until, Memo *memo, Err *e);
/* GA-S2: score_sets of the L hybrids with one softmax layer each, and their ranks. */
int ga_s2(LayerScore *out, const Scoring *s, const char *name, Memo *memo, Err *e);
/* Steps between two evaluations. ERR_USAGE when there are more than SCORE_POINTS. */
int scoring_every(const Scoring *s, int64_t *every, Err *e);

#endif
