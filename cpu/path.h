/* path.h - all of cpu/ for one instruction set: included by cpu_avx512.c, cpu_avx2.c and cpu_plain.c with SIMD (vector
 * bits), CPU_PATH (what is exported) and its NAME defined. */
#include "cpu/add.c"
#include "cpu/gemm.c"
#include "cpu/linear.c"
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
#include "cpu/xent.c"
#include "cpu/kl.c"
#include "cpu/align_loss.c"
#include "cpu/adamw.c"
#include "cpu/peak.c"
#include "cpu/cpu.h"

const CpuPath CPU_PATH = {
    .name = NAME,
    .fma = fma_run,
    .read = read_run,
    .exp = exp_run,
    .log1p = log1p_run,
    .ops =
        {
#define OP(name) .name = name,
#include "ops/ops.def"
        },
};
