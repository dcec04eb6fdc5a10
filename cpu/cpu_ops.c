/* cpu_ops.c - ops_cpu32: picks the path once, and sends every op there, or to the reference where the path has none.
 * A const table cannot hold what is known only when the program runs, so its functions are these one-line doors. */
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

#define OP(name) (cpu_path()->ops.name ? cpu_path()->ops.name : ops_ref32.name)

static void add(float *y, const float *a, const float *b, size_t n) { OP(add)(y, a, b, n); }
static void accumulate(float *y, const float *x, double alpha, size_t n) { OP(accumulate)(y, x, alpha, n); }
static void sum(double *out, const float *x, size_t n) { OP(sum)(out, x, n); }
static void sumsq(double *out, const Trained32 *list, int tensors) { OP(sumsq)(out, list, tensors); }
static void embed_forward(float *y, const float *w, const int *ids, int N, int C, int VOC) {
    OP(embed_forward)(y, w, ids, N, C, VOC);
}
static void embed_backward(float *dw, const float *dy, const int *ids, int N, int C, int VOC) {
    OP(embed_backward)(dw, dy, ids, N, C, VOC);
}
static void linear_forward(float *y, const float *x, const float *w, const float *b, int N, int I, int O) {
    OP(linear_forward)(y, x, w, b, N, I, O);
}
static void linear_backward(float *dx, float *dw, float *db, const float *dy, const float *x, const float *w, int N,
                            int I, int O) {
    OP(linear_backward)(dx, dw, db, dy, x, w, N, I, O);
}
static void rmsnorm_forward(float *y, float *rstd, const float *x, const float *w, double eps, int N, int C) {
    OP(rmsnorm_forward)(y, rstd, x, w, eps, N, C);
}
static void rmsnorm_backward(float *dx, float *dw, const float *dy, const float *x, const float *w, const float *rstd,
                             int N, int C) {
    OP(rmsnorm_backward)(dx, dw, dy, x, w, rstd, N, C);
}
static void add_rmsnorm_forward(float *sum, float *y, float *rstd, const float *a, const float *b, const float *w,
                                double eps, int N, int C) {
    OP(add_rmsnorm_forward)(sum, y, rstd, a, b, w, eps, N, C);
}
static void gated_rmsnorm_forward(float *y, float *rstd, const float *x, const float *z, const float *w, double eps,
                                  int N, int C) {
    OP(gated_rmsnorm_forward)(y, rstd, x, z, w, eps, N, C);
}
static void gated_rmsnorm_backward(float *dx, float *dz, float *dw, const float *dy, const float *x, const float *z,
                                   const float *w, const float *rstd, int N, int C) {
    OP(gated_rmsnorm_backward)(dx, dz, dw, dy, x, z, w, rstd, N, C);
}
static void sigmoid_rmsnorm_forward(float *y, float *rstd, const float *x, const float *z, const float *w, double eps,
                                    int N, int C) {
    OP(sigmoid_rmsnorm_forward)(y, rstd, x, z, w, eps, N, C);
}
static void sigmoid_rmsnorm_backward(float *dx, float *dz, float *dw, const float *dy, const float *x, const float *z,
                                     const float *w, const float *rstd, int N, int C) {
    OP(sigmoid_rmsnorm_backward)(dx, dz, dw, dy, x, z, w, rstd, N, C);
}
static void l2norm_forward(float *y, float *r, const float *x, double eps, int N, int C) {
    OP(l2norm_forward)(y, r, x, eps, N, C);
}
static void l2norm_backward(float *dx, const float *dy, const float *y, const float *r, int N, int C) {
    OP(l2norm_backward)(dx, dy, y, r, N, C);
}
static void silu_forward(float *y, const float *x, size_t n) { OP(silu_forward)(y, x, n); }
static void silu_backward(float *dx, const float *dy, const float *x, size_t n) { OP(silu_backward)(dx, dy, x, n); }
static void swiglu_forward(float *y, const float *gate, const float *up, size_t n) {
    OP(swiglu_forward)(y, gate, up, n);
}
static void swiglu_backward(float *dgate, float *dup, const float *dy, const float *gate, const float *up, size_t n) {
    OP(swiglu_backward)(dgate, dup, dy, gate, up, n);
}
static void rope_forward(float *y, const float *x, const float *table, int pos, int B, int T, int H, int D) {
    OP(rope_forward)(y, x, table, pos, B, T, H, D);
}
static void rope_backward(float *dx, const float *dy, const float *table, int pos, int B, int T, int H, int D) {
    OP(rope_backward)(dx, dy, table, pos, B, T, H, D);
}
static void attention_forward(float *o, float *lse, const float *q, const float *k, const float *v, const int *start,
                              double scale, void *work, const AttnDims *d) {
    OP(attention_forward)(o, lse, q, k, v, start, scale, work, d);
}
static void attention_backward(float *dq, float *dk, float *dv, const float *dout, const float *o, const float *lse,
                               const float *q, const float *k, const float *v, const int *start, double scale,
                               void *work, const AttnDims *d) {
    OP(attention_backward)(dq, dk, dv, dout, o, lse, q, k, v, start, scale, work, d);
}
static void conv_forward(float *y, float *tail_out, const float *x, const float *w, const float *tail_in,
                         const int *start, int B, int T, int C, int W) {
    OP(conv_forward)(y, tail_out, x, w, tail_in, start, B, T, C, W);
}
static void conv_backward(float *dx, float *dw, const float *dy, const float *x, const float *w, const int *start,
                          int B, int T, int C, int W) {
    OP(conv_backward)(dx, dw, dy, x, w, start, B, T, C, W);
}
static void delta_gate_forward(float *g, float *beta, const float *a, const float *b, const float *A_log,
                               const float *dt_bias, int N, int H) {
    OP(delta_gate_forward)(g, beta, a, b, A_log, dt_bias, N, H);
}
static void delta_gate_backward(float *da, float *db, float *dA_log, float *ddt_bias, const float *dg,
                                const float *dbeta, const float *a, const float *g, const float *beta,
                                const float *A_log, const float *dt_bias, int N, int H) {
    OP(delta_gate_backward)(da, db, dA_log, ddt_bias, dg, dbeta, a, g, beta, A_log, dt_bias, N, H);
}
static void delta_rule_forward(float *o, float *states, float *state, const float *q, const float *k, const float *v,
                               const float *g, const float *beta, const int *start, double scale, void *work,
                               const DeltaDims *d) {
    OP(delta_rule_forward)(o, states, state, q, k, v, g, beta, start, scale, work, d);
}
static void delta_rule_backward(float *dq, float *dk, float *dv, float *dg, float *dbeta, float *dstate,
                                const float *dout, const float *states, const float *q, const float *k, const float *v,
                                const float *g, const float *beta, const int *start, double scale, void *work,
                                const DeltaDims *d) {
    OP(delta_rule_backward)
    (dq, dk, dv, dg, dbeta, dstate, dout, states, q, k, v, g, beta, start, scale, work, d);
}
static void gla_gate_forward(float *g, const float *x, double normalizer, size_t n) {
    OP(gla_gate_forward)(g, x, normalizer, n);
}
static void gla_gate_backward(float *dx, const float *dg, const float *x, double normalizer, size_t n) {
    OP(gla_gate_backward)(dx, dg, x, normalizer, n);
}
static void gla_forward(float *o, float *states, float *state, const float *q, const float *k, const float *v,
                        const float *g, const int *start, double scale, void *work, const DeltaDims *d) {
    OP(gla_forward)(o, states, state, q, k, v, g, start, scale, work, d);
}
static void gla_backward(float *dq, float *dk, float *dv, float *dg, float *dstate, const float *dout,
                         const float *states, const float *q, const float *k, const float *v, const float *g,
                         const int *start, double scale, void *work, const DeltaDims *d) {
    OP(gla_backward)(dq, dk, dv, dg, dstate, dout, states, q, k, v, g, start, scale, work, d);
}
static void kda_gate_forward(float *g, float *beta, const float *f, const float *b, const float *A_log,
                             const float *dt_bias, int N, int H, int K) {
    OP(kda_gate_forward)(g, beta, f, b, A_log, dt_bias, N, H, K);
}
static void kda_gate_backward(float *df, float *db, float *dA_log, float *ddt_bias, const float *dg, const float *dbeta,
                              const float *f, const float *g, const float *beta, const float *A_log,
                              const float *dt_bias, int N, int H, int K) {
    OP(kda_gate_backward)(df, db, dA_log, ddt_bias, dg, dbeta, f, g, beta, A_log, dt_bias, N, H, K);
}
static void kda_forward(float *o, float *states, float *state, const float *q, const float *k, const float *v,
                        const float *g, const float *beta, const int *start, double scale, void *work,
                        const DeltaDims *d) {
    OP(kda_forward)(o, states, state, q, k, v, g, beta, start, scale, work, d);
}
static void kda_backward(float *dq, float *dk, float *dv, float *dg, float *dbeta, float *dstate, const float *dout,
                         const float *states, const float *q, const float *k, const float *v, const float *g,
                         const float *beta, const int *start, double scale, void *work, const DeltaDims *d) {
    OP(kda_backward)(dq, dk, dv, dg, dbeta, dstate, dout, states, q, k, v, g, beta, start, scale, work, d);
}
static void head_xent(float *loss, int *top, float *dx, float *dw, const float *x, const float *w, const int *target,
                      const float *weight, void *work, const HeadDims *d) {
    OP(head_xent)(loss, top, dx, dw, x, w, target, weight, work, d);
}
static void head_kl(float *loss, float *dx, float *dw, const float *x, const float *w, const float *xt, const float *wt,
                    const float *weight, double tau, void *work, const HeadDims *d) {
    OP(head_kl)(loss, dx, dw, x, w, xt, wt, weight, tau, work, d);
}
static void align_loss(float *loss, float *ds, const float *t, const float *s, double weight, int form, int N, int C) {
    OP(align_loss)(loss, ds, t, s, weight, form, N, C);
}
static void adamw(const Trained32 *list, double grad_scale, double beta1, double beta2, double eps, int64_t step,
                  uint64_t seed, int tensors) {
    OP(adamw)(list, grad_scale, beta1, beta2, eps, step, seed, tensors);
}

const Ops32 ops_cpu32 = {
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
