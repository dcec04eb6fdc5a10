/* gguf_tokenizer.c - the tokenizer of a GGUF file as tokenizer.json. See gguf_model.h.
 *
 * GGUF keeps a list of token texts with a type each (1 normal, 2 unknown, 3 control, 4 user defined, 5 unused,
 * 6 byte) and says by a name ("pre") how text is split before merging; what these names mean is llama.cpp's
 * llama-vocab.cpp. Special tokens at the end of the list are
 * added tokens only, as in Llama-3's and Qwen's files; all others also stand in the model's vocabulary,
 * since `tokenizers` gives an added token that the model does not know the next free id, whatever the file says. */
#include "base/mem.h"
#include "base/utf8.h"
#include "io/gguf_model.h"
#include "base/json.h"
#include "text/tokenizer.h"
#include "text/vocab.h"
#include <stdlib.h>
#include <string.h>

enum { NORMAL = 1, UNKNOWN, CONTROL, USER, UNUSED, BYTE };
enum { MAX_TOKEN = 1024, MAX_TOKENS = 1 << 22 };
#define META "\xE2\x96\x81" /* U+2581, which stands for a space */

typedef struct {
    const char *s;
    size_t n;
    int type;
    float score;
} Token;
typedef struct {
    const Gguf *g;
    Token *token;
    size_t n, tail; /* tokens from `tail` on are added tokens only */
    int spm;        /* sentencepiece-style, else byte-level */
    int64_t bos, eos, unk;
    int add_bos, add_eos, add_space;
    const char *pre; /* byte-level: how text is split */
    size_t pre_len;
} Vocabulary;

static int is(const char *s, size_t n, const char *word) { return strlen(word) == n && !memcmp(s, word, n); }

/* ---- reading ---- */

static int token_check(const Vocabulary *v, size_t i, Err *e) {
    const Token *t = &v->token[i];
    if (t->type == UNUSED) return OK;
    if (!t->n || t->n > MAX_TOKEN)
        return err_set(e, ERR_INPUT, "%s: tokenizer.ggml.tokens: token %zu has %zu bytes, expected 1 to %d", v->g->path,
                       i, t->n, MAX_TOKEN);
    for (size_t k = 0, w; k < t->n; k += w) {
        w = utf8_length((const unsigned char *)t->s + k, t->n - k);
        if (!w) return err_set(e, ERR_INPUT, "%s: tokenizer.ggml.tokens: token %zu is not UTF-8", v->g->path, i);
    }
    return OK;
}

static int tokens_read(Vocabulary *v, Err *e) {
    const GgufValue *text, *types = NULL, *scores = NULL;
    size_t at = 0;
    void *p;
    TRY(gguf_want_array(v->g, "tokenizer.ggml.tokens", GGUF_STRING, &text, e));
    if (gguf_get(v->g, "tokenizer.ggml.token_type"))
        TRY(gguf_want_array(v->g, "tokenizer.ggml.token_type", GGUF_I32, &types, e));
    if (v->spm) TRY(gguf_want_array(v->g, "tokenizer.ggml.scores", GGUF_F32, &scores, e));
    if (!text->n || text->n > MAX_TOKENS)
        return err_set(e, ERR_INPUT, "%s: tokenizer.ggml.tokens: got %zu tokens, expected 1 to %d", v->g->path, text->n,
                       MAX_TOKENS);
    if ((types && types->n != text->n) || (scores && scores->n != text->n))
        return err_set(e, ERR_INPUT, "%s: tokenizer.ggml.tokens: %zu tokens, but as many types or scores are not there",
                       v->g->path, text->n);
    TRY(mem_alloc(&p, text->n * sizeof *v->token, "tokens", e));
    v->token = p;
    for (v->n = 0; v->n < text->n; v->n++) {
        Token *t = &v->token[v->n];
        gguf_next_str(text, &at, &t->s, &t->n);
        t->type = types ? (int)gguf_int_at(types, v->n) : NORMAL;
        t->score = scores ? (float)gguf_real_at(scores, v->n) : 0;
        TRY(token_check(v, v->n, e));
    }
    return OK;
}

/* Special tokens behind all others, without a hole before or among them; none if there is any. */
static size_t tail_find(const Vocabulary *v) {
    size_t end = v->n, tail;
    while (end && v->token[end - 1].type == UNUSED) end--;
    for (tail = end; tail && (v->token[tail - 1].type == CONTROL || v->token[tail - 1].type == USER); tail--) {}
    for (size_t i = 0; i < tail; i++)
        if (v->token[i].type == UNUSED) return v->n;
    return tail;
}

static int special_id(const Vocabulary *v, const char *key, int64_t *id, Err *e) {
    TRY(gguf_opt_int(v->g, key, -1, (int64_t)v->n - 1, id, e));
    if (*id >= 0 && v->token[*id].type == UNUSED)
        return err_set(e, ERR_INPUT, "%s: %s: token %lld is unused", v->g->path, key, (long long)*id);
    return OK;
}

/* The splitting rules that this program knows by llama.cpp's names for them. */
enum { PRE_LLAMA3, PRE_QWEN2, PRE_GPT2, PRE_DIGITS };
static const struct {
    const char *name;
    int kind;
} pres[] = {
    {"llama-bpe", PRE_LLAMA3},       {"llama3", PRE_LLAMA3}, {"llama-v3", PRE_LLAMA3}, {"qwen2", PRE_QWEN2},
    {"deepseek-r1-qwen", PRE_QWEN2}, {"gpt-2", PRE_GPT2},    {"phi-2", PRE_GPT2},      {"smollm", PRE_DIGITS},
    {"starcoder", PRE_DIGITS},       {"refact", PRE_DIGITS},
};
static int pre_kind(const Vocabulary *v) {
    for (size_t i = 0; i < sizeof pres / sizeof *pres; i++)
        if (is(v->pre, v->pre_len, pres[i].name)) return pres[i].kind;
    return -1;
}

static int rules_read(Vocabulary *v, Err *e) {
    const char *model = "";
    size_t n = 0;
    TRY(gguf_opt_str(v->g, "tokenizer.ggml.model", &model, &n, e));
    v->spm = is(model, n, "llama");
    if (!v->spm && !is(model, n, "gpt2"))
        return err_set(e, ERR_INPUT, "%s: tokenizer.ggml.model: got \"%.*s\", expected gpt2 or llama", v->g->path,
                       (int)(n < 60 ? n : 60), model);
    v->pre = "";
    TRY(gguf_opt_str(v->g, "tokenizer.ggml.pre", &v->pre, &v->pre_len, e));
    if (!v->spm && pre_kind(v) < 0) {
        err_set(e, ERR_INPUT, "%s: tokenizer.ggml.pre: got \"%.*s\", expected one of the known splitting rules",
                v->g->path, (int)(v->pre_len < 60 ? v->pre_len : 60), v->pre);
        return err_hint(e, "known: llama-bpe, qwen2, deepseek-r1-qwen, gpt-2, phi-2, smollm, starcoder, refact");
    }
    return OK;
}

static int vocabulary_open(Vocabulary *v, const Gguf *g, Err *e) {
    *v = (Vocabulary){.g = g, .bos = -1, .eos = -1, .unk = -1};
    TRY(rules_read(v, e));
    TRY(tokens_read(v, e));
    v->tail = tail_find(v);
    TRY(special_id(v, "tokenizer.ggml.bos_token_id", &v->bos, e));
    TRY(special_id(v, "tokenizer.ggml.eos_token_id", &v->eos, e));
    TRY(special_id(v, "tokenizer.ggml.unknown_token_id", &v->unk, e));
    for (size_t i = 0; v->spm && v->unk < 0 && i < v->n; i++)
        if (v->token[i].type == UNKNOWN) v->unk = (int64_t)i;
    v->add_bos = v->spm || pre_kind(v) == PRE_LLAMA3; // llama.cpp's defaults
    v->add_space = v->spm;
    TRY(gguf_opt_bool(g, "tokenizer.ggml.add_bos_token", &v->add_bos, e));
    TRY(gguf_opt_bool(g, "tokenizer.ggml.add_eos_token", &v->add_eos, e));
    TRY(gguf_opt_bool(g, "tokenizer.ggml.add_space_prefix", &v->add_space, e));
    return OK;
}

/* ---- the parts of tokenizer.json ---- */

static void put_added(JsonOut *o, const Vocabulary *v) {
    json_out_array(o, "added_tokens");
    for (size_t i = 0; i < v->n; i++) {
        const Token *t = &v->token[i];
        if (t->type != CONTROL && t->type != USER && !(v->spm && t->type == UNKNOWN)) continue;
        json_out_object(o, NULL);
        json_out_int(o, "id", (int64_t)i);
        json_out_strn(o, "content", t->s, t->n);
        json_out_bool(o, "single_word", 0);
        json_out_bool(o, "lstrip", 0);
        json_out_bool(o, "rstrip", 0);
        json_out_bool(o, "normalized", 0);
        json_out_bool(o, "special", t->type != USER);
        json_out_close(o);
    }
    json_out_close(o);
}

static void begin_part(JsonOut *o, const char *key, const char *type) {
    json_out_object(o, key);
    json_out_str(o, "type", type);
}

static void put_byte_level(JsonOut *o, const char *key, int use_regex) {
    begin_part(o, key, "ByteLevel");
    json_out_bool(o, "add_prefix_space", 0);
    json_out_bool(o, "trim_offsets", 1);
    json_out_bool(o, "use_regex", use_regex);
    json_out_close(o);
}

/* The regexes of Llama-3 and Qwen2, which differ in how many digits are one piece. */
static void put_split(JsonOut *o, int kind) {
    static const char *const regex[] = {
        [PRE_LLAMA3] =
            "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|"
            "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
        [PRE_QWEN2] =
            "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|"
            "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"};
    begin_part(o, NULL, "Split");
    json_out_object(o, "pattern");
    json_out_str(o, "Regex", regex[kind]);
    json_out_close(o);
    json_out_str(o, "behavior", "Isolated");
    json_out_bool(o, "invert", 0);
    json_out_close(o);
}

static void put_byte_steps(JsonOut *o, const Vocabulary *v) {
    const int kind = pre_kind(v);
    if (kind == PRE_QWEN2) {
        begin_part(o, "normalizer", "NFC");
        json_out_close(o);
    } else json_out_null(o, "normalizer");
    if (kind == PRE_GPT2) {
        put_byte_level(o, "pre_tokenizer", 1);
        return;
    }
    begin_part(o, "pre_tokenizer", "Sequence");
    json_out_array(o, "pretokenizers");
    if (kind == PRE_DIGITS) {
        begin_part(o, NULL, "Digits");
        json_out_bool(o, "individual_digits", 1);
        json_out_close(o);
    } else put_split(o, kind);
    put_byte_level(o, NULL, kind == PRE_DIGITS);
    json_out_close(o);
    json_out_close(o);
}

/* {type: Replace, from -> to} */
static void put_replace(JsonOut *o, const char *from, const char *to) {
    begin_part(o, NULL, "Replace");
    json_out_object(o, "pattern");
    json_out_str(o, "String", from);
    json_out_close(o);
    json_out_str(o, "content", to);
    json_out_close(o);
}

static void put_spm_steps(JsonOut *o, const Vocabulary *v) {
    begin_part(o, "normalizer", "Sequence");
    json_out_array(o, "normalizers");
    if (v->add_space) {
        begin_part(o, NULL, "Prepend");
        json_out_str(o, "prepend", META);
        json_out_close(o);
    }
    put_replace(o, " ", META);
    json_out_close(o);
    json_out_close(o);
    json_out_null(o, "pre_tokenizer");
}

static void put_spm_decoder(JsonOut *o, const Vocabulary *v) {
    begin_part(o, "decoder", "Sequence");
    json_out_array(o, "decoders");
    put_replace(o, META, " ");
    begin_part(o, NULL, "ByteFallback");
    json_out_close(o);
    begin_part(o, NULL, "Fuse");
    json_out_close(o);
    if (v->add_space) {
        begin_part(o, NULL, "Strip");
        json_out_str(o, "content", " ");
        json_out_int(o, "start", 1);
        json_out_int(o, "stop", 0);
        json_out_close(o);
    }
    json_out_close(o);
    json_out_close(o);
}

static void put_special(JsonOut *o, const Token *t) {
    json_out_object(o, NULL);
    json_out_object(o, "SpecialToken");
    json_out_strn(o, "id", t->s, t->n);
    json_out_int(o, "type_id", 0);
    json_out_close(o);
    json_out_close(o);
}

/* BOS before the text, EOS behind it, as the file says. The name of a token is a key: NUL-terminated here. */
static int put_post(JsonOut *o, const Vocabulary *v, Err *e) {
    const int64_t ids[2] = {v->add_bos ? v->bos : -1, v->add_eos && v->eos != v->bos ? v->eos : -1};
    if (ids[0] < 0 && ids[1] < 0) return json_out_null(o, "post_processor"), OK;
    begin_part(o, "post_processor", "TemplateProcessing");
    for (int pair = 0; pair < 2; pair++) {
        json_out_array(o, pair ? "pair" : "single");
        for (int part = 0; part <= pair; part++) {
            if (ids[0] >= 0) put_special(o, &v->token[ids[0]]);
            json_out_object(o, NULL);
            json_out_object(o, "Sequence");
            json_out_str(o, "id", part ? "B" : "A");
            json_out_int(o, "type_id", part);
            json_out_close(o);
            json_out_close(o);
            if (ids[1] >= 0) put_special(o, &v->token[ids[1]]);
        }
        json_out_close(o);
    }
    json_out_object(o, "special_tokens");
    for (int k = 0; k < 2; k++) {
        char *name;
        if (ids[k] < 0) continue;
        TRY(mem_strndup(&name, v->token[ids[k]].s, v->token[ids[k]].n, e));
        json_out_object(o, name);
        json_out_str(o, "id", name);
        json_out_array(o, "ids");
        json_out_int(o, NULL, ids[k]);
        json_out_close(o);
        json_out_array(o, "tokens");
        json_out_str(o, NULL, name);
        json_out_close(o);
        json_out_close(o);
        mem_free(name);
    }
    json_out_close(o);
    json_out_close(o);
    return OK;
}

/* ---- model ---- */

static int put_vocab(JsonOut *o, const Vocabulary *v, Err *e) {
    json_out_object(o, "vocab");
    for (size_t i = 0; i < v->n; i++) {
        char name[MAX_TOKEN + 1];
        const Token *t = &v->token[i];
        if (i >= v->tail || t->type == UNUSED) continue;
        if (memchr(t->s, 0, t->n))
            return err_set(e, ERR_INPUT, "%s: tokenizer.ggml.tokens: token %zu has a NUL", v->g->path, i);
        memcpy(name, t->s, t->n);
        name[t->n] = 0;
        json_out_int(o, name, (int64_t)i);
    }
    json_out_close(o);
    return OK;
}

static int put_given_merges(JsonOut *o, const Vocabulary *v, Err *e) {
    const GgufValue *m;
    size_t at = 0, n;
    const char *s;
    TRY(gguf_want_array(v->g, "tokenizer.ggml.merges", GGUF_STRING, &m, e));
    json_out_array(o, "merges");
    for (size_t i = 0; i < m->n; i++) {
        gguf_next_str(m, &at, &s, &n);
        json_out_strn(o, NULL, s, n);
    }
    json_out_close(o);
    return OK;
}

/* A merge of sentencepiece: which two tokens make a third, whose score is its rank. */
typedef struct {
    float score;
    int left, right;
    size_t left_len, right_len; /* in characters */
} Join;
typedef struct {
    Join *join;
    size_t n, cap;
} Joins;

static size_t characters(const char *s, size_t n) {
    size_t k = 0;
    for (size_t i = 0; i < n; i++) k += ((unsigned char)s[i] & 0xc0) != 0x80;
    return k;
}

/* The higher score first, then the longer left and right part, then as found: by token, by left id, by right id. */
static int join_order(const void *a, const void *b) {
    const Join *x = a, *y = b;
    if (x->score != y->score) return x->score > y->score ? -1 : 1;
    if (x->left_len != y->left_len) return x->left_len > y->left_len ? -1 : 1;
    if (x->right_len != y->right_len) return x->right_len > y->right_len ? -1 : 1;
    if (x->left != y->left) return x->left < y->left ? -1 : 1;
    return (x->right > y->right) - (x->right < y->right);
}

static int join_push(Joins *k, Join j, Err *e) {
    if (k->n == k->cap) {
        void *p = k->join;
        const size_t cap = k->cap ? 2 * k->cap : 1024;
        TRY(mem_grow(&p, k->cap * sizeof j, cap * sizeof j, "merges", e));
        k->join = p;
        k->cap = cap;
    }
    k->join[k->n++] = j;
    return OK;
}

/* Every way to cut every normal token into two normal tokens. */
static int joins_find(Joins *k, const Vocabulary *v, const Vocab *known, Err *e) {
    for (size_t i = 0; i < v->n; i++) {
        const Token *t = &v->token[i];
        if (t->type != NORMAL) continue;
        for (size_t cut = 1; cut < t->n; cut++) {
            if (((unsigned char)t->s[cut] & 0xc0) == 0x80) continue; // inside a character
            const VocabEntry *l = vocab_find(known, t->s, cut), *r = vocab_find(known, t->s + cut, t->n - cut);
            if (!l || !r) continue;
            TRY(join_push(k, (Join){t->score, l->id, r->id, characters(t->s, cut), characters(t->s + cut, t->n - cut)},
                          e));
        }
    }
    return OK;
}

static int put_scored_merges(JsonOut *o, const Vocabulary *v, Err *e) {
    Vocab known = {0};
    Joins k = {0};
    int rc = OK;
    for (size_t i = 0; i < v->n && !rc; i++)
        if (v->token[i].type == NORMAL) {
            if (vocab_find(&known, v->token[i].s, v->token[i].n))
                rc = err_set(e, ERR_INPUT, "%s: tokenizer.ggml.tokens: token %zu is there twice", v->g->path, i);
            else rc = vocab_add(&known, v->token[i].s, v->token[i].n, (int)i, 1, e);
        }
    if (!rc) rc = joins_find(&k, v, &known, e);
    if (k.n) qsort(k.join, k.n, sizeof *k.join, join_order);
    json_out_array(o, "merges");
    for (size_t i = 0; i < k.n && !rc; i++) {
        const Token *l = &v->token[k.join[i].left], *r = &v->token[k.join[i].right];
        json_out_array(o, NULL);
        json_out_strn(o, NULL, l->s, l->n);
        json_out_strn(o, NULL, r->s, r->n);
        json_out_close(o);
    }
    json_out_close(o);
    vocab_free(&known);
    mem_free(k.join);
    return rc;
}

static int put_model(JsonOut *o, const Vocabulary *v, Err *e) {
    begin_part(o, "model", "BPE");
    json_out_null(o, "dropout");
    if (v->spm && v->unk >= 0) json_out_strn(o, "unk_token", v->token[v->unk].s, v->token[v->unk].n);
    else json_out_null(o, "unk_token");
    json_out_null(o, "continuing_subword_prefix");
    json_out_null(o, "end_of_word_suffix");
    json_out_bool(o, "fuse_unk", v->spm);
    json_out_bool(o, "byte_fallback", v->spm);
    json_out_bool(o, "ignore_merges", !v->spm && pre_kind(v) == PRE_LLAMA3);
    TRY(put_vocab(o, v, e));
    TRY(v->spm ? put_scored_merges(o, v, e) : put_given_merges(o, v, e));
    json_out_close(o);
    return OK;
}

static int put_all(JsonOut *o, const Vocabulary *v, Err *e) {
    json_out_begin(o, 0);
    json_out_object(o, NULL);
    json_out_str(o, "version", "1.0");
    json_out_null(o, "truncation");
    json_out_null(o, "padding");
    put_added(o, v);
    if (v->spm) put_spm_steps(o, v);
    else put_byte_steps(o, v);
    TRY(put_post(o, v, e));
    if (v->spm) put_spm_decoder(o, v);
    else put_byte_level(o, "decoder", 1);
    TRY(put_model(o, v, e));
    json_out_close(o);
    return json_out_end(o, e);
}

/* What was made of the file's tokenizer cannot be read: said of the file, which the user has. A token that is there
 * twice is the usual reason. */
static int made_refused(const Vocabulary *v, int rc, Err *e) {
    Vocab known = {0};
    Err why = {0};
    for (size_t i = 0; rc == ERR_INPUT && i < v->n && !why.code; i++) {
        const VocabEntry *k = vocab_find(&known, v->token[i].s, v->token[i].n);
        if (k)
            err_set(&why, ERR_INPUT, "%s: tokenizer.ggml.tokens: '%.*s' is there twice: ids %d and %zu", v->g->path,
                    (int)(v->token[i].n < 80 ? v->token[i].n : 80), v->token[i].s, k->id, i);
        else vocab_add(&known, v->token[i].s, v->token[i].n, (int)i, 1, &why);
    }
    vocab_free(&known);
    if (why.code == ERR_INPUT && e) *e = why;
    else err_prefix(e, "%s", v->g->path);
    return rc;
}

int gguf_tokenizer_json(char **text, size_t *len, const Gguf *g, Err *e) {
    Vocabulary v;
    JsonOut o = {0};
    Tokenizer *check = NULL;
    *text = NULL;
    *len = 0;
    int rc = vocabulary_open(&v, g, e);
    if (!rc) rc = put_all(&o, &v, e);
    if (!rc && (rc = tokenizer_parse(&check, o.text, o.len, "its tokenizer.json", e)) != OK)
        rc = made_refused(&v, rc, e);
    tokenizer_close(check);
    mem_free(v.token);
    if (rc) json_out_free(&o);
    else *text = o.text, *len = o.len; // the text is mem_alloc'ed and now the caller's
    return rc;
}

static void put_name(JsonOut *o, const char *key, const Vocabulary *v, int64_t id) {
    if (id >= 0) json_out_strn(o, key, v->token[id].s, v->token[id].n);
}

/* One template is a string; with named ones beside it they are a list. */
static int put_chat(JsonOut *o, const Gguf *g, const char *chat, size_t n, Err *e) {
    const GgufValue *names = NULL;
    if (gguf_get(g, "tokenizer.chat_templates"))
        TRY(gguf_want_array(g, "tokenizer.chat_templates", GGUF_STRING, &names, e));
    if (!names || !names->n) {
        if (chat) json_out_strn(o, "chat_template", chat, n);
        return OK;
    }
    json_out_array(o, "chat_template");
    size_t at = 0;
    for (size_t i = 0; i <= names->n; i++) { // the default one first
        char key[128] = "default";
        const char *name = key, *text = chat;
        size_t n_name = 7, n_text = n;
        if (i) {
            text = NULL;
            gguf_next_str(names, &at, &name, &n_name);
            snprintf(key, sizeof key, "tokenizer.chat_template.%.*s", (int)(n_name < 80 ? n_name : 80), name);
            TRY(gguf_opt_str(g, key, &text, &n_text, e));
            if (!text)
                return err_set(e, ERR_INPUT, "%s: %s: missing, but tokenizer.chat_templates names it", g->path, key);
        }
        if (!text) continue;
        json_out_object(o, NULL);
        json_out_strn(o, "name", name, n_name);
        json_out_strn(o, "template", text, n_text);
        json_out_close(o);
    }
    json_out_close(o);
    return OK;
}

int gguf_tokenizer_config(char **text, size_t *len, const Gguf *g, Err *e) {
    Vocabulary v;
    JsonOut o = {0};
    const char *chat = NULL;
    size_t n = 0;
    *text = NULL;
    *len = 0;
    int rc = vocabulary_open(&v, g, e);
    if (!rc) rc = gguf_opt_str(g, "tokenizer.chat_template", &chat, &n, e);
    json_out_begin(&o, 1);
    json_out_object(&o, NULL);
    json_out_str(&o, "tokenizer_class", "PreTrainedTokenizerFast");
    if (!rc) {
        put_name(&o, "bos_token", &v, v.bos);
        put_name(&o, "eos_token", &v, v.eos);
        put_name(&o, "unk_token", &v, v.unk);
        json_out_bool(&o, "clean_up_tokenization_spaces", 0);
        rc = put_chat(&o, g, chat, n, e);
    }
    json_out_close(&o);
    if (!rc) rc = json_out_end(&o, e);
    mem_free(v.token);
    if (rc) json_out_free(&o);
    else *text = o.text, *len = o.len;
    return rc;
}
