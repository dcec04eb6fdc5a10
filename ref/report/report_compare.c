/* report_compare.c - the page of compare.h. */
#include "report/compare.h"
#include "selectors/selectors.h"
#include "base/mem.h"
#include "report/report_page.h"
#include "report/report_pictures.h"
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#define CELL(MEMBER) offsetof(CompareCell, MEMBER)

/* Rows at the runs' own K, best mean KL first; returns how many. */
static int order_rows(const Compare *c, int *order) {
    int n = 0;
    for (int i = 0; i < c->rows; i++) {
        const double v = compare_mean(&c->row[i], CELL(kl), NULL);
        if (strchr(c->row[i].name, '@')) continue;
        int at = n++;
        for (; at > 0 && compare_mean(&c->row[order[at - 1]], CELL(kl), NULL) > v; at--) order[at] = order[at - 1];
        order[at] = i;
    }
    return n;
}

/* "1,2" or "1,2 / 1,4 / 1,2": the sets of all seeds, once if they are all the same. */
static void sets_text(char *dst, size_t cap, const CompareRow *r) {
    size_t n = 0;
    int same = 1;
    for (int i = 1; i < r->n; i++) same &= !strcmp(r->cell[i].layers, r->cell[0].layers);
    dst[0] = 0;
    for (int i = 0; i < (same ? 1 : r->n) && n < cap; i++)
        n += (size_t)snprintf(dst + n, cap - n, "%s%s", i ? " / " : "",
                              r->cell[i].layers[0] ? r->cell[i].layers : "none");
}

static void number(char *dst, size_t cap, double v, int digits) {
    if (isnan(v)) snprintf(dst, cap, "-");
    else snprintf(dst, cap, "%.*f", digits, v);
}

void compare_table(TextBuf *b, const Compare *c) {
    int order[COMPARE_NAMES];
    const int n = order_rows(c, order);
    textbuf_printf(b, "%-14s %-17s %6s %7s %8s %7s %7s %7s %8s %10s %8s\n", "selector", "layers by seed", "rho",
                   "overlap", "KL", "+-", "recall", "n=most", "regret", "tokens", "seconds");
    for (int i = 0; i < n; i++) {
        const CompareRow *r = &c->row[order[i]];
        char sets[256], text[7][32];
        double sd;
        sets_text(sets, sizeof sets, r);
        number(text[0], 32, compare_mean(r, CELL(rho), NULL), 2);
        number(text[1], 32, compare_mean(r, CELL(overlap), NULL), 2);
        number(text[2], 32, compare_mean(r, CELL(kl), &sd), 4);
        number(text[3], 32, sd, 4);
        number(text[4], 32, compare_mean(r, CELL(recall), NULL), 3);
        number(text[5], 32, compare_mean(r, CELL(recall_last), NULL), 3);
        number(text[6], 32, compare_mean(r, CELL(regret), NULL), 4);
        textbuf_printf(b, "%-14s %-17s %6s %7s %8s %7s %7s %7s %8s %10.0f %8.1f\n", r->name, sets, text[0], text[1],
                       text[2], text[3], text[4], text[5], text[6], compare_mean(r, CELL(tokens), NULL),
                       compare_mean(r, CELL(seconds), NULL));
    }
}

/* ---------------------------------------------------------------- numbers */

static int cells_csv(const ReportPage *p, const Compare *c, Err *e) {
    TextBuf b = {0};
    textbuf_puts(&b, "seed,selector,k,layers,spearman,kendall,overlap,kl,kl_stderr,recall_mean,recall_most,"
                     "regret,set_rank,memory_mib,tokens,"
                     "seconds\n");
    for (int i = 0; i < c->rows; i++)
        for (int k = 0; k < c->row[i].n; k++) {
            const CompareCell *x = &c->row[i].cell[k];
            textbuf_printf(&b, "%llu,%s,%d,\"%s\",%.4g,%.4g,%.4g,%.9g,%.3g,%.6g,%.6g,%.6g,%d,%.6g,%.0f,%.2f\n",
                           (unsigned long long)x->seed, c->row[i].name, x->k, x->layers, x->rho, x->tau, x->overlap,
                           x->kl, x->kl_se, x->recall, x->recall_last, x->regret, x->set_rank, x->memory, x->tokens,
                           x->seconds);
        }
    const int rc = page_file(p, "compare.csv", &b, e);
    textbuf_free(&b);
    return rc;
}

static void html_rows(ReportPage *p, const Compare *c, const int *order, int n) {
    TextBuf *b = &p->html;
    textbuf_printf(b,
                   "<table>\n<tr><th>selector</th><th>layers, by "
                   "seed</th><th>rho</th><th>overlap</th><th>KL</th><th>recall</th>"
                   "<th>recall, %d pairs</th><th>regret</th><th>tokens</th><th>seconds</th></tr>\n",
                   c->recall_most);
    for (int i = 0; i < n; i++) {
        const CompareRow *r = &c->row[order[i]];
        char sets[256], rho[32], overlap[32], regret[32];
        double sd, mean = compare_mean(r, CELL(kl), &sd);
        sets_text(sets, sizeof sets, r);
        number(rho, sizeof rho, compare_mean(r, CELL(rho), NULL), 2);
        number(overlap, sizeof overlap, compare_mean(r, CELL(overlap), NULL), 2);
        number(regret, sizeof regret, compare_mean(r, CELL(regret), NULL), 4);
        textbuf_printf(b,
                       "<tr%s><td>%s</td><td>%s</td><td>%s</td><td>%s</td><td>%.4f &plusmn; "
                       "%.4f</td><td>%.3f</td><td>%.3f</td><td>%s</td>"
                       "<td>%.0f</td><td>%.1f</td></tr>\n",
                       strcmp(r->name, "ga_s2") ? "" : " class=\"main\"", r->name, sets, rho, overlap, mean, sd,
                       compare_mean(r, CELL(recall), NULL), compare_mean(r, CELL(recall_last), NULL), regret,
                       compare_mean(r, CELL(tokens), NULL), compare_mean(r, CELL(seconds), NULL));
    }
    textbuf_puts(b, "</table>\n");
}

/* ---------------------------------------------------------------- pictures */

/* 1 if the row has GA-S2's set with every seed. */
static int as_ga_s2(const CompareRow *r) {
    for (int i = 0; i < r->n; i++)
        if (!(r->cell[i].overlap == 1)) return 0;
    return r->n > 0;
}

static int draw_selectors(ReportPage *p, const Compare *c, const int *order, int n, Err *e) {
    SvgBar bar[COMPARE_NAMES];
    TextBuf svg = {0}, csv = {0};
    textbuf_puts(&csv, "selector,kl,kl_sd,recall_mean,spearman,overlap,regret,tokens,seconds\n");
    for (int i = 0; i < n; i++) {
        const CompareRow *r = &c->row[order[i]];
        double sd, kl = compare_mean(r, CELL(kl), &sd);
        bar[i] = (SvgBar){r->name, kl, sd, as_ga_s2(r)};
        textbuf_printf(&csv, "%s,%.9g,%.3g,%.6g,%.4g,%.4g,%.6g,%.0f,%.2f\n", r->name, kl, sd,
                       compare_mean(r, CELL(recall), NULL), compare_mean(r, CELL(rho), NULL),
                       compare_mean(r, CELL(overlap), NULL), compare_mean(r, CELL(regret), NULL),
                       compare_mean(r, CELL(tokens), NULL), compare_mean(r, CELL(seconds), NULL));
    }
    const SvgPlot plot = {.title = "What do the chosen layers come to?",
                          .desc = "Held-out KL of the student distilled with each selector's layers, mean "
                                  "and standard deviation over seeds",
                          .y_label = "KL to the teacher (nats per token)",
                          .width = 960,
                          .height = 460};
    svg_bars(&svg, &plot, bar, (size_t)n, 0, NAN, "the layers of ga_s2");
    const int rc = page_picture(p, "selectors", &svg, &csv, NULL, e);
    textbuf_free(&svg);
    textbuf_free(&csv);
    return rc;
}

static int draw_heat(ReportPage *p, const Compare *c, const int *order, int n, double *v, Err *e) {
    const char *name[COMPARE_NAMES];
    int at[COMPARE_NAMES], m = 0;
    TextBuf svg = {0}, csv = {0};
    for (int i = 0; i < n; i++)
        if (c->pairs[order[i] * COMPARE_NAMES + order[i]]) name[m] = c->row[order[i]].name, at[m++] = order[i];
    textbuf_puts(&csv, "a,b,spearman\n");
    for (int i = 0; i < m; i++)
        for (int k = 0; k < m; k++) {
            const int x = at[i] * COMPARE_NAMES + at[k];
            v[i * m + k] = c->pairs[x] ? c->rho[x] / c->pairs[x] : NAN;
            textbuf_printf(&csv, "%s,%s,%.4g\n", name[i], name[k], v[i * m + k]);
        }
    const SvgPlot plot = {.title = "Which selectors agree?",
                          .desc =
                              "Spearman's rank correlation of every pair of rankings over all layers, mean over seeds",
                          .x_label = "Spearman's rank correlation over all layers, mean over seeds",
                          .width = 960};
    svg_heat(&svg, &plot, name, (size_t)m, name, (size_t)m, v);
    const int rc = m > 1 ? page_picture(p, "agreement", &svg, &csv, NULL, e) : OK;
    textbuf_free(&svg);
    textbuf_free(&csv);
    return rc;
}

/* 0: distils to score, 1: forward or backward passes of student and teacher, 2: the teacher on a task; -1:
 * scores nothing. */
static int kind_of(const char *name) {
    const Selector *s = selector_find(name);
    if (!s || !s->unit) return -1;
    return s->needs & (NEEDS_TRAINING | NEEDS_SCORES) ? 0 : s->needs & (NEEDS_TASKS | NEEDS_RECALL) ? 2 : 1;
}

static int draw_cost(ReportPage *p, const Compare *c, const int *order, int n, Err *e) {
    static const char *const names[3] = {"distilled", "passes only", "teacher on a task"};
    double x[3][COMPARE_NAMES], y[3][COMPARE_NAMES];
    SvgSeries s[3] = {0};
    TextBuf svg = {0}, csv = {0};
    textbuf_puts(&csv, "selector,kind,tokens,kl\n");
    for (int i = 0; i < 3; i++) s[i] = (SvgSeries){.name = names[i], .x = x[i], .y = y[i], .dots = 1};
    for (int i = 0; i < n; i++) {
        const CompareRow *r = &c->row[order[i]];
        const int k = kind_of(r->name);
        if (k < 0) continue;
        x[k][s[k].n] = compare_mean(r, CELL(tokens), NULL);
        y[k][s[k].n] = compare_mean(r, CELL(kl), NULL);
        textbuf_printf(&csv, "%s,%s,%.0f,%.9g\n", r->name, names[k], x[k][s[k].n], y[k][s[k].n]);
        s[k].n++;
    }
    const SvgPlot plot = {
        .title = "What does a better choice cost?",
        .desc = "Held-out KL of the student distilled with the chosen layers, against tokens read by the score",
        .x_label = "tokens read to score all layers",
        .y_label = "KL to the teacher (nats per token)",
        .log_x = 1};
    svg_lines(&svg, &plot, s, 3, NAN, NULL);
    const int rc = page_picture(p, "cost", &svg, &csv, NULL, e);
    textbuf_free(&svg);
    textbuf_free(&csv);
    return rc;
}

/* ---------------------------------------------------------------- curves over K */

enum { COMPARE_CURVES = 12, CURVE_POINTS = 34 };
typedef struct {
    char name[32];
    size_t n;
    double x[CURVE_POINTS], y[CURVE_POINTS], sd[CURVE_POINTS];
} CompareCurve;

static void curve_point(CompareCurve *c, double x, double y, double sd) {
    if (c->n == CURVE_POINTS || isnan(x) || isnan(y)) return;
    size_t at = c->n++;
    for (; at > 0 && c->x[at - 1] > x; at--)
        c->x[at] = c->x[at - 1], c->y[at] = c->y[at - 1], c->sd[at] = c->sd[at - 1];
    c->x[at] = x;
    c->y[at] = y;
    c->sd[at] = sd;
}

/* The ends that all curves share: no softmax layer, and the teacher. */
static void curve_ends(const Compare *c, CompareCurve *to, int memory, size_t offset) {
    const StudentRow *t = &c->result[0].row[0];
    for (int i = 0; i < c->rows; i++)
        if (!strcmp(c->row[i].name, "none")) {
            double sd, y = compare_mean(&c->row[i], offset, &sd);
            curve_point(to, memory ? compare_mean(&c->row[i], CELL(memory), NULL) : 0, y, sd);
        }
    const double y = offset == CELL(kl) ? t->held.kl : t->recall_mean;
    curve_point(to, memory ? row_bytes(t, c->context) / 1048576 : 1, y, NAN);
}

/* Selectors with rows at more than one K. */
static int curves_make(const Compare *c, CompareCurve *to, int memory, size_t offset) {
    int n = 0;
    for (int i = 0; i < c->rows; i++) {
        char name[32];
        int at = 0;
        if (!strchr(c->row[i].name, '@')) continue;
        row_selector(name, sizeof name, c->row[i].name);
        while (at < n && strcmp(to[at].name, name)) at++;
        if (at < n || n == COMPARE_CURVES) continue;
        to[n] = (CompareCurve){.n = 0};
        snprintf(to[n].name, sizeof to[n].name, "%s", name);
        for (int k = 0; k < c->rows; k++) {
            char other[32];
            double sd, y = compare_mean(&c->row[k], offset, &sd);
            row_selector(other, sizeof other, c->row[k].name);
            if (!strcmp(name, other))
                curve_point(&to[n],
                            memory ? compare_mean(&c->row[k], CELL(memory), NULL) : (double)c->row[k].cell[0].k / c->L,
                            y, sd);
        }
        curve_ends(c, &to[n++], memory, offset);
    }
    return n;
}

static int draw_curve(ReportPage *p, const Compare *c, const char *name, const SvgPlot *plot, int memory, size_t offset,
                      Err *e) {
    SvgSeries s[COMPARE_CURVES] = {0};
    TextBuf svg = {0}, csv = {0};
    void *mem;
    TRY(mem_alloc(&mem, COMPARE_CURVES * sizeof(CompareCurve), "curves", e));
    CompareCurve *curve = mem;
    const int n = curves_make(c, curve, memory, offset);
    textbuf_printf(&csv, "selector,%s,%s,sd\n", memory ? "mib" : "softmax_ratio", offset == CELL(kl) ? "kl" : "recall");
    for (int i = 0; i < n; i++) {
        s[i] =
            (SvgSeries){.name = curve[i].name, .x = curve[i].x, .y = curve[i].y, .err = curve[i].sd, .n = curve[i].n};
        for (size_t k = 0; k < curve[i].n; k++)
            textbuf_printf(&csv, "%s,%.6g,%.9g,%.3g\n", curve[i].name, curve[i].x[k], curve[i].y[k], curve[i].sd[k]);
    }
    svg_lines(&svg, plot, s, (size_t)n, NAN, NULL);
    const int rc = n ? page_picture(p, name, &svg, &csv, NULL, e) : OK;
    textbuf_free(&svg);
    textbuf_free(&csv);
    mem_free(mem);
    return rc;
}

static int draw_all_curves(ReportPage *p, const Compare *c, Err *e) {
    char axis[128];
    snprintf(axis, sizeof axis, "caches and states of a sequence of %.0f tokens (MiB)", c->context);
    const SvgPlot kl = {.title = "How far from the teacher, with how many softmax layers?",
                        .desc = "Held-out KL of the distilled student against the share of softmax layers; "
                                "bars: standard deviation over seeds",
                        .x_label = "share of softmax layers",
                        .y_label = "KL to the teacher (nats per token)"};
    const SvgPlot recall = {
        .title = "How much recall, with how many softmax layers?",
        .desc = "Mean in-context recall against the share of softmax layers; bars: standard deviation over seeds",
        .x_label = "share of softmax layers",
        .y_label = "recall, mean over numbers of pairs"};
    const SvgPlot memory = {.title = "Quality against memory",
                            .desc = "Held-out KL against the memory that one sequence needs when generating; "
                                    "bars: standard deviation over seeds",
                            .x_label = axis,
                            .y_label = "KL to the teacher (nats per token)"};
    TRY(draw_curve(p, c, "kl_ratio", &kl, 0, CELL(kl), e));
    TRY(draw_curve(p, c, "recall_ratio", &recall, 0, CELL(recall), e));
    return draw_curve(p, c, "memory", &memory, 1, CELL(kl), e);
}

/* ---------------------------------------------------------------- of the first seed */

static int first_pictures(Report *r, ReportPage *page, Err *e) {
    TRY(report_read(r, e));
    if (r->L) TRY(draw_importance(r, e));
    TRY(draw_trajectory(r, e));
    textbuf_puts(&page->html, "<h2>The first seed: scores, and when they settle</h2>\n");
    if (r->page.html.len) textbuf_put(&page->html, r->page.html.text, r->page.html.len);
    return OK;
}

/* Importance and trajectory of the first seed's run: drawn into its directory, shown here. */
static int draw_first(ReportPage *page, const Compare *c, Err *e) {
    char dir[1100];
    void *result, *score, *options;
    snprintf(dir, sizeof dir, "%.1000s/seed-%llu", c->dir, (unsigned long long)c->seed[0]);
    TRY(mem_alloc(&result, sizeof(PipelineResult), "results", e));
    int rc = mem_alloc(&score, MAX_LAYERS * sizeof(LayerScore), "layer scores", e);
    if (rc) return mem_free(result), rc;
    rc = mem_alloc(&options, sizeof(PipelineOptions), "options", e);
    if (!rc) {
        Report r = {.page.dir = dir, .r = result, .score = score, .o = options};
        snprintf(r.page.link, sizeof r.page.link, "seed-%llu/", (unsigned long long)c->seed[0]);
        rc = first_pictures(&r, page, e);
        textbuf_free(&r.page.html);
        mem_free(options);
    }
    mem_free(score);
    mem_free(result);
    return rc;
}

/* ---------------------------------------------------------------- the page */

static void words(ReportPage *p, const Compare *c) {
    char line[600];
    snprintf(line, sizeof line,
             "%d layers, %d kept as softmax attention, %d seeds. A seed decides how the linear layers begin, "
             "the order of the text, and what "
             "is drawn; teacher and text are the same. All selectors of a seed share stage 1, and equal sets "
             "of layers are distilled once.",
             c->L, c->K, c->n_seeds);
    page_text(p, line);
}

static void footnotes(ReportPage *p, const Compare *c) {
    page_text(p, "rho: Spearman's correlation with the ranking of ga_s2 over all layers (-: scores nothing, "
                 "or all layers the same); overlap: share of "
                 "its layers; KL: nats per token on held-out "
                 "text, mean and standard deviation over seeds; recall: mean over all numbers of pairs; "
                 "regret: KL of the set minus that of the best "
                 "of all sets, both distilled for the scoring budget (selector exhaustive); tokens and "
                 "seconds: of scoring all layers.");
    textbuf_puts(&p->html, "<p>By seed: <a href=\"compare.csv\">compare.csv</a>; the runs: ");
    for (int i = 0; i < c->n_seeds; i++)
        textbuf_printf(&p->html, "%s<a href=\"seed-%llu/report.html\">seed %llu</a>", i ? ", " : "",
                       (unsigned long long)c->seed[i], (unsigned long long)c->seed[i]);
    textbuf_puts(&p->html, ".</p>\n");
}

int compare_report(Compare *c, Err *e) {
    ReportPage p;
    int order[COMPARE_NAMES];
    void *mem;
    const int n = order_rows(c, order);
    TRY(mem_alloc(&mem, COMPARE_NAMES * COMPARE_NAMES * sizeof(double), "agreement", e));
    page_begin(&p, c->dir, "hybridize compare", "Which selector finds the layers that must stay softmax?");
    words(&p, c);
    html_rows(&p, c, order, n);
    footnotes(&p, c);
    int rc = cells_csv(&p, c, e);
    if (!rc) rc = draw_selectors(&p, c, order, n, e);
    if (!rc) rc = draw_cost(&p, c, order, n, e);
    if (!rc) rc = draw_heat(&p, c, order, n, mem, e);
    if (!rc) rc = draw_all_curves(&p, c, e);
    if (!rc) rc = draw_first(&p, c, e);
    if (!rc) rc = page_end(&p, e);
    textbuf_free(&p.html);
    mem_free(mem);
    return rc;
}
