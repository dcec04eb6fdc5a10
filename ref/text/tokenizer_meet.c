/* tokenizer_meet.c - do ids of one mean what ids of the other mean? Tokenizer and embedding, two tokenizers. */
#include <stdio.h>
#include <string.h>
#include "base/file.h"
#include "text/dataset.h"
#include "text/tokenizer.h"

int tokenizer_rows(const Tokenizer *t, int rows, const char *where, Err *e) {
    const int size = tokenizer_size(t);
    if (size <= rows) return OK;
    int id = rows, n = 0;
    size_t len = 0;
    const char *s = NULL;
    for (int i = rows; i < size; i++) n += tokenizer_token(t, i, &len) != NULL;
    while (id < size && !(s = tokenizer_token(t, id, &len))) id++;
    err_set(e, ERR_INPUT, "%s: its tokenizer has %d tokens, its embedding %d rows: '%.80s' (%d)%s no row", where, size,
            rows, s ? s : "", id, n > 1 ? " and others have" : " has");
    return err_hint(e, "a token was added and the embedding not resized? take it out of tokenizer.json, or add a row "
                       "(transformers: resize_token_embeddings)");
}

int tokenizer_difference(const Tokenizer *a, const Tokenizer *b, char *out, size_t cap) {
    const int size = tokenizer_size(a) > tokenizer_size(b) ? tokenizer_size(a) : tokenizer_size(b);
    for (int id = 0; id < size; id++) {
        size_t n = 0, m = 0;
        const char *s = tokenizer_token(a, id, &n), *u = tokenizer_token(b, id, &m);
        if (s && u && n == m && !memcmp(s, u, n)) continue;
        const int there = s ? tokenizer_id(b, s, n) : -1, here = u ? tokenizer_id(a, u, m) : -1;
        if (there >= 0 && there != id) return snprintf(out, cap, "'%.60s' is %d and %d", s, id, there), 1;
        if (here >= 0 && here != id) return snprintf(out, cap, "'%.60s' is %d and %d", u, here, id), 1;
        if (s && u) return snprintf(out, cap, "%d is '%.60s' and '%.60s'", id, s, u), 1;
    }
    return 0;
}

static int has_tokenizer(const char *dir) {
    char path[1024];
    return !file_join(path, sizeof path, dir, "tokenizer.json", NULL) && file_exists(path) == 1;
}

int tokenizers_meet(const char *model, const char *teacher, Err *e) {
    Tokenizer *a = NULL, *b = NULL;
    char what[256];
    if (!has_tokenizer(model) || !has_tokenizer(teacher)) return OK;
    int rc = tokenizer_open(&a, model, e);
    if (!rc) rc = tokenizer_open(&b, teacher, e);
    if (!rc && tokenizer_hash(a) != tokenizer_hash(b) && tokenizer_difference(a, b, what, sizeof what)) {
        rc = err_set(e, ERR_INPUT, "%s and %s: their tokenizers differ: %s", model, teacher, what);
        err_hint(e, "models are compared and distilled token by token: both must have one tokenizer");
    }
    tokenizer_close(a);
    tokenizer_close(b);
    return rc;
}
