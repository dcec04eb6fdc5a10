/* step.cu - one token of a recurrent mixer (T = 1: decoding), bound by reading and writing S once.
 *
 * A block has 32 columns of S, eight threads a column, each with every eighth row in registers:
 * all loads of a block are under way before the first is needed, and a row's 32 columns are one 128-byte access.
 * P = e^g o S, g one decay a head or a channel (channels); u = beta (v - P^T k) for the delta rules, else v;
 * S = P + k u^T. Token 0 of a row continues from `state`, whatever `start` says. */
enum { STEP_COLS = 32, STEP_PARTS = 8, STEP_ROWS = 32, STEP_MAX_K = STEP_PARTS * STEP_ROWS };

/* Sum of v over the eight threads of a column, the same for all of them. */
__device__ float step_sum(SHARED_PTR(float) part, float v) {
    const int x = threadIdx.x, y = threadIdx.y;
    __syncthreads();
    part[y * STEP_COLS + x] = v;
    __syncthreads();
    float s = 0;
    for (int p = 0; p < STEP_PARTS; p++) s += part[p * STEP_COLS + x];
    return s;
}
template <bool delta, bool channels>
__global__ void __launch_bounds__(STEP_COLS *STEP_PARTS)
    step_kernel(real *o, real *states, wide *state, const real *q, const real *k, const real *v, const wide *g,
                const wide *beta, DeltaArgs a) {
    SHARED(float, qs, STEP_MAX_K);
    SHARED(float, ks, STEP_MAX_K);
    SHARED(float, es, STEP_MAX_K);
    SHARED(float, part, STEP_COLS *STEP_PARTS);
    const Piece piece = block_piece(ceil_div(a.V, STEP_COLS));
    const int bh = piece.of, h = bh % a.H, x = threadIdx.x, y = threadIdx.y, col = piece.at * STEP_COLS + x;
    const bool mine = col < a.V;
    const size_t KV = (size_t)a.K * a.V, at = ((size_t)(bh / a.H) * a.Hk + h / (a.H / a.Hk)) * a.K;
    const wide *from = state + bh * KV + col;
    float S[STEP_ROWS];
#pragma unroll
    for (int r = 0; r < STEP_ROWS; r++) {
        const int i = r * STEP_PARTS + y;
        S[r] = mine && i < a.K ? from[(size_t)i * a.V] : 0.0f;
    }
    for (int i = y * STEP_COLS + x; i < a.K; i += STEP_COLS * STEP_PARTS)
        qs[i] = q[at + i], ks[i] = k[at + i],
        es[i] = expf(g[!channels ? (size_t)bh : (delta ? (size_t)bh * a.K : at) + i]);
    __syncthreads();
    float u = mine ? (float)v[(size_t)bh * a.V + col] : 0.0f, out = 0;
    if (delta) {
        float seen = 0;
#pragma unroll
        for (int r = 0; r < STEP_ROWS; r++) {
            const int i = r * STEP_PARTS + y;
            if (i < a.K) seen += es[i] * S[r] * ks[i];
        }
        u = beta[bh] * (u - step_sum(part, seen));
    }
    // written in place, but 32 addresses are not kept for it since they were read
    const int at_v = forgotten(col);
    wide *to = state + bh * KV + at_v;
    real *kept = states ? states + 2 * bh * KV + at_v : states;
#pragma unroll
    for (int r = 0; r < STEP_ROWS; r++) {
        const int i = r * STEP_PARTS + y;
        if (i >= a.K) continue;
        if (mine && kept) kept[(size_t)i * a.V] = real(S[r]);
        S[r] = es[i] * S[r] + ks[i] * u;
        out += S[r] * qs[i];
        if (mine) to[(size_t)i * a.V] = S[r];
        if (mine && kept) kept[KV + (size_t)i * a.V] = real(S[r]);
    }
    out = step_sum(part, out);
    if (mine && y == 0) o[(size_t)bh * a.V + col] = a.scale * out;
}
template <bool delta, bool channels>
static void step_forward(real *o, real *states, wide *state, const real *q, const real *k, const real *v, const wide *g,
                         const wide *beta, double scale, const DeltaDims *d) {
    LAUNCH((step_kernel<delta, channels>), ceil_div(d->V, STEP_COLS) * d->B * d->H, dim3(STEP_COLS, STEP_PARTS), 0, o,
           states, state, q, k, v, g, beta, delta_args(d, scale));
}
