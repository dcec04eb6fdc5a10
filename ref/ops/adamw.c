/* adamw.c - one step of AdamW (Loshchilov & Hutter, arXiv 1711.05101), in the order of torch.optim.AdamW. */
#include "ops/ref_math.h"

static void adamw(const trained *list, double grad_scale, double beta1, double beta2, double eps, int64_t step,
                  uint64_t seed, int tensors) {
    (void)seed; // nothing is rounded here: real and wide are one type
    const double unbias1 = 1 - pow(beta1, (double)step), unbias2 = 1 - pow(beta2, (double)step);
    const wide b1 = beta1, b2 = beta2, root = sqrt(unbias2);
    for (int t = 0; t < tensors; t++) {
        wide *master = list[t].master, *m = list[t].m, *v = list[t].v;
        real *weight = list[t].weight;
        const wide keep = 1 - list[t].lr * list[t].decay, rate = list[t].lr / unbias1;
        for (size_t i = 0; i < list[t].n; i++) {
            const wide g = list[t].grad[i] * (wide)grad_scale;
            m[i] = b1 * m[i] + (wide)(1 - beta1) * g;
            v[i] = b2 * v[i] + (wide)(1 - beta2) * g * g;
            // lr (m / unbias1) / (sqrt(v / unbias2) + eps)
            master[i] = master[i] * keep - rate * m[i] / (sqrt(v[i]) / root + (wide)eps);
            if (weight) weight[i] = master[i];
        }
    }
}
