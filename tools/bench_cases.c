/* bench_cases.c - see bench_cases.h. Buffers are numbered in the order of each op's arguments. */
#include "tools/bench_cases.h"
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static void shape(BenchCase *c, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void shape(BenchCase *c, const char *format, ...) {
    va_list a;
    va_start(a, format);
    vsnprintf(c->shape, sizeof c->shape, format, a);
    va_end(a);
}
/* Sizes of all buffers; bytes: each crosses memory once, `twice` of them (those read and written) twice. */
static void sizes(BenchCase *c, int n, const size_t *size, unsigned twice) {
    for (int i = 0; i < n; i++) {
        c->size[i] = size[i];
        c->bytes += 4.0 * (double)size[i] * (twice >> i & 1 ? 2 : 1);
    }
}

/* ---- matrix products: N rows, I inputs, O outputs ---- */

static void linear_prepare(BenchCase *c) {
    const size_t N = c->d[0], I = c->d[1], O = c->d[2], size[] = {N * O, N * I, O * I};
    shape(c, "N %zu I %zu O %zu", N, I, O);
    sizes(c, 3, size, 0);
    c->flops = 2.0 * N * I * O;
}
static void linear_y(const Ops32 *o, BenchCase *c) {
    o->linear_forward(c->b[0], c->b[1], c->b[2], NULL, c->d[0], c->d[1], c->d[2]);
}
static void linear_dx(const Ops32 *o, BenchCase *c) {
    o->linear_backward(c->b[1], NULL, NULL, c->b[0], NULL, c->b[2], c->d[0], c->d[1], c->d[2]);
}
static void linear_dw(const Ops32 *o, BenchCase *c) {
    o->linear_backward(NULL, c->b[2], NULL, c->b[0], c->b[1], NULL, c->d[0], c->d[1], c->d[2]);
}

/* ---- attention: B, T, H, Hk, D ---- */

static AttnDims attention_dims(const BenchCase *c) {
    return (AttnDims){.B = c->d[0], .T = c->d[1], .H = c->d[2], .Hk = c->d[3], .D = c->d[4]};
}
static void attention_prepare(BenchCase *c, double products, int buffers) {
    const AttnDims d = attention_dims(c);
    const size_t bt = (size_t)d.B * d.T, q = bt * d.H * d.D, k = bt * d.Hk * d.D, lse = bt * d.H;
    const size_t forward[] = {q, lse, q, k, k}, backward[] = {q, k, k, q, q, lse, q, k, k};
    shape(c, "B %d T %d H %d/%d D %d", d.B, d.T, d.H, d.Hk, d.D);
    sizes(c, buffers, buffers == 5 ? forward : backward, 0);
    c->flops = products * 2.0 * d.B * d.H * d.D * d.T * (d.T + 1.0) / 2;
    c->work = attention_work(&d);
}
static void attention_f_prepare(BenchCase *c) { attention_prepare(c, 2, 5); }
static void attention_b_prepare(BenchCase *c) { attention_prepare(c, 5, 9); }
static void attention_f(const Ops32 *o, BenchCase *c) {
    const AttnDims d = attention_dims(c);
    o->attention_forward(c->b[0], c->b[1], c->b[2], c->b[3], c->b[4], NULL, 0.125, c->scratch, &d);
}
static void attention_b(const Ops32 *o, BenchCase *c) {
    const AttnDims d = attention_dims(c);
    o->attention_backward(c->b[0], c->b[1], c->b[2], c->b[3], c->b[4], c->b[5], c->b[6], c->b[7], c->b[8], NULL, 0.125,
                          c->scratch, &d);
}

/* ---- linear mixers: B, T, H, width, chunk ---- */

static DeltaDims delta_dims(const BenchCase *c) {
    return (DeltaDims){
        .B = c->d[0], .T = c->d[1], .H = c->d[2], .Hk = c->d[2], .K = c->d[3], .V = c->d[3], .chunk = c->d[4]};
}
/* squares, halves: products with the state (width x width a token) and triangles of a chunk (chunk x width / 2 a token)
 * */
static void delta_prepare(BenchCase *c, double squares, double halves, int buffers, size_t gate) {
    const DeltaDims d = delta_dims(c);
    const size_t bth = (size_t)d.B * d.T * d.H, x = bth * d.K, s = delta_states(&d),
                 last = (size_t)d.B * d.H * d.K * d.V;
    const size_t forward[] = {x, s, x, x, x, bth * gate, bth, last};
    const size_t backward[] = {x, x, x, bth * gate, bth, last, x, s, x, x, x, bth * gate, bth};
    shape(c, "B %d T %d H %d width %d chunk %d", d.B, d.T, d.H, d.K, d.chunk);
    sizes(c, buffers, buffers == 8 ? forward : backward, 0);
    c->flops = (double)bth * (2 * squares * d.K * d.V + halves * d.chunk * d.K);
    c->work = kda_work(&d); // the largest of the three
}
static void delta_f_prepare(BenchCase *c) { delta_prepare(c, 3, 4, 8, 1); }
static void delta_b_prepare(BenchCase *c) { delta_prepare(c, 7, 11, 13, 1); }
static void gla_f_prepare(BenchCase *c) { delta_prepare(c, 2, 2, 8, c->d[3]); }
static void gla_b_prepare(BenchCase *c) { delta_prepare(c, 4, 5, 13, c->d[3]); }
static void kda_f_prepare(BenchCase *c) { delta_prepare(c, 3, 4, 8, c->d[3]); }
static void kda_b_prepare(BenchCase *c) { delta_prepare(c, 7, 11, 13, c->d[3]); }
static void delta_f(const Ops32 *o, BenchCase *c) {
    const DeltaDims d = delta_dims(c);
    o->delta_rule_forward(c->b[0], c->b[1], c->b[7], c->b[2], c->b[3], c->b[4], c->b[5], c->b[6], NULL, 0.125,
                          c->scratch, &d);
}
static void delta_b(const Ops32 *o, BenchCase *c) {
    const DeltaDims d = delta_dims(c);
    o->delta_rule_backward(c->b[0], c->b[1], c->b[2], c->b[3], c->b[4], c->b[5], c->b[6], c->b[7], c->b[8], c->b[9],
                           c->b[10], c->b[11], c->b[12], NULL, 0.125, c->scratch, &d);
}
static void gla_f(const Ops32 *o, BenchCase *c) {
    const DeltaDims d = delta_dims(c);
    o->gla_forward(c->b[0], c->b[1], c->b[7], c->b[2], c->b[3], c->b[4], c->b[5], NULL, 0.125, c->scratch, &d);
}
static void gla_b(const Ops32 *o, BenchCase *c) {
    const DeltaDims d = delta_dims(c);
    o->gla_backward(c->b[0], c->b[1], c->b[2], c->b[3], c->b[5], c->b[6], c->b[7], c->b[8], c->b[9], c->b[10], c->b[11],
                    NULL, 0.125, c->scratch, &d);
}
static void kda_f(const Ops32 *o, BenchCase *c) {
    const DeltaDims d = delta_dims(c);
    o->kda_forward(c->b[0], c->b[1], c->b[7], c->b[2], c->b[3], c->b[4], c->b[5], c->b[6], NULL, 0.125, c->scratch, &d);
}
static void kda_b(const Ops32 *o, BenchCase *c) {
    const DeltaDims d = delta_dims(c);
    o->kda_backward(c->b[0], c->b[1], c->b[2], c->b[3], c->b[4], c->b[5], c->b[6], c->b[7], c->b[8], c->b[9], c->b[10],
                    c->b[11], c->b[12], NULL, 0.125, c->scratch, &d);
}

/* ---- heads: N, C, VOC, block ---- */

static HeadDims head_dims(const BenchCase *c) {
    return (HeadDims){.N = c->d[0], .C = c->d[1], .Ct = c->d[1], .VOC = c->d[2], .block = c->d[3]};
}
static void head_prepare(BenchCase *c, double products, int buffers) {
    const HeadDims d = head_dims(c);
    const size_t x = (size_t)d.N * d.C, w = (size_t)d.VOC * d.C, size[] = {d.N, x, w, x, w, x, w};
    shape(c, "N %d C %d VOC %d block %d", d.N, d.C, d.VOC, d.block);
    sizes(c, buffers, size, 0);
    c->flops = products * 2.0 * x * d.VOC;
    c->work = head_work(&d);
    c->n_ids = d.N, c->VOC = d.VOC;
}
static void xent_prepare(BenchCase *c) { head_prepare(c, 3, 5); }
static void kl_prepare(BenchCase *c) { head_prepare(c, 4, 7); }
static void xent(const Ops32 *o, BenchCase *c) {
    const HeadDims d = head_dims(c);
    o->head_xent(c->b[0], NULL, c->b[1], c->b[2], c->b[3], c->b[4], c->ids, NULL, c->scratch, &d);
}
static void kl(const Ops32 *o, BenchCase *c) {
    const HeadDims d = head_dims(c);
    o->head_kl(c->b[0], c->b[1], c->b[2], c->b[3], c->b[4], c->b[5], c->b[6], NULL, 1, c->scratch, &d);
}

/* ---- rows and elements: N, C (and B, T for what looks along time) ---- */

/* `big` buffers (N,C), then one of N and one of C; `twice`: which are read and written */
static void rows_prepare(BenchCase *c, int big, unsigned twice) {
    const size_t N = c->d[0], C = c->d[1];
    size_t size[8];
    for (int i = 0; i < big; i++) size[i] = N * C;
    size[big] = N, size[big + 1] = C;
    shape(c, "N %zu C %zu", N, C);
    sizes(c, big + 2, size, twice);
}
static void rows2(BenchCase *c) { rows_prepare(c, 2, 0); }
static void rows3(BenchCase *c) { rows_prepare(c, 3, 0); }
static void rows3_add(BenchCase *c) { rows_prepare(c, 3, 1); }
static void rows5_add2(BenchCase *c) { rows_prepare(c, 5, 3); }
static size_t count(const BenchCase *c) { return (size_t)c->d[0] * c->d[1]; }
static void add(const Ops32 *o, BenchCase *c) { o->add(c->b[0], c->b[1], c->b[2], count(c)); }
static void sumsq(const Ops32 *o, BenchCase *c) {
    double s;
    const Trained32 one = {.grad = c->b[0], .n = count(c)};
    o->sumsq(&s, &one, 1);
    c->b[1][0] = (float)s;
}
static void silu_f(const Ops32 *o, BenchCase *c) { o->silu_forward(c->b[0], c->b[1], count(c)); }
static void silu_b(const Ops32 *o, BenchCase *c) { o->silu_backward(c->b[0], c->b[1], c->b[2], count(c)); }
static void swiglu_f(const Ops32 *o, BenchCase *c) { o->swiglu_forward(c->b[0], c->b[1], c->b[2], count(c)); }
static void swiglu_b(const Ops32 *o, BenchCase *c) {
    o->swiglu_backward(c->b[0], c->b[1], c->b[2], c->b[3], c->b[4], count(c));
}
static void rms_f(const Ops32 *o, BenchCase *c) {
    o->rmsnorm_forward(c->b[0], c->b[2], c->b[1], c->b[3], 1e-6, c->d[0], c->d[1]);
}
static void rms_b(const Ops32 *o, BenchCase *c) {
    o->rmsnorm_backward(c->b[0], c->b[4], c->b[1], c->b[2], c->b[4], c->b[3], c->d[0], c->d[1]);
}
static void gated_f(const Ops32 *o, BenchCase *c) {
    o->gated_rmsnorm_forward(c->b[0], c->b[3], c->b[1], c->b[2], c->b[4], 1e-6, c->d[0], c->d[1]);
}
static void gated_b(const Ops32 *o, BenchCase *c) {
    o->gated_rmsnorm_backward(c->b[0], c->b[1], c->b[6], c->b[2], c->b[3], c->b[4], c->b[6], c->b[5], c->d[0], c->d[1]);
}
static void l2_f(const Ops32 *o, BenchCase *c) { o->l2norm_forward(c->b[0], c->b[2], c->b[1], 1e-6, c->d[0], c->d[1]); }
static void l2_b(const Ops32 *o, BenchCase *c) {
    o->l2norm_backward(c->b[0], c->b[1], c->b[2], c->b[3], c->d[0], c->d[1]);
}
static void adamw(const Ops32 *o, BenchCase *c) {
    const Trained32 one = {
        .master = c->b[0], .m = c->b[1], .v = c->b[2], .grad = c->b[3], .n = count(c), .lr = 1e-3, .decay = 0.1};
    o->adamw(&one, 1, 0.9, 0.999, 1e-8, 10, 0, 1);
}
static void adamw_prepare(BenchCase *c) { rows_prepare(c, 4, 7); }
static void gate_f(const Ops32 *o, BenchCase *c) {
    o->delta_gate_forward(c->b[0], c->b[1], c->b[2], c->b[3], c->b[5], c->b[5], c->d[0], c->d[1]);
}
static void gate_prepare(BenchCase *c) { rows_prepare(c, 4, 0); }
/* B, T, C */
static void conv_prepare(BenchCase *c) {
    const size_t x = (size_t)c->d[0] * c->d[1] * c->d[2], w = (size_t)c->d[2] * 4, size[] = {x, x, w, x, w};
    shape(c, "B %d T %d C %d W 4", c->d[0], c->d[1], c->d[2]);
    sizes(c, 5, size, 0);
}
static void conv_f(const Ops32 *o, BenchCase *c) {
    o->conv_forward(c->b[0], NULL, c->b[1], c->b[2], NULL, NULL, c->d[0], c->d[1], c->d[2], 4);
}
static void conv_b(const Ops32 *o, BenchCase *c) {
    o->conv_backward(c->b[0], c->b[4], c->b[1], c->b[3], c->b[2], NULL, c->d[0], c->d[1], c->d[2], 4);
}
/* B, T, H, D */
static void rope_prepare(BenchCase *c) {
    const size_t x = (size_t)c->d[0] * c->d[1] * c->d[2] * c->d[3], size[] = {x, x, (size_t)c->d[1] * c->d[3]};
    shape(c, "B %d T %d H %d D %d", c->d[0], c->d[1], c->d[2], c->d[3]);
    sizes(c, 3, size, 0);
}
static void rope_f(const Ops32 *o, BenchCase *c) {
    o->rope_forward(c->b[0], c->b[1], c->b[2], 0, c->d[0], c->d[1], c->d[2], c->d[3]);
}

#define DEMO  "demo all"
#define LARGE "large all"
#define ROW(name, in, kind, call, ...)                                                                                 \
    {                                                                                                                  \
        .op = name, .sets = in, .prepare = kind, .run = call, .d = { __VA_ARGS__ }                                     \
    }
#define LINEAR(in, ...)                                                                                                \
    ROW("linear_forward", in, linear_prepare, linear_y, __VA_ARGS__),                                                  \
        ROW("linear_dx", in, linear_prepare, linear_dx, __VA_ARGS__),                                                  \
        ROW("linear_dw", in, linear_prepare, linear_dw, __VA_ARGS__)
#define BOTH(name, in, kind, ...)                                                                                      \
    ROW(name "_forward", in, kind##_f_prepare, kind##_f, __VA_ARGS__),                                                 \
        ROW(name "_backward", in, kind##_b_prepare, kind##_b, __VA_ARGS__)
const BenchCase bench_cases[] = {
    LINEAR(DEMO, 2048, 64, 64),
    LINEAR(DEMO, 2048, 64, 172),
    LINEAR(DEMO, 2048, 172, 64),
    LINEAR(DEMO, 2048, 64, 256),
    LINEAR(DEMO, 2048, 64, 4),
    LINEAR(LARGE, 2048, 288, 288),
    LINEAR(LARGE, 2048, 288, 768),
    LINEAR(LARGE, 2048, 768, 288),
    LINEAR(LARGE, 2048, 576, 1536),
    ROW("linear_forward", LARGE, linear_prepare, linear_y, 1, 768, 32000),
    ROW("linear_forward", LARGE, linear_prepare, linear_y, 1, 768, 2048),
    BOTH("attention", DEMO, attention, 16, 96, 4, 4, 16),
    BOTH("attention", DEMO, attention, 8, 256, 4, 2, 16),
    BOTH("attention", LARGE, attention, 8, 256, 6, 6, 48),
    BOTH("attention", LARGE, attention, 4, 512, 6, 6, 48),
    BOTH("attention", LARGE, attention, 2, 2048, 9, 3, 64),
    BOTH("delta_rule", DEMO, delta, 16, 96, 4, 16, 64),
    BOTH("delta_rule", DEMO, delta, 8, 256, 4, 16, 64),
    BOTH("delta_rule", DEMO, delta, 8, 256, 2, 32, 64),
    BOTH("delta_rule", LARGE, delta, 8, 256, 6, 48, 64),
    BOTH("delta_rule", LARGE, delta, 4, 512, 8, 64, 64),
    BOTH("delta_rule", LARGE, delta, 2, 1024, 4, 128, 64),
    BOTH("delta_rule", LARGE, delta, 1, 1024, 4, 64, 64),
    BOTH("delta_rule", LARGE, delta, 1, 8192, 4, 64, 64),
    BOTH("delta_rule", LARGE, delta, 1, 32768, 4, 64, 64),
    BOTH("gla", LARGE, gla, 1, 1024, 4, 64, 64),
    BOTH("gla", LARGE, gla, 1, 8192, 4, 64, 64),
    BOTH("gla", LARGE, gla, 1, 32768, 4, 64, 64),
    BOTH("gla", DEMO, gla, 8, 256, 4, 16, 64),
    BOTH("gla", LARGE, gla, 4, 512, 8, 64, 64),
    BOTH("kda", DEMO, kda, 8, 256, 4, 16, 64),
    BOTH("kda", LARGE, kda, 4, 512, 8, 64, 64),
    BOTH("kda", LARGE, kda, 1, 1024, 4, 64, 64),
    ROW("head_xent", DEMO, xent_prepare, xent, 2048, 64, 256, 512),
    ROW("head_xent", DEMO, xent_prepare, xent, 2048, 64, 4096, 64),
    ROW("head_xent", LARGE, xent_prepare, xent, 2048, 288, 4096, 64),
    ROW("head_xent", LARGE, xent_prepare, xent, 2048, 288, 32000, 64),
    ROW("head_kl", DEMO, kl_prepare, kl, 2048, 64, 256, 512),
    ROW("head_kl", DEMO, kl_prepare, kl, 2048, 64, 4096, 64),
    ROW("head_kl", LARGE, kl_prepare, kl, 2048, 288, 4096, 64),
    ROW("swiglu_forward", DEMO, rows3, swiglu_f, 2048, 172),
    ROW("swiglu_backward", DEMO, rows5_add2, swiglu_b, 2048, 172),
    ROW("swiglu_forward", LARGE, rows3, swiglu_f, 2048, 1536),
    ROW("swiglu_backward", LARGE, rows5_add2, swiglu_b, 2048, 1536),
    ROW("silu_forward", DEMO, rows2, silu_f, 2048, 64),
    ROW("silu_backward", DEMO, rows3_add, silu_b, 2048, 64),
    ROW("rmsnorm_forward", DEMO, rows2, rms_f, 2048, 64),
    ROW("rmsnorm_backward", DEMO, rows3_add, rms_b, 2048, 64),
    ROW("rmsnorm_forward", LARGE, rows2, rms_f, 8192, 576),
    ROW("rmsnorm_backward", LARGE, rows3_add, rms_b, 8192, 576),
    ROW("gated_rmsnorm_forward", DEMO, rows3, gated_f, 8192, 16),
    ROW("gated_rmsnorm_backward", DEMO, rows5_add2, gated_b, 8192, 16),
    ROW("l2norm_forward", DEMO, rows2, l2_f, 8192, 16),
    ROW("l2norm_backward", DEMO, rows3_add, l2_b, 8192, 16),
    ROW("rope_forward", DEMO, rope_prepare, rope_f, 8, 256, 4, 16),
    ROW("conv_forward", DEMO, conv_prepare, conv_f, 8, 256, 64),
    ROW("conv_backward", DEMO, conv_prepare, conv_b, 8, 256, 64),
    ROW("delta_gate_forward", DEMO, gate_prepare, gate_f, 2048, 4),
    ROW("add", DEMO, rows3, add, 2048, 64),
    ROW("sumsq", DEMO, rows2, sumsq, 500, 1000),
    ROW("adamw", DEMO, adamw_prepare, adamw, 500, 1000),
    ROW("adamw", LARGE, adamw_prepare, adamw, 30000, 1000),
};
const int bench_case_count = sizeof bench_cases / sizeof *bench_cases;

BenchCase bench_matmul(int i) {
    static const int pairs[12][2] = {{288, 288}, {768, 288},   {288, 768},  {512, 512},  {512, 2048},  {2048, 512},
                                     {768, 768}, {2048, 2048}, {4096, 288}, {288, 4096}, {32000, 288}, {288, 32000}};
    const int kind = i % 3, M = i / 3 % 2 ? 2048 : 512, *p = pairs[i / 6];
    static const struct {
        const char *name;
        void (*run)(const Ops32 *o, BenchCase *c);
    } kinds[] = {{"linear_forward", linear_y}, {"linear_dx", linear_dx}, {"linear_dw", linear_dw}};
    return (BenchCase){.op = kinds[kind].name,
                       .sets = "matmul",
                       .prepare = linear_prepare,
                       .run = kinds[kind].run,
                       .d = {M, p[1], p[0]}};
}
