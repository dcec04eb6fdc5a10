/* opcheck_table.c - every op of the contract as a row: tensors, cases, adapters, cost. To add an op:
 * write its row here,
     its formula once
 * more in opcheck_naive.c, and nothing else; gradcheck, bench and the tests of every backend then have it. */
#include "tools/opcheck_parts.h"
#include <stddef.h>

void *at(const OpCall *c, const char *tensor) {
    const int i = opcase_find(c->c, tensor);
    return i < 0 ? NULL : c->t[i];
}
size_t size_of(const OpCall *c, const char *tensor) {
    const int i = opcase_find(c->c, tensor);
    const Kind kind = c->c->tensor[i].kind;
    return c->c->count[i] * (kind == REAL   ? c->be->real_size
                             : kind == WIDE ? c->be->wide_size
                             : kind == INT  ? sizeof(int)
                                            : sizeof(double));
}
/* `to` starts as a copy of `from`: for ops that work in place, and for views into a larger tensor. */
static void copy(const OpCall *c, const char *to, const char *from) {
    c->be->move(c->be, at(c, to), at(c, from), size_of(c, from));
}

#define FORWARD(f)  .forward_at = offsetof(Ops, f)
#define BACKWARD(f) .backward_at = offsetof(Ops, f)

/* ---- plain arithmetic ---- */

static void add_f(const OpCall *c) { // inplace 1: y is a; 2: y is b
    const size_t n = (size_t)num(c, "n");
    const int inplace = dim(c, "inplace");
    if (inplace) copy(c, "y", inplace == 1 ? "a" : "b");
    c->op->add(at(c, "y"), at(c, inplace == 1 ? "y" : "a"), at(c, inplace == 2 ? "y" : "b"), n);
}
static void accumulate_f(const OpCall *c) {
    copy(c, "y", "y0");
    c->op->accumulate(at(c, "y"), at(c, "x"), num(c, "alpha"), (size_t)num(c, "n"));
}
static void sum_f(const OpCall *c) { c->op->sum(at(c, "out"), at(c, "x"), (size_t)num(c, "n")); }
/* The n elements are cut into `tensors` tensors of about the same length (some of none); tensor k learns at lr (k + 1),
 * odd ones do not decay. */
enum { LIST = 256 };
static void *cut(const OpCall *c, const char *tensor, size_t from) {
    char *p = at(c, tensor);
    return p ? p + from * (size_of(c, tensor) / (size_t)num(c, "n")) : NULL;
}
static int list_of(const OpCall *c, Trained *list) {
    const int tensors = dim(c, "tensors");
    const size_t n = (size_t)num(c, "n");
    for (int k = 0; k < tensors; k++) {
        const size_t from = n * (size_t)k / (size_t)tensors;
        list[k] = (Trained){.master = cut(c, "master", from),
                            .weight = cut(c, "weight", from),
                            .m = cut(c, "m", from),
                            .v = cut(c, "v", from),
                            .grad = cut(c, "grad", from),
                            .n = n * (size_t)(k + 1) / (size_t)tensors - from,
                            .lr = num(c, "lr") * (k + 1),
                            .decay = k % 2 ? 0 : num(c, "decay")};
    }
    return tensors;
}
static void sumsq_f(const OpCall *c) {
    Trained list[LIST];
    const int tensors = list_of(c, list);
    c->op->sumsq(at(c, "out"), list, tensors);
}

/* ---- embedding and linear ---- */

static void embed_f(const OpCall *c) {
    c->op->embed_forward(at(c, "y"), at(c, "w"), at(c, "ids"), dim(c, "N"), dim(c, "C"), dim(c, "VOC"));
}
static void embed_b(const OpCall *c) {
    c->op->embed_backward(at(c, "dw"), at(c, "dy"), at(c, "ids"), dim(c, "N"), dim(c, "C"), dim(c, "VOC"));
}
static void linear_f(const OpCall *c) {
    c->op->linear_forward(at(c, "y"), at(c, "x"), at(c, "w"), at(c, "b"), dim(c, "N"), dim(c, "I"), dim(c, "O"));
}
static void linear_b(const OpCall *c) {
    c->op->linear_backward(at(c, "dx"), at(c, "dw"), at(c, "db"), at(c, "dy"), at(c, "x"), at(c, "w"), dim(c, "N"),
                           dim(c, "I"), dim(c, "O"));
}

/* ---- norms ---- */

static void rmsnorm_f(const OpCall *c) {
    c->op->rmsnorm_forward(at(c, "y"), at(c, "rstd"), at(c, "x"), at(c, "w"), num(c, "eps"), dim(c, "N"), dim(c, "C"));
}
static void rmsnorm_b(const OpCall *c) {
    c->op->rmsnorm_backward(at(c, "dx"), at(c, "dw"), at(c, "dy"), at(c, "x"), at(c, "w"), at(c, "rstd"), dim(c, "N"),
                            dim(c, "C"));
}
static void add_rmsnorm_f(const OpCall *c) { // inplace 1: sum is a; 2: sum is b
    const int inplace = dim(c, "inplace");
    if (inplace) copy(c, "sum", inplace == 1 ? "a" : "b");
    c->op->add_rmsnorm_forward(at(c, "sum"), at(c, "y"), at(c, "rstd"), at(c, inplace == 1 ? "sum" : "a"),
                               at(c, inplace == 2 ? "sum" : "b"), at(c, "w"), num(c, "eps"), dim(c, "N"), dim(c, "C"));
}
static void gated_rmsnorm_f(const OpCall *c) {
    c->op->gated_rmsnorm_forward(at(c, "y"), at(c, "rstd"), at(c, "x"), at(c, "z"), at(c, "w"), num(c, "eps"),
                                 dim(c, "N"), dim(c, "C"));
}
static void gated_rmsnorm_b(const OpCall *c) {
    c->op->gated_rmsnorm_backward(at(c, "dx"), at(c, "dz"), at(c, "dw"), at(c, "dy"), at(c, "x"), at(c, "z"),
                                  at(c, "w"), at(c, "rstd"), dim(c, "N"), dim(c, "C"));
}
static void sigmoid_rmsnorm_f(const OpCall *c) {
    c->op->sigmoid_rmsnorm_forward(at(c, "y"), at(c, "rstd"), at(c, "x"), at(c, "z"), at(c, "w"), num(c, "eps"),
                                   dim(c, "N"), dim(c, "C"));
}
static void sigmoid_rmsnorm_b(const OpCall *c) {
    c->op->sigmoid_rmsnorm_backward(at(c, "dx"), at(c, "dz"), at(c, "dw"), at(c, "dy"), at(c, "x"), at(c, "z"),
                                    at(c, "w"), at(c, "rstd"), dim(c, "N"), dim(c, "C"));
}
static void l2norm_f(const OpCall *c) {
    c->op->l2norm_forward(at(c, "y"), at(c, "r"), at(c, "x"), num(c, "eps"), dim(c, "N"), dim(c, "C"));
}
static void l2norm_b(const OpCall *c) {
    c->op->l2norm_backward(at(c, "dx"), at(c, "dy"), at(c, "y"), at(c, "r"), dim(c, "N"), dim(c, "C"));
}

/* ---- element-wise ---- */

static void silu_f(const OpCall *c) { c->op->silu_forward(at(c, "y"), at(c, "x"), (size_t)num(c, "n")); }
static void silu_b(const OpCall *c) { c->op->silu_backward(at(c, "dx"), at(c, "dy"), at(c, "x"), (size_t)num(c, "n")); }
static void swiglu_f(const OpCall *c) {
    c->op->swiglu_forward(at(c, "y"), at(c, "gate"), at(c, "up"), (size_t)num(c, "n"));
}
static void swiglu_b(const OpCall *c) {
    c->op->swiglu_backward(at(c, "dgate"), at(c, "dup"), at(c, "dy"), at(c, "gate"), at(c, "up"), (size_t)num(c, "n"));
}
static void rope_f(const OpCall *c) {
    if (dim(c, "inplace")) copy(c, "y", "x");
    c->op->rope_forward(at(c, "y"), at(c, dim(c, "inplace") ? "y" : "x"), at(c, "table"), dim(c, "pos"), dim(c, "B"),
                        dim(c, "T"), dim(c, "H"), dim(c, "D"));
}
static void rope_b(const OpCall *c) {
    c->op->rope_backward(at(c, "dx"), at(c, "dy"), at(c, "table"), dim(c, "pos"), dim(c, "B"), dim(c, "T"), dim(c, "H"),
                         dim(c, "D"));
}

/* ---- token mixers ---- */

static AttnDims attn_dims(const OpCase *c) {
    return (AttnDims){(int)opcase_key(c, "B"),      (int)opcase_key(c, "T"),     (int)opcase_key(c, "past"),
                      (int)opcase_key(c, "stride"), (int)opcase_key(c, "H"),     (int)opcase_key(c, "Hk"),
                      (int)opcase_key(c, "D"),      (int)opcase_key(c, "window")};
}
static size_t attn_work(const OpCase *c) {
    const AttnDims d = attn_dims(c);
    return attention_work(&d);
}
static void attention_f(const OpCall *c) {
    const AttnDims d = attn_dims(c->c);
    c->op->attention_forward(at(c, "o"), at(c, "lse"), at(c, "q"), at(c, "k"), at(c, "v"), at(c, "start"),
                             num(c, "scale"), at(c, "work"), &d);
}
static void attention_b(const OpCall *c) {
    const AttnDims d = attn_dims(c->c);
    c->op->attention_backward(at(c, "dq"), at(c, "dk"), at(c, "dv"), at(c, "dout"), at(c, "o"), at(c, "lse"),
                              at(c, "q"), at(c, "k"), at(c, "v"), at(c, "start"), num(c, "scale"), at(c, "work"), &d);
}
static void conv_f(const OpCall *c) { // inplace: tail_out is tail_in
    const int inplace = dim(c, "inplace") && at(c, "tail_in") && at(c, "tail_out");
    if (inplace) copy(c, "tail_out", "tail_in");
    c->op->conv_forward(at(c, "y"), at(c, "tail_out"), at(c, "x"), at(c, "w"), at(c, inplace ? "tail_out" : "tail_in"),
                        at(c, "start"), dim(c, "B"), dim(c, "T"), dim(c, "C"), dim(c, "W"));
}
static void conv_b(const OpCall *c) {
    c->op->conv_backward(at(c, "dx"), at(c, "dw"), at(c, "dy"), at(c, "x"), at(c, "w"), at(c, "start"), dim(c, "B"),
                         dim(c, "T"), dim(c, "C"), dim(c, "W"));
}
static void delta_gate_f(const OpCall *c) {
    c->op->delta_gate_forward(at(c, "g"), at(c, "beta"), at(c, "a"), at(c, "b"), at(c, "A_log"), at(c, "dt_bias"),
                              dim(c, "N"), dim(c, "H"));
}
static void delta_gate_b(const OpCall *c) {
    c->op->delta_gate_backward(at(c, "da"), at(c, "db"), at(c, "dA_log"), at(c, "ddt_bias"), at(c, "dg"),
                               at(c, "dbeta"), at(c, "a"), at(c, "g"), at(c, "beta"), at(c, "A_log"), at(c, "dt_bias"),
                               dim(c, "N"), dim(c, "H"));
}
static void kda_gate_f(const OpCall *c) {
    c->op->kda_gate_forward(at(c, "g"), at(c, "beta"), at(c, "f"), at(c, "b"), at(c, "A_log"), at(c, "dt_bias"),
                            dim(c, "N"), dim(c, "H"), dim(c, "K"));
}
static void kda_gate_b(const OpCall *c) {
    c->op->kda_gate_backward(at(c, "df"), at(c, "db"), at(c, "dA_log"), at(c, "ddt_bias"), at(c, "dg"), at(c, "dbeta"),
                             at(c, "f"), at(c, "g"), at(c, "beta"), at(c, "A_log"), at(c, "dt_bias"), dim(c, "N"),
                             dim(c, "H"), dim(c, "K"));
}
static void gla_gate_f(const OpCall *c) {
    c->op->gla_gate_forward(at(c, "g"), at(c, "x"), num(c, "normalizer"), (size_t)num(c, "n"));
}
static void gla_gate_b(const OpCall *c) {
    c->op->gla_gate_backward(at(c, "dx"), at(c, "dg"), at(c, "x"), num(c, "normalizer"), (size_t)num(c, "n"));
}

static DeltaDims delta_dims(const OpCase *c) {
    return (DeltaDims){(int)opcase_key(c, "B"),    (int)opcase_key(c, "T"), (int)opcase_key(c, "H"),
                       (int)opcase_key(c, "Hk"),   (int)opcase_key(c, "K"), (int)opcase_key(c, "V"),
                       (int)opcase_key(c, "chunk")};
}
static size_t delta_work(const OpCase *c) {
    const DeltaDims d = delta_dims(c);
    return delta_rule_work(&d);
}
static size_t gla_work_size(const OpCase *c) {
    const DeltaDims d = delta_dims(c);
    return gla_work(&d);
}
static size_t kda_work_size(const OpCase *c) {
    const DeltaDims d = delta_dims(c);
    return kda_work(&d);
}
static void delta_rule_f(const OpCall *c) {
    const DeltaDims d = delta_dims(c->c);
    copy(c, "final", "S0"); // in place: the initial state becomes the final one
    c->op->delta_rule_forward(at(c, "o"), at(c, "states"), at(c, "final"), at(c, "q"), at(c, "k"), at(c, "v"),
                              at(c, "g"), at(c, "beta"), at(c, "start"), num(c, "scale"), at(c, "work"), &d);
}
static void delta_rule_b(const OpCall *c) {
    const DeltaDims d = delta_dims(c->c);
    copy(c, "dS0", "dfinal");
    c->op->delta_rule_backward(at(c, "dq"), at(c, "dk"), at(c, "dv"), at(c, "dg"), at(c, "dbeta"), at(c, "dS0"),
                               at(c, "dout"), at(c, "states"), at(c, "q"), at(c, "k"), at(c, "v"), at(c, "g"),
                               at(c, "beta"), at(c, "start"), num(c, "scale"), at(c, "work"), &d);
}
static void gla_f(const OpCall *c) {
    const DeltaDims d = delta_dims(c->c);
    copy(c, "final", "S0"); // in place: the initial state becomes the final one
    c->op->gla_forward(at(c, "o"), at(c, "states"), at(c, "final"), at(c, "q"), at(c, "k"), at(c, "v"), at(c, "g"),
                       at(c, "start"), num(c, "scale"), at(c, "work"), &d);
}
static void gla_b(const OpCall *c) {
    const DeltaDims d = delta_dims(c->c);
    copy(c, "dS0", "dfinal");
    c->op->gla_backward(at(c, "dq"), at(c, "dk"), at(c, "dv"), at(c, "dg"), at(c, "dS0"), at(c, "dout"),
                        at(c, "states"), at(c, "q"), at(c, "k"), at(c, "v"), at(c, "g"), at(c, "start"),
                        num(c, "scale"), at(c, "work"), &d);
}
static void kda_f(const OpCall *c) {
    const DeltaDims d = delta_dims(c->c);
    copy(c, "final", "S0"); // in place: the initial state becomes the final one
    c->op->kda_forward(at(c, "o"), at(c, "states"), at(c, "final"), at(c, "q"), at(c, "k"), at(c, "v"), at(c, "g"),
                       at(c, "beta"), at(c, "start"), num(c, "scale"), at(c, "work"), &d);
}
static void kda_b(const OpCall *c) {
    const DeltaDims d = delta_dims(c->c);
    copy(c, "dS0", "dfinal");
    c->op->kda_backward(at(c, "dq"), at(c, "dk"), at(c, "dv"), at(c, "dg"), at(c, "dbeta"), at(c, "dS0"), at(c, "dout"),
                        at(c, "states"), at(c, "q"), at(c, "k"), at(c, "v"), at(c, "g"), at(c, "beta"), at(c, "start"),
                        num(c, "scale"), at(c, "work"), &d);
}

/* ---- losses ---- */

static HeadDims head_dims(const OpCase *c) {
    const double Ct = opcase_key(c, "Ct");
    return (HeadDims){(int)opcase_key(c, "N"), (int)opcase_key(c, "C"), Ct > 0 ? (int)Ct : 0, (int)opcase_key(c, "VOC"),
                      (int)opcase_key(c, "block")};
}
static size_t head_work_size(const OpCase *c) {
    const HeadDims d = head_dims(c);
    return head_work(&d);
}
static void xent_call(const OpCall *c, void *dx, void *dw) {
    const HeadDims d = head_dims(c->c);
    c->op->head_xent(at(c, "loss"), at(c, "top"), dx, dw, at(c, "x"), at(c, "w"), at(c, "target"), at(c, "weight"),
                     at(c, "work"), &d);
}
static void xent_f(const OpCall *c) { xent_call(c, NULL, NULL); }
static void xent_b(const OpCall *c) { xent_call(c, at(c, "dx"), at(c, "dw")); }
static void kl_call(const OpCall *c, void *dx, void *dw) {
    const HeadDims d = head_dims(c->c);
    c->op->head_kl(at(c, "loss"), dx, dw, at(c, "x"), at(c, "w"), at(c, "xt"), at(c, "wt"), at(c, "weight"),
                   num(c, "tau"), at(c, "work"), &d);
}
static void kl_f(const OpCall *c) { kl_call(c, NULL, NULL); }
static void kl_b(const OpCall *c) { kl_call(c, at(c, "dx"), at(c, "dw")); }
static void align_call(const OpCall *c, void *ds) {
    c->op->align_loss(at(c, "loss"), ds, at(c, "t"), at(c, "s"), num(c, "weight"), dim(c, "form"), dim(c, "N"),
                      dim(c, "C"));
}
static void align_f(const OpCall *c) { align_call(c, NULL); }
static void align_b(const OpCall *c) { align_call(c, at(c, "ds")); }

static void adamw_f(const OpCall *c) {
    copy(c, "master", "master0");
    copy(c, "m", "m0");
    copy(c, "v", "v0");
    Trained list[LIST];
    const int tensors = list_of(c, list);
    c->op->adamw(list, num(c, "grad_scale"), num(c, "beta1"), num(c, "beta2"), num(c, "eps"), (int64_t)num(c, "step"),
                 0, tensors);
}

// clang-format off
/* A row: name; keys with defaults; cases; tensors; functions. How tensors are written: opcheck_parts.h. */
const OpRow op_rows[] = {
    {"add", "n=7 inplace=0", {"", "n=1", "inplace=1", "inplace=2", "n=40000"},
     "y real out n; a real in n plain; b real in n plain",
     add_f, .naive = naive_add, FORWARD(add), .flops = {"n"}},
    {"accumulate", "n=7 alpha=-0.7", {"", "n=1", "alpha=0", "n=40000 alpha=1"},
     "y real out n; y0 real in n plain; x real in n plain",
     accumulate_f, .naive = naive_accumulate, FORWARD(accumulate), .flops = {"2.n"}},
    {"sum", "n=7", {"", "n=1", "n=4095", "n=4096", "n=4097", "n=100003"},
     "out double out 1; x wide in n near_one",
     sum_f, .naive = naive_sum, FORWARD(sum), .flops = {"n"}},
    {"sumsq", "n=7 tensors=1", {"", "n=1", "n=4095", "n=4096", "n=4097", "n=100003", "n=5 tensors=8", "n=100003 tensors=3",
     "n=60000 tensors=250"},
     "out double out tensors; grad wide in n plain",
     sumsq_f, .naive = naive_sumsq, FORWARD(sumsq), .flops = {"2.n"}},

    {"embed", "N=9 C=5 VOC=4", {"", "N=1 C=1 VOC=1", "N=300 C=130 VOC=17"},
     "y real out N.C; w real in VOC.C plain; ids int in N ids; dw wide grad:w VOC.C n=N; dy real cot:y N.C plain",
     embed_f, embed_b, naive_embed, FORWARD(embed_forward), BACKWARD(embed_backward), .flops = {"N.C", "N.C"}},
    {"linear", "N=5 I=7 O=6", {"", "N=1 I=1 O=1", "N=1 I=9 O=4", "N=3 I=1 O=2", "N=33 I=17 O=19", "N=67 I=130 O=49",
     "N=150 I=96 O=300"},
     "y real out N.O n=I; x real in N.I plain; w real in O.I plain; b? real in O plain; dx? real grad:x N.I n=O; "
     "dw? wide grad:w O.I n=N; db? wide grad:b O n=N; dy real cot:y N.O plain",
     linear_f, linear_b, naive_linear, FORWARD(linear_forward), BACKWARD(linear_backward), .flops = {"2.N.I.O", "4.N.I.O"}},

    {"rmsnorm", "N=5 C=7 eps=1e-5 hard=0", {"", "N=1 C=1 eps=1", "N=3 C=1 eps=2", "N=8 C=33 hard=1 eps=.01",
     "N=40 C=64 hard=1 nodiff", "N=200 C=260"},
     "y real out N.C n=C; rstd wide saved N n=C; x real in N.C normal; w real in C near_one; "
     "dx? real grad:x N.C n=C; dw? wide grad:w C n=N; dy real cot:y N.C plain",
     rmsnorm_f, rmsnorm_b, naive_rmsnorm, FORWARD(rmsnorm_forward), BACKWARD(rmsnorm_backward), .flops = {"4.N.C", "9.N.C"}},
    {"add_rmsnorm", "N=5 C=7 eps=1e-5 inplace=0", {"", "N=1 C=1 eps=1", "N=3 C=1 eps=2", "N=8 C=33 inplace=1", "N=7 C=64 inplace=2",
     "N=200 C=260"},
     "sum real out N.C; y real out N.C n=C; rstd wide out N n=C; a real in N.C normal; b real in N.C normal; w real in C near_one",
     add_rmsnorm_f, .naive = naive_add_rmsnorm, FORWARD(add_rmsnorm_forward), .flops = {"5.N.C"}, .rounded = "a b", .roundings = {1}},
    {"gated_rmsnorm", "N=5 C=7 eps=1e-5 hard=0", {"", "N=1 C=1 eps=1", "N=3 C=1 eps=2", "N=8 C=33 hard=1 eps=.01",
     "N=40 C=64 hard=1 nodiff", "N=200 C=260"},
     "y real out N.C n=C; rstd wide saved N n=C; x real in N.C normal; z real in N.C wild; w real in C near_one; "
     "dx real grad:x N.C n=C; dz real grad:z N.C n=C; dw? wide grad:w C n=N; dy real cot:y N.C plain",
     gated_rmsnorm_f, gated_rmsnorm_b, naive_gated_rmsnorm, FORWARD(gated_rmsnorm_forward), BACKWARD(gated_rmsnorm_backward),
     .flops = {"10.N.C", "25.N.C"}},
    {"sigmoid_rmsnorm", "N=5 C=7 eps=1e-5 hard=0", {"", "N=1 C=1 eps=1", "N=3 C=1 eps=2", "N=8 C=33 hard=1 eps=.01",
     "N=40 C=64 hard=1 nodiff", "N=200 C=260"},
     "y real out N.C n=C; rstd wide saved N n=C; x real in N.C normal; z real in N.C wild; w real in C near_one; "
     "dx real grad:x N.C n=C; dz real grad:z N.C n=C; dw? wide grad:w C n=N; dy real cot:y N.C plain",
     sigmoid_rmsnorm_f, sigmoid_rmsnorm_b, naive_sigmoid_rmsnorm, FORWARD(sigmoid_rmsnorm_forward), BACKWARD(sigmoid_rmsnorm_backward),
     .flops = {"9.N.C", "22.N.C"}},
    {"l2norm", "N=5 C=7 eps=1e-6 hard=0", {"", "N=1 C=1 eps=.1", "N=8 C=33 hard=1 eps=.01", "N=40 C=64 hard=1 nodiff", "N=500 C=72"},
     "y real saved N.C n=C; r wide saved N n=C; x real in N.C normal; dx real grad:x N.C n=C; "
     "dy real cot:y N.C plain",
     l2norm_f, l2norm_b, naive_l2norm, FORWARD(l2norm_forward), BACKWARD(l2norm_backward), .flops = {"3.N.C", "5.N.C"}},

    {"silu", "n=7 hard=0", {"", "n=1", "n=100 hard=1", "n=70001"},
     "y real out n; x real in n wild; dx real grad:x n; dy real cot:y n plain",
     silu_f, silu_b, naive_silu, FORWARD(silu_forward), BACKWARD(silu_backward), .flops = {"10.n", "14.n"}},
    {"swiglu", "n=7 hard=0", {"", "n=1", "n=100 hard=1", "n=70001"},
     "y real out n; gate real in n wild; up real in n plain; dgate real grad:gate n; dup real grad:up n; "
     "dy real cot:y n plain",
     swiglu_f, swiglu_b, naive_swiglu, FORWARD(swiglu_forward), BACKWARD(swiglu_backward), .flops = {"11.n", "18.n"}},
    {"rope", "B=2 T=5 H=3 D=6 pos=0 inplace=0", {"", "B=1 T=1 H=1 D=2", "pos=4", "pos=2 inplace=1", "B=2 T=70 H=4 D=32 pos=3"},
     "y real out B.T.H.D; x real in B.T.H.D plain; table wide in P.D/2.2 angles; dx real grad:x B.T.H.D; "
     "dy real cot:y B.T.H.D plain",
     rope_f, rope_b, naive_rope, FORWARD(rope_forward), BACKWARD(rope_backward), .flops = {"3.B.T.H.D", "4.B.T.H.D"}},

    {"attention", "B=2 T=7 H=4 Hk=2 D=6 past=0 stride=0 window=0 scale=.4 hard=0",
     {"", "B=1 T=1 H=1 Hk=1 D=1", "T=9 H=3 Hk=3 -start", "T=11 H=4 Hk=1 window=3", "window=1 -start", "T=6 window=100 scale=1.5",
     "T=5 past=8",
      "T=1 past=13 stride=20 -start", "T=4 past=3 stride=9 window=5", "T=6 stride=11 D=8 -start", "T=8 hard=1 -start", "T=8 hard=2",
      "B=1 T=70 H=2 Hk=1 D=16", "B=2 T=130 H=4 Hk=2 D=32 window=50"},
     "o real saved B.T.H.D n=Tk.D; lse wide saved B.T.H n=Tk.D; q real in B.T.H.D normal; k real in B.S.Hk.D cache; "
     "v real in B.S.Hk.D cache; start? int in B.Tk starts; dq real grad:q B.T.H.D n=Tk.D; "
     "dk real grad:k B.S.Hk.D n=Tk.D; dv real grad:v B.S.Hk.D n=Tk.D; dout real cot:o B.T.H.D plain; work",
     attention_f, attention_b, naive_attention, attn_work, FORWARD(attention_forward), BACKWARD(attention_backward),
     .forward_only_with = "past", .rounded = "v dout", .roundings = {1, 2} /* P; P and dS */, .flops = {"2.B.H.T.T.D", "5.B.H.T.T.D"}},
    {"conv", "B=2 T=7 C=5 W=4 inplace=0",
     {"", "-tail_in", "T=1 inplace=1", "T=2 inplace=1", "W=1 T=3 -tail_in", "W=8 T=5 -tail_in -start", "W=8 T=5 inplace=1 -start",
     "T=1 C=1 -tail_in",
      "T=9 W=3 inplace=1", "T=150 C=260 -tail_in"},
     "y real out B.T.C n=W; tail_out? real out B.W-1.C; x real in B.T.C plain; w real in C.W plain; "
     "tail_in? real in B.W-1.C plain; start? int in B.T starts; dx? real grad:x B.T.C n=W; "
     "dw? wide grad:w C.W n=B.T; dy real cot:y B.T.C plain",
     conv_f, conv_b, naive_conv, FORWARD(conv_forward), BACKWARD(conv_backward), .forward_only_with = "tail_in",
     .flops = {"2.B.T.C.W", "4.B.T.C.W"}},
    {"delta_gate", "N=5 H=3 hard=0", {"", "N=1 H=1", "N=30 H=4 hard=1", "N=500 H=24", "N=60 H=70"},
     "g wide saved N.H; beta wide saved N.H; a real in N.H wild; b real in N.H wild; A_log wide in H a_log; "
     "dt_bias wide in H plain; da real grad:a N.H; db real grad:b N.H; dA_log? wide grad:A_log H n=N; "
     "ddt_bias? wide grad:dt_bias H n=N; dg wide cot:g N.H plain; dbeta wide cot:beta N.H plain",
     delta_gate_f, delta_gate_b, naive_delta_gate, FORWARD(delta_gate_forward), BACKWARD(delta_gate_backward), .flops = {"40.N.H",
     "30.N.H"}},
    {"delta_rule", "B=2 T=11 H=2 Hk=2 K=4 V=3 chunk=4 scale=.6 hard=0",
     {"", "B=1 T=1 H=1 Hk=1 K=1 V=1 chunk=1", "chunk=1", "chunk=1 H=4 Hk=2 K=2 V=4 -start", "T=7 H=4 Hk=1 K=2 V=4 -start", "chunk=16",
     "T=9 chunk=64 -start",
      "T=1 chunk=16", "T=8 chunk=2", "T=16 chunk=16 -start", "T=10 hard=1 -start", "T=10 hard=1 chunk=16", "T=10 hard=1 chunk=1",
      "T=10 hard=2 -start",
      "T=10 hard=3 -start", "T=50 H=2 K=8 V=8 chunk=16 nodiff", "B=1 T=67 H=4 Hk=2 K=24 V=40 chunk=64 nodiff",
      "T=150 H=3 Hk=3 K=32 V=32 chunk=64 hard=1 nodiff"},
     "o real out B.T.H.V n=T.K+8; states real saved B.H.NC1.K.V n=T.K+8; final wide out B.H.K.V n=T.K+8; "
     "q real in B.T.Hk.K unit; k real in B.T.Hk.K unit; v real in B.T.H.V plain; g wide in B.T.H decay; "
     "beta wide in B.T.H beta; S0 wide in B.H.K.V plain; start? int in B.T starts; dq real grad:q B.T.Hk.K n=T.K+8; "
     "dk real grad:k B.T.Hk.K n=T.K+8; dv real grad:v B.T.H.V n=T.K+8; dg wide grad:g B.T.H n=T.K+8; "
     "dbeta wide grad:beta B.T.H n=T.K+8; dS0 wide over:S0 B.H.K.V n=T.K+8; dout real cot:o B.T.H.V plain; "
     "dfinal wide cot:final B.H.K.V plain; work",
     delta_rule_f, delta_rule_b, naive_delta_rule, delta_work, FORWARD(delta_rule_forward), BACKWARD(delta_rule_backward),
     .rounded = "v S0 dout dfinal", .roundings = {4, 6} /* S, R, A, V'; and dV', dS */,
     .flops = {"7.B.T.H.K.V", "20.B.T.H.K.V"}},
    {"gla_gate", "n=7 normalizer=16 hard=0", {"", "n=1", "n=100 hard=1", "n=70001 normalizer=2"},
     "g wide out n; x real in n wild; dx real grad:x n; dg wide cot:g n plain",
     gla_gate_f, gla_gate_b, naive_gla_gate, FORWARD(gla_gate_forward), BACKWARD(gla_gate_backward), .flops = {"20.n", "15.n"}},
    {"gla", "B=2 T=11 H=2 Hk=2 K=4 V=3 chunk=4 scale=.6 hard=0",
     {"", "B=1 T=1 H=1 Hk=1 K=1 V=1 chunk=1", "chunk=1", "chunk=1 H=4 Hk=2 K=2 V=4 -start", "T=7 H=4 Hk=1 K=2 V=4 -start", "chunk=16",
     "T=9 chunk=64 -start",
      "T=1 chunk=16", "T=8 chunk=2", "T=16 chunk=16 -start", "T=10 hard=1 -start", "T=10 hard=1 chunk=16", "T=10 hard=1 chunk=1",
      "T=10 hard=2 -start",
      "T=10 hard=3 -start", "T=50 H=2 K=8 V=8 chunk=16 nodiff", "B=1 T=67 H=4 Hk=2 K=24 V=40 chunk=64 nodiff",
      "T=150 H=3 Hk=3 K=32 V=32 chunk=64 hard=1 nodiff"},
     "o real out B.T.H.V n=T.K+8; states real saved B.H.NC1.K.V n=T.K+8; final wide out B.H.K.V n=T.K+8; "
     "q real in B.T.Hk.K plain; k real in B.T.Hk.K plain; v real in B.T.H.V plain; g wide in B.T.Hk.K decay; "
     "S0 wide in B.H.K.V plain; start? int in B.T starts; dq real grad:q B.T.Hk.K n=T.K+8; "
     "dk real grad:k B.T.Hk.K n=T.K+8; dv real grad:v B.T.H.V n=T.K+8; dg wide grad:g B.T.Hk.K n=T.K+8; "
     "dS0 wide over:S0 B.H.K.V n=T.K+8; dout real cot:o B.T.H.V plain; dfinal wide cot:final B.H.K.V plain; work",
     gla_f, gla_b, naive_gla, gla_work_size, FORWARD(gla_forward), BACKWARD(gla_backward),
     .rounded = "v S0 dout dfinal", .roundings = {2, 3} /* S or P, q or k with its decay; and dS or dP */, .flops = {"5.B.T.H.K.V", "14.B.T.H.K.V"}},
    {"kda_gate", "N=5 H=3 K=4 hard=0", {"", "N=1 H=1 K=1", "N=30 H=4 K=5 hard=1", "N=200 H=3 K=16", "N=9 H=2 K=37"},
     "g wide saved N.H.K; beta wide saved N.H; f real in N.H.K wild; b real in N.H wild; A_log wide in H a_log; "
     "dt_bias wide in H.K plain; df real grad:f N.H.K; db real grad:b N.H; dA_log? wide grad:A_log H n=N.K; "
     "ddt_bias? wide grad:dt_bias H.K n=N; dg wide cot:g N.H.K plain; dbeta wide cot:beta N.H plain",
     kda_gate_f, kda_gate_b, naive_kda_gate, FORWARD(kda_gate_forward), BACKWARD(kda_gate_backward), .flops = {"25.N.H.K", "20.N.H.K"}},
    {"kda", "B=2 T=11 H=2 Hk=2 K=4 V=3 chunk=4 scale=.6 hard=0",
     {"", "B=1 T=1 H=1 Hk=1 K=1 V=1 chunk=1", "chunk=1", "chunk=1 H=4 Hk=2 K=2 V=4 -start", "T=7 H=4 Hk=1 K=2 V=4 -start", "chunk=16",
     "T=9 chunk=64 -start",
      "T=1 chunk=16", "T=8 chunk=2", "T=16 chunk=16 -start", "T=10 hard=1 -start", "T=10 hard=1 chunk=16", "T=10 hard=1 chunk=1",
      "T=10 hard=2 -start",
      "T=10 hard=3 -start", "T=50 H=2 K=8 V=8 chunk=16 nodiff", "B=1 T=67 H=4 Hk=2 K=24 V=40 chunk=64 nodiff",
      "T=150 H=3 Hk=3 K=32 V=32 chunk=64 hard=1 nodiff"},
     "o real out B.T.H.V n=T.K+8; states real saved B.H.NC1.K.V n=T.K+8; final wide out B.H.K.V n=T.K+8; "
     "q real in B.T.Hk.K unit; k real in B.T.Hk.K unit; v real in B.T.H.V plain; g wide in B.T.H.K decay; "
     "beta wide in B.T.H beta; S0 wide in B.H.K.V plain; start? int in B.T starts; dq real grad:q B.T.Hk.K n=T.K+8; "
     "dk real grad:k B.T.Hk.K n=T.K+8; dv real grad:v B.T.H.V n=T.K+8; dg wide grad:g B.T.H.K n=T.K+8; "
     "dbeta wide grad:beta B.T.H n=T.K+8; dS0 wide over:S0 B.H.K.V n=T.K+8; dout real cot:o B.T.H.V plain; "
     "dfinal wide cot:final B.H.K.V plain; work",
     kda_f, kda_b, naive_kda, kda_work_size, FORWARD(kda_forward), BACKWARD(kda_backward),
     .rounded = "v S0 dout dfinal", .roundings = {5, 7} /* the delta rule's, and k or q with its decay */, .flops = {"7.B.T.H.K.V", "20.B.T.H.K.V"}},

    {"head_xent", "N=5 C=6 VOC=9 block=2 hard=0", {"", "N=1 C=1 VOC=1 block=1", "N=7 block=7", "N=7 block=100",
     "N=6 C=5 VOC=8 block=4 hard=1", "hard=2",
      "N=70 C=40 VOC=203 block=32"},
     "loss wide out N n=C.VOC; top? int out N; x real in N.C normal; w real in VOC.C plain; "
     "weight? wide in:loss N weight; target int in N target; dx? real grad:x N.C n=C.VOC; "
     "dw? wide grad:w VOC.C n=N.C; work",
     xent_f, xent_b, naive_head_xent, head_work_size, FORWARD(head_xent), BACKWARD(head_xent), .flops = {"2.N.C.VOC", "6.N.C.VOC"},
     .fused = 1, .rounded = "x w", .roundings = {1, 2}},
    {"head_kl", "N=5 C=6 Ct=4 VOC=9 block=2 tau=1 hard=0", {"", "N=1 C=3 Ct=2 VOC=5 block=1", "tau=2", "N=7 tau=.5 block=7",
     "N=7 block=100",
      "N=6 C=5 VOC=8 block=4 hard=1 tau=2", "hard=2", "N=70 C=40 Ct=56 VOC=203 block=32 tau=2"},
     "loss wide out N n=C.VOC; x real in N.C normal; w real in VOC.C plain; xt real in N.Ct plain; "
     "wt real in VOC.Ct plain; weight? wide in:loss N weight; dx? real grad:x N.C n=C.VOC; "
     "dw? wide grad:w VOC.C n=N.C; work",
     kl_f, kl_b, naive_head_kl, head_work_size, FORWARD(head_kl), BACKWARD(head_kl), .flops = {"4.N.C.VOC", "8.N.C.VOC"}, .fused = 1,
     .rounded = "x w xt wt", .roundings = {2, 3}},
    {"align_loss", "N=5 C=6 weight=.3 form=0 hard=0", {"", "form=1", "N=1 C=1", "N=1 C=1 form=1", "N=8 C=33 hard=1 nodiff",
     "N=8 C=33 hard=1 form=1",
      "N=300 C=260", "N=300 C=260 form=1"},
     "loss wide out N n=C; t real in N.C plain; s real in N.C like_t; ds? real grad:s N.C n=C",
     align_f, align_b, naive_align_loss, FORWARD(align_loss), BACKWARD(align_loss), .flops = {"3.N.C", "6.N.C"}, .fused = 1},

    {"adamw", "n=7 tensors=1 step=1 grad_scale=.8 lr=.01 beta1=.9 beta2=.95 eps=1e-8 decay=.1 hard=0",
     {"", "n=1 step=10", "step=1000 eps=.1 decay=0", "hard=2", "n=70001 step=3 grad_scale=1", "n=5 tensors=8", "n=70001 tensors=3",
     "n=9000 tensors=250 lr=1e-4"},
     "master wide out n; weight? real out n; m wide out n; v wide out n; master0 wide in n plain; "
     "m0 wide in n plain; v0 wide in n squares; grad wide in n plain",
     adamw_f, .naive = naive_adamw, FORWARD(adamw), .flops = {"14.n"}},
};
const int op_row_count = sizeof op_rows / sizeof *op_rows;
