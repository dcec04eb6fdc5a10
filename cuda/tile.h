/* tile.h - tiles of bf16 in shared memory and the operands that a warp loads from them (layouts: mma.h).
 *
 * A tile of R rows and D columns has its rows LD = D + 8 elements apart: 16 bytes more than a multiple of 128,
 * so the eight rows that one ldmatrix phase reads lie in eight different groups of banks. */
#ifndef HYB_CUDA_TILE_H
#define HYB_CUDA_TILE_H
#include "mma.h"

template <int D> struct Tile {
    enum { LD = D + 8 }; // R rows take R * LD elements
};

/* Starts copying rows [0, valid) of a matrix (rows `stride` elements apart) into a tile of `rows` rows;
 * the others become zero. A thread keeps its column and walks down, so that an access costs an addition, not a product.
 * */
template <int D>
__device__ __forceinline__ void tile_fetch(SHARED_PTR(Bf16) tile, const Bf16 *from, size_t stride, const int rows,
                                           int valid, const int threads) {
    const int each = threads / (D / 8), r0 = threadIdx.x / (D / 8), c = threadIdx.x % (D / 8) * 8;
    const Bf16 *p = from + r0 * stride + c;
    SHARED_PTR(Bf16) to = tile + r0 * Tile<D>::LD + c;
#pragma unroll
    for (int r = 0; r < rows; r += each, p += each * stride) cp_async16(to + r * Tile<D>::LD, p, r0 + r < valid);
}

/* A operand: rows m0..m0+15, columns k0..k0+15 of a tile. */
template <int D> __device__ void load_a(unsigned (&a)[4], SHARED_PTR(Bf16) tile, int m0, int k0) {
    const int lane = threadIdx.x % WARP;
    ldmatrix<4, false>(a, tile + (m0 + lane % 16) * Tile<D>::LD + k0 + lane / 16 * 8);
}
/* A operand from a tile that holds its transpose: A(m, k) = tile(k, m). */
template <int D> __device__ void load_a_transposed(unsigned (&a)[4], SHARED_PTR(Bf16) tile, int m0, int k0) {
    const int lane = threadIdx.x % WARP;
    ldmatrix<4, true>(a, tile + (k0 + lane % 8 + lane / 16 * 8) * Tile<D>::LD + m0 + lane / 8 % 2 * 8);
}
/* B operands of two neighbouring 16 x 8 blocks, columns n0..n0+15, from a tile that holds B transposed:
 * B(k, n) = tile(n, k). b[0], b[1] belong to the first block, b[2], b[3] to the second. */
template <int D> __device__ void load_b(unsigned (&b)[4], SHARED_PTR(Bf16) tile, int n0, int k0) {
    const int lane = threadIdx.x % WARP;
    ldmatrix<4, false>(b, tile + (n0 + lane % 8 + lane / 16 * 8) * Tile<D>::LD + k0 + lane / 8 % 2 * 8);
}
/* The same from a tile that holds B as it is: B(k, n) = tile(k, n). */
template <int D> __device__ void load_b_straight(unsigned (&b)[4], SHARED_PTR(Bf16) tile, int k0, int n0) {
    const int lane = threadIdx.x % WARP;
    ldmatrix<4, true>(b, tile + (k0 + lane % 16) * Tile<D>::LD + n0 + lane / 16 * 8);
}
/* c (16 rows from r0, 8 NB columns from n0) += a b over k: both tiles with D columns of their own, transposed or not as
 * the flags say (load_a, load_a_transposed; load_b_straight, load_b). `steps` of 16 are unrolled together:
 * 8 are all of them, fewer where registers are short. */
template <int DA, int DB, bool a_transposed, bool b_straight, int steps, int NB>
__device__ __forceinline__ void tile_mma(float (&c)[NB][4], SHARED_PTR(Bf16) a, SHARED_PTR(Bf16) b, int r0, int n0,
                                         int k) {
#pragma unroll steps
    for (int i = 0; i < k; i += 16) {
        unsigned ra[4];
        if constexpr (a_transposed) load_a_transposed<DA>(ra, a, r0, i);
        else load_a<DA>(ra, a, r0, i);
#pragma unroll
        for (int n = 0; n < NB / 2; n++) {
            unsigned rb[4];
            if constexpr (b_straight) load_b_straight<DB>(rb, b, i, n0 + n * 16);
            else load_b<DB>(rb, b, n0 + n * 16, i);
            mma_bf16(c[2 * n], ra, rb[0], rb[1]);
            mma_bf16(c[2 * n + 1], ra, rb[2], rb[3]);
        }
    }
}
/* c0 += a0 b and c1 += a1 b, each a 16 x k block from row r0 of its own tile and b straight: one pass over b for both.
 * */
template <int DA, int DB, int NB>
__device__ __forceinline__ void tile_mma_both(float (&c0)[NB][4], float (&c1)[NB][4], SHARED_PTR(Bf16) a0,
                                              SHARED_PTR(Bf16) a1, SHARED_PTR(Bf16) b, int r0, int n0, int k) {
#pragma unroll
    for (int i = 0; i < k; i += 16) {
        unsigned ra0[4], ra1[4];
        load_a<DA>(ra0, a0, r0, i);
        load_a<DA>(ra1, a1, r0, i);
#pragma unroll
        for (int n = 0; n < NB / 2; n++) {
            unsigned rb[4];
            load_b_straight<DB>(rb, b, i, n0 + n * 16);
            mma_bf16(c0[2 * n], ra0, rb[0], rb[1]);
            mma_bf16(c0[2 * n + 1], ra0, rb[2], rb[3]);
            mma_bf16(c1[2 * n], ra1, rb[0], rb[1]);
            mma_bf16(c1[2 * n + 1], ra1, rb[2], rb[3]);
        }
    }
}
/* Two neighbouring 16 x 8 accumulators as the A operand of a following product. */
__device__ inline void pack_a(unsigned (&a)[4], const float (&left)[4], const float (&right)[4]) {
    a[0] = bf16_pair(left[0], left[1]), a[1] = bf16_pair(left[2], left[3]);
    a[2] = bf16_pair(right[0], right[1]), a[3] = bf16_pair(right[2], right[3]);
}
/* Writes an accumulator into a tile, rounded: rows m0 + g and m0 + g + 8, columns n0 + 2t, n0 + 2t + 1. */
template <int D> __device__ void store_c(SHARED_PTR(Bf16) tile, const float (&c)[4], int m0, int n0) {
    const int lane = threadIdx.x % WARP, g = lane / 4, t = lane % 4;
    for (int i = 0; i < 4; i += 2)
        shared_store4(tile + (m0 + g + i / 2 * 8) * Tile<D>::LD + n0 + 2 * t, bf16_pair(c[i], c[i + 1]));
}
/* What store_c wrote: the elements of this lane's accumulator. */
template <int D> __device__ void read_c(float (&c)[4], SHARED_PTR(Bf16) tile, int m0, int n0) {
    const int lane = threadIdx.x % WARP, g = lane / 4, t = lane % 4;
    for (int i = 0; i < 4; i += 2) {
        const unsigned pair = shared_load4(tile + (m0 + g + i / 2 * 8) * Tile<D>::LD + n0 + 2 * t);
        c[i] = __uint_as_float(pair << 16), c[i + 1] = __uint_as_float(pair & 0xffff0000u);
    }
}
/* Puts eight elements into a tile; returns their dot product with what was there. */
__device__ inline float tile_swap8(SHARED_PTR(Bf16) at, uint4 fresh) {
    const uint4 old = shared_load16(at);
    const unsigned d[4] = {fresh.x, fresh.y, fresh.z, fresh.w}, s[4] = {old.x, old.y, old.z, old.w};
    float sum = 0;
    for (int p = 0; p < 4; p++)
        sum += __uint_as_float(d[p] << 16) * __uint_as_float(s[p] << 16) +
               __uint_as_float(d[p] & 0xffff0000u) * __uint_as_float(s[p] & 0xffff0000u);
    shared_store16(at, fresh);
    return sum;
}
/* Copies all rows of a tile to a matrix whose rows are `stride` elements apart. */
template <int D> __device__ void tile_store(Bf16 *to, size_t stride, SHARED_PTR(Bf16) tile, int rows, int threads) {
    for (int e = threadIdx.x; e < rows * (D / 8); e += threads) {
        const int r = e / (D / 8), c = e % (D / 8) * 8;
        *(uint4 *)(to + r * stride + c) = shared_load16(tile + r * Tile<D>::LD + c);
    }
}

/* A matrix in the registers of eight warps, M x 64 rows and 2 NB x 8 columns: a warp has rows 16 (row + 4 m)..,
 * columns left... */
template <int M, int NB>
__device__ void state_load(float (&S)[M][NB][4], const float *from, size_t stride, int row, int left) {
    const int g = threadIdx.x % WARP / 4, t2 = threadIdx.x % 4 * 2;
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
        for (int n = 0; n < NB; n++)
#pragma unroll
            for (int e = 0; e < 4; e += 2) {
                const float2 s =
                    *(const float2 *)(from + (16 * (row + 4 * m) + g + e / 2 * 8) * stride + left + n * 8 + t2);
                S[m][n][e] = s.x, S[m][n][e + 1] = s.y;
            }
}
template <int M, int NB>
__device__ void state_store(float *to, const float (&S)[M][NB][4], size_t stride, int row, int left) {
    const int g = threadIdx.x % WARP / 4, t2 = threadIdx.x % 4 * 2;
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
        for (int n = 0; n < NB; n++)
#pragma unroll
            for (int e = 0; e < 4; e += 2)
                *(float2 *)(to + (16 * (row + 4 * m) + g + e / 2 * 8) * stride + left + n * 8 + t2) =
                    make_float2(S[m][n][e], S[m][n][e + 1]);
}
/* Into a tile, rounded. */
template <int D, int M, int NB>
__device__ void state_round(SHARED_PTR(Bf16) tile, const float (&S)[M][NB][4], int row, int left) {
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
        for (int n = 0; n < NB; n++) store_c<D>(tile, S[m][n], 16 * (row + 4 * m), left + n * 8);
}

/* Every row times its own factor. */
template <int M, int NB> __device__ void state_decay(float (&S)[M][NB][4], const float *by, int row) {
    const int g = threadIdx.x % WARP / 4;
#pragma unroll
    for (int m = 0; m < M; m++) {
        const int r0 = 16 * (row + 4 * m) + g;
        const float stays[2] = {by[r0], by[r0 + 8]};
#pragma unroll
        for (int n = 0; n < NB; n++)
#pragma unroll
            for (int e = 0; e < 4; e++) S[m][n][e] *= stays[e / 2];
    }
}
/* A warp's 16 rows of an accumulator, rounded, to a matrix of `rows` rows that are `stride` elements apart. */
template <int NB>
__device__ void rows_store(Bf16 *to, size_t stride, const float (&acc)[NB][4], int rows, int row, int left) {
    const int g = threadIdx.x % WARP / 4, t2 = threadIdx.x % 4 * 2;
#pragma unroll
    for (int n = 0; n < NB; n++)
#pragma unroll
        for (int e = 0; e < 4; e += 2) {
            const int i = row * 16 + g + e / 2 * 8;
            if (i < rows) *(unsigned *)(to + i * stride + left + n * 8 + t2) = bf16_pair(acc[n][e], acc[n][e + 1]);
        }
}

/* The same, added to what is there. */
template <int NB>
__device__ void rows_add(Bf16 *to, size_t stride, const float (&acc)[NB][4], int rows, int row, int left) {
    const int g = threadIdx.x % WARP / 4, t2 = threadIdx.x % 4 * 2;
#pragma unroll
    for (int n = 0; n < NB; n++)
#pragma unroll
        for (int e = 0; e < 4; e += 2) {
            const int i = row * 16 + g + e / 2 * 8;
            if (i < rows) pair_add(to + i * stride + left + n * 8 + t2, acc[n][e], acc[n][e + 1]);
        }
}

/* Sums over the four lanes that share a row of an accumulator. */
__device__ inline float quad_sum(float v) {
    v += __shfl_xor_sync(FULL, v, 1);
    return v + __shfl_xor_sync(FULL, v, 2);
}
/* x, but the compiler no longer knows what it is: addresses made from it are not computed early and kept in registers
 * that others need. */
__device__ inline int forgotten(int x) {
#ifndef CUDA_EMU
    asm volatile("" : "+r"(x));
#endif
    return x;
}
#endif
