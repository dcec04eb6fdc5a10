/* attention_mma.cu - attention for BF16 with D = 64 or 128, on the matrix unit: the tiling of FlashAttention-2 (arXiv
 * 2307.08691).
 *
 * Forward: a block has 64 M queries of one head, a warp 16 M of them, with their output and running maximum and sum in
 * registers. Key and value tiles of 64 come through a ring of two stages of asynchronous copies. With M = 1 the queries
 * stay in registers; with M = 2 they stay in shared memory, and every tile that a warp reads serves 32 rows instead of
 * 16. Tiles that nobody sees are not visited; masks are applied only in tiles that some row sees partly. Exponents are
 * of 2, with the scale folded in.
 * Backward, without atomics and in a fixed order: one kernel per key tile for dk and dv (over the queries of all heads
 * of its group), one per query tile for dq; both recompute P from lse. That is 7 products where an atomic dq would need
 * 5. dk and dv stay at 16 keys a warp: their two accumulators would be 256 registers at 32. */
enum { FLASH_KEYS = 64, FLASH_THREADS = 128, FLASH_BACK = 32, FLASH_WARPS = FLASH_THREADS / WARP };
const float LOG2E = 1.4426950408889634f, LN2 = 0.6931471805599453f;

/* The rows of one lane in 16 rows: g and g + 8; and which keys they see. Asked for only in the tiles that are seen
 * partly: kept, they would be registers that the accumulators need. */
struct FlashRows {
    int first[2], last[2]; // keys first..last, absolute; last < first for rows that do not exist
};
__device__ FlashRows flash_rows(const AttnArgs &a, const int *start, int b, int row0) {
    const int g = threadIdx.x % WARP / 4;
    FlashRows r;
    for (int i = 0; i < 2; i++) {
        const int t = row0 + g + 8 * i, pos = a.past + t;
        r.first[i] = t < a.T ? first_key(a, start, b, pos) : 0;
        r.last[i] = t < a.T ? pos : -1;
    }
    return r;
}
struct FlashMask {
    const AttnArgs &a;
    const int *start;
    int b, t0; // the block's first row
};
__device__ bool flash_sees(const FlashRows &r, int i, int key) { return key >= r.first[i] && key <= r.last[i]; }

/* What a warp keeps of its 16 M rows from tile to tile: unnormalised output, maximum and sum of exponentials. */
template <int D, int M> struct FlashState { float acc[M][D / 8][4], top[M][2], sum[M][2]; };
/* s (16 rows, 64 keys of scores) becomes exp(scale s - maximum); what was summed so far shrinks to the new maximum. */
template <int D>
__device__ __forceinline__ void flash_softmax(float (&s)[FLASH_KEYS / 8][4], float (&acc)[D / 8][4], float (&top)[2],
                                              float (&sum)[2], float scale2) {
    float base2[2];
#pragma unroll
    for (int i = 0; i < 2; i++) { // new maximum of the two rows, over the four lanes that share them
        float m = top[i];
#pragma unroll
        for (int n = 0; n < FLASH_KEYS / 8; n++) m = fmaxf(m, fmaxf(s[n][2 * i], s[n][2 * i + 1]));
        m = fmaxf(m, __shfl_xor_sync(FULL, m, 1));
        m = fmaxf(m, __shfl_xor_sync(FULL, m, 2));
        base2[i] = m == -INFINITY ? 0.0f : m * scale2; // a row that has seen nothing yet
        const float shrink = exp2f(top[i] * scale2 - base2[i]);
        top[i] = m;
        sum[i] *= shrink;
#pragma unroll
        for (int n = 0; n < D / 8; n++) acc[n][2 * i] *= shrink, acc[n][2 * i + 1] *= shrink;
    }
#pragma unroll
    for (int n = 0; n < FLASH_KEYS / 8; n++)
#pragma unroll
        for (int e = 0; e < 4; e++) s[n][e] = exp2f(s[n][e] * scale2 - base2[e / 2]), sum[e / 2] += s[n][e];
}
/* Writes 16 rows from t0 on: output over the sum of exponentials, and the logarithm of that. */
template <int D>
__device__ __forceinline__ void flash_store(Bf16 *o, float *lse, const float (&acc)[D / 8][4], const float (&top)[2],
                                            const float (&sums)[2], float scale2, int b, int t0, int h,
                                            const AttnArgs &a) {
    const int lane = threadIdx.x % WARP;
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const float sum = quad_sum(sums[i]), inv = 1.0f / sum;
        const int t = t0 + lane / 4 + 8 * i;
        if (t >= a.T) continue;
        const size_t row = ((size_t)b * a.T + t) * a.H + h;
        unsigned *to = (unsigned *)(o + row * D) + lane % 4;
#pragma unroll
        for (int n = 0; n < D / 8; n++) to[n * 4] = bf16_pair(acc[n][2 * i] * inv, acc[n][2 * i + 1] * inv);
        if (lane % 4 == 0) lse[row] = (top[i] * scale2 + log2f(sum)) * LN2;
    }
}
/* One tile of 64 keys from j0 on. Queries: registers qa if M is 1, else rows row0.. of the tile qs. */
template <int D, int M>
__device__ __forceinline__ void flash_tile(FlashState<D, M> &w, const unsigned (&qa)[D / 16][4], SHARED_PTR(Bf16) qs,
                                           int row0, SHARED_PTR(Bf16) ks, SHARED_PTR(Bf16) vs, const FlashMask &mask,
                                           bool partly, int j0, float scale2) {
    const int lane = threadIdx.x % WARP;
    float s[M][FLASH_KEYS / 8][4] = {};
#pragma unroll
    for (int i = 0; i < D / 16; i++) {
        unsigned q[M][4];
#pragma unroll
        for (int m = 0; m < M; m++) {
            if constexpr (M == 1)
                for (int r = 0; r < 4; r++) q[m][r] = qa[i][r];
            else load_a<D>(q[m], qs, row0 + 16 * m, i * 16);
        }
#pragma unroll
        for (int n = 0; n < FLASH_KEYS / 16; n++) {
            unsigned kb[4];
            load_b<D>(kb, ks, n * 16, i * 16);
#pragma unroll
            for (int m = 0; m < M; m++) {
                mma_bf16(s[m][2 * n], q[m], kb[0], kb[1]);
                mma_bf16(s[m][2 * n + 1], q[m], kb[2], kb[3]);
            }
        }
    }
#pragma unroll
    for (int m = 0; m < M; m++) {
        if (partly) {
            const FlashRows see = flash_rows(mask.a, mask.start, mask.b, mask.t0 + row0 + 16 * m);
#pragma unroll
            for (int n = 0; n < FLASH_KEYS / 8; n++)
#pragma unroll
                for (int e = 0; e < 4; e++)
                    if (!flash_sees(see, e / 2, j0 + n * 8 + lane % 4 * 2 + e % 2)) s[m][n][e] = -INFINITY;
        }
        flash_softmax<D>(s[m], w.acc[m], w.top[m], w.sum[m], scale2);
    }
#pragma unroll
    for (int x = 0; x < FLASH_KEYS / 16; x++) {
        unsigned pa[M][4];
#pragma unroll
        for (int m = 0; m < M; m++) pack_a(pa[m], s[m][2 * x], s[m][2 * x + 1]);
#pragma unroll
        for (int n = 0; n < D / 16; n++) {
            unsigned vb[4];
            load_b_straight<D>(vb, vs, x * 16, n * 16);
#pragma unroll
            for (int m = 0; m < M; m++) {
                mma_bf16(w.acc[m][2 * n], pa[m], vb[0], vb[1]);
                mma_bf16(w.acc[m][2 * n + 1], pa[m], vb[2], vb[3]);
            }
        }
    }
}

template <int D, int M>
__global__ void __launch_bounds__(FLASH_THREADS, M == 1 ? 3 : 2)
    flash_forward_mma_kernel(Bf16 *o, float *lse, const Bf16 *q, const Bf16 *k, const Bf16 *v, const int *start,
                             AttnArgs a) {
    DYNAMIC_SHARED(Bf16, cursor);
    enum { TILE = FLASH_KEYS * Tile<D>::LD, ROWS = 16 * M * FLASH_WARPS };
    const SHARED_PTR(Bf16) ks = shared_take<Bf16>(cursor, 2 * TILE), vs = shared_take<Bf16>(cursor, 2 * TILE);
    // a single block of queries goes through the second stage's key tile into registers
    const SHARED_PTR(Bf16) qs = M == 1 ? ks + TILE : shared_take<Bf16>(cursor, M == 1 ? 0 : ROWS * Tile<D>::LD);
    const int tile = gridDim.y - 1 - blockIdx.y, t0 = tile * ROWS; // the longest rows first
    const int b = blockIdx.x / a.H, h = blockIdx.x % a.H, hk = h / (a.H / a.Hk),
              row0 = threadIdx.x / WARP * 16 * M; // of the warp
    const int rows = min((int)ROWS, a.T - t0);
    const size_t key_stride = (size_t)a.Hk * a.D;
    const float scale2 = a.scale * LOG2E;
    tile_fetch<D>(qs, q + (((size_t)b * a.T + t0) * a.H + h) * a.D, (size_t)a.H * a.D, ROWS, rows, FLASH_THREADS);
    cp_async_commit();
    const int last = a.past + t0 + rows - 1, first = first_key(a, start, b, a.past + t0),
              latest_first = first_key(a, start, b, last);
    const int j_begin = first / FLASH_KEYS, j_end = last / FLASH_KEYS + 1;
    size_t at = ((size_t)b * a.stride * a.Hk + hk) * a.D + (size_t)j_begin * FLASH_KEYS * key_stride; // of a tile
    tile_fetch<D>(ks, k + at, key_stride, FLASH_KEYS, a.Tk - j_begin * FLASH_KEYS, FLASH_THREADS);
    tile_fetch<D>(vs, v + at, key_stride, FLASH_KEYS, a.Tk - j_begin * FLASH_KEYS, FLASH_THREADS);
    cp_async_commit();
    unsigned qa[D / 16][4];
    if constexpr (M == 1) {
        cp_async_wait<1>();
        __syncthreads();
        for (int i = 0; i < D / 16; i++) load_a<D>(qa[i], qs, row0, i * 16);
        __syncthreads();
    }
    const FlashMask mask = {a, start, b, t0};
    FlashState<D, M> w = {};
    for (int m = 0; m < M; m++) w.top[m][0] = w.top[m][1] = -INFINITY;
    const int newest = a.past + t0 + row0 + 16 * M - 1; // key that the warp can see
    for (int j = j_begin; j < j_end; j++) {
        const int stage = (j - j_begin) % 2, j0 = j * FLASH_KEYS;
        if (j + 1 < j_end) {
            at += FLASH_KEYS * key_stride;
            tile_fetch<D>(ks + (1 - stage) * TILE, k + at, key_stride, FLASH_KEYS, a.Tk - (j + 1) * FLASH_KEYS,
                          FLASH_THREADS);
            tile_fetch<D>(vs + (1 - stage) * TILE, v + at, key_stride, FLASH_KEYS, a.Tk - (j + 1) * FLASH_KEYS,
                          FLASH_THREADS);
            cp_async_commit();
            cp_async_wait<1>();
        } else cp_async_wait<0>();
        __syncthreads();
        if (j0 <= newest)
            flash_tile<D, M>(w, qa, qs, row0, ks + stage * TILE, vs + stage * TILE, mask,
                             j0 < latest_first || j0 + FLASH_KEYS - 1 > a.past + t0, j0, scale2);
        __syncthreads(); // the stage may be filled again
    }
#pragma unroll
    for (int m = 0; m < M; m++)
        flash_store<D>(o, lse, w.acc[m], w.top[m], w.sum[m], scale2, b, t0 + row0 + 16 * m, h, a);
}

template <int D, int M>
static void flash_forward(Bf16 *o, float *lse, const Bf16 *q, const Bf16 *k, const Bf16 *v, const int *start,
                          double scale, const AttnDims *d) {
    const int rows = 16 * M * FLASH_WARPS;
    const size_t shared = (4 * FLASH_KEYS + (M == 1 ? 0 : rows)) * Tile<D>::LD * sizeof(Bf16);
    LAUNCH((flash_forward_mma_kernel<D, M>), dim3(d->B * d->H, ceil_div(d->T, rows)), FLASH_THREADS, shared, o, lse, q,
           k, v, start, attn_args(d, scale));
}

/* s becomes P and dp becomes dS for a 16-row, 8-column block of a product whose rows are lane rows:
 * P = exp(scale s - lse), dS = P (dp - delta). */
__device__ void flash_ds(float &s, float &dp, bool seen, float scale2, float lse2, float delta) {
    s = seen ? exp2f(s * scale2 - lse2) : 0.0f;
    dp = s * (dp - delta);
}

/* dk and dv of 64 keys of one key head: rows of a warp are keys, so the products come out transposed, S^T = K Q^T and
 * dP^T = V dO^T. */
template <int D>
__global__ void __launch_bounds__(FLASH_THREADS)
    flash_dkv_mma_kernel(Bf16 *dk, Bf16 *dv, const Bf16 *dout, const float *lse, const float *delta, const Bf16 *q,
                         const Bf16 *k, const Bf16 *v, const int *start, AttnArgs a) {
    DYNAMIC_SHARED(Bf16, cursor);
    SHARED_PTR(Bf16) ks = shared_take<Bf16>(cursor, FLASH_KEYS * Tile<D>::LD);
    SHARED_PTR(Bf16) vs = shared_take<Bf16>(cursor, FLASH_KEYS * Tile<D>::LD);
    enum { TILE = FLASH_BACK * Tile<D>::LD };
    const SHARED_PTR(Bf16) qs = shared_take<Bf16>(cursor, 2 * TILE), os = shared_take<Bf16>(cursor, 2 * TILE);
    const SHARED_PTR(float) stats =
        shared_take<float>(cursor, 6 * FLASH_BACK); // twice: lse in base 2, delta, first visible key
    const int b = blockIdx.x / a.Hk, hk = blockIdx.x % a.Hk, group = a.H / a.Hk, j0 = blockIdx.y * FLASH_KEYS,
              lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    const size_t key_stride = (size_t)a.Hk * D, row_stride = (size_t)a.H * D,
                 keys_at = (((size_t)b * a.stride + j0) * a.Hk + hk) * D;
    const int keys = min((int)FLASH_KEYS, a.T - j0);
    const float scale2 = a.scale * LOG2E;
    tile_fetch<D>(ks, k + keys_at, key_stride, FLASH_KEYS, keys, FLASH_THREADS);
    tile_fetch<D>(vs, v + keys_at, key_stride, FLASH_KEYS, keys, FLASH_THREADS);
    const int t_begin = j0 / FLASH_BACK, t_last = a.window > 0 ? min(a.T, j0 + keys - 1 + a.window) : a.T,
              t_end = (t_last + FLASH_BACK - 1) / FLASH_BACK;
    const int steps = (t_end - t_begin) * group; // heads outside, query tiles inside
    float acc_k[D / 8][4] = {}, acc_v[D / 8][4] = {};
    for (int step = -1; step < steps; step++) {
        if (step + 1 < steps) { // fetch the next
            const int n = step + 1, s = n % 2, h = hk * group + n / (t_end - t_begin),
                      t0 = (t_begin + n % (t_end - t_begin)) * FLASH_BACK;
            const size_t at = (((size_t)b * a.T + t0) * a.H + h) * D;
            tile_fetch<D>(qs + s * TILE, q + at, row_stride, FLASH_BACK, a.T - t0, FLASH_THREADS);
            tile_fetch<D>(os + s * TILE, dout + at, row_stride, FLASH_BACK, a.T - t0, FLASH_THREADS);
            cp_async_commit();
            if (threadIdx.x < FLASH_BACK) {
                const int t = t0 + threadIdx.x;
                const size_t row = ((size_t)b * a.T + t) * a.H + h;
                stats[s * 3 * FLASH_BACK + threadIdx.x] = t < a.T ? lse[row] * LOG2E : 0.0f;
                stats[s * 3 * FLASH_BACK + FLASH_BACK + threadIdx.x] = t < a.T ? delta[row] : 0.0f;
                stats[s * 3 * FLASH_BACK + 2 * FLASH_BACK + threadIdx.x] =
                    __uint_as_float((unsigned)(t < a.T ? first_key(a, start, b, t) : 0x40000000));
            }
        }
        if (step < 0) continue;
        if (step + 1 < steps) cp_async_wait<1>();
        else cp_async_wait<0>();
        __syncthreads();
        const int stage = step % 2, t0 = (t_begin + step % (t_end - t_begin)) * FLASH_BACK;
        float s[FLASH_BACK / 8][4] = {}, dp[FLASH_BACK / 8][4] = {};
#pragma unroll
        for (int i = 0; i < D / 16; i++) {
            unsigned ka[4], va[4];
            load_a<D>(ka, ks, warp * 16, i * 16);
            load_a<D>(va, vs, warp * 16, i * 16);
#pragma unroll
            for (int n = 0; n < FLASH_BACK / 16; n++) {
                unsigned qb[4], ob[4];
                load_b<D>(qb, qs + stage * TILE, n * 16, i * 16);
                mma_bf16(s[2 * n], ka, qb[0], qb[1]);
                mma_bf16(s[2 * n + 1], ka, qb[2], qb[3]);
                load_b<D>(ob, os + stage * TILE, n * 16, i * 16);
                mma_bf16(dp[2 * n], va, ob[0], ob[1]);
                mma_bf16(dp[2 * n + 1], va, ob[2], ob[3]);
            }
        }
#pragma unroll
        for (int n = 0; n < FLASH_BACK / 8; n++)
#pragma unroll
            for (int e = 0; e < 4; e++) {
                const int x = n * 8 + lane % 4 * 2 + e % 2, key = j0 + warp * 16 + lane / 4 + e / 2 * 8;
                const int first = (int)__float_as_uint(stats[stage * 3 * FLASH_BACK + 2 * FLASH_BACK + x]);
                flash_ds(s[n][e], dp[n][e], key >= first && key <= t0 + x, scale2, stats[stage * 3 * FLASH_BACK + x],
                         stats[stage * 3 * FLASH_BACK + FLASH_BACK + x]);
            }
#pragma unroll
        for (int m = 0; m < FLASH_BACK / 16; m++) {
            unsigned pa[4], da[4];
            pack_a(pa, s[2 * m], s[2 * m + 1]);
            pack_a(da, dp[2 * m], dp[2 * m + 1]);
#pragma unroll
            for (int n = 0; n < D / 16; n++) {
                unsigned ob[4], qb[4];
                load_b_straight<D>(ob, os + stage * TILE, m * 16, n * 16);
                mma_bf16(acc_v[2 * n], pa, ob[0], ob[1]);
                mma_bf16(acc_v[2 * n + 1], pa, ob[2], ob[3]);
                load_b_straight<D>(qb, qs + stage * TILE, m * 16, n * 16);
                mma_bf16(acc_k[2 * n], da, qb[0], qb[1]);
                mma_bf16(acc_k[2 * n + 1], da, qb[2], qb[3]);
            }
        }
        __syncthreads();
    }
    if (dk) {
#pragma unroll
        for (int n = 0; n < D / 8; n++)
#pragma unroll
            for (int e = 0; e < 4; e++) acc_k[n][e] *= a.scale;
        rows_add(dk + keys_at, key_stride, acc_k, keys, warp, 0);
    }
    if (dv) rows_add(dv + keys_at, key_stride, acc_v, keys, warp, 0);
}

/* dq of 64 M queries of one head: S = Q K^T, dP = dO V^T, dq = scale dS K. */
template <int D, int M>
__global__ void __launch_bounds__(FLASH_THREADS, M == 1 ? 3 : 2)
    flash_dq_mma_kernel(Bf16 *dq, const Bf16 *dout, const float *lse, const float *delta, const Bf16 *q, const Bf16 *k,
                        const Bf16 *v, const int *start, AttnArgs a) {
    DYNAMIC_SHARED(Bf16, cursor);
    enum { TILE = FLASH_BACK * Tile<D>::LD, ROWS = 16 * M * FLASH_WARPS };
    SHARED_PTR(Bf16) qs = shared_take<Bf16>(cursor, ROWS * Tile<D>::LD);
    SHARED_PTR(Bf16) os = shared_take<Bf16>(cursor, ROWS * Tile<D>::LD);
    const SHARED_PTR(Bf16) ks = shared_take<Bf16>(cursor, 2 * TILE), vs = shared_take<Bf16>(cursor, 2 * TILE);
    const int tile = gridDim.y - 1 - blockIdx.y, t0 = tile * ROWS, rows = min((int)ROWS, a.T - t0);
    const int b = blockIdx.x / a.H, h = blockIdx.x % a.H, hk = h / (a.H / a.Hk), lane = threadIdx.x % WARP,
              warp = threadIdx.x / WARP, row0 = warp * 16 * M;
    const size_t key_stride = (size_t)a.Hk * D, base = ((size_t)b * a.stride * a.Hk + hk) * D,
                 row_at = (((size_t)b * a.T + t0) * a.H + h) * D;
    const float scale2 = a.scale * LOG2E;
    tile_fetch<D>(qs, q + row_at, (size_t)a.H * D, ROWS, rows, FLASH_THREADS);
    tile_fetch<D>(os, dout + row_at, (size_t)a.H * D, ROWS, rows, FLASH_THREADS);
    const int last = t0 + rows - 1, j_begin = first_key(a, start, b, t0) / FLASH_BACK, j_end = last / FLASH_BACK + 1,
              latest_first = first_key(a, start, b, last);
    const FlashMask mask = {a, start, b, t0};
    float lse2[M][2] = {}, del[M][2] = {}, acc[M][D / 8][4] = {};
    for (int m = 0; m < M; m++) {
        for (int i = 0; i < 2; i++) {
            const int t = t0 + row0 + 16 * m + lane / 4 + 8 * i;
            if (t >= a.T) continue;
            lse2[m][i] = lse[((size_t)b * a.T + t) * a.H + h] * LOG2E;
            del[m][i] = delta[((size_t)b * a.T + t) * a.H + h];
        }
    }
    for (int j = j_begin - 1; j < j_end; j++) {
        if (j + 1 < j_end) {
            const int s = (j + 1 - j_begin) % 2;
            const size_t at = base + (size_t)(j + 1) * FLASH_BACK * key_stride;
            tile_fetch<D>(ks + s * TILE, k + at, key_stride, FLASH_BACK, a.T - (j + 1) * FLASH_BACK, FLASH_THREADS);
            tile_fetch<D>(vs + s * TILE, v + at, key_stride, FLASH_BACK, a.T - (j + 1) * FLASH_BACK, FLASH_THREADS);
            cp_async_commit();
        }
        if (j < j_begin) continue;
        if (j + 1 < j_end) cp_async_wait<1>();
        else cp_async_wait<0>();
        __syncthreads();
        const int stage = (j - j_begin) % 2, j0 = j * FLASH_BACK;
        if (j0 <= t0 + row0 + 16 * M - 1) { // some row of the warp sees the tile
            float s[M][FLASH_BACK / 8][4] = {}, dp[M][FLASH_BACK / 8][4] = {};
#pragma unroll
            for (int i = 0; i < D / 16; i++) {
                unsigned qa[M][4], oa[M][4];
#pragma unroll
                for (int m = 0; m < M; m++) {
                    load_a<D>(qa[m], qs, row0 + 16 * m, i * 16);
                    load_a<D>(oa[m], os, row0 + 16 * m, i * 16);
                }
#pragma unroll
                for (int n = 0; n < FLASH_BACK / 16; n++) {
                    unsigned kb[4], vb[4];
                    load_b<D>(kb, ks + stage * TILE, n * 16, i * 16);
                    load_b<D>(vb, vs + stage * TILE, n * 16, i * 16);
#pragma unroll
                    for (int m = 0; m < M; m++) {
                        mma_bf16(s[m][2 * n], qa[m], kb[0], kb[1]);
                        mma_bf16(s[m][2 * n + 1], qa[m], kb[2], kb[3]);
                        mma_bf16(dp[m][2 * n], oa[m], vb[0], vb[1]);
                        mma_bf16(dp[m][2 * n + 1], oa[m], vb[2], vb[3]);
                    }
                }
            }
#pragma unroll
            for (int m = 0; m < M; m++) {
                // a row that does not exist has zeros everywhere, so that its dS is 0 without a mask
#pragma unroll
                for (int n = 0; n < FLASH_BACK / 8; n++)
#pragma unroll
                    for (int e = 0; e < 4; e++)
                        flash_ds(s[m][n][e], dp[m][n][e], true, scale2, lse2[m][e / 2], del[m][e / 2]);
                if (j0 >= latest_first && j0 + FLASH_BACK - 1 <= t0) continue; // all rows see all of the tile
                const FlashRows see = flash_rows(mask.a, mask.start, mask.b, mask.t0 + row0 + 16 * m);
#pragma unroll
                for (int n = 0; n < FLASH_BACK / 8; n++)
#pragma unroll
                    for (int e = 0; e < 4; e++)
                        if (!flash_sees(see, e / 2, j0 + n * 8 + lane % 4 * 2 + e % 2)) dp[m][n][e] = 0.0f;
            }
#pragma unroll
            for (int x = 0; x < FLASH_BACK / 16; x++) {
                unsigned da[M][4];
#pragma unroll
                for (int m = 0; m < M; m++) pack_a(da[m], dp[m][2 * x], dp[m][2 * x + 1]);
#pragma unroll
                for (int n = 0; n < D / 16; n++) {
                    unsigned kb[4];
                    load_b_straight<D>(kb, ks + stage * TILE, x * 16, n * 16);
#pragma unroll
                    for (int m = 0; m < M; m++) {
                        mma_bf16(acc[m][2 * n], da[m], kb[0], kb[1]);
                        mma_bf16(acc[m][2 * n + 1], da[m], kb[2], kb[3]);
                    }
                }
            }
        }
        __syncthreads();
    }
#pragma unroll
    for (int m = 0; m < M; m++) {
#pragma unroll
        for (int n = 0; n < D / 8; n++)
#pragma unroll
            for (int e = 0; e < 4; e++) acc[m][n][e] *= a.scale;
        rows_add(dq + row_at, (size_t)a.H * D, acc[m], rows, warp * M + m, 0);
    }
}

template <int D, int M>
static void flash_backward(Bf16 *dq, Bf16 *dk, Bf16 *dv, const Bf16 *dout, const Bf16 *o, const float *lse,
                           const Bf16 *q, const Bf16 *k, const Bf16 *v, const int *start, double scale, void *work,
                           const AttnDims *d) {
    const AttnArgs a = attn_args(d, scale);
    const int dq_rows = 16 * M * FLASH_WARPS;
    const size_t rows = (size_t)d->B * d->T * d->H, row = Tile<D>::LD * sizeof(Bf16);
    float *delta = (float *)work;
    LAUNCH(attention_delta_kernel, ceil_div(rows, ATT_WARPS), ATT_WARPS * WARP, 0, delta, dout, o, D, rows);
    if (dk || dv)
        LAUNCH(flash_dkv_mma_kernel<D>, dim3(d->B * d->Hk, ceil_div(d->T, FLASH_KEYS)), FLASH_THREADS,
               (2 * FLASH_KEYS + 4 * FLASH_BACK) * row + 6 * FLASH_BACK * sizeof(float), dk, dv, dout, lse, delta, q, k,
               v, start, a);
    if (dq)
        LAUNCH((flash_dq_mma_kernel<D, M>), dim3(d->B * d->H, ceil_div(d->T, dq_rows)), FLASH_THREADS,
               (2 * dq_rows + 4 * FLASH_BACK) * row, dq, dout, lse, delta, q, k, v, start, a);
}
