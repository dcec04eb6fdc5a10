/* kda_mma.cu - Kimi delta attention forward for BF16, chunks of 64, K = 64 or 128, V a multiple of 64, on the matrix
 * unit: the delta rule's no-WU form (delta_rule_mma.cu) with GLA's decays per key channel (channel_decay.h).
 * The decays do not factor out of the inverse here:
 *   kk_ij = sum_c k_ic k_jc e^{b_ic - b_jc} (i > j, same document)   P_ij = s sum_c q_ic k_jc e^{b_ic - b_jc} (i >= j)
 *   A_b = (I + diag(beta) kk)^{-1} diag(beta)     Q = s e^b o q     K_in = e^b o k     K_out = e^{b_C - b} o k     all
 *   = e^{b_C}
 * prepare, one block per chunk and head, all in parallel, leaves these in the workspace.
 * scan, one block per 64 value columns of a head, chunks in order, S in registers (float) with a bf16 copy in shared
 * memory:
 *   R = V - K_in S;  V' = A_b R;  O = Q S + P V';  S = all o S + K_out^T V' */
enum { KDA_C = 64, KDA_COLS = 64, KDA_PREPARE = 128, KDA_SCAN = 256 };

/* What prepare leaves of a chunk, in bf16 elements; all is float. A and kk are for backward:
 * without beta, and kk not at all forward. */
template <int K> struct KdaKept {
    enum {
        A = 0,
        P = KDA_C * KDA_C,
        KK = 2 * P,
        Q = 3 * P,
        IN = Q + KDA_C * K,
        OUT = IN + KDA_C * K,
        ALL = OUT + KDA_C * K,
        SIZE = ALL + 2 * K
    };
};

/* A and P (and kk for backward), by 16 rows a warp. */
template <int K, bool back>
__device__ void kda_squares(Bf16 *kept, SHARED_PTR(Bf16) qs, SHARED_PTR(Bf16) ks, SHARED_PTR(float) bs,
                            SHARED_PTR(int) from, SHARED_PTR(float) betas, SHARED_PTR(float) M, SHARED_PTR(float) T,
                            float scale) {
    typedef KdaKept<K> Kept;
    const int lane = threadIdx.x % WARP, m0 = threadIdx.x / WARP * 16;
    for (int n0 = 0; n0 < KDA_C; n0 += 16) {
        float s[2][2][4] = {};
        if (n0 <= m0) decay_scores<K>(s, {ks, qs}, ks, bs, m0, n0);
#pragma unroll
        for (int e = 0; e < 8; e += 2) {
            const int i = m0 + lane / 4 + e / 2 % 2 * 8, j = n0 + e / 4 * 8 + lane % 4 * 2, at = i * KDA_C + j,
                      f = from[i];
            float kk[2], p[2];
            for (int x = 0; x < 2; x++) {
                kk[x] = j + x < i && j + x >= f ? s[0][e / 4][e % 4 + x] : 0.0f;
                p[x] = j + x <= i && j + x >= f ? scale * s[1][e / 4][e % 4 + x] : 0.0f;
                M[i * INV_LD + j + x] = betas[i] * kk[x];
                T[i * INV_LD + j + x] = 0.0f;
            }
            *(unsigned *)(kept + Kept::P + at) = bf16_pair(p[0], p[1]);
            if (back) *(unsigned *)(kept + Kept::KK + at) = bf16_pair(kk[0], kk[1]);
        }
    }
    __syncthreads();
    inverse_of(T, M);
    for (int e = threadIdx.x * 2; e < KDA_C * KDA_C; e += KDA_PREPARE * 2) {
        const int at = e / KDA_C * INV_LD + e % KDA_C, j = e % KDA_C;
        *(unsigned *)(kept + Kept::A + e) =
            back ? bf16_pair(T[at], T[at + 1]) : bf16_pair(T[at] * betas[j], T[at + 1] * betas[j + 1]);
    }
}

template <int K, bool back>
__global__ void __launch_bounds__(KDA_PREPARE)
    kda_prepare_mma_kernel(Bf16 *work, const Bf16 *q, const Bf16 *k, const wide *g, const wide *beta, const int *start,
                           int first_chunk, int chunks, int each, DeltaArgs a) {
    typedef KdaKept<K> Kept;
    DYNAMIC_SHARED(Bf16, cursor);
    SHARED_PTR(Bf16) qs = shared_take<Bf16>(cursor, KDA_C * Tile<K>::LD);
    SHARED_PTR(Bf16) ks = shared_take<Bf16>(cursor, KDA_C * Tile<K>::LD);
    SHARED_PTR(float) bs = shared_take<float>(cursor, DecaySums<K>::SIZE);
    SHARED_PTR(float) M = shared_take<float>(cursor, KDA_C * INV_LD);
    SHARED_PTR(float) T = shared_take<float>(cursor, KDA_C * INV_LD);
    SHARED(int, from, KDA_C);
    SHARED(float, betas, KDA_C);
    const int t0 = (first_chunk + blockIdx.x) * KDA_C, n = min((int)KDA_C, a.T - t0), b = blockIdx.y / a.H,
              h = blockIdx.y % a.H;
    const size_t bt = (size_t)b * a.T + t0, at = (bt * a.Hk + h / (a.H / a.Hk)) * K, row = bt * a.H + h;
    tile_fetch<K>(ks, k + at, (size_t)a.Hk * K, KDA_C, n, KDA_PREPARE);
    tile_fetch<K>(qs, q + at, (size_t)a.Hk * K, KDA_C, n, KDA_PREPARE);
    cp_async_commit();
    decay_sums<K>(bs, from, g + row * K, (size_t)a.H * K, start, b, t0, n, a);
    for (int i = threadIdx.x; i < KDA_C; i += KDA_PREPARE) betas[i] = i < n ? beta[row + (size_t)i * a.H] : 0.0f;
    cp_async_wait<0>();
    __syncthreads();
    Bf16 *kept = work + ((size_t)blockIdx.y * chunks + blockIdx.x) * each;
    const int last = (KDA_C - 1) * DecaySums<K>::LD, last_from = from[KDA_C - 1];
    for (int e = threadIdx.x * 2; e < KDA_C * K; e += KDA_PREPARE * 2) {
        const int i = e / K, x = e % K, tile = i * Tile<K>::LD + x;
        float in[2], out[2];
        for (int y = 0; y < 2; y++) {
            const float b_i = bs[i * DecaySums<K>::LD + x + y];
            in[y] = (int)from[i] < 0 ? __expf(b_i) : 0.0f;
            out[y] = last_from <= i ? __expf(bs[last + x + y] - b_i) : 0.0f;
        }
        const float k0 = ks[tile], k1 = ks[tile + 1];
        *(unsigned *)(kept + Kept::Q + e) =
            bf16_pair(a.scale * in[0] * (float)qs[tile], a.scale * in[1] * (float)qs[tile + 1]);
        *(unsigned *)(kept + Kept::IN + e) = bf16_pair(in[0] * k0, in[1] * k1);
        *(unsigned *)(kept + Kept::OUT + e) = bf16_pair(out[0] * k0, out[1] * k1);
    }
    for (int x = threadIdx.x; x < K; x += KDA_PREPARE)
        ((float *)(kept + Kept::ALL))[x] = last_from >= 0 ? 0.0f : __expf(bs[last + x]);
    kda_squares<K, back>(kept, qs, ks, bs, from, betas, M, T, a.scale);
}
template <int K> static size_t kda_prepare_shared() {
    return 2 * KDA_C * Tile<K>::LD * sizeof(Bf16) + (DecaySums<K>::SIZE + 2 * KDA_C * INV_LD) * sizeof(float);
}

// ---- scan ----
/* A stage of the ring: x meets the state first together with K_in (forward Q, backward K_out), v are the values
 * (backward dO). What makes the new state (K_out, or Q) is needed last and has one tile for all chunks:
 * two would not fit an sm_80 beside the rest. */
template <int K> struct KdaStage {
    enum { TK = KDA_C * Tile<K>::LD, TC = KDA_C * Tile<KDA_C>::LD, SIZE = 2 * TK + 3 * TC };
    SHARED_PTR(Bf16) x, in, v, A, P;
};
template <int K> __device__ KdaStage<K> kda_stage(SHARED_PTR(Bf16) ring, int s) {
    typedef KdaStage<K> Stage;
    const SHARED_PTR(Bf16) x = ring + s % 2 * Stage::SIZE, v = x + 2 * Stage::TK;
    return {x, x + Stage::TK, v, v + Stage::TC, v + 2 * Stage::TC};
}
template <int K, bool back>
__device__ void kda_fetch(const KdaStage<K> &s, const Bf16 *v, const Bf16 *kept, int b, int h, int c, int v0,
                          const DeltaArgs &a) {
    typedef KdaKept<K> Kept;
    const int t0 = c * KDA_C, n = min((int)KDA_C, a.T - t0);
    tile_fetch<K>(s.x, kept + (back ? Kept::OUT : Kept::Q), K, KDA_C, KDA_C, KDA_SCAN);
    tile_fetch<K>(s.in, kept + Kept::IN, K, KDA_C, KDA_C, KDA_SCAN);
    tile_fetch<KDA_COLS>(s.v, v + (((size_t)b * a.T + t0) * a.H + h) * a.V + v0, (size_t)a.H * a.V, KDA_C, n, KDA_SCAN);
    tile_fetch<KDA_C>(s.A, kept + Kept::A, KDA_C, KDA_C, KDA_C, KDA_SCAN);
    tile_fetch<KDA_C>(s.P, kept + Kept::P, KDA_C, KDA_C, KDA_C, KDA_SCAN);
    cp_async_commit();
}

template <int K>
__global__ void __launch_bounds__(KDA_SCAN, 1)
    kda_scan_mma_kernel(Bf16 *o, Bf16 *states, wide *state, const Bf16 *work, const Bf16 *v, int first_chunk,
                        int chunks, int each, DeltaArgs a) {
    enum { COLS = KDA_COLS, HALF = COLS / 2, NB = HALF / 8 }; // warps 0-3 have the left half of the columns
    typedef KdaKept<K> Kept;
    DYNAMIC_SHARED(Bf16, cursor);
    const SHARED_PTR(Bf16) ring = shared_take<Bf16>(cursor, 2 * KdaStage<K>::SIZE);
    SHARED_PTR(Bf16) outs = shared_take<Bf16>(cursor, KDA_C * Tile<K>::LD); // K_out
    SHARED_PTR(Bf16) Ss = shared_take<Bf16>(cursor, K * Tile<COLS>::LD);    // S, rounded
    const int bh = blockIdx.y, b = bh / a.H, h = bh % a.H, v0 = blockIdx.x * COLS, row = threadIdx.x / WARP % 4,
              left = threadIdx.x / WARP / 4 * HALF;
    const size_t KV = (size_t)K * a.V;
    const Bf16 *kept = work + (size_t)bh * chunks * each;
    wide *running = state + bh * KV + v0;
    Bf16 *keep = states ? states + ((size_t)bh * (a.NC + 1) + first_chunk) * KV + v0 : states;
    float S[K / 64][NB][4]; // rows 16 (row + 4 m) .. of S
    state_load(S, running, a.V, row, left);
    kda_fetch<K, false>(kda_stage<K>(ring, 0), v, kept, b, h, first_chunk, v0, a);
    for (int x = 0; x < chunks; x++, kept += each) {
        const int t0 = (first_chunk + x) * KDA_C, n_rows = min((int)KDA_C, a.T - t0);
        const KdaStage<K> w = kda_stage<K>(ring, x);
        const float *all = (const float *)(kept + Kept::ALL);
        tile_fetch<K>(outs, kept + Kept::OUT, K, KDA_C, KDA_C, KDA_SCAN);
        cp_async_commit();
        if (x + 1 < chunks)
            kda_fetch<K, false>(kda_stage<K>(ring, x + 1), v, kept + each, b, h, first_chunk + x + 1, v0, a);
        state_round<COLS>(Ss, S, row, left);
        if (x + 1 < chunks) cp_async_wait<2>();
        else cp_async_wait<1>();
        __syncthreads();
        if (keep) tile_store<COLS>(keep + x * KV, a.V, Ss, K, KDA_SCAN);
        // R = V - K_in S, in V's place: each element is read and written by the same thread
        float u[NB][4] = {}, acc[NB][4] = {};
        tile_mma_both<K, COLS>(u, acc, w.in, w.x, Ss, row * 16, left, K);
#pragma unroll
        for (int n = 0; n < NB; n++) {
            float vs[4];
            read_c<COLS>(vs, w.v, row * 16, left + n * 8);
#pragma unroll
            for (int e = 0; e < 4; e++) u[n][e] = vs[e] - u[n][e];
            store_c<COLS>(w.v, u[n], row * 16, left + n * 8);
#pragma unroll
            for (int e = 0; e < 4; e++) u[n][e] = 0;
        }
        __syncthreads();
        // V' = A_b R
        tile_mma<KDA_C, COLS, false, true, 8>(u, w.A, w.v, row * 16, left, KDA_C);
        if (x + 1 < chunks) cp_async_wait<1>();
        else cp_async_wait<0>();
        __syncthreads(); // R has been read, K_out is there
#pragma unroll
        for (int n = 0; n < NB; n++) store_c<COLS>(w.v, u[n], row * 16, left + n * 8);
        __syncthreads();
        // O = Q S + P V'
        tile_mma<KDA_C, COLS, false, true, 8>(acc, w.P, w.v, row * 16, left, KDA_C);
        rows_store(o + (((size_t)b * a.T + t0) * a.H + h) * a.V + v0, (size_t)a.H * a.V, acc, n_rows, row, left);
        // S = all o S + K_out^T V'
        state_decay(S, all, row);
#pragma unroll
        for (int m = 0; m < K / 64; m++)
            tile_mma<K, COLS, true, true, 8>(S[m], outs, w.v, 16 * (row + 4 * m), left, KDA_C);
        __syncthreads(); // the stage, K_out and Ss may be written again
    }
    state_store(running, S, a.V, row, left);
    if (!keep) return;
    state_round<COLS>(Ss, S, row, left);
    __syncthreads();
    tile_store<COLS>(keep + chunks * KV, a.V, Ss, K, KDA_SCAN);
}
template <int K> static size_t kda_scan_shared() {
    return (2 * KdaStage<K>::SIZE + KDA_C * Tile<K>::LD + K * Tile<KDA_COLS>::LD) * sizeof(Bf16);
}

template <int K>
static void kda_forward_mma(Bf16 *o, Bf16 *states, wide *state, const Bf16 *q, const Bf16 *k, const Bf16 *v,
                            const wide *g, const wide *beta, const int *start, double scale, void *work,
                            const DeltaDims *d) {
    const DeltaArgs a = kda_args(d, scale);
    const int each = KdaKept<K>::SIZE, most = (int)(a.worker * sizeof(float) / (each * sizeof(Bf16)));
    for (int first = 0; first < a.NC; first += most) {
        const int chunks = a.NC - first < most ? a.NC - first : most;
        LAUNCH((kda_prepare_mma_kernel<K, false>), dim3(chunks, d->B * d->H), KDA_PREPARE, kda_prepare_shared<K>(),
               (Bf16 *)work, q, k, g, beta, start, first, chunks, each, a);
        LAUNCH(kda_scan_mma_kernel<K>, dim3(d->V / KDA_COLS, d->B * d->H), KDA_SCAN, kda_scan_shared<K>(), o, states,
               state, (const Bf16 *)work, v, first, chunks, each, a);
    }
}
