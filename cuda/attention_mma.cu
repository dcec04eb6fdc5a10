/* attention_mma.cu - attention for BF16 with D = 64 or 128, on the matrix unit: the tiling of FlashAttention-2 (arXiv
 * 2307.08691).
 *
 * Forward: a block has 64 queries of one head, a warp 16 of them, with their output and running maximum and sum in
 * registers. Key and value tiles of 64 come through a ring of two stages of asynchronous copies.
 * Tiles that nobody sees are not visited; masks are applied only
 * in tiles that some row sees partly. Exponents are of 2, with the scale folded in.
 * Backward, without atomics and in a fixed order: one kernel per key tile for dk and dv (over the queries of all heads
 * of its group), one per query tile for dq; both recompute P from lse. That is 7 products where an atomic dq would need
 * 5. */
enum { FLASH_ROWS = 64, FLASH_KEYS = 64, FLASH_THREADS = 128, FLASH_BACK = 32 };
const float LOG2E = 1.4426950408889634f, LN2 = 0.6931471805599453f;

/* The rows of one lane in its warp's 16: g and g + 8; and which keys they see. */
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
__device__ bool flash_sees(const FlashRows &r, int i, int key) { return key >= r.first[i] && key <= r.last[i]; }

template <int D>
__global__ void __launch_bounds__(FLASH_THREADS)
    flash_forward_mma_kernel(Bf16 *o, float *lse, const Bf16 *q, const Bf16 *k, const Bf16 *v, const int *start,
                             AttnArgs a) {
    DYNAMIC_SHARED(Bf16, cursor);
    enum { TILE = FLASH_KEYS * Tile<D>::LD };
    const SHARED_PTR(Bf16) ks = shared_take<Bf16>(cursor, 2 * TILE), vs = shared_take<Bf16>(cursor, 2 * TILE);
    const int tile = gridDim.x - 1 - blockIdx.x, t0 = tile * FLASH_ROWS; // the longest rows first
    const int b = blockIdx.y / a.H, h = blockIdx.y % a.H, hk = h / (a.H / a.Hk), lane = threadIdx.x % WARP,
              warp = threadIdx.x / WARP;
    const int rows = min((int)FLASH_ROWS, a.T - t0);
    const size_t key_stride = (size_t)a.Hk * a.D, base = ((size_t)b * a.stride * a.Hk + hk) * a.D;
    const float scale2 = a.scale * LOG2E;
    // queries go through the second stage's key tile into registers
    unsigned qa[D / 16][4];
    tile_fetch<D>(ks + TILE, q + (((size_t)b * a.T + t0) * a.H + h) * a.D, (size_t)a.H * a.D, FLASH_ROWS, rows,
                  FLASH_THREADS);
    cp_async_commit();
    const int last = a.past + t0 + rows - 1, first = first_key(a, start, b, a.past + t0),
              latest_first = first_key(a, start, b, last);
    const int j_begin = first / FLASH_KEYS, j_end = last / FLASH_KEYS + 1;
    tile_fetch<D>(ks, k + base + (size_t)j_begin * FLASH_KEYS * key_stride, key_stride, FLASH_KEYS,
                  a.Tk - j_begin * FLASH_KEYS, FLASH_THREADS);
    tile_fetch<D>(vs, v + base + (size_t)j_begin * FLASH_KEYS * key_stride, key_stride, FLASH_KEYS,
                  a.Tk - j_begin * FLASH_KEYS, FLASH_THREADS);
    cp_async_commit();
    cp_async_wait<1>();
    __syncthreads();
    for (int i = 0; i < D / 16; i++) load_a<D>(qa[i], ks + TILE, warp * 16, i * 16);
    __syncthreads();

    const FlashRows see = flash_rows(a, start, b, t0 + warp * 16);
    float acc[D / 8][4] = {}, top[2] = {-INFINITY, -INFINITY}, sum[2] = {0, 0};
    for (int j = j_begin; j < j_end; j++) {
        const int stage = (j - j_begin) % 2, j0 = j * FLASH_KEYS;
        if (j + 1 < j_end) {
            const size_t at = base + (size_t)(j + 1) * FLASH_KEYS * key_stride;
            tile_fetch<D>(ks + (1 - stage) * TILE, k + at, key_stride, FLASH_KEYS, a.Tk - (j + 1) * FLASH_KEYS,
                          FLASH_THREADS);
            tile_fetch<D>(vs + (1 - stage) * TILE, v + at, key_stride, FLASH_KEYS, a.Tk - (j + 1) * FLASH_KEYS,
                          FLASH_THREADS);
            cp_async_commit();
            cp_async_wait<1>();
        } else cp_async_wait<0>();
        __syncthreads();
        float s[FLASH_KEYS / 8][4] = {};
#pragma unroll
        for (int i = 0; i < D / 16; i++)
#pragma unroll
            for (int n = 0; n < FLASH_KEYS / 16; n++) {
                unsigned kb[4];
                load_b<D>(kb, ks + stage * TILE, n * 16, i * 16);
                mma_bf16(s[2 * n], qa[i], kb[0], kb[1]);
                mma_bf16(s[2 * n + 1], qa[i], kb[2], kb[3]);
            }
        if (j0 < latest_first || j0 + FLASH_KEYS - 1 > a.past + t0)
#pragma unroll
            for (int n = 0; n < FLASH_KEYS / 8; n++)
#pragma unroll
                for (int e = 0; e < 4; e++)
                    if (!flash_sees(see, e / 2, j0 + n * 8 + lane % 4 * 2 + e % 2)) s[n][e] = -INFINITY;
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
#pragma unroll
        for (int m = 0; m < FLASH_KEYS / 16; m++) {
            unsigned pa[4];
            pack_a(pa, s[2 * m], s[2 * m + 1]);
#pragma unroll
            for (int n = 0; n < D / 16; n++) {
                unsigned vb[4];
                load_b_straight<D>(vb, vs + stage * TILE, m * 16, n * 16);
                mma_bf16(acc[2 * n], pa, vb[0], vb[1]);
                mma_bf16(acc[2 * n + 1], pa, vb[2], vb[3]);
            }
        }
        __syncthreads(); // the stage may be filled again
    }
#pragma unroll
    for (int i = 0; i < 2; i++) {
        sum[i] += __shfl_xor_sync(FULL, sum[i], 1);
        sum[i] += __shfl_xor_sync(FULL, sum[i], 2);
        const int t = t0 + warp * 16 + lane / 4 + 8 * i;
        if (t >= a.T) continue;
        const size_t row = ((size_t)b * a.T + t) * a.H + h;
        const float inv = 1.0f / sum[i];
        unsigned *to = (unsigned *)(o + row * D) + lane % 4;
#pragma unroll
        for (int n = 0; n < D / 8; n++) to[n * 4] = bf16_pair(acc[n][2 * i] * inv, acc[n][2 * i + 1] * inv);
        if (lane % 4 == 0) lse[row] = (top[i] * scale2 + log2f(sum[i])) * LN2;
    }
}

template <int D>
static void flash_forward(Bf16 *o, float *lse, const Bf16 *q, const Bf16 *k, const Bf16 *v, const int *start,
                          double scale, const AttnDims *d) {
    const size_t shared = 4 * FLASH_KEYS * Tile<D>::LD * sizeof(Bf16);
    LAUNCH(flash_forward_mma_kernel<D>, dim3(ceil_div(d->T, FLASH_ROWS), d->B * d->H), FLASH_THREADS, shared, o, lse, q,
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
    const int b = blockIdx.y / a.Hk, hk = blockIdx.y % a.Hk, group = a.H / a.Hk, j0 = blockIdx.x * FLASH_KEYS,
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
#pragma unroll
    for (int n = 0; n < D / 8; n++)
#pragma unroll
        for (int e = 0; e < 4; e++) {
            const int key = warp * 16 + lane / 4 + e / 2 * 8;
            if (key >= keys) continue;
            const size_t at = keys_at + key * key_stride + n * 8 + lane % 4 * 2 + e % 2;
            if (dk) dk[at] = (float)dk[at] + a.scale * acc_k[n][e];
            if (dv) dv[at] = (float)dv[at] + acc_v[n][e];
        }
}

/* dq of 64 queries of one head: S = Q K^T, dP = dO V^T, dq = scale dS K. */
template <int D>
__global__ void __launch_bounds__(FLASH_THREADS)
    flash_dq_mma_kernel(Bf16 *dq, const Bf16 *dout, const float *lse, const float *delta, const Bf16 *q, const Bf16 *k,
                        const Bf16 *v, const int *start, AttnArgs a) {
    DYNAMIC_SHARED(Bf16, cursor);
    SHARED_PTR(Bf16) qs = shared_take<Bf16>(cursor, FLASH_ROWS * Tile<D>::LD);
    SHARED_PTR(Bf16) os = shared_take<Bf16>(cursor, FLASH_ROWS * Tile<D>::LD);
    enum { TILE = FLASH_BACK * Tile<D>::LD };
    const SHARED_PTR(Bf16) ks = shared_take<Bf16>(cursor, 2 * TILE), vs = shared_take<Bf16>(cursor, 2 * TILE);
    const int tile = gridDim.x - 1 - blockIdx.x, t0 = tile * FLASH_ROWS, rows = min((int)FLASH_ROWS, a.T - t0);
    const int b = blockIdx.y / a.H, h = blockIdx.y % a.H, hk = h / (a.H / a.Hk), lane = threadIdx.x % WARP,
              warp = threadIdx.x / WARP;
    const size_t key_stride = (size_t)a.Hk * D, base = ((size_t)b * a.stride * a.Hk + hk) * D,
                 row_at = (((size_t)b * a.T + t0) * a.H + h) * D;
    const float scale2 = a.scale * LOG2E;
    tile_fetch<D>(qs, q + row_at, (size_t)a.H * D, FLASH_ROWS, rows, FLASH_THREADS);
    tile_fetch<D>(os, dout + row_at, (size_t)a.H * D, FLASH_ROWS, rows, FLASH_THREADS);
    const int last = t0 + rows - 1, j_begin = first_key(a, start, b, t0) / FLASH_BACK, j_end = last / FLASH_BACK + 1;
    const FlashRows see = flash_rows(a, start, b, t0 + warp * 16);
    float lse2[2] = {0, 0}, del[2] = {0, 0}, acc[D / 8][4] = {};
    for (int i = 0; i < 2; i++) {
        const int t = t0 + warp * 16 + lane / 4 + 8 * i;
        if (t >= a.T) continue;
        lse2[i] = lse[((size_t)b * a.T + t) * a.H + h] * LOG2E;
        del[i] = delta[((size_t)b * a.T + t) * a.H + h];
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
        float s[FLASH_BACK / 8][4] = {}, dp[FLASH_BACK / 8][4] = {};
#pragma unroll
        for (int i = 0; i < D / 16; i++) {
            unsigned qa[4], oa[4];
            load_a<D>(qa, qs, warp * 16, i * 16);
            load_a<D>(oa, os, warp * 16, i * 16);
#pragma unroll
            for (int n = 0; n < FLASH_BACK / 16; n++) {
                unsigned kb[4], vb[4];
                load_b<D>(kb, ks + stage * TILE, n * 16, i * 16);
                mma_bf16(s[2 * n], qa, kb[0], kb[1]);
                mma_bf16(s[2 * n + 1], qa, kb[2], kb[3]);
                load_b<D>(vb, vs + stage * TILE, n * 16, i * 16);
                mma_bf16(dp[2 * n], oa, vb[0], vb[1]);
                mma_bf16(dp[2 * n + 1], oa, vb[2], vb[3]);
            }
        }
#pragma unroll
        for (int n = 0; n < FLASH_BACK / 8; n++)
#pragma unroll
            for (int e = 0; e < 4; e++)
                flash_ds(s[n][e], dp[n][e], flash_sees(see, e / 2, j0 + n * 8 + lane % 4 * 2 + e % 2), scale2,
                         lse2[e / 2], del[e / 2]);
#pragma unroll
        for (int m = 0; m < FLASH_BACK / 16; m++) {
            unsigned da[4];
            pack_a(da, dp[2 * m], dp[2 * m + 1]);
#pragma unroll
            for (int n = 0; n < D / 16; n++) {
                unsigned kb[4];
                load_b_straight<D>(kb, ks + stage * TILE, m * 16, n * 16);
                mma_bf16(acc[2 * n], da, kb[0], kb[1]);
                mma_bf16(acc[2 * n + 1], da, kb[2], kb[3]);
            }
        }
        __syncthreads();
    }
#pragma unroll
    for (int n = 0; n < D / 8; n++)
#pragma unroll
        for (int e = 0; e < 4; e++) {
            const int t = warp * 16 + lane / 4 + e / 2 * 8;
            if (t >= rows) continue;
            const size_t at = row_at + (size_t)t * a.H * D + n * 8 + lane % 4 * 2 + e % 2;
            dq[at] = (float)dq[at] + a.scale * acc[n][e];
        }
}

template <int D>
static void flash_backward(Bf16 *dq, Bf16 *dk, Bf16 *dv, const Bf16 *dout, const Bf16 *o, const float *lse,
                           const Bf16 *q, const Bf16 *k, const Bf16 *v, const int *start, double scale, void *work,
                           const AttnDims *d) {
    const AttnArgs a = attn_args(d, scale);
    const size_t rows = (size_t)d->B * d->T * d->H, keys = FLASH_KEYS * Tile<D>::LD * sizeof(Bf16),
                 back = FLASH_BACK * Tile<D>::LD * sizeof(Bf16);
    float *delta = (float *)work;
    LAUNCH(attention_delta_kernel, ceil_div(rows, ATT_WARPS), ATT_WARPS * WARP, 0, delta, dout, o, D, rows);
    if (dk || dv)
        LAUNCH(flash_dkv_mma_kernel<D>, dim3(ceil_div(d->T, FLASH_KEYS), d->B * d->Hk), FLASH_THREADS,
               2 * keys + 4 * back + 6 * FLASH_BACK * sizeof(float), dk, dv, dout, lse, delta, q, k, v, start, a);
    if (dq)
        LAUNCH(flash_dq_mma_kernel<D>, dim3(ceil_div(d->T, FLASH_ROWS), d->B * d->H), FLASH_THREADS,
               2 * keys + 4 * back, dq, dout, lse, delta, q, k, v, start, a);
}
