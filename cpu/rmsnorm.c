/* rmsnorm.c - rmsnorm, and with an output gate gated_rmsnorm and sigmoid_rmsnorm. Rows are shared in blocks for what
 * belongs to a row; the weight's gradient is shared by blocks of columns, each summed over all rows in order. */
#include "parallel.h"
#include <math.h>

static void rms_rows(real *y, float *rstd, const real *x, const real *w, float eps, size_t N, size_t C) {
    for (size_t n = 0; n < N; n++, x += C, y += C) {
        const float r = 1 / sqrtf(row_dot(x, x, C) / (float)C + eps);
        rstd[n] = r;
        for (size_t c = 0; c < C; c += VW) vput(y + c, vget(x + c, C - c) * vset(r) * vget(w + c, C - c), C - c);
    }
}
static void rms_block(const void *job, size_t b) {
    const Job *j = job;
    const size_t n = b * ROW_BLOCK, nc = n * j->C;
    rms_rows(j->out[0] + nc, j->wout[0] + n, j->in[0] + nc, j->in[1], j->a, block_size(b, ROW_BLOCK, j->N), j->C);
}
static void rmsnorm_forward(real *y, float *rstd, const real *x, const real *w, double eps, int N, int C) {
    blocks_of_rows(rms_block, (Job){.out = {y}, .wout = {rstd}, .in = {x, w}, .N = N, .C = C, .a = (float)eps});
}

/* A row is normed while its sum is in the cache. */
static void add_rms_block(const void *job, size_t b) {
    const Job *j = job;
    const size_t C = j->C;
    for (size_t i = 0, n = b * ROW_BLOCK; i < block_size(b, ROW_BLOCK, j->N); i++, n++) {
        real *sum = j->out[0] + n * C;
        for (size_t c = 0; c < C; c += VW)
            vput(sum + c, vget(j->in[0] + n * C + c, C - c) + vget(j->in[1] + n * C + c, C - c), C - c);
        rms_rows(j->out[1] + n * C, j->wout[0] + n, sum, j->in[2], j->a, 1, C);
    }
}
static void add_rmsnorm_forward(real *sum, real *y, float *rstd, const real *a, const real *b, const real *w,
                                double eps, int N, int C) {
    blocks_of_rows(add_rms_block,
                   (Job){.out = {sum, y}, .wout = {rstd}, .in = {a, b, w}, .N = N, .C = C, .a = (float)eps});
}

/* dx += rstd (t - n mean(t n)) with t = dy w, n = x rstd */
static void rms_rows_backward(real *dx, const real *dy, const real *x, const real *w, const float *rstd, size_t N,
                              size_t C) {
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
    rms_rows_backward(j->out[0] + nc, j->in[0] + nc, j->in[1] + nc, j->in[2], j->win[0] + n,
                      block_size(b, ROW_BLOCK, j->N), j->C);
}
/* dw += sum_n dy x rstd */
static void rms_columns(const void *job, size_t b) {
    const Job *j = job;
    const size_t from = b * j->block, n = block_size(b, j->block, j->C);
    float sums[COLUMN_MOST] = {0};
    for (size_t i = 0; i < j->N; i++) {
        const real *dy = j->in[0] + i * j->C + from, *x = j->in[1] + i * j->C + from;
        const vf r = vset(j->win[0][i]);
        for (size_t c = 0; c < n; c += VW)
            vstore(sums + c, vfma(vget(dy + c, n - c), vget(x + c, n - c) * r, vload(sums + c)));
    }
    for (size_t c = 0; c < n; c++) j->wout[0][from + c] += sums[c];
}
static void rmsnorm_backward(real *dx, float *dw, const real *dy, const real *x, const real *w, const float *rstd,
                             int N, int C) {
    const Job j = {.out = {dx}, .wout = {dw}, .in = {dy, x, w}, .win = {rstd}, .N = N, .C = C};
    if (dx) blocks_of_rows(rms_block_backward, j);
    if (dw) blocks_of_columns(rms_columns, j);
}

/* ---- y = x rstd w gate(z): SiLU, or the sigmoid alone ---- */

INLINE vf out_gate(vf z, int silu) {
    const vf s = vsigmoid(z);
    return silu ? z * s : s;
}
INLINE vf out_gate_slope(vf z, int silu) { // 1 - s of the sigmoid as sigmoid(-z): no cancellation
    const vf s = vsigmoid(z);
    return s * (silu ? vfma(z, vset(1) - s, vset(1)) : vsigmoid(vset(0) - z));
}

INLINE void gated_rows(const Job *j, size_t b, int silu) {
    for (size_t i = 0, n = b * ROW_BLOCK, C = j->C; i < block_size(b, ROW_BLOCK, j->N); i++, n++) {
        const real *x = j->in[0] + n * C, *z = j->in[1] + n * C, *w = j->in[2];
        const float r = 1 / sqrtf(row_dot(x, x, C) / (float)C + j->a);
        j->wout[0][n] = r;
        for (size_t c = 0; c < C; c += VW) {
            const size_t k = C - c;
            vput(j->out[0] + n * C + c, vget(x + c, k) * vset(r) * vget(w + c, k) * out_gate(vget(z + c, k), silu), k);
        }
    }
}

INLINE void gated_row_backward(real *dx, real *dz, const real *dy, const real *x, const real *z, const real *w, float r,
                               size_t C, int silu) {
    vf dot = vset(0);
    for (size_t c = 0; c < C; c += VW) {
        const size_t k = C - c;
        const vf g = vget(z + c, k), d = vget(dy + c, k) * vget(w + c, k), v = vget(x + c, k);
        dot = vfma(d * out_gate(g, silu), v, dot);
        vput(dz + c, vfma(d * v * vset(r), out_gate_slope(g, silu), vget(dz + c, k)), k);
    }
    const float m = vsum(dot) * r * r / (float)C;
    for (size_t c = 0; c < C; c += VW) {
        const size_t k = C - c;
        const vf t = vget(dy + c, k) * vget(w + c, k) * out_gate(vget(z + c, k), silu);
        vput(dx + c, vfma(vset(r), vfnma(vget(x + c, k), vset(m), t), vget(dx + c, k)), k);
    }
}
INLINE void gated_rows_backward(const Job *j, size_t b, int silu) {
    for (size_t i = 0, n = b * ROW_BLOCK; i < block_size(b, ROW_BLOCK, j->N); i++, n++) {
        const size_t nc = n * j->C;
        gated_row_backward(j->out[0] + nc, j->out[1] + nc, j->in[0] + nc, j->in[1] + nc, j->in[2] + nc, j->in[3],
                           j->win[0][n], j->C, silu);
    }
}

INLINE void gated_columns(const Job *j, size_t b, int silu) {
    const size_t from = b * j->block, n = block_size(b, j->block, j->C);
    float sums[COLUMN_MOST] = {0};
    for (size_t i = 0; i < j->N; i++) {
        const size_t first = i * j->C + from;
        const vf r = vset(j->win[0][i]);
        for (size_t c = 0; c < n; c += VW) {
            const size_t k = n - c;
            const vf x = vget(j->in[1] + first + c, k) * out_gate(vget(j->in[2] + first + c, k), silu);
            vstore(sums + c, vfma(vget(j->in[0] + first + c, k) * r, x, vload(sums + c)));
        }
    }
    for (size_t c = 0; c < n; c++) j->wout[0][from + c] += sums[c];
}

static void silu_rows(const void *job, size_t b) { gated_rows(job, b, 1); }
static void silu_rows_backward(const void *job, size_t b) { gated_rows_backward(job, b, 1); }
static void silu_columns(const void *job, size_t b) { gated_columns(job, b, 1); }
static void sigmoid_rows(const void *job, size_t b) { gated_rows(job, b, 0); }
static void sigmoid_rows_backward(const void *job, size_t b) { gated_rows_backward(job, b, 0); }
static void sigmoid_columns(const void *job, size_t b) { gated_columns(job, b, 0); }

static void gated_rmsnorm_forward(real *y, float *rstd, const real *x, const real *z, const real *w, double eps, int N,
                                  int C) {
    blocks_of_rows(silu_rows, (Job){.out = {y}, .wout = {rstd}, .in = {x, z, w}, .N = N, .C = C, .a = (float)eps});
}
static void gated_rmsnorm_backward(real *dx, real *dz, float *dw, const real *dy, const real *x, const real *z,
                                   const real *w, const float *rstd, int N, int C) {
    const Job j = {.out = {dx, dz}, .wout = {dw}, .in = {dy, x, z, w}, .win = {rstd}, .N = N, .C = C};
    blocks_of_rows(silu_rows_backward, j);
    if (dw) blocks_of_columns(silu_columns, j);
}
static void sigmoid_rmsnorm_forward(real *y, float *rstd, const real *x, const real *z, const real *w, double eps,
                                    int N, int C) {
    blocks_of_rows(sigmoid_rows, (Job){.out = {y}, .wout = {rstd}, .in = {x, z, w}, .N = N, .C = C, .a = (float)eps});
}
static void sigmoid_rmsnorm_backward(real *dx, real *dz, float *dw, const real *dy, const real *x, const real *z,
                                     const real *w, const float *rstd, int N, int C) {
    const Job j = {.out = {dx, dz}, .wout = {dw}, .in = {dy, x, z, w}, .win = {rstd}, .N = N, .C = C};
    blocks_of_rows(sigmoid_rows_backward, j);
    if (dw) blocks_of_columns(sigmoid_columns, j);
}
