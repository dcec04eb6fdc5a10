/* cpu.h - what cpu/ offers besides ops_cpu32 (ops/ops.h): its paths by name, and threads. */
#ifndef HYB_CPU_H
#define HYB_CPU_H
#include "ops/ops.h"

/* One table a path; an op that a path does not speed up is NULL. The first two exist on x86-64 only. */
extern const Ops32 ops_cpu_avx512, ops_cpu_avx2, ops_cpu_plain;

/* The path that ops_cpu32 takes: "avx512", "avx2" or "plain". Chosen at the first call: the best that this CPU has, or, if
 * the environment variable HYBRIDIZE_CPU names one, that one or the best below it. */
const char *cpu_path(void);

/* Threads that the ops will use; <= 0: all cores. Returns what it is now. (Results do not depend on it.) */
int cpu_threads(int n);
#endif
