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

static float xent_row(float *z, int *top, int target, float weight, int gradient, size_t VOC) {
    size_t block;
    const float max = row_max(z, VOC, &block), z_target = z[target];
    if (top) *top = row_top(z, VOC, max, block);
    const float total = row_exp(z, VOC, max), scale = weight / total;
    for (size_t v = 0; gradient && v < VOC; v += VW) vput(z + v, vget(z + v, VOC - v) * vset(scale), VOC - v);
    z[target] -= weight;
    return (max - z_target) + logf(total);
}

static void head_xent(float *loss, int *top, float *dx, float *dw, const float *x, const float *w, const int *target, const float *weight,
                      void *work, const HeadDims *d) {
    float *z = work;
    const size_t block = head_rows(d, 1), ld = head_stride(d);
    for (size_t from = 0; from < (size_t)d->N; from += block) {
        const size_t rows = (size_t)d->N - from < block ? (size_t)d->N - from : block;
        const float *x_from = x + from * d->C;
        head_logits(z, x_from, w, rows, d->C, d);
#pragma omp parallel for schedule(dynamic, 4)
        for (size_t i = 0; i < rows; i++) {
            const size_t n = from + i;
            const float weight_n = weight ? weight[n] : 1;
            if (weight_n != 0) loss[n] = xent_row(z + i * ld, top ? top + n : NULL, target[n], weight_n, dx || dw, d->VOC);
            else {
                loss[n] = 0;
                if (top) top[n] = -1;
                memset(z + i * ld, 0, (size_t)d->VOC * sizeof *z);
            }
        }
        head_gradient(dx ? dx + from * d->C : NULL, dw, z, x_from, w, rows, d);
    }
}
