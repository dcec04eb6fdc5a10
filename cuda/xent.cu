/* xent.cu - cross-entropy fused with the output head, by blocks of rows. The logits of a block are overwritten by their
 * gradient. */
__global__ void xent_kernel(wide *loss, int *top, real *z, const int *target, const wide *weight, int VOC, int grads) {
    SHARED(float, best, HEAD_THREADS);
    SHARED(int, who, HEAD_THREADS);
    const int n = blockIdx.x, i = threadIdx.x;
    const float wn = weight ? weight[n] : 1.0f;
    real *z_n = z + (size_t)n * VOC;
    if (wn == 0) { // the whole block takes this way
        if (i == 0) {
            loss[n] = 0;
            if (top) top[n] = -1;
        }
        for (int v = i; v < VOC && grads; v += HEAD_THREADS) z_n[v] = 0.0f;
        return;
    }
    const RowStats r = row_stats(z_n, 1.0f, VOC);
    const int goal = target[n];
    if (i == 0) loss[n] = r.max + logf(r.sum) - (float)z_n[goal];
    if (top) { // the first maximum: the smallest index among equals
        float b = -INFINITY;
        int k = VOC;
        for (int v = i; v < VOC; v += HEAD_THREADS)
            if ((float)z_n[v] > b) b = z_n[v], k = v;
        best[i] = b, who[i] = k;
        for (int half = HEAD_THREADS / 2; half > 0; half /= 2) {
            __syncthreads();
            if (i < half && (best[i + half] > best[i] || (best[i + half] == best[i] && who[i + half] < who[i]))) {
                best[i] = best[i + half];
                who[i] = who[i + half];
            }
        }
        if (i == 0) top[n] = who[0];
    }
    if (!grads) return;
    __syncthreads(); // thread 0 has read z[goal]
    for (int v = i; v < VOC; v += HEAD_THREADS)
        z_n[v] = wn * (expf((float)z_n[v] - r.max) / r.sum - (v == goal ? 1.0f : 0.0f));
}
static void head_xent(wide *loss, int *top, real *dx, wide *dw, const real *x, const real *w, const int *target,
                      const wide *weight, void *work, const HeadDims *d) {
    real *z = (real *)work;
    for (int n = 0; n < d->N; n += d->block) {
        const int rows = d->N - n < d->block ? d->N - n : d->block;
        const real *x_n = x + (size_t)n * d->C;
        matmul(z, x_n, w, (const real *)NULL, rows, d->VOC, d->C, 0, 1, 0);
        LAUNCH(xent_kernel, rows, HEAD_THREADS, 0, loss + n, top ? top + n : top, z, target + n,
               weight ? weight + n : weight, d->VOC, dx || dw);
        head_gradients(dx ? dx + (size_t)n * d->C : dx, dw, z, x_n, w, rows, d->C, d->VOC);
    }
}
