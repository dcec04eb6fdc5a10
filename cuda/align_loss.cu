/* align_loss.cu - the stage-1 distance between teacher and student, a warp a row. */
__global__ void align_loss_kernel(wide *loss, real *ds, const real *t, const real *s, float weight, int form, int N,
                                  int C) {
    const size_t n = warp_row();
    if (n >= (size_t)N) return;
    const real *t_n = t + n * C, *s_n = s + n * C;
    float sum = 0;
    for (int c = lane_pack(); c < C; c += WARP * PACK) {
        const Pack a = pack_load(t_n, c, C), b = pack_load(s_n, c, C);
        for (int k = 0; k < PACK; k++) sum += (b.v[k] - a.v[k]) * (b.v[k] - a.v[k]);
    }
    sum = warp_sum(sum);
    const float norm = sqrtf(sum), root = sqrtf((float)C);
    if (threadIdx.x % WARP == 0) loss[n] = form == ALIGN_NORM ? norm / root : sum;
    const float slope = form == ALIGN_SQUARED ? 2.0f * weight : norm > 0 ? weight / (norm * root) : 0.0f;
    if (!ds) return;
    for (int c = lane_pack(); c < C; c += WARP * PACK) {
        Pack a = pack_load(t_n, c, C);
        const Pack b = pack_load(s_n, c, C);
        for (int k = 0; k < PACK; k++) a.v[k] = slope * (b.v[k] - a.v[k]);
        pack_add(ds + n * C, c, C, a);
    }
}
static void align_loss(wide *loss, real *ds, const real *t, const real *s, double weight, int form, int N, int C) {
    LAUNCH(align_loss_kernel, ceil_div(N, ROW_WARPS), ROW_WARPS * WARP, 0, loss, ds, t, s, (float)weight, form, N, C);
}
