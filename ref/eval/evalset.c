/* evalset.c - see evalset.h. */
#include "eval/evalset.h"
#include "base/mem.h"
#include <string.h>

static void doc_free(EvalDoc *d) {
    for (int i = 0; i < d->contexts; i++) mem_free(d->context[i]);
    for (int i = 0; i < d->n_text; i++) mem_free(d->text[i]);
    mem_free(d->text);
}

void evalset_free(EvalSet *s) {
    for (size_t i = 0; i < s->n; i++) doc_free(&s->doc[i]);
    mem_free(s->doc);
    memset(s, 0, sizeof *s);
}

void evalset_cut(EvalSet *s, size_t n) {
    while (n && s->n > n) doc_free(&s->doc[--s->n]);
}

int evalset_add(EvalSet *s, EvalDoc **doc, Err *e) {
    if (s->n == s->cap) {
        const size_t cap = s->cap ? 2 * s->cap : 64;
        void *p = s->doc;
        TRY(mem_grow(&p, s->cap * sizeof(EvalDoc), cap * sizeof(EvalDoc), "questions", e));
        s->doc = p;
        s->cap = cap;
    }
    *doc = &s->doc[s->n++];
    memset(*doc, 0, sizeof **doc);
    return OK;
}

int evaldoc_context(EvalDoc *d, const char *text, size_t len, Err *e) {
    if (d->contexts == EVAL_CONTEXTS) return err_set(e, ERR_USAGE, "a question has at most %d contexts", EVAL_CONTEXTS);
    TRY(mem_strndup(&d->context[d->contexts], text, len, e));
    d->contexts++;
    return OK;
}

int evaldoc_text(EvalDoc *d, const char *text, size_t len, Err *e) {
    if (d->n_text == d->cap_text) {
        const int cap = d->cap_text ? 2 * d->cap_text : 4;
        void *p = d->text;
        TRY(mem_grow(&p, (size_t)d->cap_text * sizeof(char *), (size_t)cap * sizeof(char *), "answers", e));
        d->text = p;
        d->cap_text = cap;
    }
    TRY(mem_strndup(&d->text[d->n_text], text, len, e));
    d->n_text++;
    return OK;
}
