/* generate.h - decoding with a KV cache for softmax layers and a recurrent state for linear ones.
 *
 * Prefill runs the chunked form, decoding one token at a time; the two agree (tests). No padding ever enters a state:
 * the B sequences of a Decode advance in lockstep with the same number of tokens. */
#ifndef HYB_GENERATE_H
#define HYB_GENERATE_H
#include "base/rng.h"
#include "model/model.h"

typedef struct {
    Model *m;
    int B, capacity, past; /* past: tokens consumed so far */
    MixerState *state;     /* (L) */
    Real *logits;          /* (B,VOC) */
    Pass pass;             /* inference pass for up to `step` tokens at once */
    int step;
    /* (L): the calls of one token through the linear layers that begin at l (Backend.record_begin), or NULL */
    void **record;
    int singles; /* tokens that came one at a time */
    void *mem;
    /* cache: grows with capacity, up to the window where there is one; state: does not */
    size_t bytes, cache_bytes, state_bytes;
} Decode;

/* step: longest piece consumed at once (prefill is cut into pieces of this many tokens). */
int decode_open(Decode *d, Model *m, int B, int capacity, int step, Err *e);
void decode_close(Decode *d);
void decode_reset(Decode *d); /* past = 0, states zero */
/* Consumes T tokens per sequence, ids (B,T) on the host; logits (B,VOC) of the last token into a host float array
 * (NULL: not wanted).
 * ERR_USAGE when past + T > capacity. */
int decode_extend(Decode *d, const int *ids, int T, float *logits, Err *e);

typedef struct {
    double temperature;
    int top_k;
    double top_p;
    uint64_t seed;
} Sampler; /* temperature 0: greedy; top_k 0, top_p 1: off */
/* One id from logits (n): greedy takes the first maximum. rng advances by exactly one draw when temperature > 0.
 * ERR_NUMERIC if no logit is finite. */
int sample(const Sampler *s, Rng *rng, const float *logits, int n, int *id, Err *e);

#endif
