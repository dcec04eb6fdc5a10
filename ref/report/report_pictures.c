/* report_pictures.c - see report_pictures.h. */
#include "report/report_pictures.h"
#include "base/file.h"
#include "base/mem.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---------------------------------------------------------------- importance */

/* Between the K-th and the next best value; NAN when the kept layers are not the best ones (spaced sets, budgets). */
static double cut_value(const Report *p, const double *value, int lower, const int *keep) {
    double worst_kept = NAN, best_left = NAN;
    for (int l = 0; l < p->L; l++) {
        const double v = lower ? -value[l] : value[l];
        if (isnan(v)) continue;
        if (keep[l] && !(v >= worst_kept)) worst_kept = v;
        if (!keep[l] && !(v <= best_left)) best_left = v;
    }
    const double cut = (worst_kept + best_left) / 2;
    return worst_kept >= best_left ? lower ? -cut : cut : NAN;
}

int draw_importance(Report *p, Err *e) {
    SvgBar bar[MAX_LAYERS];
    char label[MAX_LAYERS][16], title[96];
    double value[MAX_LAYERS];
    TextBuf svg = {0}, csv = {0};
    const int *keep = p->r->row[2].keep;
    int lower = p->unit[0] == '-'; // "-KL ...": no score above 0, so the bars show the KL itself
    for (int l = 0; l < p->L; l++) lower &= !(p->score[l].score > 0);
    snprintf(title, sizeof title, "What is each layer's attention worth? (%s = more important)",
             lower ? "lower" : "higher");
    textbuf_puts(&csv, "layer,score,stderr,rank,selected\n");
    for (int l = 0; l < p->L; l++) {
        const LayerScore *s = &p->score[l];
        snprintf(label[l], sizeof label[l], "%d", l);
        value[l] = lower ? 0 - s->score : s->score;
        bar[l] = (SvgBar){label[l], value[l], s->se, keep[l]};
        textbuf_printf(&csv, "%d,%.9g,%.3g,%d,%d\n", l, s->score, s->se, s->rank, keep[l]);
    }
    const SvgPlot plot = {
        .title = title,
        .desc = "The score of every layer by the run's selector, with the cut between layers kept and not",
        .x_label = "layer",
        .y_label = p->unit + lower};
    svg_bars(&svg, &plot, bar, (size_t)p->L, 0, cut_value(p, value, lower, keep), "kept as softmax");
    const int rc = page_picture(&p->page, "importance", &svg, &csv, NULL, e);
    textbuf_free(&svg);
    textbuf_free(&csv);
    return rc;
}

/* ---------------------------------------------------------------- lines of a CSV file of ours */

typedef struct {
    File f;
    const char *at, *end;
    char line[4096];
} Lines;

/* 0 when DIR/NAME is not there. The header is skipped. */
static int lines_open(Lines *lines, const char *dir, const char *name, int *found, Err *e) {
    char path[1200];
    memset(lines, 0, sizeof *lines);
    TRY(file_join(path, sizeof path, dir, name, e));
    *found = file_exists(path) == 1;
    if (!*found) return OK;
    TRY(file_open(&lines->f, path, e));
    lines->at = (const char *)lines->f.data;
    lines->end = lines->at + lines->f.size;
    const char *eol = memchr(lines->at, '\n', lines->f.size);
    lines->at = eol ? eol + 1 : lines->end;
    return OK;
}

static int lines_next(Lines *lines) {
    if (lines->at >= lines->end) return 0;
    const char *eol = memchr(lines->at, '\n', (size_t)(lines->end - lines->at));
    const size_t n = (size_t)((eol ? eol : lines->end) - lines->at);
    snprintf(lines->line, sizeof lines->line, "%.*s", n < sizeof lines->line ? (int)n : (int)sizeof lines->line - 1,
             lines->at);
    lines->at = eol ? eol + 1 : lines->end;
    return 1;
}

/* ---------------------------------------------------------------- history */

typedef struct {
    int L, points, rank[MAX_LAYERS * SCORE_POINTS];
    double x[SCORE_POINTS];
} History;

static int history_read(History *h, const Report *p, Err *e) {
    Lines lines;
    int found;
    long long step = -1;
    TRY(lines_open(&lines, p->page.dir, "trajectory.csv", &found, e));
    if (!found) return OK;
    while (lines_next(&lines)) {
        int l, rank;
        long long now, tokens;
        const char *last = strrchr(lines.line, ',');
        if (!last || sscanf(lines.line, "%d,%lld,%lld", &l, &now, &tokens) != 3 || sscanf(last + 1, "%d", &rank) != 1)
            continue;
        if (now != step && h->points == SCORE_POINTS) break;
        if (now != step) h->x[h->points++] = (double)tokens;
        step = now;
        if (l < 0 || l >= MAX_LAYERS) continue;
        h->rank[l * SCORE_POINTS + h->points - 1] = rank;
        if (l >= h->L) h->L = l + 1;
    }
    file_close(&lines.f);
    return OK;
}

static int history_draw(Report *p, const History *h, int *rank, Err *e) {
    const char *name[MAX_LAYERS];
    char label[MAX_LAYERS][24];
    TextBuf svg = {0};
    for (int l = 0; l < h->L; l++) {
        snprintf(label[l], sizeof label[l], "layer %d", l);
        name[l] = label[l];
        for (int i = 0; i < h->points; i++) rank[l * h->points + i] = h->rank[l * SCORE_POINTS + i];
    }
    const SvgPlot plot = {
        .title = "When is the ranking settled?",
        .desc = "Rank of every layer by one-swap KL against tokens of scoring; a layer given up early ends there",
        .x_label = "scoring tokens per layer",
        .y_label = "rank (1 = most important)"};
    svg_bump(&svg, &plot, name, (size_t)h->L, h->x, (size_t)h->points, rank, p->r->row[2].keep);
    const int rc = page_picture(&p->page, "trajectory", &svg, NULL, NULL, e);
    textbuf_free(&svg);
    return rc;
}

int draw_trajectory(Report *p, Err *e) {
    void *mem;
    TRY(mem_alloc(&mem, sizeof(History) + MAX_LAYERS * SCORE_POINTS * sizeof(int), "history of ranks", e));
    History *h = mem;
    memset(h, 0, sizeof *h);
    int rc = history_read(h, p, e);
    if (!rc && h->points > 1) rc = history_draw(p, h, (int *)(h + 1), e);
    mem_free(mem);
    return rc;
}

/* ---------------------------------------------------------------- agreement */

enum { MOST_RANKINGS = 64 };
typedef struct {
    char name[MOST_RANKINGS][32];
    int n;
    double rho[MOST_RANKINGS * MOST_RANKINGS];
} Agreement;

static int agreement_index(Agreement *a, const char *name) {
    for (int i = 0; i < a->n; i++)
        if (!strcmp(a->name[i], name)) return i;
    if (a->n == MOST_RANKINGS) return -1;
    snprintf(a->name[a->n], sizeof a->name[0], "%s", name);
    return a->n++;
}

static int agreement_draw(Report *p, Agreement *a, double *v, Err *e) {
    const char *name[MOST_RANKINGS];
    TextBuf svg = {0};
    for (int i = 0; i < a->n; i++) {
        name[i] = a->name[i];
        for (int k = 0; k < a->n; k++) v[i * a->n + k] = a->rho[i * MOST_RANKINGS + k];
    }
    const SvgPlot plot = {.title = "Which selectors agree?",
                          .desc = "Spearman's rank correlation of every pair of rankings of this run",
                          .x_label = "Spearman's rank correlation over all layers"};
    svg_heat(&svg, &plot, name, (size_t)a->n, name, (size_t)a->n, v);
    const int rc = page_picture(&p->page, "agreement", &svg, NULL, NULL, e);
    textbuf_free(&svg);
    return rc;
}

int draw_agreement(Report *p, Err *e) {
    Lines lines;
    void *mem;
    int found;
    TRY(lines_open(&lines, p->page.dir, "agreement.csv", &found, e));
    if (!found) return OK;
    int rc = mem_alloc(&mem, sizeof(Agreement) + MOST_RANKINGS * MOST_RANKINGS * sizeof(double), "agreement", e);
    if (rc) return file_close(&lines.f), rc;
    Agreement *a = mem;
    memset(a, 0, sizeof *a);
    for (int i = 0; i < MOST_RANKINGS * MOST_RANKINGS; i++) a->rho[i] = NAN;
    while (lines_next(&lines)) {
        char x[32], y[32];
        double tau, rho;
        if (sscanf(lines.line, "%31[^,],%31[^,],%lf,%lf", x, y, &tau, &rho) != 4) continue;
        const int i = agreement_index(a, x), j = agreement_index(a, y);
        if (i >= 0 && j >= 0) a->rho[i * MOST_RANKINGS + j] = rho;
    }
    file_close(&lines.f);
    if (a->n > 1) rc = agreement_draw(p, a, (double *)(a + 1), e);
    mem_free(mem);
    return rc;
}

/* ---------------------------------------------------------------- what K costs, and what the scores promise for it */

int draw_budget(Report *p, Err *e) {
    Lines lines;
    TextBuf svg = {0};
    double x[MAX_LAYERS + 1], y[MAX_LAYERS + 1], here_x = NAN, here_y = NAN;
    int found;
    size_t n = 0;
    char axis[128];
    TRY(lines_open(&lines, p->page.dir, "budget.csv", &found, e));
    if (!found) return OK;
    while (n <= MAX_LAYERS && lines_next(&lines)) {
        int K, chosen;
        double cost, value;
        if (sscanf(lines.line, "%d,%lf,%lf,%d", &K, &cost, &value, &chosen) != 4) continue;
        x[n] = cost;
        y[n++] = value;
        if (chosen) here_x = cost, here_y = value;
    }
    file_close(&lines.f);
    if (n < 2) return OK;
    if (p->o->cost_budget > 0) snprintf(axis, sizeof axis, "cost of all layers (units of layer_costs)");
    else
        snprintf(axis, sizeof axis, "caches and states of a sequence of %lld tokens (MiB)",
                 (long long)p->o->memory_context);
    const SvgSeries s[2] = {{.name = "best set by the scores", .x = x, .y = y, .n = n},
                            {.name = "this run", .x = &here_x, .y = &here_y, .n = isnan(here_x) ? 0 : 1, .dots = 1}};
    const SvgPlot plot = {.title = "What does another softmax layer cost, and bring?",
                          .desc = "Sum of the kept layers' scores above the lowest one, against the cost of all layers",
                          .x_label = axis,
                          .y_label = "sum of scores above the lowest"};
    svg_lines(&svg, &plot, s, isnan(here_x) ? 1 : 2, NAN, NULL);
    const int rc = page_picture(&p->page, "budget", &svg, NULL, NULL, e);
    textbuf_free(&svg);
    return rc;
}

/* ---------------------------------------------------------------- students at several K */

void row_selector(char *dst, size_t cap, const char *row) { snprintf(dst, cap, "%.*s", (int)strcspn(row, "@"), row); }

double row_bytes(const StudentRow *r, double context) {
    return (double)r->cache_bytes_per_token * context + (double)r->state_bytes;
}

typedef struct {
    char name[32];
    int n;
    double ratio[MAX_LAYERS + 2], kl[MAX_LAYERS + 2], recall[MAX_LAYERS + 2], mib[MAX_LAYERS + 2];
} Curve;
enum { CURVES = 12 };

static void curve_put(Curve *c, const StudentRow *r, double context) {
    int at = c->n++;
    const double ratio = (double)r->K / r->L;
    for (; at > 0 && c->ratio[at - 1] > ratio; at--) {
        c->ratio[at] = c->ratio[at - 1];
        c->kl[at] = c->kl[at - 1];
        c->recall[at] = c->recall[at - 1];
        c->mib[at] = c->mib[at - 1];
    }
    c->ratio[at] = ratio;
    c->kl[at] = r->held.kl;
    c->recall[at] = r->recall_mean;
    c->mib[at] = row_bytes(r, context) / 1048576;
}

/* Selectors with students at two K or more, each with the all-linear student and the teacher as its ends. */
static int curves_collect(const Report *p, Curve *c) {
    const PipelineResult *r = p->r;
    int n = 0;
    for (int i = 2; i < r->rows; i++) {
        char name[32];
        int at = 0;
        row_selector(name, sizeof name, r->row[i].name);
        if (!strcmp(name, "none") || !strcmp(name, "all")) continue;
        while (at < n && strcmp(c[at].name, name)) at++;
        if (at == CURVES) continue;
        if (at == n) {
            int k = 0;
            for (int j = i; j < r->rows; j++) {
                char other[32];
                row_selector(other, sizeof other, r->row[j].name);
                k += !strcmp(name, other);
            }
            if (k < 2) continue;
            c[n] = (Curve){.n = 0};
            snprintf(c[n++].name, sizeof c[0].name, "%s", name);
        }
        if (c[at].n < MAX_LAYERS) curve_put(&c[at], &r->row[i], (double)p->o->memory_context);
    }
    for (int i = 0; i < r->rows; i++)
        for (int k = 0; k < n; k++)
            if (!strcmp(r->row[i].name, "none") || i == 0) curve_put(&c[k], &r->row[i], (double)p->o->memory_context);
    return n;
}

static int curve_picture(Report *p, const Curve *c, int n, const char *name, const SvgPlot *plot, Err *e) {
    SvgSeries s[CURVES] = {0};
    TextBuf svg = {0}, csv = {0};
    const int memory = !strcmp(name, "memory"), recall = !strcmp(name, "recall_ratio");
    textbuf_printf(&csv, "selector,%s,%s\n", memory ? "mib" : "softmax_ratio", recall ? "recall" : "kl");
    for (int i = 0; i < n; i++) {
        const double *x = memory ? c[i].mib : c[i].ratio, *y = recall ? c[i].recall : c[i].kl;
        s[i] = (SvgSeries){.name = c[i].name, .x = x, .y = y, .n = (size_t)c[i].n};
        for (int k = 0; k < c[i].n; k++) textbuf_printf(&csv, "%s,%.6g,%.9g\n", c[i].name, x[k], y[k]);
    }
    svg_lines(&svg, plot, s, (size_t)n, NAN, NULL);
    const int rc = page_picture(&p->page, name, &svg, &csv, NULL, e);
    textbuf_free(&svg);
    textbuf_free(&csv);
    return rc;
}

int draw_curves(Report *p, Err *e) {
    void *mem;
    char axis[128];
    TRY(mem_alloc(&mem, CURVES * sizeof(Curve), "curves", e));
    const int n = curves_collect(p, mem);
    snprintf(axis, sizeof axis, "caches and states of a sequence of %lld tokens (MiB)",
             (long long)p->o->memory_context);
    const SvgPlot kl = {.title = "How far from the teacher, with how many softmax layers?",
                        .desc = "Held-out KL of the distilled student against the share of softmax layers, by selector",
                        .x_label = "share of softmax layers",
                        .y_label = "KL to the teacher (nats per token)"};
    const SvgPlot recall = {.title = "How much recall, with how many softmax layers?",
                            .desc =
                                "Mean in-context recall of the distilled student against the share of softmax layers",
                            .x_label = "share of softmax layers",
                            .y_label = "recall, mean over numbers of pairs"};
    const SvgPlot memory = {.title = "Quality against memory",
                            .desc =
                                "Held-out KL against the memory that one sequence needs when generating, by selector",
                            .x_label = axis,
                            .y_label = "KL to the teacher (nats per token)"};
    int rc = n ? curve_picture(p, mem, n, "kl_ratio", &kl, e) : OK;
    if (!rc && n && p->r->n_n) rc = curve_picture(p, mem, n, "recall_ratio", &recall, e);
    if (!rc && n) rc = curve_picture(p, mem, n, "memory", &memory, e);
    mem_free(mem);
    return rc;
}

/* ---------------------------------------------------------------- recall */

/* Rows whose layers an earlier row has too would draw the same line once more. */
static int drawn_before(const PipelineResult *r, int i) {
    for (int k = 2; k < i; k++)
        if (!memcmp(r->row[k].keep, r->row[i].keep, (size_t)r->L * sizeof(int))) return 1;
    return 0;
}

int draw_recall(Report *p, Err *e) {
    enum { LINES = 10 };
    const PipelineResult *r = p->r;
    SvgSeries s[LINES] = {0};
    double x[RECALL_MAX_N];
    TextBuf svg = {0}, csv = {0};
    size_t n = 0;
    if (r->n_n < 1) return OK;
    textbuf_puts(&csv, "student,pairs,recall\n");
    for (int k = 0; k < r->n_n; k++) x[k] = r->recall_n[k];
    for (int i = 0; i < r->rows; i++) {
        for (int k = 0; k < r->n_n; k++)
            textbuf_printf(&csv, "%s,%d,%.6g\n", r->row[i].name, r->recall_n[k], r->row[i].recall[k]);
        if (n == LINES || strchr(r->row[i].name, '@') || (i > 2 && drawn_before(r, i))) continue;
        s[n++] = (SvgSeries){.name = r->row[i].name, .x = x, .y = r->row[i].recall, .n = (size_t)r->n_n};
    }
    const SvgPlot plot = {.title = "In-context recall",
                          .desc = "Fraction of asked values that the model gives, by number of pairs in the context",
                          .x_label = "key-value pairs in the context",
                          .y_label = "recall"};
    svg_lines(&svg, &plot, s, n, NAN, NULL);
    const int rc = page_picture(&p->page, "recall", &svg, &csv, NULL, e);
    textbuf_free(&svg);
    textbuf_free(&csv);
    return rc;
}

/* ---------------------------------------------------------------- training loss */

enum { LOSS_RUNS = 4, LOSS_POINTS = 4096 };
typedef struct {
    char name[48];
    double *x, *y;
    size_t n;
} LossRun;

static LossRun *loss_run(LossRun *run, int *n, const char *stage, const char *who) {
    char name[48];
    snprintf(name, sizeof name, "%.20s%s%.24s", stage, who[0] ? " " : "", who);
    for (int i = 0; i < *n; i++)
        if (!strcmp(run[i].name, name)) return &run[i];
    if (*n == LOSS_RUNS) return NULL;
    snprintf(run[*n].name, sizeof run[*n].name, "%s", name);
    return &run[(*n)++];
}

/* Rows of stages 1, 2 and 3 of the main student; the scoring runs have a picture of their own. */
static int loss_read(const Report *p, LossRun *run, int *n, Err *e) {
    char path[1200];
    File f;
    TRY(file_join(path, sizeof path, p->page.dir, "log.jsonl", e));
    if (!file_exists(path)) return OK;
    TRY(file_open(&f, path, e));
    const char *s = (const char *)f.data, *end = s + f.size;
    int rc = OK;
    while (!rc && s < end) {
        const char *line_end = memchr(s, '\n', end - s), *stage = "", *who = "";
        const size_t len = (line_end ? line_end : end) - s;
        double step = NAN, loss = NAN;
        Json j;
        rc = json_parse(&j, s, len, path, e);
        s += len + 1;
        if (rc) break;
        rc = json_opt_str(&j, 0, "stage", &stage, e) || json_opt_str(&j, 0, "run", &who, e) ||
             json_opt_real(&j, 0, "step", &step, e) || json_opt_real(&j, 0, "loss", &loss, e);
        const int wanted = !strcmp(stage, "stage1") || (!strncmp(stage, "stage", 5) && !strcmp(who, p->r->row[2].name));
        LossRun *run_of = !rc && wanted && isfinite(loss) ? loss_run(run, n, stage, who) : NULL;
        if (run_of && run_of->n < LOSS_POINTS) {
            run_of->x[run_of->n] = step;
            run_of->y[run_of->n++] = loss;
        }
        json_free(&j);
    }
    file_close(&f);
    return rc ? e->code : OK;
}

int draw_loss(Report *p, Err *e) {
    LossRun run[LOSS_RUNS] = {0};
    SvgSeries series[LOSS_RUNS] = {0};
    TextBuf svg = {0}, csv = {0};
    void *mem;
    int n = 0;
    TRY(mem_alloc(&mem, LOSS_RUNS * LOSS_POINTS * 2 * sizeof(double), "loss curves", e));
    for (int i = 0; i < LOSS_RUNS; i++) {
        run[i].x = (double *)mem + (size_t)i * 2 * LOSS_POINTS;
        run[i].y = run[i].x + LOSS_POINTS;
    }
    int rc = loss_read(p, run, &n, e);
    textbuf_puts(&csv, "run,step,loss\n");
    for (int i = 0; i < n; i++) {
        series[i] = (SvgSeries){.name = run[i].name, .x = run[i].x, .y = run[i].y, .n = run[i].n};
        for (size_t k = 0; k < run[i].n; k++)
            textbuf_printf(&csv, "%s,%g,%.9g\n", run[i].name, run[i].x[k], run[i].y[k]);
    }
    const SvgPlot plot = {.title = "Training",
                          .desc = "Loss against steps: stage 1 aligns mixers, stage 2 distils the whole model",
                          .x_label = "step",
                          .y_label = "loss",
                          .log_y = 1};
    if (!rc && n) {
        svg_lines(&svg, &plot, series, n, NAN, NULL);
        rc = page_picture(&p->page, "loss", &svg, &csv, NULL, e);
    }
    textbuf_free(&svg);
    textbuf_free(&csv);
    mem_free(mem);
    return rc;
}

/* ---------------------------------------------------------------- start */

int draw_start(Report *p, Err *e) {
    static const char *const name[] = {"copied and drawn", "as it started"};
    double x[MAX_LAYERS], y[2][MAX_LAYERS];
    SvgSeries series[2];
    TextBuf svg = {0};
    Lines lines;
    size_t n = 0;
    int found, l;
    TRY(lines_open(&lines, p->page.dir, "start.csv", &found, e));
    if (!found) return OK;
    while (n < MAX_LAYERS && lines_next(&lines))
        if (sscanf(lines.line, "%d,%lf,%lf", &l, &y[0][n], &y[1][n]) == 3) x[n++] = l;
    file_close(&lines.f);
    for (int i = 0; i < 2; i++) series[i] = (SvgSeries){.name = name[i], .x = x, .y = y[i], .n = n};
    const SvgPlot plot = {.title = "What the start did",
                          .desc = "Stage 1's loss of every layer before its first step, without and with the start",
                          .x_label = "layer",
                          .y_label = "distance to the attention's output",
                          .log_y = 1};
    if (n) svg_lines(&svg, &plot, series, 2, NAN, NULL);
    const int rc = n ? page_picture(&p->page, "start", &svg, NULL, NULL, e) : OK;
    textbuf_free(&svg);
    return rc;
}
