/* adamw.cu - one step of AdamW over a list of tensors in a single pass: 28 bytes a parameter read and written (30 with
 * a bf16 copy of the weight, 24 where the bf16 weight is all there is). A launch takes as many tensors as fit in 4 KB
 * of parameters; a block belongs to one. */
enum { ADAMW_TENSORS = 56 };
struct AdamwTable { // tensor t has the blocks from first[t] on
    wide *master[ADAMW_TENSORS], *m[ADAMW_TENSORS], *v[ADAMW_TENSORS];
    real *weight[ADAMW_TENSORS];
    const wide *grad[ADAMW_TENSORS];
    size_t n[ADAMW_TENSORS];
    uint64_t key[ADAMW_TENSORS]; // of the random bits
    float lr[ADAMW_TENSORS], keep[ADAMW_TENSORS];
    unsigned first[ADAMW_TENSORS];
    int tensors;
};
struct AdamwScalars {
    float grad_scale, beta1, fresh1, beta2, fresh2, eps, correct1, correct2;
}; // fresh = 1 - beta, in double
static_assert(sizeof(AdamwTable) + sizeof(AdamwScalars) <= 4096, "kernel parameters before CUDA 12.1");

__host__ __device__ inline uint64_t adamw_mix(uint64_t z) { // splitmix64
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}
const uint64_t PHI = 0x9e3779b97f4a7c15u;
/* x rounded to bf16, up or down as 16 random bits say. */
__device__ inline float adamw_round(float x, unsigned random) {
    const unsigned u = __float_as_uint(x);
    return (u & 0x7f800000u) == 0x7f800000u ? x : __uint_as_float((u + random) & 0xffff0000u);
}

__global__ void adamw_kernel(const __grid_constant__ AdamwTable table, AdamwScalars s) {
    const int t = table_find(table, blockIdx.x);
    const size_t n = table.n[t], i = apart_index((size_t)(blockIdx.x - table.first[t]));
    if (i >= n) return;
    wide *const master = table.master[t], *const m = table.m[t], *const v = table.v[t];
    const float lr = table.lr[t], keep = table.keep[t];
    real *const weight = table.weight[t];
    Pack p = master ? apart_load(master, i, n) : apart_load(weight, i, n), mi = apart_load(m, i, n),
         vi = apart_load(v, i, n);
    const Pack g = apart_load(table.grad[t], i, n);
    for (int k = 0; k < PACK; k++) {
        const float d = g.v[k] * s.grad_scale;
        mi.v[k] = s.beta1 * mi.v[k] + s.fresh1 * d;
        vi.v[k] = s.beta2 * vi.v[k] + s.fresh2 * d * d;
        p.v[k] = p.v[k] * keep - lr * (mi.v[k] * s.correct1) / (sqrtf(vi.v[k] * s.correct2) + s.eps);
    }
    apart_store(m, i, n, mi);
    apart_store(v, i, n, vi);
    if (master) apart_store(master, i, n, p);
    else
        for (int k = 0; k < PACK; k++) // i is a multiple of 4, and one number has the bits of four elements
            p.v[k] = adamw_round(p.v[k], adamw_mix(table.key[t] + apart_at(i, k) / 4 * PHI) >> 16 * (k % 4) & 0xffff);
    if (weight) apart_store(weight, i, n, p);
}
static void adamw(const Trained *list, double grad_scale, double beta1, double beta2, double eps, int64_t step,
                  uint64_t seed, int tensors) {
    const AdamwScalars s = {(float)grad_scale,
                            (float)beta1,
                            (float)(1 - beta1),
                            (float)beta2,
                            (float)(1 - beta2),
                            (float)eps,
                            (float)(1 / (1 - pow(beta1, (double)step))),
                            (float)(1 / (1 - pow(beta2, (double)step)))};
    const uint64_t key = adamw_mix(adamw_mix(seed + PHI) ^ (uint64_t)step);
    for (int i = 0; i < tensors;) {
        AdamwTable table = {};
        unsigned blocks = 0;
        int &t = table.tensors;
        for (; i < tensors && t < ADAMW_TENSORS; i++) {
            const Trained &a = list[i];
            if (!a.n) continue;
            table.master[t] = a.master, table.weight[t] = a.weight, table.m[t] = a.m, table.v[t] = a.v,
            table.grad[t] = a.grad;
            table.n[t] = a.n, table.lr[t] = (float)a.lr, table.keep[t] = (float)(1 - a.lr * a.decay);
            table.key[t] = adamw_mix(key + (uint64_t)i);
            table.first[t++] = blocks;
            blocks += pack_blocks(a.n);
        }
        if (blocks) LAUNCH(adamw_kernel, blocks, PACK_THREADS, 0, table, s);
    }
}
