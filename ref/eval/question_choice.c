/* question_choice.c - rows of the multiple-choice sets, in the forms that publishers and mirrors give them,
 * and LAMBADA. */
#include "eval/question_parts.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int piqa_row(const Json *j, JsonRef row, EvalSet *out, Err *e) {
    const char *goal, *sol[2];
    TextBuf b = {0};
    EvalDoc *d;
    int64_t gold = 0;
    TRY(question_want(j, row, "goal", &goal, e));
    TRY(question_want(j, row, "sol1", &sol[0], e));
    TRY(question_want(j, row, "sol2", &sol[1], e));
    TRY(evalset_add(out, &d, e));
    textbuf_printf(&b, "Question: %s\nAnswer:", goal);
    TRY(question_context(d, &b, e));
    for (int i = 0; i < 2; i++) TRY(question_choice(d, sol[i], strlen(sol[i]), e));
    TRY(json_opt_int(j, row, "label", 0, 1, &gold, e));
    return question_gold(j, d, gold, 2, e);
}

/* {"query": "Question: ...", "choices": [...], "gold": n} */
int query_row(const Json *j, JsonRef row, EvalSet *out, Err *e) {
    const char *query, *s;
    size_t n;
    TextBuf b = {0};
    EvalDoc *d;
    int64_t gold = 0;
    TRY(question_want(j, row, "query", &query, e));
    TRY(evalset_add(out, &d, e));
    textbuf_printf(&b, "%s\nAnswer:", query);
    TRY(question_context(d, &b, e));
    const JsonRef list = json_get(j, row, "choices");
    for (JsonRef c = json_first(j, list); c >= 0; c = json_next(j, c)) {
        TRY(json_want_str(j, c, "choices", &s, &n, e));
        TRY(question_choice(d, s, n, e));
    }
    TRY(json_want_int(j, json_get(j, row, "gold"), "gold", 0, 64, &gold, e));
    return question_gold(j, d, gold, d->n_text, e);
}

/* The publisher's form: {"question": {"stem", "choices": [{"text", "label"}]}, "answerKey"}. */
static int stem_row(const Json *j, JsonRef row, EvalSet *out, const char *before, const char *after, Err *e) {
    const JsonRef q = json_get(j, row, "question"), list = json_get(j, q, "choices");
    const char *stem, *key, *s;
    TextBuf b = {0};
    EvalDoc *d;
    int64_t gold = -1;
    TRY(question_want(j, q, "stem", &stem, e));
    TRY(question_want(j, row, "answerKey", &key, e));
    TRY(evalset_add(out, &d, e));
    textbuf_printf(&b, "%s%s%s", before, stem, after);
    TRY(question_context(d, &b, e));
    for (JsonRef c = json_first(j, list); c >= 0; c = json_next(j, c)) {
        TRY(question_want(j, c, "label", &s, e));
        if (!strcmp(s, key)) gold = d->n_text;
        TRY(question_want(j, c, "text", &s, e));
        TRY(question_choice(d, s, strlen(s), e));
    }
    return question_gold(j, d, gold, d->n_text, e);
}
int arc_row(const Json *j, JsonRef row, EvalSet *out, Err *e) {
    return stem_row(j, row, out, "Question: ", "\nAnswer:", e);
}
int obqa_row(const Json *j, JsonRef row, EvalSet *out, Err *e) { return stem_row(j, row, out, "", "", e); }

/* The instruction form of a mirror: "...question: Q\n\nAnswer1: a Answer2: b ...\n\nAnswer format: ..." is split back.
 * */
static int instruct_row(const Json *j, JsonRef row, EvalSet *out, const char *before, const char *after, Err *e) {
    static const char lead[] = "Please choose the correct answer to the question: ";
    const char *text, *answer;
    TextBuf b = {0};
    EvalDoc *d;
    TRY(question_want(j, row, "instruction", &text, e));
    TRY(question_want(j, row, "answer", &answer, e));
    const char *list = strstr(text, "\n\nAnswer1: "), *stop = list ? strstr(list + 2, "\n\nAnswer format:") : NULL;
    if (strncmp(text, lead, sizeof lead - 1) || !stop)
        return err_set(e, ERR_INPUT, "%s: instruction: not of the known form", j->file);
    TRY(evalset_add(out, &d, e));
    textbuf_puts(&b, before);
    textbuf_put(&b, text + sizeof lead - 1, (size_t)(list - text) - (sizeof lead - 1));
    textbuf_puts(&b, after);
    TRY(question_context(d, &b, e));
    for (const char *at = list + 2; at < stop;) {
        char next[24], here[24];
        snprintf(here, sizeof here, "Answer%d: ", d->n_text + 1);
        snprintf(next, sizeof next, " Answer%d: ", d->n_text + 2);
        at += strlen(here);
        const char *end = strstr(at, next);
        if (!end || end > stop) end = stop;
        TRY(question_choice(d, at, (size_t)(end - at), e));
        at = end < stop ? end + 1 : stop;
    }
    return question_gold(j, d, strncmp(answer, "answer", 6) ? -1 : strtol(answer + 6, NULL, 10) - 1, d->n_text, e);
}
int arc_instruct(const Json *j, JsonRef row, EvalSet *out, Err *e) {
    return instruct_row(j, row, out, "Question: ", "\nAnswer:", e);
}
int obqa_instruct(const Json *j, JsonRef row, EvalSet *out, Err *e) { return instruct_row(j, row, out, "", "", e); }
int siqa_instruct(const Json *j, JsonRef row, EvalSet *out, Err *e) {
    return instruct_row(j, row, out, "Q: ", "\nA:", e);
}

/* {"context", "question", "answerA".., "label": "1"} (the mirror's) */
int siqa_row(const Json *j, JsonRef row, EvalSet *out, Err *e) {
    static const char *const key[] = {"answerA", "answerB", "answerC"};
    const char *context, *question, *label, *s;
    TextBuf b = {0};
    EvalDoc *d;
    TRY(question_want(j, row, "context", &context, e));
    TRY(question_want(j, row, "question", &question, e));
    TRY(question_want(j, row, "label", &label, e));
    TRY(evalset_add(out, &d, e));
    textbuf_printf(&b, "Q: %s %s\nA:", context, question);
    TRY(question_context(d, &b, e));
    for (int i = 0; i < 3; i++) {
        TRY(question_want(j, row, key[i], &s, e));
        TRY(question_choice(d, s, strlen(s), e));
    }
    return question_gold(j, d, strtol(label, NULL, 10) - 1, 3, e);
}

/* {"context_options": [a, b], "continuation", "gold"}: the blank is already cut. */
int winogrande_row(const Json *j, JsonRef row, EvalSet *out, Err *e) {
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
    TRY(question_want(j, row, "continuation", &s, e));
    TRY(question_choice(d, s, strlen(s), e));
    TRY(json_want_int(j, json_get(j, row, "gold"), "gold", 0, 1, &gold, e));
    return question_gold(j, d, gold, 2, e);
}

/* The publisher's {"sentence": "... _ ...", "option1", "option2", "answer": "1"}. */
int winogrande_official(const Json *j, JsonRef row, EvalSet *out, Err *e) {
    const char *sentence, *option[2], *answer;
    EvalDoc *d;
    TRY(question_want(j, row, "sentence", &sentence, e));
    TRY(question_want(j, row, "option1", &option[0], e));
    TRY(question_want(j, row, "option2", &option[1], e));
    TRY(question_want(j, row, "answer", &answer, e));
    const char *blank = strchr(sentence, '_');
    if (!blank) return err_set(e, ERR_INPUT, "%s: sentence: no blank (_) in it", j->file);
    TRY(evalset_add(out, &d, e));
    for (int i = 0; i < 2; i++) {
        TextBuf b = {0};
        textbuf_put(&b, sentence, (size_t)(blank - sentence));
        textbuf_puts(&b, option[i]);
        TRY(question_context(d, &b, e));
    }
    const char *rest = blank + 1 + strspn(blank + 1, " \t\n");
    size_t n = strlen(rest);
    while (n && strchr(" \t\n", rest[n - 1])) n--;
    TRY(question_choice(d, rest, n, e));
    return question_gold(j, d, strtol(answer, NULL, 10) - 1, 2, e);
}

static int boolq_put(const Json *j, const char *passage, const char *question, size_t len, int yes, EvalSet *out,
                     Err *e) {
    TextBuf b = {0};
    EvalDoc *d;
    TRY(evalset_add(out, &d, e));
    textbuf_printf(&b, "%s\nQuestion: %.*s?\nAnswer:", passage, (int)len, question);
    TRY(question_context(d, &b, e));
    TRY(question_choice(d, "no", 2, e));
    TRY(question_choice(d, "yes", 3, e));
    return question_gold(j, d, yes, 2, e);
}
int boolq_row(const Json *j, JsonRef row, EvalSet *out, Err *e) {
    const char *passage, *question;
    int yes = 0;
    TRY(question_want(j, row, "passage", &passage, e));
    TRY(question_want(j, row, "question", &question, e));
    TRY(json_want_bool(j, json_get(j, row, "answer"), "answer", &yes, e));
    return boolq_put(j, passage, question, strlen(question), yes, out, e);
}
/* The mirror's instruction form has no passage: the context is the question alone. */
int boolq_instruct(const Json *j, JsonRef row, EvalSet *out, Err *e) {
    static const char lead[] = "Please answer the following question with true or false, question: ";
    const char *text, *answer;
    TRY(question_want(j, row, "instruction", &text, e));
    TRY(question_want(j, row, "answer", &answer, e));
    const char *stop = strstr(text, "\n\nAnswer format:");
    if (strncmp(text, lead, sizeof lead - 1) || !stop)
        return err_set(e, ERR_INPUT, "%s: instruction: not of the known form", j->file);
    size_t n = (size_t)(stop - text) - (sizeof lead - 1);
    if (n && text[sizeof lead - 2 + n] == '?') n--;
    return boolq_put(j, "", text + sizeof lead - 1, n, !strcmp(answer, "true"), out, e);
}

int sciq_row(const Json *j, JsonRef row, EvalSet *out, Err *e) {
    static const char *const key[] = {"distractor1", "distractor2", "distractor3", "correct_answer"};
    const char *support, *question, *s;
    TextBuf b = {0};
    EvalDoc *d;
    TRY(question_want(j, row, "support", &support, e));
    TRY(question_want(j, row, "question", &question, e));
    TRY(evalset_add(out, &d, e));
    textbuf_printf(&b, "%s\nQuestion: %s\nAnswer:", support + strspn(support, " \t\n"), question);
    TRY(question_context(d, &b, e));
    for (int i = 0; i < 4; i++) {
        TRY(question_want(j, row, key[i], &s, e));
        TRY(question_choice(d, s, strlen(s), e));
    }
    return question_gold(j, d, 3, 4, e);
}

int lambada_row(const Json *j, JsonRef row, EvalSet *out, Err *e) {
    const char *text;
    EvalDoc *d;
    TRY(question_want(j, row, "text", &text, e));
    const char *space = strrchr(text, ' ');
    if (!space) return err_set(e, ERR_INPUT, "%s: text: no space before a last word", j->file);
    TRY(evalset_add(out, &d, e));
    TRY(evaldoc_context(d, text, (size_t)(space - text), e));
    return question_choice(d, space + 1, strlen(space + 1), e);
}
