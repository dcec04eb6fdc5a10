/* gate.cu - the gates of the delta rule and of gated linear attention. */
__device__ float softplus(float x) { return fmaxf(x, 0.0f) + log1pf(expf(-fabsf(x))); }

/* Gates of a head each: a block has 256 / GATE_HEADS rows, lanes over their heads, so that no index is divided. */
enum { GATE_HEADS = 16, GATE_ROWS = 16 };
static dim3 gate_block() { return dim3(GATE_HEADS, GATE_ROWS); }
__device__ size_t gate_row() { return (size_t)blockIdx.x * GATE_ROWS + threadIdx.y; }

__global__ void delta_gate_forward_kernel(wide *g, wide *beta, const real *a, const real *b, const wide *A_log,
                                          const wide *dt_bias, int N, int H) {
    const size_t n = gate_row();
    for (int h = threadIdx.x; h < H && n < (size_t)N; h += GATE_HEADS) {
        g[n * H + h] = -expf(A_log[h]) * softplus((float)a[n * H + h] + dt_bias[h]);
        beta[n * H + h] = sigmoid(b[n * H + h]);
    }
}
static void delta_gate_forward(wide *g, wide *beta, const real *a, const real *b, const wide *A_log,
                               const wide *dt_bias, int N, int H) {
    LAUNCH(delta_gate_forward_kernel, ceil_div(N, GATE_ROWS), gate_block(), 0, g, beta, a, b, A_log, dt_bias, N, H);
}

/* d softplus(a + dt_bias): shared by da and ddt_bias. */
__device__ float gate_slope(float dg, float a, float A_log, float dt_bias) {
    return dg * -expf(A_log) * sigmoid(a + dt_bias);
}
__global__ void delta_gate_backward_kernel(real *da, real *db, const wide *dg, const wide *dbeta, const real *a,
                                           const wide *beta, const wide *A_log, const wide *dt_bias, int N, int H) {
    const size_t n = gate_row();
    for (int h = threadIdx.x; h < H && n < (size_t)N; h += GATE_HEADS) {
        const size_t i = n * H + h;
        if (da) da[i] = (float)da[i] + gate_slope(dg[i], a[i], A_log[h], dt_bias[h]);
        if (db) db[i] = (float)db[i] + dbeta[i] * beta[i] * (1.0f - beta[i]);
    }
}
struct GateScale { // dA_log += dg g, since g is proportional to exp(A_log)
    const wide *dg, *g;
    int H;
    __device__ float operator()(size_t n, int h) const { return dg[n * H + h] * g[n * H + h]; }
};
struct GateBias {
    const wide *dg;
    const real *a;
    const wide *A_log, *dt_bias;
    int H;
    __device__ float operator()(size_t n, int h) const {
        return gate_slope(dg[n * H + h], a[n * H + h], A_log[h], dt_bias[h]);
    }
};
static void delta_gate_backward(real *da, real *db, wide *dA_log, wide *ddt_bias, const wide *dg, const wide *dbeta,
                                const real *a, const wide *g, const wide *beta, const wide *A_log, const wide *dt_bias,
                                int N, int H) {
    if (da || db)
        LAUNCH(delta_gate_backward_kernel, ceil_div(N, GATE_ROWS), gate_block(), 0, da, db, dg, dbeta, a, beta, A_log,
               dt_bias, N, H);
    if (dA_log) column_sum(dA_log, GateScale{dg, g, H}, N, H);
    if (ddt_bias) column_sum(ddt_bias, GateBias{dg, a, A_log, dt_bias, H}, N, H);
}

__global__ void gla_gate_forward_kernel(wide *g, const real *x, float scale, size_t n) {
    const size_t i = apart_index(blockIdx.x);
    if (i >= n) return;
    Pack a = apart_load(x, i, n);
    for (int k = 0; k < PACK; k++) a.v[k] = -softplus(-a.v[k]) * scale; // log sigmoid(x) = -softplus(-x)
    apart_store(g, i, n, a);
}
static void gla_gate_forward(wide *g, const real *x, double normalizer, size_t n) {
    if (n) LAUNCH(gla_gate_forward_kernel, pack_blocks(n), PACK_THREADS, 0, g, x, (float)(1 / normalizer), n);
}
__global__ void gla_gate_backward_kernel(real *dx, const wide *dg, const real *x, float scale, size_t n) {
    const size_t i = pack_index();
    if (i >= n) return;
    Pack a = pack_load(x, i, n);
    const Pack d = pack_load(dg, i, n);
    for (int k = 0; k < PACK; k++) a.v[k] = d.v[k] * sigmoid(-a.v[k]) * scale; // 1 - sigmoid(x) = sigmoid(-x)
    pack_add(dx, i, n, a);
}
static void gla_gate_backward(real *dx, const wide *dg, const real *x, double normalizer, size_t n) {
    if (n && dx)
        LAUNCH(gla_gate_backward_kernel, pack_blocks(n), PACK_THREADS, 0, dx, dg, x, (float)(1 / normalizer), n);
}
