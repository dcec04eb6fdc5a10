/* adamw.c - one pass over the parameters: 16 bytes read, 12 written (and 4 for a rounded copy) for each. */
#include "parallel.h"
#include <math.h>

/* c = 1 - b; rate = lr / (1 - b1^step); root = (1 - b2^step)^{-1/2}; shrink = lr wd */
typedef struct {
    float *p, *copy, *m, *v;
    const float *grad;
    size_t n;
    float scale, b1, c1, b2, c2, rate, root, eps, shrink;
} AdamW;

static void adamw_run(const void *job, size_t r) {
    const AdamW *a = job;
    const size_t from = r * RUN, n = run_size(a->n, r);
    float *p = a->p + from, *copy = at(a->copy, from), *m = a->m + from, *v = a->v + from;
    for (size_t i = 0; i < n; i += VW) {
        const size_t k = n - i;
        const vf g = vget(a->grad + from + i, k) * vset(a->scale), old = vget(p + i, k);
        const vf m1 = vfma(vset(a->b1), vget(m + i, k), vset(a->c1) * g), v1 = vfma(vset(a->b2), vget(v + i, k), vset(a->c2) * g * g);
        const vf shrunk = vfnma(vset(a->shrink), old, old); // p (1 - lr wd), exact where lr wd < 2^-24 too
        const vf now = vfnma(vset(a->rate), m1 / vfma(vsqrt(v1), vset(a->root), vset(a->eps)), shrunk);
        vput(m + i, m1, k), vput(v + i, v1, k), vput(p + i, now, k);
        if (copy) vput(copy + i, now, k);
    }
}
static void adamw(float *master, float *weight, float *m, float *v, const float *grad, double grad_scale, double lr, double beta1,
                  double beta2, double eps, double decay, int64_t step, size_t n) {
    const AdamW a = {.p = master, .copy = weight, .m = m, .v = v, .grad = grad, .n = n, .scale = (float)grad_scale, .b1 = (float)beta1,
                     .c1 = (float)(1 - beta1), .b2 = (float)beta2, .c2 = (float)(1 - beta2), .eps = (float)eps,
                     .rate = (float)(lr / (1 - pow(beta1, (double)step))), .root = (float)(1 / sqrt(1 - pow(beta2, (double)step))),
                     .shrink = (float)(lr * decay)};
    pool_run_if(n > ALONE, run_count(n), adamw_run, &a);
}
