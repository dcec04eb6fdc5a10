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

/* Eight elements where some of the arrays are float: two runs of four that are APART elements from each other,
 * so that a warp's access to a float array is one run of 512 bytes, not 32 pieces with gaps. i:
 * apart_index, a multiple of four. */
enum { APART = 4 * WARP };
__device__ inline size_t apart_index(size_t block) {
    return (block * PACK_THREADS + threadIdx.x / WARP * WARP) * PACK + threadIdx.x % WARP * 4;
}
__device__ inline size_t apart_at(size_t i, int k) { return i + k % 4 + k / 4 * APART; } // of element k
__device__ inline void quad_load(float *to, const float *p) {
    const float4 a = *(const float4 *)p;
    to[0] = a.x, to[1] = a.y, to[2] = a.z, to[3] = a.w;
}
__device__ inline void quad_load(float *to, const Bf16 *p) {
    const uint2 a = *(const uint2 *)p;
    to[0] = __uint_as_float(a.x << 16), to[1] = __uint_as_float(a.x & 0xffff0000u);
    to[2] = __uint_as_float(a.y << 16), to[3] = __uint_as_float(a.y & 0xffff0000u);
}
__device__ inline void quad_store(float *p, const float *v) { *(float4 *)p = make_float4(v[0], v[1], v[2], v[3]); }
__device__ inline void quad_store(Bf16 *p, const float *v) {
    *(uint2 *)p = make_uint2(bf16_pair(v[0], v[1]), bf16_pair(v[2], v[3]));
}
template <class T> __device__ inline Pack apart_load(const T *p, size_t i, size_t n) {
    Pack a;
    if (i + APART + 4 <= n && aligned16(p)) {
        quad_load(a.v, p + i), quad_load(a.v + 4, p + i + APART);
        return a;
    }
    for (int k = 0; k < PACK; k++) a.v[k] = apart_at(i, k) < n ? (float)p[apart_at(i, k)] : 0.0f;
    return a;
}
template <class T> __device__ inline void apart_store(T *p, size_t i, size_t n, const Pack &a) {
    if (i + APART + 4 <= n && aligned16(p)) {
        quad_store(p + i, a.v), quad_store(p + i + APART, a.v + 4);
        return;
    }
    for (int k = 0; k < PACK; k++)
        if (apart_at(i, k) < n) p[apart_at(i, k)] = T(a.v[k]);
}

/* Which tensor of a launch's table a block belongs to: the last with blocks whose first is not above it (at most 256
 * tensors). */
template <class Table> __device__ inline int table_find(const Table &table, unsigned block) {
    int t = 0;
    for (int step = 128; step > 0; step /= 2)
        if (t + step < table.tensors && table.first[t + step] <= block) t += step;
    return t;
}

/* The gradient += : y[i..] += a. */
template <class T> __device__ void pack_add(T *p, size_t i, size_t n, const Pack &a) {
    Pack old = pack_load(p, i, n);
    for (int k = 0; k < PACK; k++) old.v[k] += a.v[k];
    pack_store(p, i, n, old);
}
#endif
