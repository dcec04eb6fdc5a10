/* rmsnorm.c - rmsnorm and gated_rmsnorm. Rows are shared in blocks for what belongs to a row; the weight's gradient is shared
 * by blocks of columns, each summed over all rows in order. */
#include "parallel.h"
#include <math.h>

static void rms_rows(float *y, float *rstd, const float *x, const float *w, float eps, size_t N, size_t C) {
    for (size_t n = 0; n < N; n++, x += C, y += C) {
        const float r = 1 / sqrtf(row_dot(x, x, C) / (float)C + eps);
        rstd[n] = r;
        for (size_t c = 0; c < C; c += VW) vput(y + c, vget(x + c, C - c) * vset(r) * vget(w + c, C - c), C - c);
    }
}
static void rmsnorm_forward(float *y, float *rstd, const float *x, const float *w, double eps, int N, int C) {
#pragma omp parallel for if ((size_t)N * C > ALONE)
    for (size_t b = 0; b < row_blocks(N); b++) {
        const size_t n = b * ROW_BLOCK;
        rms_rows(y + n * C, rstd + n, x + n * C, w, (float)eps, block_size(b, ROW_BLOCK, N), C);
    }
}

/* dx += rstd (t - n mean(t n)) with t = dy w, n = x rstd */
static void rms_rows_backward(float *dx, const float *dy, const float *x, const float *w, const float *rstd, size_t N, size_t C) {
    for (size_t i = 0; i < N; i++, dx += C, dy += C, x += C) {
        vf s = vset(0);
        for (size_t c = 0; c < C; c += VW) s = vfma(vget(dy + c, C - c) * vget(w + c, C - c), vget(x + c, C - c), s);
        const float r = rstd[i], k = vsum(s) * r * r / (float)C;
        for (size_t c = 0; c < C; c += VW) {
            const vf t = vget(dy + c, C - c) * vget(w + c, C - c);
            vput(dx + c, vfma(vset(r), vfnma(vget(x + c, C - c), vset(k), t), vget(dx + c, C - c)), C - c);
        }
    }
}
/* dw += sum_n dy x rstd over n columns, n <= COLUMN_BLOCK */
static void rms_columns(float *dw, const float *dy, const float *x, const float *rstd, size_t N, size_t C, size_t n) {
    for (size_t c = 0; c < n; c += VW) {
        vf s = vset(0);
        for (size_t i = 0; i < N; i++) s = vfma(vget(dy + i * C + c, n - c), vget(x + i * C + c, n - c) * vset(rstd[i]), s);
        vput(dw + c, vget(dw + c, n - c) + s, n - c);
    }
}
static void rmsnorm_backward(float *dx, float *dw, const float *dy, const float *x, const float *w, const float *rstd, int N, int C) {
#pragma omp parallel if ((size_t)N * C > ALONE)
    {
#pragma omp for nowait
        for (size_t b = 0; b < (dx ? row_blocks(N) : 0); b++) {
            const size_t n = b * ROW_BLOCK;
            rms_rows_backward(dx + n * C, dy + n * C, x + n * C, w, rstd + n, block_size(b, ROW_BLOCK, N), C);
        }
#pragma omp for
        for (size_t b = 0; b < (dw ? column_blocks(C) : 0); b++) {
            const size_t c = b * COLUMN_BLOCK;
            rms_columns(dw + c, dy + c, x + c, rstd, N, C, block_size(b, COLUMN_BLOCK, C));
        }
    }
}

static void gated_rows(float *y, float *rstd, const float *x, const float *z, const float *w, float eps, size_t N, size_t C) {
    for (size_t n = 0; n < N; n++, x += C, y += C, z += C) {
        const float r = 1 / sqrtf(row_dot(x, x, C) / (float)C + eps);
        rstd[n] = r;
        for (size_t c = 0; c < C; c += VW) {
            const vf g = vget(z + c, C - c);
            vput(y + c, vget(x + c, C - c) * vset(r) * vget(w + c, C - c) * (g * vsigmoid(g)), C - c);
        }
    }
}
static void gated_rmsnorm_forward(float *y, float *rstd, const float *x, const float *z, const float *w, double eps, int N, int C) {
#pragma omp parallel for if ((size_t)N * C > ALONE)
    for (size_t b = 0; b < row_blocks(N); b++) {
        const size_t n = b * ROW_BLOCK;
        gated_rows(y + n * C, rstd + n, x + n * C, z + n * C, w, (float)eps, block_size(b, ROW_BLOCK, N), C);
    }
}

/* One row: t = dy w z s goes to `t` first, so that the sigmoid is taken once. */
static void gated_row_backward(float *dx, float *dz, const float *dy, const float *x, const float *z, const float *w, float r, size_t C) {
    vf dot = vset(0);
    for (size_t c = 0; c < C; c += VW) {
        const size_t k = C - c;
        const vf g = vget(z + c, k), s = vsigmoid(g), d = vget(dy + c, k) * vget(w + c, k), v = vget(x + c, k);
        dot = vfma(d * (g * s), v, dot);
        vput(dz + c, vfma(d * v * vset(r), s * vfma(g, vset(1) - s, vset(1)), vget(dz + c, k)), k);
    }
    const float m = vsum(dot) * r * r / (float)C;
    for (size_t c = 0; c < C; c += VW) {
        const size_t k = C - c;
        const vf g = vget(z + c, k), t = vget(dy + c, k) * vget(w + c, k) * (g * vsigmoid(g));
        vput(dx + c, vfma(vset(r), vfnma(vget(x + c, k), vset(m), t), vget(dx + c, k)), k);
    }
}
static void gated_columns(float *dw, const float *dy, const float *x, const float *z, const float *rstd, size_t N, size_t C, size_t n) {
    for (size_t c = 0; c < n; c += VW) {
        vf s = vset(0);
        for (size_t i = 0; i < N; i++) {
            const size_t at = i * C + c;
            const vf g = vget(z + at, n - c);
            s = vfma(vget(dy + at, n - c) * vset(rstd[i]), vget(x + at, n - c) * (g * vsigmoid(g)), s);
        }
        vput(dw + c, vget(dw + c, n - c) + s, n - c);
    }
}
static void gated_rmsnorm_backward(float *dx, float *dz, float *dw, const float *dy, const float *x, const float *z, const float *w,
                                   const float *rstd, int N, int C) {
#pragma omp parallel if ((size_t)N * C > ALONE)
    {
#pragma omp for nowait
        for (int n = 0; n < N; n++) {
            const size_t at = (size_t)n * C;
            gated_row_backward(dx + at, dz + at, dy + at, x + at, z + at, w, rstd[n], C);
        }
#pragma omp for
        for (size_t b = 0; b < (dw ? column_blocks(C) : 0); b++) {
            const size_t c = b * COLUMN_BLOCK;
            gated_columns(dw + c, dy + c, x + c, z + c, rstd, N, C, block_size(b, COLUMN_BLOCK, C));
        }
    }
}
