/* attention_wgmma.cu - attention forward for Hopper (sm_90a), BF16, D = 64 or 128: the schedule of FlashAttention-3
 * (arXiv 2407.08608, sections 3.1 and 3.2).
 *
 * A block has 128 queries of one head. One warpgroup only fetches: the queries once, then key and value tiles of 128
 * into rings of two stages each. Two warpgroups compute, 64 queries each. While the scores of the next tile and the
 * output of this one are under way in the matrix unit, nothing else of a warpgroup runs but the softmax of the scores:
 *     S(n) = Q K(n)^T and O += P(n-1) V(n-1) are issued together;  wait for S(n);  softmax;
 *     wait for O;  O *= shrink;  P(n) = S(n) rounded.
 * `full` barriers: a tile has arrived; `free`: all eight computing warps have done with it. */
enum { HOP_ROWS = 128, HOP_KEYS = 128, HOP_THREADS = 384, HOP_WARPS = 8, HOP_NB = HOP_KEYS / 8 };
enum { Q_FULL, K_FULL, K_FREE = K_FULL + 2, V_FULL = K_FREE + 2, V_FREE = V_FULL + 2, HOP_BARRIERS = V_FREE + 2 };
template <int D> struct HopTile { // in elements; bytes a stage
    enum { PANELS = D / PANEL, KEYS = HOP_KEYS * D, ROWS = HOP_ROWS * D, BYTES = 2 * KEYS };
};

#ifdef HOPPER
/* Rows x D elements, a panel at a time; x and y of the map are the column and the head. */
template <int D>
__device__ void hop_fetch(SHARED_PTR(Bf16) tile, const CUtensorMap &map, int head, int row, int b, Mbarriers full) {
    mbarrier_expect(full, HopTile<D>::BYTES);
    for (int i = 0; i < HopTile<D>::PANELS; i++)
        tensor_fetch(tile + i * HOP_KEYS * PANEL, map, i * PANEL, head, row, b, full);
}
template <int D>
__device__ __forceinline__ void hop_scores(float (&s)[HOP_NB][4], SHARED_PTR(Bf16) q, SHARED_PTR(Bf16) k, int row) {
#pragma unroll
    for (int i = 0; i < D / 16; i++)
        wgmma<false, false>(s, of_rows(q + i / 4 * HOP_ROWS * PANEL, row, i % 4 * 16),
                            of_rows(k + i / 4 * HOP_KEYS * PANEL, 0, i % 4 * 16), i > 0);
    wgmma_commit();
}
template <int D>
__device__ __forceinline__ void hop_output(float (&acc)[D / 8][4], unsigned (&p)[HOP_KEYS / 16][4],
                                           SHARED_PTR(Bf16) v) {
#pragma unroll
    for (int i = 0; i < HOP_KEYS / 16; i++) wgmma<true>(acc, p[i], of_columns(v, i * 16, HOP_KEYS * PANEL * 2), true);
    wgmma_commit();
}
/* Scores become exp2(scale2 (s - top)); top and sum of the two rows move on; what came before shrinks. */
__device__ __forceinline__ void hop_softmax(float (&s)[HOP_NB][4], float (&top)[2], float (&sum)[2], float (&shrink)[2],
                                            float scale2) {
    float base2[2];
#pragma unroll
    for (int i = 0; i < 2; i++) {
        float m = top[i];
#pragma unroll
        for (int n = 0; n < HOP_NB; n++) m = fmaxf(m, fmaxf(s[n][2 * i], s[n][2 * i + 1]));
        m = fmaxf(m, __shfl_xor_sync(FULL, m, 1));
        m = fmaxf(m, __shfl_xor_sync(FULL, m, 2));
        base2[i] = m == -INFINITY ? 0.0f : m * scale2; // a row that has seen nothing yet
        shrink[i] = exp2_approx(top[i] * scale2 - base2[i]);
        top[i] = m;
        sum[i] *= shrink[i];
    }
#pragma unroll
    for (int n = 0; n < HOP_NB; n++)
#pragma unroll
        for (int e = 0; e < 4; e++) s[n][e] = exp2_approx(s[n][e] * scale2 - base2[e / 2]), sum[e / 2] += s[n][e];
}
__device__ __forceinline__ void hop_mask(float (&s)[HOP_NB][4], const FlashRows &see, int j0) {
#pragma unroll
    for (int n = 0; n < HOP_NB; n++)
#pragma unroll
        for (int e = 0; e < 4; e++)
            if (!flash_sees(see, e / 2, j0 + n * 8 + (int)threadIdx.x % 4 * 2 + e % 2)) s[n][e] = -INFINITY;
}
__device__ __forceinline__ void hop_round(unsigned (&p)[HOP_KEYS / 16][4], const float (&s)[HOP_NB][4]) {
#pragma unroll
    for (int i = 0; i < HOP_KEYS / 16; i++) pack_a(p[i], s[2 * i], s[2 * i + 1]);
}
__device__ __forceinline__ void hop_release(Mbarriers free) { // behind a wait of the whole warp
    if (threadIdx.x % WARP == 0) mbarrier_arrive(free);
}
#endif

template <int D>
__global__ void __launch_bounds__(HOP_THREADS, 1)
    flash_forward_wgmma_kernel(Bf16 *o, float *lse, const int *start, AttnArgs a,
                               const __grid_constant__ CUtensorMap qm, const __grid_constant__ CUtensorMap km,
                               const __grid_constant__ CUtensorMap vm) {
#ifdef HOPPER
    typedef HopTile<D> Tile;
    DYNAMIC_SHARED_1024(Bf16, cursor);
    const SHARED_PTR(Bf16) qs = shared_take<Bf16>(cursor, Tile::ROWS), ks = shared_take<Bf16>(cursor, 2 * Tile::KEYS),
                           vs = shared_take<Bf16>(cursor, 2 * Tile::KEYS);
    const Mbarriers bar = shared_take<uint64_t>(cursor, HOP_BARRIERS);
    const int tile = gridDim.y - 1 - blockIdx.y, t0 = tile * HOP_ROWS; // the longest rows first
    const int b = blockIdx.x / a.H, h = blockIdx.x % a.H, hk = h / (a.H / a.Hk);
    const int last = a.past + min(t0 + (int)HOP_ROWS, a.T) - 1, first = first_key(a, start, b, a.past + t0);
    const int j_begin = first / HOP_KEYS, tiles = last / HOP_KEYS + 1 - j_begin;
    if (threadIdx.x == 0) {
        for (int i = 0; i < HOP_BARRIERS; i++)
            mbarrier_init(bar + i, (i >= K_FREE && i < V_FULL) || i >= V_FREE ? HOP_WARPS : 1);
        async_fence();
    }
    __syncthreads();
    if (threadIdx.x < 128) { // fetch
        registers_shrink<24>();
        if (threadIdx.x > 0) return;
        hop_fetch<D>(qs, qm, h, t0, b, bar + Q_FULL);
        for (int n = 0; n < tiles; n++) {
            const int stage = n % 2, round = n / 2, j0 = (j_begin + n) * HOP_KEYS;
            mbarrier_wait(bar + (K_FREE + stage), (round & 1) ^ 1); // the first round finds them free
            hop_fetch<D>(ks + stage * Tile::KEYS, km, hk, j0, b, bar + (K_FULL + stage));
            mbarrier_wait(bar + (V_FREE + stage), (round & 1) ^ 1);
            hop_fetch<D>(vs + stage * Tile::KEYS, vm, hk, j0, b, bar + (V_FULL + stage));
        }
        return;
    }
    registers_grow<240>();
    const int row = (threadIdx.x / 128 - 1) * 64, warp = threadIdx.x / WARP % 4;
    const FlashRows see = flash_rows(a, start, b, t0 + row + warp * 16);
    const int latest_first = first_key(a, start, b, last);
    const float scale2 = a.scale * LOG2E;
    float acc[D / 8][4] = {}, s[HOP_NB][4], top[2] = {-INFINITY, -INFINITY}, sum[2] = {0, 0}, shrink[2];
    unsigned p[HOP_KEYS / 16][4];
    mbarrier_wait(bar + Q_FULL, 0);
    for (int n = 0; n < tiles; n++) {
        const int stage = n % 2, j0 = (j_begin + n) * HOP_KEYS, before = 1 - stage;
        mbarrier_wait(bar + (K_FULL + stage), n / 2 & 1);
        wgmma_fence(s);
        hop_scores<D>(s, qs, ks + stage * Tile::KEYS, row);
        if (n > 0) {
            mbarrier_wait(bar + (V_FULL + before), (n - 1) / 2 & 1);
            wgmma_fence(p, acc);
            hop_output<D>(acc, p, vs + before * Tile::KEYS);
            wgmma_wait<1>(s);
        } else wgmma_wait<0>(s);
        hop_release(bar + (K_FREE + stage));
        if (j0 < latest_first || j0 + HOP_KEYS - 1 > a.past + t0 + row) hop_mask(s, see, j0);
        hop_softmax(s, top, sum, shrink, scale2);
        wgmma_wait<0>(acc, p);
        if (n > 0) hop_release(bar + (V_FREE + before));
#pragma unroll
        for (int i = 0; i < D / 8; i++)
#pragma unroll
            for (int e = 0; e < 4; e++) acc[i][e] *= shrink[e / 2];
        hop_round(p, s);
    }
    mbarrier_wait(bar + (V_FULL + (tiles - 1) % 2), (tiles - 1) / 2 & 1);
    wgmma_fence(p, acc);
    hop_output<D>(acc, p, vs + (tiles - 1) % 2 * Tile::KEYS);
    wgmma_wait<0>(acc);
    flash_store<D>(o, lse, acc, top, sum, scale2, b, t0 + row + warp * 16, h, a);
#else
    not_hopper();
#endif
}

/* One of q, k, v: B x rows x heads x D elements, sequences `stride` rows apart. */
static int hop_describe(CUtensorMap *map, const Bf16 *x, int B, int rows, int stride, int heads, int D, int box) {
    const uint64_t dim[4] = {(uint64_t)D, (uint64_t)heads, (uint64_t)rows, (uint64_t)B}, row = (uint64_t)heads * D * 2,
                   strides[3] = {(uint64_t)D * 2, row, row * (uint64_t)stride};
    const unsigned boxes[4] = {PANEL, 1, (unsigned)box, 1};
    return tensor_describe(map, x, 4, dim, strides, boxes);
}
template <int D>
static void flash_forward_wgmma(Bf16 *o, float *lse, const Bf16 *q, const Bf16 *k, const Bf16 *v, const int *start,
                                double scale, const AttnDims *d) {
    const AttnArgs a = attn_args(d, scale);
    CUtensorMap qm, km, vm;
    if (hop_describe(&qm, q, d->B, a.T, a.T, a.H, D, HOP_ROWS) ||
        hop_describe(&km, k, d->B, a.Tk, a.stride, a.Hk, D, HOP_KEYS) ||
        hop_describe(&vm, v, d->B, a.Tk, a.stride, a.Hk, D, HOP_KEYS))
        return;
    const size_t shared = (HopTile<D>::ROWS + 4 * HopTile<D>::KEYS) * sizeof(Bf16) + HOP_BARRIERS * sizeof(uint64_t);
    LAUNCH(flash_forward_wgmma_kernel<D>, dim3(d->B * d->H, ceil_div(d->T, HOP_ROWS)), HOP_THREADS, shared, o, lse,
           start, a, qm, km, vm);
}
