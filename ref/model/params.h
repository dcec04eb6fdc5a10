/* params.h - the one list of parameters. Counting, placing, loading, saving, initialising, transferring, learning-rate
 * groups, gradient reports and tests are all visitors of params_walk, so the list cannot drift. */
#ifndef HYB_PARAMS_H
#define HYB_PARAMS_H
#include <stddef.h>
#include <stdint.h>
#include "base/err.h"
#include "model/config.h"
#include "ops/backend.h"

/* A parameter is its weight and its gradient. Matrices are stored in `real`; the few that need `wide` (A_log,
 * dt_bias) say so. */
typedef struct {
    union {
        Real *w;
        Wide *ww;
    };
    Wide *g;  /* NULL: frozen, or not a training model */
    size_t n; /* elements; 0: this model has no such parameter */
    /* GRAD_HALF: the weight itself, BF16 on the host; w is then valid after layer_weights() only */
    uint16_t *half;
} Param;

/* All mixers' parameters by name; a mixer uses those that it walks. */
typedef struct {
    /* softmax; q k v o and the biases also of linear mixers */
    Param q, k, v, o, q_bias, k_bias, v_bias, o_bias, q_norm, k_norm;
    /* gdn (gate, o_norm, convs as the version has them) */
    Param gate, a, b, A_log, dt_bias, o_norm, q_conv, k_conv, v_conv;
    /* gdn_v5: second of two stacked projections (first: k, v) */
    Param k_up, k_up_bias, v_up, v_up_bias;
    /* gla: low-rank decay gate; gate and o_norm as gdn */
    Param gk_down, gk_up, gk_bias;
    /* kda: low-rank decay gate, low-rank output gate */
    Param f_down, f_up, g_down, g_up, g_bias;
} MixerParams;
typedef struct {
    Param attn_norm, mlp_norm, gate, up, down;
    MixerParams mix;
} LayerParams;
typedef struct {
    Param embed, norm, head; /* head.n == 0 when tied: use params_head() */
    LayerParams *layer;      /* (L) */
} Params;

/* How a parameter starts in a fresh student, or in a fresh teacher. */
typedef enum {
    INIT_NORMAL, /* matrices of a model made from scratch: N(0, std^2), std given by pretrain */
    INIT_ONES,
    INIT_ZEROS,
    INIT_FAN_IN,  /* U(-1/sqrt(fan), 1/sqrt(fan)): default of torch.nn.Linear and Conv1d (ref/METHOD.md 6.6) */
    INIT_A_LOG,   /* log U(0,16) */
    INIT_A_LOG_1, /* log U(1,16): kda */
    INIT_DT_BIAS  /* softplus^-1 of dt, dt log-uniform in [1e-3, 1e-1], >= 1e-4 */
} InitKind;
/* from the teacher's softmax layer: not, as it is, (Hk*D, C) -> (H*D, C) */
typedef enum { COPY_NONE, COPY_SAME, COPY_EXPAND } CopyKind;

typedef struct {
    const char *name; /* full fla name, "model.layers.3.attn.q_proj.weight"; valid during the visit only */
    int rank;
    size_t shape[3], n;
    int wide;  /* stored as wide */
    int layer; /* -1: embeddings, final norm, head */
    int mixer; /* 1: belongs to the token mixer (what stage 1 trains) */
    /* 1: matrices; 0: norms, gates' A_log and dt_bias, biases, convolutions (clean weight decay) */
    int decays;
    int residual; /* 1: writes into the residual stream (o, down): pretrain divides its init by sqrt(2L) */
    InitKind init;
    size_t fan; /* of INIT_FAN_IN and INIT_NORMAL: inputs of one output */
    /* how a student gets it from the teacher, whose parameter has the name `from` (same layer) */
    CopyKind copy;
    const char *from;
} ParamInfo;

/* Visits every parameter in checkpoint order; stops at the first non-zero return and returns it. */
typedef int (*ParamVisit)(void *ctx, const ParamInfo *info, Param *slot);
int params_walk(const Config *c, Params *p, ParamVisit visit, void *ctx);

static inline Param *params_head(Params *p) { return p->head.n ? &p->head : &p->embed; }

/* Used by mixers' walk functions: fills info.name from layer and suffix and calls the visitor. */
typedef struct {
    ParamVisit visit;
    void *ctx;
    int layer;
} Walk;
/* shape by rank: 1 (n0), 2 (n0,n1), 3 (n0,1,n1); info brings init, copy, ...; the rest is filled in here. */
int walk_param(const Walk *w, Param *slot, const char *suffix, int rank, size_t n0, size_t n1, ParamInfo info);

size_t params_count(const Config *c); /* number of scalars */

#endif
