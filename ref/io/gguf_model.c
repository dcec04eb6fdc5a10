/* gguf_model.c - GGUF -> configuration and parameters. See gguf_model.h. */
#include "io/gguf_model.h"
#include "base/mem.h"
#include "io/hf_parts.h"
#include "text/tokenizer.h"
#include "io/ends.h"
#include "io/strict.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    const char *name, *family;
    int permuted, qkv_bias, qk_norm;
} Arch;
static const Arch archs[] = {{"llama", "llama", 1, 0, 0}, {"qwen2", "qwen2", 0, 1, 0}, {"qwen3", "qwen3", 0, 0, 1}};

enum { BIG = 1 << 30 };

/* ---- metadata ---- */

static void key_of(char *key, size_t cap, const Arch *a, const char *name) {
    snprintf(key, cap, "%s.%s", a->name, name);
}

/* ARCH.name; must be there when *out is 0. */
static int read_int(const Gguf *g, const Arch *a, const char *name, int *out, Err *e) {
    char key[96];
    int64_t v = *out;
    key_of(key, sizeof key, a, name);
    TRY(gguf_opt_int(g, key, 1, BIG, &v, e));
    if (!v) return err_set(e, ERR_INPUT, "%s: %s: missing", g->path, key);
    *out = (int)v;
    return OK;
}

/* A number that was written as float32 is taken as the shortest decimal that rounds to it: 1e-05, not 9.99999975e-06.
 * */
static double decimal(double v) {
    char text[32];
    for (int digits = 1; digits <= 9; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, v);
        if ((float)strtod(text, NULL) == (float)v) return strtod(text, NULL);
    }
    return v;
}

static int read_real(const Gguf *g, const Arch *a, const char *name, double *out, Err *e) {
    char key[96];
    key_of(key, sizeof key, a, name);
    TRY(gguf_opt_real(g, key, out, e));
    const GgufValue *v = gguf_get(g, key);
    if (v && v->type == GGUF_F32) *out = decimal(*out);
    return OK;
}

static int arch_find(const Gguf *g, const Arch **a, Err *e) {
    const char *s = "";
    size_t n = 0;
    TRY(gguf_opt_str(g, "general.architecture", &s, &n, e));
    for (size_t i = 0; i < sizeof archs / sizeof *archs; i++)
        if (strlen(archs[i].name) == n && !memcmp(archs[i].name, s, n)) return *a = &archs[i], OK;
    return err_set(e, ERR_INPUT, "%s: general.architecture: got \"%.*s\", expected llama, qwen2 or qwen3", g->path,
                   (int)(n < 60 ? n : 60), s);
}

double gguf_rope_divisor(const Rope *r, int i, int D) {
    const double wave = 2 * acos(-1.0) * pow(r->theta, 2.0 * i / D);
    if (wave < r->original / r->high_freq) return 1;
    if (wave > r->original / r->low_freq) return r->factor;
    const double smooth = (r->original / wave - r->low_freq) / (r->high_freq - r->low_freq);
    return 1 / ((1 - smooth) / r->factor + smooth);
}

/* rope_freqs.weight: the divisors of all frequencies, of which the last has the whole factor. */
static int rope_from_divisors(Config *c, const GgufModel *m, const GgufTensor *t, Err *e) {
    Rope r = {.kind = ROPE_LLAMA3, .theta = c->rope.theta, .low_freq = 1, .high_freq = 4, .original = 8192};
    float d;
    if (t->type != GGML_F32 || t->count != (size_t)(c->D / 2))
        return err_set(e, ERR_INPUT, "%s: tensor 'rope_freqs.weight': expected %d F32 numbers", m->g.path, c->D / 2);
    gguf_dequantise(&d, t, t->count - 1, 1);
    r.factor = decimal(d);
    for (size_t i = 0; i < t->count; i++) {
        gguf_dequantise(&d, t, i, 1);
        if (fabs(d - gguf_rope_divisor(&r, (int)i, c->D)) <= 1e-4 * fabs(d)) continue;
        err_set(e, ERR_INPUT,
                "%s: tensor 'rope_freqs.weight': element %zu is %g, which is not Llama-3's rule with factor %g",
                m->g.path, i, (double)d, r.factor);
        return err_hint(e, "only low_freq_factor 1, high_freq_factor 4, original length 8192 are recognised");
    }
    c->rope = r;
    return OK;
}

static int rope_read(Config *c, const GgufModel *m, const Arch *a, Err *e) {
    const char *type = "none";
    char key[96];
    size_t n = 4;
    double factor = 1;
    int size = c->D;
    c->rope = (Rope){.kind = ROPE_PLAIN, .theta = 10000};
    TRY(read_real(&m->g, a, "rope.freq_base", &c->rope.theta, e));
    TRY(read_real(&m->g, a, "rope.scale_linear", &factor, e));
    TRY(read_real(&m->g, a, "rope.scaling.factor", &factor, e));
    TRY(read_int(&m->g, a, "rope.dimension_count", &size, e));
    if (size != c->D)
        return err_set(e, ERR_INPUT, "%s: rope.dimension_count: got %d, expected the head size %d", m->g.path, size,
                       c->D);
    key_of(key, sizeof key, a, "rope.scaling.type");
    const int given = gguf_get(&m->g, key) != NULL;
    TRY(gguf_opt_str(&m->g, key, &type, &n, e));
    const GgufTensor *t = gguf_find(&m->g, "rope_freqs.weight");
    if (t) return rope_from_divisors(c, m, t, e);
    if (given ? n == 6 && !memcmp(type, "linear", 6) : factor != 1) {
        c->rope.kind = ROPE_LINEAR;
        c->rope.factor = factor;
        return OK;
    }
    if (n == 4 && !memcmp(type, "none", 4)) return OK;
    return err_set(e, ERR_INPUT, "%s: %s: got \"%.*s\", expected none or linear", m->g.path, key,
                   (int)(n < 60 ? n : 60), type);
}

static int token_ids_read(Config *c, const Gguf *g, Err *e) {
    static const char *const keys[] = {"eos", "eot", "eom"};
    int64_t bos = -1;
    TRY(gguf_opt_int(g, "tokenizer.ggml.bos_token_id", -1, BIG, &bos, e));
    c->bos = (int)bos;
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        char key[64];
        int64_t id = -1;
        snprintf(key, sizeof key, "tokenizer.ggml.%s_token_id", keys[i]);
        TRY(gguf_opt_int(g, key, -1, BIG, &id, e));
        TRY(ends_put(c, id, g->path, e));
    }
    return OK;
}

static int config_read(Config *c, const GgufModel *m, const Arch *a, Err *e) {
    const Gguf *g = &m->g;
    const GgufTensor *embed = gguf_find(g, "token_embd.weight");
    int size = 0, experts = 0;
    snprintf(c->family, sizeof c->family, "%s", a->family);
    TRY(strict_gguf(g, a->name, e));
    TRY(read_int(g, a, "block_count", &c->L, e));
    if (c->L > MAX_LAYERS)
        return err_set(e, ERR_INPUT, "%s: block_count: got %d, expected 1 to %d", g->path, c->L, MAX_LAYERS);
    TRY(read_int(g, a, "embedding_length", &c->C, e));
    TRY(read_int(g, a, "feed_forward_length", &c->F, e));
    TRY(read_int(g, a, "attention.head_count", &c->H, e));
    TRY(read_int(g, a, "context_length", &c->max_positions, e));
    c->Hk = c->H;
    TRY(read_int(g, a, "attention.head_count_kv", &c->Hk, e));
    c->D = c->C % c->H ? 0 : c->C / c->H;
    TRY(read_int(g, a, "attention.key_length", &c->D, e));
    size = c->D;
    TRY(read_int(g, a, "attention.value_length", &size, e));
    if (size != c->D)
        return err_set(e, ERR_INPUT, "%s: attention.value_length: got %d, expected %d", g->path, size, c->D);
    c->norm_eps = 1e-5;
    TRY(read_real(g, a, "attention.layer_norm_rms_epsilon", &c->norm_eps, e));
    experts = 1;
    TRY(read_int(g, a, "expert_count", &experts, e));
    if (experts != 1)
        return err_set(e, ERR_INPUT, "%s: expert_count: got %d, expected none (not supported)", g->path, experts);
    if (!embed || embed->rank != 2)
        return err_set(e, ERR_INPUT, "%s: tensor 'token_embd.weight': missing or not a matrix", g->path);
    if (embed->shape[0] > BIG) return err_set(e, ERR_INPUT, "%s: tensor 'token_embd.weight': too many rows", g->path);
    c->VOC = (int)embed->shape[0];
    c->tied = !gguf_find(g, "output.weight");
    c->qkv_bias = a->qkv_bias || gguf_find(g, "blk.0.attn_q.bias");
    c->o_bias = gguf_find(g, "blk.0.attn_output.bias") != NULL;
    // the family that has just these biases
    if (c->qkv_bias && !c->o_bias) snprintf(c->family, sizeof c->family, "qwen2");
    c->qk_norm = a->qk_norm;
    c->o_norm_eps = c->norm_eps;
    c->conv_width = 4;
    c->dtype = DT_F32;
    TRY(token_ids_read(c, g, e));
    TRY(rope_read(c, m, a, e));
    return config_check(c, g->path, e);
}

/* ---- parameters ---- */

int gguf_tensor_name(char *out, size_t cap, const char *fla_name) {
    static const char *const names[][2] = {
        {"attn_norm.", "attn_norm."},     {"mlp_norm.", "ffn_norm."},       {"attn.q_proj.", "attn_q."},
        {"attn.k_proj.", "attn_k."},      {"attn.v_proj.", "attn_v."},      {"attn.o_proj.", "attn_output."},
        {"attn.q_norm.", "attn_q_norm."}, {"attn.k_norm.", "attn_k_norm."}, {"mlp.gate_proj.", "ffn_gate."},
        {"mlp.up_proj.", "ffn_up."},      {"mlp.down_proj.", "ffn_down."}};
    static const char *const outer[][2] = {{"model.embeddings.weight", "token_embd.weight"},
                                           {"model.norm.weight", "output_norm.weight"},
                                           {"lm_head.weight", "output.weight"}};
    int layer, used = 0;
    for (size_t i = 0; i < sizeof outer / sizeof *outer; i++)
        if (!strcmp(outer[i][0], fla_name)) return snprintf(out, cap, "%s", outer[i][1]) < (int)cap;
    if (sscanf(fla_name, "model.layers.%d.%n", &layer, &used) != 1 || !used) return 0;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const size_t n = strlen(names[i][0]);
        if (!strncmp(names[i][0], fla_name + used, n))
            return snprintf(out, cap, "blk.%d.%s%s", layer, names[i][1], fla_name + used + n) < (int)cap;
    }
    return 0;
}

static int count_param(void *ctx, const ParamInfo *info, Param *slot) {
    (void)info, (void)slot;
    ++*(size_t *)ctx;
    return OK;
}

typedef struct {
    GgufModel *m;
    int permuted;
    Err *e;
} Listing;

static int list_param(void *ctx, const ParamInfo *info, Param *slot) {
    (void)slot;
    const Listing *k = ctx;
    GgufModel *m = k->m;
    char name[128] = "";
    const GgufTensor *t = gguf_tensor_name(name, sizeof name, info->name) ? gguf_find(&m->g, name) : NULL;
    if (!t) return err_set(k->e, ERR_INPUT, "%s: tensor '%s' is missing", m->g.path, name);
    if (t->rank != info->rank || memcmp(t->shape, info->shape, info->rank * sizeof *t->shape))
        return err_set(k->e, ERR_INPUT, "%s: tensor '%s': got shape [%zu,%zu], expected [%zu,%zu] by the metadata",
                       m->g.path, name, t->shape[0], t->rank > 1 ? t->shape[1] : 1, info->shape[0], info->shape[1]);
    if (k->permuted && strstr(info->name, "attn.q_proj.")) m->heads[m->n] = m->config.H;
    if (k->permuted && strstr(info->name, "attn.k_proj.")) m->heads[m->n] = m->config.Hk;
    m->param[m->n++] = t;
    return OK;
}

static int pointer_order(const void *a, const void *b) {
    const GgufTensor *const *x = a, *const *y = b;
    return (*x > *y) - (*x < *y);
}

/* No tensor of the file is without a use. */
static int extras_check(const GgufModel *m, Err *e) {
    void *p;
    size_t k = 0, i = 0;
    TRY(mem_alloc(&p, m->n * sizeof *m->param, "tensor list", e));
    const GgufTensor **used = p;
    memcpy(used, m->param, m->n * sizeof *used);
    qsort(used, m->n, sizeof *used, pointer_order);
    for (; i < m->g.n; i++) {
        const GgufTensor *t = &m->g.tensor[i];
        if (k < m->n && used[k] == t) k++;
        else if (t->len != 17 || memcmp(t->name, "rope_freqs.weight", 17)) break;
    }
    mem_free(p);
    if (i == m->g.n) return OK;
    return err_set(e, ERR_INPUT, "%s: tensor '%.*s' is not a parameter of this %s model", m->g.path,
                   (int)m->g.tensor[i].len, m->g.tensor[i].name, m->config.family);
}

static int params_list(GgufModel *m, const Arch *a, Err *e) {
    void *p;
    size_t n = 0, widest = 1;
    Listing k = {m, a->permuted, e};
    params_walk(&m->config, NULL, count_param, &n);
    TRY(mem_alloc(&p, n * sizeof *m->param, "tensor list", e));
    m->param = p;
    TRY(mem_alloc(&p, n * sizeof *m->heads, "tensor list", e));
    m->heads = p;
    TRY(params_walk(&m->config, NULL, list_param, &k));
    TRY(extras_check(m, e));
    for (size_t i = 0; i < m->n; i++) {
        const size_t row = m->param[i]->shape[m->param[i]->rank - 1];
        if (row > widest) widest = row;
    }
    TRY(mem_alloc(&p, widest * sizeof *m->row, "row", e));
    m->row = p;
    return OK;
}

/* Parts of a split file (llama.cpp's gguf-split: split.no, split.count) have some of the tensors each, and only the
 * first one has the metadata. */
static int split_check(const Gguf *g, Err *e) {
    int64_t count = 1, no = 0;
    TRY(gguf_opt_int(g, "split.count", 0, 65535, &count, e));
    TRY(gguf_opt_int(g, "split.no", 0, 65535, &no, e));
    if (count > 1) {
        err_set(e, ERR_INPUT, "%s: is part %d of %d of a split GGUF file, expected one whole file", g->path,
                (int)no + 1, (int)count);
        return err_hint(e, "put the parts together first: llama-gguf-split --merge FIRST-PART WHOLE.gguf");
    }
    if (g->n) return OK;
    err_set(e, ERR_INPUT, "%s: holds no tensors, only metadata (a vocabulary?)", g->path);
    return err_hint(e, "take the file with the weights");
}

int gguf_model_open(GgufModel *m, const char *path, Err *e) {
    const Arch *a = NULL;
    memset(m, 0, sizeof *m);
    int rc = gguf_open(&m->g, path, e);
    if (!rc) rc = split_check(&m->g, e);
    if (!rc) rc = arch_find(&m->g, &a, e);
    if (!rc) rc = config_read(&m->config, m, a, e);
    if (!rc) rc = params_list(m, a, e);
    if (!rc) strict_gguf_unread(&m->g, a->name, m->unread, sizeof m->unread);
    if (rc) gguf_model_close(m);
    return rc;
}

void gguf_model_close(GgufModel *m) {
    gguf_close(&m->g);
    mem_free(m->param);
    mem_free(m->heads);
    mem_free(m->row);
    memset(m, 0, sizeof *m);
}

/* ---- numbers ---- */

/* Where transformers' row stands in the file. */
static size_t row_permuted(size_t row, int heads, size_t rows) {
    const size_t D = rows / (size_t)heads, i = row % D;
    return row - i + i % (D / 2) * 2 + i / (D / 2);
}

/* Elements [at, at + n) of row `row`, all within it, in transformers' order. */
static int row_get(const GgufModel *m, size_t i, size_t row, size_t at, size_t n, DType type, void *dst, Err *e) {
    const GgufTensor *t = m->param[i];
    const size_t cols = t->shape[t->rank - 1], rows = t->count / cols;
    const size_t from = m->heads[i] && t->rank > 1 ? row_permuted(row, m->heads[i], rows) : row;
    gguf_dequantise(m->row, t, from * cols, cols);
    for (size_t k = 0; k < cols; k++)
        if (!isfinite(m->row[k]))
            return err_set(e, ERR_NUMERIC, "%s: tensor '%.*s': element %zu is %s, expected finite numbers", m->g.path,
                           (int)t->len, t->name, from * cols + k, isnan(m->row[k]) ? "NaN" : "infinite");
    if (m->heads[i] && t->rank == 1) { // a bias: its elements are permuted as the rows of its matrix are
        const size_t size = (size_t)dtype_bits(type) / 8;
        for (size_t k = 0; k < n; k++)
            dtype_convert(type, (char *)dst + k * size, DT_F32, m->row + row_permuted(at + k, m->heads[i], cols), 1);
        return OK;
    }
    dtype_convert(type, dst, DT_F32, m->row + at, n);
    return OK;
}

static int source_get(void *ctx, size_t i, DType type, size_t at, size_t n, void *dst, Err *e) {
    const GgufModel *m = ctx;
    const size_t cols = m->param[i]->shape[m->param[i]->rank - 1], size = (size_t)dtype_bits(type) / 8;
    for (size_t k; n; at += k, n -= k, dst = (char *)dst + k * size) {
        const size_t col = at % cols;
        k = cols - col < n ? cols - col : n;
        TRY(row_get(m, i, at / cols, col, k, type, dst, e));
    }
    return OK;
}

ParamSource gguf_model_source(GgufModel *m) { return (ParamSource){m, source_get}; }

void gguf_model_types(const GgufModel *m, char *text, size_t cap) {
    size_t count[64] = {0}, used = 0;
    for (size_t i = 0; i < m->g.n; i++) count[m->g.tensor[i].type & 63]++;
    *text = 0;
    for (;;) {
        int best = 0;
        for (int t = 1; t < 64; t++)
            if (count[t] > count[best]) best = t;
        if (!count[best] || used >= cap) return;
        used += (size_t)snprintf(text + used, cap - used, "%s%s %zu", used ? ", " : "", ggml_name((GgmlType)best),
                                 count[best]);
        count[best] = 0;
    }
}

/* ---- the directory ---- */

static int generation_config(JsonOut *o, const Config *c, Err *e) {
    json_out_begin(o, 1);
    json_out_object(o, NULL);
    if (c->bos >= 0) json_out_int(o, "bos_token_id", c->bos);
    if (c->n_eos == 1) json_out_int(o, "eos_token_id", c->eos[0]);
    if (c->n_eos > 1) json_out_array(o, "eos_token_id");
    for (int i = 0; c->n_eos > 1 && i < c->n_eos; i++) json_out_int(o, NULL, c->eos[i]);
    if (c->n_eos > 1) json_out_close(o);
    json_out_close(o);
    return json_out_end(o, e);
}

/* The tokenizer that is written can be read, and each of its tokens has a row. */
static int rows_check(const char *json, size_t len, const GgufModel *m, Err *e) {
    Tokenizer *t;
    TRY(tokenizer_parse(&t, json, len, m->g.path, e));
    const int rc = tokenizer_rows(t, m->config.VOC, m->g.path, e);
    tokenizer_close(t);
    return rc;
}

int gguf_model_save(GgufModel *m, const char *dir, const HfSaveOptions *o, Err *e) {
    char *tokenizer = NULL, *config = NULL;
    size_t tokenizer_len = 0, config_len = 0;
    JsonOut generation = {0};
    const ParamSource source = gguf_model_source(m);
    HfSaveOptions with = {.dtype = o->dtype, .shard_bytes = o->shard_bytes, .format = "hf", .n_files = 3};
    int rc = gguf_tokenizer_json(&tokenizer, &tokenizer_len, &m->g, e);
    if (!rc) rc = gguf_tokenizer_config(&config, &config_len, &m->g, e);
    if (!rc) rc = rows_check(tokenizer, tokenizer_len, m, e);
    if (!rc) rc = generation_config(&generation, &m->config, e);
    const HfFile files[] = {{"tokenizer.json", tokenizer, tokenizer_len},
                            {"tokenizer_config.json", config, config_len},
                            {"generation_config.json", generation.text, generation.len}};
    with.file = files;
    if (!rc) rc = hf_save_from(&m->config, &source, dir, &with, NULL, 0, e);
    json_out_free(&generation);
    mem_free(tokenizer);
    mem_free(config);
    return rc;
}
