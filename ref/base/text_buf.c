/* text_buf.c - see text_buf.h. */
#include "base/text_buf.h"
#include "base/mem.h"
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

/* Room for n more bytes and the NUL. */
static int reserve(TextBuf *b, size_t n) {
    if (b->failed) return 0;
    if (n < b->cap - b->len) return 1; /* cap == len == 0 at the start: never true then */
    size_t cap = b->cap ? b->cap : 128;
    while (cap - b->len <= n && cap < SIZE_MAX / 2) cap *= 2;
    void *p = b->text;
    if (cap - b->len <= n || mem_grow(&p, b->cap, cap, "text", NULL)) {
        b->failed = 1;
        return 0;
    }
    b->text = p;
    b->cap = cap;
    return 1;
}

void textbuf_put(TextBuf *b, const char *s, size_t n) {
    if (!reserve(b, n)) return;
    if (n) memcpy(b->text + b->len, s, n);
    b->len += n;
    b->text[b->len] = 0;
}

void textbuf_puts(TextBuf *b, const char *s) { textbuf_put(b, s, strlen(s)); }

void textbuf_printf(TextBuf *b, const char *fmt, ...) {
    va_list ap, again;
    va_start(ap, fmt);
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    if (n < 0) b->failed = 1;
    else if (reserve(b, (size_t)n)) {
        vsnprintf(b->text + b->len, (size_t)n + 1, fmt, again);
        b->len += (size_t)n;
    }
    va_end(again);
    va_end(ap);
}

int textbuf_end(TextBuf *b, Err *e) {
    textbuf_put(b, "", 0);
    return b->failed ? err_set(e, ERR_MEMORY, "text: out of memory after %zu bytes", b->len) : OK;
}

void textbuf_free(TextBuf *b) {
    mem_free(b->text);
    memset(b, 0, sizeof *b);
}

int text_ends(const char *s, const char *end) {
    const size_t n = strlen(s), m = strlen(end);
    return n >= m && !memcmp(s + n - m, end, m);
}
