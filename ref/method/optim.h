/* optim.h - AdamW over a model's trainable parameters, with learning-rate groups, clipping and schedules (
 * ref/METHOD.md 4). */
#ifndef HYB_OPTIM_H
#define HYB_OPTIM_H
#include "method/lanes.h"

typedef enum { SCHEDULE_CONSTANT, SCHEDULE_COSINE, SCHEDULE_LINEAR, SCHEDULE_HOLD_LINEAR } ScheduleKind;
typedef struct {
    ScheduleKind kind;
    int64_t warmup; /* steps of linear warm-up from 0 */
    double final;   /* fraction of lr at the end (cosine, linear) */
    double hold;    /* HOLD_LINEAR: constant until this fraction of the steps, then linear to `final` */
} Schedule;
/* Factor on lr for the step that follows `done` completed steps of `total`. COSINE: final + (1-final) (1+cos(pi
 * done/total))/2, as in the official code (k completed steps). */
double schedule_factor(const Schedule *s, int64_t done, int64_t total);

typedef struct {
    /* lr_attn: parameters of the token mixer (official: every name containing "attn", attn_norm included) */
    double lr, lr_attn;
    double beta1, beta2, eps, decay, clip; /* clip 0: off */
    Schedule schedule;
    int official_groups; /* 1: attn_norm in the lr_attn group, and decay on everything */
    /* 1: bf16 weights have no float master: they are moved in float and rounded up or down by chance (adamw in
     * ops_decl.h), so that a run needs 4 bytes a weight less and steps far below half a unit of the last place still
     * move them, on average as far as they should. The chance is a
     * function of seed, step, parameter and element: runs repeat and resume to the bit.
     * Needs a backend with bf16 weights. */
    int stochastic_rounding;
    uint64_t seed; /* of stochastic_rounding */
    int lanes;     /* a power of two; 0, 1: one sum over all micro-batches (lanes.h) */
} OptimConfig;

typedef struct {
    Model *m;
    OptimConfig c;
    int lanes, own, first; /* segments of a tensor; those of this rank, and the first of them (lanes.h) */
    int64_t step;          /* completed steps */
    /* over this rank's segments of all trainable parameters, in walk order; master NULL where real == wide, and with
     * stochastic_rounding */
    Wide *m1, *m2, *master;
    double *sum;   /* (own, params) device scratch */
    Trained *list; /* (own, params) host: what the ops of a step go over, made anew by each */
    double *sums;  /* (lanes, params) host: sum, downloaded, and those of the other ranks */
    size_t n, params, bytes;
    void *mem;
} Optim;

size_t optim_bytes(const Model *m, const OptimConfig *c); /* of this rank */
/* ERR_USAGE where the options do not fit the backend: stochastic_rounding and weights that are not bf16.
 * optim_open asks too. */
/* The least epsilon that is a normal float: below it, a gradient that is 0 exactly would move a weight by 0/0. */
#define ADAM_EPS_LEAST 1.17549436e-38
int optim_check(const OptimConfig *c, const Backend *be, Err *e);
int optim_open(Optim *o, Model *m, const OptimConfig *c, Err *e);
/* Masters are the weights as they are now; for weights that were written since optim_open. */
int optim_masters(Optim *o, Err *e);
void optim_close(Optim *o);
/* One step of `total`: global norm of all gradients (returned), scale to clip, AdamW.
 * ERR_NUMERIC if the norm is not finite, naming the first parameter whose gradient is not; nothing is changed then. */
int optim_step(Optim *o, int64_t total, double *grad_norm, double *lr, Err *e);

/* Elements of a tensor of n that rank q owns: from *from on, *count of them. */
void optim_part(const Optim *o, size_t n, int q, size_t *from, size_t *count);
/* Visits every trainable parameter with the place of its numbers in m1, m2 and master: those of this rank's part. */
typedef int (*OptimVisit)(void *ctx, const ParamInfo *info, Param *slot, size_t at);
int optim_walk(const Optim *o, OptimVisit visit, void *ctx);
/* Whether this parameter's weight is a rounded copy of a master. */
static inline int optim_has_master(const Optim *o, const ParamInfo *info) { return o->master && !info->wide; }

#endif
