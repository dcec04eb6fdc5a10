/* gradcheck_files.c - cases as safetensors: --dump writes the truth about them, --load judges what another program
 * computed. */
#include "base/mem.h"
#include "io/safetensors.h"
#include "tools/opcheck_parts.h"
#include "tools/oracle.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { META = 2 * (2 * MAX_TENSORS + 6) + 1 };
static const DType types[] = {DT_F64, DT_F32, DT_BF16};
static const char *const type_names[] = {"float64", "float32", "bfloat16"};

static int gradcheck_type(const char *name, DType *type, Err *e) {
    for (int i = 0; i < 3; i++)
        if (!strcmp(name, type_names[i]) || !strcmp(name, dtype_name(types[i]))) return *type = types[i], OK;
    return err_set(e, ERR_USAGE, "dtype: got \"%s\", expected float64, float32 or bfloat16", name);
}
static const char *type_name(DType t) { return type_names[t == DT_F64 ? 0 : t == DT_F32 ? 1 : 2]; }

static size_t type_size(DType t) { return (size_t)dtype_bits(t) / 8; }
/* values as `type`; the file's own order of bytes is the machine's, little-endian */
static int packed(void **out, DType type, const double *v, size_t n, Err *e) {
    TRY(mem_alloc(out, n * type_size(type), "case", e));
    if (type != DT_I32) return dtype_convert(type, *out, DT_F64, v, n), OK;
    for (size_t i = 0; i < n; i++) ((int *)*out)[i] = (int)v[i];
    return OK;
}
static int unpacked(double *v, const Tensor *t, Err *e) {
    if (t->dtype == DT_I32 || t->dtype == DT_I64) {
        for (size_t i = 0; i < t->count; i++) {
            int x = 0;
            long long y = 0;
            if (t->dtype == DT_I32) memcpy(&x, t->data + i * 4, 4), y = x;
            else memcpy(&y, t->data + i * 8, 8);
            v[i] = (double)y;
        }
        return OK;
    }
    if (dtype_convert(DT_F64, v, t->dtype, t->data, t->count))
        return err_set(e, ERR_INPUT, "%s: got %s, expected a float type, I32 or I64", t->name, dtype_name(t->dtype));
    return OK;
}

/* ---- dump ---- */

typedef struct {
    Tensor tensor[MAX_TENSORS];
    void *data[MAX_TENSORS];
    const char *meta[META];
    char text[MAX_TENSORS][2][160], key[MAX_TENSORS][2][48];
    size_t n, metas;
} Out;

static void meta_add(Out *o, const char *key, const char *value) {
    o->meta[o->metas++] = key, o->meta[o->metas++] = value;
    o->meta[o->metas] = NULL;
}
static int tensor_add(Out *o, const OracleTensor *t, DType type, Err *e) {
    const DType as = t->role == ORACLE_INPUT || t->role == ORACLE_UPSTREAM || t->type == DT_I32 ? t->type : DT_F64;
    const size_t n = o->n;
    TRY(packed(&o->data[n], as, t->value, t->count, e));
    o->tensor[n] = (Tensor){.name = t->name,
                            .dtype = as,
                            .rank = t->rank,
                            .count = t->count,
                            .bytes = t->count * type_size(as),
                            .data = o->data[n]};
    for (int d = 0; d < t->rank; d++) o->tensor[n].shape[d] = (size_t)t->dims[d];
    o->n++;
    if (t->tolerance <= 0) return OK;
    snprintf(o->key[n][0], sizeof o->key[n][0], "tolerance.%s", t->name);
    snprintf(o->text[n][0], sizeof o->text[n][0], "%.6e", t->tolerance);
    snprintf(o->key[n][1], sizeof o->key[n][1], "derivation.%s", t->name);
    snprintf(o->text[n][1], sizeof o->text[n][1], "8 u sqrt(n) c: u = 2^-%d, n = %g terms, c = %.3g the condition%s",
             type == DT_F64 ? 53 : 24, t->terms, t->condition,
             type == DT_BF16 ? "; and 2^-8 a rounding to bfloat16" : "");
    meta_add(o, o->key[n][0], o->text[n][0]);
    meta_add(o, o->key[n][1], o->text[n][1]);
    return OK;
}

int gradcheck_dump_case(const char *path, const char *op, const char *shape, DType type, uint64_t seed, Err *e) {
    Oracle *o;
    void *p = NULL;
    char number[24];
    TRY(oracle_open(&o, op, shape, type, seed, e));
    int rc = oracle_run(o, e);
    if (!rc) rc = mem_alloc(&p, sizeof(Out), "dump", e);
    Out *out = p;
    for (int i = 0; !rc && i < oracle_count(o); i++)
        if (oracle_tensor(o, i)->value && oracle_tensor(o, i)->count)
            rc = tensor_add(out, oracle_tensor(o, i), type, e);
    if (!rc) {
        snprintf(number, sizeof number, "%llu", (unsigned long long)seed);
        meta_add(out, "op", op);
        meta_add(out, "case", oracle_case(o));
        meta_add(out, "dtype", type_name(type));
        meta_add(out, "seed", number);
        rc = safetensors_write(path, out->tensor, out->n, out->meta, NULL, NULL, e);
    }
    for (size_t i = 0; out && i < MAX_TENSORS; i++) mem_free(out->data[i]);
    mem_free(out);
    oracle_close(o);
    return rc;
}

/* Each case in each type: DIR/OP[-REGIME-N]-TYPE.safetensors. */
static int dump_types(const GradcheckOptions *g, const char *op, const char *regime, int n, const char *shape,
                      FILE *out, Err *e) {
    for (int i = 0; i < 3; i++) {
        char name[256], path[1400];
        if (regime) snprintf(name, sizeof name, "%s-%s-%d-%s.safetensors", op, regime, n, type_names[i]);
        else snprintf(name, sizeof name, "%s-%s.safetensors", op, type_names[i]);
        TRY(file_join(path, sizeof path, g->dump, name, e));
        TRY(gradcheck_dump_case(path, op, shape, types[i], g->seed, e));
        fprintf(out, "%s\n", path);
    }
    return OK;
}

int gradcheck_dump(const GradcheckOptions *g, FILE *out, Err *e) {
    int found = 0;
    if (!g->op) return err_set(e, ERR_USAGE, "gradcheck: --dump needs --op");
    TRY(file_mkdirs(g->dump, e));
    if (!g->regime) return dump_types(g, g->op, NULL, 0, g->shape, out, e);
    for (int i = 0; i < op_regime_count; i++) {
        const Regime *m = &op_regimes[i];
        if ((strcmp(g->regime, "all") != 0 && strcmp(g->regime, m->name) != 0) || !regime_has(m, g->op)) continue;
        for (int n = 0; n < REGIME_CASES && m->cases[n] && !(m->large && !strcmp(g->regime, "all")); n++, found++) {
            char shape[400];
            snprintf(shape, sizeof shape, "%s %s", m->cases[n], g->shape ? g->shape : "");
            TRY(dump_types(g, g->op, m->name, n, shape, out, e));
        }
    }
    return found ? OK : err_set(e, ERR_USAGE, "regime: \"%s\" is no regime of %s (see --list)", g->regime, g->op);
}

/* ---- load ---- */

static const char *meta_get(const Safetensors *s, const char *key) {
    for (size_t i = 0; i < s->n_meta; i++)
        if (!strcmp(s->meta_key[i], key)) return s->meta_value[i];
    return NULL;
}

static int count_check(const OracleTensor *t, const Tensor *x, const char *path, Err *e) {
    if (!t) return err_set(e, ERR_INPUT, "%s: tensor %s is none of the op's", path, x->name);
    if (x->count == t->count) return OK;
    return err_set(e, ERR_INPUT, "%s: tensor %s: got %zu elements, expected %zu (%s)", path, x->name, x->count,
                   t->count, t->count ? t->letters : "it is absent in this case");
}
static int inputs_read(Oracle *o, const Safetensors *s, Err *e) {
    for (size_t i = 0; i < s->n; i++) {
        const OracleTensor *t = oracle_find(o, s->tensor[i].name);
        TRY(count_check(t, &s->tensor[i], s->path, e));
        if (t->role == ORACLE_INPUT || t->role == ORACLE_UPSTREAM) TRY(unpacked(t->value, &s->tensor[i], e));
    }
    return OK;
}

static void verdict_report(const Oracle *o, const OracleTensor *t, const double *got, const char *op, OpReport report,
                           void *ctx) {
    const OracleVerdict v = oracle_judge(o, t, got);
    OpResult r = {.op = op, .check = "file", .shape = oracle_case(o), .tensor = t->name, .c = v.c, .tol = t->tolerance};
    snprintf(r.index, sizeof r.index, "%s", v.index);
    if (opresult_failed(&r)) {
        snprintf(r.where, sizeof r.where, "%s", v.where);
        snprintf(r.guess, sizeof r.guess, "%s", v.guess);
    }
    report(ctx, &r);
}

static int judge_all(Oracle *o, const Safetensors *s, const char *op, OpReport report, void *ctx, Err *e) {
    TRY(oracle_run(o, e));
    for (size_t i = 0; i < s->n; i++) {
        const OracleTensor *t = oracle_find(o, s->tensor[i].name);
        void *got;
        if (t->role == ORACLE_INPUT || t->role == ORACLE_UPSTREAM) continue;
        TRY(mem_alloc(&got, t->count * sizeof(double), "results", e));
        const int rc = unpacked(got, &s->tensor[i], e);
        if (!rc) verdict_report(o, t, got, op, report, ctx);
        mem_free(got);
        TRY(rc);
    }
    return OK;
}

int gradcheck_load(const GradcheckOptions *g, OpReport report, void *ctx, Err *e) {
    Safetensors s;
    Oracle *o = NULL;
    DType type = DT_F32;
    TRY(safetensors_open(&s, g->load, e));
    const char *op = g->op ? g->op : meta_get(&s, "op"), *shape = g->shape ? g->shape : meta_get(&s, "case"),
               *name = g->dtype ? g->dtype : meta_get(&s, "dtype"), *seed = meta_get(&s, "seed");
    int rc = op ? OK : err_set(e, ERR_USAGE, "%s: metadata has no \"op\": give --op (and --shape)", g->load);
    if (!rc && name) rc = gradcheck_type(name, &type, e);
    if (!rc) rc = oracle_open(&o, op, shape, type, seed && !g->seed_given ? strtoull(seed, NULL, 10) : g->seed, e);
    if (!rc) rc = inputs_read(o, &s, e);
    if (!rc) rc = judge_all(o, &s, op, report, ctx, e);
    oracle_close(o);
    safetensors_close(&s);
    return rc;
}
