/* wgmma.h - the warpgroup matrix instruction of sm_90a: d (64 x 8 NB floats) += a (64 x 16) b (16 x 8 NB), BF16, with a
 * software version for the emulator (PTX ISA, "wgmma.mma_async", "Matrix Descriptor Format").
 *
 * d and a in registers have mma.sync's layout (mma.h), warp w of the four with rows 16 w..; d[j] is 8 columns. b, and a
 * where it is not in registers, lie in panels as tma.h leaves them, and are named by descriptors:
 *   of_rows     the operand's rows (of a; columns of b) are the panel's rows, k runs along them;
 *   of_columns  k runs over the panel's rows; panels follow each other every `panel` bytes.
 * It is asynchronous: wgmma_fence(registers...), products, wgmma_commit(), and after wgmma_wait<left>(registers...),
 * which leaves the last `left` groups under way, the registers named there are the thread's again. Until then nothing
 * may touch them, nor write the panels. All four warps of the group must execute the same sequence. */
#ifndef HYB_CUDA_WGMMA_H
#define HYB_CUDA_WGMMA_H
#include "tma.h"
#ifdef HOPPER

__device__ inline uint64_t wgmma_descriptor(unsigned at, unsigned leading, unsigned strided) {
    return (uint64_t)(at >> 4 & 0x3fff) | (uint64_t)(leading >> 4) << 16 | (uint64_t)(strided >> 4) << 32 |
           (uint64_t)1 << 62;
}
/* Columns k0..k0+15 of the panel's 64 (k0 a multiple of 16), of its rows from `row` on (a multiple of 8). */
__device__ inline uint64_t of_rows(SHARED_PTR(Bf16) panel, int row, int k0) {
    return wgmma_descriptor(shared_address<Bf16>(panel) + row * 128 + k0 * 2, 16, 1024);
}
/* Rows k0..k0+15 of panels that are `bytes` apart, 64 columns each, from the first panel's first on. */
__device__ inline uint64_t of_columns(SHARED_PTR(Bf16) panel, int k0, unsigned bytes) {
    return wgmma_descriptor(shared_address<Bf16>(panel) + k0 * 128, bytes, 1024);
}

#ifdef CUDA_EMU
template <class... R> void wgmma_fence(R &...registers) { (emu::wgmma_fence(&registers, sizeof registers), ...); }
static inline void wgmma_commit() { emu::wgmma_commit(); }
template <int left, class... R> void wgmma_wait(R &...registers) {
    emu::wgmma_wait(left);
    (emu::wgmma_settled(&registers, sizeof registers), ...);
}
template <bool a_columns, bool b_columns, int NB>
void wgmma(float (&d)[NB][4], uint64_t a, uint64_t b, bool accumulate) {
    emu::wgmma({&d[0][0], nullptr, a, b, 8 * NB, accumulate, a_columns, b_columns});
}
template <bool b_columns, int NB> void wgmma(float (&d)[NB][4], unsigned (&a)[4], uint64_t b, bool accumulate) {
    emu::wgmma({&d[0][0], a, 0, b, 8 * NB, accumulate, false, b_columns});
}
#else
/* The compiler may not move a use of these registers over this point. */
template <int N> __device__ __forceinline__ void wgmma_pin(float (&d)[N][4]) {
#pragma unroll
    for (int i = 0; i < N; i++) asm volatile("" : "+f"(d[i][0]), "+f"(d[i][1]), "+f"(d[i][2]), "+f"(d[i][3])::"memory");
}
template <int N> __device__ __forceinline__ void wgmma_pin(unsigned (&a)[N][4]) {
#pragma unroll
    for (int i = 0; i < N; i++) asm volatile("" : "+r"(a[i][0]), "+r"(a[i][1]), "+r"(a[i][2]), "+r"(a[i][3])::"memory");
}
template <class... R> __device__ __forceinline__ void wgmma_fence(R &...registers) {
    (wgmma_pin(registers), ...);
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
__device__ __forceinline__ void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int left, class... R> __device__ __forceinline__ void wgmma_wait(R &...registers) {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(left) : "memory");
    (wgmma_pin(registers), ...);
}
#define REGISTERS_32                                                                                                   \
    "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,"   \
    "%30,%31"
#define REGISTERS_64                                                                                                   \
    REGISTERS_32 ",%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,%51,%52,%53,%54,%55,"   \
                 "%56,%57,%58,%59,%60,%61,%62,%63"
#define BLOCK_(i)  "+f"(d[i][0]), "+f"(d[i][1]), "+f"(d[i][2]), "+f"(d[i][3])
#define BLOCKS_(i) BLOCK_(i), BLOCK_(i + 1), BLOCK_(i + 2), BLOCK_(i + 3)
#define D_32       BLOCKS_(0), BLOCKS_(4)
#define D_64       D_32, BLOCKS_(8), BLOCKS_(12)
/* One instruction: n columns, its d, what A is ("l" a descriptor with its own transposition, or four registers), and
 * the numbers of the operands behind d. */
#define WGMMA_SHARED(n, list, d_, b_, add_, ta_, tb_, a_)                                                              \
    asm volatile("{\n.reg .pred add;\nsetp.ne.b32 add, %" add_ ", 0;\n"                                                \
                 "wgmma.mma_async.sync.aligned.m64n" n "k16.f32.bf16.bf16 {" list "}, %" a_ ", %" b_                   \
                 ", add, 1, 1, %" ta_ ", %" tb_ ";\n}"                                                                 \
                 : d_                                                                                                  \
                 : "l"(a), "l"(b), "r"((int)accumulate), "n"((int)a_columns), "n"((int)b_columns)                      \
                 : "memory")
#define WGMMA_REGISTERS(n, list, d_, a_, b_, add_, tb_)                                                                \
    asm volatile("{\n.reg .pred add;\nsetp.ne.b32 add, %" add_ ", 0;\n"                                                \
                 "wgmma.mma_async.sync.aligned.m64n" n "k16.f32.bf16.bf16 {" list "}, {" a_ "}, %" b_                  \
                 ", add, 1, 1, %" tb_ ";\n}"                                                                           \
                 : d_                                                                                                  \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"((int)accumulate), "n"((int)b_columns)       \
                 : "memory")
template <bool a_columns, bool b_columns, int NB>
__device__ __forceinline__ void wgmma(float (&d)[NB][4], uint64_t a, uint64_t b, bool accumulate) {
    static_assert(NB == 8 || NB == 16, "64 or 128 columns");
    if constexpr (NB == 8) WGMMA_SHARED("64", REGISTERS_32, D_32, "33", "34", "35", "36", "32");
    else WGMMA_SHARED("128", REGISTERS_64, D_64, "65", "66", "67", "68", "64");
}
template <bool b_columns, int NB>
__device__ __forceinline__ void wgmma(float (&d)[NB][4], unsigned (&a)[4], uint64_t b, bool accumulate) {
    static_assert(NB == 8 || NB == 16, "64 or 128 columns");
    if constexpr (NB == 8) WGMMA_REGISTERS("64", REGISTERS_32, D_32, "%32,%33,%34,%35", "36", "37", "38");
    else WGMMA_REGISTERS("128", REGISTERS_64, D_64, "%64,%65,%66,%67", "68", "69", "70");
}
#endif
#endif
#endif
