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
static void rms_block(const void *job, size_t b) {
    const Job *j = job;
    const size_t n = b * ROW_BLOCK, nc = n * j->C;
    rms_rows(j->out[0] + nc, j->out[1] + n, j->in[0] + nc, j->in[1], j->a, block_size(b, ROW_BLOCK, j->N), j->C);
}
static void rmsnorm_forward(float *y, float *rstd, const float *x, const float *w, double eps, int N, int C) {
    blocks_of_rows(rms_block, (Job){{y, rstd}, {x, w}, .N = N, .C = C, .a = (float)eps});
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
static void rms_block_backward(const void *job, size_t b) {
    const Job *j = job;
    const size_t n = b * ROW_BLOCK, nc = n * j->C;
    rms_rows_backward(j->out[0] + nc, j->in[0] + nc, j->in[1] + nc, j->in[2], j->in[3] + n, block_size(b, ROW_BLOCK, j->N), j->C);
}
/* dw += sum_n dy x rstd */
static void rms_columns(const void *job, size_t b) {
    const Job *j = job;
    const size_t from = b * j->block, n = block_size(b, j->block, j->C);
    float sums[COLUMN_MOST] = {0};
    for (size_t i = 0; i < j->N; i++) {
        const float *dy = j->in[0] + i * j->C + from, *x = j->in[1] + i * j->C + from;
        const vf r = vset(j->in[3][i]);
        for (size_t c = 0; c < n; c += VW) vstore(sums + c, vfma(vget(dy + c, n - c), vget(x + c, n - c) * r, vload(sums + c)));
    }
    for (size_t c = 0; c < n; c++) j->out[1][from + c] += sums[c];
}
static void rmsnorm_backward(float *dx, float *dw, const float *dy, const float *x, const float *w, const float *rstd, int N, int C) {
    const Job j = {{dx, dw}, {dy, x, w, rstd}, .N = N, .C = C};
    if (dx) blocks_of_rows(rms_block_backward, j);
    if (dw) blocks_of_columns(rms_columns, j);
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
static void gated_block(const void *job, size_t b) {
    const Job *j = job;
    const size_t n = b * ROW_BLOCK, nc = n * j->C;
    gated_rows(j->out[0] + nc, j->out[1] + n, j->in[0] + nc, j->in[1] + nc, j->in[2], j->a, block_size(b, ROW_BLOCK, j->N), j->C);
}
static void gated_rmsnorm_forward(float *y, float *rstd, const float *x, const float *z, const float *w, double eps, int N, int C) {
    blocks_of_rows(gated_block, (Job){{y, rstd}, {x, z, w}, .N = N, .C = C, .a = (float)eps});
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
static void gated_block_backward(const void *job, size_t b) {
    const Job *j = job;
    for (size_t i = 0, n = b * ROW_BLOCK; i < block_size(b, ROW_BLOCK, j->N); i++, n++) {
        const size_t nc = n * j->C;
        gated_row_backward(j->out[0] + nc, j->out[1] + nc, j->in[0] + nc, j->in[1] + nc, j->in[2] + nc, j->in[3], j->in[4][n], j->C);
    }
}
static void gated_columns(const void *job, size_t b) {
    const Job *j = job;
    const size_t from = b * j->block, n = block_size(b, j->block, j->C);
    float sums[COLUMN_MOST] = {0};
    for (size_t i = 0; i < j->N; i++) {
        const size_t first = i * j->C + from;
        const vf r = vset(j->in[4][i]);
        for (size_t c = 0; c < n; c += VW) {
            const size_t k = n - c;
            const vf g = vget(j->in[2] + first + c, k), x = vget(j->in[1] + first + c, k) * (g * vsigmoid(g));
            vstore(sums + c, vfma(vget(j->in[0] + first + c, k) * r, x, vload(sums + c)));
        }
    }
    for (size_t c = 0; c < n; c++) j->out[2][from + c] += sums[c];
}
static void gated_rmsnorm_backward(float *dx, float *dz, float *dw, const float *dy, const float *x, const float *z, const float *w,
                                   const float *rstd, int N, int C) {
    const Job j = {{dx, dz, dw}, {dy, x, z, w, rstd}, .N = N, .C = C};
    blocks_of_rows(gated_block_backward, j);
    if (dw) blocks_of_columns(gated_columns, j);
}
