/* rope.cu - rotary position embedding, pairs (c, c + D/2): a thread turns eight pairs of one head, a block the heads of
 * one token. sign = -1 turns the other way (backward). */
enum { ROPE_THREADS = 128 };
__global__ void rope_kernel(real *y, const real *x, const wide *table, int pos, int T, int H, int D, float sign,
                            int adds) {
    const int half = D / 2, packs = (half + PACK - 1) / PACK;
    const size_t token = blockIdx.x;
    const wide *angles = table + (size_t)(pos + (int)(blockIdx.x % T)) * half * 2; // cosine and sine of every pair
    for (int i = threadIdx.x; i < H * packs; i += ROPE_THREADS) {
        const size_t head = (token * H + i / packs) * D;
        const int c = i % packs * PACK;
        const Pack lo = pack_load(x + head, c, half), hi = pack_load(x + head + half, c, half),
                   first = pack_load(angles, 2 * c, 2 * half), second = pack_load(angles, 2 * c + PACK, 2 * half);
        Pack a, b;
        for (int k = 0; k < PACK; k++) {
            const Pack &at = k < PACK / 2 ? first : second;
            const float co = at.v[2 * k % PACK], si = sign * at.v[2 * k % PACK + 1];
            a.v[k] = lo.v[k] * co - hi.v[k] * si, b.v[k] = hi.v[k] * co + lo.v[k] * si;
        }
        if (adds) pack_add(y + head, c, half, a), pack_add(y + head + half, c, half, b);
        else pack_store(y + head, c, half, a), pack_store(y + head + half, c, half, b);
    }
}
static void rope(real *y, const real *x, const wide *table, int pos, int B, int T, int H, int D, float sign, int adds) {
    LAUNCH(rope_kernel, (unsigned)B * T, ROPE_THREADS, 0, y, x, table, pos, T, H, D, sign, adds);
}
static void rope_forward(real *y, const real *x, const wide *table, int pos, int B, int T, int H, int D) {
    rope(y, x, table, pos, B, T, H, D, 1.0f, 0);
}
static void rope_backward(real *dx, const real *dy, const wide *table, int pos, int B, int T, int H, int D) {
    rope(dx, dy, table, pos, B, T, H, D, -1.0f, 1);
}
