/* oracle.c - see oracle.h. A Check of opcheck_check.c against a backend that only has types. */
#include "tools/oracle.h"
#include "base/mem.h"
#include "tools/opcheck_parts.h"
#include <math.h>
#include <string.h>

struct Oracle {
    OpCase c;
    OpcheckOptions options;
    Check k;
    Backend like, *ref; /* like: types alone */
    OracleTensor tensor[MAX_TENSORS];
    int opened; /* k.ref holds the case */
};

static const OpRow *row_find(const char *op, Err *e) {
    for (int i = 0; i < op_row_count; i++)
        if (!strcmp(op_rows[i]->name, op)) return op_rows[i];
    opcheck_unknown(op, e);
    return NULL;
}

static OracleRole role_of(Role r) {
    return r == IN ? ORACLE_INPUT : r == COT ? ORACLE_UPSTREAM : is_gradient(r) ? ORACLE_GRADIENT : ORACLE_OUTPUT;
}

static void tensors_fill(Oracle *o) {
    for (int i = 0; i < o->c.tensors; i++) {
        const TensorRow *t = &o->c.tensor[i];
        OracleTensor *x = &o->tensor[i];
        *x = (OracleTensor){.name = t->name,
                            .of = t->of,
                            .letters = t->shape,
                            .role = role_of(t->role),
                            .optional = t->optional,
                            .saved = t->role == SAVED,
                            .rank = o->c.rank[i],
                            .type = t->kind == INT ? DT_I32 : side_type(&o->like, t->kind)};
        for (int d = 0; d < x->rank; d++) x->dims[d] = o->c.dims[i][d];
        x->count = opcase_has(&o->c, i) && t->role != WORK ? o->c.count[i] : 0;
        if (is_gradient(t->role) && !opcase_backward(&o->c)) x->count = 0;
        if (is_gradient(t->role) && !opcase_has(&o->c, opcase_find(&o->c, t->of))) x->count = 0;
        x->value = is_output(t->role) || is_gradient(t->role) ? o->k.out[i] : o->c.value[i];
    }
}

int oracle_open(Oracle **out, const char *op, const char *shape, DType type, uint64_t seed, Err *e) {
    void *p = NULL;
    *out = NULL;
    if (type != DT_F64 && type != DT_F32 && type != DT_BF16)
        return err_set(e, ERR_USAGE, "type: got %s, expected F64, F32 or BF16", dtype_name(type));
    const OpRow *row = row_find(op, e);
    if (!row) return ERR_USAGE;
    TRY(mem_alloc(&p, sizeof(Oracle), "oracle", e));
    Oracle *o = p;
    o->options.seed = seed;
    o->k.o = &o->options;
    o->like = (Backend){.name = dtype_name(type), .real_type = type, .wide_type = type == DT_F64 ? DT_F64 : DT_F32};
    int rc = opcase_open(&o->c, row, NULL, shape && shape[0] ? shape : NULL, 0, e);
    if (!rc) rc = backend_open(&o->ref, "ref64", 1, e);
    if (!rc) {
        opcase_draw(&o->c, seed);
        for (int i = 0; i < o->c.tensors; i++)
            if (o->c.value[i]) side_round(&o->like, o->c.tensor[i].kind, o->c.value[i], o->c.count[i]);
        tensors_fill(o);
        *out = o;
    } else oracle_close(o);
    return rc;
}

void oracle_close(Oracle *o) {
    if (!o) return;
    check_close(&o->k);
    opcase_close(&o->c);
    backend_close(o->ref);
    mem_free(o);
}

int oracle_count(const Oracle *o) { return o->c.tensors; }
OracleTensor *oracle_tensor(Oracle *o, int i) { return i >= 0 && i < o->c.tensors ? &o->tensor[i] : NULL; }
OracleTensor *oracle_find(Oracle *o, const char *name) {
    const int i = opcase_find(&o->c, name);
    return i >= 0 && o->c.tensor[i].role != WORK ? &o->tensor[i] : NULL;
}
const char *oracle_case(const Oracle *o) { return o->c.text; }

/* What the ops read as indices must be indices. */
static int indices_check(const OpCase *c, Err *e) {
    for (int i = 0; i < c->tensors; i++) {
        const TensorRow *t = &c->tensor[i];
        if (t->role != IN || t->kind != INT || !opcase_has(c, i)) continue;
        const int starts = t->draw == STARTS, w = opcase_find(c, "weight");
        for (size_t n = 0; n < c->count[i]; n++) {
            const double v = c->value[i][n],
                         last = starts ? (double)(n % (size_t)c->dims[i][1]) : opcase_key(c, "VOC") - 1;
            const double least = starts && n % (size_t)c->dims[i][1] ? c->value[i][n - 1] : 0;
            if (t->draw == TARGET && w >= 0 && opcase_has(c, w) && c->value[w][n] == 0) continue; // is not read
            if (!(v >= least && v <= last && v == floor(v)))
                return err_set(e, ERR_INPUT, "%s: element %zu: got %g, expected a whole number in [%g, %g]", t->name, n,
                               v, least, last);
        }
    }
    return OK;
}

int oracle_run(Oracle *o, Err *e) {
    TRY(indices_check(&o->c, e));
    check_close(&o->k);
    o->k.given = 1;
    TRY(check_open(&o->k, &o->c, o->ref, o->ref, e)); // what another program saves for backward is its own affair
    TRY(check_condition(&o->k, &o->like, e));
    tensors_fill(o);
    for (int i = 0; i < o->c.tensors; i++) {
        OracleTensor *t = &o->tensor[i];
        if ((t->role != ORACLE_OUTPUT && t->role != ORACLE_GRADIENT) || !t->count) continue;
        t->tolerance = check_tolerance(&o->k, i, &o->like, 1);
        t->terms = opcase_product(&o->c, o->c.tensor[i].terms);
        t->condition = o->k.condition[i];
    }
    return OK;
}

static void where_text(char *dst, size_t cap, const OracleTensor *t, size_t at) {
    static const char *const noun[][2] = {
        {"B", "batch"},     {"T", "token"},   {"Tk", "token"},      {"S", "token"},         {"H", "head"},
        {"Hk", "key head"}, {"N", "row"},     {"K", "key channel"}, {"V", "value channel"}, {"D", "channel"},
        {"C", "channel"},   {"NC1", "chunk"}, {"VOC", "word"},      {"O", "output"},        {"I", "input"},
        {"W", "tap"},       {"n", "element"}};
    size_t below = 1, used = 0;
    const char *s = t->letters;
    dst[0] = 0;
    for (int d = 0; d < t->rank; d++) below *= (size_t)t->dims[d];
    for (int d = 0; d < t->rank && used < cap; d++) {
        const size_t n = strcspn(s, ".");
        const char *word = NULL;
        for (size_t i = 0; i < sizeof noun / sizeof *noun; i++)
            if (strlen(noun[i][0]) == n && !memcmp(noun[i][0], s, n)) word = noun[i][1];
        below /= (size_t)t->dims[d];
        used += (size_t)(word ? snprintf(dst + used, cap - used, "%s%s %zu", d ? ", " : "", word, at / below)
                              : snprintf(dst + used, cap - used, "%s%.*s %zu", d ? ", " : "", (int)n, s, at / below));
        at %= below;
        s += n + (s[n] == '.');
    }
}

/* Floats cannot hold what is below 2^-126 to full precision: if all of the truth is, so must be what was got. */
static int sunk(const Oracle *o, const OracleTensor *t, const double *got) {
    static const double LEAST = 0x1p-126;
    int below = t->count > 0 && o->like.wide_type != DT_F64 && t->type != DT_I32;
    for (size_t i = 0; below && i < t->count; i++) below = fabs(t->value[i]) < LEAST && fabs(got[i]) < LEAST;
    return below;
}

OracleVerdict oracle_judge(const Oracle *o, const OracleTensor *t, const double *got) {
    OracleVerdict v = {.c = {.margin = INFINITY}};
    if (!sunk(o, t, got)) v.c = compare(got, t->value, t->count, t->tolerance);
    const int s = opcase_find(&o->c, "start");
    if (t->type == DT_I32 && v.c.verdict == COMPARE_OK && v.c.rel > 0) v.c.verdict = COMPARE_ELEMENT;
    compare_index(v.index, sizeof v.index, v.c.at, t->dims, t->rank);
    where_text(v.where, sizeof v.where, t, v.c.at);
    if (v.c.verdict != COMPARE_OK && v.c.verdict != COMPARE_EMPTY)
        oracle_guess(v.guess, sizeof v.guess, t, got, s >= 0 && opcase_has(&o->c, s) ? o->c.value[s] : NULL,
                     o->c.is.up);
    return v;
}
