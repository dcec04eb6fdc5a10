/* mixer_linear.h - what all linear mixers share: projections named as the teacher's, and chunk states in and out. */
#ifndef HYB_MIXER_LINEAR_H
#define HYB_MIXER_LINEAR_H
#include "model/mixer.h"

/* q, k, v projections of H heads each: q copied from the teacher, k and v expanded from its Hk heads (ref/METHOD.md
 * 3.1).
 * */
int linear_walk_qkv(const Config *c, MixerParams *p, const Walk *w);
int linear_walk_o(const Config *c, MixerParams *p, const Walk *w);

DeltaDims linear_dims(const MixerCall *call);
/* Room for the states before each chunk, which only backward wants. */
Real *linear_states_place(const Backend *be, Arena *arena, const DeltaDims *d, int train);
/* The pass's scratch for a running state or its gradient, set to 0. */
Wide *linear_state_zero(const MixerCall *call);

/* Output side, shared by gdn and gla: y = W_o (gated) norm(o); gate may be absent (n == 0), and so may the norm. */
void linear_output_place(const Config *c, const Backend *be, MixerActs *a, Arena *arena, size_t N, int gate, int norm);
void linear_output_forward(const MixerCall *call, MixerActs *a, Real *y, const Real *x);
/* tmp[0] = dL/d o (zeroed first); uses tmp[1], tmp[2]; adds to dx through the gate, and to the parameters. */
void linear_output_backward(const MixerCall *call, MixerActs *a, Real *dx, const Real *dy, const Real *x);

#endif
