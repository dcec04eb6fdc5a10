/* json_walk.c - the members of one large JSON object, one after the other, in the memory of one. See json.h. */
#include "base/json_lex.h"
#include <string.h>

/* The end of the string whose opening quote is at t[i]: behind its closing quote, or len. */
static size_t string_end(const unsigned char *t, size_t len, size_t i) {
    for (i++; i < len && t[i] != '"'; i++) i += t[i] == '\\';
    return i < len ? i + 1 : len;
}

/* The end of the value at t[i], by brackets and quotes alone: json_parse_part says whether it is one. */
static size_t value_end(const unsigned char *t, size_t len, size_t i) {
    size_t depth = 0;
    while (i < len) {
        const unsigned char c = t[i];
        if (c == '"') {
            i = string_end(t, len, i);
            if (!depth) return i;
            continue;
        }
        const int opens = c == '{' || c == '[', closes = c == '}' || c == ']';
        if (!depth && (closes || c == ',' || c == ' ' || c == '\n' || c == '\t' || c == '\r')) return i;
        i++;
        depth += (size_t)opens;
        if (closes && !--depth) return i;
    }
    return len;
}

void json_walk_count(const char *text, size_t len, size_t *members, size_t *key_bytes) {
    const unsigned char *t = (const unsigned char *)text;
    size_t depth = 0;
    *members = *key_bytes = 0;
    for (size_t i = 0; i < len;) {
        const unsigned char c = t[i];
        if (c == '"') {
            const size_t end = string_end(t, len, i);
            // also what is no key, since no ':' follows: it is decoded before that is seen
            if (depth <= 1) *key_bytes += end - i;
            i = end;
            continue;
        }
        i++;
        if (c == '{' || c == '[') depth++;
        else if ((c == '}' || c == ']') && depth) depth--;
        else if (c == ':' && depth == 1) ++*members;
    }
}

static JsonLex walk_lex(const JsonWalk *w, Err *e) {
    return (JsonLex){.t = (const unsigned char *)w->text, .len = w->len, .at = w->at, .file = w->file, .e = e};
}

int json_walk_open(JsonWalk *w, const char *text, size_t len, const char *file, Err *e) {
    *w = (JsonWalk){.text = text, .len = len, .file = file};
    JsonLex p = walk_lex(w, e);
    lex_space(&p);
    if (lex_peek(&p) != '{') return lex_unexpected(&p, "'{', the beginning of an object");
    p.at++;
    lex_space(&p);
    w->more = lex_peek(&p) != '}';
    w->at = p.at + !w->more;
    return OK;
}

/* After the last member: only white space. */
static int walk_end(JsonLex *p) {
    lex_space(p);
    return p->at < p->len ? lex_unexpected(p, "nothing after the end of the document") : OK;
}

int json_walk_next(JsonWalk *w, char *key, size_t *key_len, int *found, Err *e) {
    JsonLex p = walk_lex(w, e);
    *found = 0;
    if (!w->more) return walk_end(&p);
    lex_space(&p);
    w->key_at = p.at;
    if (lex_peek(&p) != '"') return lex_unexpected(&p, "a key in double quotes");
    TRY(lex_string(&p, key, key_len));
    lex_space(&p);
    if (lex_peek(&p) != ':') return lex_unexpected(&p, "':' after the key");
    p.at++;
    lex_space(&p);
    w->begin = p.at;
    p.at = w->end = value_end(p.t, p.len, p.at);
    if (w->begin == w->end) return lex_unexpected(&p, "a value");
    lex_space(&p);
    const int c = lex_peek(&p);
    if (c != ',' && c != '}') return lex_unexpected(&p, "',' or '}'");
    w->more = c == ',';
    w->at = p.at + 1;
    *found = 1;
    return OK;
}

int json_walk_fail(const JsonWalk *w, const char *what, Err *e) {
    JsonLex p = walk_lex(w, e);
    return lex_fail(&p, w->key_at, what);
}
