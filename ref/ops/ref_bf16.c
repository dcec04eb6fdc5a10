/* ref_bf16.c - the BF16 reference: what is rounded, and where.
 *
 * Every op is the float op of ref32 between two conversions: what it reads is widened exactly, all of its arithmetic is
 * float, and each element of an output is rounded to the nearest even once, when the op is done. A gradient that is
 * added to is widened, added to, and rounded. So this table has the smallest error a BF16 table can have; a faster one
 * may round operands of its matrix units besides.
 *
 * Compiling ref/ops once more with a 16-bit `real` would not say this: C has no arithmetic on such a type,
 * and sums that run through a gradient in memory (dx += dy W) would be rounded at every step.
 * The copies are an allocation, which an op may not report: an op without memory does nothing, and the backend's sync
 * says so. */
#include "ops/bf16.h"
#include "base/err.h"
#include "base/mem.h"
#include <stdatomic.h>

enum { READ, WRITE, UPDATE };
typedef struct {
    int use;
    const Bf16 *h; // NULL: absent, and so is f
    size_t n;
    float *f;
} Copy;

static atomic_int out_of_memory;
/* Backend.sync */
int ref_bf16_sync(Err *e) {
    if (!atomic_exchange(&out_of_memory, 0)) return OK;
    return err_set(e, ERR_MEMORY, "ref-bf16: float copies of an op's tensors: out of memory");
}

static void copies_close(Copy *c, size_t n, int write) {
    for (size_t i = 0; i < n; i++) {
        Bf16 *h = (Bf16 *)c[i].h;
        for (size_t k = 0; write && h && c[i].use != READ && k < c[i].n; k++) h[k] = bf16_round(c[i].f[k]);
        mem_free(c[i].f);
    }
}
static int copies_open(Copy *c, size_t n) {
    for (size_t i = 0; i < n; i++) {
        void *p = NULL;
        if (c[i].h && mem_alloc(&p, (c[i].n + !c[i].n) * sizeof(float), "float copy", NULL)) {
            copies_close(c, i, 0);
            atomic_store(&out_of_memory, 1);
            return 0;
        }
        c[i].f = p;
        for (size_t k = 0; p && c[i].use != WRITE && k < c[i].n; k++) c[i].f[k] = bf16_float(c[i].h[k]);
    }
    return 1;
}

/* The call of a float op, in which F(0), F(1), ... stand for the BF16 tensors listed behind it. */
#define OP16(call, ...)                                                                                                \
    Copy c[] = {__VA_ARGS__};                                                                                          \
    if (!copies_open(c, sizeof c / sizeof *c)) return;                                                                 \
    ops_ref32.call;                                                                                                    \
    copies_close(c, sizeof c / sizeof *c, 1)
#define F(i) c[i].f
#define IN(p, n)                                                                                                       \
    { READ, p, n, NULL }
#define OUT(p, n)                                                                                                      \
    { WRITE, p, n, NULL }
#define ADDS(p, n)                                                                                                     \
    { UPDATE, p, n, NULL }

/* ---- plain arithmetic ---- */

static void add(Bf16 *y, const Bf16 *a, const Bf16 *b, size_t n) {
    OP16(add(F(0), F(1), F(2), n), OUT(y, n), IN(a, n), IN(b, n));
}
static void accumulate(Bf16 *y, const Bf16 *x, double alpha, size_t n) {
    OP16(accumulate(F(0), F(1), alpha, n), ADDS(y, n), IN(x, n));
}
static void sum(double *out, const float *x, size_t n) { ops_ref32.sum(out, x, n); }
static void sumsq(double *out, const Trained16 *list, int tensors) {
    for (int t = 0; t < tensors; t++) {
        const Trained32 one = {.grad = list[t].grad, .n = list[t].n};
        ops_ref32.sumsq(out + t, &one, 1);
    }
}

/* ---- embedding and linear ---- */

static void embed_forward(Bf16 *y, const Bf16 *w, const int *ids, int N, int C, int VOC) {
    OP16(embed_forward(F(0), F(1), ids, N, C, VOC), OUT(y, (size_t)N * C), IN(w, (size_t)VOC * C));
}
static void embed_backward(float *dw, const Bf16 *dy, const int *ids, int N, int C, int VOC) {
    OP16(embed_backward(dw, F(0), ids, N, C, VOC), IN(dy, (size_t)N * C));
}
static void linear_forward(Bf16 *y, const Bf16 *x, const Bf16 *w, const Bf16 *b, int N, int I, int O) {
    const size_t NI = (size_t)N * I, NO = (size_t)N * O, OI = (size_t)O * I;
    OP16(linear_forward(F(0), F(1), F(2), F(3), N, I, O), OUT(y, NO), IN(x, NI), IN(w, OI), IN(b, O));
}
static void linear_backward(Bf16 *dx, float *dw, float *db, const Bf16 *dy, const Bf16 *x, const Bf16 *w, int N, int I,
                            int O) {
    const size_t NI = (size_t)N * I, NO = (size_t)N * O, OI = (size_t)O * I;
    OP16(linear_backward(F(0), dw, db, F(1), F(2), F(3), N, I, O), ADDS(dx, NI), IN(dy, NO), IN(x, NI), IN(w, OI));
}

/* ---- norms ---- */

static void rmsnorm_forward(Bf16 *y, float *rstd, const Bf16 *x, const Bf16 *w, double eps, int N, int C) {
    const size_t NC = (size_t)N * C;
    OP16(rmsnorm_forward(F(0), rstd, F(1), F(2), eps, N, C), OUT(y, NC), IN(x, NC), IN(w, C));
}
static void rmsnorm_backward(Bf16 *dx, float *dw, const Bf16 *dy, const Bf16 *x, const Bf16 *w, const float *rstd,
                             int N, int C) {
    const size_t NC = (size_t)N * C;
    OP16(rmsnorm_backward(F(0), dw, F(1), F(2), F(3), rstd, N, C), ADDS(dx, NC), IN(dy, NC), IN(x, NC), IN(w, C));
}
/* Two ops, as its contract says: the sum is rounded before its squares. */
static void add_rmsnorm_forward(Bf16 *total, Bf16 *y, float *rstd, const Bf16 *a, const Bf16 *b, const Bf16 *w,
                                double eps, int N, int C) {
    add(total, a, b, (size_t)N * C);
    rmsnorm_forward(y, rstd, total, w, eps, N, C);
}
static void gated_rmsnorm_forward(Bf16 *y, float *rstd, const Bf16 *x, const Bf16 *z, const Bf16 *w, double eps, int N,
                                  int C) {
    const size_t NC = (size_t)N * C;
    OP16(gated_rmsnorm_forward(F(0), rstd, F(1), F(2), F(3), eps, N, C), OUT(y, NC), IN(x, NC), IN(z, NC), IN(w, C));
}
static void gated_rmsnorm_backward(Bf16 *dx, Bf16 *dz, float *dw, const Bf16 *dy, const Bf16 *x, const Bf16 *z,
                                   const Bf16 *w, const float *rstd, int N, int C) {
    const size_t NC = (size_t)N * C;
    OP16(gated_rmsnorm_backward(F(0), F(1), dw, F(2), F(3), F(4), F(5), rstd, N, C), ADDS(dx, NC), ADDS(dz, NC),
         IN(dy, NC), IN(x, NC), IN(z, NC), IN(w, C));
}
static void sigmoid_rmsnorm_forward(Bf16 *y, float *rstd, const Bf16 *x, const Bf16 *z, const Bf16 *w, double eps,
                                    int N, int C) {
    const size_t NC = (size_t)N * C;
    OP16(sigmoid_rmsnorm_forward(F(0), rstd, F(1), F(2), F(3), eps, N, C), OUT(y, NC), IN(x, NC), IN(z, NC), IN(w, C));
}
static void sigmoid_rmsnorm_backward(Bf16 *dx, Bf16 *dz, float *dw, const Bf16 *dy, const Bf16 *x, const Bf16 *z,
                                     const Bf16 *w, const float *rstd, int N, int C) {
    const size_t NC = (size_t)N * C;
    OP16(sigmoid_rmsnorm_backward(F(0), F(1), dw, F(2), F(3), F(4), F(5), rstd, N, C), ADDS(dx, NC), ADDS(dz, NC),
         IN(dy, NC), IN(x, NC), IN(z, NC), IN(w, C));
}
static void l2norm_forward(Bf16 *y, float *r, const Bf16 *x, double eps, int N, int C) {
    const size_t NC = (size_t)N * C;
    OP16(l2norm_forward(F(0), r, F(1), eps, N, C), OUT(y, NC), IN(x, NC));
}
static void l2norm_backward(Bf16 *dx, const Bf16 *dy, const Bf16 *y, const float *r, int N, int C) {
    const size_t NC = (size_t)N * C;
    OP16(l2norm_backward(F(0), F(1), F(2), r, N, C), ADDS(dx, NC), IN(dy, NC), IN(y, NC));
}

/* ---- element-wise ---- */

static void silu_forward(Bf16 *y, const Bf16 *x, size_t n) { OP16(silu_forward(F(0), F(1), n), OUT(y, n), IN(x, n)); }
static void silu_backward(Bf16 *dx, const Bf16 *dy, const Bf16 *x, size_t n) {
    OP16(silu_backward(F(0), F(1), F(2), n), ADDS(dx, n), IN(dy, n), IN(x, n));
}
static void swiglu_forward(Bf16 *y, const Bf16 *gate, const Bf16 *up, size_t n) {
    OP16(swiglu_forward(F(0), F(1), F(2), n), OUT(y, n), IN(gate, n), IN(up, n));
}
static void swiglu_backward(Bf16 *dgate, Bf16 *dup, const Bf16 *dy, const Bf16 *gate, const Bf16 *up, size_t n) {
    OP16(swiglu_backward(F(0), F(1), F(2), F(3), F(4), n), ADDS(dgate, n), ADDS(dup, n), IN(dy, n), IN(gate, n),
         IN(up, n));
}
static void rope_forward(Bf16 *y, const Bf16 *x, const float *table, int pos, int B, int T, int H, int D) {
    const size_t n = (size_t)B * T * H * D;
    OP16(rope_forward(F(0), F(1), table, pos, B, T, H, D), OUT(y, n), IN(x, n));
}
static void rope_backward(Bf16 *dx, const Bf16 *dy, const float *table, int pos, int B, int T, int H, int D) {
    const size_t n = (size_t)B * T * H * D;
    OP16(rope_backward(F(0), F(1), table, pos, B, T, H, D), ADDS(dx, n), IN(dy, n));
}

/* ---- token mixers ---- */

/* Elements of q and o; of k and v up to the last row that is read. */
static size_t attn_q(const AttnDims *d) { return (size_t)d->B * d->T * d->H * d->D; }
static size_t attn_k(const AttnDims *d) {
    const size_t Tk = (size_t)d->past + d->T, stride = d->stride ? (size_t)d->stride : Tk;
    return ((size_t)(d->B - 1) * stride + Tk) * d->Hk * d->D;
}
static void attention_forward(Bf16 *o, float *lse, const Bf16 *q, const Bf16 *k, const Bf16 *v, const int *start,
                              double scale, void *work, const AttnDims *d) {
    const size_t nq = attn_q(d), nk = attn_k(d);
    OP16(attention_forward(F(0), lse, F(1), F(2), F(3), start, scale, work, d), OUT(o, nq), IN(q, nq), IN(k, nk),
         IN(v, nk));
}
static void attention_backward(Bf16 *dq, Bf16 *dk, Bf16 *dv, const Bf16 *dout, const Bf16 *o, const float *lse,
                               const Bf16 *q, const Bf16 *k, const Bf16 *v, const int *start, double scale, void *work,
                               const AttnDims *d) {
    const size_t nq = attn_q(d), nk = attn_k(d);
    OP16(attention_backward(F(0), F(1), F(2), F(3), F(4), lse, F(5), F(6), F(7), start, scale, work, d), ADDS(dq, nq),
         ADDS(dk, nk), ADDS(dv, nk), IN(dout, nq), IN(o, nq), IN(q, nq), IN(k, nk), IN(v, nk));
}
static void conv_forward(Bf16 *y, Bf16 *tail_out, const Bf16 *x, const Bf16 *w, const Bf16 *tail_in, const int *start,
                         int B, int T, int C, int W) {
    const size_t n = (size_t)B * T * C, tail = (size_t)B * (W - 1) * C;
    OP16(conv_forward(F(0), F(1), F(2), F(3), F(4), start, B, T, C, W), OUT(y, n), OUT(tail_out, tail), IN(x, n),
         IN(w, (size_t)C * W), IN(tail_in, tail));
}
static void conv_backward(Bf16 *dx, float *dw, const Bf16 *dy, const Bf16 *x, const Bf16 *w, const int *start, int B,
                          int T, int C, int W) {
    const size_t n = (size_t)B * T * C;
    OP16(conv_backward(F(0), dw, F(1), F(2), F(3), start, B, T, C, W), ADDS(dx, n), IN(dy, n), IN(x, n),
         IN(w, (size_t)C * W));
}
static void delta_gate_forward(float *g, float *beta, const Bf16 *a, const Bf16 *b, const float *A_log,
                               const float *dt_bias, int N, int H) {
    const size_t n = (size_t)N * H;
    OP16(delta_gate_forward(g, beta, F(0), F(1), A_log, dt_bias, N, H), IN(a, n), IN(b, n));
}
static void delta_gate_backward(Bf16 *da, Bf16 *db, float *dA_log, float *ddt_bias, const float *dg, const float *dbeta,
                                const Bf16 *a, const float *g, const float *beta, const float *A_log,
                                const float *dt_bias, int N, int H) {
    const size_t n = (size_t)N * H;
    OP16(delta_gate_backward(F(0), F(1), dA_log, ddt_bias, dg, dbeta, F(2), g, beta, A_log, dt_bias, N, H), ADDS(da, n),
         ADDS(db, n), IN(a, n));
}
static void gla_gate_forward(float *g, const Bf16 *x, double normalizer, size_t n) {
    OP16(gla_gate_forward(g, F(0), normalizer, n), IN(x, n));
}
static void gla_gate_backward(Bf16 *dx, const float *dg, const Bf16 *x, double normalizer, size_t n) {
    OP16(gla_gate_backward(F(0), dg, F(1), normalizer, n), ADDS(dx, n), IN(x, n));
}
static void kda_gate_forward(float *g, float *beta, const Bf16 *f, const Bf16 *b, const float *A_log,
                             const float *dt_bias, double lower, int N, int H, int K) {
    const size_t n = (size_t)N * H;
    OP16(kda_gate_forward(g, beta, F(0), F(1), A_log, dt_bias, lower, N, H, K), IN(f, n * K), IN(b, n));
}
static void kda_gate_backward(Bf16 *df, Bf16 *db, float *dA_log, float *ddt_bias, const float *dg, const float *dbeta,
                              const Bf16 *f, const float *g, const float *beta, const float *A_log,
                              const float *dt_bias, double lower, int N, int H, int K) {
    const size_t n = (size_t)N * H;
    OP16(kda_gate_backward(F(0), F(1), dA_log, ddt_bias, dg, dbeta, F(2), g, beta, A_log, dt_bias, lower, N, H, K),
         ADDS(df, n * K), ADDS(db, n), IN(f, n * K));
}

/* Elements of q and k, of v and o. */
static size_t delta_k(const DeltaDims *d) { return (size_t)d->B * d->T * d->Hk * d->K; }
static size_t delta_v(const DeltaDims *d) { return (size_t)d->B * d->T * d->H * d->V; }
/* `states` gets rounded copies; between chunks the float copy runs on. */
static void delta_rule_forward(Bf16 *o, Bf16 *states, float *state, const Bf16 *q, const Bf16 *k, const Bf16 *v,
                               const float *g, const float *beta, const int *start, double scale, void *work,
                               const DeltaDims *d) {
    const size_t nk = delta_k(d), nv = delta_v(d);
    OP16(delta_rule_forward(F(0), F(1), state, F(2), F(3), F(4), g, beta, start, scale, work, d), OUT(o, nv),
         OUT(states, delta_states(d)), IN(q, nk), IN(k, nk), IN(v, nv));
}
static void delta_rule_backward(Bf16 *dq, Bf16 *dk, Bf16 *dv, float *dg, float *dbeta, float *dstate, const Bf16 *dout,
                                const Bf16 *states, const Bf16 *q, const Bf16 *k, const Bf16 *v, const float *g,
                                const float *beta, const int *start, double scale, void *work, const DeltaDims *d) {
    const size_t nk = delta_k(d), nv = delta_v(d);
    OP16(delta_rule_backward(F(0), F(1), F(2), dg, dbeta, dstate, F(3), F(4), F(5), F(6), F(7), g, beta, start, scale,
                             work, d),
         ADDS(dq, nk), ADDS(dk, nk), ADDS(dv, nv), IN(dout, nv), IN(states, delta_states(d)), IN(q, nk), IN(k, nk),
         IN(v, nv));
}
static void gla_forward(Bf16 *o, Bf16 *states, float *state, const Bf16 *q, const Bf16 *k, const Bf16 *v,
                        const float *g, const int *start, double scale, void *work, const DeltaDims *d) {
    const size_t nk = delta_k(d), nv = delta_v(d);
    OP16(gla_forward(F(0), F(1), state, F(2), F(3), F(4), g, start, scale, work, d), OUT(o, nv),
         OUT(states, delta_states(d)), IN(q, nk), IN(k, nk), IN(v, nv));
}
static void gla_backward(Bf16 *dq, Bf16 *dk, Bf16 *dv, float *dg, float *dstate, const Bf16 *dout, const Bf16 *states,
                         const Bf16 *q, const Bf16 *k, const Bf16 *v, const float *g, const int *start, double scale,
                         void *work, const DeltaDims *d) {
    const size_t nk = delta_k(d), nv = delta_v(d);
    OP16(gla_backward(F(0), F(1), F(2), dg, dstate, F(3), F(4), F(5), F(6), F(7), g, start, scale, work, d),
         ADDS(dq, nk), ADDS(dk, nk), ADDS(dv, nv), IN(dout, nv), IN(states, delta_states(d)), IN(q, nk), IN(k, nk),
         IN(v, nv));
}
static void kda_forward(Bf16 *o, Bf16 *states, float *state, const Bf16 *q, const Bf16 *k, const Bf16 *v,
                        const float *g, const float *beta, const int *start, double scale, void *work,
                        const DeltaDims *d) {
    const size_t nk = delta_k(d), nv = delta_v(d);
    OP16(kda_forward(F(0), F(1), state, F(2), F(3), F(4), g, beta, start, scale, work, d), OUT(o, nv),
         OUT(states, delta_states(d)), IN(q, nk), IN(k, nk), IN(v, nv));
}
static void kda_backward(Bf16 *dq, Bf16 *dk, Bf16 *dv, float *dg, float *dbeta, float *dstate, const Bf16 *dout,
                         const Bf16 *states, const Bf16 *q, const Bf16 *k, const Bf16 *v, const float *g,
                         const float *beta, const int *start, double scale, void *work, const DeltaDims *d) {
    const size_t nk = delta_k(d), nv = delta_v(d);
    OP16(
        kda_backward(F(0), F(1), F(2), dg, dbeta, dstate, F(3), F(4), F(5), F(6), F(7), g, beta, start, scale, work, d),
        ADDS(dq, nk), ADDS(dk, nk), ADDS(dv, nv), IN(dout, nv), IN(states, delta_states(d)), IN(q, nk), IN(k, nk),
        IN(v, nv));
}

/* ---- losses: logits stay float ---- */

static void head_xent(float *loss, int *top, Bf16 *dx, float *dw, const Bf16 *x, const Bf16 *w, const int *target,
                      const float *weight, void *work, const HeadDims *d) {
    const size_t nx = (size_t)d->N * d->C, nw = (size_t)d->VOC * d->C;
    OP16(head_xent(loss, top, F(0), dw, F(1), F(2), target, weight, work, d), ADDS(dx, nx), IN(x, nx), IN(w, nw));
}
static void head_kl(float *loss, Bf16 *dx, float *dw, const Bf16 *x, const Bf16 *w, const Bf16 *xt, const Bf16 *wt,
                    const float *weight, double tau, void *work, const HeadDims *d) {
    const size_t nx = (size_t)d->N * d->C, nw = (size_t)d->VOC * d->C, nt = (size_t)d->N * d->Ct,
                 nwt = (size_t)d->VOC * d->Ct;
    OP16(head_kl(loss, F(0), dw, F(1), F(2), F(3), F(4), weight, tau, work, d), ADDS(dx, nx), IN(x, nx), IN(w, nw),
         IN(xt, nt), IN(wt, nwt));
}
static void align_loss(float *loss, Bf16 *ds, const Bf16 *t, const Bf16 *s, double weight, int form, int N, int C) {
    const size_t n = (size_t)N * C;
    OP16(align_loss(loss, F(0), F(1), F(2), weight, form, N, C), ADDS(ds, n), IN(t, n), IN(s, n));
}

/* ---- optimiser: a weight without a master is one for the time of the step, then rounded stochastically ---- */

static void adamw(const Trained16 *list, double grad_scale, double beta1, double beta2, double eps, int64_t step,
                  uint64_t seed, int tensors) {
    for (int t = 0; t < tensors; t++) {
        const Trained16 *p = &list[t];
        Copy c[] = {IN(p->master ? NULL : p->weight, p->n)};
        if (!copies_open(c, 1)) return;
        float *master = p->master ? p->master : c[0].f;
        const Trained32 one = {master, NULL, p->m, p->v, p->grad, p->n, p->lr, p->decay};
        ops_ref32.adamw(&one, grad_scale, beta1, beta2, eps, step, seed, 1);
        const uint64_t key = bf16_key(seed, step, t);
        for (size_t i = 0; p->weight && i < p->n; i++)
            p->weight[i] = p->master ? bf16_round(master[i]) : bf16_dither(master[i], key, i);
        copies_close(c, 1, 0);
    }
}

const Ops16 ops_ref16 = {
#define OP(name) .name = name,
#include "ops/ops.def"
};
