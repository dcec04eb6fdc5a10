/* conv.cu - short causal depthwise convolution. Four taps, which is what the models have: a thread takes eight channels
 * through CONV_RUN tokens with the window in registers, so that a value is read once a run. Other widths: a thread an
 * element. */
enum { CONV_THREADS = 256, CONV_TAPS = 4, CONV_RUN = 8 };
/* Is the tap at time p inside the document of token t? One that starts at 0 may have begun before this call. */
__device__ bool tap_visible(const int *start, size_t b, int T, int t, int p) {
    const int first = start ? start[b * T + t] : 0;
    return first == 0 || p >= first;
}

/* Where a thread of the run kernels begins; false if it has nothing to do. */
struct ConvRun {
    unsigned c, b;
    int t0;
};
__device__ bool conv_run(ConvRun &r, int B, int T, int C) {
    const unsigned i = blockIdx.x * CONV_THREADS + threadIdx.x, packs = (unsigned)C / PACK,
                   runs = ((unsigned)T + CONV_RUN - 1) / CONV_RUN, run = i / packs;
    r.c = i % packs * PACK, r.b = run / runs, r.t0 = (int)(run % runs) * CONV_RUN;
    return r.b < (unsigned)B;
}
static bool conv_by_runs(int B, int T, int C, int W) { // the index of a thread is 32 bits wide
    return W == CONV_TAPS && C % PACK == 0 && (size_t)B * ceil_div(T, CONV_RUN) * (C / PACK) < 0x7fffffffu;
}
static unsigned conv_blocks(int B, int T, int C) {
    return ceil_div((size_t)B * ceil_div(T, CONV_RUN) * (C / PACK), CONV_THREADS);
}
__device__ void conv_weights(float (&w)[CONV_TAPS][PACK], const real *from, unsigned c, int C) {
    for (int i = 0; i < CONV_TAPS; i++) { // element k of pack i is tap (8 i + k) % 4 of channel c + (8 i + k) / 4
        const Pack a = pack_load(from, (size_t)c * CONV_TAPS + i * PACK, (size_t)C * CONV_TAPS);
        for (int k = 0; k < PACK; k++) w[k % CONV_TAPS][(i * PACK + k) / CONV_TAPS] = a.v[k];
    }
}
__global__ void conv_forward_run_kernel(real *y, const real *x, const real *w, const real *tail_in, const int *start,
                                        int B, int T, int C) {
    ConvRun r;
    if (!conv_run(r, B, T, C)) return;
    float taps[CONV_TAPS][PACK];
    conv_weights(taps, w, r.c, C);
    const real *x_b = x + (size_t)r.b * T * C,
               *before = tail_in ? tail_in + (size_t)r.b * (CONV_TAPS - 1) * C : tail_in;
    real *y_b = y + (size_t)r.b * T * C;
    const auto value = [&](int p) {
        if (p >= 0) return pack_load(x_b, (size_t)p * C + r.c, (size_t)T * C);
        if (before) return pack_load(before, (size_t)(p + CONV_TAPS - 1) * C + r.c, (size_t)(CONV_TAPS - 1) * C);
        return Pack{};
    };
    Pack window[CONV_TAPS]; // [k]: the value that tap k meets
    for (int k = 1; k < CONV_TAPS; k++) window[k] = value(r.t0 - CONV_TAPS + k);
#pragma unroll
    for (int i = 0; i < CONV_RUN; i++) {
        const int t = r.t0 + i;
        if (t >= T) return;
        for (int k = 0; k + 1 < CONV_TAPS; k++) window[k] = window[k + 1];
        window[CONV_TAPS - 1] = value(t);
        Pack sum = {};
        for (int k = 0; k < CONV_TAPS; k++)
            if (tap_visible(start, r.b, T, t, t - CONV_TAPS + 1 + k))
                for (int e = 0; e < PACK; e++) sum.v[e] += taps[k][e] * window[k].v[e];
        pack_store(y_b, (size_t)t * C + r.c, (size_t)T * C, sum);
    }
}
__global__ void conv_forward_kernel(real *y, const real *x, const real *w, const real *tail_in, const int *start, int T,
                                    int C, int W, size_t n) {
    const size_t i = (size_t)blockIdx.x * CONV_THREADS + threadIdx.x;
    if (i >= n) return;
    const int c = (int)(i % C), t = (int)(i / C % T);
    const size_t b = i / C / T;
    float s = 0;
    for (int k = 0; k < W; k++) {
        const int p = t - W + 1 + k;
        if (!tap_visible(start, b, T, t, p)) continue;
        const float v = p >= 0    ? (float)x[(b * T + p) * C + c]
                        : tail_in ? (float)tail_in[(b * (W - 1) + p + W - 1) * C + c]
                                  : 0.0f;
        s += (float)w[(size_t)c * W + k] * v;
    }
    y[i] = s;
}
/* tail_out may be tail_in: a thread moves its own channel, reading ahead of where it writes. */
__global__ void conv_tail_kernel(real *tail_out, const real *x, const real *tail_in, int T, int C, int W, size_t n) {
    const size_t i = (size_t)blockIdx.x * CONV_THREADS + threadIdx.x;
    if (i >= n) return;
    const size_t b = i / C, c = i % C;
    for (int j = 0; j < W - 1; j++) {
        const int p = T - (W - 1) + j;
        const float v = p >= 0    ? (float)x[(b * T + p) * C + c]
                        : tail_in ? (float)tail_in[(b * (W - 1) + p + W - 1) * C + c]
                                  : 0.0f;
        tail_out[(b * (W - 1) + j) * C + c] = v;
    }
}
static void conv_forward(real *y, real *tail_out, const real *x, const real *w, const real *tail_in, const int *start,
                         int B, int T, int C, int W) {
    const size_t n = (size_t)B * T * C, m = (size_t)B * C;
    if (conv_by_runs(B, T, C, W))
        LAUNCH(conv_forward_run_kernel, conv_blocks(B, T, C), CONV_THREADS, 0, y, x, w, tail_in, start, B, T, C);
    else LAUNCH(conv_forward_kernel, ceil_div(n, CONV_THREADS), CONV_THREADS, 0, y, x, w, tail_in, start, T, C, W, n);
    if (tail_out && W > 1)
        LAUNCH(conv_tail_kernel, ceil_div(m, CONV_THREADS), CONV_THREADS, 0, tail_out, x, tail_in, T, C, W, m);
}

/* dx_p: y_t read x_p with tap k where t = p + W - 1 - k. */
__global__ void conv_backward_run_kernel(real *dx, const real *dy, const real *w, const int *start, int B, int T,
                                         int C) {
    ConvRun r;
    if (!conv_run(r, B, T, C)) return;
    float taps[CONV_TAPS][PACK];
    conv_weights(taps, w, r.c, C);
    const real *dy_b = dy + (size_t)r.b * T * C;
    real *dx_b = dx + (size_t)r.b * T * C;
    const auto value = [&](int t) { return t < T ? pack_load(dy_b, (size_t)t * C + r.c, (size_t)T * C) : Pack{}; };
    Pack window[CONV_TAPS]; // [k]: the row that tap k leads to
    for (int k = 1; k < CONV_TAPS; k++) window[CONV_TAPS - 1 - k] = value(r.t0 + k - 1);
#pragma unroll
    for (int i = 0; i < CONV_RUN; i++) {
        const int p = r.t0 + i;
        if (p >= T) return;
        for (int k = CONV_TAPS - 1; k > 0; k--) window[k] = window[k - 1];
        window[0] = value(p + CONV_TAPS - 1);
        Pack sum = {};
        for (int k = 0; k < CONV_TAPS; k++) {
            const int t = p + CONV_TAPS - 1 - k;
            if (t < T && tap_visible(start, r.b, T, t, p))
                for (int e = 0; e < PACK; e++) sum.v[e] += taps[k][e] * window[k].v[e];
        }
        pack_add(dx_b, (size_t)p * C + r.c, (size_t)T * C, sum);
    }
}
__global__ void conv_backward_kernel(real *dx, const real *dy, const real *w, const int *start, int T, int C, int W,
                                     size_t n) {
    const size_t i = (size_t)blockIdx.x * CONV_THREADS + threadIdx.x;
    if (i >= n) return;
    const int c = (int)(i % C), p = (int)(i / C % T);
    const size_t b = i / C / T;
    float s = 0;
    for (int k = 0; k < W; k++) { // y_t read x_p with tap k where t = p + W - 1 - k
        const int t = p + W - 1 - k;
        if (t < T && tap_visible(start, b, T, t, p)) s += (float)w[(size_t)c * W + k] * (float)dy[(b * T + t) * C + c];
    }
    dx[i] = (float)dx[i] + s;
}
struct ConvWeight { // column k C + c, so that neighbouring threads read neighbouring channels; dw has it at c W + k
    const real *dy, *x;
    const int *start;
    int T, C, W;
    __device__ float operator()(size_t n, int column) const {
        const int c = column % C, t = (int)((unsigned)n % T), p = t - W + 1 + column / C; // n is below 2^31
        return p >= 0 && tap_visible(start, (unsigned)n / T, T, t, p)
                   ? (float)dy[n * C + c] * (float)x[(n - t + p) * C + c]
                   : 0.0f;
    }
};
static void conv_backward(real *dx, wide *dw, const real *dy, const real *x, const real *w, const int *start, int B,
                          int T, int C, int W) {
    const size_t n = (size_t)B * T * C;
    if (dx && conv_by_runs(B, T, C, W))
        LAUNCH(conv_backward_run_kernel, conv_blocks(B, T, C), CONV_THREADS, 0, dx, dy, w, start, B, T, C);
    else if (dx) LAUNCH(conv_backward_kernel, ceil_div(n, CONV_THREADS), CONV_THREADS, 0, dx, dy, w, start, T, C, W, n);
    if (dw) column_sum(dw, ConvWeight{dy, x, start, T, C, W}, (size_t)B * T, C * W, W);
}
