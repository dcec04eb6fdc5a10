/* model.h - the hybrid decoder: parameters on a backend, forward, hand-written backward.
 *
 *   x = embed[ids];  for every layer:  x += mixer(rmsnorm(x));  x += down(SiLU(gate n) up n), n = rmsnorm(x);
 *   h = rmsnorm(x)
 *
 * Model = weights and gradients; Pass = the activations of one (B,T) batch. Losses (head included) are ops on h:
 * see method/loss.h. */
#ifndef HYB_MODEL_H
#define HYB_MODEL_H
#include "base/arena.h"
#include "model/config.h"
#include "model/mixer.h"
#include "model/params.h"

/* Frozen teacher, stage 1, stages 2 and 3. GRAD_HALF: frozen, the layers' matrices kept in BF16 and made `real` a layer
 * at a time, in memory that all layers share: exact for a BF16 checkpoint, and 2 bytes a weight instead of 4. */
typedef enum { GRAD_NONE, GRAD_MIXERS, GRAD_ALL, GRAD_HALF } GradKind;
typedef struct Half Half; /* model.c */
typedef struct {
    Backend *be;
    Config c;
    Params p;
    GradKind grad;
    int chunk; /* of chunked mixers, default 64 */
    /* table for c.max_positions positions at most; grown by pass_open / decode_open when T needs more */
    Wide *rope, *rope_q, *rope_k; /* tables of swa_v1 layers, and of softmax layers' queries and keys */
    int rope_rows;
    void *weight_mem, *grad_mem;
    size_t weight_bytes, grad_bytes;
    Half *half; /* NULL unless grad is GRAD_HALF */
    int prepacked;
} Model;

/* Allocates (zeroed) weights and, as grad says, gradients. config_check is run first. */
int model_open(Model *m, const Config *c, Backend *be, GradKind grad, Err *e);
/* Like model_open, but allocates nothing: only weight_bytes, grad_bytes, pass_bytes, loss_bytes and optim_bytes may be
 * used. */
int model_measure(Model *m, const Config *c, Backend *be, GradKind grad, Err *e);
void model_close(Model *m); /* fine on a zeroed Model */
void model_zero_grad(Model *m);
/* The matrices of this model will be read by many products between changes (a frozen model, or one that runs several
 * times a step):
 * Backend.prepack, for up to the memory of the weights again. No-op for GRAD_HALF, which exists to save memory, where
 * the backend gains nothing, and on a model that is prepacked. model_close releases the panels, model_prepack_release
 * does it earlier. */
enum {
    PREPACK_BACKWARD = 1, /* for backward too: up to twice that memory */
    PREPACK_HEAD = 2      /* the output head alone, which a loss reads for each of its blocks of rows */
};
void model_prepack(Model *m, int what);
size_t model_prepack_bytes(const Model *m, int what); /* that memory, at most */
void model_prepack_release(Model *m);
void model_invalidate(Model *m); /* its weights were written */
/* Finds a parameter by its full name: info and slot copies; returns 0 if absent. */
int model_find(const Model *m, const char *name, ParamInfo *info, Param *slot);
/* Fresh weights: INIT_* of every parameter; std of INIT_NORMAL: embed_std for the embedding, gain/sqrt(cols) for the
 * rest, residual ones / sqrt(2L).
 * A pure function of (config, seed): each parameter has its own stream, keyed by its name. mixers_only:
 * only the parameters of linear mixers that have nothing to copy from. */
int model_init(Model *m, uint64_t seed, double embed_std, double gain, int mixers_only, Err *e);
/* The rope table covers positions 0..rows-1 afterwards (pass_open and decode_open call it). */
int model_rope(Model *m, int rows, Err *e);
size_t model_rope_bytes(const Config *c, const Backend *be, int rows); /* of that table */
/* Whole-parameter copies between host arrays of any float type and the device (GRAD_HALF:
 * before the model is first used). */
int param_put(Backend *be, const ParamInfo *i, const Param *p, DType type, const void *host, Err *e);
int param_get(Backend *be, const ParamInfo *i, const Param *p, DType type, void *host, Err *e);

/* ---------------------------------------------------------------- one batch */
enum {
    PASS_TRAIN = 1,      /* keep for backward */
    PASS_CHECKPOINT = 2, /* keep only layer inputs and recompute each layer in backward */
    PASS_KEEP = 4 /* keep also what backward would compute again: to look at, or for backward passes of one's own */
};
typedef struct {
    Real *x; /* (N,C) input of the layer (residual stream) */
    /* normed input of the mixer; n1, n2 and act are one memory for all layers: of the layer that ran last */
    Real *n1;
    Wide *r1; /* reciprocal rms */
    MixerActs mix;
    Real *x2; /* after the mixer's residual */
    Real *n2;
    Wide *r2;
    Real *gate, *up, *act; /* (N,F); act = SiLU(gate) up */
} LayerActs;
typedef struct {
    int B, T, N;
    unsigned flags;
    int *ids, *start; /* device (N); start is NULL unless set by pass_input */
    int *start_mem;
    LayerActs *layer; /* (L), host array; without PASS_TRAIN all point into the same memory */
    Real *x;          /* (N,C) output of the last layer */
    Real *h;
    Wide *r;                 /* (N,C) final normed hidden state, reciprocal rms */
    MixerCall call;          /* scratch */
    Real *dx, *dn, *dact[3]; /* backward scratch: (N,C), (N,C), 3 x (N,F) */
    Real *mix_out;           /* (N,C) output of a mixer or MLP before it joins the residual stream */
    Real *recompute;         /* (N,C) PASS_CHECKPOINT: where a layer run again puts its output */
    Backend *be;
    void *mem;
    size_t bytes;
} Pass;

/* Bytes pass_open will allocate, counted by the same placing function. */
size_t pass_bytes(const Model *m, int B, int T, unsigned flags);
int pass_open(Pass *p, Model *m, int B, int T, unsigned flags, Err *e);
void pass_close(Pass *p);
/* Uploads ids (N) and start (N or NULL). ids must be in [0,VOC): checked, ERR_INPUT. */
int pass_input(Pass *p, const Model *m, const int *ids, const int *start, Err *e);

/* Runs the whole stack on the pass's ids; p->h holds the result. */
void model_forward(const Model *m, Pass *p);
/* dh (N,C) = dL/dh; adds to every parameter gradient. p must be the PASS_TRAIN pass of the last model_forward.
 * dh is not changed. */
void model_backward(Model *m, Pass *p, const Real *dh);

/* The pieces, for stage 1 and for selectors that swap or gate single layers. */
void model_embed(const Model *m, Pass *p, Real *x);                /* x = embed[ids] */
void layer_norm_in(const Model *m, Pass *p, int l, const Real *x); /* n1, r1 of layer l from x */
void layer_mixer(const Model *m, Pass *p, int l, Real *y);         /* y = mixer_l(n1) */
void layer_mlp(const Model *m, Pass *p, int l, const Real *x, const Real *y,
               Real *x_out); /* x2 = x + y; x_out = x2 + mlp(rmsnorm(x2)); y may be p->mix_out, x_out may be x or y */
void layer_forward(const Model *m, Pass *p, int l, const Real *x,
                   Real *x_out); /* all of layer l: fills layer[l], x_out may be layer[l+1].x */
void layer_mlp_backward(Model *m, Pass *p, int l, Real *dx); /* dx: in dL/d(output), out dL/dx2 */
void layer_backward(Model *m, Pass *p, int l, Real *dx);     /* dx: in dL/d(output), out dL/d(input) */
MixerCall *layer_call(const Model *m, Pass *p, int l);       /* the MixerCall of layer l (scratch shared) */
/* Layer l's matrices are in place afterwards (GRAD_HALF; else they always are). layer_norm_in, layer_call, layer_mlp
 * and model_find call it. */
void layer_weights(const Model *m, int l);

#endif
