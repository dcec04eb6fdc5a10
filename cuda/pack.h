/* pack.h - eight neighbours at once, read as float whatever they are stored in: one 16-byte access for BF16,
 * two for float. Falls back to single elements at the end of an array and for pointers that are not aligned (uniform
 * over the grid). */
#ifndef HYB_CUDA_PACK_H
#define HYB_CUDA_PACK_H
#include "launch.h"

enum { PACK = 8, PACK_THREADS = 256 };
struct Pack {
    float v[PACK];
};

__device__ inline bool aligned16(const void *p) { return ((size_t)p & 15) == 0; }
__device__ inline Pack pack_load(const float *p, size_t i, size_t n) {
    Pack a;
    if (i + PACK <= n && aligned16(p)) {
        const float4 lo = *(const float4 *)(p + i), hi = *(const float4 *)(p + i + 4);
        a = {{lo.x, lo.y, lo.z, lo.w, hi.x, hi.y, hi.z, hi.w}};
        return a;
    }
    for (int k = 0; k < PACK; k++) a.v[k] = i + k < n ? p[i + k] : 0.0f;
    return a;
}
__device__ inline Pack pack_load(const Bf16 *p, size_t i, size_t n) {
    Pack a;
    if (i + PACK <= n && aligned16(p)) {
        const uint4 u = *(const uint4 *)(p + i);
        const unsigned w[4] = {u.x, u.y, u.z, u.w};
        for (int k = 0; k < PACK; k++) a.v[k] = __uint_as_float(k % 2 ? w[k / 2] & 0xffff0000u : w[k / 2] << 16);
        return a;
    }
    for (int k = 0; k < PACK; k++) a.v[k] = i + k < n ? (float)p[i + k] : 0.0f;
    return a;
}
__device__ inline void pack_store(float *p, size_t i, size_t n, const Pack &a) {
    if (i + PACK <= n && aligned16(p)) {
        *(float4 *)(p + i) = make_float4(a.v[0], a.v[1], a.v[2], a.v[3]);
        *(float4 *)(p + i + 4) = make_float4(a.v[4], a.v[5], a.v[6], a.v[7]);
        return;
    }
    for (int k = 0; k < PACK; k++)
        if (i + k < n) p[i + k] = a.v[k];
}
__device__ inline void pack_store(Bf16 *p, size_t i, size_t n, const Pack &a) {
    if (i + PACK <= n && aligned16(p)) {
        *(uint4 *)(p + i) = make_uint4(bf16_pair(a.v[0], a.v[1]), bf16_pair(a.v[2], a.v[3]), bf16_pair(a.v[4], a.v[5]),
                                       bf16_pair(a.v[6], a.v[7]));
        return;
    }
    for (int k = 0; k < PACK; k++)
        if (i + k < n) p[i + k] = Bf16(a.v[k]);
}
/* Where this thread's pack begins in an array of n elements, one pack a thread; the caller returns if it is not below
 * n. */
__device__ inline size_t pack_index() { return ((size_t)blockIdx.x * blockDim.x + threadIdx.x) * PACK; }
static inline unsigned pack_blocks(size_t n) { return ceil_div(n, (size_t)PACK * PACK_THREADS); }

/* Which tensor of a launch's table this block belongs to: the last with blocks whose first is not above it (at most 256
 * tensors). */
template <class Table> __device__ inline int table_find(const Table &table) {
    int t = 0;
    for (int step = 128; step > 0; step /= 2)
        if (t + step < table.tensors && table.first[t + step] <= blockIdx.x) t += step;
    return t;
}

/* The gradient += : y[i..] += a. */
template <class T> __device__ void pack_add(T *p, size_t i, size_t n, const Pack &a) {
    Pack old = pack_load(p, i, n);
    for (int k = 0; k < PACK; k++) old.v[k] += a.v[k];
    pack_store(p, i, n, old);
}
#endif
