/* embed.cu - table lookup, and its gradient without atomics. */
__global__ void embed_forward_kernel(real *y, const real *w, const int *ids, int C) {
    const size_t to = (size_t)blockIdx.x * C, from = (size_t)ids[blockIdx.x] * C;
    for (int c = threadIdx.x; c < C; c += blockDim.x) y[to + c] = w[from + c];
}
static void embed_forward(real *y, const real *w, const int *ids, int N, int C, int VOC) {
    (void)VOC;
    LAUNCH(embed_forward_kernel, N, 128, 0, y, w, ids, C);
}

/* One block a row. The block of a token's first occurrence adds all its rows, in order; the others leave at once.
 * Looking for occurrences reads N ids per block, which stay in the cache. */
enum { EMBED_THREADS = 128 };
__global__ void embed_backward_kernel(wide *dw, const real *dy, const int *ids, int N, int C) {
    SHARED(int, match, EMBED_THREADS);
    SHARED(int, hits, EMBED_THREADS / WARP);
    const int n = blockIdx.x, id = ids[n], lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    int earlier = 0;
    for (int m = threadIdx.x; m < n; m += EMBED_THREADS) earlier |= ids[m] == id;
    if (__syncthreads_or(earlier)) return;
    wide *dw_id = dw + (size_t)id * C;
    for (int m0 = n; m0 < N; m0 += EMBED_THREADS) {
        const int m = m0 + (int)threadIdx.x, hit = m < N && ids[m] == id;
        const unsigned who = __ballot_sync(FULL, hit);
        if (lane == 0) hits[warp] = __popc(who);
        __syncthreads();
        int before = 0, all = 0;
        for (int w = 0; w < EMBED_THREADS / WARP; w++) all += hits[w], before += w < warp ? (int)hits[w] : 0;
        if (hit) match[before + __popc(who & ((1u << lane) - 1))] = m;
        __syncthreads();
        for (int c = threadIdx.x; c < C && all; c += EMBED_THREADS) {
            float s = dw_id[c];
            for (int j = 0; j < all; j++) s += (float)dy[(size_t)match[j] * C + c];
            dw_id[c] = s;
        }
        __syncthreads();
    }
}
static void embed_backward(wide *dw, const real *dy, const int *ids, int N, int C, int VOC) {
    (void)VOC;
    LAUNCH(embed_backward_kernel, N, EMBED_THREADS, 0, dw, dy, ids, N, C);
}
