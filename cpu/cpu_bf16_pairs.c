/* cpu_bf16_pairs.c - cpu/ for BF16 with products of pairs in vectors. */
#include "cpu/cpu.h"
#ifdef __x86_64__
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512dq,avx512bw,avx512vl,avx2,fma,avx512bf16"))),        \
                             apply_to = function)
#else
#pragma GCC target("avx512f,avx512dq,avx512bw,avx512vl,avx2,fma,avx512bf16")
#endif
#define BITS     16
#define SIMD     512
#define DOT      1 // DOT_PAIRS
#define CPU_PATH cpu_bf16_pairs
#define NAME     "avx512_bf16"
#include "cpu/path.h"
#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
