/* err.c - one code, one line, the first error wins. See err.h. */
#include "base/err.h"
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* Messages quote names from untrusted files: no newline, no escape sequence may reach a terminal or break the
 * one-line rule. 0xC2 0x80 to 0xC2 0x9F are control characters too (C1, written in UTF-8). */
static void line_clean(char *s) {
    for (; *s; s++)
        if ((unsigned char)*s == 0xc2 && (s[1] & 0xe0) == 0x80) s[0] = s[1] = '?';
        else if ((unsigned char)*s < 0x20 || *s == 0x7f) *s = (*s == '\n' || *s == '\t' || *s == '\r') ? ' ' : '?';
}

int err_set(Err *e, int code, const char *fmt, ...) {
    if (!e || e->code) return code;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(e->msg, sizeof e->msg, fmt, ap);
    va_end(ap);
    line_clean(e->msg);
    e->code = code;
    e->hint[0] = 0;
    return code;
}

int err_hint(Err *e, const char *fmt, ...) {
    if (!e) return ERR_CHECK; /* the caller is failing: without an Err to ask, any error is better than OK */
    if (!e->code || e->hint[0]) return e->code;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(e->hint, sizeof e->hint, fmt, ap);
    va_end(ap);
    line_clean(e->hint);
    return e->code;
}

int err_prefix(Err *e, const char *fmt, ...) {
    if (!e) return ERR_CHECK;
    if (!e->code) return OK;
    char old[sizeof e->msg];
    memcpy(old, e->msg, sizeof old);
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(e->msg, sizeof e->msg, fmt, ap);
    va_end(ap);
    size_t n = strlen(e->msg);
    snprintf(e->msg + n, sizeof e->msg - n, ": %s", old);
    line_clean(e->msg);
    return e->code;
}
