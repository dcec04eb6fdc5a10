/* cpu_avx512.c - cpu/ in 16-lane vectors. Compiled for AVX-512 whatever the command line says;
 * run only where cpu_ops.c finds it. */
#include "cpu/cpu.h"
#ifdef __x86_64__
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512dq,avx512bw,avx512vl,avx2,fma"))),                   \
                             apply_to = function)
#else
#pragma GCC target("avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")
#endif
#define BITS     32
#define SIMD     512
#define CPU_PATH cpu_avx512
#define NAME     "avx512"
#include "cpu/path.h"
#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
