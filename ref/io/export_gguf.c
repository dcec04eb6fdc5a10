/* export_gguf.c - a model directory as one GGUF file: metadata, tokenizer, tensors. See export.h;
 * keys as llama.cpp's gguf-py names them. */
#include "io/chat.h"
#include "io/ends.h"
#include "io/export_parts.h"
#include "base/file.h"
#include "base/mem.h"
#include "io/gguf_model.h"
#include "text/split.h"
#include "text/tokenizer.h"
#include <stdio.h>
#include <string.h>

/* ---- metadata ---- */

static void put_u32(GgufOut *g, const char *arch, const char *name, int v) {
    char key[96];
    snprintf(key, sizeof key, "%s.%s", arch, name);
    gguf_out_u32(g, key, (uint32_t)v);
}
static void put_f32(GgufOut *g, const char *arch, const char *name, double v) {
    char key[96];
    snprintf(key, sizeof key, "%s.%s", arch, name);
    gguf_out_f32(g, key, (float)v);
}

/* What qwen35 has beyond a plain decoder. The rotary sections share the frequencies out over four position axes,
 * which are equal for text; the fourth gets none. */
static void put_qwen35(GgufOut *g, const Config *c) {
    put_u32(g, "qwen35", "ssm.conv_kernel", c->conv_width);
    put_u32(g, "qwen35", "ssm.state_size", c->D);
    put_u32(g, "qwen35", "ssm.group_count", c->H);
    put_u32(g, "qwen35", "ssm.time_step_rank", c->H);
    put_u32(g, "qwen35", "ssm.inner_size", c->H * c->D);
    gguf_out_array(g, "qwen35.rope.dimension_sections", GGUF_OUT_I32, 4);
    for (int i = 0; i < 4; i++) gguf_out_item_i32(g, i < 3 ? (c->D / 2 + 2 - i) / 3 : 0);
    gguf_out_array(g, "qwen35.attention.recurrent_layers", GGUF_OUT_BOOL, (size_t)c->L);
    for (int l = 0; l < c->L; l++) gguf_out_item_bool(g, c->mixer[l] != 0);
}

static void put_config(GgufOut *g, const Config *c, const char *arch, DType dtype) {
    gguf_out_str(g, "general.architecture", arch, strlen(arch));
    gguf_out_str(g, "general.type", "model", 5);
    gguf_out_u32(g, "general.file_type", dtype == DT_F32 ? 0 : dtype == DT_F16 ? 1 : 32);
    put_u32(g, arch, "block_count", c->L);
    put_u32(g, arch, "context_length", c->max_positions);
    put_u32(g, arch, "embedding_length", c->C);
    put_u32(g, arch, "feed_forward_length", c->F);
    put_u32(g, arch, "attention.head_count", c->H);
    put_u32(g, arch, "attention.head_count_kv", c->Hk);
    put_u32(g, arch, "attention.key_length", c->D);
    put_u32(g, arch, "attention.value_length", c->D);
    put_f32(g, arch, "attention.layer_norm_rms_epsilon", c->norm_eps);
    put_f32(g, arch, "rope.freq_base", c->rope.theta);
    put_u32(g, arch, "rope.dimension_count", c->D);
    if (c->rope.kind == ROPE_LINEAR) { // the other kind is a tensor
        char key[96];
        snprintf(key, sizeof key, "%s.rope.scaling.type", arch);
        gguf_out_str(g, key, "linear", 6);
        put_f32(g, arch, "rope.scaling.factor", c->rope.factor);
    }
    put_u32(g, arch, "vocab_size", c->VOC);
    if (!strcmp(arch, "qwen35")) put_qwen35(g, c);
}

/* ---- tokenizer ---- */

typedef struct {
    const char *s;
    size_t n;
    int type;
} Token;
enum { NORMAL = 1, CONTROL = 3, USER = 4, UNUSED = 5 };

/* One step of the pre-tokenizer: *name becomes llama.cpp's name for what splits the text, *bytes 1 where bytes become
 * letters. 0: unknown. */
static int pre_step(const Json *j, JsonRef r, const char **name, int *bytes) {
    const char *type = json_str(j, json_get(j, r, "type"), NULL);
    size_t n = 0;
    const char *regex = json_str(j, json_get(j, json_get(j, r, "pattern"), "Regex"), &n);
    const SplitKind kind = regex ? split_from_regex(regex, n) : SPLIT_KINDS;
    if (!type) return 0;
    if (!strcmp(type, "ByteLevel")) {
        if (json_kind(j, json_get(j, r, "add_prefix_space")) == JSON_TRUE) return 0;
        if (!*name && json_kind(j, json_get(j, r, "use_regex")) != JSON_FALSE) *name = "gpt-2";
        return *bytes = 1;
    }
    if (!strcmp(type, "Digits") && json_kind(j, json_get(j, r, "individual_digits")) == JSON_TRUE) *name = "smollm";
    else if (kind == SPLIT_LLAMA3) *name = "llama-bpe";
    else if (kind == SPLIT_QWEN) *name = "qwen2";
    else if (kind == SPLIT_GPT2) *name = "gpt-2";
    else return 0;
    return 1;
}

/* llama.cpp's name for how this tokenizer splits text; NULL if it has none. Without merges no split matters.
 * Text is not normalised there: only Qwen2's NFC, which its own files leave out too, is let pass. */
static const char *pre_name(const Json *j) {
    const JsonRef pre = json_get(j, 0, "pre_tokenizer"), list = json_get(j, pre, "pretokenizers"),
                  norm = json_get(j, 0, "normalizer");
    const char *name = NULL, *form = json_str(j, json_get(j, norm, "type"), NULL);
    int bytes = 0;
    for (JsonRef r = list >= 0 ? json_first(j, list) : pre; r >= 0; r = list >= 0 ? json_next(j, r) : -1)
        if (!pre_step(j, r, &name, &bytes)) return NULL;
    if (!bytes) return NULL;
    if (!json_size(j, json_get(j, json_get(j, 0, "model"), "merges"))) name = "gpt-2";
    if (json_kind(j, norm) != JSON_OBJECT) return name;
    return name && form && !strcmp(form, "NFC") && !strcmp(name, "qwen2") ? name : NULL;
}

static int token_set(Token *t, int VOC, const Json *j, const char *s, size_t n, int64_t id, int type, Err *e) {
    if (id < 0 || id >= VOC)
        return err_set(e, ERR_INPUT, "%s: token id %lld, but the model has %d", j->file, (long long)id, VOC);
    t[id] = (Token){s, n, type};
    return OK;
}

/* A GGUF file has no place for what an added token takes with it or wants around it. One that is looked for in
 * normalised text is found in the text itself where normalising leaves it as it is. */
static int flags_check(const Json *j, JsonRef r, const char *s, size_t n, Err *e) {
    static const char *const flags[] = {"lstrip", "rstrip", "single_word", "normalized"};
    size_t ascii = 0;
    while (ascii < n && (unsigned char)s[ascii] < 0x80) ascii++;
    const int plain = json_kind(j, json_get(j, 0, "normalizer")) == JSON_NULL || ascii == n;
    for (int i = 0; i < 4; i++) {
        if (json_kind(j, json_get(j, r, flags[i])) != JSON_TRUE || (i == 3 && plain)) continue;
        err_set(e, ERR_USAGE, "export: format gguf cannot hold this tokenizer exactly: added token '%.80s' has %s", s,
                flags[i]);
        return err_hint(e, "the file would give other ids than the model was trained with");
    }
    return OK;
}

static int tokens_read(Token *t, int VOC, const Json *j, Err *e) {
    const JsonRef vocab = json_get(j, json_get(j, 0, "model"), "vocab"), added = json_get(j, 0, "added_tokens");
    for (JsonRef r = json_first(j, vocab); r >= 0; r = json_next(j, r)) {
        int64_t id = 0;
        size_t n;
        const char *s = json_key(j, r, &n);
        TRY(json_want_int(j, r, "model.vocab: an id", 0, VOC - 1, &id, e));
        TRY(token_set(t, VOC, j, s, n, id, NORMAL, e));
    }
    for (JsonRef r = json_first(j, added); r >= 0; r = json_next(j, r)) {
        int64_t id = 0;
        size_t n = 0;
        const char *s = NULL;
        TRY(json_want_int(j, json_get(j, r, "id"), "added_tokens: id", 0, VOC - 1, &id, e));
        TRY(json_want_str(j, json_get(j, r, "content"), "added_tokens: content", &s, &n, e));
        TRY(flags_check(j, r, s, n, e));
        TRY(token_set(t, VOC, j, s, n, id, json_kind(j, json_get(j, r, "special")) == JSON_TRUE ? CONTROL : USER, e));
    }
    return OK;
}

static void put_tokens(GgufOut *g, const Token *t, int VOC) {
    gguf_out_array(g, "tokenizer.ggml.tokens", GGUF_OUT_STR, (size_t)VOC);
    for (int i = 0; i < VOC; i++) {
        char pad[32];
        const int n = snprintf(pad, sizeof pad, "[PAD%d]", i);
        if (t[i].s) gguf_out_item_str(g, t[i].s, t[i].n);
        else gguf_out_item_str(g, pad, (size_t)n);
    }
    gguf_out_array(g, "tokenizer.ggml.token_type", GGUF_OUT_I32, (size_t)VOC);
    for (int i = 0; i < VOC; i++) gguf_out_item_i32(g, t[i].s ? t[i].type : UNUSED);
}

static int put_merges(GgufOut *g, const Json *j, Err *e) {
    const JsonRef list = json_get(j, json_get(j, 0, "model"), "merges");
    TextBuf b = {0};
    int rc = OK;
    gguf_out_array(g, "tokenizer.ggml.merges", GGUF_OUT_STR, json_size(j, list));
    for (JsonRef r = json_first(j, list); r >= 0 && !rc; r = json_next(j, r)) {
        const JsonRef left = json_kind(j, r) == JSON_ARRAY ? json_first(j, r) : r;
        size_t n = 0, m = 0;
        const char *s = json_str(j, left, &n), *u = left == r ? NULL : json_str(j, json_next(j, left), &m);
        b.len = 0;
        textbuf_put(&b, s ? s : "", n);
        if (u) textbuf_put(&b, " ", 1), textbuf_put(&b, u, m);
        rc = textbuf_end(&b, e);
        if (!rc) gguf_out_item_str(g, b.text, b.len);
    }
    textbuf_free(&b);
    return rc;
}

/* A GGUF file has room for three ends: tokenizer_config.json's eos_token first. */
static int put_ends(GgufOut *g, const Config *c, const char *from, Err *e) {
    static const char *const keys[] = {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id",
                                       "tokenizer.ggml.eom_token_id"};
    int first, used = 0;
    TRY(ends_token(&first, from, e));
    if (!config_ends(c, first)) first = c->n_eos ? c->eos[0] : -1;
    if (c->n_eos > 3) {
        err_set(e, ERR_USAGE, "export: format gguf has room for 3 ends of text, the model has %d", c->n_eos);
        return err_hint(e,
                        "take those out of eos_token_id of config.json and generation_config.json that do not matter");
    }
    if (first >= 0) gguf_out_u32(g, keys[used++], (uint32_t)first);
    for (int i = 0; i < c->n_eos; i++)
        if (c->eos[i] != first) gguf_out_u32(g, keys[used++], (uint32_t)c->eos[i]);
    return OK;
}

/* Does the tokenizer put BOS before a text? It is asked. */
static int put_specials(GgufOut *g, const Config *c, const char *from, const char *path, Err *e) {
    Tokenizer *t;
    Ids ids = {0};
    TRY(put_ends(g, c, from, e));
    TRY(tokenizer_open(&t, path, e));
    const int rc = tokenizer_encode(t, "", 0, TOKENIZE_SPECIAL, &ids, e);
    gguf_out_bool(g, "tokenizer.ggml.add_bos_token", ids.n && c->bos >= 0 && ids.id[0] == c->bos);
    if (c->bos >= 0) gguf_out_u32(g, "tokenizer.ggml.bos_token_id", (uint32_t)c->bos);
    ids_free(&ids);
    tokenizer_close(t);
    return rc;
}

static int put_vocabulary(GgufOut *g, const Config *c, const Json *j, Err *e) {
    const char *pre = pre_name(j);
    void *p;
    if (!pre || json_kind(j, json_get(j, json_get(j, 0, "model"), "byte_fallback")) == JSON_TRUE) {
        err_set(e, ERR_USAGE,
                "export: format gguf cannot hold this tokenizer: llama.cpp has no name for how it splits text");
        return err_hint(e, "byte-level BPE as Llama-3, Qwen2, GPT-2 and SmolLM have it can be written");
    }
    TRY(mem_alloc(&p, (size_t)c->VOC * sizeof(Token), "tokens", e));
    int rc = tokens_read(p, c->VOC, j, e);
    gguf_out_str(g, "tokenizer.ggml.model", "gpt2", 4);
    gguf_out_str(g, "tokenizer.ggml.pre", pre, strlen(pre));
    if (!rc) put_tokens(g, p, c->VOC);
    if (!rc) rc = put_merges(g, j, e);
    mem_free(p);
    return rc;
}

/* The default template under the key of old, others under theirs, and their names in a list. */
static int put_template(GgufOut *g, const char *from, Err *e) {
    ChatTemplates c;
    int named = 0;
    TRY(chat_open(&c, from, e));
    for (int i = 0; i < c.n; i++) {
        char key[128];
        const int main = !strcmp(c.name[i], "default");
        named += !main;
        snprintf(key, sizeof key, "tokenizer.chat_template%s%.80s", main ? "" : ".", main ? "" : c.name[i]);
        gguf_out_str(g, key, c.text[i], strlen(c.text[i]));
    }
    if (named) gguf_out_array(g, "tokenizer.chat_templates", GGUF_OUT_STR, (size_t)named);
    for (int i = 0; i < c.n; i++)
        if (strcmp(c.name[i], "default")) gguf_out_item_str(g, c.name[i], strlen(c.name[i]));
    chat_close(&c);
    return OK;
}

static int put_tokenizer(GgufOut *g, const Config *c, const char *from, Err *e) {
    char path[1200];
    Json j;
    TRY(file_join(path, sizeof path, from, "tokenizer.json", e));
    Tokenizer *t;
    TRY(tokenizer_open(&t, from, e));
    int rc = tokenizer_rows(t, c->VOC, from, e);
    tokenizer_close(t);
    TRY(rc);
    TRY(json_open(&j, path, e));
    rc = put_vocabulary(g, c, &j, e);
    json_free(&j);
    if (!rc) rc = put_specials(g, c, from, path, e);
    return rc ? rc : put_template(g, from, e);
}

/* ---- all softmax: llama, qwen2, qwen3 ---- */

typedef struct {
    OutList *l;
    const HfModel *h;
    DType dtype;
    Err *e;
} Lister;

static int list_param(void *ctx, const ParamInfo *info, Param *slot) {
    (void)slot;
    const Lister *k = ctx;
    const Config *c = &k->h->config;
    char name[128];
    OutRule r = {.kind = OUT_ROWS, .n_src = 1, .src = {hf_tensor(k->h, info->name)}, .mul = 1};
    if (!gguf_tensor_name(name, sizeof name, info->name))
        return err_set(k->e, ERR_USAGE, "export: llama.cpp has no name for %s", info->name);
    const int permuted = !strcmp(c->family, "llama") || !strcmp(c->family, "mistral");
    if (permuted && strstr(info->name, "attn.q_proj.")) r.heads = c->H;
    if (permuted && strstr(info->name, "attn.k_proj.")) r.heads = c->Hk;
    out_add(k->l, info->rank == 1 ? DT_F32 : k->dtype, info->rank, info->shape[0], info->shape[1], 0, &r, "%s", name);
    return OK;
}

static int refuse(Err *e, const char *reason) {
    err_set(e, ERR_USAGE, "export: format gguf cannot hold this model exactly: %s", reason);
    return err_hint(e, "the directory itself is what transformers loads");
}

static int softmax_list(OutList *l, const char **arch, const HfModel *h, DType dtype, Err *e) {
    const Config *c = &h->config;
    Lister k = {l, h, dtype, e};
    *arch = !strcmp(c->family, "mistral") ? "llama" : c->family;
    if (c->window) return refuse(e, "llama.cpp has no sliding window for it");
    if (c->rope.kind == ROPE_LLAMA3 && strcmp(*arch, "llama"))
        return refuse(e, "llama.cpp divides rotary frequencies in Llama only");
    if (strcmp(*arch, "llama") && (c->o_bias || (!strcmp(*arch, "qwen3") && c->qkv_bias)))
        return refuse(e, "llama.cpp has no such bias");
    TRY(out_open(l, (size_t)c->L * 16 + 4, e));
    TRY(params_walk(c, NULL, list_param, &k));
    const OutRule divisors = {.kind = OUT_ROPE, .D = (size_t)c->D, .rope = &c->rope, .mul = 1};
    if (c->rope.kind == ROPE_LLAMA3) out_add(l, DT_F32, 1, (size_t)c->D / 2, 0, 0, &divisors, "rope_freqs.weight");
    return out_scratch(l, e);
}

/* ---- the file ---- */

/* The ids that are put around a text. */
static int template_ids(Ids *ids, const Tokenizer *t, Err *e) {
    ids->n = 0;
    return tokenizer_encode(t, "", 0, TOKENIZE_SPECIAL, ids, e);
}

static int same_tokenizer(const Tokenizer *was, const Tokenizer *is, Err *e) {
    char what[256] = "";
    Ids a = {0}, b = {0};
    int rc = template_ids(&a, was, e);
    if (!rc) rc = template_ids(&b, is, e);
    if (!rc && !tokenizer_difference(was, is, what, sizeof what) &&
        (a.n != b.n || (a.n && memcmp(a.id, b.id, a.n * sizeof *a.id)))) {
        const size_t i = a.n > b.n ? b.n : 0;
        size_t len;
        const char *name = i < a.n ? tokenizer_token(was, a.id[i], &len) : NULL;
        snprintf(what, sizeof what, "%zu tokens around each text (%.80s), the file has %zu", a.n, name ? name : "none",
                 b.n);
    }
    ids_free(&a);
    ids_free(&b);
    if (rc || !what[0]) return rc;
    err_set(e, ERR_USAGE, "export: format gguf cannot hold this tokenizer exactly: %s", what);
    return err_hint(e, "the file would give other ids than the model was trained with");
}

/* The tokenizer that was written is read again and compared. */
static int read_back(const char *to, const char *from, Err *e) {
    Gguf g;
    Tokenizer *was = NULL, *is = NULL;
    char *json = NULL;
    size_t len = 0;
    TRY(gguf_open(&g, to, e));
    int rc = gguf_tokenizer_json(&json, &len, &g, e);
    if (!rc) rc = tokenizer_parse(&is, json, len, to, e);
    if (!rc) rc = tokenizer_open(&was, from, e);
    if (!rc) rc = same_tokenizer(was, is, e);
    mem_free(json);
    tokenizer_close(was);
    tokenizer_close(is);
    gguf_close(&g);
    return rc;
}

int export_gguf(const HfModel *h, const char *from, const char *to, const ExportOptions *o, Err *e) {
    const Config *c = &h->config;
    const char *arch = "qwen35";
    OutList l = {0};
    GgufOut g = {0};
    int linear = 0, softmax = 0, rc = OK;
    for (int i = 0; i < c->L; i++) linear |= c->mixer[i], softmax |= !c->mixer[i];
    if (file_exists(to)) {
        err_set(e, ERR_USAGE, "%s: exists", to);
        return err_hint(e, "choose another output file, or remove this one yourself");
    }
    if (!softmax) {
        err_set(e, ERR_USAGE,
                "export: format gguf cannot hold this model: llama.cpp stops at a qwen35 without any softmax layer");
        return err_hint(e, "nearest: --format qwen3_5 or fla");
    }
    if (linear) rc = qwen35_check(c, "gguf", e);
    if (!rc) rc = linear ? qwen35_list(&l, h, o->dtype, 1, e) : softmax_list(&l, &arch, h, o->dtype, e);
    if (!rc) put_config(&g, c, arch, o->dtype);
    if (!rc) rc = put_tokenizer(&g, c, from, e);
    if (!rc) rc = gguf_write(to, &g, l.tensor, l.n, out_fetch, &l, e);
    if (!rc && (rc = read_back(to, from, e))) file_remove(to, NULL);
    gguf_out_free(&g);
    out_close(&l);
    return rc;
}
