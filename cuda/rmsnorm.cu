/* rmsnorm.cu - RMSNorm, alone and with an output gate (SiLU or sigmoid): a warp a row, eight elements a lane at a time;
 * weights by column_sum. */
enum { ROW_WARPS = 4 }; // rows per block where a warp has a row
__device__ size_t warp_row() { return (size_t)blockIdx.x * ROW_WARPS + threadIdx.x / WARP; }
__device__ int lane_pack() { return threadIdx.x % WARP * PACK; }

/* ADD: of a + b, which goes to `sum` and is rounded on the way like the sum that add would have stored. */
template <bool ADD>
__global__ void rmsnorm_forward_kernel(real *sum, real *y, wide *rstd, const real *a, const real *b, const real *w,
                                       float eps, int N, int C) {
    const size_t n = warp_row();
    if (n >= (size_t)N) return;
    const real *x_n = (ADD ? sum : a) + n * C;
    real *y_n = y + n * C;
    float s = 0;
    for (int c = lane_pack(); c < C; c += WARP * PACK) {
        Pack x = pack_load(a + n * C, c, C);
        if (ADD) {
            const Pack other = pack_load(b + n * C, c, C);
            for (int k = 0; k < PACK; k++) x.v[k] = real(x.v[k] + other.v[k]);
            pack_store(sum + n * C, c, C, x);
        }
        for (int k = 0; k < PACK; k++) s += x.v[k] * x.v[k];
    }
    const float r = 1.0f / sqrtf(warp_sum(s) / C + eps);
    if (threadIdx.x % WARP == 0) rstd[n] = r;
    for (int c = lane_pack(); c < C; c += WARP * PACK) { // again, from the cache; a lane's own sums
        Pack x = pack_load(x_n, c, C);
        const Pack g = pack_load(w, c, C);
        for (int k = 0; k < PACK; k++) x.v[k] *= r * g.v[k];
        pack_store(y_n, c, C, x);
    }
}
static void rmsnorm_forward(real *y, wide *rstd, const real *x, const real *w, double eps, int N, int C) {
    LAUNCH(rmsnorm_forward_kernel<false>, ceil_div(N, ROW_WARPS), ROW_WARPS * WARP, 0, nullptr, y, rstd, x, nullptr, w,
           (float)eps, N, C);
}
static void add_rmsnorm_forward(real *sum, real *y, wide *rstd, const real *a, const real *b, const real *w, double eps,
                                int N, int C) {
    LAUNCH(rmsnorm_forward_kernel<true>, ceil_div(N, ROW_WARPS), ROW_WARPS * WARP, 0, sum, y, rstd, a, b, w, (float)eps,
           N, C);
}

__global__ void rmsnorm_backward_kernel(real *dx, const real *dy, const real *x, const real *w, const wide *rstd, int N,
                                        int C) {
    const size_t n = warp_row();
    if (n >= (size_t)N) return;
    const real *x_n = x + n * C, *dy_n = dy + n * C;
    const float r = rstd[n];
    float dot = 0; // of t = dy w and x
    for (int c = lane_pack(); c < C; c += WARP * PACK) {
        const Pack a = pack_load(x_n, c, C), b = pack_load(w, c, C), d = pack_load(dy_n, c, C);
        for (int k = 0; k < PACK; k++) dot += d.v[k] * b.v[k] * a.v[k];
    }
    const float mean = warp_sum(dot) * r / C; // mean_c(t n)
    for (int c = lane_pack(); c < C; c += WARP * PACK) {
        Pack a = pack_load(x_n, c, C);
        const Pack b = pack_load(w, c, C), d = pack_load(dy_n, c, C);
        for (int k = 0; k < PACK; k++) a.v[k] = r * (d.v[k] * b.v[k] - a.v[k] * r * mean);
        pack_add(dx + n * C, c, C, a);
    }
}
struct RmsnormWeight {
    const real *dy, *x;
    const wide *rstd;
    int C;
    __device__ float operator()(size_t n, int c) const { return dy[n * C + c] * (x[n * C + c] * rstd[n]); }
};
static void rmsnorm_backward(real *dx, wide *dw, const real *dy, const real *x, const real *w, const wide *rstd, int N,
                             int C) {
    if (dx) LAUNCH(rmsnorm_backward_kernel, ceil_div(N, ROW_WARPS), ROW_WARPS * WARP, 0, dx, dy, x, w, rstd, N, C);
    if (dw) column_sum(dw, RmsnormWeight{dy, x, rstd, C}, N, C);
}

// ---- y = x rstd w gate(z): SiLU, or the sigmoid alone ----
template <bool SILU> __device__ float gated(float x, float z) { return SILU ? x * z * sigmoid(z) : x * sigmoid(z); }
/* d gate / dz over s = sigmoid(z); 1 - s of the sigmoid as sigmoid(-z): no cancellation. */
template <bool SILU> __device__ float gate_bend(float z, float s) { return SILU ? 1.0f + z * (1.0f - s) : sigmoid(-z); }

template <bool SILU>
__global__ void gated_rmsnorm_forward_kernel(real *y, wide *rstd, const real *x, const real *z, const real *w,
                                             float eps, int N, int C) {
    const size_t n = warp_row();
    if (n >= (size_t)N) return;
    const real *x_n = x + n * C, *z_n = z + n * C;
    float s = 0;
    for (int c = lane_pack(); c < C; c += WARP * PACK) {
        const Pack a = pack_load(x_n, c, C);
        for (int k = 0; k < PACK; k++) s += a.v[k] * a.v[k];
    }
    const float r = 1.0f / sqrtf(warp_sum(s) / C + eps);
    if (threadIdx.x % WARP == 0) rstd[n] = r;
    for (int c = lane_pack(); c < C; c += WARP * PACK) {
        Pack a = pack_load(x_n, c, C);
        const Pack b = pack_load(w, c, C), g = pack_load(z_n, c, C);
        for (int k = 0; k < PACK; k++) a.v[k] *= gated<SILU>(r * b.v[k], g.v[k]);
        pack_store(y + n * C, c, C, a);
    }
}
template <bool SILU>
static void norm_gate_forward(real *y, wide *rstd, const real *x, const real *z, const real *w, double eps, int N,
                              int C) {
    LAUNCH(gated_rmsnorm_forward_kernel<SILU>, ceil_div(N, ROW_WARPS), ROW_WARPS * WARP, 0, y, rstd, x, z, w,
           (float)eps, N, C);
}

template <bool SILU>
__global__ void gated_rmsnorm_backward_kernel(real *dx, real *dz, const real *dy, const real *x, const real *z,
                                              const real *w, const wide *rstd, int N, int C) {
    const size_t n = warp_row();
    if (n >= (size_t)N) return;
    const real *x_n = x + n * C, *z_n = z + n * C, *dy_n = dy + n * C;
    const float r = rstd[n];
    float dot = 0; // of t = dy w gate and x
    for (int c = lane_pack(); c < C; c += WARP * PACK) {
        const Pack a = pack_load(x_n, c, C), b = pack_load(w, c, C), d = pack_load(dy_n, c, C),
                   g = pack_load(z_n, c, C);
        for (int k = 0; k < PACK; k++) dot += gated<SILU>(d.v[k] * b.v[k], g.v[k]) * a.v[k];
    }
    const float mean = warp_sum(dot) * r / C;
    for (int c = lane_pack(); c < C; c += WARP * PACK) {
        const Pack a = pack_load(x_n, c, C), b = pack_load(w, c, C), d = pack_load(dy_n, c, C),
                   g = pack_load(z_n, c, C);
        Pack da, dg;
        for (int k = 0; k < PACK; k++) {
            const float s = sigmoid(g.v[k]), norm = a.v[k] * r;
            dg.v[k] = d.v[k] * norm * b.v[k] * s * gate_bend<SILU>(g.v[k], s);
            da.v[k] = r * (gated<SILU>(d.v[k] * b.v[k], g.v[k]) - norm * mean);
        }
        if (dz) pack_add(dz + n * C, c, C, dg);
        if (dx) pack_add(dx + n * C, c, C, da);
    }
}
template <bool SILU> struct GatedRmsnormWeight {
    const real *dy, *x, *z;
    const wide *rstd;
    int C;
    __device__ float operator()(size_t n, int c) const {
        const size_t i = n * C + c;
        return gated<SILU>(dy[i] * (x[i] * rstd[n]), z[i]);
    }
};
template <bool SILU>
static void norm_gate_backward(real *dx, real *dz, wide *dw, const real *dy, const real *x, const real *z,
                               const real *w, const wide *rstd, int N, int C) {
    if (dx || dz)
        LAUNCH(gated_rmsnorm_backward_kernel<SILU>, ceil_div(N, ROW_WARPS), ROW_WARPS * WARP, 0, dx, dz, dy, x, z, w,
               rstd, N, C);
    if (dw) column_sum(dw, GatedRmsnormWeight<SILU>{dy, x, z, rstd, C}, N, C);
}
static void gated_rmsnorm_forward(real *y, wide *rstd, const real *x, const real *z, const real *w, double eps, int N,
                                  int C) {
    norm_gate_forward<true>(y, rstd, x, z, w, eps, N, C);
}
static void gated_rmsnorm_backward(real *dx, real *dz, wide *dw, const real *dy, const real *x, const real *z,
                                   const real *w, const wide *rstd, int N, int C) {
    norm_gate_backward<true>(dx, dz, dw, dy, x, z, w, rstd, N, C);
}
static void sigmoid_rmsnorm_forward(real *y, wide *rstd, const real *x, const real *z, const real *w, double eps, int N,
                                    int C) {
    norm_gate_forward<false>(y, rstd, x, z, w, eps, N, C);
}
static void sigmoid_rmsnorm_backward(real *dx, real *dz, wide *dw, const real *dy, const real *x, const real *z,
                                     const real *w, const wide *rstd, int N, int C) {
    norm_gate_backward<false>(dx, dz, dw, dy, x, z, w, rstd, N, C);
}
