/* attention_wgmma_backward.cu - attention backward for Hopper (sm_90a), BF16, D = 64 or 128: the two kernels of
 * attention_mma.cu, without atomics and in a fixed order, on attention_wgmma.cu's schedule. A block keeps 128 rows of
 * two matrices in shared memory and walks over tiles of 64 rows of the other two, which one warpgroup fetches for two:
 *     dk, dv of 128 keys    S^T = K Q^T, dP^T = V dO^T;  dv += P^T dO, dk += dS^T Q
 *     dq of 128 queries     S = Q K^T, dP = dO V^T;      dq += dS K
 * All results of the first two products stay in registers, as the A of the others. */
enum { HOP_STEP = 64, STEP_NB = HOP_STEP / 8 };
enum { KEPT_FULL, STEP_FULL, STEP_FREE = STEP_FULL + 2, BACK_BARRIERS = STEP_FREE + 2 };

#ifdef HOPPER
template <int D, int ROWS>
__device__ void hop_rows(SHARED_PTR(Bf16) tile, const CUtensorMap &map, int head, int row, int b, Mbarriers full) {
    for (int i = 0; i < D / PANEL; i++) tensor_fetch(tile + i * ROWS * PANEL, map, i * PANEL, head, row, b, full);
}
/* s (64 x 64) = rows of a kept tile times the rows of a step's tile, over D. */
template <int D>
__device__ __forceinline__ void hop_rows_product(float (&s)[STEP_NB][4], SHARED_PTR(Bf16) kept, int row,
                                                 SHARED_PTR(Bf16) step) {
#pragma unroll
    for (int i = 0; i < D / 16; i++)
        wgmma<false, false>(s, of_rows(kept + i / 4 * HOP_ROWS * PANEL, row, i % 4 * 16),
                            of_rows(step + i / 4 * HOP_STEP * PANEL, 0, i % 4 * 16), i > 0);
}
/* acc (64 x D) += p (64 x 64, rounded) times a step's tile. */
template <int D>
__device__ __forceinline__ void hop_step_product(float (&acc)[D / 8][4], unsigned (&p)[HOP_STEP / 16][4],
                                                 SHARED_PTR(Bf16) step) {
#pragma unroll
    for (int i = 0; i < HOP_STEP / 16; i++)
        wgmma<true>(acc, p[i], of_columns(step, i * 16, HOP_STEP * PANEL * 2), true);
}
__device__ inline void back_barriers(Mbarriers bar, int writers) {
    if (threadIdx.x == 0) {
        for (int i = 0; i < BACK_BARRIERS; i++)
            mbarrier_init(bar + i, i >= STEP_FREE ? HOP_WARPS : i >= STEP_FULL ? writers : 1);
        async_fence();
    }
    __syncthreads();
}
#endif

template <int D>
__global__ void __launch_bounds__(HOP_THREADS, 1)
    flash_dkv_wgmma_kernel(Bf16 *dk, Bf16 *dv, const float *lse, const float *delta, const int *start, AttnArgs a,
                           const __grid_constant__ CUtensorMap qm, const __grid_constant__ CUtensorMap om,
                           const __grid_constant__ CUtensorMap km, const __grid_constant__ CUtensorMap vm) {
#ifdef HOPPER
    enum { KEPT = HOP_ROWS * D, STEP = HOP_STEP * D, STATS = 3 * HOP_STEP };
    DYNAMIC_SHARED_1024(Bf16, cursor);
    const SHARED_PTR(Bf16) ks = shared_take<Bf16>(cursor, KEPT), vs = shared_take<Bf16>(cursor, KEPT),
                           qs = shared_take<Bf16>(cursor, 2 * STEP), os = shared_take<Bf16>(cursor, 2 * STEP);
    const SHARED_PTR(float) stats = shared_take<float>(cursor, 2 * STATS); // lse in base 2, delta, first visible key
    const Mbarriers bar = shared_take<uint64_t>(cursor, BACK_BARRIERS);
    const int b = blockIdx.x / a.Hk, hk = blockIdx.x % a.Hk, group = a.H / a.Hk, j0 = blockIdx.y * HOP_ROWS,
              keys = min((int)HOP_ROWS, a.T - j0), warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    const int t_begin = j0 / HOP_STEP, t_last = a.window > 0 ? min(a.T, j0 + keys - 1 + a.window) : a.T,
              tiles = (t_last + HOP_STEP - 1) / HOP_STEP - t_begin, steps = tiles * group; // heads outside
    back_barriers(bar, 1 + WARP);
    if (threadIdx.x < 128) { // a thread of warp 0 starts the copies, warp 1 makes the statistics
        registers_shrink<40>();
        if (warp > 1 || (warp == 0 && lane > 0)) return;
        if (warp == 0) {
            mbarrier_expect(bar + KEPT_FULL, 2 * KEPT * 2);
            hop_rows<D, HOP_ROWS>(ks, km, hk, j0, b, bar + KEPT_FULL);
            hop_rows<D, HOP_ROWS>(vs, vm, hk, j0, b, bar + KEPT_FULL);
        }
        for (int n = 0; n < steps; n++) {
            const int stage = n % 2, h = hk * group + n / tiles, t0 = (t_begin + n % tiles) * HOP_STEP;
            mbarrier_wait(bar + (STEP_FREE + stage), (n / 2 & 1) ^ 1);
            if (warp == 0) {
                mbarrier_expect(bar + (STEP_FULL + stage), 2 * STEP * 2);
                hop_rows<D, HOP_STEP>(qs + stage * STEP, qm, h, t0, b, bar + (STEP_FULL + stage));
                hop_rows<D, HOP_STEP>(os + stage * STEP, om, h, t0, b, bar + (STEP_FULL + stage));
                continue;
            }
            for (int x = lane; x < HOP_STEP; x += WARP) {
                const int t = t0 + x;
                const size_t row = ((size_t)b * a.T + t) * a.H + h;
                stats[stage * STATS + x] = t < a.T ? lse[row] * LOG2E : 0.0f;
                stats[stage * STATS + HOP_STEP + x] = t < a.T ? delta[row] : 0.0f;
                stats[stage * STATS + 2 * HOP_STEP + x] =
                    __uint_as_float((unsigned)(t < a.T ? first_key(a, start, b, t) : 0x40000000));
            }
            mbarrier_arrive(bar + (STEP_FULL + stage));
        }
        return;
    }
    registers_grow<232>();
    const int row = (threadIdx.x / 128 - 1) * 64, mine = row + warp % 4 * 16 + lane / 4;
    const float scale2 = a.scale * LOG2E;
    float acc_k[D / 8][4] = {}, acc_v[D / 8][4] = {}, s[STEP_NB][4], dp[STEP_NB][4];
    unsigned pa[HOP_STEP / 16][4], da[HOP_STEP / 16][4];
    mbarrier_wait(bar + KEPT_FULL, 0);
    for (int n = 0; n < steps; n++) {
        const int stage = n % 2, t0 = (t_begin + n % tiles) * HOP_STEP, at = stage * STATS;
        mbarrier_wait(bar + (STEP_FULL + stage), n / 2 & 1);
        wgmma_fence(s, dp);
        hop_rows_product<D>(s, ks, row, qs + stage * STEP);
        hop_rows_product<D>(dp, vs, row, os + stage * STEP);
        wgmma_commit();
        wgmma_wait<0>(s, dp);
#pragma unroll
        for (int i = 0; i < STEP_NB; i++)
#pragma unroll
            for (int e = 0; e < 4; e++) {
                const int x = i * 8 + lane % 4 * 2 + e % 2, key = j0 + mine + e / 2 * 8;
                const int first = (int)__float_as_uint(stats[at + 2 * HOP_STEP + x]);
                flash_ds(s[i][e], dp[i][e], key >= first && key <= t0 + x, scale2, stats[at + x],
                         stats[at + HOP_STEP + x]);
            }
#pragma unroll
        for (int i = 0; i < HOP_STEP / 16; i++)
            pack_a(pa[i], s[2 * i], s[2 * i + 1]), pack_a(da[i], dp[2 * i], dp[2 * i + 1]);
        wgmma_fence(pa, da, acc_v, acc_k);
        hop_step_product<D>(acc_v, pa, os + stage * STEP);
        hop_step_product<D>(acc_k, da, qs + stage * STEP);
        wgmma_commit();
        wgmma_wait<0>(pa, da, acc_v, acc_k);
        __syncwarp(); // all lanes have read the statistics
        hop_release(bar + (STEP_FREE + stage));
    }
#pragma unroll
    for (int i = 0; i < D / 8; i++)
#pragma unroll
        for (int e = 0; e < 4; e += 2) {
            const int key = mine + e / 2 * 8;
            if (key >= keys) continue;
            const size_t at = (((size_t)b * a.stride + j0 + key) * a.Hk + hk) * D + i * 8 + lane % 4 * 2;
            if (dk) pair_add(dk + at, a.scale * acc_k[i][e], a.scale * acc_k[i][e + 1]);
            if (dv) pair_add(dv + at, acc_v[i][e], acc_v[i][e + 1]);
        }
#else
    not_hopper();
#endif
}

template <int D>
__global__ void __launch_bounds__(HOP_THREADS, 1)
    flash_dq_wgmma_kernel(Bf16 *dq, const float *lse, const float *delta, const int *start, AttnArgs a,
                          const __grid_constant__ CUtensorMap qm, const __grid_constant__ CUtensorMap om,
                          const __grid_constant__ CUtensorMap km, const __grid_constant__ CUtensorMap vm) {
#ifdef HOPPER
    enum { KEPT = HOP_ROWS * D, STEP = HOP_STEP * D };
    DYNAMIC_SHARED_1024(Bf16, cursor);
    const SHARED_PTR(Bf16) qs = shared_take<Bf16>(cursor, KEPT), os = shared_take<Bf16>(cursor, KEPT),
                           ks = shared_take<Bf16>(cursor, 2 * STEP), vs = shared_take<Bf16>(cursor, 2 * STEP);
    const Mbarriers bar = shared_take<uint64_t>(cursor, BACK_BARRIERS);
    const int t0 = (gridDim.y - 1 - blockIdx.y) * HOP_ROWS, b = blockIdx.x / a.H, h = blockIdx.x % a.H,
              hk = h / (a.H / a.Hk), lane = threadIdx.x % WARP;
    const int last = min(t0 + (int)HOP_ROWS, a.T) - 1, j_begin = first_key(a, start, b, t0) / HOP_STEP,
              steps = last / HOP_STEP + 1 - j_begin;
    back_barriers(bar, 1);
    if (threadIdx.x < 128) {
        registers_shrink<24>();
        if (threadIdx.x > 0) return;
        mbarrier_expect(bar + KEPT_FULL, 2 * KEPT * 2);
        hop_rows<D, HOP_ROWS>(qs, qm, h, t0, b, bar + KEPT_FULL);
        hop_rows<D, HOP_ROWS>(os, om, h, t0, b, bar + KEPT_FULL);
        for (int n = 0; n < steps; n++) {
            const int stage = n % 2, j0 = (j_begin + n) * HOP_STEP;
            mbarrier_wait(bar + (STEP_FREE + stage), (n / 2 & 1) ^ 1);
            mbarrier_expect(bar + (STEP_FULL + stage), 2 * STEP * 2);
            hop_rows<D, HOP_STEP>(ks + stage * STEP, km, hk, j0, b, bar + (STEP_FULL + stage));
            hop_rows<D, HOP_STEP>(vs + stage * STEP, vm, hk, j0, b, bar + (STEP_FULL + stage));
        }
        return;
    }
    registers_grow<240>();
    const int row = (threadIdx.x / 128 - 1) * 64, first_row = t0 + row + threadIdx.x / WARP % 4 * 16;
    const FlashRows see = flash_rows(a, start, b, first_row);
    const float scale2 = a.scale * LOG2E;
    float lse2[2] = {0, 0}, del[2] = {0, 0}, acc[D / 8][4] = {}, s[STEP_NB][4], dp[STEP_NB][4];
    unsigned da[HOP_STEP / 16][4];
    for (int i = 0; i < 2; i++) {
        const int t = first_row + lane / 4 + 8 * i;
        if (t >= a.T) continue;
        lse2[i] = lse[((size_t)b * a.T + t) * a.H + h] * LOG2E;
        del[i] = delta[((size_t)b * a.T + t) * a.H + h];
    }
    mbarrier_wait(bar + KEPT_FULL, 0);
    for (int n = 0; n < steps; n++) {
        const int stage = n % 2, j0 = (j_begin + n) * HOP_STEP;
        mbarrier_wait(bar + (STEP_FULL + stage), n / 2 & 1);
        wgmma_fence(s, dp);
        hop_rows_product<D>(s, qs, row, ks + stage * STEP);
        hop_rows_product<D>(dp, os, row, vs + stage * STEP);
        wgmma_commit();
        wgmma_wait<0>(s, dp);
#pragma unroll
        for (int i = 0; i < STEP_NB; i++)
#pragma unroll
            for (int e = 0; e < 4; e++)
                flash_ds(s[i][e], dp[i][e], flash_sees(see, e / 2, j0 + i * 8 + lane % 4 * 2 + e % 2), scale2,
                         lse2[e / 2], del[e / 2]);
#pragma unroll
        for (int i = 0; i < HOP_STEP / 16; i++) pack_a(da[i], dp[2 * i], dp[2 * i + 1]);
        wgmma_fence(da, acc);
        hop_step_product<D>(acc, da, ks + stage * STEP);
        wgmma_commit();
        wgmma_wait<0>(da, acc);
        hop_release(bar + (STEP_FREE + stage));
    }
#pragma unroll
    for (int i = 0; i < D / 8; i++)
#pragma unroll
        for (int e = 0; e < 4; e += 2) {
            const int t = first_row + lane / 4 + e / 2 * 8;
            if (t >= a.T) continue;
            const size_t at = (((size_t)b * a.T + t) * a.H + h) * D + i * 8 + lane % 4 * 2;
            pair_add(dq + at, a.scale * acc[i][e], a.scale * acc[i][e + 1]);
        }
#else
    not_hopper();
#endif
}

template <int D>
static void flash_backward_wgmma(Bf16 *dq, Bf16 *dk, Bf16 *dv, const Bf16 *dout, const Bf16 *o, const float *lse,
                                 const Bf16 *q, const Bf16 *k, const Bf16 *v, const int *start, double scale,
                                 void *work, const AttnDims *d) {
    const AttnArgs a = attn_args(d, scale);
    const size_t rows = (size_t)d->B * d->T * d->H,
                 shared = (2 * HOP_ROWS + 4 * HOP_STEP) * D * sizeof(Bf16) + BACK_BARRIERS * sizeof(uint64_t);
    float *delta = (float *)work;
    CUtensorMap qm, om, km, vm;
    const auto describe = [&](int box_q, int box_k) {
        return hop_describe(&qm, q, d->B, a.T, a.T, a.H, D, box_q) ||
               hop_describe(&om, dout, d->B, a.T, a.T, a.H, D, box_q) ||
               hop_describe(&km, k, d->B, a.T, a.stride, a.Hk, D, box_k) ||
               hop_describe(&vm, v, d->B, a.T, a.stride, a.Hk, D, box_k);
    };
    LAUNCH(attention_delta_kernel, ceil_div(rows, ATT_WARPS), ATT_WARPS * WARP, 0, delta, dout, o, D, rows);
    if ((dk || dv) && !describe(HOP_STEP, HOP_ROWS))
        LAUNCH(flash_dkv_wgmma_kernel<D>, dim3(d->B * d->Hk, ceil_div(d->T, HOP_ROWS)), HOP_THREADS,
               shared + 6 * HOP_STEP * sizeof(float), dk, dv, lse, delta, start, a, qm, om, km, vm);
    if (dq && !describe(HOP_ROWS, HOP_STEP))
        LAUNCH(flash_dq_wgmma_kernel<D>, dim3(d->B * d->H, ceil_div(d->T, HOP_ROWS)), HOP_THREADS, shared, dq, lse,
               delta, start, a, qm, om, km, vm);
}
