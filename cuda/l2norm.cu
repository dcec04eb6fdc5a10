/* l2norm.cu - y = x / sqrt(sum x^2 + eps), a warp a row. */
__global__ void l2norm_forward_kernel(real *y, wide *r, const real *x, float eps, int N, int C) {
    const size_t n = warp_row();
    if (n >= (size_t)N) return;
    const real *x_n = x + n * C;
    float s = 0;
    for (int c = lane_pack(); c < C; c += WARP * PACK) {
        const Pack a = pack_load(x_n, c, C);
        for (int k = 0; k < PACK; k++) s += a.v[k] * a.v[k];
    }
    const float q = 1.0f / sqrtf(warp_sum(s) + eps);
    if (threadIdx.x % WARP == 0) r[n] = q;
    for (int c = lane_pack(); c < C; c += WARP * PACK) {
        Pack a = pack_load(x_n, c, C);
        for (int k = 0; k < PACK; k++) a.v[k] *= q;
        pack_store(y + n * C, c, C, a);
    }
}
static void l2norm_forward(real *y, wide *r, const real *x, double eps, int N, int C) {
    LAUNCH(l2norm_forward_kernel, ceil_div(N, ROW_WARPS), ROW_WARPS * WARP, 0, y, r, x, (float)eps, N, C);
}
__global__ void l2norm_backward_kernel(real *dx, const real *dy, const real *y, const wide *r, int N, int C) {
    const size_t n = warp_row();
    if (n >= (size_t)N) return;
    const real *y_n = y + n * C, *dy_n = dy + n * C;
    float dot = 0;
    for (int c = lane_pack(); c < C; c += WARP * PACK) {
        const Pack a = pack_load(y_n, c, C), d = pack_load(dy_n, c, C);
        for (int k = 0; k < PACK; k++) dot += d.v[k] * a.v[k];
    }
    dot = warp_sum(dot);
    for (int c = lane_pack(); c < C; c += WARP * PACK) {
        Pack a = pack_load(y_n, c, C);
        const Pack d = pack_load(dy_n, c, C);
        for (int k = 0; k < PACK; k++) a.v[k] = r[n] * (d.v[k] - a.v[k] * dot);
        pack_add(dx + n * C, c, C, a);
    }
}
static void l2norm_backward(real *dx, const real *dy, const real *y, const wide *r, int N, int C) {
    LAUNCH(l2norm_backward_kernel, ceil_div(N, ROW_WARPS), ROW_WARPS * WARP, 0, dx, dy, y, r, N, C);
}
