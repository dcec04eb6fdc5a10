/* tokenizer_load.h - what the files that read tokenizer.json share. For tokenizer_*.c only. */
#ifndef HYB_TOKENIZER_LOAD_H
#define HYB_TOKENIZER_LOAD_H
#include "base/json.h"
#include "text/tokenizer_parts.h"

typedef struct {
    Tokenizer *t;
    const Json *j;
    Err *e;
} Loader;

/* ERR_INPUT: "FILE: what: 's' is not supported; supported: ..." */
int loader_refuse(const Loader *l, const char *what, const char *s, size_t n, const char *supported);
/* The members of the file; each fills its part of l->t and accepts null. The model comes before the
 * post-processor, whose ids must be tokens, and the normaliser before the added tokens, some of which it
 * changes. */
int load_normalizer(Loader *l, JsonRef r);
int load_pre_tokenizer(Loader *l, JsonRef r);
int load_post_processor(Loader *l, JsonRef r);
int load_decoder(Loader *l, JsonRef r);

uint64_t rules_hash(const Tokenizer *t);

#endif
