/* text_buf.h - text that grows: what the JSON writer, the pictures and the report are written into.
 *
 * A TextBuf starts zeroed. A failed allocation is remembered, later calls do nothing, and textbuf_end reports it once.
 * */
#ifndef HYB_TEXT_BUF_H
#define HYB_TEXT_BUF_H
#include <stddef.h>
#include "base/err.h"

typedef struct {
    char *text; /* NUL-terminated once something was put; NULL before */
    size_t len, cap;
    int failed;
} TextBuf;

void textbuf_put(TextBuf *b, const char *s, size_t n);
void textbuf_puts(TextBuf *b, const char *s);
void textbuf_printf(TextBuf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
int textbuf_end(TextBuf *b, Err *e); /* ERR_MEMORY if any call ran out; afterwards b->text is never NULL */
void textbuf_free(TextBuf *b);

int text_ends(const char *s, const char *end); /* 1 if s ends with it */

#endif
