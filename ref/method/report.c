/* report.c - draws a finished run. See report.h. */
#include "method/report.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/svg.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

typedef struct {
    const char *dir;
    PipelineResult *r;
    LayerScore *score; /* (MAX_LAYERS); L == 0: the run has no scores */
    int L;
    TextBuf html;
} Report;

static int save_text(const Report *p, const char *name, TextBuf *b, Err *e) {
    char path[1200];
    TRY(textbuf_end(b, e));
    TRY(file_join(path, sizeof path, p->dir, name, e));
    return file_write_all(path, b->text, b->len, e);
}

/* One picture: into its own file, into the page, and its numbers beside it. */
static int save_picture(Report *p, const char *name, TextBuf *svg, TextBuf *csv, Err *e) {
    char file[64], path[1200];
    TRY(textbuf_end(svg, e));
    snprintf(file, sizeof file, "%s.svg", name);
    TRY(file_join(path, sizeof path, p->dir, file, e));
    TRY(svg_save(svg, path, e));
    textbuf_puts(&p->html, "<figure>\n");
    textbuf_put(&p->html, svg->text, svg->len);
    textbuf_printf(&p->html, "\n<figcaption>numbers: <a href=\"%s.csv\">%s.csv</a></figcaption></figure>\n",
                   name, name);
    snprintf(file, sizeof file, "%s.csv", name);
    return csv ? save_text(p, file, csv, e) : OK;
}

/* ---------------------------------------------------------------- importance and its history */

static int draw_importance(Report *p, Err *e) {
    SvgBar bar[MAX_LAYERS];
    char label[MAX_LAYERS][16];
    TextBuf svg = {0}, csv = {0};
    const StudentRow *main = &p->r->row[2];
    textbuf_puts(&csv, "layer,kl,stderr,rank,selected\n");
    for (int l = 0; l < p->L; l++) {
        const LayerScore *s = &p->score[l];
        snprintf(label[l], sizeof label[l], "%d", l);
        bar[l] = (SvgBar){label[l], -s->score, s->se, main->keep[l]};
        textbuf_printf(&csv, "%d,%.9g,%.3g,%d,%d\n", l, -s->score, s->se, s->rank, main->keep[l]);
    }
    const SvgPlot plot = {.title = "One layer back to softmax: how far from the teacher is the student then?",
                          .desc = "Held-out KL divergence to the teacher after a short distillation, for "
                                  "each layer given its attention back",
                          .x_label = "layer",
                          .y_label = "KL to the teacher (nats per token), lower = more important"};
    svg_bars(&svg, &plot, bar, p->L, 0, NAN, "kept as softmax");
    const int rc = save_picture(p, "importance", &svg, &csv, e);
    textbuf_free(&svg);
    textbuf_free(&csv);
    return rc;
}

static int draw_trajectory(Report *p, Err *e) {
    const int points = p->score[0].points;
    const char *name[MAX_LAYERS];
    char label[MAX_LAYERS][24];
    double x[SCORE_POINTS];
    int order[MAX_LAYERS];
    void *mem;
    TextBuf svg = {0};
    if (points < 2) return OK;
    TRY(mem_alloc(&mem, (size_t)p->L * points * sizeof(int), "ranks", e));
    int *rank = mem;
    for (int l = 0; l < p->L; l++) {
        snprintf(label[l], sizeof label[l], "layer %d", l);
        name[l] = label[l];
    }
    for (int i = 0; i < points; i++) {
        x[i] = (double)p->score[0].point[i].tokens;
        if (score_order_at(p->score, p->L, i, 0, order))
            for (int k = 0; k < p->L; k++) rank[order[k] * points + i] = k + 1;
    }
    const SvgPlot plot = {.title = "When is the ranking settled?",
                          .desc = "Rank of every layer against tokens of scoring",
                          .x_label = "tokens per layer",
                          .y_label = "rank (1 = most important)"};
    svg_bump(&svg, &plot, name, p->L, x, points, rank, p->r->row[2].keep);
    const int rc = save_picture(p, "trajectory", &svg, NULL, e);
    textbuf_free(&svg);
    mem_free(mem);
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
    TRY(file_join(path, sizeof path, p->dir, "log.jsonl", e));
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
        const int wanted =
            !strcmp(stage, "stage1") || (!strncmp(stage, "stage", 5) && !strcmp(who, p->r->row[2].name));
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

static int draw_loss(Report *p, Err *e) {
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
                          .desc =
                              "Loss against steps: stage 1 aligns mixers, stage 2 distils the whole model",
                          .x_label = "step",
                          .y_label = "loss",
                          .log_y = 1};
    if (!rc && n) {
        svg_lines(&svg, &plot, series, n, NAN, NULL);
        rc = save_picture(p, "loss", &svg, &csv, e);
    }
    textbuf_free(&svg);
    textbuf_free(&csv);
    mem_free(mem);
    return rc;
}

/* ---------------------------------------------------------------- recall */

static int draw_recall(Report *p, Err *e) {
    const PipelineResult *r = p->r;
    SvgSeries s[PIPELINE_STUDENTS] = {0};
    double x[RECALL_MAX_N];
    TextBuf svg = {0}, csv = {0};
    if (r->n_n < 1) return OK;
    textbuf_puts(&csv, "student,pairs,recall\n");
    for (int k = 0; k < r->n_n; k++) x[k] = r->recall_n[k];
    for (int i = 0; i < r->rows; i++) {
        s[i] = (SvgSeries){.name = r->row[i].name, .x = x, .y = r->row[i].recall, .n = r->n_n};
        for (int k = 0; k < r->n_n; k++)
            textbuf_printf(&csv, "%s,%d,%.6g\n", r->row[i].name, r->recall_n[k], r->row[i].recall[k]);
    }
    const SvgPlot plot = {
        .title = "In-context recall",
        .desc = "Fraction of asked values that the model gives, by number of pairs in the context",
        .x_label = "key-value pairs in the context",
        .y_label = "recall"};
    svg_lines(&svg, &plot, s, r->rows, NAN, NULL);
    const int rc = save_picture(p, "recall", &svg, &csv, e);
    textbuf_free(&svg);
    textbuf_free(&csv);
    return rc;
}

/* ---------------------------------------------------------------- tables */

static void keep_text(char *dst, size_t cap, const StudentRow *s) {
    if (s->K == s->L) snprintf(dst, cap, "all");
    else if (s->K == 0) snprintf(dst, cap, "none");
    else select_text(dst, cap, s->keep, s->L);
}

void report_table(TextBuf *b, const PipelineResult *r) {
    char layers[128];
    textbuf_printf(b, "%-14s %-8s %7s %7s %7s", "student", "softmax", "KL", "new", "repeat");
    for (int k = 0; k < r->n_n; k++) textbuf_printf(b, "  n=%-4d", r->recall_n[k]);
    textbuf_printf(b, " %8s %9s\n", "seconds", "peak MiB"); // new, repeat: text loss
    for (int i = 0; i < r->rows; i++) {
        const StudentRow *s = &r->row[i];
        keep_text(layers, sizeof layers, s);
        textbuf_printf(b, "%-14s %-8s %7.4f %7.4f %7.4f", s->name, layers, s->held.kl, s->held.ce_new,
                       s->held.ce_repeat);
        for (int k = 0; k < r->n_n; k++) textbuf_printf(b, "  %6.3f", s->recall[k]);
        textbuf_printf(b, " %8.1f %9.1f\n", s->seconds, (double)s->peak_bytes / (1 << 20));
    }
}

static int students_csv(Report *p, Err *e) {
    const PipelineResult *r = p->r;
    char layers[2048];
    TextBuf b = {0};
    textbuf_puts(&b, "student,layers,kl,kl_stderr,ce,ce_stderr,ce_new,ce_repeat");
    for (int k = 0; k < r->n_n; k++) textbuf_printf(&b, ",recall_%d", r->recall_n[k]);
    textbuf_puts(&b, ",seconds,tokens,peak_bytes,parameters,cache_bytes_per_token,state_bytes\n");
    for (int i = 0; i < r->rows; i++) {
        const StudentRow *s = &r->row[i];
        keep_text(layers, sizeof layers, s);
        textbuf_printf(&b, "%s,\"%s\",%.9g,%.3g,%.9g,%.3g,%.9g,%.9g", s->name, layers, s->held.kl,
                       s->held.kl_se, s->held.ce, s->held.ce_se, s->held.ce_new, s->held.ce_repeat);
        for (int k = 0; k < r->n_n; k++) textbuf_printf(&b, ",%.6g", s->recall[k]);
        textbuf_printf(&b, ",%.2f,%lld,%zu,%zu,%zu,%zu\n", s->seconds, (long long)s->tokens, s->peak_bytes,
                       s->parameters, s->cache_bytes_per_token, s->state_bytes);
    }
    const int rc = save_text(p, "students.csv", &b, e);
    textbuf_free(&b);
    return rc;
}

static void html_table(Report *p) {
    const PipelineResult *r = p->r;
    char layers[2048];
    TextBuf *b = &p->html;
    textbuf_puts(b, "<table>\n<tr><th>student</th><th>softmax layers</th><th>KL to teacher</th><th>text "
                    "loss, new</th><th>text loss, repeats</th>");
    for (int k = 0; k < r->n_n; k++) textbuf_printf(b, "<th>recall, %d pairs</th>", r->recall_n[k]);
    textbuf_puts(b, "<th>cache B/token</th><th>state B</th><th>seconds</th><th>peak MiB</th></tr>\n");
    for (int i = 0; i < r->rows; i++) {
        const StudentRow *s = &r->row[i];
        keep_text(layers, sizeof layers, s);
        textbuf_printf(b, "<tr%s><td>%s</td><td>%s</td><td>%.4f &plusmn; %.4f</td><td>%.4f</td><td>%.4f</td>",
                       i == 2 ? " class=\"main\"" : "", s->name, layers, s->held.kl, s->held.kl_se,
                       s->held.ce_new, s->held.ce_repeat);
        for (int k = 0; k < r->n_n; k++) textbuf_printf(b, "<td>%.3f</td>", s->recall[k]);
        textbuf_printf(b, "<td>%zu</td><td>%zu</td><td>%.1f</td><td>%.1f</td></tr>\n",
                       s->cache_bytes_per_token, s->state_bytes, s->seconds,
                       (double)s->peak_bytes / (1 << 20));
    }
    textbuf_puts(
        b,
        "</table>\n<p>KL and text loss in nats per token on held-out text, the same batches for every row; "
        "text loss is split into tokens that go on as an earlier pair of tokens of the same window went on "
        "(repeats: what recall can give) and all others (new); seconds: training that student, "
        "selection not included. The files: <a href=\"students.csv\">students.csv</a>, <a "
        "href=\"results.json\">results.json</a>, "
        "<a href=\"ranking.json\">ranking.json</a>, <a href=\"run.json\">run.json</a>, <a "
        "href=\"log.jsonl\">log.jsonl</a>.</p>\n");
}

static const char *const HEAD =
    "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>hybridize run</title>\n<style>\n"
    "body { font: 15px/1.45 sans-serif; max-width: 900px; margin: 2em auto; padding: 0 1em; color: #222; "
    "background: #fff }\n"
    "table { border-collapse: collapse; font-size: 13px } th, td { padding: .25em .6em; border-bottom: 1px "
    "solid #ccc; text-align: right }\n"
    "th:first-child, td:first-child, th:nth-child(2), td:nth-child(2) { text-align: left } tr.main { "
    "background: #eef4fb; font-weight: bold }\n"
    "figure { margin: 1.5em 0 } figcaption { font-size: 12px; color: #666 } svg { max-width: 100%; height: "
    "auto }\n"
    "</style></head><body>\n<h1>From softmax to hybrid: which layers must stay?</h1>\n";

static int report_all(Report *p, Err *e) {
    TRY(pipeline_results_read(p->r, p->dir, e));
    char path[1200];
    TRY(file_join(path, sizeof path, p->dir, "ranking.json", e));
    if (file_exists(path)) TRY(ranking_read(p->score, &p->L, p->dir, e));
    if (p->r->rows < 3)
        return err_set(e, ERR_INPUT, "%s: results.json has %d rows, expected teacher, stage1 and a student",
                       p->dir, p->r->rows);
    textbuf_puts(&p->html, HEAD);
    textbuf_printf(&p->html,
                   "<p>%d layers, %d kept as softmax attention. Every student below started from the same "
                   "stage-1 model and was distilled on the same "
                   "tokens; they differ only in which layers kept their attention.</p>\n",
                   p->r->L, p->r->row[2].K);
    html_table(p);
    TRY(students_csv(p, e));
    if (p->L) TRY(draw_importance(p, e));
    TRY(draw_recall(p, e));
    if (p->L) TRY(draw_trajectory(p, e));
    TRY(draw_loss(p, e));
    textbuf_puts(&p->html, "</body></html>\n");
    return save_text(p, "report.html", &p->html, e);
}

int report_write(const char *dir, Err *e) {
    void *result, *score;
    TRY(mem_alloc(&result, sizeof(PipelineResult), "results", e));
    int rc = mem_alloc(&score, MAX_LAYERS * sizeof(LayerScore), "layer scores", e);
    if (!rc) {
        Report p = {.dir = dir, .r = result, .score = score};
        rc = report_all(&p, e);
        textbuf_free(&p.html);
        mem_free(score);
    }
    mem_free(result);
    return rc;
}
