/* hf_fla.c - config.json of hybrids: flash-linear-attention's gated_deltanet, gla and kda, plus our member "hybridize".
 *
 * fla describes one kind of linear layer and the softmax layers (`attn.layers`); what it has no field for stands in
 * "hybridize". Where both speak of a layer's mixer they must agree. model_type "hybridize" is a hybrid that fla cannot
 * describe at all. */
#include "io/hf_parts.h"
#include "model/mixer.h"
#include <stdio.h>
#include <string.h>

enum { BIG = 1 << 30 };

static int is_null(const Json *j, JsonRef r) { return r < 0 || json_kind(j, r) == JSON_NULL; }

/* A field that must have its one supported value when it is there. */
static int only_bool(const Json *j, const char *key, int wanted, Err *e) {
    int v = wanted;
    TRY(json_opt_bool(j, 0, key, &v, e));
    if (v == wanted) return OK;
    return err_set(e, ERR_INPUT, "%s: %s: got %s, expected %s (not supported)", j->file, key, v ? "true" : "false",
                   wanted ? "true" : "false");
}
static int only_real(const Json *j, const char *key, double fallback, double wanted, Err *e) {
    double v = fallback;
    TRY(json_opt_real(j, 0, key, &v, e));
    if (v == wanted) return OK;
    return err_set(e, ERR_INPUT, "%s: %s: got %g, expected %g (not supported)", j->file, key, v, wanted);
}
static int only_null(const Json *j, const char *key, Err *e) {
    if (is_null(j, json_get(j, 0, key))) return OK;
    return err_set(e, ERR_INPUT, "%s: %s: expected null or nothing (not supported)", j->file, key);
}
static int only_int(const Json *j, JsonRef object, const char *key, int wanted, Err *e) {
    int v = wanted;
    TRY(hf_opt_int(j, object, key, 1, BIG, &v, e));
    return v == wanted ? OK : err_set(e, ERR_INPUT, "%s: %s: got %d, expected %d", j->file, key, v, wanted);
}

/* ---- which linear mixer ---- */

static int gdn_read(Config *c, const Json *j, int *mixer, Err *e) {
    int gate = 1, conv = 1;
    c->D = 256;
    TRY(hf_opt_int(j, 0, "head_dim", 1, BIG, &c->D, e));
    TRY(only_real(j, "expand_v", 2, 1, e));
    TRY(only_bool(j, "allow_neg_eigval", 0, e));
    TRY(only_int(j, 0, "num_v_heads", c->H, e));
    TRY(json_opt_bool(j, 0, "use_gate", &gate, e));
    TRY(json_opt_bool(j, 0, "use_short_conv", &conv, e));
    TRY(hf_opt_int(j, 0, "conv_size", 1, BIG, &c->conv_width, e));
    *mixer = mixer_find(gate ? (conv ? "gdn_v3" : "gdn_v4") : conv ? "gdn_v1" : "gdn_v2");
    return OK;
}

static int gla_read(Config *c, const Json *j, int *mixer, Err *e) {
    TRY(only_real(j, "expand_k", 0.5, 1, e));
    TRY(only_real(j, "expand_v", 1, 1, e));
    TRY(only_int(j, 0, "num_kv_heads", c->H, e));
    TRY(only_null(j, "feature_map", e));
    TRY(only_null(j, "clamp_min", e));
    TRY(only_bool(j, "use_short_conv", 0, e));
    TRY(only_bool(j, "use_output_gate", 1, e));
    TRY(only_bool(j, "use_gk", 1, e));
    TRY(only_bool(j, "use_gv", 0, e));
    TRY(only_bool(j, "elementwise_affine", 1, e));
    if (c->C % c->H)
        return err_set(e, ERR_INPUT, "%s: num_heads: %d does not divide hidden_size %d", j->file, c->H, c->C);
    c->D = c->C / c->H;
    *mixer = mixer_find("gla_v1");
    return OK;
}

static int kda_read(Config *c, const Json *j, int *mixer, Err *e) {
    int conv = 1, bounded = 0;
    c->D = 128;
    TRY(hf_opt_int(j, 0, "head_dim", 1, BIG, &c->D, e));
    TRY(only_real(j, "expand_v", 1, 1, e));
    TRY(only_bool(j, "allow_neg_eigval", 0, e));
    TRY(json_opt_bool(j, 0, "safe_gate", &bounded, e));
    if (bounded) TRY(only_real(j, "lower_bound", 0, mixer_kda_v3.gate_lower, e));
    else TRY(only_null(j, "lower_bound", e));
    TRY(only_int(j, 0, "num_v_heads", c->H, e));
    TRY(json_opt_bool(j, 0, "use_short_conv", &conv, e));
    TRY(hf_opt_int(j, 0, "conv_size", 1, BIG, &c->conv_width, e));
    *mixer = mixer_find(bounded ? conv ? "kda_v4" : "kda_v3" : conv ? "kda_v2" : "kda_v1");
    return OK;
}

/* ---- attn: the softmax layers ---- */

static int layers_read(Config *c, const Json *j, JsonRef layers, Err *e) {
    if (json_kind(j, layers) != JSON_ARRAY)
        return err_set(e, ERR_INPUT, "%s: attn.layers: expected a list of layer indices", j->file);
    for (JsonRef r = json_first(j, layers); r >= 0; r = json_next(j, r)) {
        int64_t l = 0;
        TRY(json_want_int(j, r, "attn.layers", 0, c->L - 1, &l, e));
        if (c->mixer[l] == 0)
            return err_set(e, ERR_INPUT, "%s: attn.layers: layer %d is listed twice", j->file, (int)l);
        c->mixer[l] = 0;
    }
    return OK;
}

static int attn_read(Config *c, const Json *j, Err *e) {
    JsonRef a = json_get(j, 0, "attn");
    if (is_null(j, a)) return OK;
    if (json_kind(j, a) == JSON_ARRAY && json_size(j, a) == 1) a = json_first(j, a);
    if (json_kind(j, a) != JSON_OBJECT)
        return err_set(e, ERR_INPUT, "%s: attn: expected one object {\"layers\": [...], ...} for all softmax layers",
                       j->file);
    int64_t heads = 0;
    TRY(layers_read(c, j, json_get(j, a, "layers"), e));
    TRY(json_want_int(j, json_get(j, a, "num_heads"), "attn.num_heads", 1, BIG, &heads, e));
    if (heads != c->H)
        return err_set(e, ERR_INPUT, "%s: attn.num_heads: got %d, expected num_heads %d", j->file, (int)heads, c->H);
    c->Hk = c->H;
    TRY(hf_opt_int(j, a, "num_kv_heads", 1, BIG, &c->Hk, e));
    TRY(json_opt_bool(j, a, "qkv_bias", &c->qkv_bias, e));
    TRY(hf_opt_int(j, a, "window_size", 1, BIG, &c->window, e));
    return json_opt_real(j, a, "rope_theta", &c->rope.theta, e);
}

/* fla: two thirds of hidden_ratio * hidden_size, rounded up to 256, when there is no intermediate_size. */
int hf_ffn_parse(Config *c, const Json *j, Err *e) {
    double ratio = 4;
    TRY(hf_opt_int(j, 0, "intermediate_size", 1, BIG, &c->F, e));
    TRY(json_opt_real(j, 0, "hidden_ratio", &ratio, e));
    if (c->F) return OK;
    const double f = c->C * ratio * 2 / 3;
    if (!(f >= 1 && f < BIG))
        return err_set(e, ERR_INPUT, "%s: intermediate_size: missing, and hidden_ratio is %g", j->file, ratio);
    c->F = ((int)f + 255) / 256 * 256;
    return OK;
}

/* ---- our own member ---- */

static int mixers_read(Config *c, const Json *j, JsonRef own, int had_attn, Err *e) {
    const JsonRef list = json_get(j, own, "mixers");
    if (json_kind(j, list) != JSON_ARRAY || json_size(j, list) != (size_t)c->L)
        return err_set(e, ERR_INPUT, "%s: hybridize.mixers: got %zu names, expected %d", j->file, json_size(j, list),
                       c->L);
    int l = 0;
    for (JsonRef r = json_first(j, list); r >= 0; r = json_next(j, r), l++) {
        const char *name = NULL;
        TRY(json_want_str(j, r, "hybridize.mixers", &name, NULL, e));
        const int mixer = mixer_find(name);
        if (mixer < 0) return err_set(e, ERR_INPUT, "%s: hybridize.mixers: unknown mixer \"%s\"", j->file, name);
        if (had_attn && mixer != c->mixer[l])
            return err_set(e, ERR_INPUT, "%s: layer %d is %s in hybridize.mixers, but %s by the fla fields", j->file, l,
                           name, mixer_at(c->mixer[l])->name);
        c->mixer[l] = mixer;
    }
    return OK;
}

static int own_read(Config *c, const Json *j, JsonRef own, int fla, Err *e) {
    const char *family = c->family;
    if (json_kind(j, own) != JSON_OBJECT) return err_set(e, ERR_INPUT, "%s: hybridize: expected an object", j->file);
    TRY(mixers_read(c, j, own, fla, e));
    TRY(json_opt_str(j, own, "family", &family, e));
    if (!hf_family_known(family))
        return err_set(e, ERR_INPUT, "%s: hybridize.family: unknown family \"%s\"", j->file, family);
    if (family != c->family) snprintf(c->family, sizeof c->family, "%s", family);
    TRY(hf_opt_int(j, own, "head_dim", 1, BIG, &c->D, e));
    TRY(hf_opt_int(j, own, "num_key_value_heads", 1, BIG, &c->Hk, e));
    TRY(hf_opt_int(j, own, "window", 0, BIG, &c->window, e));
    TRY(hf_opt_int(j, own, "swa_window", 0, BIG, &c->swa_window, e));
    TRY(json_opt_bool(j, own, "no_rope", &c->no_rope, e));
    TRY(json_opt_real(j, own, "logit_base", &c->logit_base, e));
    TRY(hf_opt_int(j, own, "conv_width", 1, BIG, &c->conv_width, e));
    TRY(json_opt_bool(j, own, "qkv_bias", &c->qkv_bias, e));
    TRY(json_opt_bool(j, own, "o_bias", &c->o_bias, e));
    TRY(json_opt_bool(j, own, "qk_norm", &c->qk_norm, e));
    TRY(json_opt_bool(j, own, "linear_bias", &c->linear_bias, e));
    TRY(json_opt_real(j, own, "o_norm_eps", &c->o_norm_eps, e));
    const JsonRef rope = json_get(j, own, "rope_parameters");
    return is_null(j, rope) ? OK : hf_rope_parse(&c->rope, j, rope, c->max_positions, e);
}

int hf_fla_parse(Config *c, const Json *j, const char *type, Err *e) {
    const JsonRef own = json_get(j, 0, "hybridize");
    int mixer = 0;
    snprintf(c->family, sizeof c->family, "llama");
    c->rope = (Rope){.kind = ROPE_PLAIN, .theta = 10000};
    c->max_positions = 2048;
    c->conv_width = 4;
    c->bos = 1;
    c->eos[0] = 2;
    c->n_eos = 1;
    TRY(hf_common_parse(c, j, "num_heads", "norm_eps", e));
    TRY(hf_ffn_parse(c, j, e));
    c->Hk = c->H;
    c->o_norm_eps = c->norm_eps;
    if (!strcmp(type, "gated_deltanet")) TRY(gdn_read(c, j, &mixer, e));
    if (!strcmp(type, "gla")) TRY(gla_read(c, j, &mixer, e));
    if (!strcmp(type, "kda")) TRY(kda_read(c, j, &mixer, e));
    for (int l = 0; l < c->L; l++) c->mixer[l] = mixer;
    if (mixer) TRY(attn_read(c, j, e));
    TRY(only_null(j, "attnres_block_size", e));
    if (own >= 0) return own_read(c, j, own, mixer != 0, e);
    if (!mixer) return err_set(e, ERR_INPUT, "%s: hybridize: missing, though model_type is \"hybridize\"", j->file);
    for (int l = 0; l < c->L; l++)
        if (!c->mixer[l] && c->D * (int64_t)c->H != c->C)
            return err_set(e, ERR_INPUT,
                           "%s: head_dim: %d heads of %d are not hidden_size %d, which fla's softmax layers need",
                           j->file, c->H, c->D, c->C);
    return OK;
}
