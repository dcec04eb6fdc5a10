/* opcheck_table.c - the ops of the contract, each as its adapters and a row: tensors, cases, cost. Token mixers are in
 * opcheck_mixers.c. An op is added by writing its row, its name in op_rows, and its formula once more in
 * opcheck_naive.c; gradcheck and the tests of every backend then have it. */
#include "tools/opcheck_parts.h"

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
void copy(const OpCall *c, const char *to, const char *from) {
    c->be->move(c->be, at(c, to), at(c, from), size_of(c, from));
}

#define NORM_CASES                                                                                                     \
    "", "N=1 C=1 eps=1", "N=3 C=1 eps=2", "N=8 C=33 hard=1 eps=.01", "N=40 C=64 hard=1 nodiff", "N=200 C=260"
#define MAP_CASES "", "n=1", "n=100 hard=1", "n=70001"
#define GATED_NORM_TENSORS                                                                                             \
    "y real out N.C n=C; "                                                                                             \
    "rstd wide saved N n=C; "                                                                                          \
    "x real in N.C normal; "                                                                                           \
    "z real in N.C wild; "                                                                                             \
    "w real in C near_one; "                                                                                           \
    "dx real grad:x N.C n=C; "                                                                                         \
    "dz real grad:z N.C n=C; "                                                                                         \
    "dw? wide grad:w C n=N; "                                                                                          \
    "dy real cot:y N.C plain"

/* ---- plain arithmetic ---- */

static void add_f(const OpCall *c) { // inplace 1: y is a; 2: y is b
    const size_t n = (size_t)num(c, "n");
    const int inplace = dim(c, "inplace");
    if (inplace) copy(c, "y", inplace == 1 ? "a" : "b");
    c->op->add(at(c, "y"), at(c, inplace == 1 ? "y" : "a"), at(c, inplace == 2 ? "y" : "b"), n);
}
static const OpRow row_add = {
    .name = "add",
    .keys = "n=7 inplace=0",
    .cases = {"", "n=1", "inplace=1", "inplace=2", "n=40000"},
    .tensors = "y real out n; "
               "a real in n plain; "
               "b real in n plain",
    .forward = add_f,
    .naive = naive_add,
    FORWARD(add),
    .flops = {"n"},
};
static void accumulate_f(const OpCall *c) {
    copy(c, "y", "y0");
    c->op->accumulate(at(c, "y"), at(c, "x"), num(c, "alpha"), (size_t)num(c, "n"));
}
static const OpRow row_accumulate = {
    .name = "accumulate",
    .keys = "n=7 alpha=-0.7",
    .cases = {"", "n=1", "alpha=0", "n=40000 alpha=1"},
    .tensors = "y real out n; "
               "y0 real in n plain; "
               "x real in n plain",
    .forward = accumulate_f,
    .naive = naive_accumulate,
    FORWARD(accumulate),
    .flops = {"2.n"},
};
static void sum_f(const OpCall *c) { c->op->sum(at(c, "out"), at(c, "x"), (size_t)num(c, "n")); }
static const OpRow row_sum = {
    .name = "sum",
    .keys = "n=7",
    .cases = {"", "n=1", "n=4095", "n=4096", "n=4097", "n=100003"},
    .tensors = "out double out 1; "
               "x wide in n near_one",
    .forward = sum_f,
    .naive = naive_sum,
    FORWARD(sum),
    .flops = {"n"},
};
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
static const OpRow row_sumsq = {
    .name = "sumsq",
    .keys = "n=7 tensors=1",
    .cases = {"", "n=1", "n=4095", "n=4096", "n=4097", "n=100003", "n=5 tensors=8", "n=100003 tensors=3",
              "n=60000 tensors=250"},
    .tensors = "out double out tensors; "
               "grad wide in n plain",
    .forward = sumsq_f,
    .naive = naive_sumsq,
    FORWARD(sumsq),
    .flops = {"2.n"},
};

/* ---- embedding and linear ---- */

static void embed_f(const OpCall *c) {
    c->op->embed_forward(at(c, "y"), at(c, "w"), at(c, "ids"), dim(c, "N"), dim(c, "C"), dim(c, "VOC"));
}
static void embed_b(const OpCall *c) {
    c->op->embed_backward(at(c, "dw"), at(c, "dy"), at(c, "ids"), dim(c, "N"), dim(c, "C"), dim(c, "VOC"));
}
static const OpRow row_embed = {
    .name = "embed",
    .keys = "N=9 C=5 VOC=4",
    .cases = {"", "N=1 C=1 VOC=1", "N=300 C=130 VOC=17"},
    .tensors = "y real out N.C; "
               "w real in VOC.C plain; "
               "ids int in N ids; "
               "dw wide grad:w VOC.C n=N; "
               "dy real cot:y N.C plain",
    .forward = embed_f,
    .backward = embed_b,
    .naive = naive_embed,
    FORWARD(embed_forward),
    BACKWARD(embed_backward),
    .flops = {"N.C", "N.C"},
};
static void linear_f(const OpCall *c) {
    c->op->linear_forward(at(c, "y"), at(c, "x"), at(c, "w"), at(c, "b"), dim(c, "N"), dim(c, "I"), dim(c, "O"));
}
static void linear_b(const OpCall *c) {
    c->op->linear_backward(at(c, "dx"), at(c, "dw"), at(c, "db"), at(c, "dy"), at(c, "x"), at(c, "w"), dim(c, "N"),
                           dim(c, "I"), dim(c, "O"));
}
static const OpRow row_linear = {
    .name = "linear",
    .keys = "N=5 I=7 O=6",
    .cases = {"", "N=1 I=1 O=1", "N=1 I=9 O=4", "N=3 I=1 O=2", "N=33 I=17 O=19", "N=67 I=130 O=49", "N=150 I=96 O=300"},
    .tensors = "y real out N.O n=I; "
               "x real in N.I plain; "
               "w real in O.I plain; "
               "b? real in O plain; "
               "dx? real grad:x N.I n=O; "
               "dw? wide grad:w O.I n=N; "
               "db? wide grad:b O n=N; "
               "dy real cot:y N.O plain",
    .forward = linear_f,
    .backward = linear_b,
    .naive = naive_linear,
    FORWARD(linear_forward),
    BACKWARD(linear_backward),
    .flops = {"2.N.I.O", "4.N.I.O"},
};

/* ---- norms ---- */

static void rmsnorm_f(const OpCall *c) {
    c->op->rmsnorm_forward(at(c, "y"), at(c, "rstd"), at(c, "x"), at(c, "w"), num(c, "eps"), dim(c, "N"), dim(c, "C"));
}
static void rmsnorm_b(const OpCall *c) {
    c->op->rmsnorm_backward(at(c, "dx"), at(c, "dw"), at(c, "dy"), at(c, "x"), at(c, "w"), at(c, "rstd"), dim(c, "N"),
                            dim(c, "C"));
}
static const OpRow row_rmsnorm = {
    .name = "rmsnorm",
    .keys = "N=5 C=7 eps=1e-5 hard=0",
    .cases = {NORM_CASES},
    .tensors = "y real out N.C n=C; "
               "rstd wide saved N n=C; "
               "x real in N.C normal; "
               "w real in C near_one; "
               "dx? real grad:x N.C n=C; "
               "dw? wide grad:w C n=N; "
               "dy real cot:y N.C plain",
    .forward = rmsnorm_f,
    .backward = rmsnorm_b,
    .naive = naive_rmsnorm,
    FORWARD(rmsnorm_forward),
    BACKWARD(rmsnorm_backward),
    .flops = {"4.N.C", "9.N.C"},
};
static void add_rmsnorm_f(const OpCall *c) { // inplace 1: sum is a; 2: sum is b
    const int inplace = dim(c, "inplace");
    if (inplace) copy(c, "sum", inplace == 1 ? "a" : "b");
    c->op->add_rmsnorm_forward(at(c, "sum"), at(c, "y"), at(c, "rstd"), at(c, inplace == 1 ? "sum" : "a"),
                               at(c, inplace == 2 ? "sum" : "b"), at(c, "w"), num(c, "eps"), dim(c, "N"), dim(c, "C"));
}
static const OpRow row_add_rmsnorm = {
    .name = "add_rmsnorm",
    .keys = "N=5 C=7 eps=1e-5 inplace=0",
    .cases = {"", "N=1 C=1 eps=1", "N=3 C=1 eps=2", "N=8 C=33 inplace=1", "N=7 C=64 inplace=2", "N=200 C=260"},
    .tensors = "sum real out N.C; "
               "y real out N.C n=C; "
               "rstd wide out N n=C; "
               "a real in N.C normal; "
               "b real in N.C normal; "
               "w real in C near_one",
    .forward = add_rmsnorm_f,
    .naive = naive_add_rmsnorm,
    FORWARD(add_rmsnorm_forward),
    .flops = {"5.N.C"},
    .rounded = "a b",
    .roundings = {1},
};
static void gated_rmsnorm_f(const OpCall *c) {
    c->op->gated_rmsnorm_forward(at(c, "y"), at(c, "rstd"), at(c, "x"), at(c, "z"), at(c, "w"), num(c, "eps"),
                                 dim(c, "N"), dim(c, "C"));
}
static void gated_rmsnorm_b(const OpCall *c) {
    c->op->gated_rmsnorm_backward(at(c, "dx"), at(c, "dz"), at(c, "dw"), at(c, "dy"), at(c, "x"), at(c, "z"),
                                  at(c, "w"), at(c, "rstd"), dim(c, "N"), dim(c, "C"));
}
static const OpRow row_gated_rmsnorm = {
    .name = "gated_rmsnorm",
    .keys = "N=5 C=7 eps=1e-5 hard=0",
    .cases = {NORM_CASES},
    .tensors = GATED_NORM_TENSORS,
    .forward = gated_rmsnorm_f,
    .backward = gated_rmsnorm_b,
    .naive = naive_gated_rmsnorm,
    FORWARD(gated_rmsnorm_forward),
    BACKWARD(gated_rmsnorm_backward),
    .flops = {"10.N.C", "25.N.C"},
};
static void sigmoid_rmsnorm_f(const OpCall *c) {
    c->op->sigmoid_rmsnorm_forward(at(c, "y"), at(c, "rstd"), at(c, "x"), at(c, "z"), at(c, "w"), num(c, "eps"),
                                   dim(c, "N"), dim(c, "C"));
}
static void sigmoid_rmsnorm_b(const OpCall *c) {
    c->op->sigmoid_rmsnorm_backward(at(c, "dx"), at(c, "dz"), at(c, "dw"), at(c, "dy"), at(c, "x"), at(c, "z"),
                                    at(c, "w"), at(c, "rstd"), dim(c, "N"), dim(c, "C"));
}
static const OpRow row_sigmoid_rmsnorm = {
    .name = "sigmoid_rmsnorm",
    .keys = "N=5 C=7 eps=1e-5 hard=0",
    .cases = {NORM_CASES},
    .tensors = GATED_NORM_TENSORS,
    .forward = sigmoid_rmsnorm_f,
    .backward = sigmoid_rmsnorm_b,
    .naive = naive_sigmoid_rmsnorm,
    FORWARD(sigmoid_rmsnorm_forward),
    BACKWARD(sigmoid_rmsnorm_backward),
    .flops = {"9.N.C", "22.N.C"},
};
static void l2norm_f(const OpCall *c) {
    c->op->l2norm_forward(at(c, "y"), at(c, "r"), at(c, "x"), num(c, "eps"), dim(c, "N"), dim(c, "C"));
}
static void l2norm_b(const OpCall *c) {
    c->op->l2norm_backward(at(c, "dx"), at(c, "dy"), at(c, "y"), at(c, "r"), dim(c, "N"), dim(c, "C"));
}
static const OpRow row_l2norm = {
    .name = "l2norm",
    .keys = "N=5 C=7 eps=1e-6 hard=0",
    .cases = {"", "N=1 C=1 eps=.1", "N=8 C=33 hard=1 eps=.01", "N=40 C=64 hard=1 nodiff", "N=500 C=72"},
    .tensors = "y real saved N.C n=C; "
               "r wide saved N n=C; "
               "x real in N.C normal; "
               "dx real grad:x N.C n=C; "
               "dy real cot:y N.C plain",
    .forward = l2norm_f,
    .backward = l2norm_b,
    .naive = naive_l2norm,
    FORWARD(l2norm_forward),
    BACKWARD(l2norm_backward),
    .flops = {"3.N.C", "5.N.C"},
};

/* ---- element-wise ---- */

static void silu_f(const OpCall *c) { c->op->silu_forward(at(c, "y"), at(c, "x"), (size_t)num(c, "n")); }
static void silu_b(const OpCall *c) { c->op->silu_backward(at(c, "dx"), at(c, "dy"), at(c, "x"), (size_t)num(c, "n")); }
static const OpRow row_silu = {
    .name = "silu",
    .keys = "n=7 hard=0",
    .cases = {MAP_CASES},
    .tensors = "y real out n; "
               "x real in n wild; "
               "dx real grad:x n; "
               "dy real cot:y n plain",
    .forward = silu_f,
    .backward = silu_b,
    .naive = naive_silu,
    FORWARD(silu_forward),
    BACKWARD(silu_backward),
    .flops = {"10.n", "14.n"},
};
static void swiglu_f(const OpCall *c) {
    c->op->swiglu_forward(at(c, "y"), at(c, "gate"), at(c, "up"), (size_t)num(c, "n"));
}
static void swiglu_b(const OpCall *c) {
    c->op->swiglu_backward(at(c, "dgate"), at(c, "dup"), at(c, "dy"), at(c, "gate"), at(c, "up"), (size_t)num(c, "n"));
}
static const OpRow row_swiglu = {
    .name = "swiglu",
    .keys = "n=7 hard=0",
    .cases = {MAP_CASES},
    .tensors = "y real out n; "
               "gate real in n wild; "
               "up real in n plain; "
               "dgate real grad:gate n; "
               "dup real grad:up n; "
               "dy real cot:y n plain",
    .forward = swiglu_f,
    .backward = swiglu_b,
    .naive = naive_swiglu,
    FORWARD(swiglu_forward),
    BACKWARD(swiglu_backward),
    .flops = {"11.n", "18.n"},
};
static void rope_f(const OpCall *c) {
    if (dim(c, "inplace")) copy(c, "y", "x");
    c->op->rope_forward(at(c, "y"), at(c, dim(c, "inplace") ? "y" : "x"), at(c, "table"), dim(c, "pos"), dim(c, "B"),
                        dim(c, "T"), dim(c, "H"), dim(c, "D"));
}
static void rope_b(const OpCall *c) {
    c->op->rope_backward(at(c, "dx"), at(c, "dy"), at(c, "table"), dim(c, "pos"), dim(c, "B"), dim(c, "T"), dim(c, "H"),
                         dim(c, "D"));
}
static const OpRow row_rope = {
    .name = "rope",
    .keys = "B=2 T=5 H=3 D=6 pos=0 inplace=0",
    .cases = {"", "B=1 T=1 H=1 D=2", "pos=4", "pos=2 inplace=1", "B=2 T=70 H=4 D=32 pos=3"},
    .tensors = "y real out B.T.H.D; "
               "x real in B.T.H.D plain; "
               "table wide in P.D/2.2 angles; "
               "dx real grad:x B.T.H.D; "
               "dy real cot:y B.T.H.D plain",
    .forward = rope_f,
    .backward = rope_b,
    .naive = naive_rope,
    FORWARD(rope_forward),
    BACKWARD(rope_backward),
    .flops = {"3.B.T.H.D", "4.B.T.H.D"},
};

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
static const OpRow row_head_xent = {
    .name = "head_xent",
    .keys = "N=5 C=6 VOC=9 block=2 hard=0",
    .cases = {"", "N=1 C=1 VOC=1 block=1", "N=7 block=7", "N=7 block=100", "N=6 C=5 VOC=8 block=4 hard=1", "hard=2",
              "N=70 C=40 VOC=203 block=32"},
    .tensors = "loss wide out N n=C.VOC; "
               "top? int out N; "
               "x real in N.C normal; "
               "w real in VOC.C plain; "
               "weight? wide in:loss N weight; "
               "target int in N target; "
               "dx? real grad:x N.C n=C.VOC; "
               "dw? wide grad:w VOC.C n=N.C; "
               "work",
    .forward = xent_f,
    .backward = xent_b,
    .naive = naive_head_xent,
    .work = head_work_size,
    FORWARD(head_xent),
    BACKWARD(head_xent),
    .flops = {"2.N.C.VOC", "6.N.C.VOC"},
    .fused = 1,
    .rounded = "x w",
    .roundings = {1, 2},
};
static void kl_call(const OpCall *c, void *dx, void *dw) {
    const HeadDims d = head_dims(c->c);
    c->op->head_kl(at(c, "loss"), dx, dw, at(c, "x"), at(c, "w"), at(c, "xt"), at(c, "wt"), at(c, "weight"),
                   num(c, "tau"), at(c, "work"), &d);
}
static void kl_f(const OpCall *c) { kl_call(c, NULL, NULL); }
static void kl_b(const OpCall *c) { kl_call(c, at(c, "dx"), at(c, "dw")); }
static const OpRow row_head_kl = {
    .name = "head_kl",
    .keys = "N=5 C=6 Ct=4 VOC=9 block=2 tau=1 hard=0",
    .cases = {"", "N=1 C=3 Ct=2 VOC=5 block=1", "tau=2", "N=7 tau=.5 block=7", "N=7 block=100",
              "N=6 C=5 VOC=8 block=4 hard=1 tau=2", "hard=2", "N=70 C=40 Ct=56 VOC=203 block=32 tau=2"},
    .tensors = "loss wide out N n=C.VOC; "
               "x real in N.C normal; "
               "w real in VOC.C plain; "
               "xt real in N.Ct plain; "
               "wt real in VOC.Ct plain; "
               "weight? wide in:loss N weight; "
               "dx? real grad:x N.C n=C.VOC; "
               "dw? wide grad:w VOC.C n=N.C; "
               "work",
    .forward = kl_f,
    .backward = kl_b,
    .naive = naive_head_kl,
    .work = head_work_size,
    FORWARD(head_kl),
    BACKWARD(head_kl),
    .flops = {"4.N.C.VOC", "8.N.C.VOC"},
    .fused = 1,
    .rounded = "x w xt wt",
    .roundings = {2, 3},
};
static void align_call(const OpCall *c, void *ds) {
    c->op->align_loss(at(c, "loss"), ds, at(c, "t"), at(c, "s"), num(c, "weight"), dim(c, "form"), dim(c, "N"),
                      dim(c, "C"));
}
static void align_f(const OpCall *c) { align_call(c, NULL); }
static void align_b(const OpCall *c) { align_call(c, at(c, "ds")); }
static const OpRow row_align_loss = {
    .name = "align_loss",
    .keys = "N=5 C=6 weight=.3 form=0 hard=0",
    .cases = {"", "form=1", "N=1 C=1", "N=1 C=1 form=1", "N=8 C=33 hard=1 nodiff", "N=8 C=33 hard=1 form=1",
              "N=300 C=260", "N=300 C=260 form=1"},
    .tensors = "loss wide out N n=C; "
               "t real in N.C plain; "
               "s real in N.C like_t; "
               "ds? real grad:s N.C n=C",
    .forward = align_f,
    .backward = align_b,
    .naive = naive_align_loss,
    FORWARD(align_loss),
    BACKWARD(align_loss),
    .flops = {"3.N.C", "6.N.C"},
    .fused = 1,
};

static void adamw_f(const OpCall *c) {
    copy(c, "master", "master0");
    copy(c, "m", "m0");
    copy(c, "v", "v0");
    Trained list[LIST];
    const int tensors = list_of(c, list);
    c->op->adamw(list, num(c, "grad_scale"), num(c, "beta1"), num(c, "beta2"), num(c, "eps"), (int64_t)num(c, "step"),
                 0, tensors);
}
static const OpRow row_adamw = {
    .name = "adamw",
    .keys = "n=7 tensors=1 step=1 grad_scale=.8 lr=.01 beta1=.9 beta2=.95 eps=1e-8 decay=.1 hard=0",
    .cases = {"", "n=1 step=10", "step=1000 eps=.1 decay=0", "hard=2", "n=70001 step=3 grad_scale=1", "n=5 tensors=8",
              "n=70001 tensors=3", "n=9000 tensors=250 lr=1e-4"},
    .tensors = "master wide out n; "
               "weight? real out n; "
               "m wide out n; "
               "v wide out n; "
               "master0 wide in n plain; "
               "m0 wide in n plain; "
               "v0 wide in n squares; "
               "grad wide in n plain",
    .forward = adamw_f,
    .naive = naive_adamw,
    FORWARD(adamw),
    .flops = {"14.n"},
};

const OpRow *const op_rows[] = {
    &row_add,       &row_accumulate, &row_sum,         &row_sumsq,         &row_embed,
    &row_linear,    &row_rmsnorm,    &row_add_rmsnorm, &row_gated_rmsnorm, &row_sigmoid_rmsnorm,
    &row_l2norm,    &row_silu,       &row_swiglu,      &row_rope,          &row_attention,
    &row_conv,      &row_delta_gate, &row_delta_rule,  &row_gla_gate,      &row_gla,
    &row_kda_gate,  &row_kda,        &row_gdn_mixer,   &row_gla_mixer,     &row_kda_mixer,
    &row_head_xent, &row_head_kl,    &row_align_loss,  &row_adamw,
};
const int op_row_count = sizeof op_rows / sizeof *op_rows;
