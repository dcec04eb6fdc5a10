/* pack.c - gradcheck --pack DIR: the conformance pack. One safetensors file a case, for programs that never link this
 * one: inputs that bfloat16 holds exactly (so that every type can start from the same numbers), float64 results, and
 * in the metadata what the case is and the tolerance of each result for three types. Cases are a plain one an op and
 * the table of regimes, so the pack cannot fall behind the suites. */
#include "base/file.h"
#include "base/mem.h"
#include "io/safetensors.h"
#include "tools/opcheck_parts.h"
#include "tools/oracle.h"
#include <string.h>

static const struct {
    const char *op, *plain, *regimes; /* regimes: NULL: all that the op has */
} rows[] = {
    {"delta_rule", "B=1 T=70 H=4 Hk=2 K=64 V=64 chunk=64 scale=.125 -start", NULL},
    {"kda", "B=1 T=70 H=2 Hk=2 K=64 V=64 chunk=64 scale=.125 -start", NULL},
    {"gla", "B=1 T=70 H=2 Hk=2 K=64 V=64 chunk=64 scale=.125 -start", NULL},
    {"gdn_mixer", "B=2 T=40 H=4 Hk=2 K=16 V=16 chunk=64 scale=.25 -start", "weak-decay decay-20 mixed-decay"},
    {"kda_mixer", "B=2 T=40 H=2 Hk=2 K=16 V=16 chunk=64 scale=.25 -start", "weak-decay decay-20 mixed-decay"},
    {"attention", "B=1 T=70 H=4 Hk=2 D=64 scale=.125 -start", NULL},
    {"conv", "B=2 T=40 C=48 -tail_in -start", NULL},
    {"delta_gate", "N=40 H=6", NULL},
    {"kda_gate", "N=40 H=3 K=16", NULL},
    {"gla_gate", "n=640", NULL},
    {"rmsnorm", "N=20 C=128", NULL},
    {"gated_rmsnorm", "N=20 C=128", NULL},
    {"sigmoid_rmsnorm", "N=20 C=128", NULL},
    {"rope", "B=2 T=20 H=3 D=64 pos=7", "odd-sizes upstream"},
    {"head_xent", "N=20 C=32 VOC=300 block=32", NULL},
    {"head_kl", "N=20 C=32 Ct=24 VOC=300 block=32 tau=2", NULL},
};
static const DType types[] = {DT_BF16, DT_F32, DT_F64}; /* the first says what inputs are rounded to */
static const char *const tolerances[] = {"tolerance.bfloat16", "tolerance.float32", "tolerance.float64"};

typedef struct {
    Tensor tensor[MAX_TENSORS];
    void *data[MAX_TENSORS];
    size_t n;
    char tensors[2048], tolerance[3][1024];
} Out;

static void append(char *dst, size_t cap, const char *text) {
    const size_t n = strlen(dst);
    snprintf(dst + n, cap - n, "%s%s", n ? " " : "", text);
}

/* What only this project's backward needs is not part of the pack. */
static int wanted(const OracleTensor *t) { return t->value && t->count && strcmp(t->name, "states") != 0; }

static int add(Out *out, const OracleTensor *t, Err *e) {
    static const char *const role[] = {"input", "output", "upstream", "gradient"};
    const int given = t->role == ORACLE_INPUT || t->role == ORACLE_UPSTREAM;
    const DType as = t->type == DT_I32 ? DT_I32 : given ? DT_F32 : DT_F64;
    const size_t size = (size_t)dtype_bits(as) / 8;
    char text[128];
    void **data = &out->data[out->n];
    TRY(mem_alloc(data, t->count * size, "case", e));
    for (size_t i = 0; as == DT_I32 && i < t->count; i++) ((int *)*data)[i] = (int)t->value[i];
    if (as != DT_I32) dtype_convert(as, *data, DT_F64, t->value, t->count);
    Tensor *x = &out->tensor[out->n++];
    *x = (Tensor){
        .name = t->name, .dtype = as, .rank = t->rank, .count = t->count, .bytes = t->count * size, .data = *data};
    for (int d = 0; d < t->rank; d++) x->shape[d] = (size_t)t->dims[d];
    snprintf(text, sizeof text, "%s:%s:%s:%s:%s", t->name, role[t->role], t->letters, t->of,
             t->type == DT_I32    ? "int"
             : t->type == DT_BF16 ? "real"
                                  : "wide");
    append(out->tensors, sizeof out->tensors, text);
    return OK;
}

/* Results and tolerances for the k-th type, on the first type's inputs. */
static int solve(Oracle **o, Oracle *first, const char *op, const char *shape, int k, uint64_t seed, Out *out, Err *e) {
    TRY(oracle_open(o, op, shape, types[k], seed, e));
    for (int i = 0; first && i < oracle_count(*o); i++) {
        OracleTensor *t = oracle_tensor(*o, i);
        const OracleTensor *from = oracle_tensor(first, i);
        if ((t->role == ORACLE_INPUT || t->role == ORACLE_UPSTREAM) && t->count)
            memcpy(t->value, from->value, t->count * sizeof(double));
    }
    TRY(oracle_run(*o, e));
    for (int i = 0; i < oracle_count(*o); i++) {
        const OracleTensor *t = oracle_tensor(*o, i);
        char text[80];
        if (!wanted(t) || !(t->tolerance > 0)) continue;
        snprintf(text, sizeof text, "%s=%.4e", t->name, t->tolerance);
        append(out->tolerance[k], sizeof out->tolerance[k], text);
    }
    return OK;
}

static int write_case(const char *path, const char *op, const char *shape, const char *regime, const char *what,
                      uint64_t seed, FILE *list, Err *e) {
    Oracle *o[3] = {NULL, NULL, NULL};
    void *p = NULL;
    TRY(mem_alloc(&p, sizeof(Out), "case", e));
    Out *out = p;
    int rc = OK;
    for (int k = 0; !rc && k < 3; k++) rc = solve(&o[k], k ? o[0] : NULL, op, shape, k, seed, out, e);
    for (int i = 0; !rc && i < oracle_count(o[0]); i++)
        if (wanted(oracle_tensor(o[0], i))) rc = add(out, oracle_tensor(o[0], i), e);
    if (!rc) {
        const char *meta[] = {"op",          op,
                              "case",        oracle_case(o[0]),
                              "regime",      regime,
                              "what",        what,
                              "tensors",     out->tensors,
                              tolerances[0], out->tolerance[0],
                              tolerances[1], out->tolerance[1],
                              tolerances[2], out->tolerance[2],
                              "licence",     "MIT",
                              NULL};
        rc = safetensors_write(path, out->tensor, out->n, meta, NULL, NULL, e);
    }
    if (!rc) fprintf(list, "%s-%s,%s,%s,%s,\"%s\"\n", op, regime, op, regime, oracle_case(o[0]), what);
    for (int k = 0; k < 3; k++) oracle_close(o[k]);
    for (size_t i = 0; i < MAX_TENSORS; i++) mem_free(out->data[i]);
    mem_free(out);
    return rc;
}

static int write_named(const GradcheckOptions *g, const char *op, const char *shape, const char *regime,
                       const char *what, FILE *list, Err *e) {
    char name[128], path[1400];
    snprintf(name, sizeof name, "%s-%s.safetensors", op, regime);
    TRY(file_join(path, sizeof path, g->pack, name, e));
    return write_case(path, op, shape, regime, what, g->seed, list, e);
}

/* The last case of a regime is the one across a boundary of 64 tokens, where it has one. */
static const char *last_case(const Regime *m) {
    int n = 0;
    while (n < REGIME_CASES && m->cases[n]) n++;
    return m->cases[n - 1];
}

static int write_row(const GradcheckOptions *g, int i, FILE *list, Err *e) {
    const char *op = rows[i].op;
    TRY(write_named(g, op, rows[i].plain, "plain", "ordinary sizes and numbers", list, e));
    for (int r = 0; r < op_regime_count; r++) {
        const Regime *m = &op_regimes[r];
        if (m->large || !regime_has(m, op) || (rows[i].regimes && !word_listed(rows[i].regimes, m->name))) continue;
        TRY(write_named(g, op, last_case(m), m->name, m->what, list, e));
    }
    return OK;
}

int gradcheck_pack(const GradcheckOptions *g, FILE *out, Err *e) {
    TRY(file_mkdirs(g->pack, e));
    fprintf(out, "name,op,regime,case,what\n");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (!g->op || !strcmp(g->op, rows[i].op)) TRY(write_row(g, (int)i, out, e));
    return OK;
}
