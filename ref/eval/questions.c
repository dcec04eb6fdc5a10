/* questions.c - see questions.h. */
#include "eval/questions.h"
#include "base/file.h"
#include "base/mem.h"
#include "io/json.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef int (*RowFn)(const Json *j, JsonRef row, EvalSet *out, Err *e);
typedef enum { FORM_JSONL, FORM_JSON, FORM_HELLASWAG, FORM_TEXT } Form;
typedef struct {
    const char *path;
    Form form;
    RowFn row;
    const char *labels;
} Source;
enum { SOURCES = 3 };
struct QuestionReader {
    const char *task, *origin;
    Source source[SOURCES];
};

/* ---- pieces ---- */

static int want(const Json *j, JsonRef row, const char *key, const char **s, Err *e) {
    return json_want_str(j, json_get(j, row, key), key, s, NULL, e);
}

static int context_put(EvalDoc *d, TextBuf *b, Err *e) {
    int rc = textbuf_end(b, e);
    if (!rc) rc = evaldoc_context(d, b->text, b->len, e);
    textbuf_free(b);
    return rc;
}

/* A continuation: the delimiter, one space, and n bytes. */
static int choice_put(EvalDoc *d, const char *s, size_t n, Err *e) {
    TextBuf b = {0};
    textbuf_puts(&b, " ");
    textbuf_put(&b, s, n);
    int rc = textbuf_end(&b, e);
    if (!rc) rc = evaldoc_text(d, b.text, b.len, e);
    textbuf_free(&b);
    return rc;
}

static int gold_check(const Json *j, EvalDoc *d, int64_t gold, int n, Err *e) {
    if (gold < 0 || gold >= n)
        return err_set(e, ERR_INPUT, "%s: the right answer is number %lld of %d", j->file, (long long)gold,
                       n);
    d->gold = (int)gold;
    return OK;
}

/* ---- rows ---- */

static int piqa_row(const Json *j, JsonRef row, EvalSet *out, Err *e) {
    const char *goal, *sol[2];
    TextBuf b = {0};
    EvalDoc *d;
    int64_t gold = 0;
    TRY(want(j, row, "goal", &goal, e));
    TRY(want(j, row, "sol1", &sol[0], e));
    TRY(want(j, row, "sol2", &sol[1], e));
    TRY(evalset_add(out, &d, e));
    textbuf_printf(&b, "Question: %s\nAnswer:", goal);
    TRY(context_put(d, &b, e));
    for (int i = 0; i < 2; i++) TRY(choice_put(d, sol[i], strlen(sol[i]), e));
    TRY(json_opt_int(j, row, "label", 0, 1, &gold, e));
    return gold_check(j, d, gold, 2, e);
}

/* {"query": "Question: ...", "choices": [...], "gold": n} */
static int query_row(const Json *j, JsonRef row, EvalSet *out, Err *e) {
    const char *query, *s;
    size_t n;
    TextBuf b = {0};
    EvalDoc *d;
    int64_t gold = 0;
    TRY(want(j, row, "query", &query, e));
    TRY(evalset_add(out, &d, e));
    textbuf_printf(&b, "%s\nAnswer:", query);
    TRY(context_put(d, &b, e));
    const JsonRef list = json_get(j, row, "choices");
    for (JsonRef c = json_first(j, list); c >= 0; c = json_next(j, c)) {
        TRY(json_want_str(j, c, "choices", &s, &n, e));
        TRY(choice_put(d, s, n, e));
    }
    TRY(json_want_int(j, json_get(j, row, "gold"), "gold", 0, 64, &gold, e));
    return gold_check(j, d, gold, d->n_text, e);
}

/* The publisher's form: {"question": {"stem", "choices": [{"text", "label"}]}, "answerKey"}. */
static int stem_row(const Json *j, JsonRef row, EvalSet *out, const char *before, const char *after, Err *e) {
    const JsonRef q = json_get(j, row, "question"), list = json_get(j, q, "choices");
    const char *stem, *key, *s;
    TextBuf b = {0};
    EvalDoc *d;
    int64_t gold = -1;
    TRY(want(j, q, "stem", &stem, e));
    TRY(want(j, row, "answerKey", &key, e));
    TRY(evalset_add(out, &d, e));
    textbuf_printf(&b, "%s%s%s", before, stem, after);
    TRY(context_put(d, &b, e));
    for (JsonRef c = json_first(j, list); c >= 0; c = json_next(j, c)) {
        TRY(want(j, c, "label", &s, e));
        if (!strcmp(s, key)) gold = d->n_text;
        TRY(want(j, c, "text", &s, e));
        TRY(choice_put(d, s, strlen(s), e));
    }
    return gold_check(j, d, gold, d->n_text, e);
}
static int arc_row(const Json *j, JsonRef row, EvalSet *out, Err *e) {
    return stem_row(j, row, out, "Question: ", "\nAnswer:", e);
}
static int obqa_row(const Json *j, JsonRef row, EvalSet *out, Err *e) {
    return stem_row(j, row, out, "", "", e);
}

/* The instruction form of a mirror: "...question: Q\n\nAnswer1: a Answer2: b ...\n\nAnswer format: ..." is split back. */
static int instruct_row(const Json *j, JsonRef row, EvalSet *out, const char *before, const char *after,
                        Err *e) {
    static const char lead[] = "Please choose the correct answer to the question: ";
    const char *text, *answer;
    TextBuf b = {0};
    EvalDoc *d;
    TRY(want(j, row, "instruction", &text, e));
    TRY(want(j, row, "answer", &answer, e));
    const char *list = strstr(text, "\n\nAnswer1: "),
               *stop = list ? strstr(list + 2, "\n\nAnswer format:") : NULL;
    if (strncmp(text, lead, sizeof lead - 1) || !stop)
        return err_set(e, ERR_INPUT, "%s: instruction: not of the known form", j->file);
    TRY(evalset_add(out, &d, e));
    textbuf_puts(&b, before);
    textbuf_put(&b, text + sizeof lead - 1, (size_t)(list - text) - (sizeof lead - 1));
    textbuf_puts(&b, after);
    TRY(context_put(d, &b, e));
    for (const char *at = list + 2; at < stop;) {
        char next[24], here[24];
        snprintf(here, sizeof here, "Answer%d: ", d->n_text + 1);
        snprintf(next, sizeof next, " Answer%d: ", d->n_text + 2);
        at += strlen(here);
        const char *end = strstr(at, next);
        if (!end || end > stop) end = stop;
        TRY(choice_put(d, at, (size_t)(end - at), e));
        at = end < stop ? end + 1 : stop;
    }
    return gold_check(j, d, strncmp(answer, "answer", 6) ? -1 : strtol(answer + 6, NULL, 10) - 1, d->n_text,
                      e);
}
static int arc_instruct(const Json *j, JsonRef row, EvalSet *out, Err *e) {
    return instruct_row(j, row, out, "Question: ", "\nAnswer:", e);
}
static int obqa_instruct(const Json *j, JsonRef row, EvalSet *out, Err *e) {
    return instruct_row(j, row, out, "", "", e);
}
static int siqa_instruct(const Json *j, JsonRef row, EvalSet *out, Err *e) {
    return instruct_row(j, row, out, "Q: ", "\nA:", e);
}

/* {"context", "question", "answerA".., "label": "1"} (the mirror's) */
static int siqa_row(const Json *j, JsonRef row, EvalSet *out, Err *e) {
    static const char *const key[] = {"answerA", "answerB", "answerC"};
    const char *context, *question, *label, *s;
    TextBuf b = {0};
    EvalDoc *d;
    TRY(want(j, row, "context", &context, e));
    TRY(want(j, row, "question", &question, e));
    TRY(want(j, row, "label", &label, e));
    TRY(evalset_add(out, &d, e));
    textbuf_printf(&b, "Q: %s %s\nA:", context, question);
    TRY(context_put(d, &b, e));
    for (int i = 0; i < 3; i++) {
        TRY(want(j, row, key[i], &s, e));
        TRY(choice_put(d, s, strlen(s), e));
    }
    return gold_check(j, d, strtol(label, NULL, 10) - 1, 3, e);
}

/* {"context_options": [a, b], "continuation", "gold"}: the blank is already cut. */
static int winogrande_row(const Json *j, JsonRef row, EvalSet *out, Err *e) {
    const char *s;
    size_t n;
    EvalDoc *d;
    int64_t gold = 0;
    TRY(evalset_add(out, &d, e));
    const JsonRef list = json_get(j, row, "context_options");
    for (JsonRef c = json_first(j, list); c >= 0; c = json_next(j, c)) {
        TRY(json_want_str(j, c, "context_options", &s, &n, e));
        TRY(evaldoc_context(d, s, n, e));
    }
    if (d->contexts != 2) return err_set(e, ERR_INPUT, "%s: context_options: expected two texts", j->file);
    TRY(want(j, row, "continuation", &s, e));
    TRY(choice_put(d, s, strlen(s), e));
    TRY(json_want_int(j, json_get(j, row, "gold"), "gold", 0, 1, &gold, e));
    return gold_check(j, d, gold, 2, e);
}

/* The publisher's {"sentence": "... _ ...", "option1", "option2", "answer": "1"}. */
static int winogrande_official(const Json *j, JsonRef row, EvalSet *out, Err *e) {
    const char *sentence, *option[2], *answer;
    EvalDoc *d;
    TRY(want(j, row, "sentence", &sentence, e));
    TRY(want(j, row, "option1", &option[0], e));
    TRY(want(j, row, "option2", &option[1], e));
    TRY(want(j, row, "answer", &answer, e));
    const char *blank = strchr(sentence, '_');
    if (!blank) return err_set(e, ERR_INPUT, "%s: sentence: no blank (_) in it", j->file);
    TRY(evalset_add(out, &d, e));
    for (int i = 0; i < 2; i++) {
        TextBuf b = {0};
        textbuf_put(&b, sentence, (size_t)(blank - sentence));
        textbuf_puts(&b, option[i]);
        TRY(context_put(d, &b, e));
    }
    const char *rest = blank + 1 + strspn(blank + 1, " \t\n");
    size_t n = strlen(rest);
    while (n && strchr(" \t\n", rest[n - 1])) n--;
    TRY(choice_put(d, rest, n, e));
    return gold_check(j, d, strtol(answer, NULL, 10) - 1, 2, e);
}

static int boolq_put(const Json *j, const char *passage, const char *question, size_t len, int yes,
                     EvalSet *out, Err *e) {
    TextBuf b = {0};
    EvalDoc *d;
    TRY(evalset_add(out, &d, e));
    textbuf_printf(&b, "%s\nQuestion: %.*s?\nAnswer:", passage, (int)len, question);
    TRY(context_put(d, &b, e));
    TRY(choice_put(d, "no", 2, e));
    TRY(choice_put(d, "yes", 3, e));
    return gold_check(j, d, yes, 2, e);
}
static int boolq_row(const Json *j, JsonRef row, EvalSet *out, Err *e) {
    const char *passage, *question;
    int yes = 0;
    TRY(want(j, row, "passage", &passage, e));
    TRY(want(j, row, "question", &question, e));
    TRY(json_want_bool(j, json_get(j, row, "answer"), "answer", &yes, e));
    return boolq_put(j, passage, question, strlen(question), yes, out, e);
}
/* The mirror's instruction form has no passage: the context is the question alone. */
static int boolq_instruct(const Json *j, JsonRef row, EvalSet *out, Err *e) {
    static const char lead[] = "Please answer the following question with true or false, question: ";
    const char *text, *answer;
    TRY(want(j, row, "instruction", &text, e));
    TRY(want(j, row, "answer", &answer, e));
    const char *stop = strstr(text, "\n\nAnswer format:");
    if (strncmp(text, lead, sizeof lead - 1) || !stop)
        return err_set(e, ERR_INPUT, "%s: instruction: not of the known form", j->file);
    size_t n = (size_t)(stop - text) - (sizeof lead - 1);
    if (n && text[sizeof lead - 2 + n] == '?') n--;
    return boolq_put(j, "", text + sizeof lead - 1, n, !strcmp(answer, "true"), out, e);
}

static int sciq_row(const Json *j, JsonRef row, EvalSet *out, Err *e) {
    static const char *const key[] = {"distractor1", "distractor2", "distractor3", "correct_answer"};
    const char *support, *question, *s;
    TextBuf b = {0};
    EvalDoc *d;
    TRY(want(j, row, "support", &support, e));
    TRY(want(j, row, "question", &question, e));
    TRY(evalset_add(out, &d, e));
    textbuf_printf(&b, "%s\nQuestion: %s\nAnswer:", support + strspn(support, " \t\n"), question);
    TRY(context_put(d, &b, e));
    for (int i = 0; i < 4; i++) {
        TRY(want(j, row, key[i], &s, e));
        TRY(choice_put(d, s, strlen(s), e));
    }
    return gold_check(j, d, 3, 4, e);
}

static int lambada_row(const Json *j, JsonRef row, EvalSet *out, Err *e) {
    const char *text;
    EvalDoc *d;
    TRY(want(j, row, "text", &text, e));
    const char *space = strrchr(text, ' ');
    if (!space) return err_set(e, ERR_INPUT, "%s: text: no space before a last word", j->file);
    TRY(evalset_add(out, &d, e));
    TRY(evaldoc_context(d, text, (size_t)(space - text), e));
    return choice_put(d, space + 1, strlen(space + 1), e);
}

/* HellaSwag's clean-up: stripped; " [title]" is ". "; other brackets vanish; two spaces are one. */
static int hellaswag_clean(TextBuf *out, const char *s, size_t n, Err *e) {
    TextBuf b = {0};
    while (n && strchr(" \t\r\n", s[0])) s++, n--;
    while (n && strchr(" \t\r\n", s[n - 1])) n--;
    for (size_t i = 0; i < n; i++) {
        const char *close = NULL;
        if (n - i >= 8 && !memcmp(s + i, " [title]", 8)) {
            textbuf_puts(&b, ". ");
            i += 7;
        } else if (s[i] == '[' && (close = memchr(s + i, ']', n - i)) != NULL &&
                   !memchr(s + i, '\n', (size_t)(close - s) - i))
            i = (size_t)(close - s);
        else textbuf_put(&b, s + i, 1);
    }
    int rc = textbuf_end(&b, e);
    for (size_t i = 0; i < b.len; i++) {
        textbuf_put(out, b.text + i, 1);
        i += b.text[i] == ' ' && b.text[i + 1] == ' ';
    }
    textbuf_free(&b);
    return rc ? rc : textbuf_end(out, e);
}

static int hellaswag_text(EvalDoc *d, const char *s, size_t n, int choice, Err *e) {
    TextBuf b = {0};
    int rc = hellaswag_clean(&b, s, n, e);
    if (!rc) rc = choice ? choice_put(d, b.text, b.len, e) : evaldoc_context(d, b.text, b.len, e);
    textbuf_free(&b);
    return rc;
}

/* The publisher's JSONL: {"activity_label", "ctx_a", "ctx_b", "label", "endings"}; ctx_b is capitalised as Python does it. */
static int hellaswag_row(const Json *j, JsonRef row, EvalSet *out, Err *e) {
    const char *activity, *a, *b, *s;
    TextBuf t = {0};
    EvalDoc *d;
    int64_t gold = 0;
    TRY(want(j, row, "activity_label", &activity, e));
    TRY(want(j, row, "ctx_a", &a, e));
    TRY(want(j, row, "ctx_b", &b, e));
    TRY(json_want_int(j, json_get(j, row, "label"), "label", 0, 3, &gold, e));
    TRY(evalset_add(out, &d, e));
    textbuf_printf(&t, "%s: %s ", activity, a);
    for (size_t i = 0; b[i]; i++) {
        const char c = !i && b[i] >= 'a' && b[i] <= 'z'  ? (char)(b[i] - 32)
                       : i && b[i] >= 'A' && b[i] <= 'Z' ? (char)(b[i] + 32)
                                                         : b[i];
        textbuf_put(&t, &c, 1);
    }
    int rc = textbuf_end(&t, e);
    if (!rc) rc = hellaswag_text(d, t.text, t.len, 0, e);
    textbuf_free(&t);
    const JsonRef list = json_get(j, row, "endings");
    for (JsonRef c = json_first(j, list); c >= 0 && !rc; c = json_next(j, c)) {
        rc = json_want_str(j, c, "endings", &s, NULL, e);
        if (!rc) rc = hellaswag_text(d, s, strlen(s), 1, e);
    }
    return rc ? rc : gold_check(j, d, gold, d->n_text, e);
}

/* "Question: ...\nAnswer:" and the number behind "#### ". */
static int gsm8k_row(const Json *j, JsonRef row, EvalSet *out, Err *e) {
    const char *question, *answer;
    TextBuf b = {0};
    EvalDoc *d;
    TRY(want(j, row, "question", &question, e));
    TRY(want(j, row, "answer", &answer, e));
    const char *mark = strstr(answer, "#### ");
    if (!mark) return err_set(e, ERR_INPUT, "%s: answer: no \"#### number\" in it", j->file);
    TRY(evalset_add(out, &d, e));
    textbuf_printf(&b, "Question: %s\nAnswer:", question);
    TRY(context_put(d, &b, e));
    return evaldoc_text(d, mark + 5, strlen(mark + 5), e);
}

/* SWDE, FDA, SQuAD completion as JSONL {"text", "value"}: nothing is stripped (version 0). */
static int completion_row(const Json *j, JsonRef row, EvalSet *out, Err *e) {
    const char *text, *value;
    EvalDoc *d;
    TRY(want(j, row, "text", &text, e));
    TRY(want(j, row, "value", &value, e));
    TRY(evalset_add(out, &d, e));
    TRY(evaldoc_context(d, text, strlen(text), e));
    return evaldoc_text(d, value, strlen(value), e);
}

/* All of SQuAD 2.0's official file is one value: article, paragraph, question. */
static int squad_article(const Json *j, JsonRef article, EvalSet *out, Err *e) {
    const char *title, *context, *question, *s;
    EvalDoc *d;
    TRY(want(j, article, "title", &title, e));
    for (JsonRef p = json_first(j, json_get(j, article, "paragraphs")); p >= 0; p = json_next(j, p)) {
        TRY(want(j, p, "context", &context, e));
        for (JsonRef q = json_first(j, json_get(j, p, "qas")); q >= 0; q = json_next(j, q)) {
            TextBuf b = {0};
            TRY(want(j, q, "question", &question, e));
            TRY(evalset_add(out, &d, e));
            textbuf_printf(&b, "Title: %s\n\nBackground: %s\n\nQuestion: %s\n\nAnswer:", title, context,
                           question);
            TRY(context_put(d, &b, e));
            for (JsonRef a = json_first(j, json_get(j, q, "answers")); a >= 0; a = json_next(j, a)) {
                TRY(want(j, a, "text", &s, e));
                TRY(evaldoc_text(d, s, strlen(s), e));
            }
        }
    }
    return OK;
}

/* ---- the table ---- */

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
     {{"boolq/dev.jsonl", FORM_JSONL, boolq_row, NULL},
      {"boolq/dev.instruct.json", FORM_JSON, boolq_instruct, NULL}}},
    {"sciq", "SciQ test (AI2)", {{"sciq/test.json", FORM_JSON, sciq_row, NULL}}},
    {"lambada_openai",
     "LAMBADA test, OpenAI's variant",
     {{"lambada/lambada_test.jsonl", FORM_JSONL, lambada_row, NULL}}},
    {"gsm8k",
     "GSM8K test (github openai/grade-school-math)",
     {{"gsm8k/test.jsonl", FORM_JSONL, gsm8k_row, NULL}}},
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
     {{"wikitext/wiki.test.raw", FORM_TEXT, NULL, NULL},
      {"../corpora/wikitext-2-eval/wiki.test.raw", FORM_TEXT, NULL, NULL}}},
};

const QuestionReader *questions_find(const char *task) {
    for (size_t i = 0; i < sizeof readers / sizeof *readers; i++)
        if (!strcmp(readers[i].task, task)) return &readers[i];
    return NULL;
}

/* ---- the forms ---- */

typedef struct {
    const char *at, *end;
    size_t number;
} Lines;

/* The next line without its end; 0 when there is none. */
static int line_next(Lines *l, const char **s, size_t *n) {
    if (l->at >= l->end) return 0;
    const char *newline = memchr(l->at, '\n', (size_t)(l->end - l->at));
    *s = l->at;
    *n = (size_t)((newline ? newline : l->end) - l->at);
    if (*n && (*s)[*n - 1] == '\r') --*n;
    l->at = newline ? newline + 1 : l->end;
    l->number++;
    return 1;
}

static int read_jsonl(const Source *s, const char *path, const File *f, size_t limit, EvalSet *out, Err *e) {
    Lines l = {(const char *)f->data, (const char *)f->data + f->size, 0};
    const char *line;
    size_t n;
    while ((!limit || out->n < limit) && line_next(&l, &line, &n)) {
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

static int read_json(const Source *s, const char *path, const File *f, size_t limit, EvalSet *out, Err *e) {
    Json j;
    TRY(json_parse(&j, (const char *)f->data, f->size, path, e));
    const JsonRef list = json_kind(&j, 0) == JSON_OBJECT ? json_get(&j, 0, "data") : 0;
    int rc = json_kind(&j, list) == JSON_ARRAY
                 ? OK
                 : err_set(e, ERR_INPUT, "%s: expected a list of questions", path);
    size_t row = 0;
    for (JsonRef r = json_first(&j, list); r >= 0 && !rc && (!limit || out->n < limit);
         r = json_next(&j, r), row++) {
        rc = s->row(&j, r, out, e);
        if (rc) err_prefix(e, "question %zu", row + 1);
    }
    json_free(&j);
    return rc;
}

/* Six lines a question: context, number of the right ending, four endings. */
static int read_hellaswag(const char *path, const File *f, size_t limit, EvalSet *out, Err *e) {
    Lines l = {(const char *)f->data, (const char *)f->data + f->size, 0};
    const char *line;
    size_t n;
    while ((!limit || out->n < limit) && line_next(&l, &line, &n)) {
        EvalDoc *d;
        TRY(evalset_add(out, &d, e));
        TRY(hellaswag_text(d, line, n, 0, e));
        if (!line_next(&l, &line, &n) || n != 1 || *line < '0' || *line > '3')
            return err_set(e, ERR_INPUT, "%s:%zu: expected the number of the right ending, 0 to 3", path,
                           l.number);
        d->gold = *line - '0';
        for (int i = 0; i < 4; i++) {
            if (!line_next(&l, &line, &n))
                return err_set(e, ERR_INPUT, "%s:%zu: the last question has %d endings, expected 4", path,
                               l.number, i);
            TRY(hellaswag_text(d, line, n, 1, e));
        }
    }
    return OK;
}

/* A page begins at a heading of the first level: " = Title = ". */
static int is_heading(const char *s, size_t n) {
    while (n && s[n - 1] == ' ') n--;
    while (n && *s == ' ') s++, n--;
    return n > 4 && s[0] == '=' && s[1] == ' ' && s[2] != '=' && s[n - 1] == '=' && s[n - 2] == ' ' &&
           s[n - 3] != '=';
}

static int read_pages(const File *f, size_t limit, EvalSet *out, Err *e) {
    Lines l = {(const char *)f->data, (const char *)f->data + f->size, 0};
    const char *line, *begin = l.at;
    size_t n;
    EvalDoc *d;
    while ((!limit || out->n < limit) && line_next(&l, &line, &n))
        if (line > begin && is_heading(line, n)) {
            TRY(evalset_add(out, &d, e));
            TRY(evaldoc_context(d, begin, (size_t)(line - begin), e));
            begin = line;
        }
    if ((limit && out->n >= limit) || begin >= l.end) return OK;
    TRY(evalset_add(out, &d, e));
    return evaldoc_context(d, begin, (size_t)(l.end - begin), e);
}

/* One label a line, for the questions already read. */
static int read_labels(const char *path, EvalSet *out, Err *e) {
    File f;
    TRY(file_open(&f, path, e));
    Lines l = {(const char *)f.data, (const char *)f.data + f.size, 0};
    const char *line;
    size_t n;
    int rc = OK;
    for (size_t i = 0; i < out->n && !rc; i++) {
        if (!line_next(&l, &line, &n) || n != 1 || *line < '0' || *line >= '0' + out->doc[i].n_text)
            rc = err_set(e, ERR_INPUT, "%s:%zu: expected the number of an answer for every question", path,
                         l.number);
        else out->doc[i].gold = *line - '0';
    }
    file_close(&f);
    return rc;
}

int questions_read(const QuestionReader *r, const char *dir, size_t limit, EvalSet *out, Err *e) {
    char path[1024], labels[1024];
    const Source *s = r->source;
    File f;
    for (int i = 0; i < SOURCES && r->source[i].path; i++) {
        TRY(file_join(path, sizeof path, dir, r->source[i].path, e));
        s = &r->source[i];
        if (file_exists(path)) break;
    }
    if (!file_exists(path)) TRY(file_join(path, sizeof path, dir, (s = r->source)->path, e));
    if (file_open(&f, path, e)) return err_hint(e, "%s is needed here: %s", s->path, r->origin);
    int rc = s->form == FORM_JSONL  ? read_jsonl(s, path, &f, limit, out, e)
             : s->form == FORM_JSON ? read_json(s, path, &f, limit, out, e)
             : s->form == FORM_TEXT ? read_pages(&f, limit, out, e)
                                    : read_hellaswag(path, &f, limit, out, e);
    file_close(&f);
    if (!rc && s->labels) rc = file_join(labels, sizeof labels, dir, s->labels, e);
    if (!rc && s->labels) rc = read_labels(labels, out, e);
    if (!rc && !out->n) rc = err_set(e, ERR_INPUT, "%s: no questions in it", path);
    return rc;
}
