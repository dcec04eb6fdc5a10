/* cmd_eval_heatmap.c - where in how long a text does the model still find a needle: RULER's needle tasks over length
 * and depth. */
#include "base/file.h"
#include "base/mem.h"
#include "report/svg.h"
#include "eval/answers.h"
#include "eval/lm.h"
#include "eval/recall.h"
#include "eval/ruler.h"
#include "eval/score.h"
#include "base/json.h"
#include "run/pretrain.h"
#include "tools/cmd_eval.h"
#include <string.h>

enum { MOST_LENGTHS = 32, MOST_DEPTHS = 64 };
typedef struct {
    Cli *c;
    const EvalOptions *o;
    Lm lm;
    Ruler ruler;
    TokenCount count;
    int task, length[MOST_LENGTHS], lengths, depths;
    double score[MOST_DEPTHS * MOST_LENGTHS]; /* (depths,lengths) */
} Heat;

static double depth_of(const Heat *h, int d) { return (double)d / (h->depths - 1); }

/* All depths of one length: the same needles in the same texts, at other places. */
static int column_make(Heat *h, int l, EvalSet *set, Err *e) {
    for (int d = 0; d < h->depths; d++) {
        ruler_seed(&h->ruler, h->c->common.seed);
        TRY(ruler_make_at(&h->ruler, h->task, h->length[l], depth_of(h, d), h->o->new_tokens, h->o->heat_samples, set,
                          e));
    }
    return answers_check(task_find(ruler_name(h->task)), set, 1, e);
}

static int column_run(Heat *h, int l, Err *e) {
    EvalSet set = {0};
    char **text = NULL, label[32];
    const int n = h->o->heat_samples;
    snprintf(label, sizeof label, "needle %d", h->length[l]);
    h->lm.label = label;
    int rc = column_make(h, l, &set, e);
    if (!rc) rc = lm_generate(&h->lm, set.doc, set.n, h->o->new_tokens, NULL, &text, e);
    for (size_t i = 0; i < set.n && !rc; i++) {
        double score = 0;
        rc = score_match(text[i], set.doc[i].text, set.doc[i].n_text, 0, &score, e);
        h->score[(i / (size_t)n) * (size_t)h->lengths + (size_t)l] += score / n;
    }
    lm_free_texts(text, set.n);
    evalset_free(&set);
    return rc;
}

/* ---- results ---- */

static void csv_put(const Heat *h, TextBuf *b) {
    textbuf_puts(b, "length,depth_percent,score,samples\n");
    for (int l = 0; l < h->lengths; l++)
        for (int d = 0; d < h->depths; d++)
            textbuf_printf(b, "%d,%.4g,%.6g,%d\n", h->length[l], 100 * depth_of(h, d), h->score[d * h->lengths + l],
                           h->o->heat_samples);
}

static void svg_put(const Heat *h, TextBuf *b) {
    char row_name[MOST_DEPTHS][16], col_name[MOST_LENGTHS][16];
    const char *row[MOST_DEPTHS], *col[MOST_LENGTHS];
    for (int d = 0; d < h->depths; d++) {
        snprintf(row_name[d], sizeof row_name[d], "%.0f %%", 100 * depth_of(h, d));
        row[d] = row_name[d];
    }
    for (int l = 0; l < h->lengths; l++) {
        snprintf(col_name[l], sizeof col_name[l], "%d", h->length[l]);
        col[l] = col_name[l];
    }
    const SvgPlot plot = {.title = "Needle in a haystack",
                          .desc = "Fraction of needles found, by length of the text and place of the needle",
                          .x_label = "length (tokens)",
                          .y_label = "depth of the needle"};
    svg_heat(b, &plot, row, (size_t)h->depths, col, (size_t)h->lengths, h->score);
}

static int save(const Heat *h, int svg, Err *e) {
    char path[1100];
    TextBuf b = {0};
    if (svg) svg_put(h, &b);
    else csv_put(h, &b);
    int rc = textbuf_end(&b, e);
    if (!rc) rc = file_join(path, sizeof path, h->c->common.output, svg ? "heatmap.svg" : "heatmap.csv", e);
    if (!rc) rc = svg ? svg_save(&b, path, e) : file_write_all(path, b.text, b.len, e);
    textbuf_free(&b);
    return rc;
}

static int print_json(const Heat *h, Err *e) {
    JsonOut o;
    json_out_begin(&o, 1);
    json_out_object(&o, NULL);
    json_out_str(&o, "task", h->o->heat_task);
    json_out_int(&o, "samples", h->o->heat_samples);
    json_out_array(&o, "cells");
    for (int l = 0; l < h->lengths; l++)
        for (int d = 0; d < h->depths; d++) {
            json_out_object(&o, NULL);
            json_out_int(&o, "length", h->length[l]);
            json_out_real(&o, "depth", depth_of(h, d));
            json_out_real(&o, "score", h->score[d * h->lengths + l]);
            json_out_close(&o);
        }
    json_out_close(&o);
    json_out_int(&o, "truncated", h->lm.truncated);
    json_out_close(&o);
    const int rc = json_out_end(&o, e);
    if (!rc) puts(o.text);
    json_out_free(&o);
    return rc;
}

static void print_table(const Heat *h) {
    printf("depth %%");
    for (int l = 0; l < h->lengths; l++) printf(" %8d", h->length[l]);
    for (int d = 0; d < h->depths; d++) {
        printf("\n%7.0f", 100 * depth_of(h, d));
        for (int l = 0; l < h->lengths; l++) printf(" %8.2f", h->score[d * h->lengths + l]);
    }
    printf("\n%s, %d samples a cell\n", h->o->heat_task, h->o->heat_samples);
    if (h->lm.truncated) printf("%ld prompts lost their beginning to fit the model's context\n", h->lm.truncated);
}

static int heat_run(Heat *h, Session *s, Err *e) {
    const EvalOptions *o = h->o;
    h->depths = o->depths;
    h->task = ruler_find(o->heat_task);
    if (h->task < 0)
        return err_set(e, ERR_USAGE, "heatmap: unknown needle task \"%s\": expected niah_single_1 to niah_multivalue",
                       o->heat_task);
    TRY(list_parse(o->lengths, h->length, MOST_LENGTHS, &h->lengths, 64, RULER_MAX, "lengths", e));
    TRY(cli_require(h->c, o->data, "--data DIR (wonderwords/, ruler_essays/)", e));
    h->count = (TokenCount){.kind = COUNT_TOKENS, .tokenizer = s->tokenizer};
    TRY(ruler_open(&h->ruler, o->data, &h->count, e));
    h->lm = (Lm){.m = &s->m,
                 .t = s->tokenizer,
                 .special = o->add_bos,
                 .max_length = o->max_length,
                 .batch = o->batch_size,
                 .stop = h->c->stop,
                 .progress = &h->c->progress};
    for (int l = 0; l < h->lengths; l++) TRY(column_run(h, l, e));
    if (h->c->common.output[0]) {
        TRY(file_mkdirs(h->c->common.output, e));
        TRY(save(h, 0, e));
        TRY(save(h, 1, e));
    }
    if (h->c->common.json) return print_json(h, e);
    print_table(h);
    return OK;
}

int eval_heatmap(Cli *c, Session *s, Err *e) {
    void *mem;
    TRY(mem_alloc(&mem, sizeof(Heat), "heat map", e));
    Heat *h = mem;
    h->c = c;
    h->o = c->options[0];
    const int rc = heat_run(h, s, e);
    ruler_close(&h->ruler);
    token_count_close(&h->count);
    mem_free(h);
    return rc;
}
