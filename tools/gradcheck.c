/* gradcheck.c - the report of opcheck.h as a table for people or as JSON: what failed first, a summary at the end. */
#include "base/mem.h"
#include "tools/cli.h"
#include "tools/opcheck.h"
#include <math.h>
#include <string.h>

typedef struct {
    char op[20], check[20], tensor[40], shape[200], index[48], word[48], where[96], guess[160];
    double rel, tol, margin;
    int failed;
} Line;

typedef struct {
    const GradcheckOptions *o;
    Line *line; /* in order of appearance */
    size_t n, room;
    long compared, failed;
    int rc;
    Err *e;
} Report;

static Line line_of(const OpResult *r) {
    Line l = {.rel = r->c.rel, .tol = r->tol, .margin = r->c.margin, .failed = opresult_failed(r)};
    snprintf(l.op, sizeof l.op, "%s", r->op);
    snprintf(l.check, sizeof l.check, "%s", r->check);
    snprintf(l.tensor, sizeof l.tensor, "%s", r->tensor);
    snprintf(l.shape, sizeof l.shape, "%s", r->shape);
    snprintf(l.index, sizeof l.index, "%s", r->problem ? "" : r->index);
    snprintf(l.word, sizeof l.word, "%s", r->problem ? r->problem : compare_word(&r->c));
    snprintf(l.where, sizeof l.where, "%s", r->where);
    snprintf(l.guess, sizeof l.guess, "%s", r->guess);
    return l;
}

static int same(const Line *a, const Line *b) {
    return !strcmp(a->op, b->op) && !strcmp(a->check, b->check) && !strcmp(a->tensor, b->tensor) &&
           a->failed == b->failed;
}

/* Keeps every line (verbose), or of each op, check and tensor the one with the smallest margin;
 * what failed is never dropped. */
static void report_add(void *ctx, const OpResult *r) {
    Report *p = ctx;
    const Line l = line_of(r);
    p->compared++;
    p->failed += l.failed;
    for (size_t i = p->n; !p->o->verbose && !l.failed && i-- > 0;)
        if (same(&p->line[i], &l)) {
            if (l.margin < p->line[i].margin) p->line[i] = l;
            return;
        }
    if (p->n == p->room) {
        void *grown = p->line;
        if (!p->rc)
            p->rc = mem_grow(&grown, p->room * sizeof(Line), (2 * p->room + 256) * sizeof(Line), "report", p->e);
        if (p->rc) return;
        p->line = grown, p->room = 2 * p->room + 256;
    }
    p->line[p->n++] = l;
}

static void print_json(const Report *p, FILE *out) {
    fprintf(out, "{\"compared\": %ld, \"failed\": %ld, \"results\": [", p->compared, p->failed);
    for (size_t i = 0; i < p->n; i++) {
        const Line *l = &p->line[i];
        fprintf(out,
                "%s\n  {\"op\": \"%s\", \"check\": \"%s\", \"tensor\": \"%s\", \"case\": \"%s\", \"ok\": %s, "
                "\"verdict\": \"%s\"",
                i ? "," : "", l->op, l->check, l->tensor, l->shape, l->failed ? "false" : "true", l->word);
        if (isfinite(l->rel)) fprintf(out, ", \"rel_error\": %.3e, \"tolerance\": %.3e", l->rel, l->tol);
        if (isfinite(l->margin)) fprintf(out, ", \"margin\": %.3g", l->margin);
        if (l->where[0]) fprintf(out, ", \"at\": \"%s\"", l->where);
        if (l->guess[0]) fprintf(out, ", \"guess\": \"%s\"", l->guess);
        fprintf(out, "}");
    }
    fprintf(out, "\n]}\n");
}

static void print_line(const Line *l, FILE *out) {
    char rel[16] = "-", margin[16] = "-";
    if (isfinite(l->rel) && l->tol > 0) snprintf(rel, sizeof rel, "%.1e", l->rel);
    if (isfinite(l->margin)) snprintf(margin, sizeof margin, "x%.3g", l->margin);
    fprintf(out, "%-14s %-8s %-14s %-10s %-10.1e %-8s %s %s  %s\n", l->op, l->check, l->tensor, rel, l->tol, margin,
            l->word, l->index, l->shape);
    if (l->where[0]) fprintf(out, "    worst at %s%s%s\n", l->where, l->guess[0] ? "; perhaps: " : "", l->guess);
}
static void print_table(const Report *p, FILE *out) {
    const Line *least = NULL;
    fprintf(out, "%-14s %-8s %-14s %-10s %-10s %-8s %s\n", "op", "check", "tensor", "error", "tolerance", "margin",
            "verdict, worst case");
    for (int failed = 1; failed >= 0; failed--)
        for (size_t i = 0; i < p->n; i++) {
            if (p->line[i].failed != failed) continue;
            print_line(&p->line[i], out);
            if (!least || p->line[i].margin < least->margin) least = &p->line[i];
        }
    fprintf(out, "%ld comparisons, %ld failed", p->compared, p->failed);
    if (least && !p->failed) fprintf(out, "; smallest margin x%.3g: %s of %s", least->margin, least->tensor, least->op);
    fprintf(out, "\n");
}

static int run_backends(const GradcheckOptions *o, Report *p, Err *e) {
    static const char *const all[] = {"ref64", "ref32", "cpu"};
    OpcheckOptions c = {.op = o->op, .shape = o->shape, .regime = o->regime, .seed = o->seed, .self = 1};
    const int every = !o->lib && (!o->backend || !strcmp(o->backend, "all"));
    if (o->lib) c.self = 0;
    for (int i = 0; i < (every ? 3 : 1); i++) {
        c.backend = every ? all[i] : o->lib ? "lib" : o->backend;
        TRY(opcheck_run(&c, report_add, p, e));
        c.self = 0; // once is enough
    }
    return OK;
}

/* Of one op: its keys, the cases that are run without --shape (changes to the keys), and its regimes. */
static int list_op(const char *op, FILE *out, Err *e) {
    int i = 0;
    while (opcheck_name(i) && strcmp(op, opcheck_name(i)) != 0) i++;
    if (!opcheck_name(i)) return opcheck_unknown(op, e);
    fprintf(out, "%s %s\ncases:\n", opcheck_name(i), opcheck_keys(i));
    for (int k = 0; opcheck_case(i, k); k++)
        fprintf(out, "    %s\n", opcheck_case(i, k)[0] ? opcheck_case(i, k) : "(defaults)");
    fprintf(out, "regimes:\n");
    for (int r = 0; opcheck_regime(r); r++)
        if (opcheck_regime_has(r, op)) fprintf(out, "    %-18s %s\n", opcheck_regime(r), opcheck_regime_what(r));
    return OK;
}
static int list(const char *op, FILE *out, Err *e) {
    if (op) return list_op(op, out, e);
    for (int i = 0; i < opcheck_count(); i++) fprintf(out, "%-16s %s\n", opcheck_name(i), opcheck_keys(i));
    fprintf(out, "\nregimes (--op OP --list shows those of one op, and its cases):\n");
    for (int r = 0; opcheck_regime(r); r++) {
        int before = 0;
        for (int k = 0; k < r; k++) before |= !strcmp(opcheck_regime(k), opcheck_regime(r));
        if (!before) fprintf(out, "    %-18s %s\n", opcheck_regime(r), opcheck_regime_what(r));
    }
    return OK;
}

int gradcheck_run(const GradcheckOptions *o, FILE *out, Err *e) {
    Report p = {.o = o, .e = e};
    void *handle = NULL;
    int rc = OK;
    if (o->list) return list(o->op, out, e);
    if (o->dump) return gradcheck_dump(o, out, e);
    if (o->pack) return gradcheck_pack(o, out, e);
    if (o->lib) rc = gradcheck_lib(o, &handle, e);
    if (!rc) rc = o->load ? gradcheck_load(o, report_add, &p, e) : run_backends(o, &p, e);
    if (!rc) rc = p.rc;
    if (!rc && o->json) print_json(&p, out);
    else if (!rc) print_table(&p, out);
    gradcheck_lib_close(handle);
    mem_free(p.line);
    if (!rc && !p.compared) return err_set(e, ERR_CHECK, "gradcheck: nothing was compared");
    if (!rc && p.failed) return err_set(e, ERR_CHECK, "gradcheck: %ld of %ld comparisons failed", p.failed, p.compared);
    return rc;
}
