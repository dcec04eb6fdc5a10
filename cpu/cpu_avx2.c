/* cpu_avx2.c - cpu/ in 8-lane vectors. Compiled for AVX2 and FMA whatever the command line says;
 * run only where cpu_ops.c finds it. */
#include "cpu/cpu.h"
#ifdef __x86_64__
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC target("avx2,fma")
#endif
#define BITS     32
#define SIMD     256
#define CPU_PATH cpu_avx2
#define NAME     "avx2"
#include "cpu/path.h"
#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
