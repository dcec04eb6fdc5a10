/* attention_step.cu - attention of one new token (T = 1) over a cache of keys, bound by reading the cache once.
 *
 * The visible keys are cut into pieces of 256, one block each, so that a single sequence fills the device;
 * a block does all heads of a group, eight at a time, with a thread a key for the scores and a thread an element for
 * the sums. Each piece leaves its maximum, its sum of exponentials and its unnormalised output in the workspace;
 * a second kernel puts the pieces together in their order. */
enum { SPLIT_KEYS = 256, SPLIT_THREADS = 128, SPLIT_HEADS = 8 };

/* Scores of the piece's keys for `heads` heads, queries (scaled) in qs. */
__device__ void split_scores(SHARED_PTR(float) s, SHARED_PTR(float) qs, const real *k, size_t row, int keys, int heads,
                             int D) {
    for (int j = threadIdx.x; j < keys; j += SPLIT_THREADS) {
        float dot[SPLIT_HEADS] = {};
        for (int c = 0; c < D; c += PACK) {
            const Pack p = pack_load(k + j * row, c, D);
            for (int h = 0; h < SPLIT_HEADS && h < heads; h++)
                for (int e = 0; e < PACK && c + e < D; e++) dot[h] += qs[h * ATT_MAX_D + c + e] * p.v[e];
        }
        for (int h = 0; h < SPLIT_HEADS && h < heads; h++) s[h * SPLIT_KEYS + j] = dot[h];
    }
}
// 8 blocks a multiprocessor: 64 registers a thread; left to itself the compiler stops at 48 on sm_100 and spills
__global__ void __launch_bounds__(SPLIT_THREADS, 8)
    attention_split_kernel(wide *part, const real *q, const real *k, const real *v, const int *start, int splits,
                           AttnArgs a) {
    SHARED(float, qs, SPLIT_HEADS *ATT_MAX_D);
    SHARED(float, s, SPLIT_HEADS *SPLIT_KEYS);
    const int b = blockIdx.y / a.Hk, hk = blockIdx.y % a.Hk, group = a.H / a.Hk, lane = threadIdx.x % WARP,
              warp = threadIdx.x / WARP, first = first_key(a, start, b, a.past) + blockIdx.x * SPLIT_KEYS,
              keys = max(0, min((int)SPLIT_KEYS, a.past + 1 - first));
    const size_t row = (size_t)a.Hk * a.D, at = (((size_t)b * a.stride + first) * a.Hk + hk) * a.D;
    for (int h0 = 0; h0 < group; h0 += SPLIT_HEADS) {
        const int heads = min((int)SPLIT_HEADS, group - h0);
        const size_t head = (size_t)b * a.H + hk * group + h0; // and the next ones
        __syncthreads();
        for (int e = threadIdx.x; e < heads * a.D; e += SPLIT_THREADS)
            qs[e / a.D * ATT_MAX_D + e % a.D] = a.scale * (float)q[head * a.D + e];
        __syncthreads();
        split_scores(s, qs, k + at, row, keys, heads, a.D);
        __syncthreads();
        for (int h = warp; h < heads; h += SPLIT_THREADS / WARP) {
            float m = -INFINITY, sum = 0;
            for (int j = lane; j < keys; j += WARP) m = fmaxf(m, s[h * SPLIT_KEYS + j]);
            m = warp_max(m);
            for (int j = lane; j < keys; j += WARP) {
                const float p = expf(s[h * SPLIT_KEYS + j] - m);
                s[h * SPLIT_KEYS + j] = p, sum += p;
            }
            sum = warp_sum(sum);
            wide *to = part + ((head + h) * splits + blockIdx.x) * (a.D + 2) + a.D;
            if (lane == 0) to[0] = m, to[1] = sum;
        }
        __syncthreads();
        for (int c = threadIdx.x; c < a.D; c += SPLIT_THREADS) {
            float acc[SPLIT_HEADS] = {};
            for (int j = 0; j < keys; j++) {
                const float v_jc = v[at + j * row + c];
                for (int h = 0; h < SPLIT_HEADS && h < heads; h++) acc[h] += s[h * SPLIT_KEYS + j] * v_jc;
            }
            for (int h = 0; h < heads; h++) part[((head + h) * splits + blockIdx.x) * (a.D + 2) + c] = acc[h];
        }
    }
}
__global__ void attention_join_kernel(real *o, wide *lse, const wide *part, int splits, int D) {
    const wide *p = part + (size_t)blockIdx.x * splits * (D + 2);
    float m = -INFINITY, sum = 0;
    for (int s = 0; s < splits; s++) m = fmaxf(m, p[s * (D + 2) + D]);
    for (int s = 0; s < splits; s++) sum += p[s * (D + 2) + D + 1] * expf(p[s * (D + 2) + D] - m);
    for (int c = threadIdx.x; c < D; c += blockDim.x) {
        float acc = 0;
        for (int s = 0; s < splits; s++) acc += p[s * (D + 2) + c] * expf(p[s * (D + 2) + D] - m);
        o[(size_t)blockIdx.x * D + c] = acc / sum;
    }
    if (threadIdx.x == 0) lse[blockIdx.x] = m + logf(sum);
}
static void attention_step(real *o, wide *lse, const real *q, const real *k, const real *v, const int *start,
                           double scale, void *work, const AttnDims *d) {
    const AttnArgs a = attn_args(d, scale);
    const int seen = d->window > 0 && d->window < a.Tk ? d->window : a.Tk, splits = (int)ceil_div(seen, SPLIT_KEYS);
    LAUNCH(attention_split_kernel, dim3(splits, d->B * d->Hk), SPLIT_THREADS, 0, (wide *)work, q, k, v, start, splits,
           a);
    LAUNCH(attention_join_kernel, d->B * d->H, SPLIT_THREADS, 0, o, lse, (wide *)work, splits, d->D);
}
