/* question_parts.c - see question_parts.h. */
#include "eval/question_parts.h"
#include "base/mem.h"
#include <string.h>

int question_want(const Json *j, JsonRef row, const char *key, const char **s, Err *e) {
    return json_want_str(j, json_get(j, row, key), key, s, NULL, e);
}

int question_context(EvalDoc *d, TextBuf *b, Err *e) {
    int rc = textbuf_end(b, e);
    if (!rc) rc = evaldoc_context(d, b->text, b->len, e);
    textbuf_free(b);
    return rc;
}

int question_choice(EvalDoc *d, const char *s, size_t n, Err *e) {
    TextBuf b = {0};
    textbuf_puts(&b, " ");
    textbuf_put(&b, s, n);
    int rc = textbuf_end(&b, e);
    if (!rc) rc = evaldoc_text(d, b.text, b.len, e);
    textbuf_free(&b);
    return rc;
}

int question_gold(const Json *j, EvalDoc *d, int64_t gold, int n, Err *e) {
    if (gold < 0 || gold >= n)
        return err_set(e, ERR_INPUT, "%s: the right answer is number %lld of %d", j->file, (long long)gold, n);
    d->gold = (int)gold;
    return OK;
}

int question_line(QuestionLines *l, const char **s, size_t *n) {
    if (l->at >= l->end) return 0;
    const char *newline = memchr(l->at, '\n', (size_t)(l->end - l->at));
    *s = l->at;
    *n = (size_t)((newline ? newline : l->end) - l->at);
    if (*n && (*s)[*n - 1] == '\r') --*n;
    l->at = newline ? newline + 1 : l->end;
    l->number++;
    return 1;
}
