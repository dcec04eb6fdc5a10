/* json_lex.c - the words of JSON: strings, numbers, null, true and false. See json_lex.h.
 *
 * Integers by hand, 64 bits exactly; reals by strtod, correctly rounded in glibc. The decimal point of strtod
 * depends on the locale, but a C program is in the "C" locale until it calls setlocale, which this program
 * never does. */
#include "base/json_lex.h"
#include "base/mem.h"
#include "base/utf8.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int lex_fail(JsonLex *p, size_t at, const char *what) {
    size_t line = 1, column = 1;
    for (size_t i = 0; i < at && i < p->len; i++) {
        if (p->t[i] == '\n') line++, column = 1;
        else column += (p->t[i] & 0xc0) != 0x80; /* characters, not bytes */
    }
    return err_set(p->e, ERR_INPUT, "%s:%zu:%zu: %s", p->file, line, column, what);
}

/* What stands at p->at, and what was wanted there. */
int lex_unexpected(JsonLex *p, const char *wanted) {
    char msg[160];
    if (p->at >= p->len) snprintf(msg, sizeof msg, "the text ends too early, expected %s", wanted);
    else if (p->t[p->at] > 0x20 && p->t[p->at] < 0x7f)
        snprintf(msg, sizeof msg, "got '%c', expected %s", p->t[p->at], wanted);
    else snprintf(msg, sizeof msg, "got byte 0x%02x, expected %s", p->t[p->at], wanted);
    return lex_fail(p, p->at, msg);
}

void lex_space(JsonLex *p) {
    while (p->at < p->len && (p->t[p->at] == ' ' || p->t[p->at] == '\n' || p->t[p->at] == '\t' || p->t[p->at] == '\r'))
        p->at++;
}

/* The four hex digits at p->at, or -1. */
static int lex_hex4(JsonLex *p) {
    int v = 0;
    if (p->len - p->at < 4) return -1;
    for (int i = 0; i < 4; i++) {
        int c = p->t[p->at + (size_t)i];
        int d = c >= '0' && c <= '9' ? c - '0' : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10 : -1;
        if (d < 0) return -1;
        v = v * 16 + d;
    }
    p->at += 4;
    return v;
}

/* After "\u": appends the character, reading the second half of a surrogate pair. */
static int lex_unicode(JsonLex *p, char *s, size_t *n) {
    size_t start = p->at - 2;
    int c = lex_hex4(p);
    if (c < 0) return lex_fail(p, start, "\\u needs four hexadecimal digits");
    if (c >= 0xdc00 && c <= 0xdfff) return lex_fail(p, start, "second half of a surrogate pair without a first");
    if (c >= 0xd800 && c <= 0xdbff) {
        int low = -1;
        if (p->len - p->at >= 6 && p->t[p->at] == '\\' && p->t[p->at + 1] == 'u') {
            p->at += 2;
            low = lex_hex4(p);
        }
        if (low < 0xdc00 || low > 0xdfff) return lex_fail(p, start, "first half of a surrogate pair without a second");
        c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
    }
    if (c < 0x80) s[(*n)++] = (char)c;
    else {
        int extra = c < 0x800 ? 1 : c < 0x10000 ? 2 : 3;
        static const int lead[] = {0, 0xc0, 0xe0, 0xf0};
        s[(*n)++] = (char)(lead[extra] | c >> 6 * extra);
        while (extra--) s[(*n)++] = (char)(0x80 | (c >> 6 * extra & 0x3f));
    }
    return OK;
}

int lex_string(JsonLex *p, char *s, size_t *len) {
    size_t n = 0;
    for (p->at++;;) {
        if (p->at >= p->len) return lex_unexpected(p, "the end of a string");
        unsigned char c = p->t[p->at];
        if (c == '"') break;
        if (c < 0x20) return lex_fail(p, p->at, "control character in a string: it must be written as \\uXXXX");
        if (c != '\\') {
            size_t w = utf8_length(p->t + p->at, p->len - p->at);
            if (!w) return lex_fail(p, p->at, "invalid UTF-8 in a string");
            while (w--) s[n++] = (char)p->t[p->at++];
            continue;
        }
        static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
        p->at++;
        int escape = lex_peek(p);
        const char *k = escape > 0 ? strchr(from, escape) : NULL;
        if (k) s[n++] = to[k - from], p->at++;
        else if (escape != 'u') return lex_unexpected(p, "one of \"\\/bfnrtu after the backslash");
        else {
            p->at++;
            TRY(lex_unicode(p, s, &n));
        }
    }
    p->at++;
    s[n] = 0;
    *len = n;
    return OK;
}

static size_t lex_digits(JsonLex *p) {
    size_t start = p->at;
    while (p->at < p->len && p->t[p->at] >= '0' && p->t[p->at] <= '9') p->at++;
    return p->at - start;
}

/* The real number in text[0..n), which is known to be a JSON number. */
static int lex_real(JsonLex *p, const unsigned char *text, size_t n, double *out) {
    char small[64];
    void *big = NULL;
    if (n >= sizeof small) TRY(mem_alloc(&big, n + 1, "JSON number", p->e));
    char *s = big ? big : small;
    memcpy(s, text, n);
    s[n] = 0;
    *out = strtod(s, NULL); /* an exponent out of range gives +-inf or 0, which the typed access refuses or takes */
    mem_free(big);
    return OK;
}

int lex_number(JsonLex *p, JsonNumber *node) {
    size_t start = p->at;
    int negative = lex_peek(p) == '-', real = 0;
    p->at += (size_t)negative;
    size_t first = p->at, digits = lex_digits(p);
    if (!digits) return lex_unexpected(p, lex_peek(p) == 'I' ? "a digit (Python's -Infinity is not JSON)" : "a digit");
    if (digits > 1 && p->t[first] == '0') return lex_fail(p, first, "a number must not start with 0");
    size_t end = p->at;
    if (lex_peek(p) == '.') {
        real = 1;
        p->at++;
        if (!lex_digits(p)) return lex_unexpected(p, "a digit after the decimal point");
    }
    if (lex_peek(p) == 'e' || lex_peek(p) == 'E') {
        real = 1;
        p->at++;
        if (lex_peek(p) == '+' || lex_peek(p) == '-') p->at++;
        if (!lex_digits(p)) return lex_unexpected(p, "a digit in the exponent");
    }
    uint64_t u = 0;
    for (size_t i = first; i < end && !real; i++) {
        unsigned d = p->t[i] - '0';
        if (u > (UINT64_MAX - d) / 10) real = 1; /* does not fit 64 bits: kept as a real */
        else u = u * 10 + d;
    }
    if (negative && (u > (uint64_t)INT64_MAX + 1 || !u))
        real = 1; /* -0 is a real too: an integer would lose its sign */
    if (real) {
        node->kind = JSON_REAL;
        return lex_real(p, p->t + start, p->at - start, &node->d);
    }
    node->kind = !negative && u > INT64_MAX ? JSON_UINT : JSON_INT;
    if (negative) node->i = -(int64_t)(u - 1) - 1;
    else node->u = u;
    return OK;
}

int lex_word(JsonLex *p, int *kind) {
    static const struct {
        const char *word;
        int kind;
    } words[] = {{"null", JSON_NULL}, {"true", JSON_TRUE}, {"false", JSON_FALSE}};
    for (size_t i = 0; i < 3; i++) {
        size_t n = strlen(words[i].word);
        if (p->len - p->at < n || memcmp(p->t + p->at, words[i].word, n)) continue;
        *kind = words[i].kind;
        p->at += n;
        return OK;
    }
    int c = lex_peek(p);
    if (c == 'N' || c == 'I') return lex_unexpected(p, "a value (Python's NaN and Infinity are not JSON)");
    if (c == '/') return lex_unexpected(p, "a value (comments are not JSON)");
    return lex_unexpected(p, "a value");
}
