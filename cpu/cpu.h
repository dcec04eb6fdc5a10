/* cpu.h - what cpu/ offers besides the ops of its tables: its paths, the machine's ceilings, and threads. */
#ifndef HYB_CPU_H
#define HYB_CPU_H
#include "base/err.h"
#include "ops/ops.h"

/* cpu/ for one instruction set. */
typedef struct {
    const char *name;
    Ops32 ops;
    /* fused multiply-adds in registers, on all threads; returns the operations done */
    double (*fma)(size_t rounds);
    float (*read)(const float *x, size_t n); /* a sum, at the speed of memory */
    /* of n numbers, for the tests of simd_math.h */
    void (*exp)(float *y, const float *x, size_t n), (*log1p)(float *y, const float *x, size_t n);
} CpuPath;
/* The same for BF16. */
typedef struct {
    const char *name;
    Ops16 ops;
} CpuPath16;
extern CpuPath16 cpu_bf16_amx, cpu_bf16_pairs; /* products; cpu_ops.c fills in the rest */
extern const CpuPath16 cpu_bf16_avx512, cpu_bf16_avx2, cpu_bf16_plain;
extern const CpuPath cpu_avx512, cpu_avx2, cpu_plain; /* the first two exist on x86-64 only */

/* What the "cpu" backend uses. Chosen at the first call: the best that this CPU runs, or, if the environment variable
 * HYBRIDIZE_CPU names one (amx, avx512_bf16, avx512, avx2, plain), that one or the best below it. In float the first
 * two are avx512. */
const CpuPath *cpu_path(void);
/* ERR_USAGE with the known names if HYBRIDIZE_CPU is set to none of them. */
int cpu_path_check(Err *e);
const Ops32 *cpu_ops32(void); /* its table; what Backend.op of "cpu" points to */
/* By name; NULL if there is none or this CPU does not run it. */
const CpuPath *cpu_path_named(const char *name);

/* The same for "cpu-bf16". amx is taken only where the kernel allows tiles, which is asked for here. */
const CpuPath16 *cpu_path16(void);
const Ops16 *cpu_ops16(void);
const CpuPath16 *cpu_path16_named(const char *name);
const char *cpu_path_name(int bits); /* of cpu, or (16) of cpu-bf16 */

/* Threads that the ops will use; <= 0: all cores. Returns what it is now. (Results do not depend on it.) */
int cpu_threads(int n);
/* Ties each of that many threads to a processor of its own, for measurements; 0: lets them go again. Linux only. */
void cpu_pin(int on);

/* Weights w (O,I), of float or (bits 16) BF16, that many products will read (Backend.prepack): a second copy, packed
 * for y = x W^T and, if asked for, dx = dy W, made by the first product. Nothing if w is prepacked already or there is
 * no memory. cpu_invalidate: whoever wrote w calls it before the next product. cpu_prepack_release: before w is
 * released; fine if w is not prepacked.
 * Not while an op runs.
 * */
void cpu_prepack(const void *w, int O, int I, int backward, int bits);
size_t cpu_prepack_bytes(int O, int I, int backward, int bits); /* what that copy takes at most */
void cpu_invalidate(const void *w);
void cpu_prepack_release(const void *w);
#endif
