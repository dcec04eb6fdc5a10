/* ops.h - dims structs, the op tables of every precision (ops_decl.h, included once each), and workspace sizes.
 *
 * The last inclusion gives `Ops`, the view that model and method code uses: there real and wide are the incomplete
 * types struct Real and struct Wide, so that code which must also run on device memory cannot dereference a tensor,
 * do arithmetic on its pointer, or mix up the two kinds: all three are compile errors. Tables are viewed as `Ops` in
 * backend.c (object pointers have one representation on every platform with POSIX, so a call through the view is the
 * same call). */
#ifndef HYB_OPS_H
#define HYB_OPS_H
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct {
    int B, T, past, stride, H, Hk, D, window;
} AttnDims; /* see attention; stride 0 means past + T */
typedef struct {
    int B, T, H, Hk, K, V, chunk;
} DeltaDims; /* see delta_rule, gla and kda */
/* Ct: teacher width (head_kl); block: rows of logits held at once */
typedef struct {
    int N, C, Ct, VOC, block;
} HeadDims;
enum { ALIGN_NORM, ALIGN_SQUARED };

#define OPS     Ops64
#define trained Trained64
#define real    double
#define wide    double
#include "ops/ops_decl.h"
#undef OPS
#undef trained
#undef real
#undef wide

#define OPS     Ops32
#define trained Trained32
#define real    float
#define wide    float
#include "ops/ops_decl.h"
#undef OPS
#undef trained
#undef real
#undef wide

typedef struct Bf16 Bf16; /* completed in ops/bf16.h, for CUDA in cuda/bf16.h */
#define OPS     Ops16
#define trained Trained16
#define real    Bf16
#define wide    float
#include "ops/ops_decl.h"
#undef OPS
#undef trained
#undef real
#undef wide

typedef struct Real Real; /* never completed */
typedef struct Wide Wide;
#define OPS     Ops
#define trained Trained
#define real    Real
#define wide    Wide
#include "ops/ops_decl.h"
#undef OPS
#undef trained
#undef real
#undef wide

/* Each op of the contract is in ops.def, once: otherwise one of these two lines does not compile. */
enum {
#define OP(name) OP_##name,
#include "ops/ops.def"
    OP_COUNT
};
#ifdef __cplusplus
static_assert(sizeof(Ops) == OP_COUNT * sizeof(void (*)(void)), "ops.def names other ops than ops_decl.h");
#else
_Static_assert(sizeof(Ops) == OP_COUNT * sizeof(void (*)(void)), "ops.def names other ops than ops_decl.h");
#endif

extern const Ops64 ops_ref64;
extern const Ops32 ops_ref32;
extern const Ops16 ops_ref16; /* ref32 with every output rounded once */

/* Workspace in bytes, enough for every backend and precision, forward and backward. */
static inline int delta_chunks(const DeltaDims *d) { return (d->T + d->chunk - 1) / d->chunk; }
static inline size_t delta_states(const DeltaDims *d) { /* elements of `states` */
    return (size_t)d->B * d->H * (delta_chunks(d) + 1) * d->K * d->V;
}
static inline size_t delta_rule_work(const DeltaDims *d) {
    /* per (batch, head) worker: chunk-square and chunk x width tiles, plus a recomputed run of states inside a chunk */
    const size_t c = d->chunk, w = d->K > d->V ? d->K : d->V, t = 8 * c * c + 16 * c * w + 8 * w * w + 16 * c + 64;
    return (size_t)d->B * d->H * t * sizeof(double);
}
static inline size_t gla_work(const DeltaDims *d) { return delta_rule_work(d); }
static inline size_t kda_work(const DeltaDims *d) {
    /* per (batch, head) worker: tiles as above, more of them, and a state every 8 tokens of a chunk beside the 8 states
     * of one such run */
    const size_t c = d->chunk, w = d->K > d->V ? d->K : d->V,
                 t = 8 * c * c + 24 * c * w + (12 + (c + 7) / 8) * w * w + 32 * w + 16 * c + 64;
    return (size_t)d->B * d->H * t * sizeof(double);
}
static inline size_t attention_work(const AttnDims *d) {
    /* per (batch, query head): two 64 x 64 tiles, four 64 x D tiles, delta (T); per-head dk and dv so that grouped
     * heads add in order */
    const size_t t = 2 * 64 * 64 + 6 * 64 * (size_t)d->D + d->T + 64 + 2 * (size_t)(d->past + d->T) * d->D;
    return (size_t)d->B * d->H * t * sizeof(double);
}
static inline size_t head_work(const HeadDims *d) { /* two blocks of logits, row statistics, one block's dx */
    return ((size_t)d->block * (2 * (size_t)d->VOC + (size_t)d->C + 16) + 256) * sizeof(double);
}

#ifdef __cplusplus
}
#endif
#endif
