/* token_count.h - how many tokens is a text? A model's tokenizer, or one of two stubs that make check values
 * independent of any model.
 *
 * byte: one token a byte. simple: one token per run of ASCII letters, a space right before it included, else one token
 * a byte. */
#ifndef HYB_TOKEN_COUNT_H
#define HYB_TOKEN_COUNT_H
#include "text/tokenizer.h"

typedef enum { COUNT_TOKENS, COUNT_BYTES, COUNT_SIMPLE } CountKind;
typedef struct {
    CountKind kind;
    const Tokenizer *tokenizer; /* COUNT_TOKENS */
    /* count what the tokenizer adds (BOS), as len(tokenizer(text).input_ids) does */
    int special;
    Ids ids; /* scratch, kept between calls */
} TokenCount;

int token_count(TokenCount *c, const char *text, size_t len, size_t *n, Err *e);
void token_count_close(TokenCount *c);

#endif
