/* question_hellaswag.c - HellaSwag: the publisher's rows, and the six-line form of a mirror. ref/eval/README.md 4. */
#include "eval/question_parts.h"
#include <string.h>

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
    if (!rc) rc = choice ? question_choice(d, b.text, b.len, e) : evaldoc_context(d, b.text, b.len, e);
    textbuf_free(&b);
    return rc;
}

/* The publisher's JSONL: {"activity_label", "ctx_a", "ctx_b", "label", "endings"}; ctx_b is capitalised as Python does
 * it. */
int hellaswag_row(const Json *j, JsonRef row, EvalSet *out, Err *e) {
    const char *activity, *a, *b, *s;
    TextBuf t = {0};
    EvalDoc *d;
    int64_t gold = 0;
    TRY(question_want(j, row, "activity_label", &activity, e));
    TRY(question_want(j, row, "ctx_a", &a, e));
    TRY(question_want(j, row, "ctx_b", &b, e));
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
    return rc ? rc : question_gold(j, d, gold, d->n_text, e);
}

/* Six lines a question: context, number of the right ending, four endings. */
int hellaswag_read(const char *path, const File *f, size_t limit, EvalSet *out, Err *e) {
    QuestionLines l = {(const char *)f->data, (const char *)f->data + f->size, 0};
    const char *line;
    size_t n;
    while ((!limit || out->n < limit) && question_line(&l, &line, &n)) {
        EvalDoc *d;
        TRY(evalset_add(out, &d, e));
        TRY(hellaswag_text(d, line, n, 0, e));
        if (!question_line(&l, &line, &n) || n != 1 || *line < '0' || *line > '3')
            return err_set(e, ERR_INPUT, "%s:%zu: expected the number of the right ending, 0 to 3", path, l.number);
        d->gold = *line - '0';
        for (int i = 0; i < 4; i++) {
            if (!question_line(&l, &line, &n))
                return err_set(e, ERR_INPUT, "%s:%zu: the last question has %d endings, expected 4", path, l.number, i);
            TRY(hellaswag_text(d, line, n, 1, e));
        }
    }
    return OK;
}
