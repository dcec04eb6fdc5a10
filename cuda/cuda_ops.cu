/* cuda_ops.cu - the one translation unit of the ops, compiled once with -DBITS=32 (real = float) and once with
 * -DBITS=16 (real = bf16), and exporting their table. The names are those of ref/ops; a signature that differs does not
 * compile. */
#include "ops/ops.h"
#include "launch.h"
#include "matmul.h"
#include "pack.h"
#include "tile.h"
#include "wgmma.h"
#include <math.h>

// kernels of the two precisions have the same names, and a program may hold the device's and the emulator's;
// in a nameless namespace nvcc
// would give two kernels one symbol
#define JOIN_(a, b) a##b
#define JOIN(a, b)  JOIN_(a, b)
#ifdef CUDA_EMU
#define PRECISION JOIN(emulated, BITS)
#else
#define PRECISION JOIN(device, BITS)
#endif
namespace PRECISION {
#if BITS == 16
typedef Bf16 real;
typedef Trained16 Trained;
#else
typedef float real;
typedef Trained32 Trained;
#endif
typedef float wide;
#include "column_sum.h"
#include "matmul.cu"
#include "add.cu"
#include "embed.cu"
#include "linear.cu"
#include "rmsnorm.cu"
#include "l2norm.cu"
#include "swiglu.cu"
#include "rope.cu"
#include "attention.cu"
#include "attention_step.cu"
#if BITS == 16
#include "attention_mma.cu"
#include "attention_ladder.cu"
#include "attention_wgmma.cu"
#include "attention_wgmma_backward.cu"
#endif
#include "conv.cu"
#include "gate.cu"
#include "chunk.h"
#include "recurrence.cu"
#include "delta_rule.cu"
#if BITS == 16
#include "inverse.h"
#include "channel_decay.h"
#include "delta_rule_mma.cu"
#include "delta_rule_mma_backward.cu"
#endif
#include "gla.cu"
#include "step.cu"
#if BITS == 16
#include "gla_mma.cu"
#include "gla_mma_backward.cu"
#endif
#include "kda.cu"
#if BITS == 16
#include "kda_mma.cu"
#include "kda_mma_backward.cu"
#endif
#include "head.h"
#include "xent.cu"
#include "kl.cu"
#include "align_loss.cu"
#include "adamw.cu"
#include "choose.h"
} // namespace PRECISION
using namespace PRECISION;

#ifdef CUDA_EMU
#define TABLE(bits) JOIN(cuda_emu_ops, bits)
#else
#define TABLE(bits) JOIN(cuda_ops, bits)
#endif
#if BITS == 16
typedef Ops16 Table;
#else
typedef Ops32 Table;
#endif
static constexpr Table table() { // by name: C++17 has no designated initialisers
    Table t = {};
#define OP(name) t.name = name;
#include "ops/ops.def"
    return t;
}
extern "C" {
extern const Table TABLE(BITS);
const Table TABLE(BITS) = table();
}
