/* cpu_bf16_avx2.c - cpu/ for BF16 in 8 lanes, products in float. */
#include "cpu/cpu.h"
#ifdef __x86_64__
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC target("avx2,fma")
#endif
#define BITS     16
#define SIMD     256
#define CPU_PATH cpu_bf16_avx2
#define NAME     "avx2"
#include "cpu/path.h"
#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
