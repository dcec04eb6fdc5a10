/* attention_ladder.cu - attention forward, the second and third rung of LADDER.md: one idea each on the way from
 * attention.cu to attention_mma.cu. Only HYB_CUDA_VERSION=2 and =3 run them. */

// ---- 2: tiles of keys and values in shared memory, read by all queries of a block ----
enum { LADDER_ROWS = 32, LADDER_KEYS = 32, LADDER_WARPS = 4, LADDER_MAX_D = 128 };
enum { LADDER_EACH = LADDER_ROWS / LADDER_WARPS }; // rows of a warp

/* A warp has eight queries. For the scores its lanes are the tile's keys, so that a key's element is read once for
 * eight products; for the output they are columns. Rows of keys are D + 1 apart: lanes read down a column. */
__global__ void __launch_bounds__(LADDER_WARPS *WARP)
    attention_forward_shared_kernel(Bf16 *o, float *lse, const Bf16 *q, const Bf16 *k, const Bf16 *v, const int *start,
                                    AttnArgs a) {
    DYNAMIC_SHARED(float, cursor);
    const SHARED_PTR(float) qs = shared_take<float>(cursor, LADDER_ROWS * a.D),
                            ks = shared_take<float>(cursor, LADDER_KEYS * (a.D + 1)),
                            vs = shared_take<float>(cursor, LADDER_KEYS * a.D);
    const int b = blockIdx.x / a.H, h = blockIdx.x % a.H, hk = h / (a.H / a.Hk), t0 = blockIdx.y * LADDER_ROWS,
              lane = threadIdx.x % WARP, row0 = threadIdx.x / WARP * LADDER_EACH,
              rows = min((int)LADDER_ROWS, a.T - t0);
    for (int i = threadIdx.x; i < LADDER_ROWS * a.D; i += LADDER_WARPS * WARP) {
        const int r = i / a.D, c = i % a.D;
        qs[i] = r < rows ? (float)q[(((size_t)b * a.T + t0 + r) * a.H + h) * a.D + c] * a.scale : 0.0f;
    }
    float acc[LADDER_EACH][LADDER_MAX_D / WARP] = {}, top[LADDER_EACH], sum[LADDER_EACH] = {};
    for (int r = 0; r < LADDER_EACH; r++) top[r] = -INFINITY;
    const int last = a.past + t0 + rows - 1, begin = first_key(a, start, b, a.past + t0) / LADDER_KEYS * LADDER_KEYS;
    for (int j0 = begin; j0 <= last; j0 += LADDER_KEYS) {
        __syncthreads(); // the tile before has been read
        for (int i = threadIdx.x; i < LADDER_KEYS * a.D; i += LADDER_WARPS * WARP) {
            const int r = i / a.D, c = i % a.D;
            const size_t at = (((size_t)b * a.stride + j0 + r) * a.Hk + hk) * a.D + c;
            ks[r * (a.D + 1) + c] = j0 + r <= last ? (float)k[at] : 0.0f;
            vs[i] = j0 + r <= last ? (float)v[at] : 0.0f;
        }
        __syncthreads();
        float s[LADDER_EACH] = {};
        for (int c = 0; c < a.D; c++) {
            const float k_c = ks[lane * (a.D + 1) + c];
#pragma unroll
            for (int r = 0; r < LADDER_EACH; r++) s[r] += qs[(row0 + r) * a.D + c] * k_c;
        }
#pragma unroll
        for (int r = 0; r < LADDER_EACH; r++) {
            const int pos = a.past + t0 + row0 + r, j = j0 + lane;
            if (row0 + r >= rows || j > pos || j < first_key(a, start, b, pos)) s[r] = -INFINITY;
            const float m = fmaxf(top[r], warp_max(s[r])), base = m == -INFINITY ? 0.0f : m,
                        shrink = expf(top[r] - base);
            s[r] = expf(s[r] - base);
            sum[r] = sum[r] * shrink + warp_sum(s[r]);
            top[r] = m;
            for (int i = 0; i < LADDER_MAX_D / WARP; i++) acc[r][i] *= shrink;
        }
        for (int j = 0; j < LADDER_KEYS; j++) {
            float v_j[LADDER_MAX_D / WARP];
            for (int i = 0; i < LADDER_MAX_D / WARP; i++)
                v_j[i] = lane + i * WARP < a.D ? (float)vs[j * a.D + lane + i * WARP] : 0.0f;
#pragma unroll
            for (int r = 0; r < LADDER_EACH; r++) {
                const float p = __shfl_sync(FULL, s[r], j);
                for (int i = 0; i < LADDER_MAX_D / WARP; i++) acc[r][i] += p * v_j[i];
            }
        }
    }
    for (int r = 0; r < LADDER_EACH && row0 + r < rows; r++) {
        const size_t row = ((size_t)b * a.T + t0 + row0 + r) * a.H + h;
        for (int i = 0; i < LADDER_MAX_D / WARP; i++)
            if (lane + i * WARP < a.D) o[row * a.D + lane + i * WARP] = acc[r][i] / sum[r];
        if (lane == 0) lse[row] = top[r] + logf(sum[r]);
    }
}
static void attention_forward_shared(Bf16 *o, float *lse, const Bf16 *q, const Bf16 *k, const Bf16 *v, const int *start,
                                     double scale, const AttnDims *d) {
    const size_t shared = (LADDER_ROWS * d->D + LADDER_KEYS * (2 * d->D + 1)) * sizeof(float);
    LAUNCH(attention_forward_shared_kernel, dim3(d->B * d->H, ceil_div(d->T, LADDER_ROWS)), LADDER_WARPS * WARP, shared,
           o, lse, q, k, v, start, attn_args(d, scale));
}

// ---- 3: the same on the matrix unit: 64 queries a block, 16 a warp; a tile is fetched, waited for, used ----
template <int D>
__global__ void __launch_bounds__(FLASH_THREADS)
    attention_forward_products_kernel(Bf16 *o, float *lse, const Bf16 *q, const Bf16 *k, const Bf16 *v,
                                      const int *start, AttnArgs a) {
    DYNAMIC_SHARED(Bf16, cursor);
    enum { ROWS = 16 * FLASH_WARPS };
    const SHARED_PTR(Bf16) ks = shared_take<Bf16>(cursor, FLASH_KEYS * Tile<D>::LD),
                           vs = shared_take<Bf16>(cursor, FLASH_KEYS * Tile<D>::LD);
    const int b = blockIdx.x / a.H, h = blockIdx.x % a.H, hk = h / (a.H / a.Hk), t0 = blockIdx.y * ROWS,
              row0 = threadIdx.x / WARP * 16, rows = min((int)ROWS, a.T - t0);
    const size_t row_stride = (size_t)a.H * D, key_stride = (size_t)a.Hk * D;
    const auto fetch = [&](SHARED_PTR(Bf16) tile, const Bf16 *from, size_t stride, int valid) {
        for (int i = threadIdx.x; i < 64 * D / 8; i += FLASH_THREADS) {
            const int r = i / (D / 8), c = i % (D / 8) * 8;
            const uint4 zero = {0, 0, 0, 0};
            shared_store16(tile + r * Tile<D>::LD + c, r < valid ? *(const uint4 *)(from + r * stride + c) : zero);
        }
    };
    unsigned qa[D / 16][4];
    fetch(ks, q + (((size_t)b * a.T + t0) * a.H + h) * D, row_stride, rows); // queries: through the keys' place
    __syncthreads();
    for (int i = 0; i < D / 16; i++) load_a<D>(qa[i], ks, row0, i * 16);
    const FlashMask mask = {a, start, b, t0};
    FlashState<D, 1> w = {};
    w.top[0][0] = w.top[0][1] = -INFINITY;
    const float scale2 = a.scale * LOG2E;
    const int last = a.past + t0 + rows - 1, begin = first_key(a, start, b, a.past + t0) / FLASH_KEYS * FLASH_KEYS;
    for (int j0 = begin; j0 <= last; j0 += FLASH_KEYS) {
        const size_t at = (((size_t)b * a.stride + j0) * a.Hk + hk) * D;
        __syncthreads(); // the tile before has been read
        fetch(ks, k + at, key_stride, a.Tk - j0);
        fetch(vs, v + at, key_stride, a.Tk - j0);
        __syncthreads();
        flash_tile<D, 1>(w, qa, ks, row0, ks, vs, mask, true, j0, scale2);
    }
    flash_store<D>(o, lse, w.acc[0], w.top[0], w.sum[0], scale2, b, t0 + row0, h, a);
}
template <int D>
static void attention_forward_products(Bf16 *o, float *lse, const Bf16 *q, const Bf16 *k, const Bf16 *v,
                                       const int *start, double scale, const AttnDims *d) {
    LAUNCH(attention_forward_products_kernel<D>, dim3(d->B * d->H, ceil_div(d->T, 16 * FLASH_WARPS)), FLASH_THREADS,
           2 * FLASH_KEYS * Tile<D>::LD * sizeof(Bf16), o, lse, q, k, v, start, attn_args(d, scale));
}
