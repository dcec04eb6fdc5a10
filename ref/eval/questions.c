/* questions.c - see questions.h: which files belong to which task, and how they are read. */
#include "text/corpus.h"
#include "eval/question_parts.h"
#include "base/mem.h"
#include "eval/completion.h"
#include <stdio.h>
#include <string.h>

typedef enum { FORM_JSONL, FORM_JSON, FORM_HELLASWAG, FORM_PAGES, FORM_MMLU } Form;
typedef struct {
    const char *path;
    Form form;
    QuestionRow row;
    const char *labels;
} QuestionSource;
enum { SOURCES = 3 };
struct QuestionReader {
    const char *task, *origin;
    QuestionSource source[SOURCES];
};

static const QuestionReader readers[] = {
    {"piqa",
     "PIQA validation (ybisk.github.io/piqa)",
     {{"piqa/valid.jsonl", FORM_JSONL, piqa_row, "piqa/valid-labels.lst"}}},
    {"hellaswag",
     "HellaSwag validation (github rowanz/hellaswag)",
     {{"hellaswag/hellaswag_val.jsonl", FORM_JSONL, hellaswag_row, NULL},
      {"hellaswag/hellaswag_val_full.txt", FORM_HELLASWAG, NULL, NULL}}},
    {"arc_easy",
     "ARC-Easy test (AI2)",
     {{"arc/ARC-Easy-Test.jsonl", FORM_JSONL, arc_row, NULL},
      {"arc/ARC-Easy-test.jsonl", FORM_JSONL, query_row, NULL},
      {"arc/ARC-Easy-test.instruct.json", FORM_JSON, arc_instruct, NULL}}},
    {"arc_challenge",
     "ARC-Challenge test (AI2)",
     {{"arc/ARC-Challenge-Test.jsonl", FORM_JSONL, arc_row, NULL},
      {"arc/ARC-Challenge-test.instruct.json", FORM_JSON, arc_instruct, NULL}}},
    {"winogrande",
     "WinoGrande xl dev (AI2)",
     {{"winogrande/dev_official.jsonl", FORM_JSONL, winogrande_official, NULL},
      {"winogrande/dev.jsonl", FORM_JSONL, winogrande_row, NULL}}},
    {"openbookqa",
     "OpenBookQA test (AI2)",
     {{"openbookqa/test.jsonl", FORM_JSONL, obqa_row, NULL},
      {"openbookqa/test.instruct.json", FORM_JSON, obqa_instruct, NULL}}},
    {"social_iqa",
     "SocialIQA dev (AI2)",
     {{"social_iqa/dev.jsonl", FORM_JSONL, siqa_row, NULL},
      {"social_iqa/dev.instruct.json", FORM_JSON, siqa_instruct, NULL}}},
    {"boolq",
     "BoolQ dev (github google-research-datasets/boolean-questions)",
     {{"boolq/dev.jsonl", FORM_JSONL, boolq_row, NULL}, {"boolq/dev.instruct.json", FORM_JSON, boolq_instruct, NULL}}},
    {"mmlu",
     "MMLU (github hendrycks/test, data.tar: test/SUBJECT_test.csv, dev/SUBJECT_dev.csv)",
     {{"mmlu/test", FORM_MMLU, NULL, NULL}}},
    {"sciq", "SciQ test (AI2)", {{"sciq/test.json", FORM_JSON, sciq_row, NULL}}},
    {"lambada_openai",
     "LAMBADA test, OpenAI's variant",
     {{"lambada/lambada_test.jsonl", FORM_JSONL, lambada_row, NULL}}},
    {"gsm8k", "GSM8K test (github openai/grade-school-math)", {{"gsm8k/test.jsonl", FORM_JSONL, gsm8k_row, NULL}}},
    {"swde",
     "hazyresearch/based-swde-v2, its parquet as JSONL",
     {{"swde/validation.jsonl", FORM_JSONL, completion_row, NULL}}},
    {"fda",
     "hazyresearch/based-fda, its parquet as JSONL",
     {{"fda/validation.jsonl", FORM_JSONL, completion_row, NULL}}},
    {"squad_completion",
     "hazyresearch/based-squad, its parquet as JSONL",
     {{"squad_completion/validation.jsonl", FORM_JSONL, completion_row, NULL}}},
    {"squadv2",
     "SQuAD 2.0 dev (rajpurkar.github.io)",
     {{"squad_v2/dev-v2.0.json", FORM_JSON, squad_article, NULL},
      {"squad_v2_cs224n/dev-v2.0.json", FORM_JSON, squad_article, NULL}}},
    {"wikitext",
     "WikiText-2 raw test",
     {{"wikitext/wiki.test.raw", FORM_PAGES, NULL, NULL},
      {"../corpora/wikitext-2-eval/wiki.test.raw", FORM_PAGES, NULL, NULL}}},
};

const QuestionReader *questions_find(const char *task) {
    for (size_t i = 0; i < sizeof readers / sizeof *readers; i++)
        if (!strcmp(readers[i].task, task)) return &readers[i];
    return NULL;
}

static int read_jsonl(const QuestionSource *s, const char *path, const File *f, size_t limit, EvalSet *out, Err *e) {
    QuestionLines l = {(const char *)f->data, (const char *)f->data + f->size, 0};
    const char *line;
    size_t n;
    while ((!limit || out->n < limit) && question_line(&l, &line, &n)) {
        char where[256];
        Json j;
        if (!n) continue;
        snprintf(where, sizeof where, "%.200s:%zu", path, l.number);
        TRY(json_parse(&j, line, n, where, e));
        const int rc = s->row(&j, 0, out, e);
        json_free(&j);
        TRY(rc);
    }
    return OK;
}

static int read_json(const QuestionSource *s, const char *path, const File *f, size_t limit, EvalSet *out, Err *e) {
    Json j;
    TRY(json_parse(&j, (const char *)f->data, f->size, path, e));
    const JsonRef list = json_kind(&j, 0) == JSON_OBJECT ? json_get(&j, 0, "data") : 0;
    int rc = json_kind(&j, list) == JSON_ARRAY ? OK : err_set(e, ERR_INPUT, "%s: expected a list of questions", path);
    size_t row = 0;
    for (JsonRef r = json_first(&j, list); r >= 0 && !rc && (!limit || out->n < limit); r = json_next(&j, r), row++) {
        rc = s->row(&j, r, out, e);
        if (rc) err_prefix(e, "question %zu", row + 1);
    }
    json_free(&j);
    return rc;
}

/* One label a line, for the questions already read. */
static int read_labels(const char *path, EvalSet *out, Err *e) {
    File f;
    TRY(corpus_file_open(&f, path, e));
    QuestionLines l = {(const char *)f.data, (const char *)f.data + f.size, 0};
    const char *line;
    size_t n;
    int rc = OK;
    for (size_t i = 0; i < out->n && !rc; i++) {
        if (!question_line(&l, &line, &n) || n != 1 || *line < '0' || *line >= '0' + out->doc[i].n_text)
            rc = err_set(e, ERR_INPUT, "%s:%zu: expected the number of an answer for every question", path, l.number);
        else out->doc[i].gold = *line - '0';
    }
    file_close(&f);
    return rc;
}

/* The first of the set's files that is there. */
static int source_find(const QuestionReader *r, const char *dir, const QuestionSource **s, char *path, size_t cap,
                       Err *e) {
    for (int i = 0; i < SOURCES && r->source[i].path; i++) {
        *s = &r->source[i];
        TRY(file_join(path, cap, dir, (*s)->path, e));
        if (file_exists(path) == ((*s)->form == FORM_MMLU ? 2 : 1)) return OK;
    }
    *s = r->source;
    TRY(file_join(path, cap, dir, (*s)->path, e));
    err_set(e, ERR_IO, "%s: no such %s", path, (*s)->form == FORM_MMLU ? "folder" : "file");
    return err_hint(e, "%s is needed here: %s", (*s)->path, r->origin);
}

static int source_read(const QuestionSource *s, const char *path, const QuestionOptions *o, EvalSet *out, Err *e) {
    File f;
    if (s->form == FORM_MMLU) return mmlu_read(path, o->shots, o->limit, out, e);
    TRY(corpus_file_open(&f, path, e));
    const int rc = s->form == FORM_JSONL   ? read_jsonl(s, path, &f, o->limit, out, e)
                   : s->form == FORM_JSON  ? read_json(s, path, &f, o->limit, out, e)
                   : s->form == FORM_PAGES ? pages_read(&f, o->limit, out, e)
                                           : hellaswag_read(path, &f, o->limit, out, e);
    file_close(&f);
    return rc;
}

int questions_read(const QuestionReader *r, const char *dir, const QuestionOptions *o, EvalSet *out, Err *e) {
    char path[1024], labels[1024];
    const QuestionSource *s;
    if (o->shots && r->source[0].form != FORM_MMLU)
        return err_set(e, ERR_USAGE, "%s: examples before a question: only mmlu has them here", r->task);
    TRY(source_find(r, dir, &s, path, sizeof path, e));
    TRY(source_read(s, path, o, out, e));
    if (s->labels) {
        TRY(file_join(labels, sizeof labels, dir, s->labels, e));
        TRY(read_labels(labels, out, e));
    }
    if (!out->n) return err_set(e, ERR_INPUT, "%s: no questions in it", path);
    if (s->form != FORM_MMLU) evalset_cut(out, o->limit);
    return s->row == completion_row ? completion_apply(out, r->task, o, e) : OK;
}
