/* simd.h - one vector of floats, in three widths: `vf` with VW lanes, chosen by SIMD = 512 (AVX-512), 256 (AVX2+FMA) or
 * 128 (whatever the compiler's 16-byte vectors become: SSE2, NEON, plain C). + - * / are the compiler's vector
 * operators; the rest is named here. The op files are written once on these names and compiled once per width
 * (cpu_avx512.c, cpu_avx2.c, cpu_plain.c).
 *
 * A NaN in any input of vmax/vmin comes out if it is in the SECOND argument (that is how x86 compares), so clamps write
 * it there. */
#ifndef HYB_CPU_SIMD_H
#define HYB_CPU_SIMD_H
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#if SIMD > 128
#include <immintrin.h>
#endif
#include "ops/bf16.h"

/* What this file's ops store activations and weights in; everything is computed in float. BITS: 32 or 16. */
#if BITS == 16
typedef Bf16 real;
typedef Trained16 Item; // of a list of the optimiser
#else
typedef float real;
typedef Trained32 Item;
#endif

#define INLINE static inline __attribute__((always_inline))
#define SHARED static __attribute__((unused)) // of several ops, of which a path may have none

typedef float V4 __attribute__((vector_size(16), aligned(4), may_alias));

#if SIMD == 512
enum { VW = 16, MR = 12 }; // MR x 2 vectors of accumulators in the matrix kernels
typedef float vf __attribute__((vector_size(64)));
typedef __m512i vi;
INLINE vf vset(float x) { return _mm512_set1_ps(x); }
INLINE vf vload(const float *p) { return _mm512_loadu_ps(p); }
INLINE void vstore(float *p, vf x) { _mm512_storeu_ps(p, x); }
// n < VW; others 0
INLINE vf vload_n(const float *p, size_t n) { return _mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p); }
INLINE void vstore_n(float *p, vf x, size_t n) { _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), x); }
INLINE vf vfma(vf a, vf b, vf c) { return _mm512_fmadd_ps(a, b, c); }
INLINE vf vfnma(vf a, vf b, vf c) { return _mm512_fnmadd_ps(a, b, c); } // c - a b
INLINE vf vmax(vf a, vf b) { return _mm512_max_ps(a, b); }
INLINE vf vmin(vf a, vf b) { return _mm512_min_ps(a, b); }
INLINE vf vsqrt(vf a) { return _mm512_sqrt_ps(a); }
INLINE vf vabs(vf a) { return _mm512_abs_ps(a); }
INLINE vf vround(vf a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
INLINE vf vldexp(vf x, vf n) { return _mm512_scalef_ps(x, n); }    // x 2^n, n integral, gradual underflow
INLINE vf vswap(vf a) { return _mm512_shuffle_f32x4(a, a, 0x4e); } // the halves change places
INLINE vf vless(vf a, vf b, vf x, vf y) {
    return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, _CMP_LT_OQ), y, x);
} // a < b ? x : y
#elif SIMD == 256
enum { VW = 8, MR = 6 };
typedef float vf __attribute__((vector_size(32)));
typedef __m256i vi;
INLINE vi lanes(size_t n) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
INLINE vf vset(float x) { return _mm256_set1_ps(x); }
INLINE vf vload(const float *p) { return _mm256_loadu_ps(p); }
INLINE void vstore(float *p, vf x) { _mm256_storeu_ps(p, x); }
INLINE vf vload_n(const float *p, size_t n) { return _mm256_maskload_ps(p, lanes(n)); }
INLINE void vstore_n(float *p, vf x, size_t n) { _mm256_maskstore_ps(p, lanes(n), x); }
INLINE vf vfma(vf a, vf b, vf c) { return _mm256_fmadd_ps(a, b, c); }
INLINE vf vfnma(vf a, vf b, vf c) { return _mm256_fnmadd_ps(a, b, c); }
INLINE vf vmax(vf a, vf b) { return _mm256_max_ps(a, b); }
INLINE vf vmin(vf a, vf b) { return _mm256_min_ps(a, b); }
INLINE vf vsqrt(vf a) { return _mm256_sqrt_ps(a); }
INLINE vf vabs(vf a) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a); }
INLINE vf vround(vf a) { return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
INLINE vf vpow2(vf n) { return (vf)_mm256_slli_epi32(_mm256_cvtps_epi32(n + vset(127)), 23); } // -127 < n < 128
INLINE vf vswap(vf a) { return _mm256_permute2f128_ps(a, a, 1); }
INLINE vf vless(vf a, vf b, vf x, vf y) { return _mm256_blendv_ps(y, x, _mm256_cmp_ps(a, b, _CMP_LT_OQ)); }
#else
enum { VW = 4, MR = 6 };
typedef float vf __attribute__((vector_size(16)));
typedef int32_t vi __attribute__((vector_size(16)));
INLINE vf vset(float x) { return (vf){x, x, x, x}; }
INLINE vf vload(const float *p) { return *(const V4 *)p; }
INLINE void vstore(float *p, vf x) { *(V4 *)p = x; }
INLINE vf vload_n(const float *p, size_t n) {
    vf x = {0, 0, 0, 0};
    for (size_t i = 0; i < n; i++) x[i] = p[i];
    return x;
}
INLINE void vstore_n(float *p, vf x, size_t n) {
    for (size_t i = 0; i < n; i++) p[i] = x[i];
}
INLINE vf vswap(vf a) { return __builtin_shufflevector(a, a, 2, 3, 0, 1); }
INLINE vf vselect(vi m, vf x, vf y) { return (vf)((m & (vi)x) | (~m & (vi)y)); }
INLINE vf vless(vf a, vf b, vf x, vf y) { return vselect(a < b, x, y); }
INLINE vf vfma(vf a, vf b, vf c) { return a * b + c; }
INLINE vf vfnma(vf a, vf b, vf c) { return c - a * b; }
INLINE vf vmax(vf a, vf b) { return vselect(a > b, a, b); }
INLINE vf vmin(vf a, vf b) { return vselect(a < b, a, b); }
INLINE vf vsqrt(vf a) {
    for (int i = 0; i < VW; i++) a[i] = __builtin_sqrtf(a[i]);
    return a;
}
INLINE vf vabs(vf a) { return (vf)((vi)a & 0x7fffffff); }
INLINE vf vround(vf a) { // to nearest even for |a| < 2^22, which is all that exp needs; a NaN stays one
    const vf magic = vset(12582912.0f);
    return (a + magic) - magic;
}
INLINE vf vpow2(vf n) { return (vf)((__builtin_convertvector(n, vi) + 127) << 23); }
#endif

#if SIMD != 512
/* x 2^n in two halves, so that neither power of two leaves the normal range and the result may be subnormal. */
INLINE vf vldexp(vf x, vf n) {
    n = vmin(vset(254), vmax(vset(-252), n));
    const vf half = vround(n * vset(0.5f));
    return x * vpow2(half) * vpow2(n - half);
}
#endif

/* ---- BF16 in memory: reading widens exactly, writing rounds to nearest even (ops/bf16.h) ---- */

#if SIMD == 512
INLINE vf widen(__m256i h) { return (vf)_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16); }
INLINE __m256i narrow(vf x) {
    const __m512i u = (__m512i)x, top = _mm512_srli_epi32(u, 16);
    const __m512i odd = _mm512_and_si512(top, _mm512_set1_epi32(1));
    const __m512i near = _mm512_srli_epi32(_mm512_add_epi32(_mm512_add_epi32(u, _mm512_set1_epi32(0x7fff)), odd), 16);
    return _mm512_cvtepi32_epi16(
        _mm512_mask_or_epi32(near, _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q), top, _mm512_set1_epi32(0x40)));
}
INLINE vf vload16(const Bf16 *p) { return widen(_mm256_loadu_si256((const __m256i *)p)); }
INLINE void vstore16(Bf16 *p, vf x) { _mm256_storeu_si256((__m256i *)p, narrow(x)); }
INLINE vf vload16_n(const Bf16 *p, size_t n) { return widen(_mm256_maskz_loadu_epi16((__mmask16)((1u << n) - 1), p)); }
INLINE void vstore16_n(Bf16 *p, vf x, size_t n) { _mm256_mask_storeu_epi16(p, (__mmask16)((1u << n) - 1), narrow(x)); }
#else
#if SIMD == 256
INLINE vf vload16(const Bf16 *p) {
    return (vf)_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p)), 16);
}
INLINE void vstore16(Bf16 *p, vf x) {
    const __m256i u = (__m256i)x, top = _mm256_srli_epi32(u, 16), odd = _mm256_and_si256(top, _mm256_set1_epi32(1));
    const __m256i near = _mm256_srli_epi32(_mm256_add_epi32(_mm256_add_epi32(u, _mm256_set1_epi32(0x7fff)), odd), 16);
    const __m256i nan = _mm256_or_si256(top, _mm256_set1_epi32(0x40));
    const __m256i y = _mm256_blendv_epi8(near, nan, (__m256i)_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
    _mm_storeu_si128((__m128i *)p, _mm_packus_epi32(_mm256_castsi256_si128(y), _mm256_extracti128_si256(y, 1)));
}
#else
typedef uint16_t V4h __attribute__((vector_size(8), aligned(2), may_alias));
INLINE vf vload16(const Bf16 *p) { return (vf)(__builtin_convertvector(*(const V4h *)p, vi) << 16); }
INLINE void vstore16(Bf16 *p, vf x) {
    typedef uint32_t vu __attribute__((vector_size(16)));
    const vu u = (vu)x, near = (u + 0x7fff + (u >> 16 & 1)) >> 16;
    *(V4h *)p = __builtin_convertvector((vu)vselect(x == x, (vf)near, (vf)(u >> 16 | 0x40)), V4h);
}
#endif
INLINE vf vload16_n(const Bf16 *p, size_t n) {
    Bf16 x[VW] = {{0}};
    memcpy(x, p, n * sizeof *x);
    return vload16(x);
}
INLINE void vstore16_n(Bf16 *p, vf v, size_t n) {
    Bf16 x[VW];
    vstore16(x, v);
    memcpy(p, x, n * sizeof *x);
}
#endif

/* n <= VW lanes from memory, of either kind: the tail of every loop. */
INLINE vf get32(const float *p, size_t n) { return n >= VW ? vload(p) : vload_n(p, n); }
INLINE void put32(float *p, vf x, size_t n) {
    if (n >= VW) vstore(p, x);
    else vstore_n(p, x, n);
}
INLINE vf get16(const Bf16 *p, size_t n) { return n >= VW ? vload16(p) : vload16_n(p, n); }
INLINE void put16(Bf16 *p, vf x, size_t n) {
    if (n >= VW) vstore16(p, x);
    else vstore16_n(p, x, n);
}
#define vget(p, n)    _Generic(*(p), Bf16 : get16, float : get32)(p, n)
#define vput(p, x, n) _Generic(*(p), Bf16 : put16, float : put32)(p, x, n)
/* One element. */
INLINE float one32(float x) { return x; }
INLINE float one16(Bf16 x) { return bf16_float(x); }
#define get1(x) _Generic(x, Bf16 : one16, float : one32)(x)
#if BITS == 16
INLINE real real_of(float x) { return bf16_round(x); }
#else
INLINE real real_of(float x) { return x; }
#endif

/* Sum and maximum over lanes, always by halves: the same tree every time. */
#if SIMD == 512
typedef __m256 Half;
INLINE Half vhalf_add(vf x) { return _mm256_add_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps(x, 1)); }
INLINE Half vhalf_max(vf x) { return _mm256_max_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps(x, 1)); }
INLINE V4 vquarter_add(vf x) {
    return _mm_add_ps(_mm256_castps256_ps128(vhalf_add(x)), _mm256_extractf128_ps(vhalf_add(x), 1));
}
INLINE V4 vquarter_max(vf x) {
    return _mm_max_ps(_mm256_castps256_ps128(vhalf_max(x)), _mm256_extractf128_ps(vhalf_max(x), 1));
}
#elif SIMD == 256
INLINE V4 vquarter_add(vf x) { return _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1)); }
INLINE V4 vquarter_max(vf x) { return _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1)); }
#else
INLINE V4 vquarter_add(vf x) { return x; }
INLINE V4 vquarter_max(vf x) { return x; }
#endif
INLINE float vsum(vf x) {
    const V4 q = vquarter_add(x);
    return (q[0] + q[2]) + (q[1] + q[3]);
}
INLINE float vhmax(vf x) { // of numbers; a NaN may be lost
    const V4 q = vquarter_max(x);
    const float a = q[0] > q[2] ? q[0] : q[2], b = q[1] > q[3] ? q[1] : q[3];
    return a > b ? a : b;
}
#endif
