/* tma.h - Hopper's copy engine and the barriers that it reports to (sm_90a; PTX ISA, "cp.async.bulk.tensor",
 * "mbarrier", "Asynchronous proxy"), as thin wrappers with a software version for the emulator.
 *
 * A tile arrives in panels: all its rows, 64 columns (128 bytes) of each, so that a panel's row r begins at 128 r.
 * Within a row the eight pieces of 16 bytes are permuted by r % 8 (the 128-byte swizzle): wgmma reads it back through
 * the same permutation, and no eight rows share a bank. A panel is aligned to 1024 bytes.
 *
 * An mbarrier completes a phase when `count` threads have arrived and all expected bytes are there. Phases alternate
 * in parity, the first is 0; waiting for the parity of a phase that is over returns at once. Ordinary stores to shared
 * memory need async_fence() before a barrier behind which wgmma or the copy engine may touch it. */
#ifndef HYB_CUDA_TMA_H
#define HYB_CUDA_TMA_H
#include "launch.h"
#ifdef CUDA_EMU
#include "hopper.h"
#else
#include <cuda.h>
#endif
#if defined(CUDA_EMU) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define HOPPER 1 // this pass has the instructions; in another the kernels that need them have no body
#endif

enum { PANEL = 64 }; // columns of BF16

namespace CUDA_SIDE {
/* Describes a matrix in device memory: dim[] elements, innermost first; stride[i] bytes from one index of dimension i
 * + 1 to the next, multiples of 16; copies of box[] elements, box[0] = PANEL. Outside are zeros. Returns 0, or 1 with
 * the backend's error latched. */
int tensor_describe(CUtensorMap *map, const Bf16 *base, unsigned rank, const uint64_t *dim, const uint64_t *stride,
                    const unsigned *box);
} // namespace CUDA_SIDE

/* The body of such a kernel elsewhere: choose.h never launches it there. */
__device__ inline void not_hopper() {
#ifdef __CUDA_ARCH__
    __trap();
#endif
}

#ifdef HOPPER
template <class T> __device__ unsigned shared_address(SHARED_PTR(T) p) {
#ifdef CUDA_EMU
    return (unsigned)((char *)p.p - emu::shared_base());
#else
    return (unsigned)__cvta_generic_to_shared(p);
#endif
}

typedef SHARED_PTR(uint64_t) Mbarriers;
__device__ inline void mbarrier_init(Mbarriers b, unsigned count) {
#ifdef CUDA_EMU
    emu::mbarrier_init(shared_address(b), count);
#else
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address<uint64_t>(b)), "r"(count) : "memory");
#endif
}
__device__ inline void mbarrier_arrive(Mbarriers b) {
#ifdef CUDA_EMU
    emu::mbarrier_arrive(shared_address(b), 0);
#else
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address<uint64_t>(b)) : "memory");
#endif
}
/* Arrives, and makes the phase wait for so many bytes of copies. */
__device__ inline void mbarrier_expect(Mbarriers b, unsigned bytes) {
#ifdef CUDA_EMU
    emu::mbarrier_arrive(shared_address(b), bytes);
#else
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address<uint64_t>(b)), "r"(bytes)
                 : "memory");
#endif
}
/* Returns when the phase of this parity is over. */
__device__ inline void mbarrier_wait(Mbarriers b, unsigned parity) {
#ifdef CUDA_EMU
    emu::mbarrier_wait(shared_address(b), parity);
#else
    asm volatile("{\n.reg .pred done;\n"
                 "again: mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
                 "@!done bra again;\n}" ::"r"(shared_address<uint64_t>(b)),
                 "r"(parity)
                 : "memory");
#endif
}
/* Starts the copy of a box from element (x, y, z, w) on into a panel; its bytes are counted by the barrier. One thread
 * calls it. */
__device__ inline void tensor_fetch(SHARED_PTR(Bf16) panel, const CUtensorMap &map, int x, int y, int z, int w,
                                    Mbarriers b) {
#ifdef CUDA_EMU
    const int at[4] = {x, y, z, w};
    emu::tensor_load(shared_address(panel), &map, at, shared_address(b));
#else
    asm volatile("cp.async.bulk.tensor.4d.shared::cluster.global.tile.mbarrier::complete_tx::bytes "
                 "[%0], [%1, {%2, %3, %4, %5}], [%6];" ::"r"(shared_address<Bf16>(panel)),
                 "l"(&map), "r"(x), "r"(y), "r"(z), "r"(w), "r"(shared_address<uint64_t>(b))
                 : "memory");
#endif
}
/* What this thread stored in shared memory, mbarriers included, becomes visible to wgmma and the copy engine; others
 * wait for it at a barrier behind this. */
__device__ inline void async_fence() {
#ifdef CUDA_EMU
    emu::proxy_fence();
#else
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
#endif
}
/* A barrier of `threads` of the block's threads; 1 <= id <= 15. */
__device__ inline void group_sync(int id, int threads) {
#ifdef CUDA_EMU
    emu::named_barrier(id, threads, true);
#else
    asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
#endif
}
/* Arrives there without waiting. */
__device__ inline void group_arrive(int id, int threads) {
#ifdef CUDA_EMU
    emu::named_barrier(id, threads, false);
#else
    asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
#endif
}
/* A warpgroup gives up registers, or takes what others gave up, until each of its threads has n. */
template <int n> __device__ void registers_shrink() {
    static_assert(n % 8 == 0 && n >= 24 && n <= 256, "setmaxnreg");
#ifdef CUDA_EMU
    emu::registers(n);
#else
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(n));
#endif
}
template <int n> __device__ void registers_grow() {
    static_assert(n % 8 == 0 && n >= 24 && n <= 256, "setmaxnreg");
#ifdef CUDA_EMU
    emu::registers(n);
#else
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(n));
#endif
}
#endif
#endif
