/* rope.cu - rotary position embedding, pairs (c, c + D/2): one thread a pair. sign = -1 turns the other way (backward).
 * */
__global__ void rope_kernel(real *y, const real *x, const wide *table, int pos, int T, int H, int D, float sign,
                            int adds, size_t pairs) {
    const size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= pairs) return;
    const int half = D / 2, c = (int)(i % half);
    const size_t head = i / half, t = head / H % T; // head counts (b, t, h)
    const wide *cs = table + ((pos + t) * half + c) * 2;
    const float co = cs[0], si = sign * cs[1], lo = x[head * D + c], hi = x[head * D + c + half];
    real *to = y + head * D + c;
    const float a = lo * co - hi * si, b = hi * co + lo * si;
    to[0] = adds ? (float)to[0] + a : a;
    to[half] = adds ? (float)to[half] + b : b;
}
static void rope_forward(real *y, const real *x, const wide *table, int pos, int B, int T, int H, int D) {
    const size_t pairs = (size_t)B * T * H * (D / 2);
    LAUNCH(rope_kernel, ceil_div(pairs, 256), 256, 0, y, x, table, pos, T, H, D, 1.0f, 0, pairs);
}
static void rope_backward(real *dx, const real *dy, const wide *table, int pos, int B, int T, int H, int D) {
    const size_t pairs = (size_t)B * T * H * (D / 2);
    LAUNCH(rope_kernel, ceil_div(pairs, 256), 256, 0, dx, dy, table, pos, T, H, D, -1.0f, 1, pairs);
}
