/* cpu_bf16_amx.c - cpu/ for BF16 with products in tiles. */
#include "cpu/cpu.h"
#ifdef __x86_64__
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512dq,avx512bw,avx512vl,avx2,fma,amx-tile,amx-bf16"))), \
                             apply_to = function)
#else
#pragma GCC target("avx512f,avx512dq,avx512bw,avx512vl,avx2,fma,amx-tile,amx-bf16")
#endif
#define BITS     16
#define SIMD     512
#define DOT      2 // DOT_TILES
#define CPU_PATH cpu_bf16_amx
#define NAME     "amx"
#include "cpu/path.h"
#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
