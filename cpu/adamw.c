/* adamw.c - one pass over the parameters: 16 bytes read, 12 written (and 4 for a rounded copy) for each. */
#include "parallel.h"
#include <math.h>

typedef struct { float scale, b1, c1, b2, c2, rate, root, eps, shrink; } AdamW; // c = 1 - b; rate = lr / (1 - b1^step); root = (1 - b2^step)^{-1/2}

static void adamw_run(float *p, float *copy, float *m, float *v, const float *grad, const AdamW *a, size_t n) {
    for (size_t i = 0; i < n; i += VW) {
        const size_t k = n - i;
        const vf g = vget(grad + i, k) * vset(a->scale), old = vget(p + i, k);
        const vf m1 = vfma(vset(a->b1), vget(m + i, k), vset(a->c1) * g), v1 = vfma(vset(a->b2), vget(v + i, k), vset(a->c2) * g * g);
        const vf shrunk = vfnma(vset(a->shrink), old, old); // p (1 - lr wd), exact where lr wd < 2^-24 too
        const vf now = vfnma(vset(a->rate), m1 / vfma(vsqrt(v1), vset(a->root), vset(a->eps)), shrunk);
        vput(m + i, m1, k), vput(v + i, v1, k), vput(p + i, now, k);
        if (copy) vput(copy + i, now, k);
    }
}
static void adamw(float *master, float *weight, float *m, float *v, const float *grad, double grad_scale, double lr, double beta1,
                  double beta2, double eps, double decay, int64_t step, size_t n) {
    const AdamW a = {(float)grad_scale, (float)beta1, (float)(1 - beta1), (float)beta2, (float)(1 - beta2),
                     (float)(lr / (1 - pow(beta1, (double)step))), (float)(1 / sqrt(1 - pow(beta2, (double)step))), (float)eps,
                     (float)(lr * decay)};
#pragma omp parallel for if (n > ALONE)
    for (size_t r = 0; r < run_count(n); r++) {
        const size_t i = r * RUN;
        adamw_run(master + i, weight ? weight + i : NULL, m + i, v + i, grad + i, &a, run_size(n, r));
    }
}
