/* json_lex.h - inside the JSON reader: a place in a text, the words of JSON that can stand there, and what to say when
 * none does.
 * Used by json.c, which makes a tree of them, and by json_walk.c, which makes none. */
#ifndef HYB_JSON_LEX_H
#define HYB_JSON_LEX_H
#include "base/json.h"

enum { JSON_MAX_DEPTH = 128 };

typedef struct {
    const unsigned char *t; /* text[0..len); lines and columns of messages are counted from its beginning */
    size_t len, at;
    const char *file;
    Err *e;
} JsonLex;

typedef struct {
    int kind; /* JSON_INT: i, JSON_UINT: u (above INT64_MAX), JSON_REAL: d */
    union {
        int64_t i;
        uint64_t u;
        double d;
    };
} JsonNumber;

int lex_fail(JsonLex *p, size_t at, const char *what); /* ERR_INPUT "FILE:LINE:COL: what" */
int lex_unexpected(JsonLex *p, const char *wanted);    /* what stands at p->at, and what was wanted there */
void lex_space(JsonLex *p);                            /* over white space */
/* The string whose opening quote is at p->at, decoded into s with a NUL behind it: at most as many bytes as it has
 * between its quotes, and one. */
int lex_string(JsonLex *p, char *s, size_t *len);
int lex_number(JsonLex *p, JsonNumber *x);
int lex_word(JsonLex *p, int *kind); /* null, true, false */

/* The byte at p->at, -1 at the end. */
static inline int lex_peek(const JsonLex *p) { return p->at < p->len ? p->t[p->at] : -1; }

#endif
