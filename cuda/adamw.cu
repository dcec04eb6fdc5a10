/* adamw.cu - one step of AdamW in a single pass: 28 bytes a parameter read and written (30 with a bf16 copy of the weight). */
struct AdamwScalars {
    float grad_scale, lr, keep, beta1, fresh1, beta2, fresh2, eps, correct1, correct2;
}; // fresh = 1 - beta, in double
__global__ void adamw_kernel(wide *master, real *weight, wide *m, wide *v, const wide *grad, AdamwScalars s,
                             size_t n) {
    const size_t i = pack_index();
    if (i >= n) return;
    Pack p = pack_load(master, i, n), mi = pack_load(m, i, n), vi = pack_load(v, i, n);
    const Pack g = pack_load(grad, i, n);
    for (int k = 0; k < PACK; k++) {
        const float d = g.v[k] * s.grad_scale;
        mi.v[k] = s.beta1 * mi.v[k] + s.fresh1 * d;
        vi.v[k] = s.beta2 * vi.v[k] + s.fresh2 * d * d;
        p.v[k] = p.v[k] * s.keep - s.lr * (mi.v[k] * s.correct1) / (sqrtf(vi.v[k] * s.correct2) + s.eps);
    }
    pack_store(master, i, n, p);
    pack_store(m, i, n, mi);
    pack_store(v, i, n, vi);
    if (weight) pack_store(weight, i, n, p);
}
static void adamw(wide *master, real *weight, wide *m, wide *v, const wide *grad, double grad_scale,
                  double lr, double beta1, double beta2, double eps, double decay, int64_t step, size_t n) {
    const AdamwScalars s = {(float)grad_scale,
                            (float)lr,
                            (float)(1 - lr * decay),
                            (float)beta1,
                            (float)(1 - beta1),
                            (float)beta2,
                            (float)(1 - beta2),
                            (float)eps,
                            (float)(1 / (1 - pow(beta1, (double)step))),
                            (float)(1 / (1 - pow(beta2, (double)step)))};
    if (n) LAUNCH(adamw_kernel, pack_blocks(n), PACK_THREADS, 0, master, weight, m, v, grad, s, n);
}
