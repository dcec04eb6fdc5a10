/* l2norm.c - rows scaled to length one. */
#include "parallel.h"
#include <math.h>

static void l2_rows(real *y, float *r, const real *x, float eps, size_t N, size_t C) {
    for (size_t n = 0; n < N; n++, x += C, y += C) {
        r[n] = 1 / sqrtf(row_dot(x, x, C) + eps);
        for (size_t c = 0; c < C; c += VW) vput(y + c, vget(x + c, C - c) * vset(r[n]), C - c);
    }
}
static void l2_block(const void *job, size_t b) {
    const Job *j = job;
    const size_t n = b * ROW_BLOCK, nc = n * j->C;
    l2_rows(j->out[0] + nc, j->wout[0] + n, j->in[0] + nc, j->a, block_size(b, ROW_BLOCK, j->N), j->C);
}
static void l2norm_forward(real *y, float *r, const real *x, double eps, int N, int C) {
    blocks_of_rows(l2_block, (Job){.out = {y}, .wout = {r}, .in = {x}, .N = N, .C = C, .a = (float)eps});
}
static void l2_rows_backward(real *dx, const real *dy, const real *y, const float *r, size_t N, size_t C) {
    for (size_t n = 0; n < N; n++, dx += C, dy += C, y += C) {
        const float dot = row_dot(dy, y, C);
        for (size_t c = 0; c < C; c += VW) {
            const size_t k = C - c;
            vput(dx + c, vfma(vset(r[n]), vfnma(vget(y + c, k), vset(dot), vget(dy + c, k)), vget(dx + c, k)), k);
        }
    }
}
static void l2_block_backward(const void *job, size_t b) {
    const Job *j = job;
    const size_t n = b * ROW_BLOCK, nc = n * j->C;
    l2_rows_backward(j->out[0] + nc, j->in[0] + nc, j->in[1] + nc, j->win[0] + n, block_size(b, ROW_BLOCK, j->N), j->C);
}
static void l2norm_backward(real *dx, const real *dy, const real *y, const float *r, int N, int C) {
    blocks_of_rows(l2_block_backward, (Job){.out = {dx}, .in = {dy, y}, .win = {r}, .N = N, .C = C});
}
