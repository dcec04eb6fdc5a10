/* cpu_ops.c - picks the instruction set once: the ops of the "cpu" backend are the table of that path. */
#include "cpu/cpu.h"
#include "cpu/held.c"
#include "cpu/pool.c"
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

static int path_runs(const char *name) {
#ifdef __x86_64__
    if (!strcmp(name, "avx512"))
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
               __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
    if (!strcmp(name, "avx2")) return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#endif
    return !strcmp(name, "plain");
}

static const CpuPath *const PATHS[] = {
#ifdef __x86_64__
    &cpu_avx512,
    &cpu_avx2,
#endif
    &cpu_plain,
};
enum { PATH_COUNT = sizeof PATHS / sizeof PATHS[0] };

static const CpuPath *path_choose(void) {
    const char *want = getenv("HYBRIDIZE_CPU");
    size_t i = 0;
    while (want && i < PATH_COUNT && strcmp(PATHS[i]->name, want)) i++;
    if (i == PATH_COUNT) i = 0; // no such name: as if it were not set
    while (!path_runs(PATHS[i]->name)) i++;
    return PATHS[i];
}
const CpuPath *cpu_path(void) {
    static _Atomic(const CpuPath *) chosen; // every thread would choose the same
    const CpuPath *p = atomic_load_explicit(&chosen, memory_order_relaxed);
    if (!p) atomic_store_explicit(&chosen, p = path_choose(), memory_order_relaxed);
    return p;
}
const CpuPath *cpu_path_named(const char *name) {
    for (size_t i = 0; i < PATH_COUNT; i++)
        if (!strcmp(PATHS[i]->name, name) && path_runs(name)) return PATHS[i];
    return NULL;
}

const Ops32 *cpu_ops32(void) { return &cpu_path()->ops; }
