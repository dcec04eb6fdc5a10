/* head.h - what head_xent and head_kl share: blocks of rows of logits in `work`, and statistics of a row. */
enum { HEAD_THREADS = 256 };

/* max_v and sum_v exp((z_v - max) / tau) of one row of logits, by the whole block. */
struct RowStats {
    float max, sum;
};
__device__ RowStats row_stats(const real *z, float inv_tau, int VOC) {
    float m = -INFINITY, s = 0;
    for (int v = threadIdx.x; v < VOC; v += HEAD_THREADS) m = fmaxf(m, z[v]);
    m = block_max(m);
    for (int v = threadIdx.x; v < VOC; v += HEAD_THREADS) s += expf(((float)z[v] - m) * inv_tau);
    return {m, block_sum(s)};
}
/* dx += dz W and dw += dz^T x for the rows of a block. */
static void head_gradients(real *dx, wide *dw, const real *dz, const real *x, const real *w, int rows, int C, int VOC) {
    if (dx) matmul(dx, dz, w, (const real *)NULL, rows, C, VOC, 0, 0, 1);
    if (dw) matmul(dw, dz, x, (const real *)NULL, VOC, C, rows, 1, 0, 1);
}
