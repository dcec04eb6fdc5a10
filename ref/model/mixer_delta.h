/* mixer_delta.h - what the delta-rule mixers (gdn, kda) share: q, k, v on their way to the rule.
 *
 *   q, k, v = [SiLU] [conv] W x, or W_2 (W_1 x + b_1) + b_2 for k and v of gdn_v5;  q, k = l2norm per head */
#ifndef HYB_MIXER_DELTA_H
#define HYB_MIXER_DELTA_H
#include "model/mixer_linear.h"

/* Mixer.flags: which stages a variant has */
enum { DELTA_CONV = 1, DELTA_GATE = 2, DELTA_SILU = 4, DELTA_NORM = 8, DELTA_STACK = 16 };

/* with DELTA_STACK: gdn_v5's projections */
int delta_walk_qkv(const Mixer *m, const Config *c, MixerParams *p, const Walk *w);
int delta_walk_conv(const Mixer *m, const Config *c, MixerParams *p, const Walk *w); /* nothing without DELTA_CONV */
void delta_inputs_place(const Mixer *m, const Config *c, const Backend *be, MixerActs *a, Arena *arena, size_t N);
/* Fills a->qn, kn, vs. s holds the convolutions' tails when generating, else NULL. */
void delta_inputs_forward(const Mixer *m, const MixerCall *call, MixerActs *a, MixerState *s, const Real *x);
/* tmp[1], tmp[2], tmp[3] = gradients of a->qn, kn, vs (overwritten, like tmp[0]); dx (may be NULL) and parameter
 * gradients += ... */
void delta_inputs_backward(const Mixer *m, const MixerCall *call, MixerActs *a, Real *dx, const Real *x);
/* The state of every head, and the convolutions' tails. */
void delta_place_state(const Mixer *m, const Config *c, const Backend *be, MixerState *s, Arena *arena, int B,
                       int capacity, int step);

#endif
