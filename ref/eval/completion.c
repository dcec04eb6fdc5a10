/* completion.c - see completion.h. */
#include "eval/completion.h"
#include "base/mem.h"
#include <ctype.h>
#include <string.h>

enum { ROOM_FOR_ANSWER = 50 }; /* tokens that the window leaves free */
static const char SUMMARY[] = "Summary of information above...";

typedef struct {
    const char *s;
    size_t n;
} Span;

/* White space as Python's str.strip() sees it, ASCII only. */
static int is_space(char c) { return c == ' ' || (c >= 9 && c <= 13) || (c >= 28 && c <= 31); }
static Span strip(Span t) {
    while (t.n && is_space(t.s[0])) t.s++, t.n--;
    while (t.n && is_space(t.s[t.n - 1])) t.n--;
    return t;
}
static Span strip_of(Span t, char c) {
    while (t.n && t.s[0] == c) t.s++, t.n--;
    while (t.n && t.s[t.n - 1] == c) t.n--;
    return t;
}

static int same_letters(const char *a, const char *b, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (tolower((unsigned char)a[i]) != tolower((unsigned char)b[i])) return 0;
    return 1;
}

/* Takes away every "key:" that the text ends with, whatever its case. */
static Span without_question(Span t, const char *key) {
    const size_t k = strlen(key);
    while (t.n > k && t.s[t.n - 1] == ':' && same_letters(t.s + t.n - k - 1, key, k)) t.n -= k + 1;
    return t;
}

static Span without_summary(Span t) {
    for (size_t i = 0; i + sizeof SUMMARY - 1 <= t.n; i++)
        if (!memcmp(t.s + i, SUMMARY, sizeof SUMMARY - 1)) return (Span){t.s, i};
    return t;
}

/* Where `what` begins in the text, whatever its case; t.n - 1 if it does not occur, as in the original. */
static size_t hit(Span t, const char *what) {
    const size_t n = strlen(what);
    for (size_t i = 0; n && i + n <= t.n; i++)
        if (same_letters(t.s + i, what, n)) return i;
    return t.n ? t.n - 1 : 0;
}

/* The tokens of the text around place `at`, as text. */
static int window_text(const QuestionOptions *o, Span t, size_t at, char **out, Err *e) {
    Ids all = {0}, before = {0};
    size_t len = 0;
    int rc = tokenizer_encode(o->t, t.s, t.n, 0, &all, e);
    if (!rc) rc = tokenizer_encode(o->t, t.s, at, 0, &before, e);
    const size_t wanted = (size_t)o->window - ROOM_FOR_ANSWER, half = wanted / 2,
                 from = before.n > half ? before.n - half : 0;
    size_t to = before.n + wanted - (before.n - from);
    if (to > all.n) to = all.n;
    if (!rc) rc = tokenizer_decode(o->t, all.id + from, to > from ? to - from : 0, 1, out, &len, e);
    if (!rc && !*out) rc = mem_strndup(out, "", 0, e);
    ids_free(&all);
    ids_free(&before);
    return rc;
}

/* The text of SWDE or FDA with its end in order. */
static Span ended(Span t, const char *key, int swde, int twice) {
    t = without_question(t, key);
    t = strip_of(t, '\n');
    if (swde && !twice) t = strip_of(strip(t), '.');
    else t = strip_of(t, '.');
    return swde && twice ? strip(t) : t;
}

static int keyed(const QuestionOptions *o, Span t, const char *key, int swde, TextBuf *b) {
    const int twice = o->protocol == PROTOCOL_TWICE;
    const char first = (char)toupper((unsigned char)key[0]);
    t = ended(t, key, swde, twice);
    const char *stop = (!swde || twice) && t.n && t.s[t.n - 1] == '.' ? "" : ".";
    if (twice) {
        textbuf_printf(b, "Information about %c%s. ", first, key + 1);
        textbuf_put(b, t.s, t.n);
        textbuf_printf(b, "%s\n", stop);
    }
    textbuf_put(b, t.s, t.n);
    textbuf_printf(b, "%s %c%s:", stop, first, key + 1);
    return OK;
}

static int doc_rewrite(EvalDoc *d, const char *task, const QuestionOptions *o, Err *e) {
    const int swde = !strcmp(task, "swde"), squad = !strcmp(task, "squad_completion");
    const char *key = d->contexts > 1 ? d->context[1] : NULL;
    Span t = {d->context[0], strlen(d->context[0])};
    TextBuf b = {0};
    char *cut = NULL;
    if (!key && (!squad || o->protocol == PROTOCOL_TWICE))
        return err_set(e, ERR_INPUT, "%s: a row without %s", task, squad ? "question and context" : "key");
    if (swde) t = without_summary(t);
    if (o->window) {
        t = strip(t);
        size_t at = hit(t, d->text[0]);
        if (!squad && hit(t, key) < at) at = hit(t, key);
        TRY(window_text(o, t, at, &cut, e));
        t = (Span){cut, strlen(cut)};
    }
    if (!squad) keyed(o, t, key, swde, &b);
    else {
        t = strip(t);
        if (o->protocol == PROTOCOL_TWICE) textbuf_printf(&b, "%s\n", key);
        textbuf_put(&b, t.s, t.n);
    }
    const int rc = textbuf_end(&b, e);
    mem_free(cut);
    if (rc) return rc;
    mem_free(d->context[0]);
    d->context[0] = b.text;
    return OK;
}

static void doc_strip(char *s) {
    const Span t = strip((Span){s, strlen(s)});
    memmove(s, t.s, t.n);
    s[t.n] = 0;
}

int completion_apply(EvalSet *s, const char *task, const QuestionOptions *o, Err *e) {
    static const char *const line_end[] = {"\n", NULL};
    const int jrt = o->protocol == PROTOCOL_JRT || o->protocol == PROTOCOL_TWICE;
    if (o->window && (!jrt || !o->t || o->window <= ROOM_FOR_ANSWER))
        return err_set(e, ERR_USAGE,
                       "%s: a window of %d tokens: expected more than %d, a tokenizer, and protocol jrt or twice", task,
                       o->window, ROOM_FOR_ANSWER);
    if (jrt) s->until = line_end;
    for (size_t i = 0; i < s->n; i++) {
        EvalDoc *d = &s->doc[i];
        if (jrt) TRY(doc_rewrite(d, task, o, e));
        if (o->protocol == PROTOCOL_V1) {
            doc_strip(d->context[0]);
            doc_strip(d->text[0]);
        }
        if (d->contexts > 1) mem_free(d->context[--d->contexts]);
    }
    return OK;
}
