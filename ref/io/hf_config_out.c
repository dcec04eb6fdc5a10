/* hf_config_out.c - Config -> config.json: plain transformers families for all-softmax models, fla's layout for
 * hybrids. */
#include "io/hf_parts.h"
#include "model/mixer.h"
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

typedef struct {
    char *text;
    size_t cap;
} Notes;

static void note(Notes *n, const char *fmt, ...) {
    if (!n->text) return;
    const size_t used = strlen(n->text);
    va_list ap;
    va_start(ap, fmt);
    if (used < n->cap) vsnprintf(n->text + used, n->cap - used, fmt, ap);
    va_end(ap);
}

/* The one kind of linear layer, or -1 when layers differ; 0 when all are softmax. */
static int linear_kind(const Config *c) {
    int kind = 0;
    for (int l = 0; l < c->L; l++) {
        if (!c->mixer[l]) continue;
        if (kind && kind != c->mixer[l]) return -1;
        kind = c->mixer[l];
    }
    return kind;
}

static int swa_window(const Config *c) { // 0: no layer asks for it
    for (int l = 0; l < c->L; l++)
        if (mixer_at(c->mixer[l]) == &mixer_swa_v1) return c->swa_window;
    return 0;
}

/* Whether softmax layers see positions in another way than by the plain rotary embedding. */
int hf_own_positions(const Config *c) {
    int softmax = 0;
    for (int l = 0; l < c->L; l++) softmax += !c->mixer[l];
    return softmax && (c->no_rope || c->logit_base > 0);
}

static void ids_write(JsonOut *o, const Config *c) {
    if (c->bos >= 0) json_out_int(o, "bos_token_id", c->bos);
    else json_out_null(o, "bos_token_id");
    if (c->n_eos == 0) json_out_null(o, "eos_token_id");
    if (c->n_eos == 1) json_out_int(o, "eos_token_id", c->eos[0]);
    if (c->n_eos < 2) return;
    json_out_array(o, "eos_token_id");
    for (int i = 0; i < c->n_eos; i++) json_out_int(o, NULL, c->eos[i]);
    json_out_close(o);
}

static void rope_write(JsonOut *o, const char *key, const Rope *r, int theta) {
    static const char *const names[] = {"default", "linear", "llama3"};
    json_out_object(o, key);
    json_out_str(o, "rope_type", names[r->kind]);
    if (theta) json_out_real(o, "rope_theta", r->theta);
    if (r->kind != ROPE_PLAIN) json_out_real(o, "factor", r->factor);
    if (r->kind == ROPE_LLAMA3) {
        json_out_real(o, "low_freq_factor", r->low_freq);
        json_out_real(o, "high_freq_factor", r->high_freq);
        json_out_int(o, "original_max_position_embeddings", r->original);
    }
    json_out_close(o);
}

void hf_head_write(JsonOut *o, const char *architecture, const char *type, const Config *c) {
    json_out_array(o, "architectures");
    json_out_str(o, NULL, architecture);
    json_out_close(o);
    json_out_str(o, "model_type", type);
    json_out_int(o, "hidden_size", c->C);
    json_out_int(o, "intermediate_size", c->F);
    json_out_int(o, "num_hidden_layers", c->L);
}

void hf_tail_write(JsonOut *o, const Config *c, DType dtype) {
    json_out_int(o, "max_position_embeddings", c->max_positions);
    json_out_bool(o, "tie_word_embeddings", c->tied);
    json_out_int(o, "vocab_size", c->VOC);
    ids_write(o, c);
    json_out_str(o, "torch_dtype", hf_dtype_name(dtype));
}

/* ---- all softmax: what transformers reads ---- */

static int hf_write(JsonOut *o, const Config *c, DType dtype, Err *e) {
    static const struct {
        const char *family, *architecture;
    } known[] = {{"llama", "LlamaForCausalLM"},
                 {"mistral", "MistralForCausalLM"},
                 {"qwen2", "Qwen2ForCausalLM"},
                 {"qwen3", "Qwen3ForCausalLM"}};
    const char *architecture = NULL;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (!strcmp(known[i].family, c->family)) architecture = known[i].architecture;
    if (!architecture) return err_set(e, ERR_USAGE, "cannot write family \"%s\" in transformers' layout", c->family);
    const int qwen = c->family[0] == 'q';
    hf_head_write(o, architecture, c->family, c);
    json_out_int(o, "num_attention_heads", c->H);
    json_out_int(o, "num_key_value_heads", c->Hk);
    json_out_int(o, "head_dim", c->D);
    json_out_str(o, "hidden_act", "silu");
    json_out_bool(o, "attention_bias", c->o_bias);
    json_out_bool(o, "mlp_bias", 0);
    json_out_real(o, "rms_norm_eps", c->norm_eps);
    json_out_real(o, "rope_theta", c->rope.theta);
    if (c->rope.kind == ROPE_PLAIN) json_out_null(o, "rope_scaling");
    else rope_write(o, "rope_scaling", &c->rope, 0);
    if (c->window) json_out_int(o, "sliding_window", c->window);
    else json_out_null(o, "sliding_window");
    if (qwen) json_out_bool(o, "use_sliding_window", c->window > 0);
    if (qwen) json_out_int(o, "max_window_layers", c->window ? 0 : c->L);
    hf_tail_write(o, c, dtype);
    json_out_object(o, "hybridize"); // marks the directory as ours: it may be written over
    json_out_int(o, "version", 1);
    json_out_close(o);
    return OK;
}

/* ---- hybrids: fla's fields and our member ---- */

static void attn_write(JsonOut *o, const Config *c) {
    int softmax = 0;
    for (int l = 0; l < c->L; l++) softmax += !c->mixer[l];
    if (!softmax) return json_out_null(o, "attn");
    json_out_object(o, "attn");
    json_out_array(o, "layers");
    for (int l = 0; l < c->L; l++)
        if (!c->mixer[l]) json_out_int(o, NULL, l);
    json_out_close(o);
    json_out_int(o, "num_heads", c->H);
    json_out_int(o, "num_kv_heads", c->Hk);
    json_out_bool(o, "qkv_bias", c->qkv_bias);
    if (c->window) json_out_int(o, "window_size", c->window);
    else json_out_null(o, "window_size");
    json_out_real(o, "rope_theta", c->rope.theta);
    json_out_close(o);
}

static void gdn_write(JsonOut *o, const Config *c, const char *name) {
    const int conv = !strcmp(name, "gdn_v1") || !strcmp(name, "gdn_v3"),
              gate = !strcmp(name, "gdn_v3") || !strcmp(name, "gdn_v4");
    json_out_int(o, "num_heads", c->H);
    json_out_int(o, "head_dim", c->D);
    json_out_int(o, "expand_v", 1);
    json_out_null(o, "num_v_heads");
    json_out_bool(o, "use_gate", gate);
    json_out_bool(o, "use_short_conv", conv);
    json_out_int(o, "conv_size", c->conv_width);
    json_out_bool(o, "allow_neg_eigval", 0);
}

static void kda_write(JsonOut *o, const Config *c, const char *name) {
    json_out_int(o, "num_heads", c->H);
    json_out_int(o, "head_dim", c->D);
    json_out_int(o, "expand_v", 1);
    json_out_null(o, "num_v_heads");
    const double lower = mixer_at(mixer_find(name))->gate_lower;
    json_out_bool(o, "use_short_conv", !strcmp(name, "kda_v2") || !strcmp(name, "kda_v4"));
    json_out_int(o, "conv_size", c->conv_width);
    json_out_bool(o, "allow_neg_eigval", 0);
    json_out_bool(o, "safe_gate", lower < 0);
    if (lower < 0) json_out_real(o, "lower_bound", lower);
    else json_out_null(o, "lower_bound");
}

static void gla_write(JsonOut *o, const Config *c) {
    json_out_int(o, "num_heads", c->H);
    json_out_null(o, "num_kv_heads");
    json_out_int(o, "expand_k", 1);
    json_out_int(o, "expand_v", 1);
    json_out_bool(o, "use_output_gate", 1);
    json_out_bool(o, "use_gk", 1);
    json_out_bool(o, "use_gv", 0);
    json_out_null(o, "feature_map");
    json_out_bool(o, "use_short_conv", 0);
}

static void own_write(JsonOut *o, const Config *c) {
    json_out_object(o, "hybridize");
    json_out_int(o, "version", 1);
    json_out_str(o, "family", c->family);
    json_out_array(o, "mixers");
    for (int l = 0; l < c->L; l++) json_out_str(o, NULL, mixer_at(c->mixer[l])->name);
    json_out_close(o);
    json_out_int(o, "head_dim", c->D);
    json_out_int(o, "num_key_value_heads", c->Hk);
    json_out_int(o, "window", c->window);
    if (swa_window(c)) json_out_int(o, "swa_window", c->swa_window);
    if (c->no_rope && hf_own_positions(c)) json_out_bool(o, "no_rope", 1);
    if (c->logit_base > 0 && hf_own_positions(c)) json_out_real(o, "logit_base", c->logit_base);
    json_out_int(o, "conv_width", c->conv_width);
    json_out_bool(o, "qkv_bias", c->qkv_bias);
    json_out_bool(o, "o_bias", c->o_bias);
    json_out_bool(o, "qk_norm", c->qk_norm);
    json_out_bool(o, "linear_bias", c->linear_bias);
    json_out_real(o, "o_norm_eps", c->o_norm_eps);
    rope_write(o, "rope_parameters", &c->rope, 1);
    json_out_close(o);
}

static void notes_write(Notes *n, const Config *c, const char *type) {
    int softmax = 0;
    for (int l = 0; l < c->L; l++) softmax += !c->mixer[l];
    if (!strcmp(type, "hybridize"))
        note(n, "fla has no model class for these layers: only hybridize reads this directory\n");
    if (softmax && c->no_rope) note(n, "fla's attention has a rotary embedding, this model's has none\n");
    if (softmax && c->logit_base > 0) note(n, "fla's attention does not scale its queries by position\n");
    if (softmax && !c->no_rope && c->rope.kind != ROPE_PLAIN)
        note(n, "fla's attention has no rope scaling: it would compute other angles\n");
    if (softmax && c->qk_norm) note(n, "fla's hybrid attention has no q/k norm: it would leave them out\n");
    if (softmax && c->o_bias) note(n, "fla's attention has no o_proj bias: it would leave it out\n");
    if (c->D * (int64_t)c->H != c->C)
        note(n, "head_dim is not hidden_size / num_heads: fla's attention cannot load it\n");
    if (c->linear_bias) note(n, "q/k/v biases in linear layers: fla's layers would leave them out\n");
    if (c->o_norm_eps != c->norm_eps)
        note(n, "the output norm's eps is %g; fla would use %g\n", c->o_norm_eps, c->norm_eps);
}

static int fla_write(JsonOut *o, const Config *c, DType dtype, Notes *n) {
    const int kind = linear_kind(c);
    const char *name = kind > 0 ? mixer_at(kind)->name : "", *type = "hybridize",
               *architecture = "HybridizeForCausalLM";
    if (!strncmp(name, "gdn_v", 5) && strcmp(name, "gdn_v5") && strcmp(name, "gdn_v6"))
        type = "gated_deltanet", architecture = "GatedDeltaNetForCausalLM";
    if (!strcmp(name, "gla_v1") && c->D * (int64_t)c->H == c->C) type = "gla", architecture = "GLAForCausalLM";
    if (!strncmp(name, "kda_v", 5)) type = "kda", architecture = "KDAForCausalLM";
    if (hf_own_positions(c)) type = "hybridize", architecture = "HybridizeForCausalLM";
    hf_head_write(o, architecture, type, c);
    json_out_str(o, "attn_mode", "chunk");
    json_out_null(o, "hidden_ratio");
    json_out_str(o, "hidden_act", "swish");
    if (type[0] == 'h') json_out_int(o, "num_heads", c->H);
    else if (type[1] == 'a') gdn_write(o, c, name);
    else if (type[0] == 'k') kda_write(o, c, name);
    else gla_write(o, c);
    attn_write(o, c);
    json_out_real(o, "norm_eps", c->norm_eps);
    json_out_bool(o, "fuse_norm", 1);
    json_out_bool(o, "fuse_swiglu", 1);
    json_out_bool(o, "fuse_cross_entropy", 1);
    hf_tail_write(o, c, dtype);
    own_write(o, c);
    notes_write(n, c, type);
    return OK;
}

/* ---- what was written must read back as what was meant ---- */

static int same(const Config *a, const Config *b) {
    const int hybrid = linear_kind(a) != 0;
    const Rope *r = &a->rope, *s = &b->rope;
    return !strcmp(a->family, b->family) && a->C == b->C && a->L == b->L && a->H == b->H && a->Hk == b->Hk &&
           a->D == b->D && a->F == b->F && a->VOC == b->VOC && a->qkv_bias == b->qkv_bias && a->o_bias == b->o_bias &&
           a->qk_norm == b->qk_norm && a->tied == b->tied && a->window == b->window && swa_window(a) == swa_window(b) &&
           hf_own_positions(a) == hf_own_positions(b) &&
           (!hf_own_positions(a) || (a->no_rope == b->no_rope && a->logit_base == b->logit_base)) &&
           a->max_positions == b->max_positions && a->norm_eps == b->norm_eps && a->bos == b->bos &&
           a->n_eos == b->n_eos && !memcmp(a->eos, b->eos, a->n_eos * sizeof *a->eos) &&
           !memcmp(a->mixer, b->mixer, a->L * sizeof *a->mixer) && r->kind == s->kind && r->theta == s->theta &&
           (r->kind == ROPE_PLAIN || r->factor == s->factor) &&
           (r->kind != ROPE_LLAMA3 ||
            (r->low_freq == s->low_freq && r->high_freq == s->high_freq && r->original == s->original)) &&
           (!hybrid ||
            (a->conv_width == b->conv_width && a->linear_bias == b->linear_bias && a->o_norm_eps == b->o_norm_eps));
}

static int verify(const JsonOut *o, const Config *c, Err *e) {
    Config back;
    Json j = {0};
    int fla, rc = json_parse(&j, o->text, o->len, "config.json", e);
    if (!rc) rc = hf_config_parse(&back, &fla, &j, e);
    json_free(&j);
    if (!rc && !same(c, &back))
        rc =
            err_set(e, ERR_USAGE, "config.json: family %s has no field for something in this configuration", c->family);
    return rc;
}

int hf_config_write(JsonOut *o, const Config *c, DType dtype, int fla, char *notes, size_t cap, Err *e) {
    Notes n = {notes, cap};
    if (notes && cap) *notes = 0;
    json_out_begin(o, 1);
    json_out_object(o, NULL);
    int rc = fla ? fla_write(o, c, dtype, &n) : hf_write(o, c, dtype, e);
    json_out_close(o);
    if (!rc) rc = json_out_end(o, e);
    if (!rc) rc = verify(o, c, e);
    if (rc) json_out_free(o);
    return rc;
}
