/* gla_mma.cu - gated linear attention for BF16, chunks of 64, K = 64 or 128, V a multiple of 64, on the matrix unit.
 *
 * With b the sum of g from the chunk's start (per key channel c; channel_decay.h):
 *   P_ij = s sum_c q_ic k_jc e^{b_ic - b_jc} (i >= j, same document)    Q = s in o q, in = e^b    K' = out o k,
 *   out = e^{b_C - b}
 * prepare, one block per chunk and key head, all in parallel: P, Q, K' and all = e^{b_C} into the workspace.
 * scan, one block per 64 value columns of a head, chunks in order, S in registers (float) with a bf16 copy in shared
 * memory:
 *   O = Q S + P V;  S = all o S + K'^T V
 * which, with Q and K' exchanged, P transposed and time reversed, is also the serial part of backward
 * (gla_mma_backward.cu):
 *   dV = K' dS + P^T dO;  dS = all o dS + Q^T dO */
enum { GLA_C = 64, GLA_COLS = 64, GLA_PREPARE = 128, GLA_SCAN = 256 };

/* What prepare leaves of a chunk, in bf16 elements: P, Q, K', all (float). */
template <int K> struct GlaKept {
    enum { P = 0, Q = GLA_C * GLA_C, K_ = Q + GLA_C * K, ALL = K_ + GLA_C * K, SIZE = ALL + 2 * K };
};
template <int K>
__global__ void __launch_bounds__(GLA_PREPARE)
    gla_prepare_mma_kernel(Bf16 *work, const Bf16 *q, const Bf16 *k, const wide *g, const int *start, int first_chunk,
                           int chunks, int each, DeltaArgs a) {
    typedef GlaKept<K> Kept;
    DYNAMIC_SHARED(Bf16, cursor);
    SHARED_PTR(Bf16) qs = shared_take<Bf16>(cursor, GLA_C * Tile<K>::LD);
    SHARED_PTR(Bf16) ks = shared_take<Bf16>(cursor, GLA_C * Tile<K>::LD);
    SHARED_PTR(float) bs = shared_take<float>(cursor, DecaySums<K>::SIZE);
    SHARED(int, from, GLA_C);
    const int c = first_chunk + blockIdx.x, t0 = c * GLA_C, n = min((int)GLA_C, a.T - t0), lane = threadIdx.x % WARP,
              warp = threadIdx.x / WARP, b = blockIdx.y / a.Hk, hk = blockIdx.y % a.Hk;
    const size_t at = (((size_t)b * a.T + t0) * a.Hk + hk) * K;
    tile_fetch<K>(ks, k + at, (size_t)a.Hk * K, GLA_C, n, GLA_PREPARE);
    tile_fetch<K>(qs, q + at, (size_t)a.Hk * K, GLA_C, n, GLA_PREPARE);
    cp_async_commit();
    decay_sums<K>(bs, from, g + at, (size_t)a.Hk * K, start, b, t0, n, a);
    cp_async_wait<0>();
    __syncthreads();
    Bf16 *kept = work + ((size_t)blockIdx.y * chunks + blockIdx.x) * each;
    const int m0 = warp * 16;
    for (int n0 = 0; n0 < GLA_C; n0 += 16) {
        float scores[1][2][4] = {}, (&s)[2][4] = scores[0];
        if (n0 <= m0) decay_scores<K>(scores, {qs}, ks, bs, m0, n0);
#pragma unroll
        for (int e = 0; e < 8; e += 2) {
            const int i = m0 + lane / 4 + e / 2 % 2 * 8, j = n0 + e / 4 * 8 + lane % 4 * 2, f = from[i];
            *(unsigned *)(kept + Kept::P + i * GLA_C + j) =
                bf16_pair(j <= i && j >= f ? a.scale * s[e / 4][e % 4] : 0.0f,
                          j + 1 <= i && j + 1 >= f ? a.scale * s[e / 4][e % 4 + 1] : 0.0f);
        }
    }
    const int last = (GLA_C - 1) * DecaySums<K>::LD, last_from = from[GLA_C - 1];
    for (int e = threadIdx.x * 2; e < GLA_C * K; e += GLA_PREPARE * 2) {
        const int i = e / K, x = e % K, row = i * DecaySums<K>::LD + x, tile = i * Tile<K>::LD + x;
        const bool in = (int)from[i] < 0, out = last_from <= i;
        *(unsigned *)(kept + Kept::Q + e) = bf16_pair(in ? a.scale * (float)qs[tile] * __expf(bs[row]) : 0.0f,
                                                      in ? a.scale * (float)qs[tile + 1] * __expf(bs[row + 1]) : 0.0f);
        *(unsigned *)(kept + Kept::K_ + e) =
            bf16_pair(out ? (float)ks[tile] * __expf(bs[last + x] - bs[row]) : 0.0f,
                      out ? (float)ks[tile + 1] * __expf(bs[last + x + 1] - bs[row + 1]) : 0.0f);
    }
    for (int x = threadIdx.x; x < K; x += GLA_PREPARE)
        ((float *)(kept + Kept::ALL))[x] = last_from >= 0 ? 0.0f : __expf(bs[last + x]);
}

// ---- scan ----
/* A stage of the ring: x meets the state, y makes it (Q and K' forward, K' and Q backward), v are the values (dO
 * backward). */
template <int K> struct GlaStage {
    enum { TK = GLA_C * Tile<K>::LD, TC = GLA_C * Tile<GLA_C>::LD, SIZE = 2 * TK + 2 * TC };
    SHARED_PTR(Bf16) x, y, v, P;
};
template <int K> __device__ GlaStage<K> gla_stage(SHARED_PTR(Bf16) ring, int s) {
    typedef GlaStage<K> Stage;
    const SHARED_PTR(Bf16) x = ring + s * Stage::SIZE, v = x + 2 * Stage::TK;
    return {x, x + Stage::TK, v, v + Stage::TC};
}
template <int K, bool back>
__device__ void gla_fetch(const GlaStage<K> &s, const Bf16 *v, const Bf16 *kept, int b, int h, int c, int v0,
                          const DeltaArgs &a) {
    typedef GlaKept<K> Kept;
    const int t0 = c * GLA_C, n = min((int)GLA_C, a.T - t0);
    tile_fetch<K>(s.x, kept + (back ? Kept::K_ : Kept::Q), K, GLA_C, GLA_C, GLA_SCAN);
    tile_fetch<K>(s.y, kept + (back ? Kept::Q : Kept::K_), K, GLA_C, GLA_C, GLA_SCAN);
    tile_fetch<GLA_C>(s.P, kept + Kept::P, GLA_C, GLA_C, GLA_C, GLA_SCAN);
    tile_fetch<GLA_COLS>(s.v, v + (((size_t)b * a.T + t0) * a.H + h) * a.V + v0, (size_t)a.H * a.V, GLA_C, n, GLA_SCAN);
    cp_async_commit();
}

/* Forward: out = O (overwritten), state S in and out, states: S before each chunk, or NULL. Backward:
 * v = dO, out = dV (added to, may be NULL), state = dstate, and dS before each chunk goes into the workspace,
 * behind what prepare left. */
template <int K, bool back>
__global__ void __launch_bounds__(GLA_SCAN, 1)
    gla_scan_mma_kernel(Bf16 *out, Bf16 *states, wide *state, Bf16 *work, const Bf16 *v, int first_chunk, int chunks,
                        int each, DeltaArgs a) {
    enum { COLS = GLA_COLS, HALF = COLS / 2, NB = HALF / 8 }; // warps 0-3 have the left half of the columns
    typedef GlaKept<K> Kept;
    DYNAMIC_SHARED(Bf16, cursor);
    const SHARED_PTR(Bf16) ring = shared_take<Bf16>(cursor, 2 * GlaStage<K>::SIZE);
    SHARED_PTR(Bf16) Ss = shared_take<Bf16>(cursor, K * Tile<COLS>::LD); // S, rounded
    const int bh = blockIdx.y, b = bh / a.H, h = bh % a.H, hk = h / (a.H / a.Hk), v0 = blockIdx.x * COLS;
    const int row = threadIdx.x / WARP % 4, left = threadIdx.x / WARP / 4 * HALF;
    const size_t KV = (size_t)K * a.V;
    const Bf16 *kept = work + (size_t)(b * a.Hk + hk) * chunks * each;
    Bf16 *keep = back     ? work + (size_t)gridDim.y / a.H * a.Hk * chunks * each + (size_t)bh * chunks * KV + v0
                 : states ? states + ((size_t)bh * (a.NC + 1) + first_chunk) * KV + v0
                          : states;
    wide *running = state + bh * KV + v0;
    float S[K / 64][NB][4]; // rows 16 (row + 4 m) .. of S
    state_load(S, running, a.V, row, left);
    const int x0 = back ? chunks - 1 : 0, step = back ? -1 : 1;
    gla_fetch<K, back>(gla_stage<K>(ring, 0), v, kept + (size_t)x0 * each, b, h, first_chunk + x0, v0, a);
    for (int done = 0; done < chunks; done++) {
        const int x = x0 + step * done, t0 = (first_chunk + x) * GLA_C, n_rows = min((int)GLA_C, a.T - t0);
        const GlaStage<K> w = gla_stage<K>(ring, done % 2);
        const float *all = (const float *)(kept + (size_t)x * each + Kept::ALL);
        if (done + 1 < chunks)
            gla_fetch<K, back>(gla_stage<K>(ring, (done + 1) % 2), v, kept + (size_t)(x + step) * each, b, h,
                               first_chunk + x + step, v0, a);
        state_round<COLS>(Ss, S, row, left);
        if (done + 1 < chunks) cp_async_wait<1>();
        else cp_async_wait<0>();
        __syncthreads();
        if (keep) tile_store<COLS>(keep + x * KV, a.V, Ss, K, GLA_SCAN);
        float acc[NB][4] = {};
        tile_mma<K, COLS, false, true, 8>(acc, w.x, Ss, row * 16, left, K);
        tile_mma<GLA_C, COLS, back, true, 8>(acc, w.P, w.v, row * 16, left, GLA_C);
        Bf16 *to = out ? out + (((size_t)b * a.T + t0) * a.H + h) * a.V + v0 : out;
        if (back && to) rows_add(to, (size_t)a.H * a.V, acc, n_rows, row, left);
        if (!back) rows_store(to, (size_t)a.H * a.V, acc, n_rows, row, left);
        // S = all o S + Y^T V
        state_decay(S, all, row);
#pragma unroll
        for (int m = 0; m < K / 64; m++)
            tile_mma<K, COLS, true, true, 8>(S[m], w.y, w.v, 16 * (row + 4 * m), left, GLA_C);
        __syncthreads(); // the stage and Ss may be written again
    }
    state_store(running, S, a.V, row, left);
    if (back || !keep) return;
    state_round<COLS>(Ss, S, row, left);
    __syncthreads();
    tile_store<COLS>(keep + chunks * KV, a.V, Ss, K, GLA_SCAN);
}

template <int K> static size_t gla_scan_shared() {
    return (2 * GlaStage<K>::SIZE + K * Tile<GLA_COLS>::LD) * sizeof(Bf16);
}
template <int K> static size_t gla_prepare_shared() {
    return 2 * GLA_C * Tile<K>::LD * sizeof(Bf16) + DecaySums<K>::SIZE * sizeof(float);
}
template <int K>
static void gla_forward_mma(Bf16 *o, Bf16 *states, wide *state, const Bf16 *q, const Bf16 *k, const Bf16 *v,
                            const wide *g, const int *start, double scale, void *work, const DeltaDims *d) {
    const DeltaArgs a = delta_args(d, scale);
    const int each = GlaKept<K>::SIZE, most = (int)(a.worker * sizeof(float) / (each * sizeof(Bf16)));
    for (int first = 0; first < a.NC; first += most) {
        const int chunks = a.NC - first < most ? a.NC - first : most;
        LAUNCH(gla_prepare_mma_kernel<K>, dim3(chunks, d->B * d->Hk), GLA_PREPARE, gla_prepare_shared<K>(),
               (Bf16 *)work, q, k, g, start, first, chunks, each, a);
        LAUNCH((gla_scan_mma_kernel<K, false>), dim3(d->V / GLA_COLS, d->B * d->H), GLA_SCAN, gla_scan_shared<K>(), o,
               states, state, (Bf16 *)work, v, first, chunks, each, a);
    }
}
