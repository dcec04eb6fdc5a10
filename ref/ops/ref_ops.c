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
#define OP(name) .name = name,
#include "ops/ops.def"
};
