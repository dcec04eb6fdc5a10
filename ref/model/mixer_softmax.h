/* mixer_softmax.h - softmax attention, shared by the rows that differ only in their window. */
#ifndef HYB_MIXER_SOFTMAX_H
#define HYB_MIXER_SOFTMAX_H
#include "model/mixer.h"

enum { SOFTMAX_SWA = 1 }; /* Mixer.flags: the window is Config.swa_window, not Config.window */

int softmax_walk(const Mixer *m, const Config *c, MixerParams *p, const Walk *w);
void softmax_place(const Mixer *m, const Config *c, const Backend *be, MixerActs *a, Arena *arena, int B, int T,
                   int chunk, int train);
size_t softmax_work(const Mixer *m, const Config *c, int B, int T, int chunk);
void softmax_forward(const Mixer *m, const MixerCall *call, MixerActs *a, Real *y, const Real *x);
void softmax_backward(const Mixer *m, const MixerCall *call, MixerActs *a, Real *dx, const Real *dy, const Real *x);
void softmax_place_state(const Mixer *m, const Config *c, const Backend *be, MixerState *s, Arena *arena, int B,
                         int capacity, int step);
void softmax_extend(const Mixer *m, const MixerCall *call, MixerActs *a, MixerState *s, Real *y, const Real *x,
                    int past);

#endif
