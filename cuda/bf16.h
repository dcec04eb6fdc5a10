/* bf16.h - the storage type of the BF16 table: 8 exponent and 7 mantissa bits of a float, rounded to nearest even.
 * Arithmetic is always done in float: reading converts exactly, writing rounds once. The type has no arithmetic of its
 * own, so x * y of two bf16 values is a float product. */
#ifndef HYB_CUDA_BF16_H
#define HYB_CUDA_BF16_H
#ifdef CUDA_EMU
#define BF16_FUNC inline
#else
#include <cuda_bf16.h>
#define BF16_FUNC __host__ __device__ __forceinline__
#endif

struct Bf16 {
    unsigned short bits;
    Bf16() = default;
    BF16_FUNC Bf16(float x) {
#ifdef __CUDA_ARCH__
        bits = __bfloat16_as_ushort(__float2bfloat16_rn(x));
#else
        unsigned u;
        memcpy(&u, &x, 4);
        bits =
            (unsigned short)((u & 0x7fffffffu) > 0x7f800000u ? u >> 16 | 0x40u : (u + 0x7fffu + (u >> 16 & 1u)) >> 16);
#endif
    }
    BF16_FUNC operator float() const {
#ifdef __CUDA_ARCH__
        return __uint_as_float((unsigned)bits << 16);
#else
        const unsigned u = (unsigned)bits << 16;
        float x;
        memcpy(&x, &u, 4);
        return x;
#endif
    }
};
#ifdef CUDA_EMU
namespace emu {
template <> struct Value<Bf16> { typedef float type; };
} // namespace emu
#endif

/* Two neighbours in one register, the lower index in the lower half: how the matrix instructions want them. */
__device__ inline unsigned bf16_pair(float lo, float hi) {
#ifdef CUDA_EMU
    return Bf16(lo).bits | (unsigned)Bf16(hi).bits << 16;
#else
    const __nv_bfloat162 p = __floats2bfloat162_rn(lo, hi);
    return *(const unsigned *)&p;
#endif
}
/* dst += two neighbours. */
__device__ inline void pair_add(Bf16 *dst, float x, float y) {
    const unsigned old = *(const unsigned *)dst;
    *(unsigned *)dst = bf16_pair(__uint_as_float(old << 16) + x, __uint_as_float(old & 0xffff0000u) + y);
}
#endif
