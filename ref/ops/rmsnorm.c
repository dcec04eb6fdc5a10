/* rmsnorm.c - RMSNorm (Zhang & Sennrich 2019), and the gated forms at the end of a linear mixer:
 * gate SiLU (GDN, GLA) or sigmoid (KDA). */
#include "ops/ref_math.h" /* and add.c, before this file in ref_ops.c */

static wide rms_reciprocal(const real *x_n, double eps, int C) { return 1 / sqrt(dot(x_n, x_n, C) / C + (wide)eps); }

static void rmsnorm_forward(real *y, wide *rstd, const real *x, const real *w, double eps, int N, int C) {
    for (int n = 0; n < N; n++) {
        const real *x_n = x + (size_t)n * C;
        real *y_n = y + (size_t)n * C;
        rstd[n] = rms_reciprocal(x_n, eps, C);
        for (int c = 0; c < C; c++) y_n[c] = x_n[c] * rstd[n] * w[c];
    }
}

static void add_rmsnorm_forward(real *sum, real *y, wide *rstd, const real *a, const real *b, const real *w, double eps,
                                int N, int C) {
    add(sum, a, b, (size_t)N * C);
    rmsnorm_forward(y, rstd, sum, w, eps, N, C);
}

static void rmsnorm_backward(real *dx, wide *dw, const real *dy, const real *x, const real *w, const wide *rstd, int N,
                             int C) {
    for (int n = 0; n < N; n++) {
        const real *x_n = x + (size_t)n * C, *dy_n = dy + (size_t)n * C;
        const wide r = rstd[n];
        wide mean = 0; // mean_c (t n), with n = x rstd and t = dy w the gradient of n
        for (int c = 0; c < C; c++) mean += dy_n[c] * w[c] * x_n[c] * r;
        mean /= C;
        for (int c = 0; c < C; c++) {
            const wide norm = x_n[c] * r;
            if (dw) dw[c] += dy_n[c] * norm; // from y = n w
            // from n = x rstd, where rstd = (mean x^2 + eps)^{-1/2} moves with every x: d rstd / dx_c = -rstd^2 n_c / C
            if (dx) dx[(size_t)n * C + c] += r * (dy_n[c] * w[c] - norm * mean);
        }
    }
}

static void gated_rmsnorm_forward(real *y, wide *rstd, const real *x, const real *z, const real *w, double eps, int N,
                                  int C) {
    for (int n = 0; n < N; n++) {
        const real *x_n = x + (size_t)n * C, *z_n = z + (size_t)n * C;
        real *y_n = y + (size_t)n * C;
        rstd[n] = rms_reciprocal(x_n, eps, C);
        for (int c = 0; c < C; c++) y_n[c] = x_n[c] * rstd[n] * w[c] * z_n[c] * sigmoid(z_n[c]);
    }
}

static void gated_rmsnorm_backward(real *dx, real *dz, wide *dw, const real *dy, const real *x, const real *z,
                                   const real *w, const wide *rstd, int N, int C) {
    for (int n = 0; n < N; n++) {
        const real *x_n = x + (size_t)n * C, *z_n = z + (size_t)n * C, *dy_n = dy + (size_t)n * C;
        real *dx_n = dx + (size_t)n * C, *dz_n = dz + (size_t)n * C;
        const wide r = rstd[n];
        wide mean = 0; // as in rmsnorm, with t = dy w z s
        for (int c = 0; c < C; c++) mean += dy_n[c] * w[c] * z_n[c] * sigmoid(z_n[c]) * x_n[c] * r;
        mean /= C;
        for (int c = 0; c < C; c++) {
            const wide norm = x_n[c] * r, s = sigmoid(z_n[c]), gate = z_n[c] * s;
            if (dw) dw[c] += dy_n[c] * norm * gate;
            dz_n[c] += dy_n[c] * norm * w[c] * s * (1 + z_n[c] * (1 - s)); // d(z s)/dz = s + z s (1 - s)
            dx_n[c] += r * (dy_n[c] * w[c] * gate - norm * mean);
        }
    }
}

static void sigmoid_rmsnorm_forward(real *y, wide *rstd, const real *x, const real *z, const real *w, double eps, int N,
                                    int C) {
    for (int n = 0; n < N; n++) {
        const real *x_n = x + (size_t)n * C, *z_n = z + (size_t)n * C;
        rstd[n] = rms_reciprocal(x_n, eps, C);
        for (int c = 0; c < C; c++) y[(size_t)n * C + c] = x_n[c] * rstd[n] * w[c] * sigmoid(z_n[c]);
    }
}

static void sigmoid_rmsnorm_backward(real *dx, real *dz, wide *dw, const real *dy, const real *x, const real *z,
                                     const real *w, const wide *rstd, int N, int C) {
    for (int n = 0; n < N; n++) {
        const real *x_n = x + (size_t)n * C, *z_n = z + (size_t)n * C, *dy_n = dy + (size_t)n * C;
        const wide r = rstd[n];
        wide mean = 0; // as in rmsnorm, with t = dy w s
        for (int c = 0; c < C; c++) mean += dy_n[c] * w[c] * sigmoid(z_n[c]) * x_n[c] * r;
        mean /= C;
        for (int c = 0; c < C; c++) {
            const wide norm = x_n[c] * r, s = sigmoid(z_n[c]), shut = sigmoid(-(wide)z_n[c]); // 1 - s, no cancellation
            if (dw) dw[c] += dy_n[c] * norm * s;
            dz[(size_t)n * C + c] += dy_n[c] * norm * w[c] * s * shut;
            dx[(size_t)n * C + c] += r * (dy_n[c] * w[c] * s - norm * mean);
        }
    }
}
