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
static void conv_forward(float *y, float *tail_out, const float *x, const float *w, const float *tail_in, const int *start, int B, int T,
                         int C, int W) {
    const size_t lanes = ((size_t)C + VW - 1) / VW, tail = (size_t)(W - 1) * C;
#pragma omp parallel for if ((size_t)B * T * C > ALONE)
    for (size_t u = 0; u < B * lanes; u++) {
        const size_t b = u / lanes, c = u % lanes * VW, at = b * T * C + c;
        conv_lane(y + at, x + at, w + c * W, tail_in ? tail_in + b * tail + c : NULL, start ? start + b * T : NULL, T, C, W,
                  C - c < VW ? C - c : VW);
    }
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
static void conv_backward_channels(float *dx, float *dw, const float *dy, const float *x, const float *w, const int *start, int B, int T,
                                   size_t C, int W, size_t n) {
    float taps[TAPS][VW], sums[TAPS][VW];
    taps_load(taps, w, n, W);
    memset(sums, 0, sizeof sums);
    for (size_t b = 0; b < (size_t)B; b++) {
        const size_t at = b * T * C;
        conv_lane_backward(dx ? dx + at : NULL, dw ? sums : NULL, dy + at, x + at, taps, start ? start + b * T : NULL, T, C, W, n);
    }
    for (size_t c = 0; dw && c < n; c++)
        for (int i = 0; i < W; i++) dw[c * W + i] += sums[i][c];
}
static void conv_backward(float *dx, float *dw, const float *dy, const float *x, const float *w, const int *start, int B, int T, int C,
                          int W) {
#pragma omp parallel for if ((size_t)B * T * C > ALONE)
    for (size_t c = 0; c < (size_t)C; c += VW)
        conv_backward_channels(dx ? dx + c : NULL, dw ? dw + c * W : NULL, dy + c, x + c, w + c * W, start, B, T, C, W,
                               C - c < VW ? C - c : VW);
}
