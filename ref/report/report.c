/* report.c - the page of a finished run: tables here, pictures in report_pictures.c. See report.h. */
#include "report/report.h"
#include "method/select.h"
#include "base/file.h"
#include "base/mem.h"
#include "report/card.h"
#include "report/report_pictures.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

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
        textbuf_printf(&b, "%s,\"%s\",%.9g,%.3g,%.9g,%.3g,%.9g,%.9g", s->name, layers, s->held.kl, s->held.kl_se,
                       s->held.ce, s->held.ce_se, s->held.ce_new, s->held.ce_repeat);
        for (int k = 0; k < r->n_n; k++) textbuf_printf(&b, ",%.6g", s->recall[k]);
        textbuf_printf(&b, ",%.2f,%lld,%zu,%zu,%zu,%zu\n", s->seconds, (long long)s->tokens, s->peak_bytes,
                       s->parameters, s->cache_bytes_per_token, s->state_bytes);
    }
    const int rc = page_file(&p->page, "students.csv", &b, e);
    textbuf_free(&b);
    return rc;
}

static void html_table(Report *p) {
    const PipelineResult *r = p->r;
    char layers[2048];
    TextBuf *b = &p->page.html;
    textbuf_puts(b, "<table>\n<tr><th>student</th><th>softmax layers</th><th>KL to teacher</th><th>text "
                    "loss, new</th><th>text loss, repeats</th>");
    for (int k = 0; k < r->n_n; k++) textbuf_printf(b, "<th>recall, %d pairs</th>", r->recall_n[k]);
    textbuf_puts(b, "<th>cache B/token</th><th>state B</th><th>seconds</th><th>peak MiB</th></tr>\n");
    for (int i = 0; i < r->rows; i++) {
        const StudentRow *s = &r->row[i];
        keep_text(layers, sizeof layers, s);
        textbuf_printf(b, "<tr%s><td>%s</td><td>%s</td><td>%.4f &plusmn; %.4f</td><td>%.4f</td><td>%.4f</td>",
                       i == 2 ? " class=\"main\"" : "", s->name, layers, s->held.kl, s->held.kl_se, s->held.ce_new,
                       s->held.ce_repeat);
        for (int k = 0; k < r->n_n; k++) textbuf_printf(b, "<td>%.3f</td>", s->recall[k]);
        textbuf_printf(b, "<td>%zu</td><td>%zu</td><td>%.1f</td><td>%.1f</td></tr>\n", s->cache_bytes_per_token,
                       s->state_bytes, s->seconds, (double)s->peak_bytes / (1 << 20));
    }
    textbuf_puts(b, "</table>\n<p>KL and text loss in nats per token on held-out text, the same batches for every row; "
                    "text loss is split into tokens that go on as an earlier pair of tokens of the same window went on "
                    "(repeats: what recall can give) and all others (new); seconds: training that student, "
                    "selection not included. The files: <a href=\"students.csv\">students.csv</a>, <a "
                    "href=\"results.json\">results.json</a>, "
                    "<a href=\"ranking.json\">ranking.json</a>, <a href=\"run.json\">run.json</a>, <a "
                    "href=\"log.jsonl\">log.jsonl</a>.</p>\n");
}

/* What early stopping or halving saved, if one of them ran. */
static int stopped_text(Report *p, Err *e) {
    char path[1200], line[512];
    Json j;
    TRY(file_join(path, sizeof path, p->page.dir, "checkpoints/scores/early_stop.json", e));
    if (file_exists(path) != 1) return OK;
    double saved = NAN, tokens = NAN, all = NAN, jaccard = NAN;
    int64_t rounds = 0;
    int stopped = 0;
    TRY(json_open(&j, path, e));
    const int rc = json_opt_real(&j, 0, "saved", &saved, e) || json_opt_real(&j, 0, "tokens", &tokens, e) ||
                   json_opt_real(&j, 0, "tokens_of_full_runs", &all, e) ||
                   json_opt_real(&j, 0, "jaccard_mean", &jaccard, e) || json_opt_bool(&j, 0, "stopped", &stopped, e) ||
                   json_opt_int(&j, 0, "rounds", 0, INT64_MAX, &rounds, e);
    json_free(&j);
    if (rc) return e->code;
    snprintf(line, sizeof line,
             "Scoring ended after %lld evaluations (%s): %.0f of %.0f tokens were used, %.1f %% saved. Mean "
             "Jaccard index of the "
             "last top sets: %.3f.",
             (long long)rounds, stopped ? "the top set had settled" : "its last step, or no more than K layers left",
             tokens, all, 100 * saved, jaccard);
    page_text(&p->page, line);
    return OK;
}

int report_read(Report *p, Err *e) {
    char path[1200];
    int found;
    TRY(pipeline_results_read(p->r, p->page.dir, e));
    TRY(pipeline_options_read(p->o, p->page.dir, &found, e));
    if (!found) pipeline_defaults(p->o);
    TRY(file_join(path, sizeof path, p->page.dir, "ranking.json", e));
    if (file_exists(path)) {
        TRY(ranking_read(p->score, &p->L, p->page.dir, e));
        TRY(ranking_about(p->unit, sizeof p->unit, p->label, sizeof p->label, p->page.dir, e));
    }
    if (!p->unit[0]) p->L = 0; // a layout: nothing was scored
    if (p->r->rows < 3)
        return err_set(e, ERR_INPUT, "%s: results.json has %d rows, expected teacher, stage1 and a student",
                       p->page.dir, p->r->rows);
    return OK;
}

static int report_all(Report *p, Err *e) {
    char line[512];
    TRY(report_read(p, e));
    page_begin(&p->page, p->page.dir, "hybridize run", "From softmax to hybrid: which layers must stay?");
    snprintf(line, sizeof line,
             "%d layers, %d kept as softmax attention by selector %.32s. Every student below started from "
             "the same stage-1 model and was "
             "distilled on the same tokens; they differ only in which layers kept their attention.",
             p->r->L, p->r->row[2].K, p->r->row[2].name);
    page_text(&p->page, line);
    html_table(p);
    TRY(students_csv(p, e));
    if (p->L) page_text(&p->page, p->label);
    if (p->L) TRY(draw_importance(p, e));
    TRY(draw_recall(p, e));
    TRY(stopped_text(p, e));
    TRY(draw_trajectory(p, e));
    TRY(draw_agreement(p, e));
    TRY(draw_curves(p, e));
    TRY(draw_budget(p, e));
    TRY(draw_start(p, e));
    TRY(draw_loss(p, e));
    TRY(card_write(p->r, p->o, p->page.dir, e));
    return page_end(&p->page, e);
}

int report_write(const char *dir, Err *e) {
    void *result, *score, *options;
    TRY(mem_alloc(&result, sizeof(PipelineResult), "results", e));
    int rc = mem_alloc(&score, MAX_LAYERS * sizeof(LayerScore), "layer scores", e);
    if (rc) return mem_free(result), rc;
    rc = mem_alloc(&options, sizeof(PipelineOptions), "options", e);
    if (!rc) {
        Report p = {.page.dir = dir, .r = result, .score = score, .o = options};
        rc = report_all(&p, e);
        textbuf_free(&p.page.html);
        mem_free(options);
    }
    mem_free(score);
    mem_free(result);
    return rc;
}
