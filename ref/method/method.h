/* method.h - the whole method as one function over open models and text. See ref/METHOD.md 1. */
#ifndef HYB_METHOD_H
#define HYB_METHOD_H
#include "method/align.h"
#include "method/fit.h"
#include "method/ga_s2.h"
#include "method/transfer.h"

/* What Algorithm 1 is done with, and what it has made so far. */
typedef struct Method {
    Model *teacher;
    Config linear; /* the student with every layer linear */
    TextStream text;
    uint64_t seed; /* of new parameters */
    KvRepeat kv_repeat;
    StartKind init;                      /* how linear layers start, and */
    int64_t init_tokens;                 /* tokens that fit_start reads for it */
    int align_form;                      /* ALIGN_NORM, ALIGN_SQUARED */
    StageOptions stage1, stage2, stage3; /* stage3 without steps and target_tokens: none */
    Scoring scoring;                     /* teacher, start and heldout are those below */
    int checkpointing;
    double tau;
    Model stage1_student; /* the stage-1 student, frozen; open before: lines 1 and 2 are skipped */
    LayerScore *score;    /* (L) GA-S2's rows; NULL: they are not wanted */
    Memo *memo;
    /* Who runs the method. Each may end it by an error. */
    void *ctx;
    /* what fit_start did, for any init but START_TEACHER; may be NULL */
    int (*started)(void *ctx, const Fit *f, Err *e);
    int (*aligned)(void *ctx, int *enough, Err *e); /* after line 2; *enough = 1: no more is wanted */
    int (*scores)(void *ctx, Err *e);               /* lines 3 to 6, when they are kept or end early; NULL: ga_s2 */
    int (*choose)(void *ctx, int *keep, int *enough, Err *e); /* line 7, by whatever selector */
    int (*student)(void *ctx, const int *keep, Err *e);       /* lines 8 and 9, and what is measured of it */
} Method;

int hybridize(Method *m, Err *e);
/* Lines 1 and 2: m->stage1_student. *seconds: of training. */
int method_stage1(Method *m, double *seconds, Err *e);
/* Lines 8 and 9 for these softmax layers: the hybrid, opened and distilled. Its trainings are kept as NAME/stage2 and
 * NAME/stage3; *t adds up both; *bytes: the most memory that one of them counts. */
int method_hybrid(Method *m, Model *hybrid, const int *keep, const char *run, const char *name, TrainResult *t,
                  size_t *bytes, Err *e);

#endif
