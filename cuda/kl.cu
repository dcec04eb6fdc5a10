/* kl.cu - forward KL of teacher and student, fused with both output heads, by blocks of rows.
 * The student's logits are overwritten by their gradient. The value as in ref/ops/kl.c and cpu/kl.c. */

/* (e^x - 1 - x) / x^2 for |x| < 0.5, to 1e-9 */
__device__ float kl_series(float x) {
    float p = 1.0f / 362880;
    p = p * x + 1.0f / 40320;
    p = p * x + 1.0f / 5040;
    p = p * x + 1.0f / 720;
    p = p * x + 1.0f / 120;
    p = p * x + 1.0f / 24;
    p = p * x + 1.0f / 6;
    return p * x + 0.5f;
}

__global__ void kl_kernel(wide *loss, real *z, const real *zt, const wide *weight, float tau, int VOC, int grads) {
    const int n = blockIdx.x;
    const float wn = weight ? weight[n] : 1.0f, inv = 1.0f / tau;
    real *z_n = z + (size_t)n * VOC;
    const real *t_n = zt + (size_t)n * VOC;
    if (wn == 0) { // the whole block takes this way
        if (threadIdx.x == 0) loss[n] = 0;
        for (int v = threadIdx.x; v < VOC && grads; v += HEAD_THREADS) z_n[v] = 0.0f;
        return;
    }
    const RowStats s = row_stats(z_n, inv, VOC), t = row_stats(t_n, inv, VOC);
    const float lse_s = logf(s.sum), lse_t = logf(t.sum), shift = s.max - t.max;
    const float shift_low = (float)(((double)s.max - t.max) - shift);
    const float one_s = 1 / s.sum, one_t = 1 / t.sum;
    float more = 0, sum = 0;
    for (int v = threadIdx.x; v < VOC; v += HEAD_THREADS) {
        const float z_s = (float)z_n[v], z_t = (float)t_n[v], u = (((z_s - z_t) - shift) - shift_low) * inv;
        const float e_t = expf((z_t - t.max) * inv);
        more += fabsf(u) < 0.5f ? e_t * (u + u * u * kl_series(u)) : expf((z_s - s.max) * inv) - e_t;
    }
    more = block_sum(more) / t.sum;
    const float D = fabsf(more) < 0.5f ? log1pf(more) : lse_s - lse_t;
    for (int v = threadIdx.x; v < VOC; v += HEAD_THREADS) {
        const float z_s = (float)z_n[v], z_t = (float)t_n[v], d = (((z_s - z_t) - shift) - shift_low) * inv - D;
        const float pt = expf((z_t - t.max) * inv - lse_t), ps = expf((z_s - s.max) * inv - lse_s);
        // not pt: its exponent, which has lse in it, is rounded at a larger place
        const float qt = expf((z_t - t.max) * inv) * one_t;
        sum += fabsf(d) < 0.5f ? qt * (d * d) * kl_series(d) : (expf((z_s - s.max) * inv) * one_s - qt) - qt * d;
        if (grads) z_n[v] = wn * tau * (ps - pt);
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0) loss[n] = tau * tau * sum;
}
static void head_kl(wide *loss, real *dx, wide *dw, const real *x, const real *w, const real *xt, const real *wt,
                    const wide *weight, double tau, void *work, const HeadDims *d) {
    real *z = (real *)work, *zt = z + (size_t)d->block * d->VOC;
    for (int n = 0; n < d->N; n += d->block) {
        const int rows = d->N - n < d->block ? d->N - n : d->block;
        const real *x_n = x + (size_t)n * d->C;
        matmul(z, x_n, w, (const real *)NULL, rows, d->VOC, d->C, 0, 1, 0);
        matmul(zt, xt + (size_t)n * d->Ct, wt, (const real *)NULL, rows, d->VOC, d->Ct, 0, 1, 0);
        LAUNCH(kl_kernel, rows, HEAD_THREADS, 0, loss + n, z, zt, weight ? weight + n : weight, (float)tau, d->VOC,
               dx || dw);
        head_gradients(dx ? dx + (size_t)n * d->C : dx, dw, z, x_n, w, rows, d->C, d->VOC);
    }
}
