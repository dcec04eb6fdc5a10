/* rope.c - rotary position embedding: the angles of a position once for all its heads. */
#include "parallel.h"

enum { ROPE_MAX = 256 }; // pairs per head that fit the stack copy; beyond it, the plain loop

/* y_lo = a_lo cos - a_hi sin, y_hi = a_hi cos + a_lo sin for n pairs; add: y += */
static void rope_row(float *y, const float *x, const float *cs, const float *sn, size_t n, int add) {
    for (size_t c = 0; c < n; c += VW) {
        const size_t k = n - c;
        const vf lo = vget(x + c, k), hi = vget(x + n + c, k), co = vget(cs + c, k), si = vget(sn + c, k);
        const vf l = vfnma(hi, si, lo * co), h = vfma(lo, si, hi * co);
        vput(y + c, add ? vget(y + c, k) + l : l, k);
        vput(y + n + c, add ? vget(y + n + c, k) + h : h, k);
    }
}
static void rope_row_plain(float *y, const float *x, const float *row, float sign, size_t n, int add) {
    for (size_t c = 0; c < n; c++) {
        const float lo = x[c], hi = x[n + c], co = row[2 * c], si = sign * row[2 * c + 1];
        const float l = lo * co - hi * si, h = hi * co + lo * si;
        y[c] = add ? y[c] + l : l;
        y[n + c] = add ? y[n + c] + h : h;
    }
}
static void rope_token(float *y, const float *x, const float *row, float sign, size_t H, size_t D, int add) {
    const size_t n = D / 2;
    float cs[ROPE_MAX], sn[ROPE_MAX];
    for (size_t c = 0; n <= ROPE_MAX && c < n; c++) cs[c] = row[2 * c], sn[c] = sign * row[2 * c + 1];
    for (size_t h = 0; h < H; h++, x += D, y += D) {
        if (n <= ROPE_MAX) rope_row(y, x, cs, sn, n, add);
        else rope_row_plain(y, x, row, sign, n, add);
    }
}

typedef struct { float *y; const float *x, *table; int pos; float sign; size_t T, H, D, N; int add; } RopeJob;

static void rope_block(const void *job, size_t b) {
    const RopeJob *j = job;
    for (size_t i = 0, n = b * ROW_BLOCK; i < block_size(b, ROW_BLOCK, j->N); i++, n++) {
        const size_t first = n * j->H * j->D;
        rope_token(j->y + first, j->x + first, j->table + (j->pos + n % j->T) * j->D, j->sign, j->H, j->D, j->add);
    }
}
static void rope_run(const RopeJob *j) { pool_run_if(j->N * j->H * j->D > ALONE, row_blocks(j->N), rope_block, j); }
static void rope_forward(float *y, const float *x, const float *table, int pos, int B, int T, int H, int D) {
    rope_run(&(RopeJob){y, x, table, pos, 1, T, H, D, (size_t)B * T, 0});
}
static void rope_backward(float *dx, const float *dy, const float *table, int pos, int B, int T, int H, int D) {
    rope_run(&(RopeJob){dx, dy, table, pos, -1, T, H, D, (size_t)B * T, 1});
}
