/* question_pages.c - WikiText: one file of text is pages; the model reads them with the tokenisation of the corpus
 * undone. */
#include "eval/question_parts.h"
#include <string.h>

/* ---- the corpus' tokenisation undone, rule after rule in the order of lm-evaluation-harness ---- */

static int swap(TextBuf *b, const char *old, const char *new, Err *e) {
    TextBuf out = {0};
    const size_t n = strlen(old);
    const char *text = b->text;
    for (const char *hit; (hit = strstr(text, old)) != NULL; text = hit + n) {
        textbuf_put(&out, text, (size_t)(hit - text));
        textbuf_puts(&out, new);
    }
    textbuf_puts(&out, text);
    textbuf_free(b);
    *b = out;
    return textbuf_end(b, e);
}

/* White space right inside of a pair of brackets or quotes goes; a pair ends at the first closing one. */
static int trim_inside(TextBuf *b, char open, char close, Err *e) {
    static const char blank[] = " \t\n\v\f\r";
    TextBuf out = {0};
    const char *p = b->text;
    while (*p) {
        const char *end = *p == open ? strchr(p + 1, close) : NULL;
        textbuf_put(&out, p++, 1);
        if (!end) continue;
        const char *from = p + strspn(p, blank), *to = end;
        while (to > from && strchr(blank, to[-1])) to--;
        if (from < to) textbuf_put(&out, from, (size_t)(to - from));
        textbuf_put(&out, end, 1);
        p = end + 1;
    }
    textbuf_free(b);
    *b = out;
    return textbuf_end(b, e);
}

static int detokenize(TextBuf *b, Err *e) {
    static const char *const first[][2] = {{"s '", "s'"}, {" @-@ ", "-"}, {" @,@ ", ","}, {" @.@ ", "."},
                                           {" : ", ": "}, {" ; ", "; "},  {" . ", ". "},  {" ! ", "! "},
                                           {" ? ", "? "}, {" , ", ", "}};
    static const char *const last[][2] = {
        {"= = = =", "===="}, {"= = =", "==="}, {"= =", "=="},  {" \xc2\xb0 ", "\xc2\xb0"},
        {" \n", "\n"},       {"\n ", "\n"},    {" N ", " 1 "}, {" 's", "'s"}};
    static const char pair[][2] = {{'(', ')'}, {'[', ']'}, {'{', '}'}, {'"', '"'}, {'\'', '\''}};
    for (size_t i = 0; i < sizeof first / sizeof *first; i++) TRY(swap(b, first[i][0], first[i][1], e));
    for (size_t i = 0; i < sizeof pair / sizeof *pair; i++) TRY(trim_inside(b, pair[i][0], pair[i][1], e));
    for (size_t i = 0; i < sizeof last / sizeof *last; i++) TRY(swap(b, last[i][0], last[i][1], e));
    return OK;
}

static int page_put(EvalDoc *d, const char *s, size_t n, Err *e) {
    TextBuf b = {0};
    TRY(evaldoc_text(d, s, n, e));
    textbuf_put(&b, s, n);
    int rc = textbuf_end(&b, e);
    if (!rc) rc = detokenize(&b, e);
    if (!rc) rc = evaldoc_context(d, b.text, b.len, e);
    textbuf_free(&b);
    return rc;
}

/* ---- pages ---- */

/* A page begins at a heading of the first level: " = Title = ". */
static int is_heading(const char *s, size_t n) {
    while (n && s[n - 1] == ' ') n--;
    while (n && *s == ' ') s++, n--;
    return n > 4 && s[0] == '=' && s[1] == ' ' && s[2] != '=' && s[n - 1] == '=' && s[n - 2] == ' ' && s[n - 3] != '=';
}

int pages_read(const File *f, size_t limit, EvalSet *out, Err *e) {
    QuestionLines l = {(const char *)f->data, (const char *)f->data + f->size, 0};
    const char *line, *begin = l.at;
    size_t n;
    EvalDoc *d;
    while ((!limit || out->n < limit) && question_line(&l, &line, &n))
        if (line > begin && is_heading(line, n)) {
            TRY(evalset_add(out, &d, e));
            TRY(page_put(d, begin, (size_t)(line - begin), e));
            begin = line;
        }
    if ((limit && out->n >= limit) || begin >= l.end) return OK;
    TRY(evalset_add(out, &d, e));
    return page_put(d, begin, (size_t)(l.end - begin), e);
}
