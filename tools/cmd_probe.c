/* cmd_probe.c - what a model's attention heads look at: previous-token and induction weight of each, on repeated random
 * blocks. */
#include "base/file.h"
#include "base/mem.h"
#include "report/svg.h"
#include "eval/recall.h"
#include "base/json.h"
#include "run/pipeline.h"
#include "report/probe.h"
#include "tools/session.h"
#include <math.h>
#include <stddef.h>
#include <string.h>

typedef struct {
    int block, rows;
    char alphabet[128], scores[1024];
} Options;
static const Option rows[] = {
    {"block", "tokens of the block that is repeated", OPT_INT, offsetof(Options, block), 2, 1 << 20, NULL,
     AFFECTS_EVALUATION},
    {"rows", "number of sequences", OPT_INT, offsetof(Options, rows), 1, 1 << 20, NULL, AFFECTS_EVALUATION},
    {"alphabet", "characters to draw from, \"A-Za-z\"; empty: the whole vocabulary", OPT_TEXT,
     offsetof(Options, alphabet), 0, 128, NULL, AFFECTS_EVALUATION},
    {"scores", "directory with a ranking.json that has scores per head: RUNDIR/rankings/gates", OPT_PATH,
     offsetof(Options, scores), 0, 1024, NULL, AFFECTS_EVALUATION},
};
static const OptionTable table = {rows, 4};
static const OptionTable *get_table(void) { return &table; }
static void defaults(void *o) { *(Options *)o = (Options){.block = 32, .rows = 16}; }
static const CliOptions options = {get_table, sizeof(Options), defaults, NULL};

static int save(const TextBuf *b, const char *dir, const char *name, int svg, Err *e) {
    char path[1200];
    TRY(file_join(path, sizeof path, dir, name, e));
    return svg ? svg_save(b, path, e) : file_write_all(path, b->text, b->len, e);
}

static int picture(const HeadProbe *p, const double *v, const char *title, const char *dir, const char *name, Err *e) {
    char label[MAX_LAYERS][16];
    const char *row[MAX_LAYERS], *col[MAX_LAYERS];
    TextBuf svg = {0};
    const int heads = p->H < MAX_LAYERS ? p->H : MAX_LAYERS;
    for (int i = 0; i < MAX_LAYERS; i++) {
        snprintf(label[i], sizeof label[i], "%d", i);
        row[i] = col[i] = label[i];
    }
    const SvgPlot plot = {.title = title,
                          .desc = "Mean attention weight of every softmax head on repeated random blocks",
                          .x_label = "head",
                          .y_label = "layer"};
    svg_heat(&svg, &plot, row, (size_t)p->L, col, (size_t)heads, v);
    int rc = textbuf_end(&svg, e);
    if (!rc) rc = save(&svg, dir, name, 1, e);
    textbuf_free(&svg);
    return rc;
}

/* Scores per head beside the probe: score (L,H), NULL when none were given. */
static int csv(const HeadProbe *p, const double *score, const char *dir, Err *e) {
    TextBuf b = {0};
    textbuf_printf(&b, "layer,head,previous,induction%s\n", score ? ",score" : "");
    for (int i = 0; i < p->L * p->H; i++) {
        textbuf_printf(&b, "%d,%d,%.6g,%.6g", i / p->H, i % p->H, p->previous[i], p->induction[i]);
        if (score) textbuf_printf(&b, ",%.9g", score[i]);
        textbuf_puts(&b, "\n");
    }
    int rc = textbuf_end(&b, e);
    if (!rc) rc = save(&b, dir, "probe.csv", 0, e);
    textbuf_free(&b);
    return rc;
}

/* probe_against.svg: score against the two attention weights, a dot each head; its numbers are probe.csv. */
static int against(const HeadProbe *p, const double *score, const char *dir, Err *e) {
    const size_t n = (size_t)p->L * (size_t)p->H;
    char name[2][64];
    TextBuf svg = {0};
    snprintf(name[0], sizeof name[0], "induction (rho %.2f)", probe_correlation(p->induction, score, n));
    snprintf(name[1], sizeof name[1], "previous token (rho %.2f)", probe_correlation(p->previous, score, n));
    const SvgSeries s[2] = {{.name = name[0], .x = p->induction, .y = score, .n = n, .dots = 1},
                            {.name = name[1], .x = p->previous, .y = score, .n = n, .dots = 1}};
    const SvgPlot plot = {.title = "Does the score of a head say what it attends to?",
                          .desc = "Score of every head against its mean attention weight on the previous token and on "
                                  "what followed last time",
                          .x_label = "mean attention weight",
                          .y_label = "score of the head"};
    svg_lines(&svg, &plot, s, 2, NAN, NULL);
    int rc = textbuf_end(&svg, e);
    if (!rc) rc = save(&svg, dir, "probe_against.svg", 1, e);
    textbuf_free(&svg);
    return rc;
}

/* *score (L,H), to be freed with mem_free; NULL without --scores. */
static int scores_read(double **score, const HeadProbe *p, const char *dir, Err *e) {
    void *rows_mem, *mem;
    int L = 0;
    *score = NULL;
    if (!dir[0]) return OK;
    TRY(mem_alloc(&rows_mem, MAX_LAYERS * sizeof(LayerScore), "layer scores", e));
    LayerScore *s = rows_mem;
    int rc = ranking_read(s, &L, dir, e);
    if (!rc && L != p->L) rc = err_set(e, ERR_INPUT, "%s: scores of %d layers, the model has %d", dir, L, p->L);
    for (int l = 0; l < L && !rc; l++) {
        if (s[l].heads == p->H) continue;
        rc = err_set(e, ERR_INPUT, "%s: layer %d has scores of %d heads, the model has %d", dir, l, s[l].heads, p->H);
        err_hint(e, "selectors gates, gates:path and gates:greedy score heads");
    }
    if (!rc) rc = mem_alloc(&mem, (size_t)p->L * (size_t)p->H * sizeof(double), "scores of heads", e);
    if (!rc) {
        *score = mem;
        for (int i = 0; i < p->L * p->H; i++) (*score)[i] = s[i / p->H].head[i % p->H];
    }
    mem_free(rows_mem);
    return rc;
}

static int json_print(const HeadProbe *p, const double *score, Err *e) {
    JsonOut j;
    json_out_begin(&j, 1);
    json_out_array(&j, NULL);
    for (int i = 0; i < p->L * p->H; i++) {
        json_out_object(&j, NULL);
        json_out_int(&j, "layer", i / p->H);
        json_out_int(&j, "head", i % p->H);
        json_out_real(&j, "previous", p->previous[i]);
        json_out_real(&j, "induction", p->induction[i]);
        if (score) json_out_real(&j, "score", score[i]);
        json_out_close(&j);
    }
    json_out_close(&j);
    const int rc = json_out_end(&j, e);
    if (!rc) puts(j.text);
    json_out_free(&j);
    return rc;
}

static void table_print(const HeadProbe *p, const double *score) {
    const size_t n = (size_t)p->L * (size_t)p->H;
    printf("%5s %5s %10s %10s%s\n", "layer", "head", "previous", "induction", score ? "      score" : "");
    for (size_t i = 0; i < n; i++) {
        if (isnan(p->previous[i])) continue;
        printf("%5zu %5zu %10.4f %10.4f", i / (size_t)p->H, i % (size_t)p->H, p->previous[i], p->induction[i]);
        if (score) printf(" %10.5f", score[i]);
        putchar('\n');
    }
    if (score)
        printf("rank correlation of the score: %.2f with induction, %.2f with the previous token\n",
               probe_correlation(p->induction, score, n), probe_correlation(p->previous, score, n));
}

static int report(const Cli *c, const HeadProbe *p, const double *score, Err *e) {
    const char *dir = c->common.output;
    if (dir[0]) {
        TRY(file_mkdirs(dir, e));
        TRY(csv(p, score, dir, e));
        TRY(picture(p, p->previous, "Attention on the previous token", dir, "probe_previous.svg", e));
        TRY(picture(p, p->induction, "Attention on what followed last time (induction)", dir, "probe_induction.svg",
                    e));
        if (score) TRY(picture(p, score, "Score of every head", dir, "probe_scores.svg", e));
        if (score) TRY(against(p, score, dir, e));
    }
    if (c->common.json) return json_print(p, score, e);
    table_print(p, score);
    return OK;
}

static int run(Cli *c, Err *e) {
    const Options *o = c->options[0];
    Session s;
    HeadProbe p = {0};
    double *score = NULL;
    int *ids = NULL, n = 0;
    TRY(session_open(&s, c, o->alphabet[0] != 0, e));
    int rc = o->alphabet[0] ? recall_alphabet(&ids, &n, s.tokenizer, o->alphabet, e) : OK;
    if (!rc) rc = probe_heads(&p, &s.m, ids, n, o->block, o->rows, c->common.seed, e);
    if (!rc) rc = scores_read(&score, &p, o->scores, e);
    if (!rc) rc = report(c, &p, score, e);
    mem_free(score);
    probe_heads_close(&p);
    mem_free(ids);
    session_close(&s);
    return rc;
}

const Command cmd_probe = {
    .name = "probe",
    .summary = "What do the attention heads look at? Previous-token and induction weight of each, on "
               "repeated random blocks.",
    .usage = "-m MODEL [-o DIR] [--alphabet A-Za-z] [--scores RUNDIR/rankings/gates] [options]",
    .details = "With -o, DIR gets probe.csv, probe_previous.svg and probe_induction.svg; with --scores the scores of "
               "the heads stand beside them, and\n"
               "probe_scores.svg and probe_against.svg draw them.",
    .common = CLI_MODEL | CLI_OUTPUT | CLI_SEED | CLI_BACKEND | CLI_JSON,
    .options = {&options},
    .run = run,
};
