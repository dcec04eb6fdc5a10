/* mma.h - thin wrappers around the warp matrix instructions and asynchronous copies, each with a software version for
 * the emulator that follows the fragment layouts of the PTX ISA (sections "Matrix Fragments for mma.m16n8k16 /
 * mma.m16n8k8" and "ldmatrix").
 *
 * With g = lane / 4 and t = lane % 4, a lane holds
 *   m16n8k16 bf16   A (16 x 16, four registers of two): (g, 2t..2t+1)  (g+8, 2t..)  (g, 2t+8..)  (g+8, 2t+8..)
 *                   B (16 x 8, two registers of two):   (2t..2t+1, g)  (2t+8.., g)
 *   m16n8k8 tf32    A (16 x 8, four registers): (g, t)  (g+8, t)  (g, t+4)  (g+8, t+4);   B (8 x 8): (t, g)  (t+4, g)
 *   both            C and D (16 x 8 float):     (g, 2t)  (g, 2t+1)  (g+8, 2t)  (g+8, 2t+1)
 * All lanes of the warp must execute them together. */
#ifndef HYB_CUDA_MMA_H
#define HYB_CUDA_MMA_H
#include "launch.h"

#ifdef CUDA_EMU
namespace emu {
struct MmaOperands {
    unsigned a[4], b[2];
};
static inline float half_of(unsigned pair, int i) {
    const unsigned u = (i ? pair >> 16 : pair & 0xffffu) << 16;
    float x;
    memcpy(&x, &u, 4);
    return x;
}
static inline float tf32_of(unsigned u) { // the unit reads the upper 19 bits
    u &= 0xffffe000u;
    float x;
    memcpy(&x, &u, 4);
    return x;
}
/* Element (row, col) of A or B, fetched from the lane and register that the layout says. */
static inline float a_bf16(int row, int k) {
    const MmaOperands *o = (const MmaOperands *)lane_data(4 * (row % 8) + k % 8 / 2);
    return half_of(o->a[(row >= 8) + 2 * (k >= 8)], k & 1);
}
static inline float b_bf16(int k, int col) {
    return half_of(((const MmaOperands *)lane_data(4 * col + k % 8 / 2))->b[k >= 8], k & 1);
}
static inline float a_tf32(int row, int k) {
    return tf32_of(((const MmaOperands *)lane_data(4 * (row % 8) + k % 4))->a[(row >= 8) + 2 * (k >= 4)]);
}
static inline float b_tf32(int k, int col) {
    return tf32_of(((const MmaOperands *)lane_data(4 * col + k % 4))->b[k >= 4]);
}
} // namespace emu
#endif

/* d += a b, 16 x 8 x 16, bf16 operands, float sums. */
__device__ inline void mma_bf16(float (&d)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
#ifdef CUDA_EMU
    const emu::MmaOperands o = {{a[0], a[1], a[2], a[3]}, {b0, b1}};
    emu::warp_exchange(emu::MMA_BF16, FULL, &o, sizeof o);
    const int g = emu::lane_index() / 4, t = emu::lane_index() % 4;
    for (int i = 0; i < 4; i++)
        for (int k = 0; k < 16; k++) d[i] += emu::a_bf16(g + 8 * (i / 2), k) * emu::b_bf16(k, 2 * t + i % 2);
#else
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
                 "{%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#endif
}
/* d += a b, 16 x 8 x 8, tf32 operands (see to_tf32), float sums. */
__device__ inline void mma_tf32(float (&d)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
#ifdef CUDA_EMU
    const emu::MmaOperands o = {{a[0], a[1], a[2], a[3]}, {b0, b1}};
    emu::warp_exchange(emu::MMA_TF32, FULL, &o, sizeof o);
    const int g = emu::lane_index() / 4, t = emu::lane_index() % 4;
    for (int i = 0; i < 4; i++)
        for (int k = 0; k < 8; k++) d[i] += emu::a_tf32(g + 8 * (i / 2), k) * emu::b_tf32(k, 2 * t + i % 2);
#else
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
                 "{%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#endif
}
/* Rounds a float to tf32 (10 mantissa bits, ties away from zero). */
__device__ inline unsigned to_tf32(float x) {
#ifdef CUDA_EMU
    unsigned u;
    memcpy(&u, &x, 4);
    return (u & 0x7f800000u) == 0x7f800000u ? u : (u + 0x1000u) & 0xffffe000u;
#else
    unsigned u;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(u) : "f"(x));
    return u;
#endif
}

/* Loads n = 1, 2 or 4 matrices of 8 x 8 bf16 from shared memory. Lane 8 m + r gives the address of row r of matrix m
 * (16 bytes, aligned to 16); afterwards register m of a lane holds elements (g, 2t) and (g, 2t+1) of matrix m,
 * or with `transposed` elements (2t, g) and (2t+1, g). */
template <int n, bool transposed> __device__ void ldmatrix(unsigned (&r)[n], SHARED_PTR(Bf16) row) {
#ifdef CUDA_EMU
    Bf16 line[8];
    if (emu::lane_index() < 8 * n) {
        const uint4 v = shared_load16(row);
        memcpy((void *)line, &v, 16);
    }
    emu::warp_exchange(emu::LDMATRIX, FULL, line, sizeof line);
    const int g = emu::lane_index() / 4, t = emu::lane_index() % 4;
    for (int m = 0; m < n; m++) {
        unsigned pair = 0;
        for (int i = 0; i < 2; i++) {
            const Bf16 *from = (const Bf16 *)emu::lane_data(8 * m + (transposed ? 2 * t + i : g));
            pair |= (unsigned)from[transposed ? g : 2 * t + i].bits << 16 * i;
        }
        r[m] = pair;
    }
#else
    const unsigned at = (unsigned)__cvta_generic_to_shared(row);
    if constexpr (n == 4 && !transposed)
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                     : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                     : "r"(at)
                     : "memory");
    else if constexpr (n == 4)
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                     : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                     : "r"(at)
                     : "memory");
    else if constexpr (n == 2 && !transposed)
        asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0,%1}, [%2];"
                     : "=r"(r[0]), "=r"(r[1])
                     : "r"(at)
                     : "memory");
    else if constexpr (n == 2)
        asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0,%1}, [%2];"
                     : "=r"(r[0]), "=r"(r[1])
                     : "r"(at)
                     : "memory");
    else if constexpr (!transposed)
        asm volatile("ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%0}, [%1];" : "=r"(r[0]) : "r"(at) : "memory");
    else asm volatile("ldmatrix.sync.aligned.m8n8.x1.trans.shared.b16 {%0}, [%1];" : "=r"(r[0]) : "r"(at) : "memory");
#endif
}

/* 16 bytes from global to shared memory, in the background; where !valid, zeros are written and src is not read.
 * Both aligned to 16. */
template <class T> __device__ void cp_async16(SHARED_PTR(T) dst, const T *src, bool valid) {
#ifdef CUDA_EMU
    T *q = dst.at(0, 16 / sizeof(T));
    emu::async_copy((unsigned)((char *)q - emu::shared_base()), src, 16, valid ? 16 : 0);
#else
    const unsigned at = (unsigned)__cvta_generic_to_shared(dst);
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(at), "l"(src), "r"(valid ? 16 : 0) : "memory");
#endif
}
__device__ inline void cp_async_commit() {
#ifdef CUDA_EMU
    emu::async_commit();
#else
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}
/* Waits until at most `left` of this thread's groups are under way. What other threads copied is there only after a
 * barrier. */
template <int left> __device__ void cp_async_wait() {
#ifdef CUDA_EMU
    emu::async_wait(left);
#else
    asm volatile("cp.async.wait_group %0;" ::"n"(left) : "memory");
#endif
}
#endif
