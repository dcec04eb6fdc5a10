/* mixer.h - what a token mixer is: one row in a table, one file. softmax attention and every linear attention are rows.
 *
 * A mixer maps the normed input x (N,C) to y (N,C). To add one: write mixer_NAME.c with the functions below,
 * add its row to the table in mixer.c; parameters it needs that have no slot go into MixerParams.
 * Nothing else changes (ref/ops/README.md shows how). */
#ifndef HYB_MIXER_H
#define HYB_MIXER_H
#include "base/arena.h"
#include "model/params.h"

/* Tensors kept from forward to backward (and scratch), placed by the mixer for its own needs. */
typedef struct {
    Real *q, *k, *v;    /* after projection: inputs of conv / silu / rope */
    Real *qc, *kc, *vc; /* after the short convolution */
    Real *qs, *ks, *vs; /* after silu / rope / q-k norm: what the mixing op sees (qn, kn after the L2 norm) */
    Real *qn, *kn;
    Real *o, *z, *y; /* op output; output gate's pre-activation; gated and normed, input of o_proj */
    Real *a_in, *b_in,
        *low; /* gates' pre-activations, W_a x and W_b x; intermediate of a low-rank decay gate (gla, kda) */
    /* between two stacked projections: of k and v (gdn_v5), of the output gate (kda) */
    Real *k_low, *v_low, *z_low;
    Real *states;                           /* before each chunk, for backward; NULL in inference */
    Wide *g, *beta, *lse, *q_r, *k_r, *o_r; /* decay, step size, log-sum-exp, reciprocal norms */
} MixerActs;

/* What a generation keeps per layer: a KV cache (softmax) or a state (linear). */
typedef struct {
    Real *k_cache, *v_cache;        /* (B,rows,Hk,D), of which the first `used` are filled */
    int rows, used;                 /* rows: capacity; with a window no more than it and one piece need */
    Wide *state;                    /* (B,H,K,V) */
    Real *q_tail, *k_tail, *v_tail; /* (B,W-1,H*D) of the short convolutions */
} MixerState;

typedef struct { /* everything a mixer call needs besides its tensors */
    Backend *be;
    const Config *c;
    MixerParams *p;
    const Wide *rope_q, *rope_k; /* (max positions, D/2, 2) cosines and sines, for queries and for keys */
    const int *start;            /* device (B,T) or NULL */
    int B, T;
    int chunk;     /* of chunked ops */
    Real *tmp[4];  /* scratch, (N, max(C, H*D, 16)) each, free between calls */
    Wide *wtmp[2]; /* scratch, (N, H), or (N, H*D) if any layer's mixer decays per channel (Mixer.channels) */
    Wide *state;   /* scratch, (B,H,D,D): what runs through the chunks, in backward its gradient */
    void *work;    /* op workspace */
} MixerCall;

typedef struct Mixer {
    const char *name;  /* "softmax", "gdn_v4", ...: the student_name of the official code */
    const char *label; /* for tables: "Gated DeltaNet, output gate, no convolution" */
    int linear;        /* 1: fixed-size state, no rope, no cache */
    int channels;      /* 1: a log decay per key channel, not per head */
    double gate_lower; /* least log decay of a token: kda's bounded gate; 0: no bound */
    unsigned flags;    /* private to its file: which variant */
    /* This layer's parameters, in checkpoint order. */
    int (*walk)(const struct Mixer *m, const Config *c, MixerParams *p, const Walk *w);
    /* Lays out acts for (B,T). train: keep what backward needs; else tensors may share memory. */
    void (*place)(const struct Mixer *m, const Config *c, const Backend *be, MixerActs *a, Arena *arena, int B, int T,
                  int chunk, int train);
    size_t (*work)(const struct Mixer *m, const Config *c, int B, int T, int chunk); /* bytes of op workspace */
    void (*forward)(const struct Mixer *m, const MixerCall *call, MixerActs *a, Real *y, const Real *x);
    /* dx += ..., parameter gradients += ... (where slot.g != NULL). dx may be NULL (stage 1:
     * the input is the teacher's). */
    void (*backward)(const struct Mixer *m, const MixerCall *call, MixerActs *a, Real *dx, const Real *dy,
                     const Real *x);
    /* Generation. place_state lays out the empty state for B sequences of at most capacity tokens that come in pieces
     * of at most `step`; extend consumes T more tokens after `past` of them: prefill (T > 1, chunked form) and decoding
     * (T = 1) alike. acts are inference acts for (B,T). */
    void (*place_state)(const struct Mixer *m, const Config *c, const Backend *be, MixerState *s, Arena *arena, int B,
                        int capacity, int step);
    void (*extend)(const struct Mixer *m, const MixerCall *call, MixerActs *a, MixerState *s, Real *y, const Real *x,
                   int past);
} Mixer;

extern const Mixer mixer_softmax, mixer_gdn_v1, mixer_gdn_v2, mixer_gdn_v3, mixer_gdn_v4, mixer_gdn_v5, mixer_gdn_v6,
    mixer_gla_v1, mixer_kda_v1, mixer_kda_v2, mixer_kda_v3, mixer_kda_v4, mixer_swa_v1;
int mixer_count(void);
const Mixer *mixer_at(int index); /* 0 is softmax; NULL outside the table */
int mixer_find(const char *name); /* index, or -1 */
/* "gdn_v1, gdn_v2, ...": every name but softmax, for messages and help; cut at cap. */
void mixer_names(char *out, size_t cap);

#endif
