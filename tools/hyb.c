/* hyb.c - see hyb.h: oracle.h behind an interface without this project's types. */
#include "tools/hyb.h"
#include "base/mem.h"
#include "tools/oracle.h"
#include <stdio.h>
#include <string.h>

int hyb_abi(void) { return HYB_ABI; }
const char *hyb_op(int i) { return opcheck_name(i); }
const char *hyb_keys(const char *op) {
    for (int i = 0; opcheck_name(i); i++)
        if (!strcmp(opcheck_name(i), op)) return opcheck_keys(i);
    return NULL;
}

static int fail(HybError *error, const Err *e, int rc) {
    if (error) snprintf(error->message, sizeof error->message, "%s%s%s", e->msg, e->hint[0] ? "; " : "", e->hint);
    return rc == ERR_IO || rc == ERR_DEVICE ? HYB_INPUT : rc;
}
static void clear(HybError *error) {
    if (error) error->message[0] = 0;
}

static const DType dtypes[] = {DT_F64, DT_F32, DT_BF16, DT_F16, DT_I32, DT_I64};
static int type_check(HybType t, Err *e) {
    return (unsigned)t > HYB_I64 ? err_set(e, ERR_USAGE, "type: got %d, expected a HybType", (int)t) : OK;
}
static void array_get(double *v, const HybArray *a) {
    for (size_t i = 0; i < a->count; i++)
        if (a->type == HYB_I32) v[i] = ((const int *)a->data)[i];
        else if (a->type == HYB_I64) v[i] = (double)((const long long *)a->data)[i];
    if (a->type < HYB_I32) dtype_convert(DT_F64, v, dtypes[a->type], a->data, a->count);
}
static void array_put(const HybArray *a, const double *v) {
    for (size_t i = 0; i < a->count; i++)
        if (a->type == HYB_I32) ((int *)a->data)[i] = (int)v[i];
        else if (a->type == HYB_I64) ((long long *)a->data)[i] = (long long)v[i];
    if (a->type < HYB_I32) dtype_convert(dtypes[a->type], a->data, DT_F64, v, a->count);
}

static const HybArray *array_find(const HybArray *a, int n, const char *name) {
    for (int i = 0; i < n; i++)
        if (!strcmp(a[i].name, name)) return &a[i];
    return NULL;
}

/* The case with every optional input left out that is not among the arrays. */
static int open_with(Oracle **o, const char *op, const char *shape, DType type, const HybArray *a, int n, Err *e) {
    char text[512];
    int used = snprintf(text, sizeof text, "%s", shape ? shape : "");
    TRY(oracle_open(o, op, shape, type, 0, e));
    for (int i = 0; i < oracle_count(*o); i++) {
        const OracleTensor *t = oracle_tensor(*o, i);
        if (t->role == ORACLE_INPUT && t->optional && t->count && !array_find(a, n, t->name) && used < (int)sizeof text)
            used += snprintf(text + used, sizeof text - (size_t)used, " -%s", t->name);
    }
    oracle_close(*o);
    *o = NULL;
    if (used >= (int)sizeof text) return err_set(e, ERR_USAGE, "%s: the shape is too long", op);
    return oracle_open(o, op, text, type, 0, e);
}

static int inputs_take(Oracle *o, const HybArray *a, int n, Err *e) {
    for (int i = 0; i < n; i++) {
        const OracleTensor *t = oracle_find(o, a[i].name);
        TRY(type_check(a[i].type, e));
        if (!t) return err_set(e, ERR_INPUT, "array \"%s\" is no tensor of the op", a[i].name);
        if (a[i].count != t->count || (t->count && !a[i].data))
            return err_set(e, ERR_INPUT, "array \"%s\": got %zu elements, expected %zu (%s in %s)", a[i].name,
                           a[i].count, t->count, t->letters, oracle_case(o));
    }
    for (int i = 0; i < oracle_count(o); i++) {
        OracleTensor *t = oracle_tensor(o, i);
        if ((t->role != ORACLE_INPUT && t->role != ORACLE_UPSTREAM) || !t->count) continue;
        const HybArray *given = array_find(a, n, t->name);
        if (given) array_get(t->value, given);
        else if (t->role == ORACLE_UPSTREAM || !strcmp(t->name, "S0")) memset(t->value, 0, t->count * sizeof(double));
        else return err_set(e, ERR_INPUT, "input \"%s\" (%s) is missing", t->name, t->letters);
    }
    return oracle_run(o, e);
}

int hyb_tensor(const char *op, const char *shape, int i, HybTensor *out, HybError *error) {
    Err e = {0};
    Oracle *o;
    clear(error);
    memset(out, 0, sizeof *out);
    int rc = oracle_open(&o, op, shape, DT_F64, 0, &e);
    if (rc) return fail(error, &e, rc);
    for (int k = 0; k < oracle_count(o); k++) {
        const OracleTensor *t = oracle_tensor(o, k);
        if (!strcmp(t->name, "work") || i-- > 0) continue;
        snprintf(out->name, sizeof out->name, "%s", t->name);
        snprintf(out->of, sizeof out->of, "%s", t->of);
        snprintf(out->letters, sizeof out->letters, "%s", t->letters);
        out->role = (HybRole)t->role, out->optional = t->optional, out->whole = t->type == DT_I32;
        out->rank = t->rank, out->count = t->count;
        memcpy(out->dims, t->dims, sizeof out->dims);
        break;
    }
    oracle_close(o);
    return out->name[0] ? HYB_OK : HYB_USAGE;
}

int hyb_run(const char *op, const char *shape, HybArray *a, int n, HybError *error) {
    Err e = {0};
    Oracle *o = NULL;
    clear(error);
    int rc = open_with(&o, op, shape, DT_F64, a, n, &e);
    if (!rc) rc = inputs_take(o, a, n, &e);
    for (int i = 0; !rc && i < n; i++) {
        const OracleTensor *t = oracle_find(o, a[i].name);
        if (t->role == ORACLE_OUTPUT || t->role == ORACLE_GRADIENT) array_put(&a[i], t->value);
    }
    oracle_close(o);
    return rc ? fail(error, &e, rc) : HYB_OK;
}

static int judge_one(const Oracle *o, const OracleTensor *t, const HybArray *a, HybVerdict *v, Err *e) {
    void *got;
    TRY(mem_alloc(&got, t->count * sizeof(double), "results", e));
    array_get(got, a);
    const OracleVerdict r = oracle_judge(o, t, got);
    *v = (HybVerdict){.ok = r.c.verdict == COMPARE_OK,
                      .error = r.c.rel,
                      .tolerance = t->tolerance,
                      .margin = r.c.margin,
                      .at = r.c.at,
                      .got = r.c.a,
                      .truth = r.c.r};
    snprintf(v->name, sizeof v->name, "%s", t->name);
    snprintf(v->verdict, sizeof v->verdict, "%s", compare_word(&r.c));
    snprintf(v->where, sizeof v->where, "%s", r.where);
    snprintf(v->guess, sizeof v->guess, "%s", r.guess);
    mem_free(got);
    return OK;
}

int hyb_judge(const char *op, const char *shape, HybType type, const HybArray *a, int n, HybVerdict *verdicts,
              int *judged, HybError *error) {
    Err e = {0};
    Oracle *o = NULL;
    int failed = 0, rc = type_check(type, &e);
    *judged = 0;
    clear(error);
    if (!rc) rc = open_with(&o, op, shape, dtypes[type], a, n, &e);
    if (!rc) rc = inputs_take(o, a, n, &e);
    for (int i = 0; !rc && i < n; i++) {
        const OracleTensor *t = oracle_find(o, a[i].name);
        if (t->role == ORACLE_INPUT || t->role == ORACLE_UPSTREAM || !t->count) continue;
        rc = judge_one(o, t, &a[i], &verdicts[*judged], &e);
        if (!rc) failed += !verdicts[(*judged)++].ok;
    }
    oracle_close(o);
    return rc ? fail(error, &e, rc) : failed ? HYB_FAILED : HYB_OK;
}
