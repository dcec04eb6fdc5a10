/* gla_mma_backward.cu - backward of gated linear attention for BF16 on the matrix unit: prepare and the serial scan of
 * gla_mma.cu give dV, dstate, and dS of every chunk; everything else is done here, one block per chunk and key head,
 * all in parallel:
 *   dP = s mask o (dO V^T)                         summed over the heads of the group and over value columns,
 *   64 at a time
 *   dq_i = s in_i o (S dO_i) + sum_{j <= i} dP_ij e^{b_i - b_j} o k_j
 *   dk_j = out_j o (dS V_j) + sum_{i >= j} dP_ij e^{b_i - b_j} o q_i
 *   dg_t = all o <S, dS> + sum_{i >= t} x_i + sum_{j < t} k_j o out_j o (dS V_j),
 *   x_i = q_i o dq_i - k_i o (dk_i without its first term)
 * The terms i = j have no decay in them; they are kept out of x, where they would cancel. So would the first term of
 * dk, subtracted from its own sum over the chunk: its last row has the size of everything that does not decay.
 * Nothing that comes after a document's start depends on the decays before it: the sum begins again there, and g of the
 * start itself has no gradient. */
enum { GLA_BACK = 256 };

/* dP, S dO and dS V of one (head, 64 value columns), added up; returns the thread's part of <S, dS> for channel
 * threadIdx.x % K. */
template <int K, int NB>
__device__ float gla_head_products(float (&dp)[4][4], float (&sq)[NB][4], float (&sk)[NB][4], SHARED_PTR(Bf16) vs,
                                   SHARED_PTR(Bf16) os, SHARED_PTR(Bf16) Ss, SHARED_PTR(Bf16) Ds) {
    const int warp = threadIdx.x / WARP, row = warp % 4, half = warp / 4, left = half * (K / 2);
#pragma unroll
    for (int i = 0; i < GLA_COLS / 16; i++) {
        unsigned oa[4];
        load_a<GLA_COLS>(oa, os, row * 16, i * 16);
#pragma unroll
        for (int n = 0; n < 2; n++) {
            unsigned vb[4];
            load_b<GLA_COLS>(vb, vs, half * 32 + n * 16, i * 16);
            mma_bf16(dp[2 * n], oa, vb[0], vb[1]);
            mma_bf16(dp[2 * n + 1], oa, vb[2], vb[3]);
        }
#pragma unroll
        for (int n = 0; n < NB / 2; n++) {
            unsigned sb[4];
            load_b<GLA_COLS>(sb, Ss, left + n * 16, i * 16);
            mma_bf16(sq[2 * n], oa, sb[0], sb[1]);
            mma_bf16(sq[2 * n + 1], oa, sb[2], sb[3]);
        }
    }
    cp_async_wait<0>();
    __syncthreads(); // dS is there
    tile_mma<GLA_COLS, GLA_COLS, false, false, 4>(sk, vs, Ds, row * 16, left, GLA_COLS);
    enum { PARTS = GLA_BACK / K, WIDE = GLA_COLS / PARTS };
    const int from = threadIdx.x % K * Tile<GLA_COLS>::LD + threadIdx.x / K * WIDE;
    float inner = 0;
    for (int j = 0; j < WIDE; j += 2) {
        const unsigned s = shared_load4(Ss + from + j), d = shared_load4(Ds + from + j);
        inner += __uint_as_float(s << 16) * __uint_as_float(d << 16);
        inner += __uint_as_float(s & 0xffff0000u) * __uint_as_float(d & 0xffff0000u);
    }
    return inner;
}

template <int K>
__global__ void __launch_bounds__(GLA_BACK, 1)
    gla_parallel_mma_kernel(Bf16 *dq, Bf16 *dk, wide *dg, const Bf16 *dS, const Bf16 *dout, const Bf16 *states,
                            const Bf16 *q, const Bf16 *k, const Bf16 *v, const wide *g, const int *start,
                            int first_chunk, int chunks, DeltaArgs a) {
    enum { NB = K / 16, TC = GLA_C * Tile<GLA_COLS>::LD, TS = K * Tile<GLA_COLS>::LD };
    DYNAMIC_SHARED(Bf16, cursor);
    SHARED_PTR(Bf16) qs = shared_take<Bf16>(cursor, GLA_C * Tile<K>::LD);
    SHARED_PTR(Bf16) ks = shared_take<Bf16>(cursor, GLA_C * Tile<K>::LD);
    SHARED_PTR(float) bs = shared_take<float>(cursor, DecaySums<K>::SIZE); // b, and x in the end
    SHARED_PTR(Bf16) vs = shared_take<Bf16>(cursor, TC);
    SHARED_PTR(Bf16) os = shared_take<Bf16>(cursor, TC);
    SHARED_PTR(Bf16) Ss = shared_take<Bf16>(cursor, 2 * TS);
    SHARED_PTR(Bf16) Ds = Ss + TS;
    SHARED_PTR(Bf16) dPs = shared_take<Bf16>(cursor, TC);
    SHARED_PTR(float)
    end = shared_take<float>(cursor, K + GLA_BACK); // all, <S, dS>
    SHARED(int, from, GLA_C);
    SHARED(float, diagonal, GLA_C);
    const int c = first_chunk + blockIdx.x, t0 = c * GLA_C, n = min((int)GLA_C, a.T - t0), group = a.H / a.Hk,
              b = blockIdx.y / a.Hk, hk = blockIdx.y % a.Hk, lane = threadIdx.x % WARP, warp = threadIdx.x / WARP,
              g8 = lane / 4, t2 = lane % 4 * 2, row = warp % 4, left = warp / 4 * (K / 2);
    const size_t KV = (size_t)K * a.V, at = (((size_t)b * a.T + t0) * a.Hk + hk) * K;
    tile_fetch<K>(ks, k + at, (size_t)a.Hk * K, GLA_C, n, GLA_BACK);
    tile_fetch<K>(qs, q + at, (size_t)a.Hk * K, GLA_C, n, GLA_BACK);
    decay_sums<K>(bs, from, g + at, (size_t)a.Hk * K, start, b, t0, n, a);
    float dp[4][4] = {}, sq[NB][4] = {}, sk[NB][4] = {}, inner = 0;
    for (int x = 0; x < group * (a.V / GLA_COLS); x++) {
        const int h = hk * group + x / (a.V / GLA_COLS), v0 = x % (a.V / GLA_COLS) * GLA_COLS;
        const size_t rows = (((size_t)b * a.T + t0) * a.H + h) * a.V + v0, bh = (size_t)b * a.H + h;
        const Bf16 *S = states + (bh * (a.NC + 1) + c) * KV + v0;
        __syncthreads();
        tile_fetch<GLA_COLS>(vs, v + rows, (size_t)a.H * a.V, GLA_C, n, GLA_BACK);
        tile_fetch<GLA_COLS>(os, dout + rows, (size_t)a.H * a.V, GLA_C, n, GLA_BACK);
        tile_fetch<GLA_COLS>(Ss, S, a.V, K, K, GLA_BACK);
        cp_async_commit();
        tile_fetch<GLA_COLS>(Ds, dS + (bh * chunks + blockIdx.x) * KV + v0, a.V, K, K, GLA_BACK);
        cp_async_commit();
        cp_async_wait<1>();
        __syncthreads();
        inner += gla_head_products<K, NB>(dp, sq, sk, vs, os, Ss, Ds);
    }
    end[K + threadIdx.x] = inner;
#pragma unroll
    for (int m = 0; m < 4; m++) {
#pragma unroll
        for (int e = 0; e < 4; e++) {
            const int i = row * 16 + g8 + e / 2 * 8, j = warp / 4 * 32 + m * 8 + t2 + e % 2;
            const float x = j <= i && j >= (int)from[i] ? a.scale * dp[m][e] : 0.0f;
            if (i == j) diagonal[i] = x;
            dPs[i * Tile<GLA_C>::LD + j] = Bf16(i == j ? 0.0f : x);
        }
    }
    __syncthreads();
    const int last = (GLA_C - 1) * DecaySums<K>::LD, last_from = from[GLA_C - 1];
    const bool mild = decay_mild<K>(bs, row * 16);
    SHARED_PTR(Bf16) again = Ss; // S and dS have been read: the first term of dk, each element its own thread's
    SHARED_PTR(float) fars = shared_take<float>(again, DecaySums<K>::SIZE);
    static_assert((int)TS >= (int)DecaySums<K>::SIZE, "it takes the place of S and dS");
#pragma unroll
    for (int p = 0; p < NB / 2; p++) {
        const int c0 = left + p * 16;
        float to_q[1][2][4] = {}, to_k[1][2][4] = {};
        decay_rows<K, false>(to_q, {dPs}, {ks}, bs, row, c0, mild);
        decay_rows<K, true>(to_k, {dPs}, {qs}, bs, row, c0, mild);
#pragma unroll
        for (int m = 0; m < 2; m++) {
#pragma unroll
            for (int e = 0; e < 4; e++) {
                const int i = row * 16 + g8 + e / 2 * 8, x = c0 + m * 8 + t2 + e % 2;
                const float b_i = bs[i * DecaySums<K>::LD + x], in = (int)from[i] >= 0 ? 0.0f : __expf(b_i);
                fars[i * DecaySums<K>::LD + x] = last_from > i ? 0.0f : __expf(bs[last + x] - b_i) * sk[2 * p + m][e];
                sq[2 * p + m][e] = a.scale * in * sq[2 * p + m][e] + to_q[0][m][e];
                sk[2 * p + m][e] = to_k[0][m][e];
            }
        }
        __syncwarp(); // one pair at a time: the loads of the next ones would spill
    }
    for (int x = threadIdx.x; x < K; x += GLA_BACK) end[x] = last_from >= 0 ? 0.0f : __expf(bs[last + x]);
    __syncthreads(); // b has been read
#pragma unroll
    for (int m = 0; m < NB; m++)
#pragma unroll
        for (int e = 0; e < 4; e += 2) {
            const int i = row * 16 + g8 + e / 2 * 8, x = left + m * 8 + t2;
            const float qx[2] = {qs[i * Tile<K>::LD + x], qs[i * Tile<K>::LD + x + 1]},
                        kx[2] = {ks[i * Tile<K>::LD + x], ks[i * Tile<K>::LD + x + 1]}, own = diagonal[i];
            float far[2];
            for (int z = 0; z < 2; z++) {
                const int c_z = i * DecaySums<K>::LD + x + z;
                far[z] = fars[c_z];
                fars[c_z] = kx[z] * far[z];
                bs[c_z] = qx[z] * sq[m][e + z] - kx[z] * sk[m][e + z];
            }
            if (i >= n) continue;
            const size_t to = at + (size_t)i * a.Hk * K + x;
            if (dq) pair_add(dq + to, sq[m][e] + own * kx[0], sq[m][e + 1] + own * kx[1]);
            if (dk) pair_add(dk + to, far[0] + sk[m][e] + own * qx[0], far[1] + sk[m][e + 1] + own * qx[1]);
        }
    __syncthreads();
    for (int x = threadIdx.x; x < K && dg; x += GLA_BACK) {
        float run = 0, before = 0;
        for (int p = 0; p < GLA_BACK / K; p++) run += end[K + p * K + x];
        run *= end[x];
        for (int i = GLA_C - 1; i >= 0; i--) {
            run += bs[i * DecaySums<K>::LD + x];
            if (i < n && begins(start, b, a.T, t0 + i)) run = 0;
            else if (i < n) dg[at + (size_t)i * a.Hk * K + x] += run;
        }
        for (int i = 0; i < n; i++) { // 0 up to the last document's start
            dg[at + (size_t)i * a.Hk * K + x] += before;
            before += fars[i * DecaySums<K>::LD + x];
        }
    }
}

template <int K>
static void gla_backward_mma(Bf16 *dq, Bf16 *dk, Bf16 *dv, wide *dg, wide *dstate, const Bf16 *dout, const Bf16 *states,
                             const Bf16 *q, const Bf16 *k, const Bf16 *v, const wide *g, const int *start, double scale,
                             void *work, const DeltaDims *d) {
    const DeltaArgs a = delta_args(d, scale);
    const int each = GlaKept<K>::SIZE;
    const size_t kept = (size_t)each + (size_t)K * d->V;
    const int most = (int)(a.worker * sizeof(float) / (kept * sizeof(Bf16)));
    const size_t shared = (2 * GLA_C * Tile<K>::LD + (3 * GLA_C + 2 * K) * Tile<GLA_COLS>::LD) * sizeof(Bf16) +
                          (DecaySums<K>::SIZE + K + GLA_BACK) * sizeof(float);
    for (int last = a.NC; last > 0; last -= most) {
        const int first = last > most ? last - most : 0, chunks = last - first;
        const Bf16 *dS = (Bf16 *)work + (size_t)d->B * d->Hk * chunks * each;
        LAUNCH(gla_prepare_mma_kernel<K>, dim3(chunks, d->B * d->Hk), GLA_PREPARE, gla_prepare_shared<K>(),
               (Bf16 *)work, q, k, g, start, first, chunks, each, a);
        LAUNCH((gla_scan_mma_kernel<K, true>), dim3(d->V / GLA_COLS, d->B * d->H), GLA_SCAN, gla_scan_shared<K>(), dv,
               (Bf16 *)NULL, dstate, (Bf16 *)work, dout, first, chunks, each, a);
        if (dq || dk || dg)
            LAUNCH(gla_parallel_mma_kernel<K>, dim3(chunks, d->B * d->Hk), GLA_BACK, shared, dq, dk, dg, dS, dout,
                   states, q, k, v, g, start, first, chunks, a);
    }
}
