/* token_count.c - see token_count.h. */
#include "eval/token_count.h"

static int is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

static size_t simple(const char *s, size_t n) {
    size_t count = 0, i = 0;
    while (i < n) {
        size_t j = i + (s[i] == ' ' && i + 1 < n);
        if (is_letter(s[j]))
            while (j < n && is_letter(s[j])) j++;
        else j = i + 1;
        i = j;
        count++;
    }
    return count;
}

int token_count(TokenCount *c, const char *text, size_t len, size_t *n, Err *e) {
    if (c->kind != COUNT_TOKENS) return *n = c->kind == COUNT_BYTES ? len : simple(text, len), OK;
    c->ids.n = 0;
    TRY(tokenizer_encode(c->tokenizer, text, len, c->special ? TOKENIZE_SPECIAL : 0, &c->ids, e));
    *n = c->ids.n;
    return OK;
}

void token_count_close(TokenCount *c) { ids_free(&c->ids); }
