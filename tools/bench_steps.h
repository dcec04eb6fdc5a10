/* bench_steps.h - whole training steps: what an update of a model costs, stage by stage, and what one decoded token
 * does.
 *
 * The pieces are those of ref/method (align.h, loss.h, optim.h): a step here is what a run does, without reading text.
 * Tokens are random; the time does not depend on them. */
#ifndef HYB_BENCH_STEPS_H
#define HYB_BENCH_STEPS_H
#include "method/align.h"
#include "method/loss.h"
#include "method/optim.h"
#include "model/generate.h"
#include "tools/bench.h"

typedef enum {
    STEP_PRETRAIN, /* forward, cross-entropy, backward, AdamW of a softmax model */
    STEP_STAGE1,   /* teacher forward, every mixer's distance to its attention, backward into mixers, AdamW */
    STEP_STAGE2,   /* teacher forward, all-linear student forward, KL, backward, AdamW */
    STEP_PREFILL,  /* one sequence of T tokens into an empty cache */
    STEP_DECODE    /* one token more */
} StepKind;

/* One row: opened just before it is measured and closed after, so that peak memory is that of this step alone. */
typedef struct {
    StepKind kind;
    Config c;          /* a softmax model */
    const char *model; /* directory to read weights from; NULL: random ones */
    /* makes the random ones where that is faster than model_init; NULL: model_init */
    void (*fill)(void *device, size_t bytes);
    int mixer, B, T, micro; /* micro-batches of (B,T) a step */
    int looped;             /* 1: no optimiser is opened; train() brings one (bench_ranks.c) */
    Backend *be;
    char shape[64];
    Model teacher, student; /* student: what trains or decodes */
    Pass pass, tp;
    Loss loss;
    Align align;
    Optim optim;
    Decode decode;
    int *ids;      /* (B,T) */
    float *logits; /* (VOC) */
} Step;

/* A row ready for bench_run: shape, tokens, useful operations and bytes counted, nothing allocated.
 * s is filled in and must outlive it.
 * mixer: the student's linear mixer (mixer.h). model: NULL, or the directory that c was read from. */
BenchStep bench_step(Step *s, StepKind kind, const Config *c, const char *model, int mixer, Backend *be, int B, int T,
                     int micro);
/* A micro-batch of STEP_STAGE2, whose gradients are added: weight (B T) of each token's loss, NULL: their mean. */
int bench_stage2(Step *s, const float *weight, double *loss, Err *e);
extern const OptimConfig bench_adamw;
/* A plain Llama: width, layers, heads, key/value heads, ffn, vocabulary. */
Config bench_config(int C, int L, int H, int Hk, int F, int VOC, int tied);

#endif
