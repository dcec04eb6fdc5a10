/* question_text.c - rows of sets that are answered in words: GSM8K, SWDE, FDA, SQuAD completion, SQuAD 2.0. */
#include "eval/question_parts.h"
#include <string.h>

/* "Question: ...\nAnswer:" and the number behind "#### ". */
int gsm8k_row(const Json *j, JsonRef row, EvalSet *out, Err *e) {
    const char *question, *answer;
    TextBuf b = {0};
    EvalDoc *d;
    TRY(question_want(j, row, "question", &question, e));
    TRY(question_want(j, row, "answer", &answer, e));
    const char *mark = strstr(answer, "#### ");
    if (!mark) return err_set(e, ERR_INPUT, "%s: answer: no \"#### number\" in it", j->file);
    TRY(evalset_add(out, &d, e));
    textbuf_printf(&b, "Question: %s\nAnswer:", question);
    TRY(question_context(d, &b, e));
    return evaldoc_text(d, mark + 5, strlen(mark + 5), e);
}

/* SWDE, FDA, SQuAD completion as JSONL {"text", "value"[, "key"] [, "question", "context"]}. */
int completion_row(const Json *j, JsonRef row, EvalSet *out, Err *e) {
    const char *text, *value, *key;
    TextBuf b = {0};
    EvalDoc *d;
    TRY(question_want(j, row, "text", &text, e));
    TRY(question_want(j, row, "value", &value, e));
    TRY(evalset_add(out, &d, e));
    TRY(evaldoc_context(d, text, strlen(text), e));
    TRY(evaldoc_text(d, value, strlen(value), e));
    if (json_get(j, row, "key") >= 0) {
        TRY(question_want(j, row, "key", &key, e));
        return evaldoc_context(d, key, strlen(key), e);
    }
    if (json_get(j, row, "question") < 0 || json_get(j, row, "context") < 0) return OK;
    TRY(question_want(j, row, "question", &key, e)); // what "twice" puts in front: question and passage
    TRY(question_want(j, row, "context", &text, e));
    const char *stop = strstr(text, "Question:");
    textbuf_printf(&b, "%s %.*s", key, stop ? (int)(stop - text) : (int)strlen(text), text);
    return question_context(d, &b, e);
}

/* All of SQuAD 2.0's official file is one value: article, paragraph, question. */
int squad_article(const Json *j, JsonRef article, EvalSet *out, Err *e) {
    const char *title, *context, *question, *s;
    EvalDoc *d;
    TRY(question_want(j, article, "title", &title, e));
    for (JsonRef p = json_first(j, json_get(j, article, "paragraphs")); p >= 0; p = json_next(j, p)) {
        TRY(question_want(j, p, "context", &context, e));
        for (JsonRef q = json_first(j, json_get(j, p, "qas")); q >= 0; q = json_next(j, q)) {
            TextBuf b = {0};
            TRY(question_want(j, q, "question", &question, e));
            TRY(evalset_add(out, &d, e));
            textbuf_printf(&b, "Title: %s\n\nBackground: %s\n\nQuestion: %s\n\nAnswer:", title, context, question);
            TRY(question_context(d, &b, e));
            for (JsonRef a = json_first(j, json_get(j, q, "answers")); a >= 0; a = json_next(j, a)) {
                TRY(question_want(j, a, "text", &s, e));
                TRY(evaldoc_text(d, s, strlen(s), e));
            }
        }
    }
    return OK;
}
