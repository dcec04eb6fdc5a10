/* delta_rule_mma_backward.cu - the gated delta rule backward for BF16, chunks of 64, K = V = 64 or 128, on the matrix
 * unit. The equations are those of delta_rule.cu; the split is into what is serial and what is not:
 *   prepare (delta_rule_mma.cu)  A and P of every chunk
 *   serial, chunks from last to first, a block per 64 value columns: only what carries dS:
 *       dV' = out o (K dS) + P^T dO;  dR = beta o A^T dV';  dv += dR;  dS = all dS + Q^T (s in o dO) - K^T (in o dR)
 *       and leaves each chunk's dS and dV' in the workspace, in bf16
 *   parallel, a block per chunk and key head: everything else, from the stored states.
 * dg from L's sums by rows and columns: sum over i >= t, j < t of L_ij = sum over i >= t of (row_i - column_i),
 * as pairs inside cancel; what leads over the chunk's end is summed from the other side. */
enum { GDN_BACK = 256 };

/* What the workspace holds for one chunk of one head, one after the other. */
template <int K, int V> struct GdnKept {
    enum { PAIR = GDN_KEPT, DU = GDN_C * V, DS = K * V, ALL = PAIR + DU + DS };
};

// ---- serial ----
template <int K, int V>
__global__ void __launch_bounds__(GDN_BACK, 1)
    gdn_serial_mma_kernel(Bf16 *dv, wide *dstate, Bf16 *work, const Bf16 *dout, const Bf16 *q, const Bf16 *k,
                          int first_chunk, int chunks, DeltaArgs a) {
    enum { COLS = GDN_COLS, HALF = COLS / 2, NB = HALF / 8 };
    typedef GdnKept<K, V> Kept;
    DYNAMIC_SHARED(Bf16, cursor);
    const SHARED_PTR(Bf16) ring = shared_take<Bf16>(cursor, 2 * GdnStage<K>::ALL);
    SHARED_PTR(Bf16) dSs = shared_take<Bf16>(cursor, K * Tile<COLS>::LD);
    SHARED_PTR(Bf16) dUs = shared_take<Bf16>(cursor, GDN_C * Tile<COLS>::LD); // dV', then -in o dR
    SHARED_PTR(Bf16) ios = shared_take<Bf16>(cursor, GDN_C * Tile<COLS>::LD); // s in o dO
    const SHARED_PTR(float) factors = shared_take<float>(cursor, 2 * GDN_FACTORS);
    const int bh = blockIdx.y, b = bh / a.H, h = bh % a.H, v0 = blockIdx.x * COLS, g8 = threadIdx.x % WARP / 4;
    const int row = threadIdx.x / WARP % 4, left = threadIdx.x / WARP / 4 * HALF;
    wide *state = dstate + (size_t)bh * K * V + v0;
    Bf16 *kept = work + ((size_t)bh * chunks + chunks - 1) * Kept::ALL;

    float S[K / 64][NB][4]; // dS
    state_load(S, state, V, row, left);
    gdn_fetch<K>(gdn_stage<K>(ring, factors, 0), q, k, dout, kept, b, h, first_chunk + chunks - 1, v0, a);
    for (int y = 0; y < chunks; y++, kept -= Kept::ALL) {
        const int c = first_chunk + chunks - 1 - y, t0 = c * GDN_C, n_rows = min((int)GDN_C, a.T - t0);
        const size_t bt = (size_t)b * a.T + t0;
        const GdnStage<K> w = gdn_stage<K>(ring, factors, y % 2);
        if (y + 1 < chunks)
            gdn_fetch<K>(gdn_stage<K>(ring, factors, (y + 1) % 2), q, k, dout, kept - Kept::ALL, b, h, c - 1, v0, a);
        state_round<COLS>(dSs, S, row, left);
        if (y + 1 < chunks) cp_async_wait<1>();
        else cp_async_wait<0>();
        __syncthreads();
        tile_store<COLS>(kept + Kept::PAIR + Kept::DU + v0, V, dSs, K, GDN_BACK);
        float in[2], out[2], beta[2];
#pragma unroll
        for (int e = 0; e < 2; e++) {
            const SHARED_PTR(float) f = w.factors + row * 16 + g8 + 8 * e;
            in[e] = f[0], out[e] = f[GDN_C], beta[e] = f[2 * GDN_C];
        }
        const float all = w.factors[3 * GDN_C];
        // dV' = out o (K dS) + P^T dO
        float u[NB][4] = {};
        tile_mma<K, COLS, false, true, 8>(u, w.k, dSs, row * 16, left, K);
#pragma unroll
        for (int n = 0; n < NB; n++)
#pragma unroll
            for (int e = 0; e < 4; e++) u[n][e] *= out[e / 2];
        tile_mma<GDN_C, COLS, true, true, 8>(u, w.P, w.v, row * 16, left, GDN_C);
#pragma unroll
        for (int n = 0; n < NB; n++) {
            float o_in[4];
            store_c<COLS>(dUs, u[n], row * 16, left + n * 8);
            read_c<COLS>(o_in, w.v, row * 16, left + n * 8);
#pragma unroll
            for (int e = 0; e < 4; e++) o_in[e] *= a.scale * in[e / 2];
            store_c<COLS>(ios, o_in, row * 16, left + n * 8);
        }
        rows_store(kept + Kept::PAIR + v0, V, u, GDN_C, row, left);
        __syncthreads();
        // dR = beta o (A^T dV')
        float r[NB][4] = {};
        tile_mma<GDN_C, COLS, true, true, 8>(r, w.A, dUs, row * 16, left, GDN_C);
        __syncthreads(); // dV' has been read
#pragma unroll
        for (int n = 0; n < NB; n++)
#pragma unroll
            for (int e = 0; e < 4; e++) r[n][e] *= beta[e / 2];
        if (dv) rows_add(dv + (bt * a.H + h) * V + v0, (size_t)a.H * V, r, n_rows, row, left);
#pragma unroll
        for (int n = 0; n < NB; n++) {
#pragma unroll
            for (int e = 0; e < 4; e++) r[n][e] *= -in[e / 2];
            store_c<COLS>(dUs, r[n], row * 16, left + n * 8);
        }
        __syncthreads();
        // dS = all dS + Q^T (s in o dO) - K^T (in o dR)
#pragma unroll
        for (int m = 0; m < K / 64; m++) {
#pragma unroll
            for (int n = 0; n < NB; n++)
#pragma unroll
                for (int e = 0; e < 4; e++) S[m][n][e] *= all;
            tile_mma<K, COLS, true, true, 8>(S[m], w.q, ios, 16 * (row + 4 * m), left, GDN_C);
            tile_mma<K, COLS, true, true, 8>(S[m], w.k, dUs, 16 * (row + 4 * m), left, GDN_C);
        }
        __syncthreads(); // the stage, dSs, dUs and ios may be written again
    }
    state_store(state, S, V, row, left);
}

// ---- parallel ----
template <int K, int V>
__global__ void __launch_bounds__(GDN_BACK, 1)
    gdn_parallel_mma_kernel(Bf16 *dq, Bf16 *dk, wide *dg, wide *dbeta, const Bf16 *work, const Bf16 *dout,
                            const Bf16 *states, const Bf16 *q, const Bf16 *k, const Bf16 *v, const wide *g,
                            const wide *beta, const int *start, int first_chunk, int chunks, DeltaArgs a) {
    enum {
        VB = V / 2 / 8,
        KB = K / 2 / 8,
        CB = GDN_C / 2 / 8
    }; // 8-column blocks of a warp in tiles of V, K and 64 columns
    typedef GdnKept<K, V> Kept;
    DYNAMIC_SHARED(Bf16, cursor);
    SHARED_PTR(Bf16) qs = shared_take<Bf16>(cursor, GDN_C * Tile<K>::LD);
    SHARED_PTR(Bf16) ks = shared_take<Bf16>(cursor, GDN_C * Tile<K>::LD);
    SHARED_PTR(Bf16) os = shared_take<Bf16>(cursor, GDN_C * Tile<V>::LD);
    SHARED_PTR(Bf16) dUs = shared_take<Bf16>(cursor, GDN_C * Tile<V>::LD);
    SHARED_PTR(Bf16) Rs = shared_take<Bf16>(cursor, GDN_C * Tile<V>::LD); // v, then R
    SHARED_PTR(Bf16) Us = shared_take<Bf16>(cursor, GDN_C * Tile<V>::LD); // beta o R, then V'
    SHARED_PTR(Bf16) dRs = shared_take<Bf16>(cursor, GDN_C * Tile<V>::LD);
    SHARED_PTR(Bf16) Ss = shared_take<Bf16>(cursor, K * Tile<V>::LD); // S, then dS
    SHARED_PTR(Bf16) As = shared_take<Bf16>(cursor, GDN_C * Tile<GDN_C>::LD);
    SHARED_PTR(Bf16) Ps = shared_take<Bf16>(cursor, GDN_C * Tile<GDN_C>::LD);
    SHARED_PTR(Bf16) M1 = shared_take<Bf16>(cursor, GDN_C * Tile<GDN_C>::LD); // dA beta, then dP
    SHARED_PTR(Bf16) M2 = shared_take<Bf16>(cursor, GDN_C * Tile<GDN_C>::LD); // A^T dA beta, then E
    SHARED(double, G, GDN_C);
    SHARED(int, from, GDN_C);
    SHARED(float, betas, GDN_C);
    SHARED(float, rows,
           2 * GDN_C);                 // by half of the columns: L's row sums, plus the gradient of in's exponent
    SHARED(float, lasts, 2 * GDN_C);   // by half of the channels: k . dk's term of the state after
    SHARED(float, columns, 4 * GDN_C); // by row group: L's column sums
    SHARED(float, dbeta_i, 2 * GDN_C);
    SHARED(float, dbeta_j, 4 * GDN_C);
    const GdnDecays dec = {G, from, betas};
    const int b = blockIdx.y / a.Hk, hk = blockIdx.y % a.Hk, group = a.H / a.Hk, lane = threadIdx.x % WARP,
              g8 = lane / 4, t2 = lane % 4 * 2;
    const int rg = threadIdx.x / WARP % 4, row = rg * 16, half = threadIdx.x / WARP / 4, x = blockIdx.x,
              c = first_chunk + x, t0 = c * GDN_C;
    const int n_rows = min((int)GDN_C, a.T - t0), kl = half * (K / 2), vl = half * (V / 2), cl = half * (GDN_C / 2);
    const size_t bt = (size_t)b * a.T + t0, at_k = (bt * a.Hk + hk) * K;
    float sum_q[KB][4] = {}, sum_k[KB][4] = {};
    for (int h = hk * group; h < (hk + 1) * group; h++) {
        const size_t bh = (size_t)b * a.H + h, at_v = (bt * a.H + h) * V;
        const Bf16 *kept = work + (bh * chunks + x) * Kept::ALL;
        const Bf16 *S = states + (bh * (a.NC + 1) + c) * K * V;
        // two groups: K, V and S for R; what R is multiplied with arrives meanwhile
        if (h == hk * group) tile_fetch<K>(ks, k + at_k, (size_t)a.Hk * K, GDN_C, n_rows, GDN_BACK);
        tile_fetch<V>(Ss, S, V, K, K, GDN_BACK);
        tile_fetch<V>(Rs, v + at_v, (size_t)a.H * V, GDN_C, n_rows, GDN_BACK);
        cp_async_commit();
        tile_fetch<GDN_C>(As, kept, GDN_C, GDN_C, GDN_C, GDN_BACK);
        tile_fetch<V>(dUs, kept + Kept::PAIR, V, GDN_C, GDN_C, GDN_BACK);
        tile_fetch<V>(os, dout + at_v, (size_t)a.H * V, GDN_C, n_rows, GDN_BACK);
        tile_fetch<GDN_C>(Ps, kept + GDN_C * GDN_C, GDN_C, GDN_C, GDN_C, GDN_BACK);
        if (h == hk * group) tile_fetch<K>(qs, q + at_k, (size_t)a.Hk * K, GDN_C, n_rows, GDN_BACK);
        cp_async_commit();
        gdn_decays(dec, g + bt * a.H + h, beta + bt * a.H + h, start, b, t0, n_rows, a.H, a);
        cp_async_wait<1>();
        __syncthreads();
        float in[2], out[2], beta_r[2];
#pragma unroll
        for (int e = 0; e < 2; e++) {
            const int i = row + g8 + 8 * e;
            in[e] = gdn_in(dec, i), out[e] = gdn_out(dec, i), beta_r[e] = betas[i];
        }
        const float all = gdn_in(dec, GDN_C - 1);
        // R = V - in o (K S); each element of Rs is read and written by the same thread. And beta o R.
        {
            float ksv[VB][4] = {};
            tile_mma<K, V, false, true, 2>(ksv, ks, Ss, row, vl, K);
#pragma unroll
            for (int n = 0; n < VB; n++) {
                float vs[4];
                read_c<V>(vs, Rs, row, vl + n * 8);
#pragma unroll
                for (int e = 0; e < 4; e++) ksv[n][e] = vs[e] - in[e / 2] * ksv[n][e];
                store_c<V>(Rs, ksv[n], row, vl + n * 8);
#pragma unroll
                for (int e = 0; e < 4; e++) ksv[n][e] *= beta_r[e / 2];
                store_c<V>(Us, ksv[n], row, vl + n * 8);
            }
        }
        cp_async_wait<0>();
        __syncthreads(); // and the second group is there
        // V' = A (beta o R);  dR = beta o (A^T dV')
        {
            float u[VB][4] = {};
            tile_mma<GDN_C, V, true, true, 2>(u, As, dUs, row, vl, GDN_C);
#pragma unroll
            for (int n = 0; n < VB; n++) {
#pragma unroll
                for (int e = 0; e < 4; e++) u[n][e] *= beta_r[e / 2];
                store_c<V>(dRs, u[n], row, vl + n * 8);
            }
        }
        {
            float u[VB][4] = {};
            tile_mma<GDN_C, V, false, true, 2>(u, As, Us, row, vl, GDN_C);
            __syncthreads(); // beta o R has been read
#pragma unroll
            for (int n = 0; n < VB; n++) store_c<V>(Us, u[n], row, vl + n * 8);
        }
        // dA_b = dV' R^T: dbeta's columns, and dA_b diag(beta)
        {
            float dA[CB][4] = {};
            tile_mma<V, V, false, false, 2>(dA, dUs, Rs, row, cl, V);
#pragma unroll
            for (int n = 0; n < CB; n++) {
                float col[2] = {0, 0};
#pragma unroll
                for (int e = 0; e < 4; e++) {
                    const int i = row + g8 + e / 2 * 8, j = cl + n * 8 + t2 + e % 2;
                    col[e % 2] += dA[n][e] * As[i * Tile<GDN_C>::LD + j];
                    dA[n][e] *= betas[j];
                }
                store_c<GDN_C>(M1, dA[n], row, cl + n * 8);
#pragma unroll
                for (int e = 0; e < 2; e++) {
                    for (int m = 4; m < WARP; m *= 2) col[e] += __shfl_xor_sync(FULL, col[e], m);
                    if (g8 == 0) dbeta_j[rg * GDN_C + cl + n * 8 + t2 + e] = col[e];
                }
            }
        }
        __syncthreads();
        // dM = -strict(A^T (dA_b beta) A^T);  E = beta o dM o gam;  L = E o K K^T + (dO V'^T) o P
        {
            float y[CB][4] = {};
            tile_mma<GDN_C, GDN_C, true, true, 2>(y, As, M1, row, cl, GDN_C);
#pragma unroll
            for (int n = 0; n < CB; n++) store_c<GDN_C>(M2, y[n], row, cl + n * 8);
        }
        __syncthreads();
        float E[CB][4] = {}, dP[CB][4] = {}, kk[CB][4] = {}, row_L[2] = {0, 0}, row_b[2] = {0, 0};
        tile_mma<GDN_C, GDN_C, false, false, 2>(E, M2, As, row, cl, GDN_C);
        tile_mma<V, V, false, false, 2>(dP, os, Us, row, cl, V);
        tile_mma<K, K, false, false, 2>(kk, ks, ks, row, cl, K);
        __syncthreads(); // M1 and M2 have been read
#pragma unroll
        for (int n = 0; n < CB; n++) {
            float col[2] = {0, 0};
#pragma unroll
            for (int e = 0; e < 4; e++) {
                const int i = row + g8 + e / 2 * 8, j = cl + n * 8 + t2 + e % 2;
                const float gam = j <= i ? gdn_gam(dec, i, j) : 0.0f, X = j < i ? -gam * E[n][e] : 0.0f;
                E[n][e] = beta_r[e / 2] * X;
                const float L = E[n][e] * kk[n][e] + (j < i ? dP[n][e] * Ps[i * Tile<GDN_C>::LD + j] : 0.0f);
                dP[n][e] *= a.scale * gam;
                row_L[e / 2] += L, col[e % 2] += L;
                row_b[e / 2] += X * kk[n][e];
            }
            store_c<GDN_C>(M1, dP[n], row, cl + n * 8);
            store_c<GDN_C>(M2, E[n], row, cl + n * 8);
#pragma unroll
            for (int e = 0; e < 2; e++) {
                for (int m = 4; m < WARP; m *= 2) col[e] += __shfl_xor_sync(FULL, col[e], m);
                if (g8 == 0) columns[rg * GDN_C + cl + n * 8 + t2 + e] = col[e];
            }
        }
        __syncthreads();
        // the two products with S, whose dot products with q and k are the gradient of in's exponent
        float din[2] = {0, 0};
        {
            float y[KB][4] = {};
            tile_mma<V, V, false, false, 2>(y, os, Ss, row, kl, V);
#pragma unroll
            for (int n = 0; n < KB; n++)
#pragma unroll
                for (int e = 0; e < 4; e++) {
                    y[n][e] *= a.scale * in[e / 2];
                    din[e / 2] += y[n][e] * qs[(row + g8 + e / 2 * 8) * Tile<K>::LD + kl + n * 8 + t2 + e % 2];
                    sum_q[n][e] += y[n][e];
                }
        }
        {
            float z[KB][4] = {};
            tile_mma<V, V, false, false, 2>(z, dRs, Ss, row, kl, V);
#pragma unroll
            for (int n = 0; n < KB; n++)
#pragma unroll
                for (int e = 0; e < 4; e++) {
                    z[n][e] *= -in[e / 2];
                    din[e / 2] += z[n][e] * ks[(row + g8 + e / 2 * 8) * Tile<K>::LD + kl + n * 8 + t2 + e % 2];
                    sum_k[n][e] += z[n][e];
                }
        }
        // dQ += dP K;  dK += dP^T Q + E K + E^T K
        tile_mma<GDN_C, K, false, true, 2>(sum_q, M1, ks, row, kl, GDN_C);
        tile_mma<GDN_C, K, true, true, 2>(sum_k, M1, qs, row, kl, GDN_C);
        tile_mma<GDN_C, K, false, true, 2>(sum_k, M2, ks, row, kl, GDN_C);
        tile_mma<GDN_C, K, true, true, 2>(sum_k, M2, ks, row, kl, GDN_C);
        // dK_s = out o (V' dS^T) with dS in S's place; <S, dS> on the way
        __syncthreads();
        float tail = 0; // all <S, dS>
        const Bf16 *dS = kept + Kept::PAIR + Kept::DU;
        for (int e = threadIdx.x * 8; e < K * V; e += GDN_BACK * 8)
            tail += tile_swap8(Ss + e / V * Tile<V>::LD + e % V, *(const uint4 *)(dS + e));
        tail = all * block_sum(tail); // and a barrier
        {
            float z[KB][4] = {}, last[2] = {0, 0};
            tile_mma<V, V, false, false, 2>(z, Us, Ss, row, kl, V);
#pragma unroll
            for (int n = 0; n < KB; n++)
#pragma unroll
                for (int e = 0; e < 4; e++) {
                    z[n][e] *= out[e / 2];
                    last[e / 2] += z[n][e] * ks[(row + g8 + e / 2 * 8) * Tile<K>::LD + kl + n * 8 + t2 + e % 2];
                    sum_k[n][e] += z[n][e];
                }
                // what leads over the chunk's end: dg_t takes the rows before t, summed by themselves, since the last
                // row has the size of what does not decay
#pragma unroll
            for (int e = 0; e < 2; e++) {
                const int i = row + g8 + 8 * e;
                din[e] = quad_sum(din[e]), row_L[e] = quad_sum(row_L[e]), row_b[e] = quad_sum(row_b[e]),
                last[e] = quad_sum(last[e]);
                if (t2 == 0) {
                    rows[half * GDN_C + i] = din[e] + row_L[e];
                    lasts[half * GDN_C + i] = last[e];
                    dbeta_i[half * GDN_C + i] = row_b[e];
                }
            }
        }
        __syncthreads(); // rows and lasts are there
        if (threadIdx.x == 0 && dg) {
            float run = tail, before = 0;
            for (int i = n_rows - 1; i >= 0; i--) {
                run += rows[i] + rows[GDN_C + i] - columns[i] - columns[GDN_C + i] - columns[2 * GDN_C + i] -
                       columns[3 * GDN_C + i];
                const bool first =
                    (int)from[i] == i && t0 + i > 0; // nothing of its decay is left: what remains is rounding
                if (!first) dg[(bt + i) * a.H + h] += run;
                else run = 0;
            }
            for (int i = 0; i < n_rows; i++) { // 0 up to the last document's start
                dg[(bt + i) * a.H + h] += before;
                before += lasts[i] + lasts[GDN_C + i];
            }
        }
        if (dbeta && (int)threadIdx.x < n_rows) {
            const int i = threadIdx.x;
            dbeta[(bt + i) * a.H + h] += dbeta_i[i] + dbeta_i[GDN_C + i] + dbeta_j[i] + dbeta_j[GDN_C + i] +
                                         dbeta_j[2 * GDN_C + i] + dbeta_j[3 * GDN_C + i];
        }
        __syncthreads(); // before the next head
    }
    if (dq) rows_add(dq + at_k, (size_t)a.Hk * K, sum_q, n_rows, rg, kl);
    if (dk) rows_add(dk + at_k, (size_t)a.Hk * K, sum_k, n_rows, rg, kl);
}

template <int K, int V>
static void gdn_backward(Bf16 *dq, Bf16 *dk, Bf16 *dv, wide *dg, wide *dbeta, wide *dstate, const Bf16 *dout,
                         const Bf16 *states, const Bf16 *q, const Bf16 *k, const Bf16 *v, const wide *g,
                         const wide *beta, const int *start, double scale, void *work, const DeltaDims *d) {
    const DeltaArgs a = delta_args(d, scale);
    const size_t tile_k = GDN_C * Tile<K>::LD, tile_v = GDN_C * Tile<V>::LD, tile_c = GDN_C * Tile<GDN_C>::LD;
    const size_t shared_parallel = (2 * tile_k + 5 * tile_v + K * Tile<V>::LD + 4 * tile_c) * sizeof(Bf16);
    const int most = (int)(a.worker * sizeof(float) / (GdnKept<K, V>::ALL * sizeof(Bf16)));
    Bf16 *w = (Bf16 *)work;
    for (int last = a.NC; last > 0; last -= most) {
        const int first = last > most ? last - most : 0, chunks = last - first;
        LAUNCH((gdn_prepare_mma_kernel<K, false>), dim3(chunks, d->B * d->H), GDN_PREPARE, gdn_prepare_shared<K>(), w,
               q, k, g, beta, start, first, chunks, (int)GdnKept<K, V>::ALL, a);
        LAUNCH((gdn_serial_mma_kernel<K, V>), dim3(V / GDN_COLS, d->B * d->H), GDN_BACK, gdn_scan_shared<K>(2), dv,
               dstate, w, dout, q, k, first, chunks, a);
        if (dq || dk || dg || dbeta)
            LAUNCH((gdn_parallel_mma_kernel<K, V>), dim3(chunks, d->B * d->Hk), GDN_BACK, shared_parallel, dq, dk, dg,
                   dbeta, w, dout, states, q, k, v, g, beta, start, first, chunks, a);
    }
}
