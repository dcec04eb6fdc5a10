/* tokenizer_load.c - tokenizer.json -> Tokenizer: the file, its model and its added tokens. What is not
 * understood is refused by its name; members that Hugging Face's reader ignores are ignored. */
#include <stdlib.h>
#include <string.h>
#include "base/file.h"
#include "base/mem.h"
#include "base/what_is.h"
#include "text/tokenizer_load.h"

static int is(const char *a, const char *b) { return !strcmp(a, b); }

/* ---- model ---- */

static int load_vocab(Loader *l, JsonRef vocab) {
    const Json *j = l->j;
    if (json_kind(j, vocab) != JSON_OBJECT || !json_size(j, vocab))
        return err_set(l->e, ERR_INPUT, "%s: model.vocab: expected an object with at least one token", j->file);
    for (JsonRef r = json_first(j, vocab); r >= 0; r = json_next(j, r)) {
        size_t n;
        int64_t id;
        const char *key = json_key(j, r, &n);
        TRY(json_want_int(j, r, "model.vocab: an id", 0, TOKEN_ID_LIMIT - 1, &id, l->e));
        if (!n) return err_set(l->e, ERR_INPUT, "%s: model.vocab: the token of id %d is empty", j->file, (int)id);
        TRY(vocab_add(&l->t->vocab, key, n, (int)id, 1, l->e));
    }
    return vocab_index(&l->t->vocab, j->file, l->e);
}

/* The parts of merge r: "a b" or ["a", "b"]. */
static int merge_parts(const Loader *l, JsonRef r, size_t rank, const char *s[2], size_t n[2]) {
    const Json *j = l->j;
    s[0] = json_str(j, r, &n[0]);
    if (s[0]) {
        const char *blank = memchr(s[0], ' ', n[0]);
        const size_t left = blank ? (size_t)(blank - s[0]) : 0;
        if (blank && !memchr(blank + 1, ' ', n[0] - left - 1)) {
            s[1] = blank + 1;
            n[1] = n[0] - left - 1;
            n[0] = left;
            return OK;
        }
    } else if (json_kind(j, r) == JSON_ARRAY && json_size(j, r) == 2) {
        const JsonRef a = json_first(j, r);
        s[0] = json_str(j, a, &n[0]);
        s[1] = json_str(j, json_next(j, a), &n[1]);
        if (s[0] && s[1]) return OK;
    }
    return err_set(l->e, ERR_INPUT, "%s: model.merges[%zu]: expected \"left right\" or [\"left\", \"right\"]", j->file,
                   rank);
}

static int unknown_token(const Loader *l, size_t rank, const char *part, const char *s, size_t n) {
    return err_set(l->e, ERR_INPUT, "%s: model.merges[%zu]: its %s '%.*s' is not in the vocabulary", l->j->file, rank,
                   part, (int)(n < 80 ? n : 80), s);
}

static int load_merge(Loader *l, JsonRef r, size_t rank, TextBuf *both) {
    const Vocab *v = &l->t->vocab;
    const char *s[2] = {NULL, NULL};
    size_t n[2] = {0, 0};
    TRY(merge_parts(l, r, rank, s, n));
    both->len = 0;
    textbuf_put(both, s[0], n[0]);
    textbuf_put(both, s[1], n[1]);
    TRY(textbuf_end(both, l->e));
    const int left = vocab_find_model(v, s[0], n[0]), right = vocab_find_model(v, s[1], n[1]);
    const int id = vocab_find_model(v, both->text, both->len);
    if (left < 0) return unknown_token(l, rank, "left part", s[0], n[0]);
    if (right < 0) return unknown_token(l, rank, "right part", s[1], n[1]);
    if (id < 0) return unknown_token(l, rank, "result", both->text, both->len);
    merges_add(&l->t->merges, left, right, (uint32_t)rank, id);
    return OK;
}

static int load_merges(Loader *l, JsonRef merges) {
    const Json *j = l->j;
    TextBuf both = {0};
    if (json_kind(j, merges) != JSON_ARRAY)
        return err_set(l->e, ERR_INPUT, "%s: model.merges: expected an array", j->file);
    TRY(merges_reserve(&l->t->merges, json_size(j, merges), l->e));
    int rc = OK;
    size_t rank = 0;
    for (JsonRef r = json_first(j, merges); r >= 0 && !rc; r = json_next(j, r)) {
        const char *s = json_str(j, r, NULL);
        if (s && !strncmp(s, "#version", 8)) continue; // the first line of an old merges.txt
        rc = load_merge(l, r, rank++, &both);
    }
    textbuf_free(&both);
    return rc;
}

/* Members that would change what the model does in a way this one does not. */
static int refuse_options(const Loader *l, JsonRef model) {
    static const char *const affix[] = {"continuing_subword_prefix", "end_of_word_suffix"};
    const Json *j = l->j;
    double dropout = 0;
    TRY(json_opt_real(j, model, "dropout", &dropout, l->e));
    if (dropout != 0)
        return err_set(l->e, ERR_INPUT, "%s: model.dropout: got %g, only null is supported", j->file, dropout);
    for (int i = 0; i < 2; i++) {
        const char *s = "";
        TRY(json_opt_str(j, model, affix[i], &s, l->e));
        if (*s)
            return err_set(l->e, ERR_INPUT, "%s: model.%s: got '%.80s', only \"\" is supported", j->file, affix[i], s);
    }
    return OK;
}

static int load_model(Loader *l, JsonRef model) {
    const Json *j = l->j;
    Tokenizer *t = l->t;
    const char *type = "BPE"; // files of 2020 do not say
    if (json_kind(j, model) != JSON_OBJECT) return err_set(l->e, ERR_INPUT, "%s: model: expected an object", j->file);
    TRY(json_opt_str(j, model, "type", &type, l->e));
    if (!is(type, "BPE")) return loader_refuse(l, "model.type", type, strlen(type), "BPE");
    TRY(refuse_options(l, model));
    TRY(json_opt_bool(j, model, "fuse_unk", &t->fuse_unk, l->e));
    TRY(json_opt_bool(j, model, "byte_fallback", &t->byte_fallback, l->e));
    TRY(json_opt_bool(j, model, "ignore_merges", &t->ignore_merges, l->e));
    TRY(load_vocab(l, json_get(j, model, "vocab")));
    TRY(load_merges(l, json_get(j, model, "merges")));
    const char *unk = NULL;
    TRY(json_opt_str(j, model, "unk_token", &unk, l->e));
    t->unk = unk ? vocab_find_model(&t->vocab, unk, strlen(unk)) : -1;
    if (unk && t->unk < 0)
        return err_set(l->e, ERR_INPUT, "%s: model.unk_token: '%.80s' is not in the vocabulary", j->file, unk);
    for (uint32_t c = 0; c < 1024; c++) {
        char u[4];
        t->one[c] = vocab_find_model(&t->vocab, u, utf8_encode(u, c));
    }
    for (int b = 0; b < 256; b++) {
        static const char digit[] = "0123456789ABCDEF";
        const char name[6] = {'<', '0', 'x', digit[b >> 4], digit[b & 15], '>'};
        t->byte_token[b] = vocab_find_model(&t->vocab, name, 6);
    }
    return OK;
}

/* ---- added tokens ---- */

static int load_added_token(Loader *l, JsonRef r, AddedToken *a) {
    const Json *j = l->j;
    Vocab *v = &l->t->vocab;
    int64_t id;
    const char *s;
    size_t n;
    TRY(json_want_int(j, json_get(j, r, "id"), "added_tokens: id", 0, TOKEN_ID_LIMIT - 1, &id, l->e));
    TRY(json_want_str(j, json_get(j, r, "content"), "added_tokens: content", &s, &n, l->e));
    TRY(json_want_bool(j, json_get(j, r, "special"), "added_tokens: special", &a->special, l->e));
    TRY(json_want_bool(j, json_get(j, r, "normalized"), "added_tokens: normalized", &a->normalized, l->e));
    TRY(json_want_bool(j, json_get(j, r, "single_word"), "added_tokens: single_word", &a->single_word, l->e));
    TRY(json_want_bool(j, json_get(j, r, "lstrip"), "added_tokens: lstrip", &a->lstrip, l->e));
    TRY(json_want_bool(j, json_get(j, r, "rstrip"), "added_tokens: rstrip", &a->rstrip, l->e));
    a->id = (int)id;
    if (!n) return err_set(l->e, ERR_INPUT, "%s: added_tokens: the content of id %d is empty", j->file, a->id);
    VocabEntry *entry = vocab_find(v, s, n);
    if (entry && entry->id != a->id)
        return err_set(l->e, ERR_INPUT, "%s: added_tokens: '%.*s' has id %d here and %d in the vocabulary", j->file,
                       (int)(n < 80 ? n : 80), s, a->id, entry->id);
    if (!entry) {
        TRY(vocab_add(v, s, n, a->id, 0, l->e));
        entry = vocab_find(v, s, n);
    }
    entry->special |= (short)a->special;
    return OK;
}

static int add_pattern(Loader *l, uint32_t i) {
    Tokenizer *t = l->t;
    const AddedToken *a = &t->added[i];
    const VocabEntry *entry = vocab_by_id(&t->vocab, a->id);
    const char *s = t->vocab.text.text + entry->at;
    if (!a->normalized) return trie_add(&t->raw, s, entry->len, i, l->e);
    TextBuf b = {0}; // is looked for in normalised text, so it is normalised itself
    steps_normalize(t->norm, t->n_norm, s, entry->len, &b);
    int rc = textbuf_end(&b, l->e);
    if (!rc) rc = trie_add(&t->normalized, b.text, b.len, i, l->e);
    textbuf_free(&b);
    return rc;
}

static int load_added(Loader *l, JsonRef list) {
    const Json *j = l->j;
    Tokenizer *t = l->t;
    if (list < 0 || json_kind(j, list) == JSON_NULL) return OK;
    if (json_kind(j, list) != JSON_ARRAY)
        return err_set(l->e, ERR_INPUT, "%s: added_tokens: expected an array", j->file);
    if (!json_size(j, list)) return OK;
    size_t bytes;
    TRY(mem_mul(&bytes, json_size(j, list), sizeof *t->added, "added tokens", l->e));
    TRY(mem_alloc((void **)&t->added, bytes, "added tokens", l->e));
    for (JsonRef r = json_first(j, list); r >= 0; r = json_next(j, r)) {
        TRY(load_added_token(l, r, &t->added[t->n_added]));
        t->n_added++;
    }
    TRY(vocab_index(&t->vocab, j->file, l->e));
    for (size_t i = 0; i < t->n_added; i++) TRY(add_pattern(l, (uint32_t)i));
    return OK;
}

/* ---- the whole file ---- */

/* truncation changes ids. padding does unless it pads to the longest of a batch, which for one text is the
 * text itself. */
static int refuse_batching(const Loader *l) {
    const Json *j = l->j;
    const JsonRef cut = json_get(j, 0, "truncation"), pad = json_get(j, 0, "padding");
    if (cut >= 0 && json_kind(j, cut) != JSON_NULL) {
        err_set(l->e, ERR_INPUT, "%s: truncation: only null is supported", j->file);
        return err_hint(l->e, "it cuts every text; set it to null in the file if that is not wanted");
    }
    if (pad < 0 || json_kind(j, pad) == JSON_NULL) return OK;
    const char *strategy = json_str(j, json_get(j, pad, "strategy"), NULL);
    const JsonRef multiple = json_get(j, pad, "pad_to_multiple_of");
    if (strategy && is(strategy, "BatchLongest") && (multiple < 0 || json_kind(j, multiple) == JSON_NULL)) return OK;
    err_set(l->e, ERR_INPUT, "%s: padding: only null or BatchLongest is supported", j->file);
    return err_hint(l->e, "it lengthens every text; set it to null in the file if that is not wanted");
}

static int load(Loader *l) {
    const Json *j = l->j;
    const char *version = "1.0";
    if (json_kind(j, 0) != JSON_OBJECT) return err_set(l->e, ERR_INPUT, "%s: expected an object", j->file);
    TRY(json_opt_str(j, 0, "version", &version, l->e));
    if (!is(version, "1.0")) return loader_refuse(l, "version", version, strlen(version), "1.0");
    TRY(refuse_batching(l));
    TRY(load_normalizer(l, json_get(j, 0, "normalizer")));
    TRY(load_pre_tokenizer(l, json_get(j, 0, "pre_tokenizer")));
    TRY(load_decoder(l, json_get(j, 0, "decoder")));
    TRY(load_model(l, json_get(j, 0, "model")));
    TRY(load_added(l, json_get(j, 0, "added_tokens")));
    TRY(load_post_processor(l, json_get(j, 0, "post_processor")));
    l->t->hash = rules_hash(l->t);
    return OK;
}

int tokenizer_parse(Tokenizer **t, const char *text, size_t len, const char *file, Err *e) {
    Json j;
    *t = NULL;
    TRY(json_parse(&j, text, len, file, e));
    Loader l = {.j = &j, .e = e};
    int rc = mem_alloc((void **)&l.t, sizeof *l.t, "tokenizer", e);
    if (!rc) rc = load(&l);
    json_free(&j);
    if (rc) tokenizer_close(l.t);
    else *t = l.t;
    return rc;
}

/* transformers adds the tokens of tokenizer_config.json that tokenizer.json lacks, and takes its flags where the two
 * differ. Here the two must agree. */
static int decoder_compare(const Tokenizer *t, const Json *j, Err *e) {
    static const char *const flags[] = {"lstrip", "rstrip", "single_word"};
    const JsonRef list = json_get(j, 0, "added_tokens_decoder");
    for (JsonRef r = json_first(j, list); r >= 0; r = json_next(j, r)) {
        size_t n = 0;
        const char *s = json_str(j, json_get(j, r, "content"), &n), *key = json_key(j, r, NULL);
        int id = s ? tokenizer_id(t, s, n) : -1, k = 0, on[3] = {0};
        if (!s) return err_set(e, ERR_INPUT, "%s: added_tokens_decoder: %.20s has no content", j->file, key);
        while (k < (int)t->n_added && t->added[k].id != id) k++;
        if (id < 0 || id != strtol(key, NULL, 10) || k == (int)t->n_added) {
            err_set(e, ERR_INPUT, "%s: added_tokens_decoder: '%.80s' is %.20s, in tokenizer.json it is %s", j->file, s,
                    key,
                    id < 0                        ? "missing"
                    : id != strtol(key, NULL, 10) ? "another id"
                                                  : "no added token");
            return err_hint(
                e, "transformers would add it: AutoTokenizer.from_pretrained, then save_pretrained, makes both "
                   "files alike");
        }
        const int have[3] = {t->added[k].lstrip, t->added[k].rstrip, t->added[k].single_word};
        for (int i = 0; i < 3; i++) {
            on[i] = have[i];
            TRY(json_opt_bool(j, r, flags[i], &on[i], e));
            if (on[i] == have[i]) continue;
            err_set(e, ERR_INPUT, "%s: added_tokens_decoder: '%.80s' has %s %s, in tokenizer.json %s", j->file, s,
                    flags[i], on[i] ? "true" : "false", have[i] ? "true" : "false");
            return err_hint(e, "AutoTokenizer.from_pretrained, then save_pretrained, makes both files alike");
        }
    }
    return OK;
}

static int config_compare(const Tokenizer *t, const char *dir, Err *e) {
    char path[1024];
    Json j;
    TRY(file_join(path, sizeof path, dir, "tokenizer_config.json", e));
    if (file_exists(path) != 1) return OK;
    TRY(json_open(&j, path, e));
    const int rc = decoder_compare(t, &j, e);
    json_free(&j);
    return rc;
}

/* Where tokenizer.json is not there: the older forms of a tokenizer that may be, and how to make it of them. */
static int no_tokenizer(const char *dir, Err *e) {
    static const char *const older[] = {"tokenizer.model", "vocab.json", "spiece.model", "tokenizer_config.json"};
    err_set(e, ERR_IO, "%s: no tokenizer.json in it", dir);
    for (size_t i = 0; i < sizeof older / sizeof *older; i++) {
        char name[1024];
        if (!file_join(name, sizeof name, dir, older[i], NULL) && file_exists(name) == 1)
            err_hint(e,
                     "%s is there: transformers' AutoTokenizer.from_pretrained, then save_pretrained, makes "
                     "tokenizer.json of it",
                     older[i]);
    }
    return err_hint(e, "a model directory with tokenizer.json is needed here");
}

int tokenizer_open(Tokenizer **t, const char *path, Err *e) {
    char name[1024];
    const char *dir = NULL;
    File f;
    *t = NULL;
    if (file_exists(path) == 2) {
        dir = path;
        TRY(file_join(name, sizeof name, path, "tokenizer.json", e));
        if (!file_exists(name)) return no_tokenizer(path, e);
        path = name;
    }
    TRY(file_open(&f, path, e));
    const WhatIs is = what_is(f.data, f.size);
    const int rc = is > IS_JSON && is != IS_BINARY
                       ? what_is_refuse(is, path, "a tokenizer.json or a model directory", e)
                       : tokenizer_parse(t, (const char *)f.data, f.size, path, e);
    file_close(&f);
    if (rc || !dir) return rc;
    const int differs = config_compare(*t, dir, e);
    if (differs) {
        tokenizer_close(*t);
        *t = NULL;
    }
    return differs;
}

void tokenizer_close(Tokenizer *t) {
    if (!t) return;
    vocab_free(&t->vocab);
    merges_free(&t->merges);
    mem_free(t->added);
    trie_free(&t->raw);
    trie_free(&t->normalized);
    ids_free(&t->prefix);
    ids_free(&t->suffix);
    mem_free(t);
}
