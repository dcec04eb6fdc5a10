/* gradcheck.c - the report of opcheck.h as a table for people or as JSON. */
#include "base/mem.h"
#include "tools/opcheck.h"
#include <math.h>
#include <string.h>

typedef struct {
    char op[20], check[20], tensor[40], shape[200], index[48], word[48];
    double rel, tol, margin;
    int failed;
} Line;

typedef struct {
    const GradcheckOptions *o;
    FILE *out;
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
        fprintf(out, "}");
    }
    fprintf(out, "\n]}\n");
}

static void print_table(const Report *p, FILE *out) {
    fprintf(out, "%-14s %-8s %-14s %-10s %-10s %-8s %s\n", "op", "check", "tensor", "error", "tolerance", "margin",
            "verdict, worst case");
    for (size_t i = 0; i < p->n; i++) {
        const Line *l = &p->line[i];
        char rel[16] = "-", margin[16] = "-";
        if (isfinite(l->rel) && l->tol > 0) snprintf(rel, sizeof rel, "%.1e", l->rel);
        if (isfinite(l->margin)) snprintf(margin, sizeof margin, "x%.3g", l->margin);
        fprintf(out, "%-14s %-8s %-14s %-10s %-10.1e %-8s %s %s  %s\n", l->op, l->check, l->tensor, rel, l->tol, margin,
                l->word, l->index, l->shape);
    }
    fprintf(out, "%ld comparisons, %ld failed\n", p->compared, p->failed);
}

static int run_backends(const GradcheckOptions *o, Report *p, Err *e) {
    static const char *const all[] = {"ref64", "ref32", "cpu"};
    OpcheckOptions c = {.op = o->op, .shape = o->shape, .regime = o->regime, .seed = o->seed, .self = 1};
    const int every = !o->backend || !strcmp(o->backend, "all");
    for (int i = 0; i < (every ? 3 : 1); i++) {
        c.backend = every ? all[i] : o->backend;
        TRY(opcheck_run(&c, report_add, p, e));
        c.self = 0; // once is enough
    }
    return OK;
}

int gradcheck_run(const GradcheckOptions *o, FILE *out, Err *e) {
    if (o->list) {
        for (int i = 0; i < opcheck_count(); i++) fprintf(out, "%-14s %s\n", opcheck_name(i), opcheck_keys(i));
        return OK;
    }
    Report p = {.o = o, .out = out, .e = e};
    int rc = run_backends(o, &p, e);
    if (!rc) rc = p.rc;
    if (!rc && o->json) print_json(&p, out);
    else if (!rc) print_table(&p, out);
    mem_free(p.line);
    if (!rc && !p.compared) return err_set(e, ERR_CHECK, "gradcheck: nothing was compared");
    if (!rc && p.failed) return err_set(e, ERR_CHECK, "gradcheck: %ld of %ld comparisons failed", p.failed, p.compared);
    return rc;
}
