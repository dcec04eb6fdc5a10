/* adamw.c - one pass over the parameters: 16 bytes read, 12 written (and 4 for a rounded copy) for each. */
#include "parallel.h"
#include "ops/ops.h"
#include <math.h>

/* c = 1 - b; root = (1 - b2^step)^{-1/2}; of up to TENSORS tensors, whose runs are numbered through:
 * those of tensor t begin at first[t] */
enum { TENSORS = 512 };
typedef struct {
    const Item *list;
    int tensors, at; // at: index of the first of them in the whole list
    size_t first[TENSORS + 1];
    float scale, b1, c1, b2, c2, root, eps;
    double unbias1;
    uint64_t seed;
    int64_t step;
} AdamW;

static int adamw_tensor(const AdamW *a, size_t r) {
    int lo = 0, hi = a->tensors; // first[lo] <= r < first[hi]
    while (hi - lo > 1) {
        const int mid = (lo + hi) / 2;
        if (a->first[mid] <= r) lo = mid;
        else hi = mid;
    }
    return lo;
}
/* The first n weights of a vector, or all, without a master, from element i of their tensor on. */
static void weight_dither(real *weight, vf now, uint64_t key, size_t i, size_t n) {
#if BITS == 16
    float p[VW];
    vstore(p, now);
    for (size_t k = 0; k < n && k < VW; k++) weight[k] = bf16_dither(p[k], key, i + k);
#else // a float weight is its master
    (void)key, (void)i, vput(weight, now, n);
#endif
}
static void adamw_run(const void *job, size_t run) {
    const AdamW *a = job;
    const int tensor = adamw_tensor(a, run);
    const Item *t = &a->list[tensor];
    const size_t r = run - a->first[tensor], from = r * RUN, n = run_size(t->n, r);
    const uint64_t key = bf16_key(a->seed, a->step, a->at + tensor);
    const float rate = (float)(t->lr / a->unbias1), shrink = (float)(t->lr * t->decay);
    const float *grad = t->grad + from;
    float *p = at(t->master, from), *m = t->m + from, *v = t->v + from;
    real *weight = at(t->weight, from);
    for (size_t i = 0; i < n; i += VW) {
        const size_t k = n - i;
        const vf g = vget(grad + i, k) * vset(a->scale), old = p ? vget(p + i, k) : vget(weight + i, k);
        const vf m1 = vfma(vset(a->b1), vget(m + i, k), vset(a->c1) * g),
                 v1 = vfma(vset(a->b2), vget(v + i, k), vset(a->c2) * g * g);
        const vf shrunk = vfnma(vset(shrink), old, old); // p (1 - lr wd), exact where lr wd < 2^-24 too
        const vf now = vfnma(vset(rate), m1 / vfma(vsqrt(v1), vset(a->root), vset(a->eps)), shrunk);
        vput(m + i, m1, k), vput(v + i, v1, k);
        if (p) vput(p + i, now, k);
        if (p && weight) vput(weight + i, now, k);
        else if (weight) weight_dither(weight + i, now, key, from + i, k);
    }
}
static void adamw(const Item *list, double grad_scale, double beta1, double beta2, double eps, int64_t step,
                  uint64_t seed, int tensors) {
    AdamW a = {.scale = (float)grad_scale,
               .b1 = (float)beta1,
               .c1 = (float)(1 - beta1),
               .b2 = (float)beta2,
               .c2 = (float)(1 - beta2),
               .eps = (float)eps,
               .unbias1 = 1 - pow(beta1, (double)step),
               .seed = seed,
               .step = step,
               .root = (float)(1 / sqrt(1 - pow(beta2, (double)step)))};
    for (int from = 0; from < tensors; from += TENSORS) {
        size_t n = 0;
        a.list = list + from;
        a.at = from;
        a.tensors = tensors - from < TENSORS ? tensors - from : TENSORS;
        for (int t = 0; t < a.tensors; t++) n += a.list[t].n, a.first[t + 1] = a.first[t] + run_count(a.list[t].n);
        pool_run_if(n > ALONE, a.first[a.tensors], adamw_run, &a);
    }
}
