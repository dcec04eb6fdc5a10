/* attention.cu - causal softmax attention, first version: a warp a query row, 32 keys at a time, lanes over keys for
 * the scores and over the head's elements for the sums. Every product is a plain float sum;
 * the fast version for BF16 is in attention_mma.cu. */
enum { ATT_WARPS = 4, ATT_MAX_D = 256, ATT_PER_LANE = ATT_MAX_D / WARP };

struct AttnArgs { // everything about shapes, by value
    int T, past, Tk, stride, H, Hk, D, window;
    float scale;
};
static AttnArgs attn_args(const AttnDims *d, double scale) {
    const int Tk = d->past + d->T;
    return {d->T, d->past, Tk, d->stride ? d->stride : Tk, d->H, d->Hk, d->D, d->window, (float)scale};
}
/* First key that position pos may look at. */
__device__ int first_key(const AttnArgs &a, const int *start, int b, int pos) {
    const int s = start ? start[(size_t)b * a.Tk + pos] : 0;
    return a.window > 0 ? max(s, pos - a.window + 1) : s;
}

__global__ void attention_forward_kernel(real *o, wide *lse, const real *q, const real *k, const real *v,
                                         const int *start, AttnArgs a, size_t rows) {
    SHARED(float, qs, ATT_WARPS *ATT_MAX_D);
    const size_t row = (size_t)blockIdx.x * ATT_WARPS + threadIdx.x / WARP; // (b, t, h)
    const int lane = threadIdx.x % WARP;
    if (row >= rows) return;
    const int h = (int)(row % a.H), t = (int)(row / a.H % a.T), b = (int)(row / a.H / a.T), pos = a.past + t,
              hk = h / (a.H / a.Hk);
    SHARED_PTR(float) qrow = qs + (int)(threadIdx.x / WARP) * ATT_MAX_D;
    for (int c = lane; c < a.D; c += WARP) qrow[c] = (float)q[row * a.D + c] * a.scale;
    __syncwarp();
    float max_so_far = -INFINITY, sum = 0, acc[ATT_PER_LANE] = {};
    for (int j0 = first_key(a, start, b, pos); j0 <= pos; j0 += WARP) {
        const int j = j0 + lane;
        const real *k_j = k + (((size_t)b * a.stride + j) * a.Hk + hk) * a.D;
        float s = -INFINITY;
        if (j <= pos) {
            s = 0;
            for (int c = 0; c < a.D; c++) s += qrow[c] * (float)k_j[c];
        }
        const float m = fmaxf(max_so_far, warp_max(s)), shrink = expf(max_so_far - m), p = expf(s - m);
        sum = sum * shrink + warp_sum(p);
        max_so_far = m;
        for (int i = 0; i < ATT_PER_LANE; i++) acc[i] *= shrink;
        const int keys = min((int)WARP, pos + 1 - j0);
        for (int jj = 0; jj < keys; jj++) {
            const float p_j = __shfl_sync(FULL, p, jj);
            const real *v_j = v + (((size_t)b * a.stride + j0 + jj) * a.Hk + hk) * a.D;
            for (int i = 0; i < ATT_PER_LANE; i++)
                if (lane + i * WARP < a.D) acc[i] += p_j * (float)v_j[lane + i * WARP];
        }
    }
    for (int i = 0; i < ATT_PER_LANE; i++)
        if (lane + i * WARP < a.D) o[row * a.D + lane + i * WARP] = acc[i] / sum;
    if (lane == 0) lse[row] = max_so_far + logf(sum);
}
static void attention_forward_plain(real *o, wide *lse, const real *q, const real *k, const real *v, const int *start,
                                    double scale, const AttnDims *d) {
    const size_t rows = (size_t)d->B * d->T * d->H;
    LAUNCH(attention_forward_kernel, ceil_div(rows, ATT_WARPS), ATT_WARPS * WARP, 0, o, lse, q, k, v, start,
           attn_args(d, scale), rows);
}

/* delta = do . o for every row (b, t, h). */
__global__ void attention_delta_kernel(wide *delta, const real *dout, const real *o, int D, size_t rows) {
    const size_t row = (size_t)blockIdx.x * ATT_WARPS + threadIdx.x / WARP;
    if (row >= rows) return;
    float s = 0;
    for (int c = threadIdx.x % WARP; c < D; c += WARP) s += (float)dout[row * D + c] * (float)o[row * D + c];
    s = warp_sum(s);
    if (threadIdx.x % WARP == 0) delta[row] = s;
}
/* dq: a warp a query row. Each lane recomputes p and ds for one key; then all lanes add ds_j k_j. */
__global__ void attention_dq_kernel(real *dq, const real *dout, const wide *lse, const wide *delta, const real *q,
                                    const real *k, const real *v, const int *start, AttnArgs a, size_t rows) {
    const size_t row = (size_t)blockIdx.x * ATT_WARPS + threadIdx.x / WARP;
    const int lane = threadIdx.x % WARP;
    if (row >= rows) return;
    const int h = (int)(row % a.H), t = (int)(row / a.H % a.T), b = (int)(row / a.H / a.T), hk = h / (a.H / a.Hk);
    const real *q_r = q + row * a.D, *do_r = dout + row * a.D;
    float acc[ATT_PER_LANE] = {};
    for (int j0 = first_key(a, start, b, t); j0 <= t; j0 += WARP) {
        const int j = j0 + lane;
        float ds = 0;
        if (j <= t) {
            const size_t at = (((size_t)b * a.stride + j) * a.Hk + hk) * a.D;
            float s = 0, dp = 0;
            for (int c = 0; c < a.D; c++)
                s += (float)q_r[c] * (float)k[at + c], dp += (float)do_r[c] * (float)v[at + c];
            ds = expf(a.scale * s - lse[row]) * (dp - delta[row]);
        }
        const int keys = min((int)WARP, t + 1 - j0);
        for (int jj = 0; jj < keys; jj++) {
            const float ds_j = __shfl_sync(FULL, ds, jj);
            const real *k_j = k + (((size_t)b * a.stride + j0 + jj) * a.Hk + hk) * a.D;
            for (int i = 0; i < ATT_PER_LANE; i++)
                if (lane + i * WARP < a.D) acc[i] += ds_j * (float)k_j[lane + i * WARP];
        }
    }
    for (int i = 0; i < ATT_PER_LANE; i++)
        if (lane + i * WARP < a.D)
            dq[row * a.D + lane + i * WARP] = (float)dq[row * a.D + lane + i * WARP] + a.scale * acc[i];
}
/* dk, dv: a warp a key row (b, j, hk), over the queries of its heads in order. */
__global__ void attention_dkv_kernel(real *dk, real *dv, const real *dout, const wide *lse, const wide *delta,
                                     const real *q, const real *k, const real *v, const int *start, AttnArgs a,
                                     size_t rows) {
    const size_t row = (size_t)blockIdx.x * ATT_WARPS + threadIdx.x / WARP;
    const int lane = threadIdx.x % WARP;
    if (row >= rows) return;
    const int hk = (int)(row % a.Hk), j = (int)(row / a.Hk % a.T), b = (int)(row / a.Hk / a.T), group = a.H / a.Hk;
    const size_t at = (((size_t)b * a.stride + j) * a.Hk + hk) * a.D;
    const real *k_j = k + at, *v_j = v + at;
    const int last = a.window > 0 ? min(a.T, j + a.window) : a.T;
    float acc_k[ATT_PER_LANE] = {}, acc_v[ATT_PER_LANE] = {};
    for (int h = hk * group; h < (hk + 1) * group; h++)
        for (int t0 = j; t0 < last; t0 += WARP) {
            const int t = t0 + lane;
            const size_t r = ((size_t)b * a.T + t) * a.H + h;
            float p = 0, ds = 0;
            if (t < last && first_key(a, start, b, t) <= j) {
                float s = 0, dp = 0;
                for (int c = 0; c < a.D; c++)
                    s += (float)q[r * a.D + c] * (float)k_j[c], dp += (float)dout[r * a.D + c] * (float)v_j[c];
                p = expf(a.scale * s - lse[r]);
                ds = p * (dp - delta[r]);
            }
            const int queries = min((int)WARP, last - t0);
            for (int tt = 0; tt < queries; tt++) {
                const float p_t = __shfl_sync(FULL, p, tt), ds_t = __shfl_sync(FULL, ds, tt);
                const size_t rt = (((size_t)b * a.T + t0 + tt) * a.H + h) * a.D;
                for (int i = 0; i < ATT_PER_LANE; i++)
                    if (lane + i * WARP < a.D) {
                        acc_v[i] += p_t * (float)dout[rt + lane + i * WARP];
                        acc_k[i] += ds_t * (float)q[rt + lane + i * WARP];
                    }
            }
        }
    for (int i = 0; i < ATT_PER_LANE; i++) {
        const int c = lane + i * WARP;
        if (c >= a.D) break;
        if (dk) dk[at + c] = (float)dk[at + c] + a.scale * acc_k[i];
        if (dv) dv[at + c] = (float)dv[at + c] + acc_v[i];
    }
}
static void attention_backward_plain(real *dq, real *dk, real *dv, const real *dout, const real *o, const wide *lse,
                                     const real *q, const real *k, const real *v, const int *start, double scale,
                                     void *work, const AttnDims *d) {
    const size_t rows = (size_t)d->B * d->T * d->H, keys = (size_t)d->B * d->T * d->Hk;
    const AttnArgs a = attn_args(d, scale);
    wide *delta = (wide *)work;
    LAUNCH(attention_delta_kernel, ceil_div(rows, ATT_WARPS), ATT_WARPS * WARP, 0, delta, dout, o, d->D, rows);
    if (dq)
        LAUNCH(attention_dq_kernel, ceil_div(rows, ATT_WARPS), ATT_WARPS * WARP, 0, dq, dout, lse, delta, q, k, v,
               start, a, rows);
    if (dk || dv)
        LAUNCH(attention_dkv_kernel, ceil_div(keys, ATT_WARPS), ATT_WARPS * WARP, 0, dk, dv, dout, lse, delta, q, k, v,
               start, a, keys);
}
