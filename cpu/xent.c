/* xent.c - cross-entropy on blocks of logits, which become their own gradient. */
#include "head.h"
#include <math.h>

enum { TOP_BLOCK = 256 };

/* The maximum, and which block of TOP_BLOCK has it first. */
static float row_max(const float *z, size_t n, size_t *block) {
    float max = -INFINITY;
    *block = 0;
    for (size_t b = 0; b < n; b += TOP_BLOCK) {
        const size_t end = n - b < TOP_BLOCK ? n : b + TOP_BLOCK;
        vf m = vset(-INFINITY);
        size_t v = b;
        for (; v + VW <= end; v += VW) m = vmax(vload(z + v), m);
        float block_max = vhmax(m);
        for (; v < end; v++) block_max = z[v] > block_max ? z[v] : block_max;
        if (block_max > max) max = block_max, *block = b;
    }
    return max;
}
static int row_top(const float *z, size_t n, float max, size_t block) {
    for (size_t v = block; v < n; v++)
        if (z[v] == max) return (int)v;
    return 0;
}

/* z = e^{z - max}, returns the sum */
static float row_exp(float *z, size_t n, float max) {
    vf s0 = vset(0), s1 = vset(0);
    size_t v = 0;
    for (; v + 2 * VW <= n; v += 2 * VW) {
        const vf p0 = vexp(vload(z + v) - vset(max)), p1 = vexp(vload(z + v + VW) - vset(max));
        vstore(z + v, p0), vstore(z + v + VW, p1);
        s0 = s0 + p0, s1 = s1 + p1;
    }
    float rest = 0;
    for (; v < n; v += VW) {
        const vf p = vexp(vget(z + v, n - v) - vset(max));
        vput(z + v, p, n - v);
        for (size_t i = v; i < n && i < v + VW; i++) rest += z[i];
    }
    return vsum(s0 + s1) + rest;
}

/* dz may be z */
static float xent_row(real *dz, float *z, int *top, int target, float weight, int gradient, size_t VOC) {
    size_t block;
    const float max = row_max(z, VOC, &block), z_target = z[target];
    if (top) *top = row_top(z, VOC, max, block);
    const float total = row_exp(z, VOC, max), scale = weight / total;
    const float p_target = z[target] * scale;
    for (size_t v = 0; gradient && v < VOC; v += VW) vput(dz + v, vget(z + v, VOC - v) * vset(scale), VOC - v);
    if (gradient) dz[target] = real_of(p_target - weight);
    return (max - z_target) + logf(total);
}

typedef struct {
    float *loss, *z;
    int *top;
    const int *target;
    const float *weight;
    int gradient;
    size_t VOC, ld;
} XentJob;

static void xent_task(const void *job, size_t n) {
    const XentJob *j = job;
    const float weight_n = j->weight ? j->weight[n] : 1;
    float *z_n = j->z + n * j->ld;
    if (weight_n != 0) {
        j->loss[n] =
            xent_row((real *)z_n, z_n, j->top ? j->top + n : NULL, j->target[n], weight_n, j->gradient, j->VOC);
        return;
    }
    j->loss[n] = 0;
    if (j->top) j->top[n] = -1;
    memset(z_n, 0, j->VOC * sizeof *z_n);
}
static void head_xent(float *loss, int *top, real *dx, float *dw, const real *x, const real *w, const int *target,
                      const float *weight, void *work, const HeadDims *d) {
    const size_t block = head_rows(d, 1);
    for (size_t n = 0; n < (size_t)d->N; n += block) {
        const size_t rows = (size_t)d->N - n < block ? (size_t)d->N - n : block;
        const real *x_n = x + n * d->C;
        const XentJob j = {loss + n, work,   top ? top + n : NULL, target + n, at(weight, n),
                           dx || dw, d->VOC, head_stride(d)};
        head_logits(work, x_n, w, rows, d->C, d);
        pool_run_if(rows * d->VOC > ALONE / 2, rows, xent_task, &j);
        head_gradient(at(dx, n * d->C), dw, work, x_n, w, rows, d);
    }
}
