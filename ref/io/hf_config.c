/* hf_config.c - config.json of Llama, Mistral, Qwen2 and Qwen3 -> Config. Defaults are those of transformers' config
 * classes.
 *
 * Whatever this program does not compute is refused by name: a model that loads is computed exactly as transformers
 * does. */
#include "io/hf_parts.h"
#include "io/ends.h"
#include "io/strict.h"
#include "base/file.h"
#include "model/mixer.h"
#include <stdio.h>
#include <string.h>

enum { BIG = 1 << 30 };

int hf_opt_int(const Json *j, JsonRef object, const char *key, int lo, int hi, int *out, Err *e) {
    int64_t v = *out;
    TRY(json_opt_int(j, object, key, lo, hi, &v, e));
    *out = (int)v;
    return OK;
}

static int want_int(const Json *j, const char *key, int *out, Err *e) {
    int64_t v = 0;
    TRY(json_want_int(j, json_get(j, 0, key), key, 1, BIG, &v, e));
    *out = (int)v;
    return OK;
}

static int refuse(const Json *j, const char *key, const char *found, const char *wanted, Err *e) {
    return err_set(e, ERR_INPUT, "%s: %s: got %s, expected %s", j->file, key, found, wanted);
}

static int refuse_true(const Json *j, const char *key, Err *e) {
    int on = 0;
    TRY(json_opt_bool(j, 0, key, &on, e));
    return on ? refuse(j, key, "true", "false (not supported)", e) : OK;
}

static int is_null(const Json *j, JsonRef r) { return r < 0 || json_kind(j, r) == JSON_NULL; }

/* ---- dtype, token ids ---- */

static const struct {
    const char *name;
    DType type;
} dtypes[] = {{"float32", DT_F32}, {"float16", DT_F16}, {"bfloat16", DT_BF16}, {"float64", DT_F64}};

int hf_dtype_parse(const char *name, DType *t) {
    if (!strncmp(name, "torch.", 6)) name += 6;
    for (size_t i = 0; i < sizeof dtypes / sizeof *dtypes; i++)
        if (!strcmp(dtypes[i].name, name)) return *t = dtypes[i].type, 1;
    return 0;
}

const char *hf_dtype_name(DType t) {
    for (size_t i = 0; i < sizeof dtypes / sizeof *dtypes; i++)
        if (dtypes[i].type == t) return dtypes[i].name;
    return "float32";
}

static int dtype_read(Config *c, const Json *j, Err *e) {
    const char *name = NULL;
    TRY(json_opt_str(j, 0, "torch_dtype", &name, e));
    TRY(json_opt_str(j, 0, "dtype", &name, e)); // the newer key wins
    if (name && !hf_dtype_parse(name, &c->dtype))
        return refuse(j, "dtype", name, "float32, float16, bfloat16 or float64", e);
    return OK;
}

/* One id or a list of ids; -1 and null mean none. */
static int eos_read(Config *c, const Json *j, Err *e) {
    const JsonRef r = json_get(j, 0, "eos_token_id");
    if (r < 0) return OK;
    c->n_eos = 0;
    if (json_kind(j, r) == JSON_NULL) return OK;
    const int list = json_kind(j, r) == JSON_ARRAY;
    for (JsonRef at = list ? json_first(j, r) : r; at >= 0; at = list ? json_next(j, at) : -1) {
        int64_t id = -1;
        TRY(json_want_int(j, at, "eos_token_id", -1, BIG, &id, e));
        if (id < 0) continue;
        if (c->n_eos == MAX_EOS) return err_set(e, ERR_INPUT, "%s: eos_token_id: more than %d ids", j->file, MAX_EOS);
        c->eos[c->n_eos++] = (int)id;
    }
    return OK;
}

static int token_ids_read(Config *c, const Json *j, Err *e) {
    const JsonRef bos = json_get(j, 0, "bos_token_id");
    if (bos >= 0) c->bos = -1;
    TRY(hf_opt_int(j, 0, "bos_token_id", -1, BIG, &c->bos, e));
    return eos_read(c, j, e);
}

/* ---- rotary embedding ---- */

int hf_rope_parse(Rope *r, const Json *j, JsonRef object, int max_positions, Err *e) {
    const char *type = NULL;
    double partial = 1;
    TRY(json_opt_str(j, object, "type", &type, e));
    TRY(json_opt_str(j, object, "rope_type", &type, e));
    TRY(json_opt_real(j, object, "rope_theta", &r->theta, e));
    TRY(json_opt_real(j, object, "partial_rotary_factor", &partial, e));
    if (partial != 1) return refuse(j, "partial_rotary_factor", "a part of the head", "1 (not supported)", e);
    for (JsonRef m = json_first(j, object); m >= 0; m = json_next(j, m))
        if (json_kind(j, m) == JSON_OBJECT)
            return refuse(j, "rope_parameters", "one set per layer type", "one for all layers", e);
    if (!type || !strcmp(type, "default")) return OK;
    const JsonRef factor = json_get(j, object, "factor");
    if (!strcmp(type, "linear")) {
        r->kind = ROPE_LINEAR;
        return json_want_real(j, factor, "rope_scaling.factor", &r->factor, e);
    }
    if (strcmp(type, "llama3")) return refuse(j, "rope_type", type, "default, linear or llama3", e);
    r->kind = ROPE_LLAMA3;
    r->original = max_positions; // transformers: top level, else the object's own, else the context length
    TRY(json_want_real(j, factor, "rope_scaling.factor", &r->factor, e));
    TRY(json_want_real(j, json_get(j, object, "low_freq_factor"), "rope_scaling.low_freq_factor", &r->low_freq, e));
    TRY(json_want_real(j, json_get(j, object, "high_freq_factor"), "rope_scaling.high_freq_factor", &r->high_freq, e));
    TRY(hf_opt_int(j, object, "original_max_position_embeddings", 1, BIG, &r->original, e));
    return hf_opt_int(j, 0, "original_max_position_embeddings", 1, BIG, &r->original, e);
}

static int rope_read(Config *c, const Json *j, Err *e) {
    c->rope = (Rope){.kind = ROPE_PLAIN, .theta = 10000};
    double partial = 1;
    TRY(json_opt_real(j, 0, "rope_theta", &c->rope.theta, e));
    TRY(json_opt_real(j, 0, "partial_rotary_factor", &partial, e));
    if (partial != 1) return refuse(j, "partial_rotary_factor", "a part of the head", "1 (not supported)", e);
    JsonRef r = json_get(j, 0, "rope_scaling");
    if (is_null(j, r) || !json_size(j, r)) r = json_get(j, 0, "rope_parameters");
    if (is_null(j, r)) return OK;
    if (json_kind(j, r) != JSON_OBJECT)
        return refuse(j, "rope_scaling", "something else", "an object {\"rope_type\": ...}", e);
    return hf_rope_parse(&c->rope, j, r, c->max_positions, e);
}

/* ---- sliding windows: one window for all softmax layers, or none ---- */

/* transformers: layer i slides iff i >= max_window_layers, unless layer_types says so for each layer. */
static int windows_count(const Config *c, const Json *j, int on, int *slide, Err *e) {
    int from = 28;
    TRY(hf_opt_int(j, 0, "max_window_layers", 0, BIG, &from, e));
    *slide = !on || from >= c->L ? 0 : c->L - from;
    const JsonRef types = json_get(j, 0, "layer_types");
    if (is_null(j, types)) return OK;
    if (json_kind(j, types) != JSON_ARRAY || json_size(j, types) != (size_t)c->L)
        return err_set(e, ERR_INPUT, "%s: layer_types: got %zu entries, expected a list of %d", j->file,
                       json_size(j, types), c->L);
    *slide = 0;
    for (JsonRef t = json_first(j, types); t >= 0; t = json_next(j, t)) {
        const char *name = NULL;
        TRY(json_want_str(j, t, "layer_types", &name, NULL, e));
        if (!strcmp(name, "sliding_attention")) ++*slide;
        else if (strcmp(name, "full_attention"))
            return refuse(j, "layer_types", name, "full_attention or sliding_attention", e);
    }
    return OK;
}

static int window_read(Config *c, const Json *j, int qwen, Err *e) {
    const JsonRef r = json_get(j, 0, "sliding_window");
    int window = r < 0 ? 4096 : 0, on = !qwen, slide;
    TRY(hf_opt_int(j, 0, "sliding_window", 1, BIG, &window, e));
    if (qwen) TRY(json_opt_bool(j, 0, "use_sliding_window", &on, e));
    if (!on || !window) window = 0;
    slide = window ? c->L : 0;
    if (qwen) TRY(windows_count(c, j, window > 0, &slide, e));
    if (slide && !window)
        return refuse(j, "layer_types", "sliding_attention", "full_attention: use_sliding_window is off", e);
    if (slide && slide < c->L) {
        err_set(e, ERR_INPUT, "%s: sliding_window: %d of %d layers slide, expected all or none", j->file, slide, c->L);
        return err_hint(e, "a window that differs by layer is not supported");
    }
    c->window = slide ? window : 0;
    return OK;
}

/* ---- families ---- */

int hf_common_parse(Config *c, const Json *j, const char *heads, const char *eps, Err *e) {
    TRY(want_int(j, "num_hidden_layers", &c->L, e));
    if (c->L > MAX_LAYERS)
        return err_set(e, ERR_INPUT, "%s: num_hidden_layers: got %d, expected 1 to %d", j->file, c->L, MAX_LAYERS);
    TRY(want_int(j, "hidden_size", &c->C, e));
    TRY(want_int(j, heads, &c->H, e));
    TRY(want_int(j, "vocab_size", &c->VOC, e));
    TRY(hf_opt_int(j, 0, "max_position_embeddings", 1, BIG, &c->max_positions, e));
    TRY(json_opt_real(j, 0, eps, &c->norm_eps, e));
    TRY(json_opt_bool(j, 0, "tie_word_embeddings", &c->tied, e));
    TRY(token_ids_read(c, j, e));
    TRY(dtype_read(c, j, e));
    const char *act = "silu";
    TRY(json_opt_str(j, 0, "hidden_act", &act, e));
    if (strcmp(act, "silu") && strcmp(act, "swish")) return refuse(j, "hidden_act", act, "silu or swish", e);
    if (!is_null(j, json_get(j, 0, "quantization_config")))
        return refuse(j, "quantization_config", "quantised weights", "none (F32, F16 or BF16 tensors)", e);
    return OK;
}

typedef struct {
    const char *name;
    int kv_heads, head_dim, positions; /* when absent; 0: num_attention_heads, hidden_size / num_attention_heads */
    int qkv_bias, qk_norm, window;     /* always; window: the family knows sliding_window */
    int bias_key;                      /* attention_bias is read */
    int bos, eos;
} Family;
static const Family families[] = {
    {"llama", 0, 0, 2048, 0, 0, 0, 1, 1, 2},
    {"mistral", 8, 0, 131072, 0, 0, 1, 0, 1, 2},
    {"qwen2", 32, 0, 32768, 1, 0, 2, 0, -1, -1},
    {"qwen3", 32, 128, 32768, 0, 1, 2, 1, -1, -1},
};

int hf_family_known(const char *name) {
    for (size_t i = 0; i < sizeof families / sizeof *families; i++)
        if (!strcmp(families[i].name, name)) return 1;
    return 0;
}

static int heads_read(Config *c, const Json *j, const Family *f, Err *e) {
    const JsonRef r = json_get(j, 0, "num_key_value_heads");
    c->Hk = r < 0 && f->kv_heads ? f->kv_heads : c->H;
    TRY(hf_opt_int(j, 0, "num_key_value_heads", 1, BIG, &c->Hk, e));
    c->D = f->head_dim;
    TRY(hf_opt_int(j, 0, "head_dim", 1, BIG, &c->D, e));
    if (c->D) return OK;
    if (c->C % c->H)
        return err_set(e, ERR_INPUT,
                       "%s: num_attention_heads: %d does not divide hidden_size %d, and there is no head_dim", j->file,
                       c->H, c->C);
    c->D = c->C / c->H;
    return OK;
}

static int family_parse(Config *c, const Json *j, const Family *f, Err *e) {
    snprintf(c->family, sizeof c->family, "%s", f->name);
    c->max_positions = f->positions;
    c->bos = f->bos;
    c->n_eos = f->eos >= 0;
    c->eos[0] = f->eos;
    TRY(hf_common_parse(c, j, "num_attention_heads", "rms_norm_eps", e));
    TRY(want_int(j, "intermediate_size", &c->F, e));
    TRY(heads_read(c, j, f, e));
    c->qkv_bias = f->qkv_bias;
    c->qk_norm = f->qk_norm;
    if (f->bias_key) {
        TRY(json_opt_bool(j, 0, "attention_bias", &c->o_bias, e));
        c->qkv_bias |= c->o_bias;
        TRY(refuse_true(j, "mlp_bias", e));
    }
    TRY(rope_read(c, j, e));
    if (f->window) TRY(window_read(c, j, f->window == 2, e));
    c->o_norm_eps = c->norm_eps;
    c->conv_width = 4;
    return OK;
}

int hf_config_parse(Config *c, int *fla, const Json *j, Err *e) {
    const char *type = NULL;
    memset(c, 0, sizeof *c);
    *fla = 0;
    if (json_kind(j, 0) != JSON_OBJECT) return err_set(e, ERR_INPUT, "%s: expected a JSON object", j->file);
    TRY(json_want_str(j, json_get(j, 0, "model_type"), "model_type", &type, NULL, e));
    TRY(strict_config(j, e));
    c->norm_eps = 1e-6;
    c->bos = -1;
    c->dtype = DT_F32;
    for (size_t i = 0; i < sizeof families / sizeof *families; i++)
        if (!strcmp(families[i].name, type)) return family_parse(c, j, &families[i], e);
    if (!strcmp(type, "gated_deltanet") || !strcmp(type, "gla") || !strcmp(type, "kda") || !strcmp(type, "hybridize")) {
        *fla = 1;
        return hf_fla_parse(c, j, type, e);
    }
    if (!strcmp(type, "transformer") || !strcmp(type, "student")) {
        *fla = 1;
        return hf_student_parse(c, j, type, e);
    }
    refuse(j, "model_type", type, "llama, mistral, qwen2, qwen3, gated_deltanet, gla or kda", e);
    return err_hint(e, "only these are computed exactly; convert the model to one of them");
}

int hf_config(Config *c, const char *dir, Err *e) {
    char path[1024];
    int fla, rc;
    Json j = {0};
    memset(c, 0, sizeof *c);
    TRY(hf_directory(dir, e));
    TRY(file_join(path, sizeof path, dir, "config.json", e));
    if (!file_exists(path)) return hf_no_config(dir, e);
    TRY(json_open(&j, path, e));
    rc = hf_config_parse(c, &fla, &j, e);
    if (!rc) rc = ends_add(c, &j, dir, e);
    if (!rc) rc = config_check(c, path, e);
    json_free(&j);
    if (rc) memset(c, 0, sizeof *c);
    return rc;
}
