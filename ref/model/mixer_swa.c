/* mixer_swa.c - sliding-window softmax attention, swa_v1: the student that forgets by distance alone (ref/METHOD.md
 * 6.5; the sliding-window figure of the paper).
 *
 * Softmax attention in which query i sees key j when 0 <= i - j < swa_window; projections, biases, q/k norm and rope
 * are the teacher's, so stage 1 begins at the teacher wherever a text is shorter than the window.
 * Its cache is bounded by the window, as a linear mixer's state is by its heads. */
#include "model/mixer_softmax.h"

const Mixer mixer_swa_v1 = {
    .name = "swa_v1",
    .label = "sliding-window softmax attention",
    .flags = SOFTMAX_SWA,
    .walk = softmax_walk,
    .place = softmax_place,
    .work = softmax_work,
    .forward = softmax_forward,
    .backward = softmax_backward,
    .place_state = softmax_place_state,
    .extend = softmax_extend,
};
