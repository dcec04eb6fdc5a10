/* conv.c - short causal depthwise convolution: each channel sees its last W inputs, the newest under w_{c,W-1}. */
#include "ops/ref_math.h"

/* Input of channel c at time j; j < 0 reads the tail that an earlier call left (its W-1 rows are times -(W-1)..-1). */
static wide conv_input(const real *x_b, const real *tail_b, int j, int c, int C, int W) {
    if (j >= 0) return x_b[(size_t)j * C + c];
    return tail_b ? (wide)tail_b[(size_t)(j + W - 1) * C + c] : 0;
}

static void conv_forward(real *y, real *tail_out, const real *x, const real *w, const real *tail_in, const int *start,
                         int B, int T, int C, int W) {
    for (int b = 0; b < B; b++) {
        const real *x_b = x + (size_t)b * T * C, *tail_b = tail_in ? tail_in + (size_t)b * (W - 1) * C : NULL;
        for (int t = 0; t < T; t++) {
            const int first = start ? start[(size_t)b * T + t] : 0; // 0: the document may have begun before this call
            for (int c = 0; c < C; c++) {
                wide s = 0;
                for (int i = 0; i < W; i++) {
                    const int j = t - W + 1 + i;
                    if (j >= first || first == 0) s += (wide)w[(size_t)c * W + i] * conv_input(x_b, tail_b, j, c, C, W);
                }
                y[((size_t)b * T + t) * C + c] = s;
            }
        }
        if (tail_out) // row i is time T - (W-1) + i: upwards, so that tail_out may be tail_in
            for (int i = 0; i < W - 1; i++)
                for (int c = 0; c < C; c++)
                    tail_out[((size_t)b * (W - 1) + i) * C + c] = conv_input(x_b, tail_b, T - (W - 1) + i, c, C, W);
    }
}

static void conv_backward(real *dx, wide *dw, const real *dy, const real *x, const real *w, const int *start, int B,
                          int T, int C, int W) {
    for (int b = 0; b < B; b++)
        for (int t = 0; t < T; t++) {
            const int first = start ? start[(size_t)b * T + t] : 0;
            for (int c = 0; c < C; c++) {
                const wide dy_btc = dy[((size_t)b * T + t) * C + c];
                for (int i = 0; i < W; i++) {
                    const int j = t - W + 1 + i; // y_tc = sum_i w_{c,i} x_{jc}
                    if (j < first) continue;
                    const size_t bjc = ((size_t)b * T + j) * C + c;
                    if (dx) dx[bjc] += w[(size_t)c * W + i] * dy_btc;
                    if (dw) dw[(size_t)c * W + i] += dy_btc * x[bjc];
                }
            }
        }
}
