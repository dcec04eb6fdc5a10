/* path.h - all of cpu/ for one instruction set and one storage type: included by cpu_avx512.c, cpu_bf16_amx.c and so on
 * with BITS (32: float, 16: BF16), SIMD (vector bits), CPU_PATH (what is exported) and its NAME defined, and for BF16 DOT
 * (dot.h). */
#include "cpu/add.c"
#if BITS == 16
#include "cpu/gemm16.c"
#else
#include "cpu/gemm.c"
#endif
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
#include "cpu/cpu.h"
#if BITS == 32
#include "cpu/peak.c"
#endif

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
            .add = add,
            .accumulate = accumulate,
            .sum = sum,
            .sumsq = sumsq,
            .embed_forward = embed_forward,
            .embed_backward = embed_backward,
            .linear_forward = linear_forward,
            .linear_backward = linear_backward,
            .rmsnorm_forward = rmsnorm_forward,
            .rmsnorm_backward = rmsnorm_backward,
            .add_rmsnorm_forward = add_rmsnorm_forward,
            .gated_rmsnorm_forward = gated_rmsnorm_forward,
            .gated_rmsnorm_backward = gated_rmsnorm_backward,
            .sigmoid_rmsnorm_forward = sigmoid_rmsnorm_forward,
            .sigmoid_rmsnorm_backward = sigmoid_rmsnorm_backward,
            .l2norm_forward = l2norm_forward,
            .l2norm_backward = l2norm_backward,
            .silu_forward = silu_forward,
            .silu_backward = silu_backward,
            .swiglu_forward = swiglu_forward,
            .swiglu_backward = swiglu_backward,
            .rope_forward = rope_forward,
            .rope_backward = rope_backward,
            .attention_forward = attention_forward,
            .attention_backward = attention_backward,
            .conv_forward = conv_forward,
            .conv_backward = conv_backward,
            .delta_gate_forward = delta_gate_forward,
            .delta_gate_backward = delta_gate_backward,
            .delta_rule_forward = delta_rule_forward,
            .delta_rule_backward = delta_rule_backward,
            .gla_forward = gla_forward,
            .gla_backward = gla_backward,
            .gla_gate_forward = gla_gate_forward,
            .gla_gate_backward = gla_gate_backward,
            .kda_gate_forward = kda_gate_forward,
            .kda_gate_backward = kda_gate_backward,
            .kda_forward = kda_forward,
            .kda_backward = kda_backward,
            .head_xent = head_xent,
            .head_kl = head_kl,
            .align_loss = align_loss,
            .adamw = adamw,
        },
};
