/* opcheck_mixers.c - rows of the token mixers: attention, the short convolution, gates, the three scans, and each gate
 * with its scan as one op, where an error of the scan's dg shows in the gradients of what is trained. */
#include "tools/opcheck_parts.h"

/* What the three scans share. */
#define SCAN_CASES                                                                                                     \
    "", "B=1 T=1 H=1 Hk=1 K=1 V=1 chunk=1", "chunk=1", "chunk=1 H=4 Hk=2 K=2 V=4 -start",                              \
        "T=7 H=4 Hk=1 K=2 V=4 -start", "chunk=16", "T=9 chunk=64 -start", "T=1 chunk=16", "T=8 chunk=2",               \
        "T=16 chunk=16 -start", "T=10 hard=1 -start", "T=10 hard=1 chunk=16", "T=10 hard=1 chunk=1",                   \
        "T=10 hard=2 -start", "T=10 hard=3 -start", "T=50 H=2 K=8 V=8 chunk=16 nodiff",                                \
        "B=1 T=67 H=4 Hk=2 K=24 V=40 chunk=64 nodiff", "T=150 H=3 Hk=3 K=32 V=32 chunk=64 hard=1 nodiff"
#define SCAN_OUT                                                                                                       \
    "o real out B.T.H.V n=T.K+8; "                                                                                     \
    "states real saved B.H.NC1.K.V n=T.K+8; "                                                                          \
    "final wide out B.H.K.V n=T.K+8; "
#define SCAN_QKV(draw)                                                                                                 \
    "q real in B.T.Hk.K " draw "; "                                                                                    \
    "k real in B.T.Hk.K " draw "; "                                                                                    \
    "v real in B.T.H.V plain; "
#define SCAN_START                                                                                                     \
    "S0 wide in B.H.K.V plain; "                                                                                       \
    "start? int in B.T starts; "
#define SCAN_GRADS                                                                                                     \
    "dq real grad:q B.T.Hk.K n=T.K+8; "                                                                                \
    "dk real grad:k B.T.Hk.K n=T.K+8; "                                                                                \
    "dv real grad:v B.T.H.V n=T.K+8; "
#define SCAN_END                                                                                                       \
    "dS0 wide over:S0 B.H.K.V n=T.K+8; "                                                                               \
    "dout real cot:o B.T.H.V plain; "                                                                                  \
    "dfinal wide cot:final B.H.K.V plain; "                                                                            \
    "work"

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
const OpRow row_attention = {
    .name = "attention",
    .keys = "B=2 T=7 H=4 Hk=2 D=6 past=0 stride=0 window=0 scale=.4 hard=0",
    .cases = {"", "B=1 T=1 H=1 Hk=1 D=1", "T=9 H=3 Hk=3 -start", "T=11 H=4 Hk=1 window=3", "window=1 -start",
              "T=6 window=100 scale=1.5", "T=5 past=8", "T=1 past=13 stride=20 -start", "T=4 past=3 stride=9 window=5",
              "T=6 stride=11 D=8 -start", "T=8 hard=1 -start", "T=8 hard=2", "B=1 T=70 H=2 Hk=1 D=16",
              "B=2 T=130 H=4 Hk=2 D=32 window=50"},
    .tensors = "o real saved B.T.H.D n=Tk.D; "
               "lse wide saved B.T.H n=Tk.D; "
               "q real in B.T.H.D normal; "
               "k real in B.S.Hk.D cache; "
               "v real in B.S.Hk.D cache; "
               "start? int in B.Tk starts; "
               "dq real grad:q B.T.H.D n=Tk.D; "
               "dk real grad:k B.S.Hk.D n=Tk.D; "
               "dv real grad:v B.S.Hk.D n=Tk.D; "
               "dout real cot:o B.T.H.D plain; "
               "work",
    .forward = attention_f,
    .backward = attention_b,
    .naive = naive_attention,
    .work = attn_work,
    FORWARD(attention_forward),
    BACKWARD(attention_backward),
    .forward_only_with = "past",
    .rounded = "v dout",
    .roundings = {1, 2} /* P; P and dS */,
    .flops = {"2.B.H.T.T.D", "5.B.H.T.T.D"},
};
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
const OpRow row_conv = {
    .name = "conv",
    .keys = "B=2 T=7 C=5 W=4 inplace=0",
    .cases = {"", "-tail_in", "T=1 inplace=1", "T=2 inplace=1", "W=1 T=3 -tail_in", "W=8 T=5 -tail_in -start",
              "W=8 T=5 inplace=1 -start", "T=1 C=1 -tail_in", "T=9 W=3 inplace=1", "T=150 C=260 -tail_in"},
    .tensors = "y real out B.T.C n=W; "
               "tail_out? real out B.W-1.C; "
               "x real in B.T.C plain; "
               "w real in C.W plain; "
               "tail_in? real in B.W-1.C plain; "
               "start? int in B.T starts; "
               "dx? real grad:x B.T.C n=W; "
               "dw? wide grad:w C.W n=B.T; "
               "dy real cot:y B.T.C plain",
    .forward = conv_f,
    .backward = conv_b,
    .naive = naive_conv,
    FORWARD(conv_forward),
    BACKWARD(conv_backward),
    .forward_only_with = "tail_in",
    .flops = {"2.B.T.C.W", "4.B.T.C.W"},
};
static void delta_gate_f(const OpCall *c) {
    c->op->delta_gate_forward(at(c, "g"), at(c, "beta"), at(c, "a"), at(c, "b"), at(c, "A_log"), at(c, "dt_bias"),
                              dim(c, "N"), dim(c, "H"));
}
static void delta_gate_b(const OpCall *c) {
    c->op->delta_gate_backward(at(c, "da"), at(c, "db"), at(c, "dA_log"), at(c, "ddt_bias"), at(c, "dg"),
                               at(c, "dbeta"), at(c, "a"), at(c, "g"), at(c, "beta"), at(c, "A_log"), at(c, "dt_bias"),
                               dim(c, "N"), dim(c, "H"));
}
const OpRow row_delta_gate = {
    .name = "delta_gate",
    .keys = "N=5 H=3 hard=0",
    .cases = {"", "N=1 H=1", "N=30 H=4 hard=1", "N=500 H=24", "N=60 H=70"},
    .tensors = "g wide saved N.H; "
               "beta wide saved N.H; "
               "a real in N.H wild; "
               "b real in N.H wild; "
               "A_log wide in H a_log; "
               "dt_bias wide in H plain; "
               "da real grad:a N.H; "
               "db real grad:b N.H; "
               "dA_log? wide grad:A_log H n=N; "
               "ddt_bias? wide grad:dt_bias H n=N; "
               "dg wide cot:g N.H plain; "
               "dbeta wide cot:beta N.H plain",
    .forward = delta_gate_f,
    .backward = delta_gate_b,
    .naive = naive_delta_gate,
    FORWARD(delta_gate_forward),
    BACKWARD(delta_gate_backward),
    .flops = {"40.N.H", "30.N.H"},
};
static void kda_gate_f(const OpCall *c) {
    c->op->kda_gate_forward(at(c, "g"), at(c, "beta"), at(c, "f"), at(c, "b"), at(c, "A_log"), at(c, "dt_bias"),
                            num(c, "lower"), dim(c, "N"), dim(c, "H"), dim(c, "K"));
}
static void kda_gate_b(const OpCall *c) {
    c->op->kda_gate_backward(at(c, "df"), at(c, "db"), at(c, "dA_log"), at(c, "ddt_bias"), at(c, "dg"), at(c, "dbeta"),
                             at(c, "f"), at(c, "g"), at(c, "beta"), at(c, "A_log"), at(c, "dt_bias"), num(c, "lower"),
                             dim(c, "N"), dim(c, "H"), dim(c, "K"));
}
const OpRow row_kda_gate = {
    .name = "kda_gate",
    .keys = "N=5 H=3 K=4 lower=0 hard=0",
    .cases = {"", "N=1 H=1 K=1", "N=30 H=4 K=5 hard=1", "N=200 H=3 K=16", "N=9 H=2 K=37", "lower=-5",
              "N=1 H=1 K=1 lower=-5", "N=30 H=4 K=5 hard=1 lower=-5", "N=200 H=3 K=16 lower=-5",
              "N=9 H=2 K=37 lower=-0.5"},
    .tensors = "g wide saved N.H.K; "
               "beta wide saved N.H; "
               "f real in N.H.K wild; "
               "b real in N.H wild; "
               "A_log wide in H a_log; "
               "dt_bias wide in H.K plain; "
               "df real grad:f N.H.K; "
               "db real grad:b N.H; "
               "dA_log? wide grad:A_log H n=N.K; "
               "ddt_bias? wide grad:dt_bias H.K n=N; "
               "dg wide cot:g N.H.K plain; "
               "dbeta wide cot:beta N.H plain",
    .forward = kda_gate_f,
    .backward = kda_gate_b,
    .naive = naive_kda_gate,
    FORWARD(kda_gate_forward),
    BACKWARD(kda_gate_backward),
    .flops = {"25.N.H.K", "20.N.H.K"},
};
static void gla_gate_f(const OpCall *c) {
    c->op->gla_gate_forward(at(c, "g"), at(c, "x"), num(c, "normalizer"), (size_t)num(c, "n"));
}
static void gla_gate_b(const OpCall *c) {
    c->op->gla_gate_backward(at(c, "dx"), at(c, "dg"), at(c, "x"), num(c, "normalizer"), (size_t)num(c, "n"));
}
const OpRow row_gla_gate = {
    .name = "gla_gate",
    .keys = "n=7 normalizer=16 hard=0",
    .cases = {"", "n=1", "n=100 hard=1", "n=70001 normalizer=2"},
    .tensors = "g wide out n; "
               "x real in n wild; "
               "dx real grad:x n; "
               "dg wide cot:g n plain",
    .forward = gla_gate_f,
    .backward = gla_gate_b,
    .naive = naive_gla_gate,
    FORWARD(gla_gate_forward),
    BACKWARD(gla_gate_backward),
    .flops = {"20.n", "15.n"},
};

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
const OpRow row_delta_rule = {
    .name = "delta_rule",
    .keys = "B=2 T=11 H=2 Hk=2 K=4 V=3 chunk=4 scale=.6 hard=0",
    .cases = {SCAN_CASES},
    .tensors =
        SCAN_OUT SCAN_QKV("unit") "g wide in B.T.H decay; "
                                  "beta wide in B.T.H beta; " SCAN_START SCAN_GRADS "dg wide grad:g B.T.H n=T.K+8; "
                                  "dbeta wide grad:beta B.T.H n=T.K+8; " SCAN_END,
    .forward = delta_rule_f,
    .backward = delta_rule_b,
    .naive = naive_delta_rule,
    .work = delta_work,
    FORWARD(delta_rule_forward),
    BACKWARD(delta_rule_backward),
    .rounded = "v S0 dout dfinal",
    .roundings = {4, 6} /* S, R, A, V'; and dV', dS */,
    .flops = {"7.B.T.H.K.V", "20.B.T.H.K.V"},
};
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
const OpRow row_gla = {
    .name = "gla",
    .keys = "B=2 T=11 H=2 Hk=2 K=4 V=3 chunk=4 scale=.6 hard=0",
    .cases = {SCAN_CASES},
    .tensors = SCAN_OUT SCAN_QKV("plain") "g wide in B.T.Hk.K decay; " SCAN_START SCAN_GRADS
                                          "dg wide grad:g B.T.Hk.K n=T.K+8; " SCAN_END,
    .forward = gla_f,
    .backward = gla_b,
    .naive = naive_gla,
    .work = gla_work_size,
    FORWARD(gla_forward),
    BACKWARD(gla_backward),
    .rounded = "v S0 dout dfinal",
    .roundings = {2, 3} /* S or P, q or k with its decay; and dS or dP */,
    .flops = {"5.B.T.H.K.V", "14.B.T.H.K.V"},
};
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
const OpRow row_kda = {
    .name = "kda",
    .keys = "B=2 T=11 H=2 Hk=2 K=4 V=3 chunk=4 scale=.6 hard=0",
    .cases = {SCAN_CASES},
    .tensors =
        SCAN_OUT SCAN_QKV("unit") "g wide in B.T.H.K decay; "
                                  "beta wide in B.T.H beta; " SCAN_START SCAN_GRADS "dg wide grad:g B.T.H.K n=T.K+8; "
                                  "dbeta wide grad:beta B.T.H n=T.K+8; " SCAN_END,
    .forward = kda_f,
    .backward = kda_b,
    .naive = naive_kda,
    .work = kda_work_size,
    FORWARD(kda_forward),
    BACKWARD(kda_backward),
    .rounded = "v S0 dout dfinal",
    .roundings = {5, 7} /* the delta rule's, and k or q with its decay */,
    .flops = {"7.B.T.H.K.V", "20.B.T.H.K.V"},
};

/* ---- a gate and its scan, forwards and backwards through both: dg and dbeta stay in the workspace ---- */

static size_t dg_bytes(const OpCase *c) {
    return 8 * (size_t)(opcase_product(c, "B.T.H") +
                        opcase_product(c, c->rank[opcase_find(c, "g")] == 4 ? "B.T.H.K" : "B.T.H"));
}
/* dg, zeroed, and dbeta behind it */
static void *dg_open(const OpCall *c, char **dbeta) {
    const size_t scan = (c->c->row->work(c->c) - dg_bytes(c->c)) / 64 * 64;
    char *dg = (char *)at(c, "work") + scan;
    c->be->zero(c->be, dg, dg_bytes(c->c));
    *dbeta = dg + size_of(c, "g");
    return dg;
}
static size_t gdn_mixer_work(const OpCase *c) { return delta_work(c) + dg_bytes(c) + 64; }
static size_t gla_mixer_work(const OpCase *c) { return gla_work_size(c) + dg_bytes(c) + 64; }
static size_t kda_mixer_work(const OpCase *c) { return kda_work_size(c) + dg_bytes(c) + 64; }

static void gdn_mixer_f(const OpCall *c) {
    c->op->delta_gate_forward(at(c, "g"), at(c, "beta"), at(c, "a"), at(c, "b"), at(c, "A_log"), at(c, "dt_bias"),
                              dim(c, "B") * dim(c, "T"), dim(c, "H"));
    delta_rule_f(c);
}
static void gdn_mixer_b(const OpCall *c) {
    const DeltaDims d = delta_dims(c->c);
    char *dbeta;
    void *dg = dg_open(c, &dbeta);
    copy(c, "dS0", "dfinal");
    c->op->delta_rule_backward(at(c, "dq"), at(c, "dk"), at(c, "dv"), dg, (void *)dbeta, at(c, "dS0"), at(c, "dout"),
                               at(c, "states"), at(c, "q"), at(c, "k"), at(c, "v"), at(c, "g"), at(c, "beta"),
                               at(c, "start"), num(c, "scale"), at(c, "work"), &d);
    c->op->delta_gate_backward(at(c, "da"), at(c, "db"), at(c, "dA_log"), at(c, "ddt_bias"), dg, (void *)dbeta,
                               at(c, "a"), at(c, "g"), at(c, "beta"), at(c, "A_log"), at(c, "dt_bias"), d.B * d.T, d.H);
}
static void kda_mixer_f(const OpCall *c) {
    c->op->kda_gate_forward(at(c, "g"), at(c, "beta"), at(c, "f"), at(c, "b"), at(c, "A_log"), at(c, "dt_bias"), 0,
                            dim(c, "B") * dim(c, "T"), dim(c, "H"), dim(c, "K"));
    kda_f(c);
}
static void kda_mixer_b(const OpCall *c) {
    const DeltaDims d = delta_dims(c->c);
    char *dbeta;
    void *dg = dg_open(c, &dbeta);
    copy(c, "dS0", "dfinal");
    c->op->kda_backward(at(c, "dq"), at(c, "dk"), at(c, "dv"), dg, (void *)dbeta, at(c, "dS0"), at(c, "dout"),
                        at(c, "states"), at(c, "q"), at(c, "k"), at(c, "v"), at(c, "g"), at(c, "beta"), at(c, "start"),
                        num(c, "scale"), at(c, "work"), &d);
    c->op->kda_gate_backward(at(c, "df"), at(c, "db"), at(c, "dA_log"), at(c, "ddt_bias"), dg, (void *)dbeta,
                             at(c, "f"), at(c, "g"), at(c, "beta"), at(c, "A_log"), at(c, "dt_bias"), 0, d.B * d.T, d.H,
                             d.K);
}
static void gla_mixer_f(const OpCall *c) {
    c->op->gla_gate_forward(at(c, "g"), at(c, "x"), num(c, "normalizer"), size_of(c, "g") / c->be->wide_size);
    gla_f(c);
}
static void gla_mixer_b(const OpCall *c) {
    const DeltaDims d = delta_dims(c->c);
    char *unused;
    void *dg = dg_open(c, &unused);
    copy(c, "dS0", "dfinal");
    c->op->gla_backward(at(c, "dq"), at(c, "dk"), at(c, "dv"), dg, at(c, "dS0"), at(c, "dout"), at(c, "states"),
                        at(c, "q"), at(c, "k"), at(c, "v"), at(c, "g"), at(c, "start"), num(c, "scale"), at(c, "work"),
                        &d);
    c->op->gla_gate_backward(at(c, "dx"), dg, at(c, "x"), num(c, "normalizer"), size_of(c, "g") / c->be->wide_size);
}

#define MIXER_CASES                                                                                                    \
    "", "B=1 T=1 H=1 Hk=1 K=1 V=1 chunk=1", "chunk=1 H=4 Hk=2 K=2 V=4 -start", "T=7 H=4 Hk=1 K=2 V=4 -start",          \
        "T=9 chunk=64", "T=10 hard=1 -start", "B=1 T=67 H=4 Hk=2 K=24 V=40 chunk=64 nodiff"
#define GATE_INPUTS(a, shape, bias)                                                                                    \
    "g wide saved " shape "; "                                                                                         \
    "beta wide saved B.T.H; " a " real in " shape " gate_in; "                                                         \
    "b real in B.T.H wild; "                                                                                           \
    "A_log wide in H a_log; "                                                                                          \
    "dt_bias wide in " bias " gate_bias; "
#define GATE_GRADS(a, shape, bias)                                                                                     \
    "d" a " real grad:" a " " shape " n=T.K+8; "                                                                       \
    "db real grad:b B.T.H n=T.K+8; "                                                                                   \
    "dA_log? wide grad:A_log H n=B.T.K+8; "                                                                            \
    "ddt_bias? wide grad:dt_bias " bias " n=B.T.K+8; "
const OpRow row_gdn_mixer = {
    .name = "gdn_mixer",
    .keys = "B=2 T=11 H=2 Hk=2 K=4 V=3 chunk=4 scale=.6 hard=0",
    .cases = {MIXER_CASES},
    .tensors = SCAN_OUT GATE_INPUTS("a", "B.T.H", "H") SCAN_QKV("unit")
        SCAN_START SCAN_GRADS GATE_GRADS("a", "B.T.H", "H") SCAN_END,
    .forward = gdn_mixer_f,
    .backward = gdn_mixer_b,
    .naive = naive_gdn_mixer,
    .work = gdn_mixer_work,
    FORWARD(delta_rule_forward),
    BACKWARD(delta_rule_backward),
    .rounded = "v S0 dout dfinal",
    .roundings = {4, 6},
    .flops = {"7.B.T.H.K.V", "20.B.T.H.K.V"},
};
const OpRow row_gla_mixer = {
    .name = "gla_mixer",
    .keys = "B=2 T=11 H=2 Hk=2 K=4 V=3 chunk=4 scale=.6 normalizer=16 hard=0",
    .cases = {MIXER_CASES},
    .tensors = SCAN_OUT "g wide saved B.T.Hk.K; x real in B.T.Hk.K gate_in; " SCAN_QKV("plain") SCAN_START SCAN_GRADS
    "dx real grad:x B.T.Hk.K n=T.K+8; " SCAN_END,
    .forward = gla_mixer_f,
    .backward = gla_mixer_b,
    .naive = naive_gla_mixer,
    .work = gla_mixer_work,
    FORWARD(gla_forward),
    BACKWARD(gla_backward),
    .rounded = "v S0 dout dfinal",
    .roundings = {2, 3},
    .flops = {"5.B.T.H.K.V", "14.B.T.H.K.V"},
};
const OpRow row_kda_mixer = {
    .name = "kda_mixer",
    .keys = "B=2 T=11 H=2 Hk=2 K=4 V=3 chunk=4 scale=.6 hard=0",
    .cases = {MIXER_CASES},
    .tensors = SCAN_OUT GATE_INPUTS("f", "B.T.H.K", "H.K") SCAN_QKV("unit")
        SCAN_START SCAN_GRADS GATE_GRADS("f", "B.T.H.K", "H.K") SCAN_END,
    .forward = kda_mixer_f,
    .backward = kda_mixer_b,
    .naive = naive_kda_mixer,
    .work = kda_mixer_work,
    FORWARD(kda_forward),
    BACKWARD(kda_backward),
    .rounded = "v S0 dout dfinal",
    .roundings = {5, 7},
    .flops = {"7.B.T.H.K.V", "20.B.T.H.K.V"},
};
