/* kl.cu - forward KL of teacher and student, fused with both output heads, by blocks of rows.
 * The student's logits are overwritten by their gradient. */
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
    const float lse_s = logf(s.sum), lse_t = logf(t.sum);
    float sum = 0;
    for (int v = threadIdx.x; v < VOC; v += HEAD_THREADS) {
        const float log_t = ((float)t_n[v] - t.max) * inv - lse_t, log_s = ((float)z_n[v] - s.max) * inv - lse_s,
                    pt = expf(log_t);
        sum += pt * (log_t - log_s);
        if (grads) z_n[v] = wn * tau * (expf(log_s) - pt);
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
