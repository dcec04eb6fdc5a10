/* delta_rule_mma.cu - the gated delta rule forward for BF16, chunks of 64, on the matrix unit:
 * the no-WU form with the ungated inverse (FlashQLA, FlashInfer), in two kernels.
 *
 * prepare, one block per chunk and head, all in parallel: A_b = gam o (I + strict(beta K K^T))^{-1} diag(beta) and P =
 * s gam o (Q K^T), both
 * 64 x 64 and left in the workspace in bf16. The inverse has no exponentials in it: 16 x 16 diagonal blocks by forward
 * substitution in float, then T21 = -T22 (M21 T11) from 16 to 32 to 64 in tf32.
 * scan, one block per 64 value columns of a head, chunks in order, S in registers (float) with a bf16 copy in shared
 * memory:
 *   R = V - in o (K S);  V' = A_b R;  O = s in o (Q S) + P V';  S = all S + K^T (out o V')
 * Columns of S are independent, so a head with V = 128 is two blocks. */
enum { GDN_C = 64, GDN_COLS = 64, GDN_PREPARE = 128, GDN_SCAN = 256 };

/* Decays of a chunk of n <= 64 rows, by the first warp: G as double, since its differences must keep the digits of a
 * weak decay behind a strong one; from[i] the first token of i's document within the chunk, or -1. Rows n.. get g = 0.
 * */
struct GdnDecays {
    SHARED_PTR(double) G;
    SHARED_PTR(int) from;
    SHARED_PTR(float) beta;
};
__device__ void gdn_decays(const GdnDecays &d, const wide *g, const wide *beta, const int *start, int b, int t0, int n,
                           int step, const DeltaArgs &a) {
    if (threadIdx.x >= WARP) return;
    const int lane = threadIdx.x, i0 = 2 * lane, i1 = i0 + 1;
    const double g0 = i0 < n ? g[(size_t)i0 * step] : 0.0, g1 = i1 < n ? g[(size_t)i1 * step] : 0.0;
    double run = g0 + g1;
    for (int m = 1; m < WARP; m *= 2) {
        const double left = __shfl_up_sync(FULL, run, m);
        if (lane >= m) run += left;
    }
    d.G[i0] = run - g1;
    d.G[i1] = run;
    for (int i = i0; i <= i1; i++) {
        d.beta[i] = i < n ? beta[(size_t)i * step] : 0.0f;
        d.from[i] = begin_of(start, b, a.T, t0 + min(i, n - 1)) - t0; // below 0: before the chunk
    }
}
__device__ float gdn_gam(const GdnDecays &d, int i, int j) {
    return (int)d.from[i] > j ? 0.0f : __expf((float)(d.G[i] - d.G[j]));
}

// ---- prepare ----
/* What prepare leaves of a chunk, in bf16 elements: A, P, and as floats what the serial kernels would otherwise wait
 * for at the top of every chunk: in_i, out_i and beta_i of every row, and all. */
enum { GDN_FACTORS = 3 * GDN_C + 4, GDN_PAIR = 2 * GDN_C * GDN_C, GDN_KEPT = GDN_PAIR + 2 * GDN_FACTORS };
/* Where chunk c of (batch, head) has it, chunks being `each` elements apart. */
__device__ Bf16 *gdn_pair(Bf16 *work, size_t bh, int c, int chunks, int each) {
    return work + (bh * chunks + c) * each;
}
/* The factors of a chunk: how much of the state before it row i sees, how much of row i the state behind it has. */
__device__ float gdn_in(const GdnDecays &d, int i) { return (int)d.from[i] >= 0 ? 0.0f : __expf((float)d.G[i]); }
__device__ float gdn_out(const GdnDecays &d, int i) {
    return (int)d.from[GDN_C - 1] > i ? 0.0f : __expf((float)(d.G[GDN_C - 1] - d.G[i]));
}
__device__ void gdn_factors(float *to, const GdnDecays &d) {
    for (int i = threadIdx.x; i < GDN_C; i += blockDim.x)
        to[i] = gdn_in(d, i), to[GDN_C + i] = gdn_out(d, i), to[2 * GDN_C + i] = d.beta[i];
    if (threadIdx.x < 4) to[3 * GDN_C + threadIdx.x] = gdn_in(d, GDN_C - 1);
}
/* Starts copying them, by the first threads of the block. */
__device__ void gdn_factors_fetch(SHARED_PTR(float) to, const Bf16 *pair) {
    const int i = threadIdx.x * 4;
    if (i < GDN_FACTORS) cp_async16(to + i, (const float *)(pair + GDN_PAIR) + i, true);
}

/* with_beta: A_b for the scan; without: A for backward, where beta's own gradient is wanted. */
template <int K, bool with_beta>
__global__ void __launch_bounds__(GDN_PREPARE)
    gdn_prepare_mma_kernel(Bf16 *work, const Bf16 *q, const Bf16 *k, const wide *g, const wide *beta, const int *start,
                           int first_chunk, int chunks, int each, DeltaArgs a) {
    DYNAMIC_SHARED(Bf16, cursor);
    SHARED_PTR(Bf16) ks = shared_take<Bf16>(cursor, GDN_C * Tile<K>::LD);
    SHARED_PTR(Bf16) qs = shared_take<Bf16>(cursor, GDN_C * Tile<K>::LD);
    SHARED_PTR(float) M = shared_take<float>(cursor, GDN_C * INV_LD);
    SHARED_PTR(float) T = shared_take<float>(cursor, GDN_C * INV_LD);
    SHARED(double, G, GDN_C);
    SHARED(int, from, GDN_C);
    SHARED(float, betas, GDN_C);
    const GdnDecays dec = {G, from, betas};
    const int c = first_chunk + blockIdx.x, t0 = c * GDN_C, n = min((int)GDN_C, a.T - t0), lane = threadIdx.x % WARP,
              warp = threadIdx.x / WARP;
    const int b = blockIdx.y / a.H, h = blockIdx.y % a.H, hk = h / (a.H / a.Hk);
    const size_t bt = (size_t)b * a.T + t0, at = (bt * a.Hk + hk) * K;
    tile_fetch<K>(ks, k + at, (size_t)a.Hk * K, GDN_C, n, GDN_PREPARE);
    tile_fetch<K>(qs, q + at, (size_t)a.Hk * K, GDN_C, n, GDN_PREPARE);
    cp_async_commit();
    gdn_decays(dec, g + bt * a.H + h, beta + bt * a.H + h, start, b, t0, n, a.H, a);
    for (int e = threadIdx.x; e < GDN_C * INV_LD; e += GDN_PREPARE) T[e] = 0.0f;
    cp_async_wait<0>();
    __syncthreads();

    Bf16 *out_A = gdn_pair(work, blockIdx.y, blockIdx.x, chunks, each), *out_P = out_A + GDN_C * GDN_C;
    gdn_factors((float *)(out_A + GDN_PAIR), dec);
    float kk[GDN_C / 8][4] = {}, qk[GDN_C / 8][4] = {};
#pragma unroll
    for (int i = 0; i < K / 16; i++) {
        unsigned ka[4], qa[4];
        load_a<K>(ka, ks, warp * 16, i * 16);
        load_a<K>(qa, qs, warp * 16, i * 16);
#pragma unroll
        for (int m = 0; m < GDN_C / 16; m++) {
            unsigned kb[4];
            load_b<K>(kb, ks, m * 16, i * 16);
            mma_bf16(kk[2 * m], ka, kb[0], kb[1]);
            mma_bf16(kk[2 * m + 1], ka, kb[2], kb[3]);
            mma_bf16(qk[2 * m], qa, kb[0], kb[1]);
            mma_bf16(qk[2 * m + 1], qa, kb[2], kb[3]);
        }
    }
#pragma unroll
    for (int m = 0; m < GDN_C / 8; m++)
#pragma unroll
        for (int e = 0; e < 4; e += 2) {
            const int i = warp * 16 + lane / 4 + e / 2 * 8, j = m * 8 + lane % 4 * 2;
            float p[2];
            for (int x = 0; x < 2; x++) {
                M[i * INV_LD + j + x] = j + x < i ? betas[i] * kk[m][e + x] : 0.0f;
                p[x] = j + x <= i ? a.scale * gdn_gam(dec, i, j + x) * qk[m][e + x] : 0.0f;
            }
            *(unsigned *)(out_P + i * GDN_C + j) = bf16_pair(p[0], p[1]);
        }
    __syncthreads();
    inverse_of(T, M);
    for (int e = threadIdx.x * 2; e < GDN_C * GDN_C; e += GDN_PREPARE * 2) {
        const int i = e / GDN_C, j = e % GDN_C;
        float x[2];
        for (int y = 0; y < 2; y++)
            x[y] = j + y <= i
                       ? gdn_gam(dec, i, j + y) * T[i * INV_LD + j + y] * (with_beta ? (float)betas[j + y] : 1.0f)
                       : 0.0f;
        *(unsigned *)(out_A + e) = bf16_pair(x[0], x[1]);
    }
}

template <int K> static size_t gdn_prepare_shared() {
    return 2 * GDN_C * Tile<K>::LD * sizeof(Bf16) + 2 * GDN_C * INV_LD * sizeof(float);
}

// ---- scan ----
/* What a stage of the ring holds, one tile after the other. */
template <int K> struct GdnStage {
    enum { TK = GDN_C * Tile<K>::LD, TC = GDN_C * Tile<GDN_C>::LD, ALL = 2 * TK + 3 * TC };
    SHARED_PTR(Bf16) q, k, v, A, P; // v: dO in backward
    SHARED_PTR(float) factors;
};
template <int K> __device__ GdnStage<K> gdn_stage(SHARED_PTR(Bf16) ring, SHARED_PTR(float) factors, int s) {
    typedef GdnStage<K> Stage;
    const SHARED_PTR(Bf16) q = ring + s * Stage::ALL, v = q + 2 * Stage::TK;
    return {q, q + Stage::TK, v, v + Stage::TC, v + 2 * Stage::TC, factors + s * GDN_FACTORS};
}
template <int K>
__device__ void gdn_fetch(const GdnStage<K> &s, const Bf16 *q, const Bf16 *k, const Bf16 *v, const Bf16 *pair, int b,
                          int h, int c, int v0, const DeltaArgs &a) {
    const int t0 = c * GDN_C, n = min((int)GDN_C, a.T - t0), hk = h / (a.H / a.Hk);
    const size_t bt = (size_t)b * a.T + t0, at = (bt * a.Hk + hk) * K;
    tile_fetch<K>(s.k, k + at, (size_t)a.Hk * K, GDN_C, n, GDN_SCAN);
    tile_fetch<K>(s.q, q + at, (size_t)a.Hk * K, GDN_C, n, GDN_SCAN);
    tile_fetch<GDN_COLS>(s.v, v + (bt * a.H + h) * a.V + v0, (size_t)a.H * a.V, GDN_C, n, GDN_SCAN);
    tile_fetch<GDN_C>(s.A, pair, GDN_C, GDN_C, GDN_C, GDN_SCAN);
    tile_fetch<GDN_C>(s.P, pair + GDN_C * GDN_C, GDN_C, GDN_C, GDN_C, GDN_SCAN);
    gdn_factors_fetch(s.factors, pair);
    cp_async_commit();
}
template <int K> static size_t gdn_scan_shared(int tiles) { // the ring, S, and so many tiles of 64 x 64
    return (2 * GdnStage<K>::ALL + K * Tile<GDN_COLS>::LD + tiles * GDN_C * Tile<GDN_COLS>::LD) * sizeof(Bf16) +
           2 * GDN_FACTORS * sizeof(float);
}

template <int K>
__global__ void __launch_bounds__(GDN_SCAN, 1)
    gdn_scan_mma_kernel(Bf16 *o, Bf16 *states, wide *state, Bf16 *work, const Bf16 *q, const Bf16 *k, const Bf16 *v,
                        int first_chunk, int chunks, DeltaArgs a) {
    enum {
        COLS = GDN_COLS,
        HALF = COLS / 2,
        NB = HALF / 8
    }; // warps 0-3 have the left half of the columns, 4-7 the right
    DYNAMIC_SHARED(Bf16, cursor);
    const SHARED_PTR(Bf16) ring = shared_take<Bf16>(cursor, 2 * GdnStage<K>::ALL);
    SHARED_PTR(Bf16) Ss = shared_take<Bf16>(cursor, K * Tile<COLS>::LD);     // S, rounded
    SHARED_PTR(Bf16) Rs = shared_take<Bf16>(cursor, GDN_C * Tile<COLS>::LD); // R, then out o V'
    SHARED_PTR(Bf16) Us = shared_take<Bf16>(cursor, GDN_C * Tile<COLS>::LD); // V'
    const SHARED_PTR(float) factors = shared_take<float>(cursor, 2 * GDN_FACTORS);
    const int bh = blockIdx.y, b = bh / a.H, h = bh % a.H, v0 = blockIdx.x * COLS, g8 = threadIdx.x % WARP / 4;
    const int row = threadIdx.x / WARP % 4,
              left = threadIdx.x / WARP / 4 * HALF; // rows row*16.. of a chunk, columns left..
    const size_t KV = (size_t)K * a.V;
    wide *running = state + bh * KV + v0;
    Bf16 *keep = states ? states + ((size_t)bh * (a.NC + 1) + first_chunk) * KV + v0 : states;

    float S[K / 64][NB][4]; // rows 16 (row + 4 m) .. of S
    state_load(S, running, a.V, row, left);
    gdn_fetch<K>(gdn_stage<K>(ring, factors, 0), q, k, v, gdn_pair(work, bh, 0, chunks, GDN_KEPT), b, h, first_chunk,
                 v0, a);
    for (int x = 0; x < chunks; x++) {
        const int c = first_chunk + x, t0 = c * GDN_C, n_rows = min((int)GDN_C, a.T - t0);
        const GdnStage<K> w = gdn_stage<K>(ring, factors, x % 2);
        const size_t bt = (size_t)b * a.T + t0;
        if (x + 1 < chunks)
            gdn_fetch<K>(gdn_stage<K>(ring, factors, (x + 1) % 2), q, k, v, gdn_pair(work, bh, x + 1, chunks, GDN_KEPT),
                         b, h, c + 1, v0, a);
        state_round<COLS>(Ss, S, row, left);
        if (x + 1 < chunks) cp_async_wait<1>();
        else cp_async_wait<0>();
        __syncthreads();
        if (keep) tile_store<COLS>(keep + x * KV, a.V, Ss, K, GDN_SCAN);
        // K S and Q S for this warp's 16 rows
        float ks[NB][4] = {}, acc[NB][4] = {}, in[2], out[2];
        tile_mma_both<K, COLS>(ks, acc, w.k, w.q, Ss, row * 16, left, K);
#pragma unroll
        for (int e = 0; e < 2; e++)
            in[e] = w.factors[row * 16 + g8 + 8 * e], out[e] = w.factors[GDN_C + row * 16 + g8 + 8 * e];
        const float all = w.factors[3 * GDN_C];
        // R = V - in o K S;  acc = s in o Q S
#pragma unroll
        for (int n = 0; n < NB; n++) {
            float vs[4];
            read_c<COLS>(vs, w.v, row * 16, left + n * 8);
#pragma unroll
            for (int e = 0; e < 4; e++) {
                ks[n][e] = vs[e] - in[e / 2] * ks[n][e];
                acc[n][e] *= a.scale * in[e / 2];
            }
            store_c<COLS>(Rs, ks[n], row * 16, left + n * 8);
        }
        __syncthreads();
        // V' = A_b R
        float u[NB][4] = {};
        tile_mma<GDN_C, COLS, false, true, 8>(u, w.A, Rs, row * 16, left, GDN_C);
        __syncthreads(); // R has been read
#pragma unroll
        for (int n = 0; n < NB; n++) {
            store_c<COLS>(Us, u[n], row * 16, left + n * 8);
#pragma unroll
            for (int e = 0; e < 4; e++) u[n][e] *= out[e / 2];
            store_c<COLS>(Rs, u[n], row * 16, left + n * 8);
        }
        __syncthreads();
        // O = s in o (Q S) + P V'
        tile_mma<GDN_C, COLS, false, true, 8>(acc, w.P, Us, row * 16, left, GDN_C);
        rows_store(o + (bt * a.H + h) * a.V + v0, (size_t)a.H * a.V, acc, n_rows, row, left);
        // S = all S + K^T (out o V')
#pragma unroll
        for (int m = 0; m < K / 64; m++) {
#pragma unroll
            for (int n = 0; n < NB; n++)
#pragma unroll
                for (int e = 0; e < 4; e++) S[m][n][e] *= all;
            tile_mma<K, COLS, true, true, 8>(S[m], w.k, Rs, 16 * (row + 4 * m), left, GDN_C);
        }
        __syncthreads(); // the stage, Ss and Rs may be written again
    }
    state_store(running, S, a.V, row, left);
    if (!keep) return;
    state_round<COLS>(Ss, S, row, left);
    __syncthreads();
    tile_store<COLS>(keep + chunks * KV, a.V, Ss, K, GDN_SCAN);
}

template <int K>
static void gdn_forward(Bf16 *o, Bf16 *states, wide *state, const Bf16 *q, const Bf16 *k, const Bf16 *v, const wide *g,
                        const wide *beta, const int *start, double scale, void *work, const DeltaDims *d) {
    const DeltaArgs a = delta_args(d, scale);
    const int most =
        (int)(a.worker * sizeof(float) / (GDN_KEPT * sizeof(Bf16))); // chunks that the workspace has room for, per head
    for (int first = 0; first < a.NC; first += most) {
        const int chunks = a.NC - first < most ? a.NC - first : most;
        LAUNCH((gdn_prepare_mma_kernel<K, true>), dim3(chunks, d->B * d->H), GDN_PREPARE, gdn_prepare_shared<K>(),
               (Bf16 *)work, q, k, g, beta, start, first, chunks, (int)GDN_KEPT, a);
        LAUNCH(gdn_scan_mma_kernel<K>, dim3(d->V / GDN_COLS, d->B * d->H), GDN_SCAN, gdn_scan_shared<K>(2), o, states,
               state, (Bf16 *)work, q, k, v, first, chunks, a);
    }
}
