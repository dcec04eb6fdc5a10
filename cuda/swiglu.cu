/* swiglu.cu - SiLU and SwiGLU. */
__global__ void silu_forward_kernel(real *y, const real *x, size_t n) {
    const size_t i = pack_index();
    if (i >= n) return;
    Pack a = pack_load(x, i, n);
    for (int k = 0; k < PACK; k++) a.v[k] *= sigmoid(a.v[k]);
    pack_store(y, i, n, a);
}
static void silu_forward(real *y, const real *x, size_t n) {
    if (n) LAUNCH(silu_forward_kernel, pack_blocks(n), PACK_THREADS, 0, y, x, n);
}
__global__ void silu_backward_kernel(real *dx, const real *dy, const real *x, size_t n) {
    const size_t i = pack_index();
    if (i >= n) return;
    Pack a = pack_load(x, i, n);
    const Pack d = pack_load(dy, i, n);
    for (int k = 0; k < PACK; k++) {
        const float s = sigmoid(a.v[k]);
        a.v[k] = d.v[k] * s * (1.0f + a.v[k] * (1.0f - s));
    }
    pack_add(dx, i, n, a);
}
static void silu_backward(real *dx, const real *dy, const real *x, size_t n) {
    if (n) LAUNCH(silu_backward_kernel, pack_blocks(n), PACK_THREADS, 0, dx, dy, x, n);
}

__global__ void swiglu_forward_kernel(real *y, const real *gate, const real *up, size_t n) {
    const size_t i = pack_index();
    if (i >= n) return;
    Pack g = pack_load(gate, i, n);
    const Pack u = pack_load(up, i, n);
    for (int k = 0; k < PACK; k++) g.v[k] *= sigmoid(g.v[k]) * u.v[k];
    pack_store(y, i, n, g);
}
static void swiglu_forward(real *y, const real *gate, const real *up, size_t n) {
    if (n) LAUNCH(swiglu_forward_kernel, pack_blocks(n), PACK_THREADS, 0, y, gate, up, n);
}
__global__ void swiglu_backward_kernel(real *dgate, real *dup, const real *dy, const real *gate, const real *up,
                                       size_t n) {
    const size_t i = pack_index();
    if (i >= n) return;
    Pack g = pack_load(gate, i, n), u = pack_load(up, i, n);
    const Pack d = pack_load(dy, i, n);
    for (int k = 0; k < PACK; k++) {
        const float s = sigmoid(g.v[k]), up_k = u.v[k];
        u.v[k] = d.v[k] * g.v[k] * s;
        g.v[k] = d.v[k] * up_k * s * (1.0f + g.v[k] * (1.0f - s));
    }
    if (dgate) pack_add(dgate, i, n, g);
    if (dup) pack_add(dup, i, n, u);
}
static void swiglu_backward(real *dgate, real *dup, const real *dy, const real *gate, const real *up, size_t n) {
    if (n) LAUNCH(swiglu_backward_kernel, pack_blocks(n), PACK_THREADS, 0, dgate, dup, dy, gate, up, n);
}
