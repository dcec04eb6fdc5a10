/* ref_ops.c - the reference backend as one translation unit: every op is static, the table is the only symbol.
 *
 * Built twice: -DBITS=64 gives ops_ref64, the oracle; -DBITS=32 gives ops_ref32. */
#include "ops/ops.h" /* before real, wide and trained are defined: it defines and undefines them */

#if BITS == 64
#define real    double
#define wide    double
#define trained Trained64
#elif BITS == 32
#define real    float
#define wide    float
#define trained Trained32
#else
#error "ref_ops.c: BITS is 32 or 64"
#endif

#include "ops/add.c"
#include "ops/embed.c"
#include "ops/linear.c"
#include "ops/rmsnorm.c"
#include "ops/l2norm.c"
#include "ops/swiglu.c"
#include "ops/rope.c"
#include "ops/attention.c"
#include "ops/conv.c"
#include "ops/gate.c"
#include "ops/delta_rule.c"
#include "ops/gla.c"
#include "ops/kda.c"
#include "ops/xent.c"
#include "ops/kl.c"
#include "ops/align_loss.c"
#include "ops/adamw.c"

#if BITS == 64
const Ops64 ops_ref64 = {
#else
const Ops32 ops_ref32 = {
#endif
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
    .gla_gate_forward = gla_gate_forward,
    .gla_gate_backward = gla_gate_backward,
    .gla_forward = gla_forward,
    .gla_backward = gla_backward,
    .kda_gate_forward = kda_gate_forward,
    .kda_gate_backward = kda_gate_backward,
    .kda_forward = kda_forward,
    .kda_backward = kda_backward,
    .head_xent = head_xent,
    .head_kl = head_kl,
    .align_loss = align_loss,
    .adamw = adamw,
};
