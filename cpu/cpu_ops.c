/* cpu_ops.c - picks the instruction set once: the ops of "cpu" and "cpu-bf16" are the tables of that path. */
#include "cpu/cpu.h"
#include "cpu/prepack.c"
#include "cpu/pool.c"
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#ifdef __x86_64__
#include <cpuid.h>
#include <sys/syscall.h>
#endif

#ifdef __x86_64__
/* Bit of a register (0 eax, 3 edx) of cpuid leaf 7. */
static int cpuid7(unsigned subleaf, int reg, int bit) {
    unsigned r[4] = {0};
    return __get_cpuid_count(7, subleaf, &r[0], &r[1], &r[2], &r[3]) && r[reg] >> bit & 1;
}
/* Linux gives a process tiles only if it asks, once, before it uses them. */
static int tiles_allowed(void) {
#ifdef __linux__
    enum { ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18 };
    return !syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA);
#else
    return 0;
#endif
}
#endif

/* From the best to what always runs. */
static const char *const NAMES[] = {"amx", "avx512_bf16", "avx512", "avx2", "plain"};
enum { AMX, PAIRS, AVX512, AVX2, PLAIN, PATHS };
static int path_runs(int path) {
#ifdef __x86_64__
    const int avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                       __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
    if (path == AMX) return avx512 && cpuid7(0, 3, 22) && cpuid7(0, 3, 24) && tiles_allowed();
    if (path == PAIRS) return avx512 && cpuid7(1, 0, 5);
    if (path == AVX512) return avx512;
    if (path == AVX2) return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#endif
    return path == PLAIN;
}
#ifdef __x86_64__
static const CpuPath *const PATHS32[PATHS] = {NULL, NULL, &cpu_avx512, &cpu_avx2, &cpu_plain};
static const CpuPath16 *const PATHS16[PATHS] = {&cpu_bf16_amx, &cpu_bf16_pairs, &cpu_bf16_avx512, &cpu_bf16_avx2,
                                                &cpu_bf16_plain};
#else
static const CpuPath *const PATHS32[PATHS] = {[PLAIN] = &cpu_plain};
static const CpuPath16 *const PATHS16[PATHS] = {[PLAIN] = &cpu_bf16_plain};
#endif

/* amx and avx512_bf16 bring products; what is not made of them is that of avx512. */
static const CpuPath16 *path_whole(int path) {
#ifdef __x86_64__
    CpuPath16 *own = path == AMX ? &cpu_bf16_amx : path == PAIRS ? &cpu_bf16_pairs : NULL;
    if (own && !own->ops.add) {
#define OP(op)                                                                                                         \
    if (!own->ops.op) own->ops.op = cpu_bf16_avx512.ops.op;
#include "ops/ops.def"
    }
#endif
    return PATHS16[path];
}

static int path_find(const char *name) {
    int i = 0;
    while (i < PATHS && strcmp(NAMES[i], name)) i++;
    return i;
}
/* The best that exists (bit i of `table`) and runs, from the one that the environment names. */
static int path_choose(unsigned table) {
    const char *want = getenv("HYBRIDIZE_CPU");
    int i = want ? path_find(want) : 0;
    if (i == PATHS) i = 0; // cpu_path_check refuses it before anything runs
    while (!(table >> i & 1) || !path_runs(i)) i++;
    return i;
}
/* Every thread would choose the same. */
static int path_chosen(atomic_int *chosen, unsigned table) {
    int i = atomic_load_explicit(chosen, memory_order_relaxed) - 1;
    if (i < 0) atomic_store_explicit(chosen, (i = path_choose(table)) + 1, memory_order_relaxed);
    return i;
}
const CpuPath *cpu_path(void) {
    static atomic_int chosen;
    unsigned table = 0;
    for (int i = 0; i < PATHS; i++) table |= (unsigned)(PATHS32[i] != NULL) << i;
    return PATHS32[path_chosen(&chosen, table)];
}
const CpuPath16 *cpu_path16(void) {
    static atomic_int chosen;
    unsigned table = 0;
    for (int i = 0; i < PATHS; i++) table |= (unsigned)(PATHS16[i] != NULL) << i;
    return path_whole(path_chosen(&chosen, table));
}
const CpuPath *cpu_path_named(const char *name) {
    const int i = path_find(name);
    return i < PATHS && PATHS32[i] && path_runs(i) ? PATHS32[i] : NULL;
}
const CpuPath16 *cpu_path16_named(const char *name) {
    const int i = path_find(name);
    return i < PATHS && PATHS16[i] && path_runs(i) ? path_whole(i) : NULL;
}

int cpu_path_check(Err *e) {
    const char *want = getenv("HYBRIDIZE_CPU");
    if (!want || path_find(want) < PATHS) return OK;
    return err_set(e, ERR_USAGE, "HYBRIDIZE_CPU: got '%.40s', expected amx, avx512_bf16, avx512, avx2 or plain", want);
}
const char *cpu_path_name(int bits) { return bits == 16 ? cpu_path16()->name : cpu_path()->name; }

const Ops32 *cpu_ops32(void) { return &cpu_path()->ops; }
const Ops16 *cpu_ops16(void) { return &cpu_path16()->ops; }
