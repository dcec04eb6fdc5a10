/* rope.c - rotary position embedding: the angles of a position once for all its heads and batch elements. */
#include "parallel.h"

// pairs per head that fit the stack copy (beyond it, the plain loop); positions a task
enum { ROPE_MAX = 256, ROPE_BLOCK = 16 };

/* y_lo = a_lo cos - a_hi sin, y_hi = a_hi cos + a_lo sin for n pairs; add: y += */
static void rope_row(real *y, const real *x, const float *cs, const float *sn, size_t n, int add) {
    for (size_t c = 0; c < n; c += VW) {
        const size_t k = n - c;
        const vf lo = vget(x + c, k), hi = vget(x + n + c, k), co = vget(cs + c, k), si = vget(sn + c, k);
        const vf l = vfnma(hi, si, lo * co), h = vfma(lo, si, hi * co);
        vput(y + c, add ? vget(y + c, k) + l : l, k);
        vput(y + n + c, add ? vget(y + n + c, k) + h : h, k);
    }
}
/* The same for heads of one vector: x (cos, cos) + swapped x (-sin, sin). */
static void rope_rows_short(real *y, const real *x, const float *cs, const float *sn, size_t heads, int add) {
    float c2[VW], s2[VW];
    for (size_t c = 0; c < VW / 2; c++) c2[c] = c2[c + VW / 2] = cs[c], s2[c] = -sn[c], s2[c + VW / 2] = sn[c];
    const vf co = vload(c2), si = vload(s2);
    for (size_t i = 0; i < heads * VW; i += VW) {
        const vf v = vget(x + i, VW), r = vfma(vswap(v), si, v * co);
        vput(y + i, add ? vget(y + i, VW) + r : r, VW);
    }
}
static void rope_row_plain(real *y, const real *x, const float *row, float sign, size_t n, int add) {
    for (size_t c = 0; c < n; c++) {
        const float lo = get1(x[c]), hi = get1(x[n + c]), co = row[2 * c], si = sign * row[2 * c + 1];
        const float l = lo * co - hi * si, h = hi * co + lo * si;
        y[c] = real_of(add ? get1(y[c]) + l : l);
        y[n + c] = real_of(add ? get1(y[n + c]) + h : h);
    }
}

typedef struct {
    real *y;
    const real *x;
    const float *table;
    int pos;
    float sign;
    size_t B, T, H, D;
    int add;
} RopeJob;

/* Positions of one block, each for all heads of all batch elements. */
static void rope_block(const void *job, size_t block) {
    const RopeJob *j = job;
    const size_t n = j->D / 2;
    float cs[ROPE_MAX], sn[ROPE_MAX];
    for (size_t t = block * ROPE_BLOCK; t < j->T && t < (block + 1) * ROPE_BLOCK; t++) {
        const float *row = j->table + (j->pos + t) * j->D;
        for (size_t c = 0; n <= ROPE_MAX && c < n; c++) cs[c] = row[2 * c], sn[c] = j->sign * row[2 * c + 1];
        for (size_t b = 0; b < j->B; b++)
            for (size_t h = 0; h < (n == VW / 2 ? 1 : j->H); h++) {
                const size_t first = ((b * j->T + t) * j->H + h) * j->D;
                if (n == VW / 2) rope_rows_short(j->y + first, j->x + first, cs, sn, j->H, j->add);
                else if (n <= ROPE_MAX) rope_row(j->y + first, j->x + first, cs, sn, n, j->add);
                else rope_row_plain(j->y + first, j->x + first, row, j->sign, n, j->add);
            }
    }
}
static void rope_run(const RopeJob *j) {
    pool_run_if(j->B * j->T * j->H * j->D > ALONE, (j->T + ROPE_BLOCK - 1) / ROPE_BLOCK, rope_block, j);
}
static void rope_forward(real *y, const real *x, const float *table, int pos, int B, int T, int H, int D) {
    rope_run(&(RopeJob){y, x, table, pos, 1, B, T, H, D, 0});
}
static void rope_backward(real *dx, const real *dy, const float *table, int pos, int B, int T, int H, int D) {
    rope_run(&(RopeJob){dx, dy, table, pos, -1, B, T, H, D, 1});
}
