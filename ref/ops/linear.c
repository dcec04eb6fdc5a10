/* linear.c - y = x W^T + b, W stored (O,I) as in checkpoints. */
#include "ops/ref_math.h"

static void linear_forward(real *y, const real *x, const real *w, const real *b, int N, int I, int O) {
    for (int n = 0; n < N; n++) {
        const real *x_n = x + (size_t)n * I;
        real *y_n = y + (size_t)n * O;
        for (int o = 0; o < O; o++) y_n[o] = dot(x_n, w + (size_t)o * I, I) + (b ? (wide)b[o] : 0);
    }
}

/* From y_no = sum_i x_ni w_oi + b_o, three sums, each element in a fixed order: over o, over n, over n. */
static void linear_backward(real *dx, wide *dw, wide *db, const real *dy, const real *x, const real *w, int N, int I,
                            int O) {
    for (int n = 0; n < N; n++) {
        const real *dy_n = dy + (size_t)n * O, *x_n = x + (size_t)n * I;
        for (int o = 0; o < O; o++) {
            const real *w_o = w + (size_t)o * I;
            if (dx)
                for (int i = 0; i < I; i++) dx[(size_t)n * I + i] += dy_n[o] * w_o[i];
            if (dw)
                for (int i = 0; i < I; i++) dw[(size_t)o * I + i] += dy_n[o] * x_n[i];
            if (db) db[o] += dy_n[o];
        }
    }
}
