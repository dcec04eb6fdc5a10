/* launch.h - the dialect that the kernels of cuda/ are written in, and how the host side launches them.
 *
 * Two compilers read it: nvcc, and g++ with CUDA_EMU (tests/cuda_emu/cuda_emu.h), which runs every thread as a fiber
 * and watches barriers and shared memory. To stay inside what both understand:
 *   LAUNCH(kernel, grid, block, dynamic shared bytes, arguments...)   launches on the backend's stream and latches an
 *   error under the
 *                                                                  kernel's name; a template kernel is written in
 *                                                                  parentheses
 *   SHARED(type, name, n)            a static shared array;   DYNAMIC_SHARED(type, name):
 *   the dynamic one, cut up by shared_take
 *   SHARED_PTR(type)                 a pointer into either
 *   shared_load16, shared_store16    16 bytes at once; shared_load4, shared_store4: two bf16
 * Everything else is plain CUDA: threadIdx, __syncthreads, __shfl_*_sync, __ballot_sync, ...
 * A storage type `real` (float or Bf16, one compilation each) is read as float and rounded when written. */
#ifndef HYB_CUDA_LAUNCH_H
#define HYB_CUDA_LAUNCH_H
#ifdef CUDA_EMU
#include "cuda_emu.h"
#else
#include <cuda_runtime.h>
#include <math.h>
#include <stdint.h>
#include <string.h>
#endif
#include <stddef.h>

// ---- the host side of a launch (cuda_backend.cu); a program may hold the device's and the emulator's at once ----
#ifdef CUDA_EMU
#define CUDA_SIDE cuda_emulated
#else
#define CUDA_SIDE cuda_device
#endif
namespace CUDA_SIDE {
cudaStream_t cuda_stream();
/* Keeps the first error, with the name of the kernel or call that it came from. Both return 0 if there was none. */
int cuda_latch(const char *what);
int cuda_check(cudaError_t code, const char *what);
/* Raises the kernel's limit of dynamic shared memory where it is above 48 KB. */
size_t cuda_shared_room(); // dynamic shared memory that a block may have at most
bool cuda_hopper();        // sm_90: the kernels for sm_90a run
/* Which rung of an op's ladder the environment's HYB_CUDA_VERSION asks for (LADDER.md), from 1 (plain) on; 0: the
 * best. */
int cuda_version();
int cuda_shared_limit(const void *kernel, size_t bytes, const char *what);
/* A device buffer that lives as long as the backend, for partial sums; contents last until the next op. */
enum { CUDA_SCRATCH = 16 << 20 };
void *cuda_scratch();
} // namespace CUDA_SIDE
using namespace CUDA_SIDE;

#ifndef CUDA_EMU
#define LAUNCH(kernel, grid, block, shared, ...)                                                                       \
    do {                                                                                                               \
        if (cuda_shared_limit((const void *)(kernel), shared, #kernel)) break;                                         \
        kernel<<<grid, block, shared, cuda_stream()>>>(__VA_ARGS__);                                                   \
        cuda_latch(#kernel);                                                                                           \
    } while (0)
#define SHARED(type, name, n) __shared__ __align__(16) type name[n]
template <class T> using SharedPointer = T *;
#define SHARED_PTR(type) SharedPointer<type>
#define DYNAMIC_SHARED(type, name)                                                                                     \
    extern __shared__ __align__(128) unsigned char dynamic_shared_memory[];                                            \
    type *name = (type *)dynamic_shared_memory
#define DYNAMIC_SHARED_1024(type, name)                                                                                \
    extern __shared__ __align__(1024) unsigned char dynamic_shared_panels[];                                           \
    type *name = (type *)dynamic_shared_panels
template <class T, class C> __device__ __forceinline__ T *shared_take(C *&cursor, size_t n) {
    T *p = (T *)cursor;
    cursor = (C *)((unsigned char *)cursor + (n * sizeof(T) + 15) / 16 * 16);
    return p;
}
template <class T> __device__ __forceinline__ uint4 shared_load16(const T *p) { return *(const uint4 *)p; }
template <class T> __device__ __forceinline__ void shared_store16(T *p, uint4 v) { *(uint4 *)p = v; }
template <class T> __device__ __forceinline__ unsigned shared_load4(const T *p) { return *(const unsigned *)p; }
template <class T> __device__ __forceinline__ void shared_store4(T *p, unsigned v) { *(unsigned *)p = v; }
#endif

#include "bf16.h"

// ---- small things that most kernels need ----
enum { WARP = 32, GRID_Y = 65535 }; // a grid's y and z end there, its x at 2^31 - 1
const unsigned FULL = 0xffffffffu;
static inline __host__ __device__ unsigned ceil_div(size_t n, size_t d) { return (unsigned)((n + d - 1) / d); }
/* Which piece of which thing is this block's, where each of many things is cut into `across` pieces, all along x. */
struct Piece {
    int of, at;
};
__device__ inline Piece block_piece(unsigned across) {
    return {(int)(blockIdx.x / across), (int)(blockIdx.x % across)};
}

__device__ inline float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }
/* One instruction, good to 2 units in the last place; results below 2^-126 are 0. */
__device__ inline float exp2_approx(float x) {
#ifdef __CUDA_ARCH__
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
#else
    return exp2f(x);
#endif
}
__device__ inline float warp_sum(float v) {
    for (int m = WARP / 2; m > 0; m >>= 1) v += __shfl_xor_sync(FULL, v, m);
    return v;
}
__device__ inline float warp_max(float v) {
    for (int m = WARP / 2; m > 0; m >>= 1) v = fmaxf(v, __shfl_xor_sync(FULL, v, m));
    return v;
}
/* Sum over the block, the same value for every thread and the same order every time. blockDim.x is a multiple of 32. */
__device__ inline float block_sum(float v) {
    SHARED(float, part, WARP);
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    v = warp_sum(v);
    if (lane == 0) part[warp] = v;
    __syncthreads();
    v = warp_sum(lane < (int)blockDim.x / WARP ? (float)part[lane] : 0.0f);
    __syncthreads(); // part[] may be used again by the next call
    return v;
}
__device__ inline float block_max(float v) {
    SHARED(float, part, WARP);
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    v = warp_max(v);
    if (lane == 0) part[warp] = v;
    __syncthreads();
    v = warp_max(lane < (int)blockDim.x / WARP ? (float)part[lane] : -INFINITY);
    __syncthreads();
    return v;
}
#endif
