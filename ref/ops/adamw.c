/* adamw.c - one step of AdamW (Loshchilov & Hutter, arXiv 1711.05101), in the order of torch.optim.AdamW. */
#include "ops/ref_math.h"

static void adamw(wide *master, real *weight, wide *m, wide *v, const wide *grad, double grad_scale,
                  double lr, double beta1, double beta2, double eps, double decay, int64_t step, size_t n) {
    const double unbias1 = 1 - pow(beta1, (double)step), unbias2 = 1 - pow(beta2, (double)step);
    const wide b1 = beta1, b2 = beta2, keep = 1 - lr * decay, rate = lr / unbias1, root = sqrt(unbias2);
    for (size_t i = 0; i < n; i++) {
        const wide g = grad[i] * (wide)grad_scale;
        m[i] = b1 * m[i] + (wide)(1 - beta1) * g;
        v[i] = b2 * v[i] + (wide)(1 - beta2) * g * g;
        // lr (m / unbias1) / (sqrt(v / unbias2) + eps)
        master[i] = master[i] * keep - rate * m[i] / (sqrt(v[i]) / root + (wide)eps);
        if (weight) weight[i] = master[i];
    }
}
