/* l2norm.c - rows of length one: queries and keys of Gated DeltaNet. eps stands inside the root. */
#include "ops/ref_math.h"

static void l2norm_forward(real *y, wide *r, const real *x, double eps, int N, int C) {
    for (int n = 0; n < N; n++) {
        const real *x_n = x + (size_t)n * C;
        real *y_n = y + (size_t)n * C;
        r[n] = 1 / sqrt(dot(x_n, x_n, C) + (wide)eps);
        for (int c = 0; c < C; c++) y_n[c] = x_n[c] * r[n];
    }
}

static void l2norm_backward(real *dx, const real *dy, const real *y, const wide *r, int N, int C) {
    for (int n = 0; n < N; n++) {
        const real *dy_n = dy + (size_t)n * C, *y_n = y + (size_t)n * C;
        real *dx_n = dx + (size_t)n * C;
        const wide along = dot(dy_n, y_n, C); // d r / dx_c = -r^2 y_c: what points along y only changes the length
        for (int c = 0; c < C; c++) dx_n[c] += r[n] * (dy_n[c] - y_n[c] * along);
    }
}
