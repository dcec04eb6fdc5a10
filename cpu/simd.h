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

#define INLINE static inline __attribute__((always_inline))

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

/* n <= VW lanes from memory: the tail of every loop. */
INLINE vf vget(const float *p, size_t n) { return n >= VW ? vload(p) : vload_n(p, n); }
INLINE void vput(float *p, vf x, size_t n) {
    if (n >= VW) vstore(p, x);
    else vstore_n(p, x, n);
}
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
