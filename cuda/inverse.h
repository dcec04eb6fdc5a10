/* inverse.h - the inverse of a unit lower triangular 64 x 64 matrix by a block of four warps:
 * 16 x 16 diagonal blocks by forward substitution in float, then T21 = -T22 (M21 T11) from 16 to 32 to 64 on the matrix
 * unit in tf32. */
enum { INV_LD = 64 + 4 }; // of both matrices, floats in shared memory

/* c (16 x 8) += a (16 x k) b (k x 8), float tiles of leading dimension INV_LD in shared memory, as tf32. */
__device__ void tf32_product(float (&c)[4], SHARED_PTR(float) a, SHARED_PTR(float) b, int k) {
    const int lane = threadIdx.x % WARP, g = lane / 4, t = lane % 4;
    for (int k0 = 0; k0 < k; k0 += 8) {
        const unsigned ra[4] = {to_tf32(a[g * INV_LD + k0 + t]), to_tf32(a[(g + 8) * INV_LD + k0 + t]),
                                to_tf32(a[g * INV_LD + k0 + t + 4]), to_tf32(a[(g + 8) * INV_LD + k0 + t + 4])};
        mma_tf32(c, ra, to_tf32(b[(k0 + t) * INV_LD + g]), to_tf32(b[(k0 + t + 4) * INV_LD + g]));
    }
}
__device__ void tf32_store(SHARED_PTR(float) to, const float (&c)[4], float sign) {
    const int lane = threadIdx.x % WARP, g = lane / 4, t = lane % 4;
    for (int e = 0; e < 4; e++) to[(g + e / 2 * 8) * INV_LD + 2 * t + e % 2] = sign * c[e];
}
/* Merges two inverted diagonal blocks of `size` rows at row r0: T21 = -T22 (M21 T11), this warp the 8 columns from c0
 * on. */
template <int size> __device__ void inverse_merge(SHARED_PTR(float) T, SHARED_PTR(float) M, int r0, int c0) {
    SHARED_PTR(float) low = T + (r0 + size) * INV_LD + c0; // where T21 goes, and M21 T11 on the way
    float x[size / 16][4] = {};
    for (int m = 0; m < size / 16; m++)
        tf32_product(x[m], M + (r0 + size + 16 * m) * INV_LD + r0, T + r0 * INV_LD + c0, size);
    for (int m = 0; m < size / 16; m++) tf32_store(low + 16 * m * INV_LD, x[m], 1.0f);
    __syncwarp();
    float y[size / 16][4] = {};
    for (int m = 0; m < size / 16; m++) tf32_product(y[m], T + (r0 + size + 16 * m) * INV_LD + r0 + size, low, size);
    __syncwarp();
    for (int m = 0; m < size / 16; m++) tf32_store(low + 16 * m * INV_LD, y[m], -1.0f);
}
/* T = (I + M)^{-1} for a strictly lower 64 x 64 M; T's upper triangle must be zero. Four warps. */
__device__ void inverse_of(SHARED_PTR(float) T, SHARED_PTR(float) M) {
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    if (lane < 16) { // column `lane` of this warp's 16 x 16 diagonal block
        SHARED_PTR(float) m = M + warp * 16 * (INV_LD + 1);
        float x[16];
#pragma unroll
        for (int i = 0; i < 16; i++) {
            x[i] = i == lane ? 1.0f : 0.0f;
#pragma unroll
            for (int k = 0; k < i; k++) x[i] -= m[i * INV_LD + k] * x[k];
        }
        SHARED_PTR(float) to = T + warp * 16 * (INV_LD + 1) + lane;
#pragma unroll
        for (int i = 0; i < 16; i++) to[i * INV_LD] = x[i];
    }
    __syncthreads();
    inverse_merge<16>(T, M, warp / 2 * 32, warp / 2 * 32 + warp % 2 * 8);
    __syncthreads();
    inverse_merge<32>(T, M, 0, warp * 8);
    __syncthreads();
}
