/* ends.c - see ends.h. */
#include "io/ends.h"
#include "base/file.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int ends_put(Config *c, int64_t id, const char *where, Err *e) {
    if (id < 0 || id >= c->VOC || config_ends(c, (int)id)) return OK;
    if (c->n_eos == MAX_EOS)
        return err_set(e, ERR_INPUT, "%s: the model has more than %d ends of text", where, MAX_EOS);
    c->eos[c->n_eos++] = (int)id;
    return OK;
}

/* dir/name, if it is there. */
static int optional_open(Json *j, int *there, const char *dir, const char *name, Err *e) {
    char path[1200];
    *j = (Json){0};
    TRY(file_join(path, sizeof path, dir, name, e));
    *there = file_exists(path) == 1;
    if (!*there) return OK;
    TRY(json_open(j, path, e));
    if (json_kind(j, 0) == JSON_OBJECT) return OK;
    json_free(j);
    return err_set(e, ERR_INPUT, "%s: expected a JSON object", path);
}

/* One id or a list of ids; -1 and null mean none. */
static int ids_put(Config *c, const Json *j, JsonRef r, Err *e) {
    const int list = json_kind(j, r) == JSON_ARRAY;
    if (json_kind(j, r) == JSON_NULL) return OK;
    for (JsonRef at = list ? json_first(j, r) : r; at >= 0; at = list ? json_next(j, at) : -1) {
        int64_t id = -1;
        TRY(json_want_int(j, at, "eos_token_id", -1, 1 << 30, &id, e));
        TRY(ends_put(c, id, j->file, e));
    }
    return OK;
}

static int generation_put(Config *c, const Json *config, const char *dir, Err *e) {
    Json j;
    int there;
    TRY(optional_open(&j, &there, dir, "generation_config.json", e));
    if (!there) return OK;
    const JsonRef r = json_get(&j, 0, "eos_token_id");
    if (json_kind(&j, r) != JSON_NULL && json_get(config, 0, "eos_token_id") < 0) c->n_eos = 0;
    const int rc = ids_put(c, &j, r, e);
    json_free(&j);
    return rc;
}

/* ---- tokenizer_config.json's eos_token ---- */

/* Its text: a string, or an added token with one. NULL if there is none. */
static int token_text(const char **s, size_t *n, const Json *j, Err *e) {
    const JsonRef r = json_get(j, 0, "eos_token");
    *s = NULL;
    if (json_kind(j, r) == JSON_NULL) return OK;
    return json_want_str(j, json_kind(j, r) == JSON_OBJECT ? json_get(j, r, "content") : r, "eos_token", s, n, e);
}

static int same(const Json *j, JsonRef r, const char *s, size_t n) {
    size_t m = 0;
    const char *t = json_str(j, r, &m);
    return t && m == n && !memcmp(s, t, n);
}

static int id_of(int *id, const Json *config, const char *dir, const char *s, size_t n, Err *e) {
    const JsonRef decoder = json_get(config, 0, "added_tokens_decoder");
    for (JsonRef r = json_first(config, decoder); r >= 0; r = json_next(config, r))
        if (same(config, json_get(config, r, "content"), s, n))
            return *id = (int)strtol(json_key(config, r, NULL), NULL, 10), OK;
    Json j;
    int there;
    TRY(optional_open(&j, &there, dir, "tokenizer.json", e));
    if (!there) return OK;
    int64_t found = -1;
    for (JsonRef r = json_first(&j, json_get(&j, 0, "added_tokens")); r >= 0 && found < 0; r = json_next(&j, r))
        if (same(&j, json_get(&j, r, "content"), s, n))
            json_want_int(&j, json_get(&j, r, "id"), "id", 0, 1 << 30, &found, NULL);
    const JsonRef v = json_get(&j, json_get(&j, json_get(&j, 0, "model"), "vocab"), s);
    if (found < 0 && v >= 0 && strlen(s) == n) json_want_int(&j, v, "id", 0, 1 << 30, &found, NULL);
    json_free(&j);
    *id = (int)found;
    return OK;
}

int ends_token(int *id, const char *dir, Err *e) {
    Json j;
    int there;
    const char *s;
    size_t n = 0;
    *id = -1;
    TRY(optional_open(&j, &there, dir, "tokenizer_config.json", e));
    if (!there) return OK;
    int rc = token_text(&s, &n, &j, e);
    if (!rc && s) rc = id_of(id, &j, dir, s, n, e);
    json_free(&j);
    return rc;
}

int ends_add(Config *c, const Json *j, const char *dir, Err *e) {
    int id;
    TRY(generation_put(c, j, dir, e));
    TRY(ends_token(&id, dir, e));
    return ends_put(c, id, dir, e);
}

/* ---- a document ---- */

int ends_document(const Config *c, const Tokenizer *t) {
    static const char *const spelled[] = {"<|endoftext|>", "<|end_of_text|>", "</s>",
                                          "<eos>",         "<|eos|>",         "<|end_of_document|>"};
    for (int i = 0; t && i < c->n_eos; i++) {
        size_t n = 0;
        const char *s = tokenizer_token(t, c->eos[i], &n);
        for (size_t k = 0; s && k < sizeof spelled / sizeof *spelled; k++)
            if (strlen(spelled[k]) == n && !memcmp(s, spelled[k], n)) return c->eos[i];
    }
    return c->n_eos ? c->eos[0] : -1;
}
