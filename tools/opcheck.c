/* opcheck.c - all cases of an op, all ops. */
#include "tools/cli.h"
#include "tools/opcheck_parts.h"
#include <string.h>

int opresult_failed(const OpResult *r) { return r->problem || r->c.verdict != COMPARE_OK; }

typedef struct {
    const OpcheckOptions *o;
    OpReport report;
    void *ctx;
    Backend *ref, *be;
} Run;

static int run_case(const Run *r, const OpRow *row, const char *text, unsigned absent, Err *e) {
    OpCase c;
    Check k = {.o = r->o, .report = r->report, .ctx = r->ctx};
    TRY(opcase_open(&c, row, text, r->o->shape, absent, e));
    int rc = OK;
    if (r->o->self) {
        rc = check_open(&k, &c, r->ref, r->ref, e);
        k.name = "naive";
        if (!rc) rc = check_naive(&k, e);
        k.name = "chunk";
        if (!rc && opcase_key(&c, "chunk") > 1) rc = check_chunk(&k, r->ref, e);
        k.name = "diff";
        if (!rc) rc = check_diff(&k, r->ref, e);
        check_close(&k);
    }
    if (!rc && r->be) {
        rc = check_open(&k, &c, r->ref, r->be, e);
        k.name = r->be->name;
        if (!rc) rc = check_condition(&k, r->be, e);
        if (!rc) rc = check_backend(&k, r->be, e);
        check_close(&k);
    }
    opcase_close(&c);
    return rc;
}

/* Every optional argument left out alone, then all of them together. */
static int run_optional(const Run *r, const OpRow *row, const char *text, Err *e) {
    OpCase c;
    unsigned all = 0;
    TRY(opcase_open(&c, row, text, NULL, 0, e));
    for (int i = 0; i < c.tensors; i++) all |= (unsigned)c.tensor[i].optional << i;
    opcase_close(&c);
    for (int i = 0; i < MAX_TENSORS; i++)
        if (all >> i & 1) TRY(run_case(r, row, text, 1u << i, e));
    return all ? run_case(r, row, text, all, e) : OK;
}

/* Sizes that a regime is about may be written over by --shape. */
static int run_regime(const Run *r, const OpRow *row, const Regime *m, Err *e) {
    if (m->large && r->o->small) return OK;
    for (int i = 0; i < REGIME_CASES && m->cases[i]; i++) TRY(run_case(r, row, m->cases[i], 0, e));
    return OK;
}
static int run_regimes(const Run *r, const OpRow *row, Err *e) {
    for (int i = 0; i < op_regime_count; i++)
        if (regime_has(&op_regimes[i], row->name) &&
            (!strcmp(r->o->regime, "all") || !strcmp(r->o->regime, op_regimes[i].name)))
            TRY(run_regime(r, row, &op_regimes[i], e));
    return OK;
}

static int run_row(const Run *r, const OpRow *row, Err *e) {
    if (r->o->regime) return run_regimes(r, row, e);
    if (r->o->shape) return run_case(r, row, NULL, 0, e);
    for (int i = 0; i < MAX_CASES && row->cases[i]; i++) TRY(run_case(r, row, row->cases[i], 0, e));
    return run_optional(r, row, row->cases[0], e);
}

/* ERR_USAGE with the nearest name. */
int opcheck_unknown(const char *op, Err *e) {
    const char *names[64];
    int n = 0;
    for (int i = 0; i < op_row_count && n < 64; i++) names[n++] = op_rows[i]->name;
    const char *nearest = cli_nearest(op, names, n);
    err_set(e, ERR_USAGE, "op: got \"%s\", expected the name of an op", op);
    return nearest ? err_hint(e, "the nearest is \"%s\"", nearest) : err_hint(e, "--list prints them");
}
static int regime_unknown(const char *regime, Err *e) {
    const char *names[128];
    int n = 0;
    for (int i = 0; i < op_regime_count && n < 128; i++) {
        if (!strcmp(op_regimes[i].name, regime)) return OK;
        names[n++] = op_regimes[i].name;
    }
    if (!strcmp(regime, "all")) return OK;
    const char *nearest = cli_nearest(regime, names, n);
    err_set(e, ERR_USAGE, "regime: got \"%s\", expected the name of a regime, or all", regime);
    return nearest ? err_hint(e, "the nearest is \"%s\"", nearest) : err_hint(e, "--list prints them");
}

int opcheck_run(const OpcheckOptions *o, OpReport report, void *ctx, Err *e) {
    Run r = {.o = o, .report = report, .ctx = ctx};
    int rc = OK, found = 0;
    if (o->regime) TRY(regime_unknown(o->regime, e));
    TRY(backend_open(&r.ref, "ref64", 1, e));
    if (o->backend) rc = backend_open(&r.be, o->backend, 1, e);
    for (int i = 0; !rc && i < op_row_count; i++)
        if (!o->op || !strcmp(o->op, op_rows[i]->name)) {
            found = 1;
            rc = run_row(&r, op_rows[i], e);
        }
    if (!rc && !found) rc = opcheck_unknown(o->op, e);
    backend_close(r.be);
    backend_close(r.ref);
    return rc;
}

int opcheck_count(void) { return op_row_count; }
const char *opcheck_name(int i) { return i >= 0 && i < op_row_count ? op_rows[i]->name : NULL; }
const char *opcheck_keys(int i) { return i >= 0 && i < op_row_count ? op_rows[i]->keys : NULL; }
const char *opcheck_case(int i, int k) {
    return i >= 0 && i < op_row_count && k >= 0 && k < MAX_CASES ? op_rows[i]->cases[k] : NULL;
}
