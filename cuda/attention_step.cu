/* attention_step.cu - attention of one new token (T = 1) over a cache of keys, bound by reading the cache once.
 *
 * The visible keys are cut into pieces of 256, one block each, so that a single sequence fills the device;
 * a block does all heads of a group, eight at a time, with a thread a key for the scores and a thread an element for
 * the sums. Each piece leaves its maximum, its sum of exponentials and its unnormalised output in the workspace;
 * a second kernel puts the pieces together in their order. */
enum { SPLIT_KEYS = 256, SPLIT_THREADS = 128, SPLIT_HEADS = 8 };

/* Scores of the piece's keys for `heads` heads, queries (scaled) in qs. */
__device__ void split_scores(SHARED_PTR(float) s, SHARED_PTR(float) qs, const real *k, size_t row, int keys, int heads,
                             int D) {
    for (int j = threadIdx.x; j < keys; j += SPLIT_THREADS) {
        float dot[SPLIT_HEADS] = {};
        for (int c = 0; c < D; c += PACK) {
            const Pack p = pack_load(k + j * row, c, D);
            for (int h = 0; h < SPLIT_HEADS && h < heads; h++)
                for (int e = 0; e < PACK && c + e < D; e++) dot[h] += qs[h * ATT_MAX_D + c + e] * p.v[e];
        }
        for (int h = 0; h < SPLIT_HEADS && h < heads; h++) s[h * SPLIT_KEYS + j] = dot[h];
    }
}
// 8 blocks a multiprocessor: 64 registers a thread; left to itself the compiler stops at 48 on sm_100 and spills
__global__ void __launch_bounds__(SPLIT_THREADS, 8)
    attention_split_kernel(wide *part, const real *q, const real *k, const real *v, const int *start, int splits,
                           AttnArgs a) {
    SHARED(float, qs, SPLIT_HEADS *ATT_MAX_D);
    SHARED(float, s, SPLIT_HEADS *SPLIT_KEYS);
    const int b = blockIdx.x / a.Hk, hk = blockIdx.x % a.Hk, group = a.H / a.Hk, lane = threadIdx.x % WARP,
              warp = threadIdx.x / WARP, first = first_key(a, start, b, a.past) + blockIdx.y * SPLIT_KEYS,
              keys = max(0, min((int)SPLIT_KEYS, a.past + 1 - first));
    const size_t row = (size_t)a.Hk * a.D, at = (((size_t)b * a.stride + first) * a.Hk + hk) * a.D;
    for (int h0 = 0; h0 < group; h0 += SPLIT_HEADS) {
        const int heads = min((int)SPLIT_HEADS, group - h0);
        const size_t head = (size_t)b * a.H + hk * group + h0; // and the next ones
        __syncthreads();
        for (int e = threadIdx.x; e < heads * a.D; e += SPLIT_THREADS)
            qs[e / a.D * ATT_MAX_D + e % a.D] = a.scale * (float)q[head * a.D + e];
        __syncthreads();
        split_scores(s, qs, k + at, row, keys, heads, a.D);
        __syncthreads();
        for (int h = warp; h < heads; h += SPLIT_THREADS / WARP) {
            float m = -INFINITY, sum = 0;
            for (int j = lane; j < keys; j += WARP) m = fmaxf(m, s[h * SPLIT_KEYS + j]);
            m = warp_max(m);
            for (int j = lane; j < keys; j += WARP) {
                const float p = expf(s[h * SPLIT_KEYS + j] - m);
                s[h * SPLIT_KEYS + j] = p, sum += p;
            }
            sum = warp_sum(sum);
            wide *to = part + ((head + h) * splits + blockIdx.y) * (a.D + 2) + a.D;
            if (lane == 0) to[0] = m, to[1] = sum;
        }
        __syncthreads();
        for (int c = threadIdx.x; c < a.D; c += SPLIT_THREADS) {
            float acc[SPLIT_HEADS] = {};
            for (int j = 0; j < keys; j++) {
                const float v_jc = v[at + j * row + c];
                for (int h = 0; h < SPLIT_HEADS && h < heads; h++) acc[h] += s[h * SPLIT_KEYS + j] * v_jc;
            }
            for (int h = 0; h < heads; h++) part[((head + h) * splits + blockIdx.y) * (a.D + 2) + c] = acc[h];
        }
    }
}
__global__ void attention_join_kernel(real *o, wide *lse, const wide *part, int splits, int D) {
    const wide *p = part + (size_t)blockIdx.x * splits * (D + 2);
    float m = -INFINITY, sum = 0;
    for (int s = 0; s < splits; s++) m = fmaxf(m, p[s * (D + 2) + D]);
    for (int s = 0; s < splits; s++) sum += p[s * (D + 2) + D + 1] * expf(p[s * (D + 2) + D] - m);
    for (int c = threadIdx.x; c < D; c += blockDim.x) {
        float acc = 0;
        for (int s = 0; s < splits; s++) acc += p[s * (D + 2) + c] * expf(p[s * (D + 2) + D] - m);
        o[(size_t)blockIdx.x * D + c] = acc / sum;
    }
    if (threadIdx.x == 0) lse[blockIdx.x] = m + logf(sum);
}
#if BITS == 16
/* The same piece for BF16 with D = 64 or 128 on the matrix unit: eight heads of the group are the eight columns of
 * m16n8k16, S^T = K Q^T and O^T = V^T P^T, so that a key or value is read from shared memory once for all of them and
 * what remains is the cache's own bytes. Key tiles, then value tiles, come through one ring of four. */
enum { STEP_TILE = 64, STEP_TILES = 2 * SPLIT_KEYS / STEP_TILE, STEP_RING = 4, STEP_LD = SPLIT_KEYS + 8 };
template <int D>
__global__ void __launch_bounds__(SPLIT_THREADS)
    attention_split_mma_kernel(wide *part, const Bf16 *q, const Bf16 *k, const Bf16 *v, const int *start, int splits,
                               AttnArgs a) {
    enum { TILE = STEP_TILE * Tile<D>::LD, M = D / 64 };
    DYNAMIC_SHARED(Bf16, cursor);
    const SHARED_PTR(Bf16) ring = shared_take<Bf16>(cursor, STEP_RING * TILE);
    const SHARED_PTR(Bf16) ps = shared_take<Bf16>(cursor, SPLIT_HEADS * STEP_LD);  // exponentials, a row a head
    const SHARED_PTR(float) s = shared_take<float>(cursor, SPLIT_HEADS * STEP_LD); // scores
    const int b = blockIdx.x / a.Hk, hk = blockIdx.x % a.Hk, group = a.H / a.Hk, lane = threadIdx.x % WARP,
              g8 = lane / 4, t2 = lane % 4 * 2, warp = threadIdx.x / WARP,
              first = first_key(a, start, b, a.past) + blockIdx.y * SPLIT_KEYS,
              keys = max(0, min((int)SPLIT_KEYS, a.past + 1 - first));
    const size_t row = (size_t)a.Hk * D, at = (((size_t)b * a.stride + first) * a.Hk + hk) * D;
    const auto fetch = [&](int x) { // tile x of the four key and four value tiles
        const int j0 = x % (STEP_TILES / 2) * STEP_TILE;
        if (x < STEP_TILES)
            tile_fetch<D>(ring + x % STEP_RING * TILE, (x < STEP_TILES / 2 ? k : v) + at + j0 * row, row, STEP_TILE,
                          keys - j0, SPLIT_THREADS);
        cp_async_commit(); // also an empty group, so that the count is the same at every tile
    };
    for (int h0 = 0; h0 < group; h0 += SPLIT_HEADS) {
        const int heads = min((int)SPLIT_HEADS, group - h0);
        const size_t head = (size_t)b * a.H + hk * group + h0; // and the next ones
        unsigned qb[D / 16][2];                                // Q^T as B operand: column g8 is a head
        for (int i = 0; i < D / 16; i++)
            for (int r = 0; r < 2; r++)
                qb[i][r] = g8 < heads ? *(const unsigned *)(q + (head + g8) * D + 16 * i + 8 * r + t2) : 0u;
        for (int x = 0; x < STEP_RING - 1; x++) fetch(x);
        float acc[M][4] = {}; // rows 16 M warp.. of O^T
#pragma unroll 2              // whole or one by one, sm_100 spills
        for (int x = 0; x < STEP_TILES; x++) {
            const SHARED_PTR(Bf16) tile = ring + x % STEP_RING * TILE;
            const int j0 = x % (STEP_TILES / 2) * STEP_TILE;
            cp_async_wait<STEP_RING - 2>();
            __syncthreads(); // tile x is there, and tile x - 1 has been read
            fetch(x + STEP_RING - 1);
            if (x < STEP_TILES / 2) {
                float y[4] = {};
#pragma unroll
                for (int i = 0; i < D / 16; i++) {
                    unsigned ka[4];
                    load_a<D>(ka, tile, warp * 16, i * 16);
                    mma_bf16(y, ka, qb[i][0], qb[i][1]);
                }
                for (int e = 0; e < 4; e++)
                    s[(t2 + e % 2) * STEP_LD + j0 + warp * 16 + g8 + e / 2 * 8] = a.scale * y[e];
                continue;
            }
            if (x == STEP_TILES / 2) { // all scores are there
                for (int h = warp; h < SPLIT_HEADS; h += SPLIT_THREADS / WARP) {
                    float m = -INFINITY, sum = 0;
                    for (int j = lane; j < keys; j += WARP) m = fmaxf(m, s[h * STEP_LD + j]);
                    m = warp_max(m);
                    for (int j = lane; j < SPLIT_KEYS; j += WARP) {
                        const float p = j < keys && h < heads ? expf(s[h * STEP_LD + j] - m) : 0.0f;
                        ps[h * STEP_LD + j] = p, sum += p;
                    }
                    sum = warp_sum(sum);
                    wide *to = part + ((head + h) * splits + blockIdx.y) * (D + 2) + D;
                    if (lane == 0 && h < heads) to[0] = m, to[1] = sum;
                }
                __syncthreads();
            }
#pragma unroll
            for (int i = 0; i < STEP_TILE / 16; i++) {
                unsigned pb[2];
                ldmatrix<2, false>(pb, ps + lane % 8 * STEP_LD + j0 + i * 16 + lane / 8 % 2 * 8);
#pragma unroll
                for (int m = 0; m < M; m++) {
                    unsigned va[4];
                    load_a_transposed<D>(va, tile, 16 * (M * warp + m), i * 16);
                    mma_bf16(acc[m], va, pb[0], pb[1]);
                }
            }
        }
        for (int m = 0; m < M; m++)
            for (int e = 0; e < 4; e++) {
                const int h = t2 + e % 2, c = 16 * (M * warp + m) + g8 + e / 2 * 8;
                if (h < heads) part[((head + h) * splits + blockIdx.y) * (D + 2) + c] = acc[m][e];
            }
        cp_async_wait<0>();
        __syncthreads(); // before the next heads
    }
}
template <int D>
static void attention_split_mma(wide *part, const Bf16 *q, const Bf16 *k, const Bf16 *v, const int *start, int splits,
                                dim3 grid, const AttnArgs &a) {
    const size_t shared = (STEP_RING * STEP_TILE * Tile<D>::LD + SPLIT_HEADS * STEP_LD) * sizeof(Bf16) +
                          SPLIT_HEADS * STEP_LD * sizeof(float);
    LAUNCH(attention_split_mma_kernel<D>, grid, SPLIT_THREADS, shared, part, q, k, v, start, splits, a);
}
#endif
/* mma: on the matrix unit, if the shape allows it. */
static void attention_step(real *o, wide *lse, const real *q, const real *k, const real *v, const int *start,
                           double scale, void *work, bool mma, const AttnDims *d) {
    const AttnArgs a = attn_args(d, scale);
    const int seen = d->window > 0 && d->window < a.Tk ? d->window : a.Tk, splits = (int)ceil_div(seen, SPLIT_KEYS);
    const dim3 grid(d->B * d->Hk, splits);
    (void)mma;
#if BITS == 16
    if (mma && d->D == 64) attention_split_mma<64>((wide *)work, q, k, v, start, splits, grid, a);
    else if (mma && d->D == 128) attention_split_mma<128>((wide *)work, q, k, v, start, splits, grid, a);
    else
#endif
        LAUNCH(attention_split_kernel, grid, SPLIT_THREADS, 0, (wide *)work, q, k, v, start, splits, a);
    LAUNCH(attention_join_kernel, d->B * d->H, SPLIT_THREADS, 0, o, lse, (wide *)work, splits, d->D);
}
