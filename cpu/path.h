/* path.h - all of cpu/ for one instruction set and one storage type: included by cpu_avx512.c, cpu_bf16_amx.c and so on
 * with BITS (32: float, 16: BF16), SIMD (vector bits), CPU_PATH (what is exported) and its NAME defined, and for BF16
 * DOT (dot.h). A path with products of its own has only the ops that are made of them; the rest, which would be the
 * same code again, is that of cpu_bf16_avx512 (cpu_ops.c). */
#include "cpu/dot.h"
#if DOT == DOT_NONE
#include "cpu/add.c"
#endif
#if BITS == 16
#include "cpu/gemm16.c"
#else
#include "cpu/gemm.c"
#endif
#include "cpu/linear.c"
#if DOT == DOT_NONE
#include "cpu/embed.c"
#include "cpu/rmsnorm.c"
#include "cpu/l2norm.c"
#include "cpu/swiglu.c"
#include "cpu/rope.c"
#include "cpu/attention.c"
#include "cpu/conv.c"
#include "cpu/gate.c"
#include "cpu/delta_rule.c"
#include "cpu/gla.c"
#include "cpu/kda.c"
#include "cpu/kda_gate.c"
#endif
#include "cpu/xent.c"
#include "cpu/kl.c"
#if DOT == DOT_NONE
#include "cpu/align_loss.c"
#include "cpu/adamw.c"
#endif
#include "cpu/cpu.h"
#if BITS == 32
#include "cpu/peak.c"
#endif

#if DOT != DOT_NONE
CpuPath16 CPU_PATH = {
    .name = NAME,
    .ops =
        {
            .linear_forward = linear_forward,
            .linear_backward = linear_backward,
            .head_xent = head_xent,
            .head_kl = head_kl,
        },
};
#else
#if BITS == 16
const CpuPath16 CPU_PATH = {
    .name = NAME,
#else
const CpuPath CPU_PATH = {
    .name = NAME,
    .fma = fma_run,
    .read = read_run,
    .exp = exp_run,
    .log1p = log1p_run,
#endif
    .ops =
        {
#define OP(name) .name = name,
#include "ops/ops.def"
        },
};
#endif
