/* conv.c - short causal convolution: blocks of channels walk along T; (batch, channels) in parallel forward,
 * channels backward. */
#include "parallel.h"

enum { TAPS = 8, CHANNELS = 128 };

typedef struct {
    real *y, *dx;
    float *dw;
    const real *x, *dy, *w, *tail;
    const int *start;
    size_t B, T, C, W;
} ConvJob;

/* taps[i][c] = w[c][i] for n channels */
static void taps_load(float taps[TAPS][CHANNELS], const real *w, size_t n, size_t W) {
    for (size_t c = 0; c < n; c++)
        for (size_t i = 0; i < W; i++) taps[i][c] = get1(w[c * W + i]);
    for (size_t c = n; c < CHANNELS && c < n + VW; c++)
        for (size_t i = 0; i < W; i++) taps[i][c] = 0;
}
INLINE size_t conv_first(const ConvJob *j, size_t b, size_t t) { return j->start ? (size_t)j->start[b * j->T + t] : 0; }

/* y_t = sum_i w_i x_{t-W+1+i}; the tail's rows are times -(W-1)..-1 and belong to a document that began before. */
static void conv_task(const void *job, size_t u) {
    const ConvJob *j = job;
    const size_t C = j->C, W = j->W, blocks = (C + CHANNELS - 1) / CHANNELS, b = u / blocks, c0 = u % blocks * CHANNELS;
    const size_t n = C - c0 < CHANNELS ? C - c0 : CHANNELS;
    float taps[TAPS][CHANNELS];
    taps_load(taps, j->w + c0 * W, n, W);
    for (size_t t = 0; t < j->T; t++) {
        const size_t first = conv_first(j, b, t), known = first == 0 && j->tail ? W - 1 : t - first; // inputs before t
        for (size_t c = 0; c < n; c += VW) {
            const size_t k = n - c;
            vf s = vset(0);
            for (size_t i = known < W - 1 ? W - 1 - known : 0; i < W; i++) {
                const size_t back = W - 1 - i; // how far before t
                const real *x =
                    back <= t ? j->x + (b * j->T + t - back) * C : j->tail + (b * (W - 1) + (W - 1 + t - back)) * C;
                s = vfma(vload(taps[i] + c), vget(x + c0 + c, k), s);
            }
            vput(j->y + (b * j->T + t) * C + c0 + c, s, k);
        }
    }
}
/* The last W-1 inputs; tail_out may be tail_in, so earlier rows of it are read before they are written. */
static void tail_move(real *out, const real *x, const real *in, size_t T, size_t C, size_t W) {
    for (size_t i = 0; i + 1 < W; i++) { // row i is time T - (W-1) + i
        const real *from = T + i >= W - 1 ? x + (T + i - (W - 1)) * C : in ? in + (T + i) * C : NULL;
        if (from) memmove(out + i * C, from, C * sizeof *out);
        else memset(out + i * C, 0, C * sizeof *out);
    }
}
static void conv_forward(real *y, real *tail_out, const real *x, const real *w, const real *tail_in, const int *start,
                         int B, int T, int C, int W) {
    const size_t blocks = ((size_t)C + CHANNELS - 1) / CHANNELS, tail = (size_t)(W - 1) * C;
    const ConvJob j = {.y = y, .x = x, .w = w, .tail = tail_in, .start = start, .B = B, .T = T, .C = C, .W = W};
    pool_run_if((size_t)B * T * C > ALONE, B * blocks, conv_task, &j);
    for (size_t b = 0; tail_out && b < (size_t)B; b++)
        tail_move(tail_out + b * tail, x + b * T * C, at(tail_in, b * tail), T, C, W);
}

/* One row t of n channels: dx_t += sum_back w_{W-1-back} dy_{t+back}, back < ahead, and dw_{W-1-back} += dy_t
 * x_{t-back}, back < behind. */
INLINE void conv_row_backward(real *dx, float sums[TAPS][CHANNELS], const real *dy, const real *x,
                              float taps[TAPS][CHANNELS], size_t C, size_t n, size_t W, size_t ahead, size_t behind) {
    for (size_t c = 0; c < n; c += VW) {
        const size_t k = n - c;
        vf s = vset(0), d = vget(dy + c, k);
        for (size_t back = 0; dx && back < ahead; back++)
            s = vfma(vload(taps[W - 1 - back] + c), back ? vget(dy + back * C + c, k) : d, s);
        if (dx) vput(dx + c, vget(dx + c, k) + s, k);
        for (size_t back = 0; x && back < behind; back++)
            vstore(sums[W - 1 - back] + c, vfma(d, vget(x - back * C + c, k), vload(sums[W - 1 - back] + c)));
    }
}
/* n channels, all batch elements in order */
static void conv_backward_task(const void *job, size_t block) {
    const ConvJob *j = job;
    const size_t C = j->C, W = j->W, lanes = C < 2 * CHANNELS ? VW : CHANNELS, c0 = block * lanes,
                 n = C - c0 < lanes ? C - c0 : lanes;
    float taps[TAPS][CHANNELS], sums[TAPS][CHANNELS];
    taps_load(taps, j->w + c0 * W, n, W);
    memset(sums, 0, sizeof sums);
    for (size_t b = 0; b < j->B; b++)
        for (size_t t = 0; t < j->T; t++) {
            const size_t known = t - conv_first(j, b, t), row = (b * j->T + t) * C + c0;
            size_t ahead = 1; // rows from t on that still see row t
            while (ahead < W && t + ahead < j->T && conv_first(j, b, t + ahead) <= t) ahead++;
            conv_row_backward(at(j->dx, row), sums, j->dy + row, j->dw ? j->x + row : NULL, taps, C, n, W, ahead,
                              known + 1 < W ? known + 1 : W);
        }
    for (size_t c = 0; j->dw && c < n; c++)
        for (size_t i = 0; i < W; i++) j->dw[(c0 + c) * W + i] += sums[i][c];
}
static void conv_backward(real *dx, float *dw, const real *dy, const real *x, const real *w, const int *start, int B,
                          int T, int C, int W) {
    const ConvJob j = {.dx = dx, .dw = dw, .dy = dy, .x = x, .w = w, .start = start, .B = B, .T = T, .C = C, .W = W};
    const size_t lanes = C < 2 * CHANNELS ? VW : CHANNELS;
    pool_run_if((size_t)B * T * C > ALONE, (C + lanes - 1) / lanes, conv_backward_task, &j);
}
