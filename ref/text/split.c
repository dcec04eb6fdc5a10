#include "text/split.h"
#include <stdint.h>
#include <string.h>
#include "text/unicode.h"

enum { LETTER = CHAR_LETTER, NUMBER = CHAR_NUMBER, SPACE = CHAR_SPACE, OTHER = 256, NEWLINE = 512 };

/* What the character at i is, as a set of the above (0 at the end of the text); *len = its bytes. */
static unsigned class_at(const char *s, size_t n, size_t i, size_t *len) {
    *len = 0;
    if (i >= n) return 0;
    uint32_t c = (unsigned char)s[i];
    *len = 1;
    if (c < 0x80) {
        if ((c | 32) - 'a' < 26) return LETTER;
        if (c - '0' < 10) return NUMBER;
        if (c == '\n' || c == '\r') return SPACE | NEWLINE;
        return c == ' ' || c - '\t' < 5 ? SPACE : OTHER;
    }
    *len = utf8_decode(s + i, n - i, &c);
    const unsigned k = char_flags(c) & (LETTER | NUMBER | SPACE);
    return k ? k : OTHER;
}

/* End of the run from i of characters in any of `wanted`, at most `most` of them. */
static size_t run_end(const char *s, size_t n, size_t i, unsigned wanted, size_t most) {
    size_t len;
    while (most-- && class_at(s, n, i, &len) & wanted) i += len;
    return i;
}

typedef struct {
    int caseless;   // contractions in any case
    int any_prefix; // a word may take any one character before it, but no newline, letter or number; else
                    // only ' '
    int number_prefix;
    size_t digits; // longest number
    int newlines;  // punctuation takes the newlines behind it, white space ends after its last newline
} Rules;
static const Rules llama3 = {1, 1, 0, 3, 1}, qwen = {1, 1, 0, 1, 1}, gpt2 = {0, 0, 1, SIZE_MAX, 0};

/* Bytes of 's 't 're 've 'm 'll 'd at the start of s, or 0. */
static size_t contraction(const Rules *r, const char *s, size_t n) {
    if (s[0] != '\'' || n < 2) return 0;
    const char fold = r->caseless ? 32 : 0;
    const char a = s[1] | fold, b = n > 2 ? s[2] | fold : 0;
    if (a == 's' || a == 't' || a == 'm' || a == 'd') return 2;
    if ((a == 'r' && b == 'e') || (a == 'v' && b == 'e') || (a == 'l' && b == 'l')) return 3;
    if (r->caseless && n > 2 && s[1] == '\xC5' && s[2] == '\xBF') return 3; // U+017F
    return 0;
}

/* \s*[\r\n]+ (if r->newlines), else \s+(?!\S), else \s+ */
static size_t space_piece(const Rules *r, const char *s, size_t n) {
    size_t i = 0, last = 0, newline = 0, len;
    for (unsigned k; (k = class_at(s, n, i, &len)) & SPACE; i += len) {
        last = i;
        if (k & NEWLINE) newline = i + 1;
    }
    if (r->newlines && newline) return newline;
    return i == n || last == 0 ? i : last; // the last space goes with the word that follows, unless it is the only one
}

static size_t word_piece(const Rules *r, const char *s, size_t n) {
    size_t len, len2, i = contraction(r, s, n);
    if (i) return i;
    const unsigned k = class_at(s, n, 0, &len), k2 = class_at(s, n, len, &len2);
    const int blank = s[0] == ' ';
    if (k & LETTER) return run_end(s, n, 0, LETTER, SIZE_MAX);
    if (k2 & LETTER && (r->any_prefix ? !(k & (NEWLINE | NUMBER)) : blank)) return run_end(s, n, len, LETTER, SIZE_MAX);
    if (k & NUMBER) return run_end(s, n, 0, NUMBER, r->digits);
    if (k2 & NUMBER && blank && r->number_prefix) return run_end(s, n, len, NUMBER, r->digits);
    if (k & OTHER || (blank && k2 & OTHER)) {
        i = run_end(s, n, blank ? len : 0, OTHER, SIZE_MAX);
        return r->newlines ? run_end(s, n, i, NEWLINE, SIZE_MAX) : i;
    }
    return space_piece(r, s, n);
}

static size_t digit_piece(const char *s, size_t n, size_t most) {
    size_t i = run_end(s, n, 0, NUMBER, most);
    return i ? i : run_end(s, n, 0, LETTER | SPACE | OTHER, SIZE_MAX);
}

static size_t meta_piece(const char *s, size_t n) {
    size_t i = 1;
    while (i < n && (s[i] != '\xE2' || n - i < 3 || s[i + 1] != '\x96' || s[i + 2] != '\x81')) i++;
    return i;
}

size_t split_next(SplitKind kind, const char *s, size_t n) {
    switch (kind) {
    case SPLIT_LLAMA3:
        return word_piece(&llama3, s, n);
    case SPLIT_QWEN:
        return word_piece(&qwen, s, n);
    case SPLIT_GPT2:
        return word_piece(&gpt2, s, n);
    case SPLIT_DIGIT:
        return digit_piece(s, n, 1);
    case SPLIT_DIGITS:
        return digit_piece(s, n, SIZE_MAX);
    case SPLIT_META:
        return meta_piece(s, n);
    default:
        return n;
    }
}

SplitKind split_from_regex(const char *regex, size_t n) {
    static const char *const known[] = {
        [SPLIT_LLAMA3] = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| "
                         "?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|"
                         "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
        [SPLIT_QWEN] = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| "
                       "?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|"
                       "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
        [SPLIT_GPT2] = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+",
    };
    for (int k = SPLIT_LLAMA3; k <= SPLIT_GPT2; k++)
        if (strlen(known[k]) == n && !memcmp(known[k], regex, n)) return (SplitKind)k;
    return SPLIT_KINDS;
}
