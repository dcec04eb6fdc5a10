/* conv.c - short causal convolution: VW channels at a time walk along T; (batch, channel block) forward, channel block backward. */
#include "parallel.h"

enum { TAPS = 8 };

/* taps[i][lane] = w[c + lane][i] */
static void taps_load(float taps[TAPS][VW], const float *w, size_t n, int W) {
    memset(taps, 0, sizeof(float[TAPS][VW]));
    for (size_t c = 0; c < n; c++)
        for (int i = 0; i < W; i++) taps[i][c] = w[c * W + i];
}

/* n <= VW channels of one batch element; tail: rows -(W-1)..-1, or NULL */
static void conv_lane(float *y, const float *x, const float *w, const float *tail, const int *start, int T, size_t C, int W, size_t n) {
    float taps[TAPS][VW];
    taps_load(taps, w, n, W);
    for (int t = 0; t < T; t++) {
        const int first = start ? start[t] : 0, from = first > 0 || !tail ? first : -(W - 1);
        vf s = vset(0);
        for (int i = 0; i < W; i++) {
            const int j = t - W + 1 + i;
            if (j < from) continue;
            s = vfma(vload(taps[i]), vget(j >= 0 ? x + j * C : tail + (j + W - 1) * C, n), s);
        }
        vput(y + t * C, s, n);
    }
}
/* The last W-1 inputs; tail_out may be tail_in, so earlier rows of it are read before they are written. */
static void tail_move(float *out, const float *x, const float *in, int T, size_t C, int W) {
    for (int i = 0; i < W - 1; i++) {
        const int j = T - (W - 1) + i;
        const float *from = j >= 0 ? x + j * C : in ? in + (j + W - 1) * C : NULL;
        if (from) memmove(out + i * C, from, C * sizeof *out);
        else memset(out + i * C, 0, C * sizeof *out);
    }
}
typedef struct {
    float *y, *dx, *dw;
    const float *x, *dy, *w, *tail;
    const int *start;
    size_t B, T, C, W;
} ConvJob;

static void conv_task(const void *job, size_t u) {
    const ConvJob *j = job;
    const size_t lanes = (j->C + VW - 1) / VW, b = u / lanes, c = u % lanes * VW, first = b * j->T * j->C + c;
    conv_lane(j->y + first, j->x + first, j->w + c * j->W, at_const(j->tail, b * (j->W - 1) * j->C + c), j->start ? j->start + b * j->T : NULL,
              (int)j->T, j->C, (int)j->W, j->C - c < VW ? j->C - c : VW);
}
static void conv_forward(float *y, float *tail_out, const float *x, const float *w, const float *tail_in, const int *start, int B, int T,
                         int C, int W) {
    const size_t lanes = ((size_t)C + VW - 1) / VW, tail = (size_t)(W - 1) * C;
    const ConvJob j = {.y = y, .x = x, .w = w, .tail = tail_in, .start = start, .B = B, .T = T, .C = C, .W = W};
    pool_run_if((size_t)B * T * C > ALONE, B * lanes, conv_task, &j);
    for (int b = 0; tail_out && b < B; b++)
        tail_move(tail_out + b * tail, x + (size_t)b * T * C, tail_in ? tail_in + b * tail : NULL, T, C, W);
}

/* dx_j += w_i dy_t and dw_i += dy_t x_j with j = t-W+1+i, of n <= VW channels of one batch element */
static void conv_lane_backward(float *dx, float sums[TAPS][VW], const float *dy, const float *x, float taps[TAPS][VW], const int *start,
                               int T, size_t C, int W, size_t n) {
    for (int t = 0; t < T; t++) {
        const int first = start ? start[t] : 0;
        const vf d = vget(dy + t * C, n);
        for (int i = 0; i < W; i++) {
            const int j = t - W + 1 + i;
            if (j < first) continue;
            if (dx) vput(dx + j * C, vfma(vload(taps[i]), d, vget(dx + j * C, n)), n);
            if (sums) vstore(sums[i], vfma(d, vget(x + j * C, n), vload(sums[i])));
        }
    }
}
static void conv_backward_task(const void *job, size_t lane) {
    const ConvJob *j = job;
    const size_t c = lane * VW, n = j->C - c < VW ? j->C - c : VW;
    float taps[TAPS][VW], sums[TAPS][VW];
    taps_load(taps, j->w + c * j->W, n, (int)j->W);
    memset(sums, 0, sizeof sums);
    for (size_t b = 0; b < j->B; b++) {
        const size_t first = b * j->T * j->C + c;
        conv_lane_backward(at(j->dx, first), j->dw ? sums : NULL, j->dy + first, j->x + first, taps, j->start ? j->start + b * j->T : NULL,
                           (int)j->T, j->C, (int)j->W, n);
    }
    for (size_t k = 0; j->dw && k < n; k++)
        for (size_t i = 0; i < j->W; i++) j->dw[(c + k) * j->W + i] += sums[i][k];
}
static void conv_backward(float *dx, float *dw, const float *dy, const float *x, const float *w, const int *start, int B, int T, int C,
                          int W) {
    const ConvJob j = {.dx = dx, .dw = dw, .dy = dy, .x = x, .w = w, .start = start, .B = B, .T = T, .C = C, .W = W};
    pool_run_if((size_t)B * T * C > ALONE, ((size_t)C + VW - 1) / VW, conv_backward_task, &j);
}
