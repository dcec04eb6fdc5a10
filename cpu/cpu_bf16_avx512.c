/* cpu_bf16_avx512.c - cpu/ for BF16 in 16 lanes, products in float. */
#include "cpu/cpu.h"
#ifdef __x86_64__
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512dq,avx512bw,avx512vl,avx2,fma"))),                   \
                             apply_to = function)
#else
#pragma GCC target("avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")
#endif
#define BITS     16
#define SIMD     512
#define CPU_PATH cpu_bf16_avx512
#define NAME     "avx512"
#include "cpu/path.h"
#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
