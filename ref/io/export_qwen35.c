/* export_qwen35.c - our Gated DeltaNet hybrids of Qwen3 in the terms of Qwen3.5. See export.h. */
#include "io/export_parts.h"
#include "model/mixer.h"
#include <stdio.h>
#include <string.h>

static int has_conv(int mixer) { return !strcmp(mixer_at(mixer)->name, "gdn_v3"); }

static int refuse(Err *e, const char *format, const char *reason, const char *nearest) {
    err_set(e, ERR_USAGE, "export: format %s cannot hold this model exactly: %s", format, reason);
    return err_hint(e, "%s", nearest);
}

int qwen35_check(const Config *c, const char *format, Err *e) {
    int softmax = 0, linear = 0;
    for (int l = 0; l < c->L; l++) {
        const char *name = mixer_at(c->mixer[l])->name;
        if (c->mixer[l]) linear++;
        else softmax++;
        if (c->mixer[l] && strcmp(name, "gdn_v3") && strcmp(name, "gdn_v4"))
            return refuse(e, format, "its linear layers are Gated DeltaNet with an output gate (gdn_v3, gdn_v4)",
                          "nearest: --format fla");
    }
    if (!linear)
        return refuse(e, format, "all layers of this model are softmax",
                      "the directory itself is what transformers loads");
    if (softmax && !c->qk_norm)
        return refuse(e, format, "its softmax layers always normalise q and k per head, which no weight can undo",
                      "nearest: --format fla");
    if (softmax && (c->qkv_bias || c->o_bias))
        return refuse(e, format, "its softmax layers have no bias here", "nearest: --format fla");
    if (c->linear_bias)
        return refuse(e, format, "its linear layers have no biases", "only hybridize's own directory keeps them");
    if (softmax && c->rope.kind != ROPE_PLAIN)
        return refuse(e, format, "rope scaling is not written", "only hybridize's own directory keeps it");
    if (softmax && c->window) return refuse(e, format, "its attention has no sliding window", "nearest: --format fla");
    if (c->o_norm_eps != c->norm_eps)
        return refuse(e, format, "it has one eps for all norms", "nearest: --format student, if it is 1e-05");
    return OK;
}

/* ---- tensors ---- */

typedef struct {
    OutList *l;
    const HfModel *h;
    DType dtype; /* of matrices */
    int gguf, layer;
} Lister;

static const Tensor *source(const Lister *k, const char *part) {
    char name[128];
    snprintf(name, sizeof name, "model.layers.%d.%s", k->layer, part);
    return hf_tensor(k->h, name);
}

static const OutRule plain = {.kind = OUT_ROWS, .n_src = 1, .mul = 1};

/* A tensor of this layer with one source, under its name in either format. */
static void put(const Lister *k, const char *from, OutRule r, DType dtype, size_t rows, size_t cols, const char *hf,
                const char *gguf) {
    if (r.n_src == 1) r.src[0] = source(k, from);
    out_add(k->l, dtype, cols ? 2 : 1, rows, cols, 0, &r, "%s%d.%s", k->gguf ? "blk." : "model.layers.", k->layer,
            k->gguf ? gguf : hf);
}

/* Norms are stored as w - 1 by transformers, as w by llama.cpp; in float32, so that nothing is lost. */
static void put_norm(const Lister *k, const char *from, size_t n, const char *hf, const char *gguf) {
    OutRule r = plain;
    if (!k->gguf) r.add = -1;
    put(k, from, r, DT_F32, n, 0, hf, gguf);
}

static void put_linear(const Lister *k) {
    const Config *c = &k->h->config;
    const size_t C = (size_t)c->C, H = (size_t)c->H, Q = H * (size_t)c->D;
    const int conv = has_conv(c->mixer[k->layer]);
    OutRule qkv = {.kind = OUT_ROWS, .n_src = 3, .mul = 1},
            taps = {.kind = conv ? OUT_ROWS : OUT_TAPS, .n_src = conv ? 3 : 0, .mul = 1}, a = plain;
    static const char *const names[3] = {"attn.q_proj.weight", "attn.k_proj.weight", "attn.v_proj.weight"};
    static const char *const convs[3] = {"attn.q_conv1d.weight", "attn.k_conv1d.weight", "attn.v_conv1d.weight"};
    for (int i = 0; i < 3; i++) {
        qkv.src[i] = source(k, names[i]);
        if (conv) taps.src[i] = source(k, convs[i]);
    }
    a.neg_exp = k->gguf; // llama.cpp stores -exp(A_log)
    put(k, "", qkv, k->dtype, 3 * Q, C, "linear_attn.in_proj_qkv.weight", "attn_qkv.weight");
    put(k, "attn.g_proj.weight", plain, k->dtype, Q, C, "linear_attn.in_proj_z.weight", "attn_gate.weight");
    put(k, "attn.b_proj.weight", plain, k->dtype, H, C, "linear_attn.in_proj_b.weight", "ssm_beta.weight");
    put(k, "attn.a_proj.weight", plain, k->dtype, H, C, "linear_attn.in_proj_a.weight", "ssm_alpha.weight");
    if (k->gguf) put(k, "", taps, DT_F32, 3 * Q, (size_t)c->conv_width, "", "ssm_conv1d.weight");
    else
        out_add(k->l, DT_F32, 3, 3 * Q, 1, (size_t)c->conv_width, &taps, "model.layers.%d.linear_attn.conv1d.weight",
                k->layer);
    put(k, "attn.dt_bias", plain, DT_F32, H, 0, "linear_attn.dt_bias", "ssm_dt.bias");
    put(k, "attn.A_log", a, DT_F32, H, 0, "linear_attn.A_log", "ssm_a");
    put(k, "attn.o_norm.weight", plain, DT_F32, (size_t)c->D, 0, "linear_attn.norm.weight", "ssm_norm.weight");
    put(k, "attn.o_proj.weight", plain, k->dtype, C, Q, "linear_attn.out_proj.weight", "ssm_out.weight");
}

static void put_softmax(const Lister *k) {
    const Config *c = &k->h->config;
    const size_t C = (size_t)c->C, D = (size_t)c->D, Q = (size_t)c->H * D, K = (size_t)c->Hk * D;
    const OutRule gated = {.kind = OUT_GATED, .n_src = 1, .D = D, .mul = 1},
                  twice = {.kind = OUT_ROWS, .n_src = 1, .mul = 2};
    put(k, "attn.q_proj.weight", gated, k->dtype, 2 * Q, C, "self_attn.q_proj.weight", "attn_q.weight");
    put(k, "attn.k_proj.weight", plain, k->dtype, K, C, "self_attn.k_proj.weight", "attn_k.weight");
    put(k, "attn.v_proj.weight", plain, k->dtype, K, C, "self_attn.v_proj.weight", "attn_v.weight");
    put_norm(k, "attn.q_norm.weight", D, "self_attn.q_norm.weight", "attn_q_norm.weight");
    put_norm(k, "attn.k_norm.weight", D, "self_attn.k_norm.weight", "attn_k_norm.weight");
    put(k, "attn.o_proj.weight", twice, k->dtype, C, Q, "self_attn.o_proj.weight", "attn_output.weight");
}

static void put_layer(const Lister *k) {
    const Config *c = &k->h->config;
    const size_t C = (size_t)c->C, F = (size_t)c->F;
    put_norm(k, "attn_norm.weight", C, "input_layernorm.weight", "attn_norm.weight");
    if (c->mixer[k->layer]) put_linear(k);
    else put_softmax(k);
    put_norm(k, "mlp_norm.weight", C, "post_attention_layernorm.weight", "post_attention_norm.weight");
    put(k, "mlp.gate_proj.weight", plain, k->dtype, F, C, "mlp.gate_proj.weight", "ffn_gate.weight");
    put(k, "mlp.up_proj.weight", plain, k->dtype, F, C, "mlp.up_proj.weight", "ffn_up.weight");
    put(k, "mlp.down_proj.weight", plain, k->dtype, C, F, "mlp.down_proj.weight", "ffn_down.weight");
}

int qwen35_list(OutList *l, const HfModel *h, DType dtype, int gguf, Err *e) {
    const Config *c = &h->config;
    const size_t C = (size_t)c->C, V = (size_t)c->VOC;
    Lister k = {l, h, dtype, gguf, 0};
    OutRule r = plain;
    TRY(out_open(l, (size_t)c->L * 16 + 3, e));
    r.src[0] = hf_tensor(h, "model.embeddings.weight");
    out_add(l, dtype, 2, V, C, 0, &r, "%s", gguf ? "token_embd.weight" : "model.embed_tokens.weight");
    for (; k.layer < c->L; k.layer++) put_layer(&k);
    r.src[0] = hf_tensor(h, "model.norm.weight");
    r.add = gguf ? 0 : -1;
    out_add(l, DT_F32, 1, C, 0, 0, &r, "%s", gguf ? "output_norm.weight" : "model.norm.weight");
    r = plain;
    r.src[0] = hf_tensor(h, "lm_head.weight");
    if (!c->tied) out_add(l, dtype, 2, V, C, 0, &r, "%s", gguf ? "output.weight" : "lm_head.weight");
    return out_scratch(l, e);
}

/* ---- config.json ---- */

int qwen35_config(JsonOut *o, const Config *c, DType dtype, Err *e) {
    json_out_begin(o, 1);
    json_out_object(o, NULL);
    hf_head_write(o, "Qwen3_5ForCausalLM", "qwen3_5_text", c);
    json_out_int(o, "num_attention_heads", c->H);
    json_out_int(o, "num_key_value_heads", c->Hk);
    json_out_int(o, "head_dim", c->D);
    json_out_str(o, "hidden_act", "silu");
    json_out_bool(o, "attention_bias", 0);
    json_out_real(o, "rms_norm_eps", c->norm_eps);
    json_out_object(o, "rope_parameters");
    json_out_str(o, "rope_type", "default");
    json_out_real(o, "rope_theta", c->rope.theta);
    json_out_real(o, "partial_rotary_factor", 1);
    json_out_array(o, "mrope_section");
    for (int i = 0; i < 3; i++) json_out_int(o, NULL, (c->D / 2 + 2 - i) / 3);
    json_out_close(o);
    json_out_bool(o, "mrope_interleaved", 1);
    json_out_close(o);
    json_out_real(o, "partial_rotary_factor", 1);
    json_out_int(o, "linear_conv_kernel_dim", c->conv_width);
    json_out_int(o, "linear_key_head_dim", c->D);
    json_out_int(o, "linear_value_head_dim", c->D);
    json_out_int(o, "linear_num_key_heads", c->H);
    json_out_int(o, "linear_num_value_heads", c->H);
    json_out_array(o, "layer_types");
    for (int l = 0; l < c->L; l++) json_out_str(o, NULL, c->mixer[l] ? "linear_attention" : "full_attention");
    json_out_close(o);
    hf_tail_write(o, c, dtype);
    json_out_object(o, "hybridize"); // marks the directory as ours: it may be written over
    json_out_int(o, "version", 1);
    json_out_close(o);
    json_out_close(o);
    return json_out_end(o, e);
}
