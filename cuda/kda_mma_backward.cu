/* kda_mma_backward.cu - Kimi delta attention backward for BF16, chunks of 64, K = V = 64 or 128, on the matrix unit.
 * With w = V' of kda_mma.cu and
 * A = (I + diag(beta) kk)^{-1}, that is w_i = beta_i (R_i - sum_{j<i} kk_ij w_j):
 *   prepare (kda_mma.cu)  A, P, kk, Q, K_in, K_out, all of every chunk
 *   serial, chunks from last to first, a block per 64 value columns: only what carries dS:
 *       dw = K_out dS + P^T dO;  D = A^T dw;  dR = beta o D;  dv += dR;  dS = all o dS + Q^T dO - K_in^T dR
 *       and leaves each chunk's dS and D in the workspace, in bf16
 *   parallel, a block per chunk and key head, the heads of the group one after another:
 *   everything else, from the stored states:
 *       R = V - K_in S;  w = A (beta o R)
 *       dqk = s (dO w^T) o (i >= j);  dkk = -beta o (D w^T) o (i > j);  dbeta_i = D_i . R_i - sum_j kk_ij (D w^T)_ij
 *       dq_i = s in_i o (S dO_i) + sum_{j<=i} dqk_ij e^{b_i - b_j} o k_j
 *       dk_i = -in_i o (S dR_i) + sum_{j<i} dkk_ij e^{b_i - b_j} o k_j                          what token i reads
 *            + out_i o (dS w_i) + sum_{j>=i} e^{b_j - b_i} o (dqk_ji q_j + dkk_ji k_j)          what it writes
 *       dg_t = all o <S, dS> + sum_{i >= t} x_i + sum_{j < t} k_j o out_j o (dS w_j),
 *       x = q o dq + k o (dk read - dk written without its first term)
 * The terms i = j of dqk have no decay in them; as in gla_mma_backward.cu they are kept out of x, and the sum begins
 * again at a start. */
enum { KDA_BACK = 256 };

/* Behind what prepare leaves of a chunk: D (64 x V) and dS (K x V). */
template <int K> struct KdaBackKept {
    enum { D = KdaKept<K>::SIZE, DS = D + KDA_C * K, SIZE = DS + K * K };
};

// ---- serial ----
template <int K>
__global__ void __launch_bounds__(KDA_SCAN, 1)
    kda_serial_mma_kernel(Bf16 *dv, wide *dstate, Bf16 *work, const Bf16 *dout, const wide *beta, int first_chunk,
                          int chunks, DeltaArgs a) {
    enum { V = K, COLS = KDA_COLS, HALF = COLS / 2, NB = HALF / 8 };
    typedef KdaBackKept<K> Kept;
    DYNAMIC_SHARED(Bf16, cursor);
    const SHARED_PTR(Bf16) ring = shared_take<Bf16>(cursor, 2 * KdaStage<K>::SIZE);
    SHARED_PTR(Bf16) qs = shared_take<Bf16>(cursor, KDA_C * Tile<K>::LD);    // Q
    SHARED_PTR(Bf16) dSs = shared_take<Bf16>(cursor, K * Tile<COLS>::LD);    // dS, rounded
    SHARED_PTR(Bf16) ws = shared_take<Bf16>(cursor, KDA_C * Tile<COLS>::LD); // dw, then -dR
    SHARED(float, betas, KDA_C);
    const int bh = blockIdx.y, b = bh / a.H, h = bh % a.H, v0 = blockIdx.x * COLS, lane = threadIdx.x % WARP,
              g8 = lane / 4, t2 = lane % 4 * 2, row = threadIdx.x / WARP % 4, left = threadIdx.x / WARP / 4 * HALF;
    wide *state = dstate + (size_t)bh * K * V + v0;
    float S[K / 64][NB][4]; // dS
    state_load(S, state, V, row, left);
    Bf16 *kept = work + ((size_t)bh * chunks + chunks - 1) * Kept::SIZE;
    kda_fetch<K, true>(kda_stage<K>(ring, chunks - 1), dout, kept, b, h, first_chunk + chunks - 1, v0, a);
    for (int x = chunks - 1; x >= 0; x--, kept -= Kept::SIZE) {
        const int c = first_chunk + x, t0 = c * KDA_C, n_rows = min((int)KDA_C, a.T - t0);
        const size_t first_row = ((size_t)b * a.T + t0) * a.H + h;
        const KdaStage<K> w = kda_stage<K>(ring, x);
        const float *all = (const float *)(kept + KdaKept<K>::ALL);
        tile_fetch<K>(qs, kept + KdaKept<K>::Q, K, KDA_C, KDA_C, KDA_SCAN);
        cp_async_commit();
        if (x) kda_fetch<K, true>(kda_stage<K>(ring, x - 1), dout, kept - Kept::SIZE, b, h, c - 1, v0, a);
        for (int i = threadIdx.x; i < KDA_C; i += KDA_SCAN)
            betas[i] = i < n_rows ? beta[first_row + (size_t)i * a.H] : 0.0f;
        state_round<COLS>(dSs, S, row, left);
        if (x) cp_async_wait<2>();
        else cp_async_wait<1>();
        __syncthreads();
        tile_store<COLS>(kept + Kept::DS + v0, V, dSs, K, KDA_SCAN);
        // dw = K_out dS + P^T dO
        float u[NB][4] = {};
        tile_mma<K, COLS, false, true, 8>(u, w.x, dSs, row * 16, left, K);
        tile_mma<KDA_C, COLS, true, true, 8>(u, w.P, w.v, row * 16, left, KDA_C);
#pragma unroll
        for (int n = 0; n < NB; n++) {
            store_c<COLS>(ws, u[n], row * 16, left + n * 8);
#pragma unroll
            for (int e = 0; e < 4; e++) u[n][e] = 0;
        }
        if (x) cp_async_wait<1>();
        else cp_async_wait<0>();
        __syncthreads(); // and Q is there
        // D = A^T dw;  dv += dR, dR = beta o D
        tile_mma<KDA_C, COLS, true, true, 8>(u, w.A, ws, row * 16, left, KDA_C);
        __syncthreads(); // dw has been read
#pragma unroll
        for (int n = 0; n < NB; n++) {
#pragma unroll
            for (int e = 0; e < 4; e += 2) {
                const int i = row * 16 + g8 + e / 2 * 8, at = left + n * 8 + t2;
                *(unsigned *)(kept + Kept::D + v0 + i * V + at) = bf16_pair(u[n][e], u[n][e + 1]);
                const float beta_i = betas[i];
                u[n][e] *= beta_i, u[n][e + 1] *= beta_i;
                if (dv && i < n_rows) pair_add(dv + (first_row + (size_t)i * a.H) * V + v0 + at, u[n][e], u[n][e + 1]);
                u[n][e] = -u[n][e], u[n][e + 1] = -u[n][e + 1];
            }
            store_c<COLS>(ws, u[n], row * 16, left + n * 8);
        }
        __syncthreads();
        // dS = all o dS + Q^T dO - K_in^T dR
        state_decay(S, all, row);
#pragma unroll
        for (int m = 0; m < K / 64; m++) {
            tile_mma<K, COLS, true, true, 8>(S[m], qs, w.v, 16 * (row + 4 * m), left, KDA_C);
            tile_mma<K, COLS, true, true, 8>(S[m], w.in, ws, 16 * (row + 4 * m), left, KDA_C);
        }
        __syncthreads(); // the stage, Q, dSs and betas may be written again
    }
    state_store(state, S, V, row, left);
}

// ---- parallel ----
/* Rows and sums of a chunk that outlive the loop over its channels. */
template <int K> struct KdaSums {
    enum { INNER = 0, LAST = K, DBETA = 2 * K, SIZE = DBETA + 2 * KDA_C };
};
/* dS (K x K, bf16, global) into the tile of S, row sums of S o dS on the way into `inner`. */
template <int K> __device__ void kda_swap_state(SHARED_PTR(Bf16) Ss, SHARED_PTR(float) inner, const Bf16 *dS) {
    enum { LANES = K / 8 }; // of a row, eight columns each
    const int lane = threadIdx.x % LANES, at = lane * 8;
    for (int r = threadIdx.x / LANES; r < K; r += KDA_BACK / LANES) {
        float sum = tile_swap8(Ss + r * Tile<K>::LD + at, *(const uint4 *)(dS + r * K + at));
        for (int m = 1; m < LANES; m *= 2) sum += __shfl_xor_sync(FULL, sum, m);
        if (lane == 0) inner[r] = sum;
    }
}
/* The tiles of one head, and this thread's place in products of 16 rows by half of the columns a warp. */
struct KdaTiles {
    SHARED_PTR(Bf16) q, k, o, D, R, w, S, dqk, dkk; // w: K_in, then w; dqk: A, then dqk
    SHARED_PTR(float) b, x, betas;
    SHARED_PTR(int) from;
    SHARED_PTR(float) sums, diagonal;
    int row, half, g8, t2;
};
/* R, w, and D . R by half of the columns into dbeta's sums. */
template <int K> __device__ void kda_solve(const KdaTiles &t) {
    enum { NB = K / 16 };
    const int left = t.half * (K / 2), r0 = t.row * 16 + t.g8;
    float u[NB][4] = {}, dot[2] = {0, 0};
    tile_mma<K, K, false, true, 2>(u, t.w, t.S, t.row * 16, left, K);
#pragma unroll
    for (int n = 0; n < NB; n++) {
        float v[4], D[4];
        read_c<K>(v, t.R, t.row * 16, left + n * 8);
        read_c<K>(D, t.D, t.row * 16, left + n * 8);
#pragma unroll
        for (int e = 0; e < 4; e++) {
            const float R = v[e] - u[n][e];
            dot[e / 2] += R * D[e];
            u[n][e] = R * t.betas[r0 + e / 2 * 8];
        }
        store_c<K>(t.R, u[n], t.row * 16, left + n * 8);
#pragma unroll
        for (int e = 0; e < 4; e++) u[n][e] = 0;
    }
    for (int e = 0; e < 2; e++) {
        dot[e] = quad_sum(dot[e]);
        if (t.t2 == 0) t.sums[KdaSums<K>::DBETA + t.half * KDA_C + r0 + e * 8] = dot[e];
    }
    cp_async_wait<0>();
    __syncthreads(); // beta o R and the second group are there, K_in has been read
    tile_mma<KDA_C, K, false, true, 2>(u, t.dqk, t.R, t.row * 16, left, KDA_C);
#pragma unroll
    for (int n = 0; n < NB; n++) store_c<K>(t.w, u[n], t.row * 16, left + n * 8);
    __syncthreads(); // A has been read
}
/* dqk, its diagonal, dkk, and kk's share of dbeta. */
template <int K> __device__ void kda_pairs(const KdaTiles &t, const Bf16 *kk, float scale) {
    enum { NB = KDA_C / 16 };
    const int left = t.half * (KDA_C / 2), r0 = t.row * 16 + t.g8;
    float dqk[NB][4] = {}, dkk[NB][4] = {}, dot[2] = {0, 0};
    tile_mma<K, K, false, false, 2>(dqk, t.o, t.w, t.row * 16, left, K);
    tile_mma<K, K, false, false, 2>(dkk, t.D, t.w, t.row * 16, left, K);
#pragma unroll
    for (int n = 0; n < NB; n++) {
#pragma unroll
        for (int e = 0; e < 4; e++) {
            const int i = r0 + e / 2 * 8, j = left + n * 8 + t.t2 + e % 2;
            const bool same = j >= (int)t.from[i];
            const unsigned pair = *(const unsigned *)(kk + i * KDA_C + j - e % 2);
            if (i == j) t.diagonal[i] = scale * dqk[n][e];
            dot[e / 2] += dkk[n][e] * __uint_as_float(e % 2 ? pair & 0xffff0000u : pair << 16);
            dqk[n][e] = j < i && same ? scale * dqk[n][e] : 0.0f;
            dkk[n][e] = j < i && same ? -t.betas[i] * dkk[n][e] : 0.0f;
        }
        store_c<KDA_C>(t.dqk, dqk[n], t.row * 16, left + n * 8);
        store_c<KDA_C>(t.dkk, dkk[n], t.row * 16, left + n * 8);
    }
    for (int e = 0; e < 2; e++) {
        dot[e] = quad_sum(dot[e]);
        if (t.t2 == 0) t.sums[KdaSums<K>::DBETA + t.half * KDA_C + r0 + e * 8] -= dot[e]; // its own, from kda_solve
    }
}

/* Where dq or dk of a chunk goes: dst += y, rounded once; all heads of the group but the last leave their sum in float.
 * y: 16 rows, 16 channels from c0. */
struct KdaSum {
    Bf16 *dst;
    float *sum;
    int n, stride;
    bool first, last;
};
template <int K> __device__ void kda_put(const KdaSum &to, const float (&y)[2][4], const KdaTiles &t, int c0) {
#pragma unroll
    for (int e = 0; e < 8; e += 2) {
        const int i = t.row * 16 + t.g8 + e / 2 % 2 * 8, c = c0 + e / 4 * 8 + t.t2;
        float2 *s = (float2 *)(to.sum + i * K + c), z = make_float2(y[e / 4][e % 4], y[e / 4][e % 4 + 1]);
        if (!to.first) z.x += s->x, z.y += s->y;
        if (!to.last) *s = z;
        else if (to.dst && i < to.n) pair_add(to.dst + (size_t)i * to.stride + c, z.x, z.y);
    }
}
/* What the rows read, 16 channels at a time: dq, and the first parts of dk and x. */
template <int K> __device__ void kda_reads(float (&dk)[K / 32][2][4], const KdaSum &dq, KdaTiles t, float scale) {
    t.row = forgotten(t.row), t.g8 = forgotten(t.g8);
    const bool mild = decay_mild<K>(t.b, t.row * 16);
#pragma unroll
    for (int p = 0; p < K / 32; p++) {
        const int c0 = t.half * (K / 2) + p * 16;
        float pairs[2][2][4] = {}, y[2][4] = {}, z[2][4] = {};
        decay_rows<K, false>(pairs, {t.dqk, t.dkk}, {t.k}, t.b, t.row, c0, mild);
        tile_mma<K, K, false, false, 2>(y, t.o, t.S, t.row * 16, c0, K);
        tile_mma<K, K, false, false, 2>(z, t.D, t.S, t.row * 16, c0, K);
#pragma unroll
        for (int e = 0; e < 8; e++) {
            const int i = t.row * 16 + t.g8 + e / 2 % 2 * 8, c = c0 + e / 4 * 8 + t.t2 + e % 2;
            const float in = (int)t.from[i] >= 0 ? 0.0f : __expf(t.b[i * DecaySums<K>::LD + c]),
                        k = t.k[i * Tile<K>::LD + c], q = t.q[i * Tile<K>::LD + c],
                        dq_ic = scale * in * y[e / 4][e % 4] + pairs[0][e / 4][e % 4],
                        dk_ic = pairs[1][e / 4][e % 4] - t.betas[i] * in * z[e / 4][e % 4];
            t.x[i * DecaySums<K>::LD + c] = q * dq_ic + k * dk_ic;
            dk[p][e / 4][e % 4] = dk_ic;
            y[e / 4][e % 4] = dq_ic + t.diagonal[i] * k;
        }
        kda_put<K>(dq, y, t, c0);
    }
}
/* What they write, with dS in S's place: the rest of dk and x; and k o its first term, which dg sums by itself, in the
 * place of dO and D. */
template <int K> __device__ void kda_writes(float (&dk)[K / 32][2][4], KdaTiles t) {
    t.row = forgotten(t.row), t.g8 = forgotten(t.g8);
    const bool mild = decay_mild<K>(t.b, t.row * 16);
    const int last = (KDA_C - 1) * DecaySums<K>::LD, last_from = t.from[KDA_C - 1];
    SHARED_PTR(Bf16) again = t.o;
    SHARED_PTR(float) fars = shared_take<float>(again, DecaySums<K>::SIZE);
#pragma unroll
    for (int p = 0; p < K / 32; p++) {
        const int c0 = t.half * (K / 2) + p * 16;
        float pairs[1][2][4] = {}, y[2][4] = {};
        decay_rows<K, true>(pairs, {t.dqk, t.dkk}, {t.q, t.k}, t.b, t.row, c0, mild);
        tile_mma<K, K, false, false, 2>(y, t.w, t.S, t.row * 16, c0, K);
#pragma unroll
        for (int e = 0; e < 8; e++) {
            const int i = t.row * 16 + t.g8 + e / 2 % 2 * 8, c = c0 + e / 4 * 8 + t.t2 + e % 2,
                      at = i * DecaySums<K>::LD + c;
            const float out = last_from > i ? 0.0f : __expf(t.b[last + c] - t.b[at]), k = t.k[i * Tile<K>::LD + c],
                        far = out * y[e / 4][e % 4], near = pairs[0][e / 4][e % 4];
            fars[at] = k * far;
            t.x[at] = t.x[at] - k * near;
            dk[p][e / 4][e % 4] += far + near + t.diagonal[i] * (float)t.q[i * Tile<K>::LD + c];
        }
    }
}

template <int K>
__global__ void __launch_bounds__(KDA_BACK, 1)
    kda_parallel_mma_kernel(Bf16 *dq, Bf16 *dk, wide *dg, wide *dbeta, Bf16 *work, const Bf16 *dout, const Bf16 *states,
                            const Bf16 *q, const Bf16 *k, const Bf16 *v, const wide *g, const wide *beta,
                            const int *start, int first_chunk, int chunks, DeltaArgs a) {
    static_assert(4 * KDA_C * K <= KdaKept<K>::SIZE, "the group's sums stay in front of D and dS");
    enum { V = K, TK = KDA_C * Tile<K>::LD, TC = KDA_C * Tile<KDA_C>::LD };
    typedef KdaBackKept<K> Kept;
    typedef KdaSums<K> Sums;
    DYNAMIC_SHARED(Bf16, cursor);
    const SHARED_PTR(Bf16) wides = shared_take<Bf16>(cursor, 6 * TK), Ss = shared_take<Bf16>(cursor, K * Tile<K>::LD),
                           squares = shared_take<Bf16>(cursor, 2 * TC);
    SHARED_PTR(float) bs = shared_take<float>(cursor, DecaySums<K>::SIZE);
    SHARED_PTR(float)
    xs = shared_take<float>(cursor,
                            DecaySums<K>::SIZE); // x: each element its own thread's until all are there
    SHARED_PTR(float) sums = shared_take<float>(cursor, Sums::SIZE);
    SHARED(int, from, KDA_C);
    SHARED(float, betas, KDA_C);
    SHARED(float, diagonal, KDA_C);
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, row = warp % 4, half = warp / 4, g8 = lane / 4,
              t2 = lane % 4 * 2, b = blockIdx.y / a.Hk, hk = blockIdx.y % a.Hk, group = a.H / a.Hk,
              t0 = (first_chunk + blockIdx.x) * KDA_C, n = min((int)KDA_C, a.T - t0);
    const KdaTiles t = {
        wides, wides + TK, wides + 2 * TK, wides + 3 * TK, wides + 4 * TK, wides + 5 * TK, Ss,  squares, squares + TC,
        bs,    xs,         betas,          from,           sums,           diagonal,       row, half,    g8,
        t2};
    const size_t bt = (size_t)b * a.T + t0, at = (bt * a.Hk + hk) * K;
    // sums over the group go where prepare left its first head's matrices, each element by the same thread
    float *sum_q = (float *)(work + (((size_t)b * a.H + hk * group) * chunks + blockIdx.x) * Kept::SIZE),
          *sum_k = sum_q + KDA_C * K;
    for (int h = hk * group; h < (hk + 1) * group; h++) {
        const size_t bh = (size_t)b * a.H + h, head = bt * a.H + h;
        const Bf16 *kept = work + (bh * chunks + blockIdx.x) * Kept::SIZE;
        const Bf16 *S = states + (bh * (a.NC + 1) + first_chunk + blockIdx.x) * K * V;
        // two groups: what R needs, then the rest, which arrives meanwhile
        tile_fetch<K>(t.w, kept + KdaKept<K>::IN, K, KDA_C, KDA_C, KDA_BACK);
        tile_fetch<V>(Ss, S, V, K, K, KDA_BACK);
        tile_fetch<V>(t.R, v + head * V, (size_t)a.H * V, KDA_C, n, KDA_BACK);
        tile_fetch<V>(t.D, kept + Kept::D, V, KDA_C, KDA_C, KDA_BACK);
        cp_async_commit();
        tile_fetch<KDA_C>(t.dqk, kept + KdaKept<K>::A, KDA_C, KDA_C, KDA_C, KDA_BACK);
        tile_fetch<V>(t.o, dout + head * V, (size_t)a.H * V, KDA_C, n, KDA_BACK);
        if (h % group == 0) {
            tile_fetch<K>(t.k, k + at, (size_t)a.Hk * K, KDA_C, n, KDA_BACK);
            tile_fetch<K>(t.q, q + at, (size_t)a.Hk * K, KDA_C, n, KDA_BACK);
        }
        cp_async_commit();
        decay_sums<K>(bs, from, g + head * K, (size_t)a.H * K, start, b, t0, n, a);
        for (int i = threadIdx.x; i < KDA_C; i += KDA_BACK) betas[i] = i < n ? beta[head + (size_t)i * a.H] : 0.0f;
        cp_async_wait<1>();
        __syncthreads();
        const bool first = h % group == 0, last = (h + 1) % group == 0;
        kda_solve<K>(t);
        kda_pairs<K>(t, kept + KdaKept<K>::KK, a.scale);
        __syncthreads();
        float dk_h[K / 32][2][4];
        kda_reads<K>(dk_h, {dq ? dq + at : dq, sum_q, n, a.Hk * K, first, last}, t, a.scale);
        __syncthreads(); // S has been read
        kda_swap_state<K>(Ss, sums + Sums::INNER, kept + Kept::DS);
        for (int c = threadIdx.x; c < K; c += KDA_BACK)
            sums[Sums::LAST + c] = (int)from[KDA_C - 1] >= 0 ? 0.0f : __expf(bs[(KDA_C - 1) * DecaySums<K>::LD + c]);
        __syncthreads();
        kda_writes<K>(dk_h, t);
#pragma unroll
        for (int p = 0; p < K / 32; p++)
            kda_put<K>({dk ? dk + at : dk, sum_k, n, a.Hk * K, first, last}, dk_h[p], t, half * (K / 2) + p * 16);
        __syncthreads();
        SHARED_PTR(Bf16) again = t.o;
        SHARED_PTR(float) fars = shared_take<float>(again, DecaySums<K>::SIZE);
        for (int c = threadIdx.x; c < K && dg; c += KDA_BACK) {
            float run = sums[Sums::LAST + c] * sums[Sums::INNER + c], before = 0;
            for (int i = KDA_C - 1; i >= 0; i--) {
                run += xs[i * DecaySums<K>::LD + c];
                if (i < n && begins(start, b, a.T, t0 + i)) run = 0;
                else if (i < n) dg[(head + (size_t)i * a.H) * K + c] += run;
            }
            for (int i = 0; i < n; i++) { // 0 up to the last document's start
                dg[(head + (size_t)i * a.H) * K + c] += before;
                before += fars[i * DecaySums<K>::LD + c];
            }
        }
        for (int i = threadIdx.x; i < n && dbeta; i += KDA_BACK)
            dbeta[head + (size_t)i * a.H] += sums[Sums::DBETA + i] + sums[Sums::DBETA + KDA_C + i];
        __syncthreads(); // before the next head
    }
}

template <int K>
static void kda_backward_mma(Bf16 *dq, Bf16 *dk, Bf16 *dv, wide *dg, wide *dbeta, wide *dstate, const Bf16 *dout,
                             const Bf16 *states, const Bf16 *q, const Bf16 *k, const Bf16 *v, const wide *g,
                             const wide *beta, const int *start, double scale, void *work, const DeltaDims *d) {
    const DeltaArgs a = kda_args(d, scale);
    const int each = KdaBackKept<K>::SIZE, most = (int)(a.worker * sizeof(float) / (each * sizeof(Bf16)));
    const size_t serial = kda_scan_shared<K>() + KDA_C * Tile<KDA_COLS>::LD * sizeof(Bf16);
    const size_t parallel = (6 * KDA_C * Tile<K>::LD + K * Tile<K>::LD + 2 * KDA_C * Tile<KDA_C>::LD) * sizeof(Bf16) +
                            (2 * DecaySums<K>::SIZE + KdaSums<K>::SIZE) * sizeof(float);
    Bf16 *w = (Bf16 *)work;
    for (int last = a.NC; last > 0; last -= most) {
        const int first = last > most ? last - most : 0, chunks = last - first;
        LAUNCH((kda_prepare_mma_kernel<K, true>), dim3(chunks, d->B * d->H), KDA_PREPARE, kda_prepare_shared<K>(), w, q,
               k, g, beta, start, first, chunks, each, a);
        LAUNCH(kda_serial_mma_kernel<K>, dim3(K / KDA_COLS, d->B * d->H), KDA_SCAN, serial, dv, dstate, w, dout, beta,
               first, chunks, a);
        if (dq || dk || dg || dbeta)
            LAUNCH(kda_parallel_mma_kernel<K>, dim3(chunks, d->B * d->Hk), KDA_BACK, parallel, dq, dk, dg, dbeta, w,
                   dout, states, q, k, v, g, beta, start, first, chunks, a);
    }
}
