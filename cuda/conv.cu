/* conv.cu - short causal depthwise convolution: one thread an element, neighbours in c together. */
enum { CONV_THREADS = 256 };
/* Is the tap at time p inside the document of token t? One that starts at 0 may have begun before this call. */
__device__ bool tap_visible(const int *start, size_t b, int T, int t, int p) {
    const int first = start ? start[b * T + t] : 0;
    return first == 0 || p >= first;
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
    LAUNCH(conv_forward_kernel, ceil_div(n, CONV_THREADS), CONV_THREADS, 0, y, x, w, tail_in, start, T, C, W, n);
    if (tail_out && W > 1)
        LAUNCH(conv_tail_kernel, ceil_div(m, CONV_THREADS), CONV_THREADS, 0, tail_out, x, tail_in, T, C, W, m);
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
struct ConvWeight { // column c W + k of dw
    const real *dy, *x;
    const int *start;
    int T, C, W;
    __device__ float operator()(size_t n, int column) const {
        const int c = column / W, p = (int)(n % T) - W + 1 + column % W;
        const size_t b = n / T;
        return p >= 0 && tap_visible(start, b, T, (int)(n % T), p)
                   ? (float)dy[n * C + c] * (float)x[(b * T + p) * C + c]
                   : 0.0f;
    }
};
static void conv_backward(real *dx, wide *dw, const real *dy, const real *x, const real *w, const int *start, int B,
                          int T, int C, int W) {
    const size_t n = (size_t)B * T * C;
    if (dx) LAUNCH(conv_backward_kernel, ceil_div(n, CONV_THREADS), CONV_THREADS, 0, dx, dy, w, start, T, C, W, n);
    if (dw) column_sum(dw, ConvWeight{dy, x, start, T, C, W}, (size_t)B * T, C * W);
}
