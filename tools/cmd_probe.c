/* cmd_probe.c - what a model's attention heads look at: previous-token and induction weight of each, on repeated random blocks. */
#include "base/file.h"
#include "base/mem.h"
#include "base/svg.h"
#include "eval/recall.h"
#include "io/json.h"
#include "method/probe.h"
#include "tools/session.h"
#include <stddef.h>
#include <string.h>

typedef struct {
    int block, rows;
    char alphabet[128];
} Options;
static const Option rows[] = {
    {"block", "tokens that are repeated", OPT_INT, offsetof(Options, block), 2, 1 << 20, NULL, 0},
    {"rows", "sequences", OPT_INT, offsetof(Options, rows), 1, 1 << 20, NULL, 0},
    {"alphabet", "characters to draw from, \"A-Za-z\"; empty: the whole vocabulary", OPT_TEXT,
     offsetof(Options, alphabet), 0, 128, NULL, 0},
};
static const OptionTable table = {rows, 3};
static const OptionTable *get_table(void) { return &table; }
static void defaults(void *o) { *(Options *)o = (Options){.block = 32, .rows = 16}; }
static const CliOptions options = {get_table, sizeof(Options), defaults, NULL};

static int save(const TextBuf *b, const char *dir, const char *name, int svg, Err *e) {
    char path[1200];
    TRY(file_join(path, sizeof path, dir, name, e));
    return svg ? svg_save(b, path, e) : file_write_all(path, b->text, b->len, e);
}

static int picture(const HeadProbe *p, const double *v, const char *title, const char *dir, const char *name,
                   Err *e) {
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

static int csv(const HeadProbe *p, const char *dir, Err *e) {
    TextBuf b = {0};
    textbuf_puts(&b, "layer,head,previous,induction\n");
    for (int i = 0; i < p->L * p->H; i++)
        textbuf_printf(&b, "%d,%d,%.6g,%.6g\n", i / p->H, i % p->H, p->previous[i], p->induction[i]);
    int rc = textbuf_end(&b, e);
    if (!rc) rc = save(&b, dir, "probe.csv", 0, e);
    textbuf_free(&b);
    return rc;
}

static int json_print(const HeadProbe *p, Err *e) {
    JsonOut j;
    json_out_begin(&j, 1);
    json_out_array(&j, NULL);
    for (int i = 0; i < p->L * p->H; i++) {
        json_out_object(&j, NULL);
        json_out_int(&j, "layer", i / p->H);
        json_out_int(&j, "head", i % p->H);
        json_out_real(&j, "previous", p->previous[i]);
        json_out_real(&j, "induction", p->induction[i]);
        json_out_close(&j);
    }
    json_out_close(&j);
    const int rc = json_out_end(&j, e);
    if (!rc) puts(j.text);
    json_out_free(&j);
    return rc;
}

static void table_print(const HeadProbe *p) {
    printf("%5s %5s %10s %10s\n", "layer", "head", "previous", "induction");
    for (int i = 0; i < p->L * p->H; i++)
        if (p->previous[i] == p->previous[i])
            printf("%5d %5d %10.4f %10.4f\n", i / p->H, i % p->H, p->previous[i], p->induction[i]);
}

static int report(const Cli *c, const HeadProbe *p, Err *e) {
    const char *dir = c->common.output;
    if (dir[0]) {
        TRY(file_mkdirs(dir, e));
        TRY(csv(p, dir, e));
        TRY(picture(p, p->previous, "Attention on the previous token", dir, "probe_previous.svg", e));
        TRY(picture(p, p->induction, "Attention on what followed last time (induction)", dir,
                    "probe_induction.svg", e));
    }
    if (c->common.json) return json_print(p, e);
    table_print(p);
    return OK;
}

static int run(Cli *c, Err *e) {
    const Options *o = c->options[0];
    Session s;
    HeadProbe p = {0};
    int *ids = NULL, n = 0;
    TRY(session_open(&s, c, o->alphabet[0] != 0, e));
    int rc = o->alphabet[0] ? recall_alphabet(&ids, &n, s.tokenizer, o->alphabet, e) : OK;
    if (!rc) rc = probe_heads(&p, &s.m, ids, n, o->block, o->rows, c->common.seed, e);
    if (!rc) rc = report(c, &p, e);
    probe_heads_close(&p);
    mem_free(ids);
    session_close(&s);
    return rc;
}

const Command cmd_probe = {
    .name = "probe",
    .summary = "What do the attention heads look at? Previous-token and induction weight of each, on "
               "repeated random blocks.",
    .usage = "-m MODEL [-o DIR] [--alphabet A-Za-z] [options]",
    .details = "With -o, DIR gets probe.csv, probe_previous.svg and probe_induction.svg.",
    .common = CLI_MODEL | CLI_OUTPUT | CLI_SEED | CLI_BACKEND | CLI_JSON,
    .options = {&options},
    .run = run,
};
